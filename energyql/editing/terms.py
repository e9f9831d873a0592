"""Terms of the energy that an edit or an inversion minimises.

A term has a value for each sample, in nats; lower is better. Gradients are formulas, except for the identity term,
which uses autograd. Terms are evaluated for a batch of the n samples of an edit, whose numbers are `rows`. Here *w* is
the output of the mapping network for z. docs/decisions/editing.md compares `keep_predictions` and `keep_logits`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate, chain
from operator import add
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import RawOutputs
from energyql.attributes.predictions import HEAD_KINDS, Categorical, Continuous, HeadKind, YesNo, output_count
from energyql.editing.pictures import Embed, flat_features
from energyql.energy.circuit import CircuitFold, CircuitRule, LeafEnergies, energy_of_rows
from energyql.energy.query_energy import QueryEnergy
from energyql.logic.circuit import weighted_sum
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.pullback import by_autograd, row_products

Variable = Literal["z", "w", "latent"]
"""The variable by which a term is differentiated: z, the output w of the mapping network, or the input of the heads."""
EditedW = Callable[[Tensor, Tensor], Tensor]
"""Function from the output of the mapping network, (batch, w_dim), and sample numbers, (batch,), to the w from which
edited pictures are drawn, (batch, w_dim) or (batch, num_ws, w_dim)."""


@dataclass(frozen=True, slots=True, eq=False)
class TermInput:
    """The point at which terms are evaluated, for a batch of samples.

    Attributes:
        rows: numbers of the samples among all samples of the edit, (batch,).
        z: (batch, z_dim).
        w: output of the mapping network, (batch, w_dim); `None` if no term needs it.
        latent: input of the heads, (batch, latent_dim).
    """

    rows: Tensor
    z: Tensor
    w: Tensor | None
    latent: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One term of the energy, as a function of one variable.

    Attributes:
        evaluate: function from a `TermInput` to values, (batch,), and gradients of the shape of the variable.
    """

    variable: Variable
    evaluate: Callable[[TermInput], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class HeadTerm:
    """One term as a function of inputs that are linear in the outputs of heads, for devices other than the CPU.

    `joined_term` computes the heads only once for all such terms of an energy.

    Attributes:
        matrix: (inputs, outputs), float64 on the CPU; the inputs of a sample are `matrix @ outputs + offset`.
        offset: (inputs,), float64 on the CPU.
        evaluate: function from inputs, (batch, inputs), and sample numbers, (batch,), to values, (batch,), and a list
            of tensors, which side by side are the gradients, (batch, inputs).
    """

    raw: RawOutputs
    matrix: Tensor
    offset: Tensor
    evaluate: Callable[[Tensor, Tensor], tuple[Tensor, list[Tensor]]]


AnyTerm = Term | HeadTerm


def joined_term(parts: Sequence[HeadTerm], scaled: bool) -> Term:
    """Sum of terms of the same heads; `scaled` if the heads' input has mean square 1 already (`LatentSpace.scaled`)."""
    function = parts[0].raw.function
    heads = function.then(torch.cat([part.matrix for part in parts]), torch.cat([part.offset for part in parts]))
    heads = replace(heads, direction=heads.direction and not scaled)
    sizes = [len(part.offset) for part in parts]

    def evaluate(at: TermInput) -> tuple[Tensor, Tensor]:
        rows, back = heads.pullback(at.latent)
        split = zip(parts, rows.split(sizes, 1), strict=True)
        values, gradients = zip(*(part.evaluate(own, at.rows) for part, own in split), strict=True)
        return reduce(add, values), back(torch.cat([*chain(*gradients)], 1))

    return Term("latent", evaluate)


def query_terms(energies: Sequence[tuple[QueryEnergy, float]], raw: RawOutputs) -> Callable[[float], list[AnyTerm]]:
    """Function from a factor to terms that sum to `factor * weight * energy` over all queries."""
    rules = [(energy.rule, weight) for energy, weight in energies]
    circuits = [(rule.circuit, weight) for rule, weight in rules if isinstance(rule, CircuitRule) and rule.attributes]
    if raw.function.bias.device.type == "cpu" or not energies or len(circuits) < len(energies):
        return lambda factor: [query_term(energy, factor * weight) for energy, weight in energies]
    leaves = LeafEnergies(CircuitFold(weighted_sum(circuits)).leaves, raw)

    def terms(factor: float) -> list[AnyTerm]:
        fold = CircuitFold(weighted_sum([(circuit, factor * weight) for circuit, weight in circuits]))

        def evaluate(rows: Tensor, samples: Tensor) -> tuple[Tensor, list[Tensor]]:
            value, gradient = energy_of_rows(fold, leaves, rows.t())
            return value, [gradient.t()]

        return [HeadTerm(raw, leaves.matrix, leaves.offset, evaluate)]

    return terms


def query_term(energy: QueryEnergy, weight: float) -> Term:
    """Term `weight * energy` of a query's energy as a function of the heads' input."""

    def evaluate(at: TermInput) -> tuple[Tensor, Tensor]:
        value, gradient = energy.gradient(at.latent)
        return weight * value, weight * gradient

    return Term("latent", evaluate)


def repeated_term(term: AnyTerm, count: int) -> AnyTerm:
    """Term for many samples, whose value for sample i is that of `term` for sample i modulo `count`."""
    if isinstance(term, HeadTerm):
        return replace(term, evaluate=lambda rows, samples: term.evaluate(rows, samples % count))
    return replace(term, evaluate=lambda at: term.evaluate(replace(at, rows=at.rows % count)))


def distance_term(variable: Variable, start: Tensor, weight: float | Tensor) -> Term:
    """Term `weight * |x - x0|²`, which keeps x, named by `variable`, near a start x0.

    Args:
        start: x0 of all samples, (n, ...); z must have the length to which `LatentSpace.scaled` scales it.
        weight: one number, or the weight of each sample, (n,).
    """

    def evaluate(at: TermInput) -> tuple[Tensor, Tensor]:
        x = at.z if variable == "z" else at.w
        assert x is not None
        difference = x - start_of(at.rows)
        flat = difference.flatten(1)
        if isinstance(weight, Tensor):
            own = weight[at.rows]
            return own * row_products(flat, flat), (2 * own)[:, None] * difference
        return row_products(flat, flat, weight), 2 * weight * difference

    start_of = _rows_of(start)
    return Term(variable, evaluate)


def _rows_of(table: Tensor) -> Callable[[Tensor], Tensor]:
    """Function from indices to rows of a table, which remembers the rows of its last argument."""
    last = torch.empty(0), table

    def rows_of(indices: Tensor) -> Tensor:
        nonlocal last
        if last[0] is not indices:
            last = indices, table[indices]
        return last[1]

    return rows_of


def shell_term(weight: float) -> Term:
    """Term `weight * (|z| - sqrt(z_dim))²`, because nearly all z of the prior are about sqrt(z_dim) long."""

    def evaluate(at: TermInput) -> tuple[Tensor, Tensor]:
        length = at.z.norm(dim=1).clamp_min(1e-6)
        excess = length - at.z.shape[1] ** 0.5
        return weight * excess.square(), (2 * weight * excess / length)[:, None] * at.z

    return Term("z", evaluate)


def keep_predictions(raw: RawOutputs, before: Tensor, weights: Tensor) -> AnyTerm:
    """Term `Σ_a weight_a KL(P(a | z0) || P(a | z))`, which keeps the heads' predictions as certain as they are.

    The sum is over attributes a; P are the heads' predictions; z0 is z before the edit.

    Args:
        before: outputs of the heads at z0, (n, outputs).
        weights: weight of each attribute in each sample, (n, attributes); 0 where it may change.
    """
    kinds = {HEAD_KINDS[spec.kind].prediction for spec in raw.specs}
    if before.device.type != "cpu" and kinds <= {YesNo, Categorical, Continuous}:
        return _keep_rows(raw, before, weights)
    blocks = _blocks(raw, before)

    def evaluate(outputs: Tensor, old: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        gradient, value = torch.zeros_like(outputs), torch.zeros_like(outputs[:, 0])
        for kind, columns, attributes, std in blocks:
            weight = weights[:, attributes]
            divergence, slope = kind.divergence(outputs[:, columns], old[:, columns], std)
            value = value + (weight * divergence).sum(1)
            gradient[:, columns] = weight * slope
        return value, gradient

    return _of_outputs(raw, before, weights, evaluate)


_NEVER = -1e4
"""Logit in the columns of a table of logits that an attribute with fewer classes than others does not need."""


def _keep_rows(raw: RawOutputs, before: Tensor, weights: Tensor) -> HeadTerm:
    """`keep_predictions` in few operations, for other devices than the CPU, by a table in which yes/no is (x, 0)."""
    ends = [*accumulate(map(output_count, raw.specs), initial=0)]
    columns = [range(*ends[i : i + 2]) for i in range(len(raw.specs))]
    means = [i for i, spec in enumerate(raw.specs) if HEAD_KINDS[spec.kind].prediction is Continuous]
    tables = [i for i in range(len(raw.specs)) if i not in means]
    shape = (len(tables), max([2, *(len(columns[i]) for i in tables)]))
    matrix = torch.zeros(math.prod(shape) + len(means), before.shape[1], dtype=torch.float64)
    offset = torch.zeros(len(matrix), dtype=torch.float64)
    offset[: math.prod(shape)] = _NEVER
    for place, i in enumerate([*tables, *means]):
        own = columns[i]
        first = place * shape[1] if i in tables else math.prod(shape) + place - len(tables)
        matrix[range(first, first + len(own)), own] = 1
        offset[first : first + (max(2, len(own)) if i in tables else 1)] = 0
    logits, mean = F.linear(before, *(x.to(before) for x in (matrix, offset))).tensor_split([math.prod(shape)], 1)
    log_p = logits.unflatten(1, shape).log_softmax(2)
    order = torch.tensor([*tables, *means], device=weights.device)
    of_tables, of_means = weights.index_select(1, order).tensor_split([len(tables)], 1)
    if means:
        of_means = of_means / torch.stack([raw.std[raw.specs[i].name] for i in means]).square()
    parts = log_p.flatten(1), (-of_tables[:, :, None] * log_p.exp()).flatten(1), of_tables, mean, of_means
    constants_of, sizes = _rows_of(torch.cat(parts, 1)), [part.shape[1] for part in parts]

    def evaluate(rows: Tensor, samples: Tensor) -> tuple[Tensor, list[Tensor]]:
        log_p, minus, of_tables, old, of_means = constants_of(samples).split(sizes, 1)
        logits, mean = rows.split([sizes[0], sizes[3]], 1)
        log_q = logits.unflatten(1, shape).log_softmax(2)
        value = row_products(minus, log_q.flatten(1) - log_p)
        slope = torch.addcmul(minus.unflatten(1, shape), of_tables[:, :, None], log_q.exp()).flatten(1)
        if not means:
            return value, [slope]
        difference = mean - old
        pull = of_means * difference
        halves = torch.baddbmm(value[:, None, None], pull[:, None], difference[:, :, None], alpha=0.5)
        return halves[:, 0, 0], [slope, pull]

    return HeadTerm(raw, matrix, offset, evaluate)


def keep_logits(raw: RawOutputs, before: Tensor, weights: Tensor) -> Term:
    """Term `Σ_a weight_a |logits_a - logits_a0|²` over attributes a, as in Nie et al. 2021 (arXiv 2110.10873).

    The logits are the outputs of the heads at z and, with index 0, before the edit; of a continuous attribute the
    predicted mean. The arguments are those of `keep_predictions`.
    """
    counts = torch.tensor([output_count(spec) for spec in raw.specs], device=before.device)
    weights = weights.repeat_interleave(counts, dim=1)

    def evaluate(outputs: Tensor, old: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        difference = outputs - old
        return (weights * difference.square()).sum(1), 2 * weights * difference

    return _of_outputs(raw, before, weights, evaluate)


def _of_outputs(
    raw: RawOutputs, before: Tensor, weights: Tensor,
    evaluate: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> Term:  # fmt: skip
    """Term that `evaluate` computes from outputs, old outputs and weights; bit for bit the same in any batch."""

    def in_batch(joined: Tensor) -> tuple[Tensor, Tensor]:
        latent, old, weight = joined.tensor_split(starts, 1)
        # A copy, because products of rows that are not aligned round differently on some processors.
        outputs, back = raw.function.pullback(latent.contiguous())
        value, gradient = evaluate(outputs, old, weight)
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
    """Term `weight * (1 - cos(f, before))` of the features f of an edited picture, with gradients by autograd."""

    def evaluate(at: TermInput) -> tuple[Tensor, Tensor]:
        def distance(w: Tensor) -> Tensor:
            features = flat_features(embed, synthesize(w_of(w, at.rows)))
            return weight * (1 - F.cosine_similarity(features, before[at.rows].clone(), dim=1))

        assert at.w is not None
        value, back = by_autograd(distance, at.w)
        return value, back(torch.ones_like(value))

    return Term("w", evaluate)


def _blocks(raw: RawOutputs, like: Tensor) -> list[tuple[HeadKind[Any], Tensor, Tensor, Tensor]]:
    """Blocks of outputs whose divergences are one operation: kind, columns, places in `raw.specs`, deviations."""
    starts = [0, *accumulate(map(output_count, raw.specs))]
    blocks = []
    for name, kind in sorted(HEAD_KINDS.items(), key=lambda item: item[1].elementwise):
        of_kind = [i for i, spec in enumerate(raw.specs) if spec.kind == name]
        for members in ([of_kind] if of_kind else []) if kind.elementwise else [[i] for i in of_kind]:
            columns = [column for i in members for column in range(starts[i], starts[i + 1])]
            std = [float(raw.std.get(raw.specs[i].name, 1.0)) for i in members]
            which, whose = (torch.tensor(numbers, device=like.device) for numbers in (columns, members))
            blocks.append((kind, which, whose, like.new_tensor(std)))
    return blocks
