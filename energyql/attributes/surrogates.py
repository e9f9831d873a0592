"""Heads on z that stand in for those of a model: linear read-outs, and small networks on a few directions of z.

Attributes of StyleGANs are close to linear in the latents (Shen et al. 2020, InterFaceGAN, arXiv 1907.10786). Read-outs
are fitted to the heads' own soft answers on draws from the prior, so they are as unsure as they should be: where the
heads bend away from the line, the read-out says so by a probability nearer to even odds or a larger deviation.

An attribute of a generator changes along a few directions of z; they are those along which its head's answers are
sensitive (an active subspace, Constantine, Dow and Wang 2014, "Active subspace methods in theory and practice",
SIAM J. Sci. Comput. 36). On them a network with one small hidden layer learns from the head's soft answers
(distillation, Hinton, Vinyals and Dean 2015, arXiv 1503.02531).
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

READOUT_DRAWS, DRAWS_PER_NUMBER = 4096, 16
"""Draws from the prior that read-outs are fitted to, and how many more for each number in z."""
RIDGE = 1e-4
"""Weight of the squared coefficients against one answer's log-likelihood."""
MOST_NUMBERS = 1024
"""Largest z that heads are replaced for: fits take 350 MB for this one."""
READOUT_STEPS, FIRST_STEP, LONGEST_STEP = 80, 2.0, 1000.0
"""Of gradient descent with step lengths by Barzilai and Borwein (1988, "Two-point step size gradient methods")."""
GRAIN = 2.0**-12
"""Weights are multiples of it, so that they are the same where sums round differently, as with other threads."""
_NEVER = -1e4
"""Logit of a class that fills up a table."""


def fit_readouts(bank: AttributeBank, encode: Callable[[Tensor], Tensor], z_dim: int) -> AttributeBank:
    """Fit a linear head on z for every attribute of a bank; the same read-outs in every run.

    A yes/no or categorical attribute gets the logistic regression on the heads' probabilities, a continuous one the
    linear regression on their means, with a deviation for what either leaves open.

    Args:
        bank: heads on what `encode` returns.
        encode: from z (batch, z_dim) to what the heads read.
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
    """What the outputs of several attributes say: probabilities of yes and of classes, and means as they are.

    Args:
        specs: the attributes, in the order of their outputs.

    Attributes:
        columns: the outputs of each attribute.
        numeric: which outputs are means, (outputs,) bool.
        tables: `columns` of those with classes; yes/no has one output, because no has the logit 0.
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
        """Return the answers that outputs mean."""
        if not self.tables:
            return outputs
        n = outputs.shape[1]
        extended = torch.cat([outputs, outputs.new_zeros(1, n), outputs.new_full((1, n), _NEVER)])
        shares = torch.softmax(extended[self._rows].view(*self._shape, n), 0).flatten(0, 1)
        return torch.where(self.numeric[:, None], outputs, shares[self._places])


def soft_outputs(
    raw: RawOutputs, encode: Callable[[Tensor], Tensor], z: Float[Tensor, "n z_dim"]
) -> Float[Tensor, "n outputs"]:
    """Return the outputs of heads in float64 on the CPU; an answer that is no number is 0, which tells nothing."""
    (outputs,) = in_batches(lambda part: (raw.function(encode(part)),), z, few_sizes(len(z)))
    return torch.nan_to_num(outputs.cpu().double(), nan=0.0, posinf=0.0, neginf=0.0)


def linear_start(
    with_one: Float[Tensor, "n inputs"], outputs: Float[Tensor, "n outputs"], answers: Answers
) -> Float[Tensor, "inputs outputs"]:
    """Return the weights of a linear regression, flatter for logits, as a logistic regression would be."""
    weights = torch.linalg.solve(with_one.t() @ with_one, with_one.t() @ outputs)
    # A logistic of a normal is about one of its mean with the slope divided by this (MacKay 1992).
    spare = (with_one @ weights - outputs).square().mean(0)
    return torch.where(answers.numeric, weights, weights / (1 + math.pi / 8 * spare).sqrt())


def deviation(spec: AttributeSpec, raw: RawOutputs, missed: Float[Tensor, "n outputs"]) -> Float[Tensor, ""]:
    """Return the deviation of an attribute's answers whose outputs are off by `missed`; 1 for classes."""
    if not KINDS[spec.kind].numeric:
        return torch.ones((), dtype=torch.double)
    return (missed.square().mean() + raw.std[spec.name].cpu().double().square()).sqrt()


def _logistic(
    x: Float[Tensor, "n inputs"],
    outputs: Float[Tensor, "n outputs"],
    answers: Answers,
    weights: Float[Tensor, "inputs outputs"],
) -> Float[Tensor, "inputs outputs"]:
    """Return weights of the logistic regressions on the probabilities that outputs mean, begun at other weights.

    Outputs of continuous attributes keep their weights.
    """
    wanted, across = answers(outputs.t()), x.t().contiguous()
    fitted = (~answers.numeric).to(x)
    penalty = 2 * RIDGE * torch.outer(torch.arange(len(across)) < len(across) - 1, ~answers.numeric).to(x)
    together = torch.eye(len(fitted)).to(x)  # outputs of one attribute share a step
    for own in answers.tables:
        together[own, own] = 1
    step, before = torch.full_like(weights[0], FIRST_STEP), (weights, weights)
    for _ in range(READOUT_STEPS):
        slope = ((answers(weights.t() @ across) - wanted) @ x).t() * fitted / len(x) + penalty * weights
        moved, changed = weights - before[0], slope - before[1]
        lengths = moved.square().sum(0) @ together, (moved * changed).sum(0) @ together
        step = torch.where(lengths[0] > 0, lengths[0] / lengths[1], step)
        step = torch.where(step > 0, step.clamp(max=LONGEST_STEP), FIRST_STEP)
        before = weights, slope
        weights = weights - step * slope
    return weights


DRAWS, SENSITIVE_DRAWS = 16_384, 1024
"""Draws from the prior that networks learn from, and draws whose gradients tell the directions."""
LEAST_SHARE, MOST_DIRECTIONS = 0.01, 8
"""Share of an attribute's sensitivity that a direction must have, and how many there are at most."""
LEAST_TRACE = 1e-20
"""Squared length of what is a rounding error and no direction, of log-odds or standard deviations."""
UNITS, STEPS, BATCH = 16, 512, 512
"""Hidden units of an attribute, and steps of its training, each with so many draws."""
STEP_SIZE, DECAYS, EPSILON = 0.05, (0.9, 0.99), 1e-8
"""Of Adam (Kingma and Ba 2015, arXiv 1412.6980); the step size falls to 0 along a cosine."""


class SurrogateHeads:
    """Heads on z in place of those of a bank, fitted when they are first asked for; the same in every run.

    Args:
        bank: heads on what `encode` returns.
        encode: from z (batch, z_dim) to what the heads read.
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
        """Return small networks for some attributes, which learned from the heads; the same object for the same names.

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
        """The outputs of each head on the draws; all at once, because a product rounds by what is beside a head."""
        raw = self._bank.raw_outputs(tuple(self._bank.vocabulary))
        with torch.no_grad():
            outputs = soft_outputs(raw, self._encode, self._draws().to(self._bank.device))
        parts = outputs.split([output_count(spec) for spec in raw.specs], 1)
        return dict(zip(self._bank.vocabulary, parts, strict=True))


class _Networks(NamedTuple):
    """A network for each attribute, out(leaky_relu(first x + before)) + skip x + bias, filled up to the same widths."""

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
        """Turn the gradient with respect to the outputs into those with respect to the weights."""
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
    """Return a small network on z for each of the attributes, which have these outputs on z."""
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
    found = networks.forward(x)[0].flatten(0, 1)[place].t() * scale + mean
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
            "std": deviation(spec, raw, found[:, own] - outputs[:, own]),
        }
        heads[spec.name] = Head.from_tensors(
            {name: one.to(bank.device, torch.float32) for name, one in tensors.items()}
        )
    return heads


def _sensitivity(
    bank: AttributeBank, name: str, encode: Callable[[Tensor], Tensor], z_dim: int
) -> Float[Tensor, "z_dim z_dim"]:
    """Return the Fisher information of z in the answer of one attribute, averaged over the prior.

    That is the mean of ∇ log p(answer | z) ∇ log p(answer | z)ᵀ, by the head's own probabilities; 0 where `encode` has
    no derivative.
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
    """Return random vectors whose second moments are the Fisher information of the outputs in the answer."""
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

    The linear regression counts as much as the sensitivity, because where answers depend on all of z a little, no few
    directions tell as much as that one. `scale` is the unit of a number.
    """
    linear = linear - linear.mean(1, keepdim=True) if linear.shape[1] > 1 else linear
    parts = [sensitivity / scale**2, linear @ linear.t()]
    total = torch.stack([part / part.trace().clamp(min=LEAST_TRACE) for part in parts]).mean(0)
    sizes, rows = torch.linalg.eigh(total)
    rows = rows.t()[sizes >= LEAST_SHARE].flip(0)[:MOST_DIRECTIONS]
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    found: Tensor = (rows * largest.sign() / GRAIN).round() * GRAIN  # a library may return either sign
    return found


def _started(
    raw: RawOutputs,
    bases: list[Tensor],
    z: Float[Tensor, "n z_dim"],
    targets: Float[Tensor, "n outputs"],
    answers: Answers,
) -> tuple[_Networks, Float[Tensor, "attributes directions n"]]:
    """Return networks that are linear as yet, and their inputs."""
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
            drawn = normals(0, 0, UNITS, inner, stream=f"distilled/units/{spec.name}")
            networks.first[i, :, :inner] = drawn.to(z) / math.sqrt(inner)
    return networks, x


def _trained(
    networks: _Networks,
    x: Float[Tensor, "attributes directions n"],
    targets: Float[Tensor, "outputs n"],
    answers: Answers,
    place: Tensor,
) -> _Networks:
    """Return networks fitted to the answers that targets mean, with weights that are multiples of `GRAIN`.

    `place` holds the row of each output among those of all networks side by side.
    """
    wanted, shapes = answers(targets), [one.shape for one in networks]
    flat = torch.cat([one.flatten() for one in networks])
    parts = flat.split([shape.numel() for shape in shapes])  # a step of all moves each
    networks = _Networks(*(part.view(shape) for part, shape in zip(parts, shapes, strict=True)))
    first, second = torch.zeros_like(flat), torch.zeros_like(flat)
    for step in range(STEPS):
        at = step * BATCH % x.shape[2]
        part, goal = x[:, :, at : at + BATCH], wanted[:, at : at + BATCH]
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
