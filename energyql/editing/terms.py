"""Terms of the energy that an edit or an inversion minimises.

Values are in nats, one for each sample, lower is better; gradients are analytic. docs/decisions/editing.md compares the
two terms that keep attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import RawOutputs
from energyql.attributes.labels import ImageLabeller, call_labeller, encode_column, read_images
from energyql.attributes.predictions import PREDICTIONS, Prediction, output_count
from energyql.editing.latents import EditedW, Embed, Latents, LatentSpace, mean_offset
from energyql.energy.query_energy import QueryEnergy
from energyql.errors import ArgumentError
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.pullback import Back, by_autograd, inverse_norm, normalized_back
from energyql.pipeline.model import Values
from energyql.pipeline.result import concatenate
from energyql.sampling import Energy, GradientEnergy
from energyql.vocabulary import Vocabulary

Variable = Literal["z", "w", "latent"]
"""Variable of the gradient of a term: z, w as mapped from z, or the latent that the heads read."""


@dataclass(frozen=True, slots=True, eq=False)
class TermInput:
    """Latents of a batch at which terms are evaluated.

    Attributes:
        rows: numbers of the samples, (batch,).
        z: (batch, z_dim).
        w: w as mapped from z, (batch, w_dim); `None` if no term needs it.
        latent: the latents that the heads read, (batch, latent_dim).
    """

    rows: Tensor
    z: Tensor
    w: Tensor | None
    latent: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One term of the energy.

    Attributes:
        variable: the variable of the gradients.
        evaluate: maps the latents of a batch to values (batch,) and gradients of the shape of the variable.
    """

    variable: Variable
    evaluate: Callable[[TermInput], tuple[Tensor, Tensor]]


def query_term(energy: QueryEnergy, weight: float) -> Term:
    """Return the term `weight * energy`, where `energy` is a function of the latents that the heads read."""

    def evaluate(at: TermInput) -> tuple[Tensor, Tensor]:
        value, gradient = energy.gradient(at.latent)
        return weight * value, weight * gradient

    return Term("latent", evaluate)


def distance_term(variable: Variable, start: Tensor, weight: float) -> Term:
    """Return the term `weight * |x - x0|²`, the negative logarithm of a Gaussian around the start.

    Args:
        variable: "z" or "w", of which x is the value.
        start: x0 of all samples, (n, ...); z is scaled by `LatentSpace.scaled`.
        weight: the weight.
    """

    def evaluate(at: TermInput) -> tuple[Tensor, Tensor]:
        x = at.z if variable == "z" else at.w
        assert x is not None
        difference = x - start[at.rows]
        return weight * difference.square().flatten(1).sum(1), 2 * weight * difference

    return Term(variable, evaluate)


def shell_term(weight: float) -> Term:
    """Return the term `weight * (|z| - sqrt(z_dim))²`: nearly all z of the prior have a length near sqrt(z_dim)."""

    def evaluate(at: TermInput) -> tuple[Tensor, Tensor]:
        length = at.z.norm(dim=1).clamp_min(1e-6)
        excess = length - at.z.shape[1] ** 0.5
        return weight * excess.square(), (2 * weight * excess / length)[:, None] * at.z

    return Term("z", evaluate)


def keep_predictions(raw: RawOutputs, before: Tensor, weights: Tensor) -> Term:
    """Return the term `Σ_a weight_a KL(P(a | z0) || P(a | z))`, which keeps the heads' predictions at the start z0.

    Certain predictions stay certain, uncertain ones stay uncertain.

    Args:
        raw: the heads.
        before: outputs of the heads at z0, (n, outputs).
        weights: weight of each attribute in each sample, (n, attributes); 0 if it may change.
    """
    blocks = _blocks(raw, before)

    def evaluate(outputs: Tensor, kept: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        gradient, value = torch.zeros_like(outputs), torch.zeros_like(outputs[:, 0])
        for kind, columns, attributes, std in blocks:
            weight = weights[:, attributes]
            divergence, slope = kind.divergence(outputs[:, columns], kept[:, columns], std)
            value = value + (weight * divergence).sum(1)
            gradient[:, columns] = weight * slope
        return value, gradient

    return _of_outputs(raw, before, weights, evaluate)


def keep_logits(raw: RawOutputs, before: Tensor, weights: Tensor) -> Term:
    """Return the term `Σ_a weight_a |logits_a - logits_a0|²`, as published (Nie et al. 2021).

    For a continuous attribute it compares the means. The arguments are those of `keep_predictions`.
    """
    counts = torch.tensor([output_count(spec) for spec in raw.specs], device=before.device)
    weights = weights.repeat_interleave(counts, dim=1)

    def evaluate(outputs: Tensor, kept: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        difference = outputs - kept
        return (weights * difference.square()).sum(1), 2 * weights * difference

    return _of_outputs(raw, before, weights, evaluate)


def _of_outputs(
    raw: RawOutputs,
    before: Tensor,
    weights: Tensor,
    evaluate: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> Term:
    """Return a term that is a function of the outputs of heads. The value of a sample does not depend on its batch.

    Args:
        raw: the heads.
        before: outputs of the heads at the start, (n, outputs).
        weights: (n, numbers).
        evaluate: maps outputs, outputs at the start, and weights of some samples to values (batch,) and their gradients
            with respect to the outputs.
    """

    def in_batch(joined: Tensor) -> tuple[Tensor, Tensor]:
        latent, kept, weight = joined.tensor_split(starts, 1)
        # A copy, because products of rows that are not aligned round differently on some processors.
        outputs, back = raw.function.pullback(latent.contiguous())
        value, gradient = evaluate(outputs, kept, weight)
        return value, back(gradient)

    def of_rows(at: TermInput) -> tuple[Tensor, Tensor]:
        joined = torch.cat([at.latent, before[at.rows], weights[at.rows]], 1)
        value, gradient = in_batches(in_batch, joined, few_sizes(len(joined)))
        return value, gradient

    starts = (-before.shape[1] - weights.shape[1], -weights.shape[1])
    return Term("latent", of_rows)


def keep_identity(
    embed: Embed, synthesize: Callable[[Tensor], Tensor], w_of: EditedW, before: Tensor, weight: float
) -> Term:
    """Return the term `weight * (1 - cos(embed(picture), embed(old picture)))`, with gradients by autograd.

    Args:
        embed: maps pictures to features.
        synthesize: maps w to pictures.
        w_of: maps w as mapped from z, and the numbers of its samples, to the w of the pictures; see `edited_w`.
        before: features of the old pictures, (n, features).
        weight: the weight.
    """

    def evaluate(at: TermInput) -> tuple[Tensor, Tensor]:
        def distance(w: Tensor) -> Tensor:
            features = flat_features(embed, synthesize(w_of(w, at.rows)))
            return weight * (1 - F.cosine_similarity(features, before[at.rows].clone(), dim=1))

        assert at.w is not None
        value, back = by_autograd(distance, at.w)
        return value, back(torch.ones_like(value))

    return Term("w", evaluate)


def edit_energy(space: LatentSpace, before: Latents, terms: Sequence[Term]) -> Energy:
    """Return the sum of terms as a function of z and the numbers of its samples.

    If the length of z is free, terms are evaluated at z scaled to length sqrt(z_dim).

    Args:
        space: the latent space.
        before: latents of all samples at the start.
        terms: the terms.
    """
    shift = mean_offset(before.offset)
    latent_is: Variable = "w" if space.heads_read_w else "latent"
    needs_w = space.heads_read_w or any(term.variable == "w" for term in terms)

    def total(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        w, backs = None, dict[Variable, Back]()
        if needs_w:
            w, backs["w"] = space.pullback(z)
        if w is not None and space.heads_read_w:
            latent = w if shift is None else w + shift[rows]
        else:
            latent, backs["latent"] = space.view(z)
        at = TermInput(rows, z, w, latent)
        value = torch.zeros_like(z[:, 0])
        sums: dict[Variable, Tensor] = {"z": torch.zeros_like(z)}
        for term in terms:
            part, gradient = term.evaluate(at)
            value = value + part
            variable = latent_is if term.variable == "latent" else term.variable
            sums[variable] = sums[variable] + gradient if variable in sums else gradient
        z_gradient = sums.pop("z")
        for variable, gradient in sums.items():
            z_gradient = z_gradient + backs[variable](gradient)
        return value, z_gradient

    def scaled_total(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        scale = inverse_norm(z)
        scaled = z * scale
        value, gradient = total(scaled, rows)
        return value, normalized_back(gradient, scaled, scale)

    return GradientEnergy(scaled_total if space.length_is_free else total)


def flat_features(embed: Embed, images: Tensor) -> Tensor:
    """Return the features of pictures, (batch, features).

    Args:
        embed: the embedding module.
        images: pictures in [-1, 1], (batch, channels, height, width).

    Raises:
        ArgumentError: the embedding module returns no tensor (batch, ...).
    """
    features = embed(images)
    if not isinstance(features, Tensor) or features.ndim < 2 or len(features) != len(images):
        raise ArgumentError(
            f"an embedding module must return a tensor (batch, features), not {type(features).__name__}"
            + (f" of shape {tuple(features.shape)}" if isinstance(features, Tensor) else "")
        )
    return features.flatten(1)


_Block = tuple[type[Prediction], Tensor, Tensor, Tensor]
"""Outputs of one kind: the kind; their columns; numbers of the attributes; standard deviation of their residuals."""


def _blocks(raw: RawOutputs, like: Tensor) -> list[_Block]:
    """Return a block for each attribute of several outputs, then one for all others of each kind.

    Args:
        raw: the heads.
        like: a tensor of the type and device of the standard deviations.
    """
    starts = [0, *accumulate(map(output_count, raw.specs))]
    blocks = []
    for name, kind in sorted(PREDICTIONS.items(), key=lambda item: item[1].elementwise):
        of_kind = [i for i, spec in enumerate(raw.specs) if spec.kind == name]
        for members in ([of_kind] if of_kind else []) if kind.elementwise else [[i] for i in of_kind]:
            columns = [column for i in members for column in range(starts[i], starts[i + 1])]
            std = [float(raw.std.get(raw.specs[i].name, 1.0)) for i in members]
            which, whose = (torch.tensor(numbers, device=like.device) for numbers in (columns, members))
            blocks.append((kind, which, whose, like.new_tensor(std)))
    return blocks


TARGET_LOGIT = 6.0
"""Log-odds that the heads should predict for a value that the judge reads."""
CLEAR = 0.95
"""Least probability of a value for the judge's reading to count; a less certain reading is often wrong."""
AT_ONCE = 64
"""Number of pictures that the judge reads in one batch."""


def attribute_terms(targets: Tensor, space: LatentSpace) -> list[Term]:
    """Return a term that leads the heads to the values that the judge clearly reads off pictures; none without judge.

    Args:
        targets: n pictures in [-1, 1], (n, channels, height, width).
        space: the latent space of the model.
    """
    judge, names = space.model.judge, space.model.judged_names
    if judge is None or not names:
        return []
    vocabulary = Vocabulary(space.model.vocabulary[name] for name in names)
    parts = [_read(judge, part, vocabulary) for part in targets.split(AT_ONCE)]
    values, clear = concatenate([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    outputs = _as_outputs(values, space.model.vocabulary).to(targets)
    return [keep_predictions(space.bank.raw_outputs(tuple(values)), outputs, clear.to(targets))]


@torch.inference_mode()
def _read(judge: ImageLabeller, images: Tensor, vocabulary: Vocabulary) -> tuple[Values, Tensor]:
    """Return the values that a judge reads off n pictures, and whether each is clear, (n, attributes) bool.

    A judge that gives no probabilities is always clear.
    """
    read, columns = call_labeller(judge, images, "the judge"), []
    values = read_images(lambda _: read, images, vocabulary)
    for name in values:
        prediction = read[name]
        has_certainty = isinstance(prediction, Prediction)
        probability = prediction.certainty() if has_certainty else images.new_ones(len(images))
        columns.append(probability.to(images.device) >= CLEAR)
    return values, torch.stack(columns, 1)


def _as_outputs(values: Values, vocabulary: Vocabulary) -> Tensor:
    """Return outputs of heads, (n, outputs), that predict these values of n samples with certainty."""
    columns = []
    for name in values:
        spec = vocabulary[name]
        numbers = encode_column(values[name].tolist(), spec)
        # Twice as large where each class has a logit, since that of yes is plus or minus `TARGET_LOGIT`.
        logit = TARGET_LOGIT * min(2, output_count(spec))
        columns.append(PREDICTIONS[spec.kind].certain(numbers, spec, logit))
    return torch.cat(columns, 1)
