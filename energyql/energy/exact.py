"""The energy rule of a circuit, and the evaluation of circuits on tensors.

All nodes of one depth, kind and width are evaluated in one operation. A circuit is evaluated in two ways that share
everything but the derivative: in plain torch operations for autograd, and with the derivative by hand, which is 1.3 to
2.2 times as fast for samplers that need gradients (docs/decisions/one-evaluator.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from energyql.attributes.predictions import Predictions, log_probabilities
from energyql.logic.circuit import Circuit
from energyql.logic.nodes import CircuitNode, Given, Leaf, LogSumExp, Scaled, ScaledComplement, Sum, operands
from energyql.numerics.pullback import by_autograd
from energyql.numerics.shapes import Float
from energyql.render.markup import Markup

YES_NO, CLASSES, TAIL, INTERVAL = range(4)
"""Kinds of leaves that are evaluated in one operation: intervals that reach to infinity on one side are tails."""
_LEAST = -80.0
"""Lower bound, in nats, of a term of a log-sum-exp relative to the largest term."""
_Plan = tuple[type[CircuitNode], list[tuple[int, ...]], list[float], int]
"""Arguments of a `_Group`."""


@dataclass(frozen=True)
class CircuitRule:
    """Evaluates a circuit on predictions; see `EnergyRule`. Rules are equal if their circuits are.

    Attributes:
        circuit: the compiled query.
        is_probability: whether the value is the log-probability of the query.
    """

    circuit: Circuit
    is_probability: bool = True

    @property
    def attributes(self) -> tuple[str, ...]:
        """See `EnergyRule`."""
        return self.circuit.attributes

    @cached_property
    def fold(self) -> CircuitFold:
        """The circuit as a function of its leaves."""
        return CircuitFold(self.circuit)

    def log_value(self, predictions: Predictions) -> Float[Tensor, " batch"]:
        """Return the circuit's value, in nats.

        A query that is always true needs no predictions, which would give the batch size: `QueryEnergy` handles it.
        """
        return self.fold(log_probabilities([(predictions[leaf.attribute], leaf.cells) for leaf in self.fold.leaves]))

    def explain(self) -> str:
        """Return the circuit as indented text."""
        return self.circuit.explain()

    def draw(self) -> Markup:
        """Return the circuit as SVG."""
        return self.circuit.draw()


class CircuitFold:
    """The function from the log-probabilities of a circuit's leaves to the circuit's value.

    Attributes:
        leaves: the leaves in the order of the rows that a call takes, by kind. A leaf of several intervals is the
            log-sum-exp of leaves of one interval each.
        plan: the nodes above them, in groups of one kind and width, as arguments of a `_Group`.
    """

    def __init__(self, circuit: Circuit) -> None:
        parts = {
            leaf: [leaf] if leaf_kind(leaf) < TAIL else [Leaf(leaf.attribute, (cell,)) for cell in leaf.cells]
            for leaf in circuit.leaves
        }
        self.leaves = sorted(dict.fromkeys(part for each in parts.values() for part in each), key=leaf_kind)
        row = {leaf: i for i, leaf in enumerate(self.leaves)}
        self.plan = _plan(circuit, {leaf: tuple(row[part] for part in each) for leaf, each in parts.items()}, len(row))
        self._groups: dict[tuple[torch.device, torch.dtype], list[_Group]] = {}

    def __call__(self, leaves: Float[Tensor, "leaves batch"]) -> Float[Tensor, " batch"]:
        """Return the circuit's log-value from the leaves' log-probabilities, in nats; autograd can differentiate it."""
        values = leaves
        for group in self._on(leaves):
            values = torch.cat([values, group.value(group.children(values))])
        return values[-1]

    def energy(self, leaves: Float[Tensor, "leaves batch"]) -> Float[Tensor, " batch"]:
        """Return the energy from the leaves' energies, which are finite, in nats, without a graph."""
        return self._evaluate(leaves)[0]

    def energy_and_slopes(
        self, leaves: Float[Tensor, "leaves batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "leaves _"]]:
        """Return the energy, as `energy` does, and its derivative with respect to the leaves' energies.

        The derivative is (leaves, 1) where it is the same for all samples.
        """
        groups = self._on(leaves)
        energy, kept = self._evaluate(leaves)
        if len(groups) == 1 and groups[0].takes_all and kept[0] is None:  # a plain conjunction
            return energy, leaves.new_ones(len(leaves), 1)
        rows = groups[-1].first + 1 if groups else len(leaves)
        grad = leaves.new_zeros(rows, leaves.shape[1])
        grad[-1] = 1
        for group, slopes in zip(reversed(groups), reversed(kept), strict=True):
            group.add_back(grad, slopes)
        return energy, grad[: len(leaves)]

    def _evaluate(self, leaves: Float[Tensor, "leaves batch"]) -> tuple[Float[Tensor, " batch"], list[Tensor | None]]:
        values = fresh = leaves
        kept: list[Tensor | None] = []
        for group in self._on(leaves):
            values = values if fresh is values else torch.cat([values, fresh])
            fresh, slopes = group.energy_and_slopes(group.children(values))
            kept.append(slopes)
        return fresh[-1], kept

    def _on(self, like: Tensor) -> list[_Group]:
        key = (like.device, like.dtype)
        found = self._groups.get(key)
        if found is None:
            found = self._groups[key] = [_Group(*group, like) for group in self.plan]
        return found


class _Group:
    """Nodes of one kind and width as one operation on the table of all values so far, (rows, batch).

    Args:
        kind: type of the nodes.
        children: the rows of each node's children.
        factors: those of weighted nodes.
        first: the row of the first node; the others follow.
        like: device and dtype.
    """

    def __init__(
        self, kind: type[CircuitNode], children: list[tuple[int, ...]], factors: list[float], first: int, like: Tensor
    ) -> None:
        self.kind, self.count, self.width, self.first = kind, len(children), len(children[0]), first
        rows = [row for column in zip(*children, strict=True) for row in column]
        # A plain conjunction takes every row once, and needs no gather. Others need their children in order.
        ordered = kind in (ScaledComplement, Given)
        self.takes_all = self.count == 1 and not ordered and sorted(rows) == list(range(self.width))
        self.rows = torch.tensor(sorted(rows) if self.takes_all else rows, device=like.device, dtype=torch.long)
        self.factors = torch.tensor(factors, device=like.device, dtype=like.dtype)[:, None]
        self.signs = torch.tensor([[[1.0]], [[-1.0]]], device=like.device, dtype=like.dtype)
        self.ones = torch.ones(1, self.width, device=like.device, dtype=like.dtype)

    def children(self, values: Float[Tensor, "rows batch"]) -> Float[Tensor, "width nodes batch"]:
        """Return the children's values."""
        rows = values[: self.width] if self.takes_all else values.index_select(0, self.rows)
        return rows.view(self.width, self.count, values.shape[1])

    def value(self, x: Float[Tensor, "width nodes batch"]) -> Float[Tensor, "nodes batch"]:
        """Return the nodes' values from their children's."""
        return node_values(self.kind, x, self.factors)

    def energy_and_slopes(
        self, x: Float[Tensor, "width nodes batch"]
    ) -> tuple[Float[Tensor, "nodes batch"], Tensor | None]:
        """Return the nodes' energies from their children's, and their derivatives; `None` stands for ones."""
        if self.kind is LogSumExp:
            # `torch.logsumexp` is many times slower where exponentials are denormal.
            least = x.amin(0)
            shares = (least - x).clamp_(min=_LEAST).exp_()
            total = shares.sum(0)
            return least - total.log(), shares.div_(total)
        if self.kind is Given:
            return (x[0] - x[1]).clamp_(min=0), self.signs
        if self.kind is ScaledComplement:
            value, back = by_autograd(self.value, -x)
            return -value, back(torch.ones_like(value))
        if self.kind is Sum:  # a product adds up in another order than `value`, and seeds keep their pictures with it
            return (self.ones @ x.flatten(1)).view(x.shape[1:]), None
        return self.value(x), self.factors

    def add_back(self, grad: Float[Tensor, "rows batch"], slopes: Tensor | None) -> None:
        """Add the gradient that reaches the children through the nodes to the table of gradients."""
        own = grad[self.first : self.first + self.count]
        pull = own.expand(self.width, -1, -1) if slopes is None else slopes * own
        grad.index_add_(0, self.rows, pull.reshape(len(self.rows), grad.shape[1]))


def node_values(
    kind: type[CircuitNode],
    x: Float[Tensor, "width nodes batch"],
    factors: Float[Tensor, "nodes_or_0 1"],
    log1p: Callable[[Tensor], Tensor] = torch.log1p,
    expm1: Callable[[Tensor], Tensor] = torch.expm1,
) -> Float[Tensor, "nodes batch"]:
    """Return the values of nodes of one kind from their children's, in nats.

    Args:
        kind: type of the nodes.
        x: values of the children.
        factors: those of weighted nodes.
        log1p: function to compute with.
        expm1: the same.
    """
    if kind is Sum:
        return x.sum(0)
    if kind is LogSumExp:
        return torch.logsumexp(x, 0)
    if kind is Given:
        return (x[0] - x[1]).clamp(max=0)
    return factors * x[0] if kind is Scaled else log_scaled_complement(x[0], x[1], factors, log1p, expm1)


def leaf_kind(leaf: Leaf) -> int:
    """Return one of `YES_NO`, `CLASSES`, `TAIL` and `INTERVAL`, by the leaf's first cell."""
    match leaf.cells[0]:
        case bool():
            return YES_NO
        case str():
            return CLASSES
        case (low, high):
            return TAIL if math.inf in (-low, high) else INTERVAL


def _plan(circuit: Circuit, parts: Mapping[Leaf, tuple[int, ...]], count: int) -> list[_Plan]:
    """Group the inner nodes by depth, kind and width, with their children as rows of the growing table of values.

    Args:
        circuit: the circuit.
        parts: the rows that each leaf is the log-sum-exp of.
        count: number of such rows.

    Returns:
        The groups in the order of evaluation. The root is deepest, and nothing else is as deep, so it comes last.
    """
    depths: list[int] = []
    rows: dict[int, int] = {}
    members: dict[tuple[int, str, int], list[int]] = {}
    for index, node in enumerate(circuit.nodes):
        depth = 1 + max((depths[child] for child in operands(node)), default=0)
        kind, width = type(node), len(operands(node))
        if isinstance(node, Leaf):
            kind, width = LogSumExp, len(parts[node])
            if width == 1:
                depth, rows[index] = 0, parts[node][0]
        depths.append(depth)
        if depth:
            members.setdefault((depth, kind.__name__, width), []).append(index)
    plan: list[_Plan] = []
    for key in sorted(members):
        nodes = [circuit.nodes[index] for index in members[key]]
        children = [parts[node] if isinstance(node, Leaf) else tuple(rows[i] for i in operands(node)) for node in nodes]
        factors = [node.factor for node in nodes if isinstance(node, Scaled | ScaledComplement)]
        kind = LogSumExp if isinstance(nodes[0], Leaf) else type(nodes[0])
        plan.append((kind, children, factors, count))
        for index in members[key]:
            rows[index] = count
            count += 1
    return plan


def log_scaled_complement(
    value: Float[Tensor, "*shape"],
    complement: Float[Tensor, "*shape"],
    factor: Float[Tensor, "*#shape"],
    log1p: Callable[[Tensor], Tensor] = torch.log1p,
    expm1: Callable[[Tensor], Tensor] = torch.expm1,
) -> Float[Tensor, "*shape"]:
    """Return `log(1 - P^factor)` from `value = log P` and `complement = log(1 - P)`, elementwise, in nats.

    Where P is above one half it is computed from `complement`, with u = 1 - P as
    `log(factor) + log(u) + log(t / (factor u)) + log((1 - exp(-t)) / t)`, t = -factor log(1 - u), so that it stays
    accurate, with a gradient, where P rounds to 1. Elsewhere it is `log(-expm1(factor value))`.
    """
    tiny = torch.finfo(value.dtype).tiny
    near_one = complement < value
    # A mask blocks the value of the branch that is not taken but not a NaN in its gradient: feed it something safe.
    u = complement.masked_fill(~near_one, -1.0).exp()
    stretch = (-log1p(-u) / u.clamp(min=tiny)).masked_fill(~(u > tiny), 1.0)
    t = factor * stretch * u
    shrink = (-expm1(-t) / t.clamp(min=tiny)).masked_fill(~(t > tiny), 1.0)
    high = factor.log() + complement + stretch.log() + shrink.log()
    low = torch.log(-expm1(factor * value.masked_fill(near_one, -math.log(2))))
    return torch.where(near_one, high, low)
