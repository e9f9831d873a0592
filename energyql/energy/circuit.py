"""The energy rule of a circuit, its evaluation on tensors, and its gradient without autograd.

All nodes of one depth, kind and width are evaluated in one operation. A circuit is evaluated in two ways that share
everything but the derivative: in plain torch operations for autograd, and with the derivative by hand, which is 1.3 to
2.2 times as fast for samplers that need gradients (docs/decisions/one-evaluator.md).

| leaf | energy | row |
|---|---|---|
| yes/no | softplus | the logit of the other value |
| classes | softplus | log-sum-exp of all other logits minus that of its own |
| tail | -log of the normal CDF | signed distance from mean to bound, in standard deviations |
| interval | -log of a difference of normal CDFs | distance from mean to middle, in standard deviations |

Rows are linear in the outputs of the heads (for classes, the terms of the log-sum-exps are), so the last layer of the
heads computes them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import RawOutputs
from energyql.attributes.predictions import Predictions, log_probabilities, output_count
from energyql.kinds import KINDS
from energyql.logic.circuit import Circuit
from energyql.logic.nodes import CircuitNode, Given, Leaf, LogSumExp, Scaled, ScaledComplement, Sum, operands
from energyql.numerics.linear import VECTORS, sizes_for
from energyql.numerics.normal import log_normal_cdf, log_normal_cdf_slope, log_normal_interval_and_slope
from energyql.numerics.pullback import Back, by_autograd
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
    """The `EnergyRule` that evaluates a circuit. Rules are equal if their circuits are equal.

    Attributes:
        circuit: the compiled query.
        is_probability: whether the value is the log-probability of the query.
    """

    circuit: Circuit
    is_probability: bool = True

    @property
    def has_floor(self) -> bool:
        """See `EnergyRule`: values are logarithms of at most 1."""
        return True

    @property
    def attributes(self) -> tuple[str, ...]:
        """See `EnergyRule`."""
        return self.circuit.attributes

    @cached_property
    def fold(self) -> CircuitFold:
        """The circuit as a function from the values of its leaves to its value."""
        return CircuitFold(self.circuit)

    def log_value(self, predictions: Predictions) -> Float[Tensor, " batch"]:
        """Return the circuit's value, in nats.

        Not for a query that is always true: it needs no predictions, so the batch size is missing.
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
        leaves: the leaves, sorted by kind, in the order of the rows of an argument. A leaf with several intervals is
            split into leaves of one interval, whose log-sum-exp it is.
        plan: arguments of a `_Group` for each group of inner nodes of one kind and width, in the order of evaluation.
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
        """Return the energy, in nats, from the leaves' energies, which must be finite; without a graph."""
        return self._evaluate(leaves)[0]

    def energy_and_slopes(
        self, leaves: Float[Tensor, "leaves batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "leaves _"]]:
        """Return the energy, as `energy` does, and its derivative with respect to the leaves' energies.

        The derivative is (leaves, 1) where it is the same for all samples.
        """
        groups = self._on(leaves)
        energy, all_slopes = self._evaluate(leaves)
        if len(groups) == 1 and groups[0].takes_all and all_slopes[0] is None:  # a plain conjunction
            return energy, leaves.new_ones(len(leaves), 1)
        rows = groups[-1].first + 1 if groups else len(leaves)
        grad = leaves.new_zeros(rows, leaves.shape[1])
        grad[-1] = 1
        for group, slopes in zip(reversed(groups), reversed(all_slopes), strict=True):
            group.add_back(grad, slopes)
        return energy, grad[: len(leaves)]

    def _evaluate(self, leaves: Float[Tensor, "leaves batch"]) -> tuple[Float[Tensor, " batch"], list[Tensor | None]]:
        values = fresh = leaves
        all_slopes: list[Tensor | None] = []
        for group in self._on(leaves):
            values = values if fresh is values else torch.cat([values, fresh])
            fresh, slopes = group.energy_and_slopes(group.children(values))
            all_slopes.append(slopes)
        return fresh[-1], all_slopes

    def _on(self, like: Tensor) -> list[_Group]:
        key = (like.device, like.dtype)
        groups = self._groups.get(key)
        if groups is None:
            groups = self._groups[key] = [_Group(*group, like) for group in self.plan]
        return groups


class _Group:
    """Nodes of one kind and width as one operation on the table of all values so far, (rows, batch).

    Args:
        kind: type of the nodes.
        children: rows of the children of each node.
        factors: factors of weighted nodes; empty for others.
        first: row of the first node; the others follow.
        like: tensor with the device and dtype of the values.
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
        """Return the nodes' energies, from their children's, and the derivatives; `None` if all derivatives are 1."""
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
        """Add the gradient of the nodes times `slopes` to the rows of their children in `grad`."""
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
        factors: factors of weighted nodes; empty for others.
        log1p: implementation of log(1 + x).
        expm1: implementation of exp(x) - 1.
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
        parts: rows of each leaf, whose value is the log-sum-exp of them.
        count: number of rows of all leaves.

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


_LINEAR = 40.0  # where exp(-x) is below the rounding error of x in every dtype


class CircuitEnergy:
    """The function from latents to the energies of a circuit, with its gradient.

    Attributes:
        heads: function from latents (batch, latent_dim) to rows (batch, rows).
        leaves: function from rows (rows, batch) to energies of the leaves.
        fold: function from energies of the leaves to the energy of the circuit.
    """

    def __init__(self, fold: CircuitFold, raw: RawOutputs) -> None:
        self.fold = fold
        self.leaves = LeafEnergies(fold.leaves, raw)
        self.heads = raw.function.then(self.leaves.matrix, self.leaves.offset)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of batches that take the least time, ascending. Rows are filled up to whole vectors here."""
        return sizes_for(self.heads.groups[0].first.weight.dtype)

    def computed_in(self, dtype: torch.dtype) -> CircuitEnergy:
        """See `Convertible`."""
        converted = copy.copy(self)
        converted.heads = self.heads.computed_in(dtype)
        return converted

    def __call__(self, latent: Float[Tensor, "batch latent_dim"]) -> Float[Tensor, " batch"]:
        """Return the energies, in nats, without a graph."""
        energies, _ = self.leaves.pullback(_whole(self.heads(latent).t()))
        return self.fold.energy(energies)[: len(latent)]

    def gradient(
        self, latent: Float[Tensor, "batch latent_dim"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch latent_dim"]]:
        """Return the energies and their gradients with respect to the latents, without a graph."""
        rows, back_to_latent = self.heads.pullback(latent)
        energies, back_to_rows = self.leaves.pullback(_whole(rows.t()))
        energy, slopes = self.fold.energy_and_slopes(energies)
        return energy[: len(latent)], back_to_latent(back_to_rows(slopes)[:, : len(latent)].t())


def _whole(rows: Float[Tensor, "rows batch"]) -> Float[Tensor, "rows more"]:
    """Return the rows, padded with zeros to a length that is a multiple of `VECTORS`."""
    return F.pad(rows, (0, -rows.shape[1] % VECTORS)).contiguous()


class LeafEnergies:
    """The function from rows to the energies, -log P, of leaves.

    Args:
        leaves: leaves of one cell or one set of classes each, sorted by `leaf_kind`.
        raw: heads of the attributes of the leaves, and perhaps of others.

    Attributes:
        matrix: (rows, outputs), float64 on the CPU; rows are `matrix @ outputs + offset`.
        offset: (rows,), float64 on the CPU.
        widths: widths of the intervals, in standard deviations, (intervals, 1).
        counts: number of leaves of each kind.
        sizes: numbers of rows of yes/no leaves, tails, intervals and classes, in this order.
        shape: shape of the rows of classes: (terms, 2 for the other classes and the leaf's own, leaves, batch).
    """

    def __init__(self, leaves: Sequence[Leaf], raw: RawOutputs) -> None:
        first: dict[str, int] = {}
        outputs = 0
        for spec in raw.specs:
            first[spec.name] = outputs
            outputs += output_count(spec)
        of_kind = {kind: [leaf for leaf in leaves if leaf_kind(leaf) == kind] for kind in range(4)}
        rows = [(first[leaf.attribute], -1.0 if True in leaf.cells else 1.0, 0.0) for leaf in of_kind[YES_NO]]
        widths = []
        for leaf in (*of_kind[TAIL], *of_kind[INTERVAL]):
            column, std, cell = first[leaf.attribute], raw.std[leaf.attribute].item(), leaf.cells[0]
            assert isinstance(cell, tuple)
            low, high = cell
            if math.isinf(high):
                rows.append((column, 1 / std, -low / std))
            elif math.isinf(low):
                rows.append((column, -1 / std, high / std))
            else:
                rows.append((column, -1 / std, (low + high) / 2 / std))
                widths.append((high - low) / std)
        values = {spec.name: KINDS[spec.kind].values(spec) for spec in raw.specs}

        def columns_of(leaf: Leaf, own: bool) -> list[int]:
            """Return the columns of the leaf's own classes, or of the others."""
            named = enumerate(values[leaf.attribute], start=first[leaf.attribute])
            return [column for column, value in named if (value in leaf.cells) == own]

        sets = of_kind[CLASSES]
        sides = [[columns_of(leaf, own) for leaf in sets] for own in (False, True)]
        longest = max((len(columns) for side in sides for columns in side), default=0)
        # All sides are filled up to the longest one with rows that add nothing.
        table = [columns[i : i + 1] for i in range(longest) for side in sides for columns in side]
        rows += [(column[0], 1.0, 0.0) if column else (0, 0.0, -math.inf) for column in table]

        self.matrix = torch.zeros(len(rows), outputs, dtype=torch.float64)
        for row, (column, factor, _) in enumerate(rows):
            self.matrix[row, column] = factor
        self.offset = torch.tensor([offset for _, _, offset in rows], dtype=torch.float64)
        like = raw.function.bias
        self.widths = torch.tensor(widths, dtype=like.dtype, device=like.device)[:, None]
        self.counts = [len(of_kind[kind]) for kind in (YES_NO, CLASSES, TAIL, INTERVAL)]
        self.sizes = [len(of_kind[YES_NO]), len(of_kind[TAIL]), len(of_kind[INTERVAL]), len(table)]
        self.shape = (longest, 2, len(sets), -1)
        self._least = math.log(torch.finfo(like.dtype).tiny) / 3 + 1

    def pullback(self, rows: Float[Tensor, "rows batch"]) -> tuple[Float[Tensor, "leaves batch"], Back]:
        """Return the energies, in nats, and the `Back`, without a graph.

        The `Back` also takes a gradient that is the same for all samples, (leaves, 1).
        """
        yes_no, sets, _, _ = self.counts
        if yes_no == len(rows):  # fewer operations for the most common kind of query
            return self._softplus(rows), lambda grad: torch.sigmoid(rows).mul_(grad)
        logits, tails, middles, classes = rows.split(self.sizes)
        if sets:
            classes = classes.view(self.shape)
            sums = torch.logsumexp(classes, 0)
            logits = torch.cat([logits, sums[0] - sums[1]])
        energies = [self._softplus(logits)]
        if len(tails):
            energies.append(0.0 - log_normal_cdf(tails))  # and not -value, which makes -0.0 of 0
        if len(middles):
            value, slope = log_normal_interval_and_slope(middles, self.widths)
            energies.append(0.0 - value)

        def back(grad: Tensor) -> Tensor:
            of_logits, of_tails, of_middles = grad.split([yes_no + sets, len(tails), len(middles)])
            of_logits = torch.sigmoid(logits).mul_(of_logits)
            below = [of_logits[:yes_no]]
            if len(tails):
                below.append(log_normal_cdf_slope(tails).mul_(-of_tails))
            if len(middles):
                below.append(slope().mul_(-of_middles))
            if sets:
                of_sets = of_logits[yes_no:]
                shares = (classes - sums).exp_()  # `torch.softmax` rounds a column by its place
                below.append(shares.mul_(torch.stack([of_sets, -of_sets])).flatten(0, 2))
            return torch.cat(below)

        return torch.cat(energies), back

    def _softplus(self, logits: Tensor) -> Tensor:
        # The next power of exp(x) that log1p takes would be denormal below this, which is many times slower.
        return F.softplus(logits.clamp(min=self._least), threshold=_LINEAR)
