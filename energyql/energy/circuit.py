"""Compiled queries (energy rules), and the evaluation of circuits on tensors with gradients without autograd.

A circuit computes log P(query) from its leaves: the log-probabilities that one attribute has one of some values, such
as `hair = red`. It can be evaluated in torch operations, for autograd, or with a derivative written by hand, which is
faster (docs/decisions/one-evaluator.md).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import RawOutputs
from energyql.attributes.predictions import Predictions, log_probabilities, output_count
from energyql.kinds import KINDS
from energyql.logic.circuit import Circuit, CircuitNode, Given, Leaf, LogSumExp, Scaled, ScaledComplement, Sum
from energyql.logic.nodes import DEFAULT_MAX_NODES
from energyql.numerics.linear import VECTORS, sizes_for
from energyql.numerics.normal import log_normal_cdf, log_normal_cdf_slope, log_normal_interval_and_slope
from energyql.numerics.pullback import Back, by_autograd
from energyql.numerics.shapes import Float
from energyql.render.markup import Markup

YES_NO, CLASSES, TAIL, INTERVAL = range(4)
"""Kinds of leaves: yes/no attribute, classes, interval with one infinite end (tail), and other intervals."""
_LEAST = -80.0
"""Least difference, in nats, between a term of a log-sum-exp and the largest term; smaller ones are raised to it,
because processors compute slowly with denormal exponentials."""
_Plan = tuple[type[CircuitNode], list[tuple[int, ...]], list[float], int]
"""Nodes that one operation computes, in a table with a row for each node: their type; the rows of each node's children;
each node's factor, if the type has one; and the row of the first node."""


class CompileOptions(NamedTuple):
    """Options of the compilers of all semantics, as in `compile_energy_rule`; only `exact` uses `relations`."""

    query: str | None = None
    max_nodes: int = DEFAULT_MAX_NODES
    relations: bool = True


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
        """Return the log-value of the query, `(batch,)`, in nats, higher is better, from predictions of `attributes`.

        There must be at least one attribute, as otherwise the size of the batch is not known.
        """

    def explain(self) -> str:
        """Return a description of the rule as text for users."""

    def draw(self) -> Markup | None:
        """Return a drawing of the rule's circuit as SVG; `None` for a rule without a circuit (semantics `lace`)."""


@dataclass(frozen=True)
class CircuitRule:
    """The `EnergyRule` that evaluates a circuit; rules of equal circuits are equal."""

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
        """Return the value of the circuit, `(batch,)`, in nats, from predictions of all `attributes`."""
        return self.fold(log_probabilities([(predictions[leaf.attribute], leaf.cells) for leaf in self.fold.leaves]))

    def explain(self) -> str:
        """Return the circuit as indented text, its size, and the sets of values that the query tells apart."""
        return self.circuit.explain()

    def draw(self) -> Markup:
        """Return the circuit as SVG."""
        return self.circuit.draw()


class CircuitFold:
    """The function from the log-probabilities of a circuit's leaves to the circuit's value, the log-value of a query.

    Attributes:
        leaves: the leaves, sorted by `leaf_kind`, each with one interval at most; row i of an argument belongs to leaf
            i.
        plan: the other nodes in groups, in the order of evaluation, one operation for each.
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
        """Return the value of the circuit, (batch,), in nats; autograd can differentiate it."""
        values = leaves
        for group in self._on(leaves):
            values = torch.cat([values, group.value(group.children(values))])
        return values[-1]

    def energy(self, leaves: Float[Tensor, "leaves batch"]) -> Float[Tensor, " batch"]:
        """Return minus the value, in nats, from finite energies of the leaves (-log P), without autograd."""
        return self._levels_on(leaves).energy(leaves) if leaves.device.type != "cpu" else self._evaluate(leaves)[0]

    def energy_and_slopes(
        self, leaves: Float[Tensor, "leaves batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "leaves _"]]:
        """Return `energy` and its derivative, (leaves, batch), or (leaves, 1) if all samples have the same."""
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

    A table has rows for the energies of the leaves and the values of nodes that are not linear. One product with a
    constant matrix computes from it the values of all children of a group, sums and scaled nodes included.
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
        """Return the same as `energy`, and its derivative with respect to the energies of the leaves."""
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
    """Nodes of one type with the same number of children (`width`), computed by one operation from rows of a table.

    The arguments are a `_Plan` and a tensor `like` with the device and dtype of the table, (rows, batch), which has a
    row for each leaf and each node that was computed before.
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
        """Derivatives of the value of a `Given` node by its two children, (2, 1, 1)."""
        with torch.inference_mode(False):
            return self._like.new_tensor([[[1.0]], [[-1.0]]])

    @cached_property
    def ones(self) -> Tensor:
        """Ones, (1, width): a product with this row adds up the children of a node."""
        with torch.inference_mode(False):
            return self._like.new_ones(1, self.width)

    def children(self, values: Float[Tensor, "rows batch"]) -> Float[Tensor, "width nodes batch"]:
        """Look up the values of the children, first those of the first child of each node."""
        rows = values[: self.width] if self.takes_all else values.index_select(0, self.rows)
        return rows.view(self.width, self.count, values.shape[1])

    def value(self, x: Float[Tensor, "width nodes batch"]) -> Float[Tensor, "nodes batch"]:
        """Return the values of the nodes, in nats, from the values of their children."""
        return node_values(self.kind, x, self.factors)

    def energy_and_slopes(
        self, x: Float[Tensor, "width nodes batch"]
    ) -> tuple[Float[Tensor, "nodes batch"], Tensor | None]:
        """Return the energies of the nodes from those of their children, and the derivatives; `None` if all are 1."""
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
        """Return the same as `value`, faster for log-sum-exps of two children, which round in another way."""
        return torch.logaddexp(*x) if self.kind is LogSumExp and self.width == 2 else self.value(x)

    def value_and_slopes(self, x: Float[Tensor, "width nodes batch"]) -> tuple[Float[Tensor, "nodes batch"], Tensor]:
        """Return the values of nodes that are no sums, and the derivatives by their children."""
        if self.kind is LogSumExp:
            return self.fast_value(x), torch.softmax(x, 0)
        if self.kind is Given:
            return self.value(x), self.signs
        value, back = by_autograd(self.value, x)
        return value, back(torch.ones_like(value))

    def add_back(self, grad: Float[Tensor, "rows batch"], slopes: Tensor | None) -> None:
        """Chain rule: add to `grad`, the gradient of the table, what the nodes contribute to their children."""
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
    """Return the values of nodes of one type, in nats, from the values `x` of their children.

    Args:
        factors: for each node, its `factor`; empty if nodes of this type have no factor.
        log1p, expm1: functions for log(1 + x) and exp(x) - 1: those of torch, or others that can be exported to ONNX.
    """
    if kind is Sum:
        return x.sum(0)
    if kind is LogSumExp:
        return torch.logsumexp(x, 0)
    if kind is Given:
        return (x[0] - x[1]).clamp(max=0)
    return factors * x[0] if kind is Scaled else log_scaled_complement(x[0], x[1], factors, log1p, expm1)


def leaf_kind(leaf: Leaf) -> int:
    """Kind of a leaf, or of its first interval: `YES_NO`, `CLASSES`, `TAIL` (one infinite end) or `INTERVAL`."""
    cell = leaf.cells[0]
    if isinstance(cell, tuple):
        return TAIL if math.inf in (-cell[0], cell[1]) else INTERVAL
    return CLASSES if isinstance(cell, str) else YES_NO


def _plan(circuit: Circuit, parts: Mapping[Leaf, tuple[int, ...]], count: int) -> list[_Plan]:
    """Group the nodes of a circuit by depth, type and number of children, in the order of evaluation.

    `parts` are the rows of each leaf: one, or one for each of its intervals, which a log-sum-exp joins; `count` is
    their number. The last group has the root; the list is empty if the root is a leaf of one row.
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
    """Return `log(1 - P^factor)` from `value = log P` and `complement = log(1 - P)`, elementwise.

    This is NOT of a query with a weight. Where P is above one half, it is computed from `complement`, to be accurate
    and have a gradient where P rounds to 1. With u = 1 - P and t = -factor log(1 - u) it is `log(factor) + log(u) +
    log(t / (factor u)) + log((1 - exp(-t)) / t)`. Elsewhere it is `log(-expm1(factor value))`.
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
        heads: function from latents (batch, latent_dim) to rows (batch, rows); see `LeafEnergies`.
        leaves: function from rows (rows, batch) to energies of the leaves (leaves, batch).
        fold: function from energies of the leaves to the energy of the circuit (batch,).
    """

    def __init__(self, fold: CircuitFold, raw: RawOutputs) -> None:
        self.fold = fold
        self.leaves = LeafEnergies(fold.leaves, raw)
        self.heads = raw.function.then(self.leaves.matrix, self.leaves.offset)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of batches, ascending, for which the matrix products of the heads need no padding."""
        return sizes_for(self.heads.groups[0].first.weight.dtype)

    def computed_in(self, dtype: torch.dtype) -> CircuitEnergy:
        """Return the same function with matrix products of the heads in `dtype`; latents and energies keep theirs."""
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
    """Return the energies of a circuit, in nats, and their gradients with respect to `rows`; see `LeafEnergies`."""
    energies, back_to_rows = leaves.pullback(rows)
    energy, slopes = fold.energy_and_slopes(energies)
    return energy, back_to_rows(slopes)


def _whole(rows: Float[Tensor, "rows batch"]) -> Float[Tensor, "rows more"]:
    """On the CPU, fill the batch up to a multiple of `VECTORS`, so that torch rounds all samples alike."""
    return rows if rows.device.type != "cpu" else F.pad(rows, (0, -rows.shape[1] % VECTORS)).contiguous()


class LeafEnergies:
    """The function that computes the energies of the leaves of a circuit, -log P in nats, from numbers called rows.

    Rows are linear in the outputs of the heads; that of classes is not, but each term of its log-sum-exps is a row:

    | leaf | energy | row |
    |---|---|---|
    | yes/no | softplus | the logit of the other value |
    | classes | softplus | log-sum-exp of the logits of all other classes, minus that of the leaf's classes |
    | tail | -log of the normal CDF | signed distance from mean to bound, in standard deviations |
    | interval | -log of a difference of normal CDFs | distance from mean to middle, in standard deviations |

    Args:
        leaves: leaves sorted by `leaf_kind`, with one interval at most.

    Attributes:
        matrix, offset: (rows, outputs) and (rows,), float64 on the CPU: rows are `matrix @ outputs + offset`.
        widths: widths of the intervals with two finite ends, in standard deviations, (intervals, 1).
        counts: numbers of leaves of the kinds `YES_NO`, `CLASSES`, `TAIL` and `INTERVAL`, in this order.
        sizes: numbers of rows of the kinds `YES_NO`, `TAIL`, `INTERVAL` and `CLASSES`, in this order.
        shape: shape of the rows of classes: (most classes, 2 for other and own classes, leaves, -1 for the batch).
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
            """Indices of the heads' outputs for the classes of a leaf, or, if `own` is false, for all others."""
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
        """Return the energies of the leaves, in nats, and a `Back`, which also takes gradients (leaves, 1)."""
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
