"""Evaluates a multiplied-out circuit: for each level one matrix product and one log-sum-exp."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from energyql.logic.levels import Levels, Value

MOST_ENTRIES = 1 << 18
"""Of a level's matrix; a dense product with a larger one is no gain."""

_LEAST = -80.0
"""Terms that are smaller than the largest by more nats count as much as this."""


class _Level(NamedTuple):
    """Sums are (terms, values): every value has as many terms as the longest, filled up with -infinity."""

    matrix: Tensor  # (terms * values, rows so far): to energies if there is one term, to log-probabilities if more
    slopes: Tensor  # of energies, transposed
    offset: Tensor | None  # (terms * values, 1), 0 or -infinity; None where no value is filled up
    terms: int
    values: int


class LevelFold:
    """The function from the energies of leaves to the energy of a circuit: sums of energies, and their -log-sum-exp.

    Energies must be finite: a sum that does not contain one adds zero times its value.

    Args:
        levels: what `multiply_out` returned.
        count: rows of leaves.
        like: device and dtype.
    """

    def __init__(self, levels: Levels, count: int, like: Tensor) -> None:
        self._levels: list[_Level] = []
        for values in levels:
            self._levels.append(_prepared(values, count, like))
            count += len(values)

    @staticmethod
    def fits(levels: Levels, count: int) -> bool:
        """Whether the matrices are small enough to be worth it; `count` is the number of rows of leaves."""
        for values in levels:
            if max(map(len, values)) * len(values) * count > MOST_ENTRIES:
                return False
            count += len(values)
        return True

    def __call__(self, leaves: Tensor) -> Tensor:
        """The circuit's energy, `(batch,)`, in nats, of the leaves', `(rows, batch)`."""
        table = fresh = leaves
        for level in self._levels:
            table = table if fresh is table else torch.cat([table, fresh])
            fresh = _sums(level, table)
            if level.terms > 1:
                fresh, _, _ = _log_sum(fresh.view(level.terms, level.values, -1))
        return fresh[0]

    def with_slopes(self, leaves: Tensor) -> tuple[Tensor, Tensor]:
        """The energy and its slopes in the leaves', `(rows, batch)` or `(rows, 1)`, without a graph."""
        table = fresh = leaves
        shares: list[Tensor | None] = []  # how much each sum counts in its value
        for level in self._levels:
            table = table if fresh is table else torch.cat([table, fresh])
            fresh = _sums(level, table)
            if level.terms > 1:
                fresh, sizes, total = _log_sum(fresh.view(level.terms, level.values, -1))
                shares.append(sizes / total)
            else:
                shares.append(None)
        value, slopes = fresh[0], None
        for level, share in zip(reversed(self._levels), reversed(shares), strict=True):
            if slopes is None:  # the last level is the value, whose slope is 1
                slopes = level.slopes if share is None else level.slopes @ share.flatten(0, 1)
                continue
            before = level.matrix.shape[1]
            own = slopes[before:]
            pull = own if share is None else (share * own).flatten(0, 1)
            slopes = torch.addmm(slopes[:before], level.slopes, pull)
        assert slopes is not None
        return value, slopes


def _sums(level: _Level, table: Tensor) -> Tensor:
    return level.matrix @ table if level.offset is None else torch.addmm(level.offset, level.matrix, table)


def _log_sum(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Minus the log-sum-exp over dimension 0; the exponentials and their sum, both relative to the largest.

    `torch.logsumexp` is many times slower where exponentials come out denormal.
    """
    most = sums.amax(0)
    sizes = (sums - most).clamp_(min=_LEAST).exp_()
    total = sizes.sum(0)
    return total.log().add_(most).neg_(), sizes, total


def _prepared(values: tuple[Value, ...], rows: int, like: Tensor) -> _Level:
    terms = max(map(len, values))
    matrix, offset = torch.zeros(terms, len(values), rows), torch.full((terms, len(values)), -math.inf)
    for j, value in enumerate(values):
        for i, term in enumerate(value):
            offset[i, j] = 0.0
            for row, times in term.items():
                matrix[i, j, row] = times
    matrix, offset = matrix.flatten(0, 1).to(like), offset.flatten()[:, None].to(like)
    return _Level(
        matrix if terms == 1 else -matrix, matrix.T.contiguous(), offset if offset.any() else None, terms, len(values)
    )
