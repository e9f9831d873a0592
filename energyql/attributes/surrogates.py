"""Heads on z that replace those of a model: linear read-outs, and small networks on a few directions of z.

Attributes of StyleGANs are close to linear in the latents (Shen et al. 2020, InterFaceGAN, arXiv 1907.10786). Read-outs
are fitted to the heads' probabilities and means on draws from the prior. Where a head is not linear in z, the
probabilities of its read-out are nearer to even odds, or the standard deviation is larger.

An attribute changes along a few directions of z: those to which the probabilities of its head are sensitive (an active
subspace, Constantine, Dow and Wang 2014, "Active subspace methods in theory and practice", SIAM J. Sci. Comput. 36). On
them a network with one small hidden layer is fitted to the head's probabilities or means (distillation, Hinton, Vinyals
and Dean 2015, arXiv 1503.02531).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import SLOPE, AttributeBank, Head, RawOutputs
from energyql.attributes.predictions import output_count
from energyql.errors import ArgumentError
from energyql.kinds import KINDS
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.pullback import leaky_relu_back_, pullback_of
from energyql.numerics.random import normals
from energyql.numerics.shapes import Float
from energyql.vocabulary import AttributeSpec, Vocabulary

READOUT_DRAWS = 4096
"""Draws from the prior that read-outs are fitted to, besides `DRAWS_PER_NUMBER`."""
DRAWS_PER_NUMBER = 16
"""Further draws for each number in z."""
RIDGE = 1e-4
"""Weight of the squared coefficients in the loss of a logistic regression, per draw."""
MOST_NUMBERS = 1024
"""Largest z_dim for which surrogates are fitted; the fits then take 350 MB."""
READOUT_STEPS = 80
"""Steps of gradient descent, with lengths by Barzilai and Borwein (1988, "Two-point step size gradient methods")."""
FIRST_STEP = 2.0
"""Length of the first step, and of a step where their formula gives none above 0."""
LONGEST_STEP = 1000.0
"""Upper bound of the length of a step."""
GRAIN = 2.0**-12
"""Weights are rounded to multiples of this, so that they are equal where sums round differently (other threads)."""
_NEVER = -1e4
"""Logit of a filler class, which gives attributes with few classes as many as the others; its probability is 0."""


def fit_readouts(bank: AttributeBank, encode: Callable[[Tensor], Tensor], z_dim: int) -> AttributeBank:
    """Fit a linear head on z for every attribute of a bank; the same read-outs in every run.

    A yes/no or categorical attribute gets the logistic regression on the heads' probabilities, a continuous one the
    linear regression on their means, with a deviation for what either leaves open.

    Args:
        bank: heads on what `encode` returns.
        encode: function from z (batch, z_dim) to the input of the heads.
        z_dim: numbers in z, at most `MOST_NUMBERS`.
    """
    raw = bank.raw_outputs(tuple(bank.vocabulary))
    answers = Answers(raw.specs)
    z = normals(0, 0, READOUT_DRAWS + DRAWS_PER_NUMBER * z_dim, z_dim, stream="readouts").to(bank.device)
    with torch.no_grad():
        outputs = soft_outputs(raw, encode, z)
        with_one = torch.cat([z, torch.ones_like(z[:, :1])], 1).cpu().double()
        weights = linear_start(with_one, outputs, answers)
    weights = (_logistic(with_one, outputs, answers, weights) / GRAIN).round() * GRAIN
    heads = {}
    for spec, columns in zip(raw.specs, answers.columns, strict=True):
        own = weights[:, columns]
        if own.shape[1] > 1:
            own = own - own.mean(1, keepdim=True)  # only differences count
        std = deviation(spec, raw, with_one @ own - outputs[:, columns]).to(z)
        own = own.to(z)
        none = own.new_zeros(0)
        heads[spec.name] = Head(
            hidden_weight=none.view(0, z_dim), hidden_bias=none, out_weight=none.view(own.shape[1], 0),
            skip_weight=own[:-1].t().contiguous(), out_bias=own[-1].clone(), std=std,
        )  # fmt: skip
    return AttributeBank(bank.vocabulary, heads, space="z")


class Answers:
    """The function from outputs of several attributes to answers: probabilities of yes and of classes; or means.

    Args:
        specs: the attributes, in the order of their outputs.

    Attributes:
        columns: the outputs of each attribute.
        numeric: which outputs are means, (outputs,) bool.
        tables: `columns` of the yes/no and categorical attributes; yes/no has one output, because no has the logit 0.
    """

    def __init__(self, specs: Sequence[AttributeSpec]) -> None:
        ends = list(accumulate(map(output_count, specs)))
        self.columns = [slice(end - output_count(spec), end) for spec, end in zip(specs, ends, strict=True)]
        count, parts = ends[-1], list(zip(specs, self.columns, strict=True))
        self.tables = [own for spec, own in parts if not KINDS[spec.kind].numeric]
        self.numeric = torch.ones(count, dtype=torch.bool)
        for own in self.tables:
            self.numeric[own] = False
        columns = [list(range(own.start, own.stop)) for own in self.tables]
        classes = [own if len(own) > 1 else [*own, count] for own in columns]
        widest = max(map(len, classes), default=0)
        filled = torch.tensor([own + [count + 1] * (widest - len(own)) for own in classes])
        # By class, then by attribute: a softmax over few numbers side by side is slow.
        self._shape, self._rows = (widest, len(classes)), filled.t().flatten()
        self._places = torch.zeros(count, dtype=torch.long)
        for i, rows in enumerate(columns):
            self._places[rows] = torch.arange(len(rows)) * len(classes) + i

    def __call__(self, outputs: Float[Tensor, "outputs n"]) -> Float[Tensor, "outputs n"]:
        """Return the answers of outputs."""
        if not self.tables:
            return outputs
        n = outputs.shape[1]
        extended = torch.cat([outputs, outputs.new_zeros(1, n), outputs.new_full((1, n), _NEVER)])
        shares = torch.softmax(extended[self._rows].view(*self._shape, n), 0).flatten(0, 1)
        return torch.where(self.numeric[:, None], outputs, shares[self._places])


def soft_outputs(
    raw: RawOutputs, encode: Callable[[Tensor], Tensor], z: Float[Tensor, "n z_dim"]
) -> Float[Tensor, "n outputs"]:
    """Return the outputs of heads at z, in float64 on the CPU; NaN and infinity become 0."""
    (outputs,) = in_batches(lambda part: (raw.function(encode(part)),), z, few_sizes(len(z)))
    return torch.nan_to_num(outputs.cpu().double(), nan=0.0, posinf=0.0, neginf=0.0)


def linear_start(
    with_one: Float[Tensor, "n inputs"], outputs: Float[Tensor, "n outputs"], answers: Answers
) -> Float[Tensor, "inputs outputs"]:
    """Return the weights of the linear regression of outputs on inputs, of which the last is 1.

    Those of logits are scaled down, which approximates a logistic regression on the probabilities.
    """
    weights = torch.linalg.solve(with_one.t() @ with_one, with_one.t() @ outputs)
    # A logistic of a normal is about one of its mean with the slope divided by this (MacKay 1992).
    spare = (with_one @ weights - outputs).square().mean(0)
    return torch.where(answers.numeric, weights, weights / (1 + math.pi / 8 * spare).sqrt())


def deviation(spec: AttributeSpec, raw: RawOutputs, missed: Float[Tensor, "n outputs"]) -> Float[Tensor, ""]:
    """Return the standard deviation of the surrogate of a head with the errors `missed`; 1 unless outputs are means."""
    if not KINDS[spec.kind].numeric:
        return torch.ones((), dtype=torch.double)
    return (missed.square().mean() + raw.std[spec.name].cpu().double().square()).sqrt()


def _logistic(
    x: Float[Tensor, "n inputs"],
    outputs: Float[Tensor, "n outputs"],
    answers: Answers,
    weights: Float[Tensor, "inputs outputs"],
) -> Float[Tensor, "inputs outputs"]:
    """Return the weights of the logistic regressions of `answers(outputs)` on x, fitted from the start `weights`.

    Weights of continuous attributes are returned unchanged.
    """
    goals, across = answers(outputs.t()), x.t().contiguous()
    fitted = (~answers.numeric).to(x)
    penalty = 2 * RIDGE * torch.outer(torch.arange(len(across)) < len(across) - 1, ~answers.numeric).to(x)
    together = torch.eye(len(fitted)).to(x)  # outputs of one attribute share a step
    for own in answers.tables:
        together[own, own] = 1
    step, before = torch.full_like(weights[0], FIRST_STEP), (weights, weights)
    for _ in range(READOUT_STEPS):
        slope = ((answers(weights.t() @ across) - goals) @ x).t() * fitted / len(x) + penalty * weights
        moved, changed = weights - before[0], slope - before[1]
        lengths = moved.square().sum(0) @ together, (moved * changed).sum(0) @ together
        step = torch.where(lengths[0] > 0, lengths[0] / lengths[1], step)
        step = torch.where(step > 0, step.clamp(max=LONGEST_STEP), FIRST_STEP)
        before = weights, slope
        weights = weights - step * slope
    return weights


DRAWS = 16_384
"""Draws from the prior that networks are fitted to."""
SENSITIVE_DRAWS = 1024
"""Draws from the prior at which the sensitivity of heads is measured."""
LEAST_SHARE = 0.01
"""Least share of an attribute's sensitivity that a direction must have."""
MOST_DIRECTIONS = 8
"""Most directions of an attribute."""
LEAST_TRACE = 1e-20
"""A sum of squared gradients below this is a rounding error, in log-odds or standard deviations."""
UNITS = 16
"""Hidden units of the network of an attribute."""
STEPS, BATCH = 512, 512
"""Steps of the training, and draws for each."""
STEP_SIZE, DECAYS, EPSILON = 0.05, (0.9, 0.99), 1e-8
"""Settings of Adam (Kingma and Ba 2015, arXiv 1412.6980); the step size falls to 0 along a cosine."""


class SurrogateHeads:
    """Heads on z in place of those of a bank, fitted at their first use; the same in every run.

    Args:
        bank: heads on what `encode` returns.
        encode: function from z (batch, z_dim) to the input of the heads.
        z_dim: numbers in z, at most `MOST_NUMBERS`.
    """

    def __init__(self, bank: AttributeBank, encode: Callable[[Tensor], Tensor], z_dim: int) -> None:
        self._bank, self._encode, self._z_dim = bank, encode, z_dim
        self._heads: dict[str, Head] = {}
        self._banks: dict[tuple[str, ...], AttributeBank] = {}

    @cached_property
    def linear(self) -> AttributeBank:
        """Linear read-outs of all attributes; see `fit_readouts`."""
        return fit_readouts(self._bank, self._encode, self._z_dim)

    def distilled(self, names: tuple[str, ...]) -> AttributeBank:
        """Return small networks that are fitted to the heads of some attributes; the same object for the same names.

        Raises:
            ArgumentError: there is no head of that name.
        """
        if names not in self._banks:
            self._bank.raw_outputs(names)  # refuses unknown ones
            if new := tuple(name for name in names if name not in self._heads):
                outputs = torch.cat([self._outputs[name] for name in new], 1)
                self._heads |= _distill(self._bank, new, self._draws(), outputs, self._encode)
            vocabulary = Vocabulary([self._bank.vocabulary[name] for name in names])
            self._banks[names] = AttributeBank(vocabulary, {name: self._heads[name] for name in names}, space="z")
        return self._banks[names]

    def _draws(self) -> Float[Tensor, "n z_dim"]:
        return normals(0, 0, DRAWS, self._z_dim, stream="distilled")

    @cached_property
    def _outputs(self) -> dict[str, Float[Tensor, "n outputs"]]:
        """Outputs of all heads on `_draws()`, by attribute, computed together: alone, a head may round differently."""
        raw = self._bank.raw_outputs(tuple(self._bank.vocabulary))
        with torch.no_grad():
            outputs = soft_outputs(raw, self._encode, self._draws().to(self._bank.device))
        parts = outputs.split([output_count(spec) for spec in raw.specs], 1)
        return dict(zip(self._bank.vocabulary, parts, strict=True))


class _Networks(NamedTuple):
    """A network for each attribute, out(leaky_relu(first x + before)) + skip x + bias, padded to equal widths."""

    first: Float[Tensor, "attributes units directions"]
    before: Float[Tensor, "attributes units 1"]
    out: Float[Tensor, "attributes outputs units"]
    skip: Float[Tensor, "attributes outputs directions"]
    bias: Float[Tensor, "attributes outputs 1"]

    def forward(self, x: Float[Tensor, "attributes directions n"]) -> tuple[Tensor, Tensor]:
        """Return the outputs (attributes, outputs, n) and the hidden layer (attributes, units, n)."""
        hidden = F.leaky_relu_(torch.baddbmm(self.before, self.first, x), SLOPE)
        return torch.baddbmm(self.bias, self.skip, x).baddbmm_(self.out, hidden), hidden

    def slopes(self, x: Tensor, hidden: Tensor, grad: Float[Tensor, "attributes outputs n"]) -> list[Tensor]:
        """Return the gradients with respect to the weights, in the order of the fields, from that of the outputs."""
        back = leaky_relu_back_(self.out.transpose(1, 2) @ grad, hidden, SLOPE)
        across, units = x.transpose(1, 2), hidden.transpose(1, 2)
        return [back @ across, back.sum(2, keepdim=True), grad @ units, grad @ across, grad.sum(2, keepdim=True)]


@torch.no_grad()
def _distill(
    bank: AttributeBank,
    names: tuple[str, ...],
    z: Float[Tensor, "n z_dim"],
    outputs: Float[Tensor, "n outputs"],
    encode: Callable[[Tensor], Tensor],
) -> dict[str, Head]:
    """Return a small network on z for each head of `names`, fitted to the outputs of the heads at z."""
    raw, z = bank.raw_outputs(names), z.double()
    answers = Answers(raw.specs)
    # Numbers of any unit are learned at the same pace. Powers of two change no digit.
    spread = outputs.std(0).where(answers.numeric, 1).clamp(min=1e-30)
    scale = torch.exp2(spread.log2().round())
    mean = ((outputs / scale).mean(0) / GRAIN).round() * GRAIN * scale * answers.numeric
    targets = (outputs - mean) / scale
    linear = linear_start(torch.cat([z, torch.ones_like(z[:, :1])], 1), targets, answers)[:-1]
    bases = [
        _directions(_sensitivity(bank, spec.name, encode, z.shape[1]), scale[own].mean(), linear[:, own])
        for spec, own in zip(raw.specs, answers.columns, strict=True)
    ]
    networks, x = _started(raw, bases, z, targets, answers)
    widest = networks.out.shape[1]
    place = torch.cat([torch.arange(own.stop - own.start) + i * widest for i, own in enumerate(answers.columns)])
    networks = _trained(networks, x, targets.t().contiguous(), answers, place)
    fitted = networks.forward(x)[0].flatten(0, 1)[place].t() * scale + mean
    heads = {}
    for i, (spec, own, basis) in enumerate(zip(raw.specs, answers.columns, bases, strict=True)):
        count, r = own.stop - own.start, len(basis)
        per = scale[own, None]
        tensors = {
            "hidden_weight": networks.first[i, :, :r] @ basis,
            "hidden_bias": networks.before[i, :, 0],
            "out_weight": networks.out[i, :count] * per,
            "skip_weight": networks.skip[i, :count, :r] @ basis * per,
            "out_bias": networks.bias[i, :count, 0] * per[:, 0] + mean[own],
            "std": deviation(spec, raw, fitted[:, own] - outputs[:, own]),
        }
        heads[spec.name] = Head.from_tensors(
            {name: one.to(bank.device, torch.float32) for name, one in tensors.items()}
        )
    return heads


def _sensitivity(
    bank: AttributeBank, name: str, encode: Callable[[Tensor], Tensor], z_dim: int
) -> Float[Tensor, "z_dim z_dim"]:
    """Return the Fisher information about z in the value of one attribute, averaged over the prior.

    That is the mean of ∇ log p(value | z) ∇ log p(value | z)ᵀ over values drawn from the head's own probabilities. It
    is 0 where `encode` has no derivative.
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
        (gradients,) = in_batches(gradient, both, few_sizes(len(both)))
    except ArgumentError:
        return torch.zeros(z_dim, z_dim, dtype=torch.double)
    gradients = torch.nan_to_num(gradients.cpu().double(), nan=0.0, posinf=0.0, neginf=0.0)
    return gradients.t() @ gradients / len(gradients)


def _random_root(raw: RawOutputs, outputs: Tensor, signs: Tensor) -> Float[Tensor, "batch outputs"]:
    """Return random vectors whose second moments are the Fisher information about the outputs in the value.

    `signs` are random signs, at least as many a row as there are classes.
    """
    if KINDS[raw.specs[0].kind].numeric:
        return torch.ones_like(outputs)
    logits = outputs if outputs.shape[1] > 1 else torch.cat([outputs, torch.zeros_like(outputs)], 1)
    shares = torch.softmax(logits, 1)
    root = shares.sqrt() * signs[:, : shares.shape[1]]
    return (root - shares * root.sum(1, keepdim=True))[:, : outputs.shape[1]]


def _directions(
    sensitivity: Float[Tensor, "z_dim z_dim"], scale: Float[Tensor, ""], linear: Float[Tensor, "z_dim outputs"]
) -> Float[Tensor, "r z_dim"]:
    """Return orthogonal rows along which an attribute changes, the most sensitive first.

    The sensitivity and the weights `linear` of a linear regression count the same: where outputs depend on all of z a
    little, the direction of the regression tells more than a few sensitive ones. `scale` is the unit of the outputs.
    """
    linear = linear - linear.mean(1, keepdim=True) if linear.shape[1] > 1 else linear
    parts = [sensitivity / scale**2, linear @ linear.t()]
    total = torch.stack([part / part.trace().clamp(min=LEAST_TRACE) for part in parts]).mean(0)
    sizes, rows = torch.linalg.eigh(total)
    rows = rows.t()[sizes >= LEAST_SHARE].flip(0)[:MOST_DIRECTIONS]
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    rounded: Tensor = (rows * largest.sign() / GRAIN).round() * GRAIN  # a library may return either sign
    return rounded


def _started(
    raw: RawOutputs,
    bases: list[Tensor],
    z: Float[Tensor, "n z_dim"],
    targets: Float[Tensor, "n outputs"],
    answers: Answers,
) -> tuple[_Networks, Float[Tensor, "attributes directions n"]]:
    """Return networks before training, and their inputs: the parts of z along the `bases`.

    They compute linear regressions of the targets: the last layer has no weights yet.
    """
    r, widest = max(map(len, bases)), max(own.stop - own.start for own in answers.columns)
    x = z.new_zeros(len(bases), r, len(z))
    networks = _Networks(*(x.new_zeros(len(bases), *shape) for shape in (
        (UNITS, r), (UNITS, 1), (widest, UNITS), (widest, r), (widest, 1)
    )))  # fmt: skip
    for i, (spec, own, basis) in enumerate(zip(raw.specs, answers.columns, bases, strict=True)):
        inner, count = len(basis), own.stop - own.start
        x[i, :inner] = basis @ z.t()
        with_one = torch.cat([x[i, :inner].t(), torch.ones_like(z[:, :1])], 1)
        weights = linear_start(with_one, targets[:, own], Answers([spec]))
        networks.skip[i, :count, :inner], networks.bias[i, :count, 0] = weights[:-1].t(), weights[-1]
        if inner:
            units = normals(0, 0, UNITS, inner, stream=f"distilled/units/{spec.name}")
            networks.first[i, :, :inner] = units.to(z) / math.sqrt(inner)
    return networks, x


def _trained(
    networks: _Networks,
    x: Float[Tensor, "attributes directions n"],
    targets: Float[Tensor, "outputs n"],
    answers: Answers,
    place: Tensor,
) -> _Networks:
    """Train networks until their outputs match `targets`; return them with weights rounded to multiples of `GRAIN`.

    The loss compares answers: probabilities and means.

    `place` holds the row of each output among the outputs of all networks, fillers included.
    """
    goals, shapes = answers(targets), [one.shape for one in networks]
    flat = torch.cat([one.flatten() for one in networks])
    parts = flat.split([shape.numel() for shape in shapes])  # views: a step of `flat` changes each
    networks = _Networks(*(part.view(shape) for part, shape in zip(parts, shapes, strict=True)))
    first, second = torch.zeros_like(flat), torch.zeros_like(flat)
    for step in range(STEPS):
        at = step * BATCH % x.shape[2]
        part, goal = x[:, :, at : at + BATCH], goals[:, at : at + BATCH]
        outputs, hidden = networks.forward(part)
        grad = torch.zeros_like(outputs)
        grad.flatten(0, 1)[place] = (answers(outputs.flatten(0, 1)[place]) - goal) / BATCH
        slope = torch.cat([one.flatten() for one in networks.slopes(part, hidden, grad)])
        first.lerp_(slope, 1 - DECAYS[0])
        second.lerp_(slope.square(), 1 - DECAYS[1])
        mean, spread = first / (1 - DECAYS[0] ** (step + 1)), second / (1 - DECAYS[1] ** (step + 1))
        size = STEP_SIZE * (1 + math.cos(math.pi * step / STEPS)) / 2
        flat.addcdiv_(mean, spread.sqrt_().add_(EPSILON), value=-size)
    return _Networks(*((one / GRAIN).round() * GRAIN for one in networks))
