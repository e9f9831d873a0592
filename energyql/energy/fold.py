"""Evaluates a circuit on tensors: all nodes of one depth, kind and width in one operation each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from energyql.logic.circuit import Circuit
from energyql.logic.nodes import CircuitNode, Leaf, LogSumExp, Scaled, ScaledComplement, Sum, operands

_Step = Callable[[Tensor], Tensor]


class CircuitFold:
    """The function from the leaves' log-probabilities to the circuit's value.

    Args:
        circuit: the circuit.
        leaves: its leaves in the order of the rows that a call takes; the circuit's own order if left out.
    """

    def __init__(self, circuit: Circuit, leaves: Sequence[Leaf] | None = None) -> None:
        self._groups, self._root = _groups(circuit, circuit.leaves if leaves is None else leaves)
        self._steps: dict[tuple[torch.device, torch.dtype], list[_Step]] = {}

    def __call__(self, leaves: Tensor) -> Tensor:
        """The circuit's log-value, `(batch,)`, in nats.

        Args:
            leaves: `(number of leaves, batch)`, each row the log-probability of a leaf.
        """
        key = (leaves.device, leaves.dtype)
        steps = self._steps.get(key)
        if steps is None:
            steps = self._steps[key] = [_step(members, leaves) for members in self._groups]
        values = leaves
        for number, step in enumerate(steps, start=1):
            fresh = step(values)
            values = fresh if number == len(steps) else torch.cat([values, fresh])
        return values[self._root]


def _groups(circuit: Circuit, leaves: Sequence[Leaf]) -> tuple[list[list[CircuitNode]], int]:
    """Inner nodes grouped by depth, kind and width, their children renumbered to rows of the growing value table.

    Returns:
        The groups in the order of evaluation, and the row of the root among what the last step returns.
    """
    depths: list[int] = []
    members: dict[tuple[int, str, int], list[int]] = {}
    places = {leaf: row for row, leaf in enumerate(leaves)}
    rows: dict[int, int] = {}
    for index, node in enumerate(circuit.nodes):
        below = operands(node)
        depth = 1 + max((depths[child] for child in below), default=0) if not isinstance(node, Leaf) else 0
        depths.append(depth)
        if isinstance(node, Leaf):
            rows[index] = places[node]
        else:
            members.setdefault((depth, type(node).__name__, len(below)), []).append(index)
    groups: list[list[CircuitNode]] = []
    for key in sorted(members):
        for index in members[key]:
            rows[index] = len(rows)
        groups.append([_on_rows(circuit.nodes[index], rows) for index in members[key]])
    # The root is deepest and nothing else is as deep, so it is alone in the last group.
    return groups, 0 if groups else rows[len(circuit.nodes) - 1]


def _on_rows(node: CircuitNode, rows: dict[int, int]) -> CircuitNode:
    if isinstance(node, Sum):
        return Sum(tuple(rows[child] for child in node.children))
    if isinstance(node, LogSumExp):
        return LogSumExp(tuple(rows[child] for child in node.children))
    if isinstance(node, Scaled):
        return Scaled(node.factor, rows[node.child])
    assert isinstance(node, ScaledComplement)
    return ScaledComplement(node.factor, rows[node.child], rows[node.complement])


def _step(members: list[CircuitNode], like: Tensor) -> _Step:
    """The operation for nodes of one kind and width: from the values so far to the members' values."""
    children = list(zip(*(operands(node) for node in members), strict=True))  # children[k]: everyone's k-th child
    columns = [torch.tensor(column, device=like.device) for column in children]
    first = members[0]
    if isinstance(first, (Sum, LogSumExp)):
        width, count, flat = len(columns), len(members), torch.cat(columns)
        whole = count == 1 and sorted(flat.tolist()) == list(range(len(flat)))
        combine = torch.sum if isinstance(first, Sum) else torch.logsumexp

        def reduce(values: Tensor) -> Tensor:
            # A plain conjunction takes every row once, in any order: no gather.
            rows = values[:width] if whole else values.index_select(0, flat)
            return combine(rows.view(width, count, values.shape[1]), dim=0)

        return reduce
    weights = [[node.factor] for node in members if isinstance(node, (Scaled, ScaledComplement))]
    factors = torch.tensor(weights, device=like.device, dtype=like.dtype)
    if isinstance(first, Scaled):
        return lambda values: factors * values.index_select(0, columns[0])
    return lambda values: log_scaled_complement(
        values.index_select(0, columns[0]), values.index_select(0, columns[1]), factors
    )


def log_scaled_complement(value: Tensor, complement: Tensor, factor: Tensor) -> Tensor:
    """`log(1 - P^factor)` from `value = log P` and `complement = log(1 - P)`, elementwise, in nats.

    Where P is above one half it is computed from `complement`, with u = 1 - P as
    `log(factor) + log(u) + log(t / (factor u)) + log((1 - exp(-t)) / t)`, t = -factor log(1 - u), so that it stays
    right, and its gradient alive, when P rounds to 1. Elsewhere it is `log(-expm1(factor value))`.
    """
    tiny = torch.finfo(value.dtype).tiny
    near_one = complement < value
    # `where` blocks the value of the branch that is not taken but not a NaN in its gradient: feed it something safe.
    u = torch.where(near_one, complement, -1.0).exp()
    stretch = torch.where(u > tiny, -torch.log1p(-u) / u.clamp(min=tiny), 1.0)
    t = factor * stretch * u
    shrink = torch.where(t > tiny, -torch.expm1(-t) / t.clamp(min=tiny), 1.0)
    high = factor.log() + complement + stretch.log() + shrink.log()
    low = torch.log(-torch.expm1(factor * torch.where(near_one, -math.log(2), value)))
    return torch.where(near_one, high, low)
