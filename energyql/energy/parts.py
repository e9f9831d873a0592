"""The leaves of a circuit, in parts that are each one number away from an energy.

| part | energy, -log P | of what the heads give |
|---|---|---|
| an answer | softplus | the logit against it |
| a set of classes | softplus | log-sum-exp of all other logits minus that of its own |
| an interval without one end | -log of the normal CDF | standard deviations from mean to bound, signed |
| an interval | -log of a difference of normal CDFs | standard deviations from mean to middle |

A leaf of several intervals has as many parts, and is their log-sum-exp. Everything in the third column is linear (of a
set, what its log-sum-exps are taken of), so that the heads' last layer can give it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.predictions import output_count
from energyql.logic.cells import CellSet
from energyql.logic.nodes import Leaf
from energyql.numerics.normal import (
    log_normal_cdf,
    log_normal_cdf_slope,
    log_normal_interval,
    log_normal_interval_and_slope,
)
from energyql.numerics.pullback import Back
from energyql.vocabulary import AttributeSpec

Row = tuple[dict[int, float], float]
"""Factors of raw outputs by their column, and an offset."""
_ANSWER, _SET, _TAIL, _INTERVAL = range(4)
_NOTHING: Row = ({}, -math.inf)
_LINEAR = 40.0  # where exp(-x) is below the rounding error of x in every type


class Parts:
    """The function from (rows, batch), linear in the raw outputs, to the energies of parts (parts, batch), in nats.

    Args:
        leaves: the leaves of a circuit.
        specs: the attributes of the raw outputs, in order.
        std: residual standard deviation of each continuous attribute.
        like: device and dtype.

    Attributes:
        matrix, offset: from raw outputs to rows, (rows, outputs) and (rows,), float64 on the CPU.
        of_leaf: the parts of each leaf.
        count: number of parts.
    """

    def __init__(
        self, leaves: Iterable[Leaf], specs: Sequence[AttributeSpec], std: Mapping[str, float], like: Tensor
    ) -> None:
        found = _Found(specs, std)
        places = {leaf: found.add(leaf) for leaf in leaves}
        blocks = found.blocks
        self._answers, self._tails, self._intervals = len(blocks[_ANSWER]), len(blocks[_TAIL]), len(blocks[_INTERVAL])
        self._sets = len(found.sets)
        starts = [0, self._answers, self._answers + self._sets, self._answers + self._sets + self._tails]
        self.count = starts[_INTERVAL] + self._intervals
        self.of_leaf = {leaf: [starts[kind] + i for kind, i in parts] for leaf, parts in places.items()}
        table = _table(found.sets)
        self._shape = (len(table) // max(1, 2 * self._sets), 2, self._sets, -1)
        rows = [*blocks[_ANSWER], *blocks[_TAIL], *blocks[_INTERVAL], *table]
        self.matrix = torch.zeros(len(rows), found.columns, dtype=torch.float64)
        for i, (factors, _) in enumerate(rows):
            for column, factor in factors.items():
                self.matrix[i, column] = factor
        self.offset = torch.tensor([offset for _, offset in rows], dtype=torch.float64)
        self._widths = torch.tensor(found.widths, dtype=like.dtype, device=like.device)[:, None]
        self._least = math.log(torch.finfo(like.dtype).tiny) / 3 + 1
        self._sizes = [self._answers, self._tails, self._intervals, len(table)]

    def __call__(self, rows: Tensor) -> Tensor:
        """The energies; autograd can differentiate them."""
        logits, tails, middles, table = self._split(rows)
        if self._sets:
            outside, inside = torch.logsumexp(table.view(self._shape), 0)
            logits = torch.cat([logits, outside - inside])
        found = [self._unlikeliness(logits)]
        if self._tails:
            found.append(-log_normal_cdf(tails))
        if self._intervals:
            found.append(-log_normal_interval(middles, self._widths.expand_as(middles)))
        return found[0] if len(found) == 1 else torch.cat(found)

    def pullback(self, rows: Tensor) -> tuple[Tensor, Back]:
        """The energies and the way back, without a graph.

        It also takes a gradient that is the same for all samples, (parts, 1).
        """
        logits, tails, middles, table = self._split(rows)
        classes = table.view(self._shape) if self._sets else table
        if self._sets:
            outside, inside = torch.logsumexp(classes, 0)
            logits = torch.cat([logits, outside - inside])
        found, slope = [self._unlikeliness(logits)], tails
        if self._tails:
            found.append(-log_normal_cdf(tails))
        if self._intervals:
            value, slope = log_normal_interval_and_slope(middles, self._widths)
            found.append(-value)

        def back(grad: Tensor) -> Tensor:
            if len(found) == 1 and not self._sets:
                return torch.sigmoid(logits).mul_(grad)
            of_logits, of_tails, of_middles = grad.split([len(logits), self._tails, self._intervals])
            of_answers, of_sets = torch.sigmoid(logits).mul_(of_logits).split([self._answers, self._sets])
            below = [of_answers]
            if self._tails:
                below.append(log_normal_cdf_slope(tails).mul_(-of_tails))
            if self._intervals:
                below.append(slope * -of_middles)
            if self._sets:
                both = torch.stack([of_sets, -of_sets])
                below.append(torch.softmax(classes, 0).mul_(both).flatten(0, 2))
            return torch.cat(below)

        return found[0] if len(found) == 1 else torch.cat(found), back

    def _split(self, rows: Tensor) -> Sequence[Tensor]:
        if self._answers == len(rows):
            return rows, rows, rows, rows  # the others are not looked at
        blocks: tuple[Tensor, ...] = rows.split(self._sizes)
        return blocks

    def _unlikeliness(self, logits: Tensor) -> Tensor:
        """`-log P` of logits against."""
        # Clamped where the next power of exp(x) that log1p takes would be denormal, which is many times slower.
        return F.softplus(logits.clamp(min=self._least), threshold=_LINEAR)


class _Found:
    """Collects the parts of leaves; equal parts are one."""

    def __init__(self, specs: Sequence[AttributeSpec], std: Mapping[str, float]) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.std = std
        self.first: dict[str, int] = {}
        self.columns = 0
        for spec in specs:
            self.first[spec.name] = self.columns
            self.columns += output_count(spec)
        self.blocks: dict[int, list[Row]] = {_ANSWER: [], _TAIL: [], _INTERVAL: []}
        self.sets: list[tuple[list[Row], list[Row]]] = []
        self.widths: list[float] = []
        self._known: dict[Leaf, tuple[int, int]] = {}

    def add(self, leaf: Leaf) -> list[tuple[int, int]]:
        """The parts of a leaf: of which kind, and which of them."""
        spec, column = self.specs[leaf.attribute], self.first[leaf.attribute]
        if spec.kind != "continuous":
            return [self._once(leaf, spec, column)]
        cells = [cell for cell in leaf.cells if isinstance(cell, tuple)] or [(math.inf, math.inf)]
        return [self._once(Leaf(leaf.attribute, (cell,)), spec, column) for cell in cells]

    def _once(self, leaf: Leaf, spec: AttributeSpec, column: int) -> tuple[int, int]:
        if leaf not in self._known:
            self._known[leaf] = self._new(leaf.cells, spec, column)
        return self._known[leaf]

    def _new(self, cells: CellSet, spec: AttributeSpec, column: int) -> tuple[int, int]:
        if spec.kind == "yes/no":
            if len(cells) != 1:
                return self._certain(bool(cells))
            return self._row(_ANSWER, ({column: -1.0 if True in cells else 1.0}, 0.0))
        if spec.kind == "categorical":
            classes: list[Row] = [({column + i: 1.0}, 0.0) for i in range(len(spec.values))]
            inside = [row for row, value in zip(classes, spec.values, strict=True) if value in cells]
            outside = [row for row, value in zip(classes, spec.values, strict=True) if value not in cells]
            if not inside or not outside:
                return self._certain(bool(inside))
            self.sets.append((outside, inside))
            return _SET, len(self.sets) - 1
        cell, std = cells[0], self.std[spec.name]
        assert isinstance(cell, tuple)
        low, high = cell
        if math.isinf(low) and math.isinf(high):
            return self._certain(low < high)
        if math.isinf(low) or math.isinf(high):
            sign, bound = (1.0, low) if math.isinf(high) else (-1.0, high)
            return self._row(_TAIL, ({column: sign / std}, -sign * bound / std))
        self.widths.append((high - low) / std)
        return self._row(_INTERVAL, ({column: -1 / std}, (low + high) / 2 / std))

    def _certain(self, yes: bool) -> tuple[int, int]:
        return self._row(_ANSWER, ({}, -math.inf if yes else math.inf))

    def _row(self, kind: int, row: Row) -> tuple[int, int]:
        self.blocks[kind].append(row)
        return kind, len(self.blocks[kind]) - 1


def _table(sets: Sequence[tuple[list[Row], list[Row]]]) -> list[Row]:
    """The classes outside and inside of each set, as a table (classes, 2, sets), filled up with what adds nothing."""
    longest = max((len(side) for pair in sets for side in pair), default=0)
    return [
        pair[side][i] if i < len(pair[side]) else _NOTHING for i in range(longest) for side in (0, 1) for pair in sets
    ]
