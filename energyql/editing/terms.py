"""Terms of the energy that an edit or an inversion minimises.

A term has a value for each sample, in nats; lower is better. Gradients are computed by formulas, except for the
identity term, which uses autograd. docs/decisions/editing.md compares `keep_predictions` and `keep_logits`, the two
terms that keep attributes.

In this module *w* is the output of the mapping network for z. An edit changes n samples, numbered from 0. Terms are
evaluated for a batch of them, and `rows` are the numbers of the samples in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate, chain
from operator import add
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import RawOutputs
from energyql.attributes.predictions import PREDICTIONS, Categorical, Continuous, Prediction, YesNo, output_count
from energyql.editing.pictures import Embed, flat_features
from energyql.energy.circuit import CircuitFold, CircuitRule, LeafEnergies, energy_of_rows
from energyql.energy.query_energy import QueryEnergy
from energyql.logic.circuit import weighted_sum
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.pullback import by_autograd, row_products

Variable = Literal["z", "w", "latent"]
"""The variable by which a term is differentiated: z, the output w of the mapping network, or the input of the heads."""
EditedW = Callable[[Tensor, Tensor], Tensor]
"""Function from the output of the mapping network, (batch, w_dim), and the numbers of the samples, (batch,), to the w
from which the edited pictures are drawn, (batch, w_dim) or (batch, num_ws, w_dim)."""


@dataclass(frozen=True, slots=True, eq=False)
class TermInput:
    """The point at which terms are evaluated, for a batch of samples.

    Attributes:
        rows: numbers of the samples among all samples of the edit, (batch,).
        z: (batch, z_dim).
        w: output of the mapping network for z, (batch, w_dim); `None` if no term needs it.
        latent: the input of the heads, (batch, latent_dim).
    """

    rows: Tensor
    z: Tensor
    w: Tensor | None
    latent: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One term of the energy. It is a function of z, of w, or of the input of the heads.

    Attributes:
        variable: name of this variable: "z", "w", or "latent" for the input of the heads.
        evaluate: function from a `TermInput` to the values of the term, (batch,), and the gradients with respect to the
            variable, which have the shape of the variable.
    """

    variable: Variable
    evaluate: Callable[[TermInput], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class HeadTerm:
    """One term of the energy as a function of inputs, numbers that are linear in the outputs of heads.

    Such terms are used on other devices than the CPU: the heads are computed once for all terms of an energy, by
    `joined_term`.

    Attributes:
        raw: the heads.
        matrix: (inputs, outputs), float64 on the CPU. The inputs of a sample are `matrix @ outputs + offset`.
        offset: (inputs,), float64 on the CPU.
        evaluate: function from inputs, (batch, inputs), and the numbers of the samples, (batch,), to two values: the
            values of the term, (batch,); and a list of tensors, which side by side are the gradients with respect to
            the inputs, (batch, inputs).
    """

    raw: RawOutputs
    matrix: Tensor
    offset: Tensor
    evaluate: Callable[[Tensor, Tensor], tuple[Tensor, list[Tensor]]]


AnyTerm = Term | HeadTerm


def joined_term(parts: Sequence[HeadTerm], scaled: bool) -> Term:
    """Return the sum of terms that are functions of the outputs of the same heads.

    Args:
        parts: the terms, at least one.
        scaled: whether the input of the heads has a mean square of 1 already, because z is a result of
            `LatentSpace.scaled`.
    """
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
    """Return a function that makes the terms of several queries, all multiplied by a factor.

    The function takes the factor, and returns terms whose sum is `factor * weight * energy`, summed over the queries.

    Args:
        energies: energies of queries as functions of the heads' input, and their weights.
        raw: the heads of all attributes. On other devices than the CPU all queries are evaluated together.
    """
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
    """Return the term `weight * energy`, where `energy` is the energy of a query as a function of the heads' input."""

    def evaluate(at: TermInput) -> tuple[Tensor, Tensor]:
        value, gradient = energy.gradient(at.latent)
        return weight * value, weight * gradient

    return Term("latent", evaluate)


def repeated_term(term: AnyTerm, count: int) -> AnyTerm:
    """Return a term for many samples: its value for sample i is the value of `term` for sample i modulo `count`."""
    if isinstance(term, HeadTerm):
        return replace(term, evaluate=lambda rows, samples: term.evaluate(rows, samples % count))
    return replace(term, evaluate=lambda at: term.evaluate(replace(at, rows=at.rows % count)))


def distance_term(variable: Variable, start: Tensor, weight: float | Tensor) -> Term:
    """Return the term `weight * |x - x0|²`, which keeps x near a start x0.

    Args:
        variable: the name of x, "z" or "w".
        start: x0 of all samples, of the shape of x with n rows. If x is z, x0 must have the length to which
            `LatentSpace.scaled` scales z.
        weight: the weight; or the weight of each sample, (n,).
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
    """Return a function from a tensor of indices to the rows of a table with these indices.

    If the next call has the same tensor of indices, the rows are not looked up again.
    """
    last = torch.empty(0), table

    def rows_of(indices: Tensor) -> Tensor:
        nonlocal last
        if last[0] is not indices:
            last = indices, table[indices]
        return last[1]

    return rows_of


def shell_term(weight: float) -> Term:
    """Return the term `weight * (|z| - sqrt(z_dim))²`, because nearly all z of the prior are about sqrt(z_dim) long."""

    def evaluate(at: TermInput) -> tuple[Tensor, Tensor]:
        length = at.z.norm(dim=1).clamp_min(1e-6)
        excess = length - at.z.shape[1] ** 0.5
        return weight * excess.square(), (2 * weight * excess / length)[:, None] * at.z

    return Term("z", evaluate)


def keep_predictions(raw: RawOutputs, before: Tensor, weights: Tensor) -> AnyTerm:
    """Return the term `Σ_a weight_a KL(P(a | z0) || P(a | z))`, which keeps the heads' predictions as they are at z0.

    The sum is over attributes a; P is a head's prediction; z0 are the latents before the edit. Certain predictions stay
    certain, uncertain predictions stay uncertain.

    Args:
        raw: the heads.
        before: outputs of the heads at z0, (n, outputs).
        weights: weight of each attribute in each sample, (n, attributes); 0 if the attribute may change in the sample.
    """
    kinds = {PREDICTIONS[spec.kind] for spec in raw.specs}
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
"""In a table of logits with equally many columns for each attribute: the logit in the columns that an attribute with
fewer classes does not need."""


def _keep_rows(raw: RawOutputs, before: Tensor, weights: Tensor) -> HeadTerm:
    """Return the same term as `keep_predictions`, computed in few operations, for other devices than the CPU.

    The logits of all attributes with classes are in one table, in which a yes/no attribute has the logits x and 0.
    Numbers that do not depend on z are computed only once. For the arguments see `keep_predictions`.
    """
    ends = [*accumulate(map(output_count, raw.specs), initial=0)]
    columns = [range(*ends[i : i + 2]) for i in range(len(raw.specs))]
    means = [i for i, spec in enumerate(raw.specs) if PREDICTIONS[spec.kind] is Continuous]
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
    """Return the term `Σ_a weight_a |logits_a - logits_a0|²`, as in Nie et al. 2021 (arXiv 2110.10873).

    The sum is over attributes a. `logits_a` are the outputs of the head of a, `logits_a0` the same outputs before the
    edit. A continuous attribute has one output, the predicted mean.

    Args:
        raw: the heads.
        before: outputs of all heads before the edit, (n, outputs).
        weights: weight of each attribute in each sample, (n, attributes); 0 if the attribute may change in the sample.
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
    """Return a term that is computed from the outputs of heads.

    The value of the term for a sample does not depend on the other samples in the batch, bit for bit.

    Args:
        raw: the heads.
        before: outputs of the heads before the edit, (n, outputs).
        weights: the weights that `evaluate` gets, with a row for each sample: (n, attributes) or (n, outputs).
        evaluate: function of three arguments: outputs, outputs before the edit, and weights, each with the rows of a
            batch. It returns values, (batch,), and gradients with respect to the outputs.
    """

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
    """Return the term `weight * (1 - cos(embed(picture), embed(old picture)))`, with gradients by autograd.

    Args:
        embed: function from pictures to features.
        synthesize: function from w to pictures.
        w_of: function of two arguments: the output of the mapping network, and the numbers of the samples. It returns
            the w from which the edited pictures are drawn. `edited_w` makes such a function.
        before: features of the pictures before the edit, (n, features).
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


def _blocks(raw: RawOutputs, like: Tensor) -> list[tuple[type[Prediction], Tensor, Tensor, Tensor]]:
    """Split the outputs of heads into blocks, so that the divergences of a block are computed in one operation.

    An attribute with several outputs is a block alone. Attributes with one output form a block with all attributes of
    the same kind.

    Args:
        raw: the heads.
        like: a tensor with the dtype and device that the standard deviations get.

    Returns:
        For each block: the class of predictions of its attributes; the columns of its outputs; the positions of its
        attributes in `raw.specs`; and for each of its attributes the standard deviation of the head's residuals, 1 if
        the attribute is not continuous.
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
