"""The heads of all attributes as one trainable module, their losses, and their calibration on held-out latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import SLOPE, Head
from energyql.attributes.predictions import output_count
from energyql.numerics.shapes import Float
from energyql.vocabulary import AttributeSpec, Vocabulary


@dataclass(frozen=True)
class HeadFit:
    """How a head was stopped and calibrated on held-out latents.

    Attributes:
        temperature: divisor of the logits, by calibration.
        std: residual standard deviation of a continuous attribute.
        steps: number of steps after which the head was best.
    """

    temperature: float
    std: float
    steps: int


class HeadStack(torch.nn.Module):
    """The heads of all attributes, one hidden layer of the same width each, on standardised latents.

    The outputs of the layers are multiplied by `scale` and added to `offset`, which `fit_outputs` sets: training starts
    at the base rates, and converges as fast for an age in years as for one in 0 to 1.

    `outputs` holds the number of outputs of each head, `hidden` is the width of each.
    """

    scale: Float[Tensor, " outputs"]
    offset: Float[Tensor, " outputs"]

    def __init__(self, latent_dim: int, outputs: Sequence[int], hidden: int, random: torch.Generator) -> None:
        super().__init__()
        count, total = len(outputs), sum(outputs)
        self.outputs = list(outputs)
        hidden_weight = torch.randn(count, hidden, latent_dim, generator=random) / math.sqrt(latent_dim)
        self.hidden_weight = torch.nn.Parameter(hidden_weight)
        self.hidden_bias = torch.nn.Parameter(torch.zeros(count, hidden))
        self.out_weight = torch.nn.Parameter(torch.randn(total, hidden, generator=random) / math.sqrt(hidden))
        self.skip_weight = torch.nn.Parameter(torch.zeros(total, latent_dim))
        self.out_bias = torch.nn.Parameter(torch.zeros(total))
        self.register_buffer("scale", torch.ones(total))
        self.register_buffer("offset", torch.zeros(total))

    def fit_outputs(self, i: int, labels: Tensor, spec: AttributeSpec, *, balanced: bool = False) -> None:
        """Start head i at the base rate of its labels, or at equal probabilities if classes are balanced."""
        rows = self.rows(i)
        self.scale[rows], self.offset[rows] = base_outputs(labels, spec, balanced=balanced)

    def forward(self, x: Float[Tensor, "batch latent_dim"]) -> Float[Tensor, "batch outputs"]:
        """Map standardised latents to the outputs of all heads side by side."""
        # One product for the hidden layers of all heads.
        hidden = F.leaky_relu(F.linear(x, self.hidden_weight.flatten(0, 1), self.hidden_bias.flatten()), SLOPE)
        hidden = hidden.unflatten(1, (len(self.outputs), -1))
        parts = [hidden[:, i] @ weight.T for i, weight in enumerate(self.out_weight.split(self.outputs))]
        outputs = torch.cat(parts, 1) + F.linear(x, self.skip_weight, self.out_bias)
        return outputs * self.scale + self.offset

    def rows(self, i: int) -> slice:
        """Return the positions of the outputs of head i."""
        start = sum(self.outputs[:i])
        return slice(start, start + self.outputs[i])

    def copy_head(self, i: int, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        """Copy head i from one set of parameters to another."""
        for name in source:
            where: int | slice = i if name.startswith("hidden") else self.rows(i)
            target[name][where] = source[name][where]

    def head(self, i: int, parameters: Mapping[str, Tensor], mean: Tensor, std: Tensor) -> Head:
        """Return head i of `parameters` for latents that are not standardised by mean and std (latent_dim,)."""
        rows = self.rows(i)
        scale = self.scale[rows]
        hidden_weight = parameters["hidden_weight"][i] / std
        skip_weight = scale[:, None] * parameters["skip_weight"][rows] / std
        return Head(
            hidden_weight,
            parameters["hidden_bias"][i] - hidden_weight @ mean,
            scale[:, None] * parameters["out_weight"][rows],
            skip_weight,
            scale * parameters["out_bias"][rows] + self.offset[rows] - skip_weight @ mean,
            torch.ones((), device=mean.device),
        )


def base_outputs(
    labels: Float[Tensor, " batch"], spec: AttributeSpec, *, balanced: bool = False
) -> tuple[Float[Tensor, " outputs"], Float[Tensor, " outputs"]]:
    """Return the scale of the outputs of an attribute, and the outputs that predict the base rate of its labels.

    With `balanced`, all classes are predicted with equal probabilities.
    """
    known, count = labels[~labels.isnan()], output_count(spec)
    scale, offset = torch.ones(count, device=labels.device), torch.zeros(count, device=labels.device)
    if spec.kind == "continuous":
        scale[0] = known.std(correction=0).clamp(min=1e-3 * (spec.high - spec.low))
        offset[0] = known.mean()
    elif not balanced:
        # Half a label more of each class keeps the logit of an absent class finite.
        shares = torch.bincount(known.long(), minlength=max(2, count)).float() + 0.5
        logs = (shares / shares.sum()).log()
        offset = logs if spec.kind == "categorical" else (logs[1:] - logs[:1])
    return scale, offset


def attribute_loss(
    outputs: Float[Tensor, "batch outputs"],
    labels: Float[Tensor, " batch"],
    spec: AttributeSpec,
    weights: Float[Tensor, " classes"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean negative log-likelihood of the labelled rows, in nats.

    For a continuous attribute it is half the squared error in units of a tenth of the range. A label is a class index,
    0 or 1, or a number; NaN where missing. `weights` are those of the labels of each class, equal by default.
    """
    known = ~labels.isnan()
    outputs, labels = outputs[known], labels[known]
    if not len(labels):
        return outputs.sum()
    if spec.kind == "continuous":
        return 0.5 * ((outputs[:, 0] - labels) / (0.1 * (spec.high - spec.low))).square().mean()
    if spec.kind == "categorical":
        losses = F.cross_entropy(outputs, labels.long(), reduction="none")
    else:
        losses = F.binary_cross_entropy_with_logits(outputs[:, 0], labels, reduction="none")
    return losses.mean() if weights is None else (losses * weights[labels.long()]).mean()


def balanced_accuracy(outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> float:
    """Return the mean recall of the classes present; for a continuous attribute 1 - mean absolute error / range."""
    known = ~labels.isnan()
    outputs, labels = outputs[known], labels[known]
    if spec.kind == "continuous":
        return 1 - ((outputs[:, 0] - labels).abs().mean() / (spec.high - spec.low)).item()
    decided = outputs.argmax(1) if spec.kind == "categorical" else (outputs[:, 0] > 0).long()
    classes = labels.long().unique()
    return torch.stack([(decided[labels == k] == k).float().mean() for k in classes]).mean().item()


def temperature(outputs: Tensor, labels: Tensor, spec: AttributeSpec, candidates: int = 81) -> tuple[float, float]:
    """Return the divisor of the logits, from 0.1 to 10, with the lowest loss (Guo et al. 2017, arXiv 1706.04599).

    Returns:
        The divisor, 1 for a continuous attribute, and the loss with it.
    """
    if spec.kind == "continuous":
        return 1.0, attribute_loss(outputs, labels, spec).item()
    divisors = torch.logspace(-1, 1, candidates).tolist()
    losses = [attribute_loss(outputs / divisor, labels, spec).item() for divisor in divisors]
    best = min(losses)
    return float(divisors[losses.index(best)]), best


def residual(outputs: Float[Tensor, "batch outputs"], labels: Float[Tensor, " batch"], spec: AttributeSpec) -> float:
    """Return the root mean square error of a continuous attribute, never 0; 1 for the other kinds."""
    if spec.kind != "continuous":
        return 1.0
    error = outputs[:, 0] - labels
    return max(error[~error.isnan()].square().mean().sqrt().item(), 1e-6 * (spec.high - spec.low))


def residuals(
    outputs: Float[Tensor, "batch outputs"], labels: Mapping[str, Float[Tensor, " batch"]], vocabulary: Vocabulary
) -> dict[str, Float[Tensor, ""]]:
    """Return the root mean square error of each attribute, as `residual` has it; 1 where no label is known."""
    found = {}
    parts = outputs.split([output_count(spec) for spec in vocabulary.values()], 1)
    for part, (name, spec) in zip(parts, vocabulary.items(), strict=True):
        known = not labels[name].isnan().all()
        found[name] = torch.tensor(residual(part, labels[name], spec) if known else 1.0)
    return found


def balancing_weights(labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " classes"]:
    """Return weights of the classes that make all classes count equally, with mean 1 over the labels.

    A loss with weights c is lowest at probabilities proportional to c p, so logits minus log c are those of p.
    """
    counts = torch.bincount(labels[~labels.isnan()].long(), minlength=max(2, output_count(spec))).float()
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, 1.0)


def log_prior_shift(weights: Float[Tensor, " classes"], spec: AttributeSpec) -> Float[Tensor, " outputs"]:
    """Return the shift of the outputs of a head that was fitted with `weights`."""
    return weights.log() if spec.kind == "categorical" else (weights[1] / weights[0]).log().reshape(1)
