"""Cheap approximations, on z, of the heads of a model, with which samplers and edits quickly find starting points.

A read-out is a linear head on z: attributes of StyleGANs are close to linear in the latents (Shen et al. 2020,
InterFaceGAN, arXiv 1907.10786). If a head is far from linear in z, its read-out predicts probabilities near 1/2, or a
large standard deviation.

A small network has one hidden layer on a few directions of z: those to which the probabilities of its head are
sensitive (an active subspace, Constantine, Dow and Wang 2014, "Active subspace methods in theory and practice", SIAM J.
Sci. Comput. 36). Both are fitted to a head's probabilities or means for draws from the prior (distillation, Hinton,
Vinyals and Dean 2015, arXiv 1503.02531).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import SLOPE, AttributeBank, Head, RawOutputs
from energyql.attributes.predictions import output_count
from energyql.errors import ArgumentError
from energyql.kinds import KINDS
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.pool import to_cpu
from energyql.numerics.pullback import leaky_relu_back_, pullback_of
from energyql.numerics.random import normals
from energyql.numerics.shapes import Float
from energyql.vocabulary import AttributeSpec, Vocabulary

READOUT_DRAWS = 4096
"""Number of draws from the prior that read-outs are fitted to, plus `DRAWS_PER_NUMBER` for each number in z."""
DRAWS_PER_NUMBER = 16
"""Number of further draws for each number in z that read-outs are fitted to."""
RIDGE = 1e-4
"""Ridge penalty: weight of the squared coefficients in the loss of a logistic regression, per draw."""
MOST_NUMBERS = 1024
"""Largest z_dim for which approximations are fitted; the fits then take 350 MB of memory."""
READOUT_STEPS = 80
"""Number of steps of gradient descent in the fit of a read-out, with the step lengths of Barzilai and Borwein (1988,
"Two-point step size gradient methods")."""
FIRST_STEP = 2.0
"""Length of the first step of the fit, and of any for which that formula gives no length above 0."""
LONGEST_STEP = 1000.0
"""Upper bound of the length of a step of the fit."""
GRAIN = 2.0**-12
"""Weights of all approximations are rounded to multiples of this number, so that they do not depend on the number of
threads, which changes how sums are rounded."""


def fit_readouts(
    bank: AttributeBank, encode: Callable[[Tensor], Tensor], z_dim: int, names: Collection[str] | None = None
) -> AttributeBank:
    """Fit a linear head on z, called read-out, to the predictions of each head; the result is the same in every run.

    It is a logistic regression on the probabilities that the head predicts. For a continuous attribute, it is a linear
    regression on the means, and its standard deviation includes the errors of the regression. The result is a bank on
    z, on the CPU, in the order of `bank`.

    Args:
        bank: the heads; they take what `encode` returns.
        encode: function from z (batch, z_dim) to the input of the heads.
        z_dim: number of numbers in z, at most `MOST_NUMBERS`.
        names: attributes of which read-outs are fitted; `None` for all.
    """
    raw = bank.raw_outputs(tuple(bank.vocabulary))
    z = normals(0, 0, READOUT_DRAWS + DRAWS_PER_NUMBER * z_dim, z_dim, stream="readouts").to(bank.device)
    inputs, outputs = _with_one(z.cpu().double()), _finite(_outputs_at(raw, encode, z).cpu())
    heads = {}
    for spec, own, start in zip(raw.specs, _parts(outputs, raw), linear_starts(inputs, outputs, raw), strict=True):
        if names is not None and spec.name not in names:
            continue  # with all the others in `linear_starts`, bits do not depend on `names`
        weights = (_logistic(inputs, own, spec, start) / GRAIN).round() * GRAIN
        if len(weights[0]) > 1:
            weights = weights - weights.mean(1, keepdim=True)  # only differences count
        std, weights = deviation(spec, raw, inputs @ weights - own).float(), weights.float()
        none = weights.new_zeros(0)
        heads[spec.name] = Head(
            hidden_weight=none.view(0, z_dim), hidden_bias=none, out_weight=none.view(len(weights[0]), 0),
            skip_weight=weights[:-1].t().contiguous(), out_bias=weights[-1].clone(), std=std,
        )  # fmt: skip
    return AttributeBank(Vocabulary([bank.vocabulary[name] for name in heads]), heads, fitted=FittedUnder("z"))


def answers(outputs: Float[Tensor, "*n outputs"], spec: AttributeSpec, dim: int = 1) -> Float[Tensor, "*n outputs"]:
    """Convert logits of a head to probabilities: of yes, or of each class along `dim`. Means are returned unchanged."""
    if KINDS[spec.kind].numeric:
        return outputs
    return outputs.sigmoid() if outputs.shape[dim] == 1 else outputs.softmax(dim)


def _with_one(x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n inputs+1"]:
    return torch.cat([x, x.new_ones(len(x), 1)], 1)


def _parts(outputs: Tensor, raw: RawOutputs) -> tuple[Tensor, ...]:
    """Split the last dimension, the outputs of all heads of `raw`, into one tensor for each head."""
    return torch.split(outputs, [output_count(spec) for spec in raw.specs], -1)


@torch.no_grad()
def _outputs_at(raw: RawOutputs, encode: Callable[[Tensor], Tensor], z: Tensor) -> Float[Tensor, "n outputs"]:
    return in_batches(lambda part: (raw.function(encode(part)),), z, few_sizes(len(z)))[0]


def _finite(outputs: Tensor) -> Tensor:
    """Outputs of heads in float64, with 0 in place of NaN and infinity."""
    return torch.nan_to_num(outputs.double(), nan=0.0, posinf=0.0, neginf=0.0)


def linear_starts(
    inputs: Float[Tensor, "n inputs"], outputs: Float[Tensor, "n outputs"], raw: RawOutputs
) -> list[Float[Tensor, "inputs own_outputs"]]:
    """For each attribute, the weights from which the fit of an approximation starts: those of a linear regression.

    Weights of logits are scaled down, which approximates a logistic regression on the probabilities. The last column of
    `inputs` is 1.
    """
    weights = torch.linalg.solve(inputs.t() @ inputs, inputs.t() @ outputs)
    # A logistic of a normal is about one of its mean with the slope divided by this (MacKay 1992).
    slopes = (1 + math.pi / 8 * (inputs @ weights - outputs).square().mean(0)).sqrt()
    pairs = zip(raw.specs, _parts(weights, raw), _parts(slopes, raw), strict=True)
    return [own if KINDS[spec.kind].numeric else own / slope for spec, own, slope in pairs]


def deviation(spec: AttributeSpec, raw: RawOutputs, missed: Float[Tensor, "n outputs"]) -> Float[Tensor, ""]:
    """Standard deviation of an approximation's prediction: that of the head and errors `missed`; 1 for classes."""
    if not KINDS[spec.kind].numeric:
        return torch.ones((), dtype=torch.double)
    return (missed.square().mean() + raw.std[spec.name].cpu().double().square()).sqrt()


def _logistic(
    x: Float[Tensor, "n inputs"], outputs: Float[Tensor, "n own_outputs"], spec: AttributeSpec,
    weights: Float[Tensor, "inputs own_outputs"],
) -> Float[Tensor, "inputs own_outputs"]:  # fmt: skip
    """Weights of a logistic regression of a head's probabilities on x; for a continuous attribute, just `weights`."""
    if KINDS[spec.kind].numeric:
        return weights
    across, goal = x.t().contiguous(), answers(outputs, spec).t()
    penalty = torch.full_like(weights, 2 * RIDGE)
    penalty[-1] = 0
    step, before = torch.tensor(FIRST_STEP).to(x), (weights, weights)
    for _ in range(READOUT_STEPS):
        slope = ((answers(weights.t() @ across, spec, 0) - goal) @ x).t() / len(x) + penalty * weights
        moved, changed = weights - before[0], slope - before[1]
        length, curvature = moved.square().sum(), (moved * changed).sum()
        step = torch.where(length > 0, length / curvature, step)
        step = torch.where(step > 0, step.clamp(max=LONGEST_STEP), FIRST_STEP)
        before = weights, slope
        weights = weights - step * slope
    return weights


DRAWS = 16_384
"""Number of draws from the prior that small networks are fitted to."""
SENSITIVE_DRAWS = 1024
"""Number of draws from the prior at which it is measured how much the prediction of a head changes with z."""
LEAST_SHARE = 0.01
"""Least share of the influence of z on an attribute that a direction must have to be an input of its small network."""
MOST_DIRECTIONS = 8
"""Largest number of directions of z that the small network of an attribute takes as input."""
LEAST_TRACE = 1e-20
"""Below this, a sum of squared gradients with respect to z counts as a rounding error. They are gradients of log-odds,
or of means in units of their standard deviation."""
UNITS = 16
"""Number of hidden units of the small network of an attribute."""
STEPS, BATCH = 512, 512
"""Number of steps of the training of a small network, and number of draws from the prior in each step."""
STEP_SIZE, DECAYS, EPSILON = 0.05, (0.9, 0.99), 1e-8
"""Settings of Adam (Kingma and Ba 2015, arXiv 1412.6980), which trains the small networks; the step size falls to 0
along a cosine."""


class SurrogateHeads:
    """Cheap approximations, on z, of the heads of a bank: linear heads and small networks.

    An approximation is fitted when it is first needed, and is the same in every run. The arguments are those of
    `fit_readouts`.
    """

    def __init__(self, bank: AttributeBank, encode: Callable[[Tensor], Tensor], z_dim: int) -> None:
        self._bank, self._encode, self._z_dim, self.device = bank, encode, z_dim, bank.device
        self._heads: dict[str, Head] = {}
        self._banks: dict[tuple[str, ...], AttributeBank] = {}
        self._linear: dict[tuple[str, ...], AttributeBank] = {}

    def linear(self, names: tuple[str, ...]) -> AttributeBank:
        """Linear heads on z, on the CPU, for the attributes `names`; see `fit_readouts`."""
        if names not in self._linear:
            self._linear[names] = fit_readouts(self._bank, self._encode, self._z_dim, names)
        return self._linear[names]

    def distilled(self, names: tuple[str, ...]) -> AttributeBank:
        """Small networks on z, on the CPU, for the attributes `names`; the same object for the same names."""
        if names not in self._banks:
            vocabulary = Vocabulary([self._bank.vocabulary[name] for name in names])  # refuses unknown ones
            self._heads |= self._distill([name for name in names if name not in self._heads])
            self._banks[names] = AttributeBank(
                vocabulary, {name: self._heads[name] for name in names}, fitted=FittedUnder("z")
            )
        return self._banks[names]

    @cached_property
    def _draws(self) -> Float[Tensor, "n z_dim"]:
        """Draws of z from the prior to which the small networks are fitted; the same in every run."""
        return normals(0, 0, DRAWS, self._z_dim, stream="distilled")

    @cached_property
    def _outputs(self) -> Float[Tensor, "n outputs"]:
        """Outputs of all heads for `_draws`, computed together, because a head alone may be rounded in another way."""
        raw = self._bank.raw_outputs(tuple(self._bank.vocabulary))
        return _outputs_at(raw, self._encode, self._draws.to(self._bank.device))

    @torch.no_grad()
    def _distill(self, names: Sequence[str]) -> dict[str, Head]:
        """Fit a small network on z for each attribute of `names`, and return it as a head."""
        if not names:
            return {}
        raw, z = self._bank.raw_outputs(tuple(names)), self._draws.double()
        slopes = [_random_slopes(self._bank, name, self._encode, self._z_dim) for name in names]
        joined, *slopes = to_cpu([self._outputs, *slopes])
        everything = self._bank.raw_outputs(tuple(self._bank.vocabulary))
        of_all = dict(zip(self._bank.vocabulary, _parts(_finite(joined), everything), strict=True))
        outputs = [of_all[name] for name in names]
        units = [_unit_of(own, spec) for spec, own in zip(raw.specs, outputs, strict=True)]
        targets = [(own - mean) / scale for own, (scale, mean) in zip(outputs, units, strict=True)]
        linear_weights = linear_starts(_with_one(z), torch.cat(targets, 1), raw)
        heads = {}
        for spec, own, (scale, mean), target, linear, slope in zip(
            raw.specs, outputs, units, targets, linear_weights, slopes, strict=True
        ):
            basis = _directions(_sensitivity(slope), scale.mean(), linear[:-1])
            x = basis @ z.t()
            network = _train(_start(self._bank.raw_outputs((spec.name,)), x, target), x, target.t().contiguous(), spec)
            tensors = {
                "hidden_weight": network.first @ basis,
                "hidden_bias": network.before[:, 0],
                "out_weight": network.out * scale[:, None],
                "skip_weight": network.skip @ basis * scale[:, None],
                "out_bias": network.bias[:, 0] * scale + mean,
                "std": deviation(spec, raw, network.forward(x)[0].t() * scale + mean - own),
            }
            heads[spec.name] = Head.from_tensors({field: tensor.float() for field, tensor in tensors.items()})
        return heads


def _unit_of(outputs: Float[Tensor, "n outputs"], spec: AttributeSpec) -> tuple[Tensor, Tensor]:
    """Scale and mean of a head's outputs, for training in one unit; 1 and 0 for logits. Scales are powers of two."""
    if not KINDS[spec.kind].numeric:
        return torch.ones_like(outputs[0]), torch.zeros_like(outputs[0])
    scale = torch.exp2(outputs.std(0).clamp(min=1e-30).log2().round())
    return scale, ((outputs / scale).mean(0) / GRAIN).round() * GRAIN * scale


class _Network(NamedTuple):
    """Small network that approximates the head of one attribute: out(leaky_relu(first x + before)) + skip x + bias.

    The input x is z projected on the directions to which the head's predictions are sensitive. The result approximates
    (outputs of the head - mean) / scale; see `_unit_of`. The fields are the weights and biases in the formula.
    """

    first: Float[Tensor, "units directions"]
    before: Float[Tensor, "units 1"]
    out: Float[Tensor, "outputs units"]
    skip: Float[Tensor, "outputs directions"]
    bias: Float[Tensor, "outputs 1"]

    def forward(self, x: Float[Tensor, "directions n"]) -> tuple[Tensor, Tensor]:
        """The outputs (outputs, n), and the result of the hidden layer (units, n), which `slopes` needs."""
        hidden = F.leaky_relu_(torch.addmm(self.before, self.first, x), SLOPE)
        return torch.addmm(self.bias, self.skip, x).addmm_(self.out, hidden), hidden

    def slopes(self, x: Tensor, hidden: Tensor, grad: Float[Tensor, "outputs n"]) -> list[Tensor]:
        """Gradients of a loss with respect to the fields, in their order, from that with respect to the outputs."""
        back = leaky_relu_back_(self.out.t() @ grad, hidden, SLOPE)
        return [back @ x.t(), back.sum(1, keepdim=True), grad @ hidden.t(), grad @ x.t(), grad.sum(1, keepdim=True)]


def _sensitivity(slopes: Float[Tensor, "draws z_dim"]) -> Float[Tensor, "z_dim z_dim"]:
    """Fisher information about z: the mean of ∇ log p(value | z) ∇ log p(value | z)ᵀ over draws of z and of values."""
    slopes = _finite(slopes)
    return slopes.t() @ slopes / len(slopes)


def _random_slopes(
    bank: AttributeBank, name: str, encode: Callable[[Tensor], Tensor], z_dim: int
) -> Float[Tensor, "draws z_dim"]:
    """Random score vectors g, one for each draw of z: the mean of g gᵀ estimates the Fisher information about z.

    Without a derivative, one row of zeros.
    """
    raw = bank.raw_outputs((name,))
    signs = normals(0, 0, SENSITIVE_DRAWS, output_count(raw.specs[0]) + 1, stream="distilled/signs").sign()
    z = normals(0, 0, SENSITIVE_DRAWS, z_dim, stream="distilled/sensitivity")
    pullback = pullback_of(encode)

    def gradient(both: Tensor) -> tuple[Tensor]:
        latent, back = pullback(both[:, :z_dim].contiguous())
        outputs, back_of_heads = raw.function.pullback(latent)
        return (back(back_of_heads(_random_root(raw, outputs, both[:, z_dim:]))),)

    both = torch.cat([z, signs], 1).to(bank.device)
    try:
        (slopes,) = in_batches(gradient, both, few_sizes(len(both)))
    except ArgumentError:
        return both.new_zeros(1, z_dim)
    return slopes


def _random_root(raw: RawOutputs, outputs: Tensor, signs: Tensor) -> Float[Tensor, "batch outputs"]:
    """A random vector r for each latent; the mean of r rᵀ over `signs` (1 or -1) is the outputs' Fisher information."""
    if KINDS[raw.specs[0].kind].numeric:
        return torch.ones_like(outputs)
    logits = outputs if outputs.shape[1] > 1 else torch.cat([outputs, torch.zeros_like(outputs)], 1)
    shares = torch.softmax(logits, 1)
    root = shares.sqrt() * signs[:, : shares.shape[1]]
    return (root - shares * root.sum(1, keepdim=True))[:, : outputs.shape[1]]


def _directions(
    sensitivity: Float[Tensor, "z_dim z_dim"], scale: Float[Tensor, ""], linear: Float[Tensor, "z_dim outputs"]
) -> Float[Tensor, "r z_dim"]:
    """Directions of z along which the prediction of an attribute changes, as orthogonal rows, strongest first.

    Sensitivity and regression weights have equal influence on them: if outputs depend a little on all numbers of z, the
    direction of the regression is better than a few sensitive ones. There are none if the prediction does not change.
    """
    linear = linear - linear.mean(1, keepdim=True) if linear.shape[1] > 1 else linear
    parts = [sensitivity / scale**2, linear @ linear.t()]
    total = torch.stack([part / part.trace().clamp(min=LEAST_TRACE) for part in parts]).mean(0)
    sizes, rows = torch.linalg.eigh(total)
    rows = rows.t()[sizes >= LEAST_SHARE].flip(0)[:MOST_DIRECTIONS]
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    rounded: Tensor = (rows * largest.sign() / GRAIN).round() * GRAIN  # a library may return either sign
    return rounded


def _start(raw: RawOutputs, x: Float[Tensor, "directions n"], targets: Float[Tensor, "n outputs"]) -> _Network:
    """Network with which a training starts: a linear regression of the targets on x, without effect of hidden units."""
    name, inner = raw.specs[0].name, len(x)
    units = normals(0, 0, UNITS, inner, stream=f"distilled/units/{name}") if inner else x.new_zeros(UNITS, 0)
    (weights,) = linear_starts(_with_one(x.t()), targets, raw)
    return _Network(
        units.to(x) / math.sqrt(max(1, inner)), x.new_zeros(UNITS, 1), x.new_zeros(len(weights[0]), UNITS),
        weights[:-1].t(), weights[-1][:, None],
    )  # fmt: skip


def _train(
    network: _Network, x: Float[Tensor, "directions n"], targets: Float[Tensor, "outputs n"], spec: AttributeSpec
) -> _Network:
    """Train a network on `targets`, whose probabilities or means the loss compares, and round weights to `GRAIN`."""
    goals = answers(targets, spec, 0)
    flat = torch.cat([weight.flatten() for weight in network])
    parts = flat.split([weight.numel() for weight in network])  # views: a step of `flat` changes each
    network = _Network(*(part.view(weight.shape) for part, weight in zip(parts, network, strict=True)))
    first, second = torch.zeros_like(flat), torch.zeros_like(flat)
    for step in range(STEPS):
        at = step * BATCH % x.shape[1]
        part, goal = x[:, at : at + BATCH], goals[:, at : at + BATCH]
        outputs, hidden = network.forward(part)
        grad = (answers(outputs, spec, 0) - goal) / BATCH
        slope = torch.cat([weight.flatten() for weight in network.slopes(part, hidden, grad)])
        first.lerp_(slope, 1 - DECAYS[0])
        second.lerp_(slope.square(), 1 - DECAYS[1])
        mean, spread = first / (1 - DECAYS[0] ** (step + 1)), second / (1 - DECAYS[1] ** (step + 1))
        size = STEP_SIZE * (1 + math.cos(math.pi * step / STEPS)) / 2
        flat.addcdiv_(mean, spread.sqrt_().add_(EPSILON), value=-size)
    return _Network(*((weight / GRAIN).round() * GRAIN for weight in network))
