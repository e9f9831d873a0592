"""Linear read-outs of z: what the heads of a bank would answer, as far as a linear function of z can tell.

Attributes of StyleGANs are close to linear in the latents (Shen et al. 2020, InterFaceGAN, arXiv 1907.10786). Read-outs
are fitted to the heads' own soft answers on draws from the prior, so they are as unsure as they should be: where the
heads bend away from the line, the read-out says so by a probability nearer to even odds or a larger deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from energyql.attributes.bank import AttributeBank
from energyql.attributes.heads import Head
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
"""Largest z that read-outs are fitted to: the draws take 4 (4096 + 16 z_dim) z_dim bytes, 84 MB for this one."""
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
    names = tuple(bank.vocabulary)
    raw = bank.raw_outputs(names)
    z = normals(0, 0, DRAWS + DRAWS_PER_NUMBER * z_dim, z_dim, stream="readouts").to(bank.device)
    with torch.no_grad():
        (outputs,) = in_batches(lambda part: (raw.function(encode(part)),), z, few_sizes(len(z)))
        # An answer that is no number tells nothing.
        outputs = torch.nan_to_num(outputs.cpu().double(), nan=0.0, posinf=0.0, neginf=0.0)
        with_one = torch.cat([z, torch.ones_like(z[:, :1])], 1).cpu().double()
        weights = torch.linalg.solve(with_one.t() @ with_one, with_one.t() @ outputs)
    weights = (_logistic(with_one, outputs, raw.specs, weights) / GRAIN).round() * GRAIN
    heads, start = {}, 0
    for spec in raw.specs:
        columns = slice(start, start := start + output_count(spec))
        own, std = weights[:, columns], torch.ones((), dtype=torch.double)
        if spec.kind == "categorical":
            own = own - own.mean(1, keepdim=True)  # only differences count
        elif spec.kind == "continuous":
            missed = (with_one @ own - outputs[:, columns]).square().mean()
            std = (missed + raw.std[spec.name].cpu().double().square()).sqrt()
        own, std = own.to(z), std.to(z)
        none = own.new_zeros(0)
        heads[spec.name] = Head(
            hidden_weight=none.view(0, z_dim), hidden_bias=none, out_weight=none.view(own.shape[1], 0),
            skip_weight=own[:-1].t().contiguous(), out_bias=own[-1].clone(), std=std,
        )  # fmt: skip
    return AttributeBank(bank.vocabulary, heads, space="z")


def _logistic(
    x: Float[Tensor, "n inputs"],
    outputs: Float[Tensor, "n outputs"],
    specs: Sequence[AttributeSpec],
    weights: Float[Tensor, "inputs outputs"],
) -> Float[Tensor, "inputs outputs"]:
    """Return weights of the logistic regressions on the probabilities that outputs mean, begun at other weights.

    Outputs of continuous attributes keep their weights.
    """
    tables, start, count = list[list[int]](), 0, outputs.shape[1]  # of each attribute the outputs of its classes
    for spec in specs:
        columns = list(range(start, start := start + output_count(spec)))
        if spec.kind != "continuous":
            tables.append(columns if len(columns) > 1 else [*columns, count])  # no has the logit 0
    if not tables:
        return weights
    widest = max(map(len, tables))
    filled = torch.tensor([columns + [count + 1] * (widest - len(columns)) for columns in tables])
    flat = filled.t().flatten()  # by class, then by attribute: a softmax over few numbers side by side is slow
    spread = torch.eye(count + 2)[flat, :count].to(x)
    offset = torch.tensor([0.0] * count + [0.0, _NEVER])[flat, None].to(x)

    def probabilities(weights: Tensor, x: Tensor) -> Tensor:
        logits = torch.addmm(offset, spread @ weights.t(), x)
        return torch.softmax(logits.view(widest, len(tables), -1), 0).flatten(0, 1)

    answers = probabilities(torch.eye(count).to(x), outputs.t().contiguous())
    across = x.t().contiguous()
    penalty = 2 * RIDGE * torch.outer(torch.arange(len(across)) < len(across) - 1, spread.any(0).cpu()).to(x)
    # A logistic of a normal is about one of its mean with the slope divided by this (MacKay 1992).
    spare = (x @ weights - outputs).square().mean(0)
    weights = torch.where(spread.any(0), weights / (1 + math.pi / 8 * spare).sqrt(), weights)
    together = torch.eye(count).to(x)  # outputs of one attribute share a step
    for columns in tables:
        if len(columns) > 2 or count not in columns:
            together[columns[0] : columns[-1] + 1, columns[0] : columns[-1] + 1] = 1
    step, before = torch.full_like(weights[0], FIRST_STEP), (weights, weights)
    for _ in range(STEPS):
        slope = ((probabilities(weights, across) - answers) @ x).t() @ spread / len(x) + penalty * weights
        moved, changed = weights - before[0], slope - before[1]
        lengths = moved.square().sum(0) @ together, (moved * changed).sum(0) @ together
        step = torch.where(lengths[0] > 0, lengths[0] / lengths[1], step)
        step = torch.where(step > 0, step.clamp(max=LONGEST_STEP), FIRST_STEP)
        before = weights, slope
        weights = weights - step * slope
    return weights
