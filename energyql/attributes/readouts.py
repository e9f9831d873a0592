"""Linear read-outs of z: what the heads of a bank would answer, as far as a linear function of z can tell.

Attributes of StyleGANs are close to linear in the latents (Shen et al. 2020, InterFaceGAN, arXiv 1907.10786). Read-outs
are fitted to the heads' own soft answers on draws from the prior, so they are as unsure as they should be: where the
heads bend away from the line, the read-out says so by a probability nearer to even odds or a larger deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from energyql.attributes.bank import AttributeBank
from energyql.attributes.heads import Head, RawOutputs
from energyql.attributes.predictions import output_count
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.random import normals
from energyql.numerics.shapes import Float
from energyql.vocabulary import AttributeSpec

DRAWS, DRAWS_PER_NUMBER = 4096, 16
"""Draws from the prior that read-outs are fitted to, and how many more for each number in z."""
RIDGE = 1e-4
"""Weight of the squared coefficients against one answer's log-likelihood."""
MOST_NUMBERS = 1024
"""Largest z that heads are replaced for: fits take 350 MB for this one."""
STEPS, FIRST_STEP, LONGEST_STEP = 80, 2.0, 1000.0
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
    z = normals(0, 0, DRAWS + DRAWS_PER_NUMBER * z_dim, z_dim, stream="readouts").to(bank.device)
    with torch.no_grad():
        outputs = soft_outputs(raw, encode, z)
        with_one = torch.cat([z, torch.ones_like(z[:, :1])], 1).cpu().double()
        weights = linear_start(with_one, outputs, answers)
    weights = (_logistic(with_one, outputs, answers, weights) / GRAIN).round() * GRAIN
    heads = {}
    for spec, columns in zip(raw.specs, answers.columns, strict=True):
        own = weights[:, columns]
        if spec.kind == "categorical":
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
        self.tables = [own for spec, own in parts if spec.kind != "continuous"]
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
    if spec.kind != "continuous":
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
    for _ in range(STEPS):
        slope = ((answers(weights.t() @ across) - wanted) @ x).t() * fitted / len(x) + penalty * weights
        moved, changed = weights - before[0], slope - before[1]
        lengths = moved.square().sum(0) @ together, (moved * changed).sum(0) @ together
        step = torch.where(lengths[0] > 0, lengths[0] / lengths[1], step)
        step = torch.where(step > 0, step.clamp(max=LONGEST_STEP), FIRST_STEP)
        before = weights, slope
        weights = weights - step * slope
    return weights
