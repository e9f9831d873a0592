"""Compiled queries (energy rules), and the evaluation of circuits on tensors with gradients without autograd.

A circuit is a graph that computes log P(query) from its leaves. A leaf is the log-probability that one attribute has
one of some values, such as `hair = red`. All other nodes with the same depth, kind and number of children are evaluated
in one operation. There are two ways to evaluate a circuit, which differ only in the derivative. One uses plain torch
operations, for autograd. The other has a derivative written by hand, which makes samplers that need gradients 1.3 to
2.2 times as fast (docs/decisions/one-evaluator.md).

The energy of a leaf (minus its log-probability) is a function of one number for each sample. This number is called the
row of the leaf:

| leaf | energy | row |
|---|---|---|
| yes/no | softplus | the logit of the other value |
| classes | softplus | log-sum-exp of the logits of all other classes, minus that of the leaf's classes |
| tail | -log of the normal CDF | signed distance from mean to bound, in standard deviations |
| interval | -log of a difference of normal CDFs | distance from mean to middle, in standard deviations |

A row is a linear function of the outputs of the heads, so the last layer of the heads computes it. The row of a leaf of
classes is not linear, but each term of its two log-sum-exps is, and is computed there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import RawOutputs
from energyql.attributes.predictions import Predictions, log_probabilities, output_count
from energyql.kinds import KINDS
from energyql.logic.circuit import Circuit, CircuitNode, Given, Leaf, LogSumExp, Scaled, ScaledComplement, Sum
from energyql.numerics.linear import VECTORS, sizes_for
from energyql.numerics.normal import log_normal_cdf, log_normal_cdf_slope, log_normal_interval_and_slope
from energyql.numerics.pullback import Back, by_autograd
from energyql.numerics.shapes import Float
from energyql.render.markup import Markup

YES_NO, CLASSES, TAIL, INTERVAL = range(4)
"""Kinds of leaves: yes/no attribute, classes, interval with one infinite end (tail), and other intervals."""
_LEAST = -80.0
"""Lower bound, in nats, of the difference between a term of a log-sum-exp and the largest term; smaller terms are
raised to it. Exponentials of smaller terms could be denormal numbers, with which processors compute slowly."""
_Plan = tuple[type[CircuitNode], list[tuple[int, ...]], list[float], int]
"""Nodes of a circuit that one operation computes. The values of all nodes are in a table with a row for each node. The
tuple has the type of the nodes; for each node the rows of its children in the table; for each node its factor, if the
type has one; and the row of the first node in the table."""


class EnergyRule(Protocol):
    """A compiled query: a function from predictions of attributes to a log-value. The energy is minus the log-value.

    Under `exact` semantics the log-value is log P(query | z).
    """

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes whose predictions `log_value` needs, in the vocabulary's order."""

    @property
    def is_probability(self) -> bool:
        """Whether the energy is -log P(query | z), so that exp(-energy) is a probability."""

    @property
    def has_floor(self) -> bool:
        """Whether the energy has a lower bound; some samplers need one."""

    def log_value(self, predictions: Predictions) -> Float[Tensor, " batch"]:
        """Return the log-value of the query, `(batch,)`, in nats, higher is better.

        Args:
            predictions: for each name in `attributes`, the predictions for the batch. There must be at least one name.
        """

    def explain(self) -> str:
        """Return a description of the rule as text for users."""

    def draw(self) -> Markup | None:
        """Return a drawing of the rule's circuit as SVG; `None` for a rule without a circuit (semantics `lace`)."""


@dataclass(frozen=True)
class CircuitRule:
    """The `EnergyRule` that evaluates a circuit. Rules are equal if their circuits are equal.

    Attributes:
        circuit: the compiled query.
        is_probability: whether the value of the circuit is the log-probability of the query. It is not under the
            semantics `product`.
    """

    circuit: Circuit
    is_probability: bool = True
    has_floor = True

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes whose predictions `log_value` needs, in the vocabulary's order."""
        return self.circuit.attributes

    @cached_property
    def fold(self) -> CircuitFold:
        """The circuit as a function from the log-probabilities of its leaves to the log-value of the query."""
        return CircuitFold(self.circuit)

    def log_value(self, predictions: Predictions) -> Float[Tensor, " batch"]:
        """Return the value of the circuit, `(batch,)`, in nats, from the predictions of each of `attributes`.

        There must be at least one attribute: without predictions the size of the batch is not known.
        """
        return self.fold(log_probabilities([(predictions[leaf.attribute], leaf.cells) for leaf in self.fold.leaves]))

    def explain(self) -> str:
        """Return the circuit as indented text, its size, and the sets of values that the query tells apart.

        Of a circuit with more lines than `energyql.logic.circuit.MAX_LINES`, the first of them are shown.
        """
        return self.circuit.explain()

    def draw(self) -> Markup:
        """Return the circuit as SVG."""
        return self.circuit.draw()


class CircuitFold:
    """The function from the log-probabilities of a circuit's leaves to the circuit's value, the log-value of a query.

    A leaf is the log-probability that one attribute has one of some values, such as `hair = red`.

    Attributes:
        leaves: the leaves of the circuit, sorted by `leaf_kind`. A leaf with several intervals is split into several
            leaves with one interval each. Row i of an argument of the methods belongs to leaf i of this list.
        plan: the other nodes in groups, in the order of evaluation. All nodes of a group have the same type and number
            of children, and are evaluated in one operation.
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
        self._levels: dict[tuple[torch.device, torch.dtype], _Levels] = {}

    def __call__(self, leaves: Float[Tensor, "leaves batch"]) -> Float[Tensor, " batch"]:
        """Return the value of the circuit, (batch,), in nats, from the log-probabilities of the leaves.

        Autograd can differentiate the result.
        """
        values = leaves
        for group in self._on(leaves):
            values = torch.cat([values, group.value(group.children(values))])
        return values[-1]

    def energy(self, leaves: Float[Tensor, "leaves batch"]) -> Float[Tensor, " batch"]:
        """Return minus the value of the circuit, in nats; autograd cannot differentiate it.

        `leaves` are the energies of the leaves (minus the log-probabilities of the leaves), which must be finite.
        """
        return self._levels_on(leaves).energy(leaves) if leaves.device.type != "cpu" else self._evaluate(leaves)[0]

    def energy_and_slopes(
        self, leaves: Float[Tensor, "leaves batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "leaves _"]]:
        """Return minus the value of the circuit, in nats, and its derivative with respect to `leaves`.

        `leaves` are the energies of the leaves (minus the log-probabilities of the leaves), which must be finite. The
        derivative is (leaves, batch), or (leaves, 1) if it is the same for all samples.
        """
        if leaves.device.type != "cpu":
            return self._levels_on(leaves).energy_and_slopes(leaves)
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
        if key not in self._groups:
            self._groups[key] = [_Group(*group, like) for group in self.plan]
        return self._groups[key]

    def _levels_on(self, like: Tensor) -> _Levels:
        key = (like.device, like.dtype)
        if key not in self._levels:
            self._levels[key] = _Levels(self._on(like), len(self.leaves), like)
        return self._levels[key]


class _Levels:
    """A circuit evaluated in few operations, for devices where starting an operation takes longer than its arithmetic.

    There is a table of values, to which each group of nodes adds rows: first the energies of the leaves, then the
    values (log-probabilities) of nodes. Sums and scaled nodes, which are linear, have no rows in the table. Instead,
    one product with a constant matrix computes from the table the values of all children of a group.

    Args:
        groups: the nodes of the circuit, in the order of evaluation.
        leaves: number of leaves.
        like: tensor with the device and dtype of the values.
    """

    def __init__(self, groups: Sequence[_Group], leaves: int, like: Tensor) -> None:
        terms = list(-torch.eye(leaves, dtype=torch.float64))  # of each node: the weights of the rows of the table
        self._levels = list[tuple[_Group, Tensor]]()
        count = leaves
        for group in groups:
            children = torch.stack([F.pad(terms[row], (0, count - len(terms[row]))) for row in group.places])
            children = children.view(group.width, group.count, count)
            if group.kind is Sum:
                terms += list(children.sum(0))
            elif group.kind is Scaled:
                terms += [factor * row for factor, row in zip(group.factor_list, children[0], strict=True)]
            else:
                self._levels.append((group, children.flatten(0, 1).to(like)))
                terms += list(torch.eye(count + group.count, dtype=torch.float64)[count:])
                count += group.count
        self._root = F.pad(terms[-1], (0, count - len(terms[-1])))[None].neg().to(like)

    def energy(self, leaves: Float[Tensor, "leaves batch"]) -> Float[Tensor, " batch"]:
        """Return minus the value of the circuit, in nats, from the energies of the leaves."""
        table = leaves
        for group, matrix in self._levels:
            table = torch.cat([table, group.fast_value((matrix @ table).view(group.width, group.count, -1))])
        return (self._root @ table)[0]

    def energy_and_slopes(
        self, leaves: Float[Tensor, "leaves batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "leaves batch"]]:
        """Return minus the value of the circuit, in nats, and its derivative with respect to the energies `leaves`."""
        table, all_slopes = leaves, list[Tensor]()
        for group, matrix in self._levels:
            fresh, slopes = group.value_and_slopes((matrix @ table).view(group.width, group.count, -1))
            table = torch.cat([table, fresh])
            all_slopes.append(slopes)
        grad = self._root.t().expand(-1, leaves.shape[1])
        for (group, matrix), slopes in zip(reversed(self._levels), reversed(all_slopes), strict=True):
            own = slopes * grad[-group.count :]
            grad = torch.addmm(grad[: -group.count], matrix.t(), own.flatten(0, 1))
        return (self._root @ table)[0], grad


class _Group:
    """Nodes of one type, with the same number of children (width), that are computed by one operation.

    The values of the children are looked up in a table, (rows, batch), which has a row for each leaf and for each node
    that was computed before.

    Args:
        kind: type of the nodes.
        children: for each node, the rows of its children in the table.
        factors: for each node, its `factor`; empty if nodes of this type have no factor.
        first: the row that the first node gets in the table; the other nodes get the rows after it.
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
        self.places, self.factor_list = sorted(rows) if self.takes_all else rows, factors
        self._like = like.new_empty(0)

    # Constants are made when they are needed, because each is a transfer to the device.

    @cached_property
    def rows(self) -> Tensor:
        """Rows of all children in the table: of the first child of each node, then of the second, and so on."""
        with torch.inference_mode(False):  # tensors made in inference mode have no gradients
            return torch.tensor(self.places, device=self._like.device, dtype=torch.long)

    @cached_property
    def factors(self) -> Tensor:
        """The attribute `factor` of each node, (nodes, 1); (0, 1) for nodes without one. See `Scaled`."""
        with torch.inference_mode(False):
            return self._like.new_tensor(self.factor_list)[:, None]

    @cached_property
    def signs(self) -> Tensor:
        """Derivatives of the value of a `Given` node by its two children, (2, 1, 1): 1 by the first, -1 by the second.

        They are used if the nodes of this group are of the class `Given`.
        """
        with torch.inference_mode(False):
            return self._like.new_tensor([[[1.0]], [[-1.0]]])

    @cached_property
    def ones(self) -> Tensor:
        """Ones, (1, width): a product with this row adds up the children of a node."""
        with torch.inference_mode(False):
            return self._like.new_ones(1, self.width)

    def children(self, values: Float[Tensor, "rows batch"]) -> Float[Tensor, "width nodes batch"]:
        """Return the values of the children of each node of the group, looked up in a table.

        Args:
            values: the table of values, in nats. It has a row for each leaf of the circuit, and for each node that was
                computed before; `rows` says in which of these rows the children are.

        Returns:
            The values of the first child of each node, then of the second, and so on; `width` is the number of children
                of a node.
        """
        rows = values[: self.width] if self.takes_all else values.index_select(0, self.rows)
        return rows.view(self.width, self.count, values.shape[1])

    def value(self, x: Float[Tensor, "width nodes batch"]) -> Float[Tensor, "nodes batch"]:
        """Return the values of the nodes, in nats; `x` has the values of their children, as `children` returns them."""
        return node_values(self.kind, x, self.factors)

    def energy_and_slopes(
        self, x: Float[Tensor, "width nodes batch"]
    ) -> tuple[Float[Tensor, "nodes batch"], Tensor | None]:
        """Return the energies of the nodes, and the derivatives of these energies with respect to `x`.

        `x` are the energies of the nodes' children. If all derivatives are 1, the second result is `None`.
        """
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

    def fast_value(self, x: Float[Tensor, "width nodes batch"]) -> Float[Tensor, "nodes batch"]:
        """Return the values of the nodes, in nats, like the method `value`.

        For log-sum-exps of two children another operation is used, which is faster and rounds in another way.
        """
        return torch.logaddexp(*x) if self.kind is LogSumExp and self.width == 2 else self.value(x)

    def value_and_slopes(self, x: Float[Tensor, "width nodes batch"]) -> tuple[Float[Tensor, "nodes batch"], Tensor]:
        """Return the values of the nodes, in nats, and the derivatives of these values with respect to `x`.

        `x` are the values of the nodes' children. The nodes must not be sums.
        """
        if self.kind is LogSumExp:
            return self.fast_value(x), torch.softmax(x, 0)
        if self.kind is Given:
            return self.value(x), self.signs
        value, back = by_autograd(self.value, x)
        return value, back(torch.ones_like(value))

    def add_back(self, grad: Float[Tensor, "rows batch"], slopes: Tensor | None) -> None:
        """Add to the gradient what the nodes of the group contribute to their children: one step of the chain rule.

        Args:
            grad: the gradient of the circuit's energy with respect to each row of the table of values. It must be
                complete in the rows of the group's nodes; the rows of their children are changed in place.
            slopes: the second result of `energy_and_slopes`: derivatives of the nodes with respect to their children.
        """
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
    """Return the values of nodes of one type, in nats, from the values of their children.

    Args:
        kind: type of the nodes, such as `Sum`.
        x: values of the nodes' children; axis 0 has as many entries as a node has children.
        factors: for each node, its `factor`; empty if nodes of this type have no factor.
        log1p: function that computes log(1 + x): that of torch, or one that can be exported to ONNX.
        expm1: function that computes exp(x) - 1: that of torch, or one that can be exported to ONNX.
    """
    if kind is Sum:
        return x.sum(0)
    if kind is LogSumExp:
        return torch.logsumexp(x, 0)
    if kind is Given:
        return (x[0] - x[1]).clamp(max=0)
    return factors * x[0] if kind is Scaled else log_scaled_complement(x[0], x[1], factors, log1p, expm1)


def leaf_kind(leaf: Leaf) -> int:
    """Return the kind of a leaf: `YES_NO`, `CLASSES`, `TAIL` (an interval with one infinite end) or `INTERVAL`.

    For a leaf with several intervals it is the kind of the first one.
    """
    cell = leaf.cells[0]
    if isinstance(cell, tuple):
        return TAIL if math.inf in (-cell[0], cell[1]) else INTERVAL
    return CLASSES if isinstance(cell, str) else YES_NO


def _plan(circuit: Circuit, parts: Mapping[Leaf, tuple[int, ...]], count: int) -> list[_Plan]:
    """Return the nodes of a circuit in groups of the same depth, type and number of children.

    Evaluation fills a table of values, and each group adds one row for each of its nodes. Leaves that have one row of
    the table from the start are in no group.

    Args:
        circuit: the circuit.
        parts: for each leaf of the circuit, its rows in the table. A leaf with several intervals has several rows, and
            becomes a log-sum-exp of them.
        count: number of rows of all leaves together.

    Returns:
        Arguments of a `_Group` for each group, in the order of evaluation. The last group has the root of the circuit.
        The list is empty if the root is a leaf of one row.
    """
    depths: list[int] = []
    rows: dict[int, int] = {}
    members: dict[tuple[int, str, int], list[int]] = {}
    for index, node in enumerate(circuit.nodes):
        operands = parts[node] if isinstance(node, Leaf) else node.children
        depth = 1 + max((depths[child] for child in node.children), default=0)
        if isinstance(node, Leaf) and len(operands) == 1:
            depth, rows[index] = 0, operands[0]
        depths.append(depth)
        if depth:
            kind = LogSumExp if isinstance(node, Leaf) else type(node)
            members.setdefault((depth, kind.__name__, len(operands)), []).append(index)
    plan: list[_Plan] = []
    for key in sorted(members):
        nodes = [circuit.nodes[index] for index in members[key]]
        children = [parts[node] if isinstance(node, Leaf) else tuple(rows[i] for i in node.children) for node in nodes]
        factors = [node.factor for node in nodes if isinstance(node, Scaled | ScaledComplement)]
        plan.append((LogSumExp if isinstance(nodes[0], Leaf) else type(nodes[0]), children, factors, count))
        rows |= {index: count + place for place, index in enumerate(members[key])}
        count += len(nodes)
    return plan


def log_scaled_complement(
    value: Float[Tensor, "*shape"],
    complement: Float[Tensor, "*shape"],
    factor: Float[Tensor, "*#shape"],
    log1p: Callable[[Tensor], Tensor] = torch.log1p,
    expm1: Callable[[Tensor], Tensor] = torch.expm1,
) -> Float[Tensor, "*shape"]:
    """Return `log(1 - P^factor)` from `value = log P` and `complement = log(1 - P)`, elementwise, in nats.

    It is the log-probability of NOT (factor * query), a negated query with a weight. `log1p` and `expm1` are functions
    that compute log(1 + x) and exp(x) - 1.

    Where P is above one half, the result is computed from `complement`. With u = 1 - P and t = -factor log(1 - u) it is
    `log(factor) + log(u) + log(t / (factor u)) + log((1 - exp(-t)) / t)`, which is accurate and has a gradient where P
    rounds to 1. Elsewhere it is `log(-expm1(factor value))`.
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

    Args:
        fold: the circuit, as a function of the values of its leaves.
        raw: the heads of the circuit's attributes, as a function from latents to outputs.

    Attributes:
        heads: function from latents (batch, latent_dim) to rows (batch, rows). Rows are the numbers from which the
            energies of leaves are computed, such as logits.
        leaves: function from rows (rows, batch) to energies of the leaves (leaves, batch).
        fold: function from energies of the leaves to the energy of the circuit (batch,).
    """

    def __init__(self, fold: CircuitFold, raw: RawOutputs) -> None:
        self.fold = fold
        self.leaves = LeafEnergies(fold.leaves, raw)
        self.heads = raw.function.then(self.leaves.matrix, self.leaves.offset)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of batches, ascending, for which the matrix products of the heads need no padding.

        Samplers compute energies in batches of these sizes.
        """
        return sizes_for(self.heads.groups[0].first.weight.dtype)

    def computed_in(self, dtype: torch.dtype) -> CircuitEnergy:
        """Return the same function with the matrix products of the heads computed in `dtype`.

        Latents and energies keep their dtype.
        """
        converted = copy.copy(self)
        converted.heads = self.heads.computed_in(dtype)
        return converted

    def __call__(self, latent: Float[Tensor, "batch latent_dim"]) -> Float[Tensor, " batch"]:
        """Return the energy of each latent, in nats; autograd cannot differentiate it."""
        energies, _ = self.leaves.pullback(_whole(self.heads(latent).t()))
        return self.fold.energy(energies)[: len(latent)]

    def gradient(
        self, latent: Float[Tensor, "batch latent_dim"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch latent_dim"]]:
        """Return the energy of each latent, in nats, and its gradient with respect to this latent."""
        rows, back_to_latent = self.heads.pullback(latent)
        energy, gradient = energy_of_rows(self.fold, self.leaves, _whole(rows.t()))
        return energy[: len(latent)], back_to_latent(gradient[:, : len(latent)].t())


def energy_of_rows(
    fold: CircuitFold, leaves: LeafEnergies, rows: Float[Tensor, "rows batch"]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "rows batch"]]:
    """Return the energies of a circuit, in nats, and the gradients of the energies with respect to `rows`.

    Args:
        fold: the circuit, as a function of its leaves.
        leaves: function from rows to the energies of the leaves.
        rows: the numbers from which the energies of leaves are computed, such as logits; see `LeafEnergies`.
    """
    energies, back_to_rows = leaves.pullback(rows)
    energy, slopes = fold.energy_and_slopes(energies)
    return energy, back_to_rows(slopes)


def _whole(rows: Float[Tensor, "rows batch"]) -> Float[Tensor, "rows more"]:
    """Extend the last axis of `rows` by zeros to a multiple of `VECTORS` (32), and return the result; only on the CPU.

    Without the zeros, torch may round the last samples of a batch in another way than the first ones. On other devices
    `rows` is returned unchanged.
    """
    return rows if rows.device.type != "cpu" else F.pad(rows, (0, -rows.shape[1] % VECTORS)).contiguous()


class LeafEnergies:
    """The function that computes the energies of the leaves of a circuit, -log P in nats, from numbers called rows.

    A leaf is the log-probability that one attribute has one of some values. Rows are linear in the outputs of the
    heads. The row of a yes/no leaf is a logit, with the sign that is positive for the other value. The row of an
    interval is a distance in standard deviations: from mean to bound if the interval has one infinite end, else from
    mean to middle. A leaf of classes has many rows: the logits of its own classes and those of all other classes.

    Args:
        leaves: leaves sorted by `leaf_kind`. A leaf tests one interval, one set of classes or a yes/no attribute.
        raw: heads of the attributes of the leaves, and perhaps of further attributes.

    Attributes:
        matrix: (rows, outputs), float64 on the CPU. Rows are computed as `matrix @ outputs + offset`.
        offset: (rows,), float64 on the CPU.
        widths: widths of the intervals with two finite ends, in standard deviations, (intervals, 1).
        counts: numbers of leaves of the kinds `YES_NO`, `CLASSES`, `TAIL` and `INTERVAL`, in this order.
        sizes: numbers of rows of the kinds `YES_NO`, `TAIL`, `INTERVAL` and `CLASSES`, in this order.
        shape: shape of the rows of classes, (most classes in one log-sum-exp, 2, leaves, -1 for the batch). The axis of
            length 2 has first the classes that the leaf lacks, then the classes of the leaf.
    """

    def __init__(self, leaves: Sequence[Leaf], raw: RawOutputs) -> None:
        *starts, outputs = accumulate(map(output_count, raw.specs), initial=0)
        first = {spec.name: start for spec, start in zip(raw.specs, starts, strict=True)}
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
            """Return the indices of the heads' outputs for the classes of a leaf, or, if `own` is false, all others."""
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
        """Return the energies of the leaves, in nats, and a function for the gradient; autograd is not used.

        The function takes the gradient with respect to the energies. Its shape is (leaves, batch), or (leaves, 1) if it
        is the same for all samples. The function returns the gradient with respect to `rows`.
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
                # On the CPU, `torch.softmax` rounds a column by its place.
                shares = (classes - sums).exp_() if classes.device.type == "cpu" else classes.softmax(0)
                shares.mul_(of_sets)[:, 1].neg_()
                below.append(shares.flatten(0, 2))
            return below[0] if len(below) == 1 else torch.cat(below)

        return energies[0] if len(energies) == 1 else torch.cat(energies), back

    def _softplus(self, logits: Tensor) -> Tensor:
        if logits.device.type == "cpu":
            # The next power of exp(x) that log1p takes would be denormal below this, which is many times slower.
            logits = logits.clamp(min=self._least)
        return F.softplus(logits, threshold=_LINEAR)
