"""Cells (sets of values of an attribute), and decision diagrams of queries, which test in which cell a value falls.

A *cell set* is a plain tuple of values of one attribute:

    yes/no       truths                       (False,)  (True,)  (False, True)
    categorical  classes                      ("black", "gray")           in the vocabulary's order
    continuous   disjoint intervals, sorted   ((-inf, 0.2), (0.8, inf))

Under a continuous density a single point has probability zero. So `<` and `<=` give the same cell set, and an interval
without width is empty.

A node of a diagram tests in which cell the value of one attribute falls, and has one child for each cell. It stands for
a formula: "the child of the cell is true". `NEVER` (false) and `ALWAYS` (true) are nodes without children. Equal nodes
are stored once, and a node whose children are all equal is left out. So if attributes are always tested in the same
order, two formulas are equivalent exactly if they have the same node (Bryant 1986; for weighted model counting,
Darwiche 2002).

Each attribute is predicted alone, so P(smile) and P(frown) can both be high for one latent, although no picture shows
both. With relations in the vocabulary, such as `NOT (smile AND frown)`, the probability of a query is P(query AND
relations) / P(relations), and more contradictions and tautologies are found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from typing import Literal, cast

from energyql.errors import EnergyQLError, LimitError, VocabularyError
from energyql.kinds import KINDS, CellSet
from energyql.language import And, Constant, Expr, Predicate, bind, parse, predicates
from energyql.language.expr import Kernel, allowed_counts
from energyql.logic.nodes import ALWAYS, DEFAULT_MAX_NODES, NEVER, Nodes, dependencies_first
from energyql.vocabulary import AttributeSpec, Vocabulary, in_order

Order = Literal["vocabulary", "occurrence"]


def predicate_cells(predicate: Predicate, spec: AttributeSpec) -> CellSet:
    """The values of an attribute for which a condition is true, as a cell set."""
    return KINDS[spec.kind].queries.cells(predicate, spec)


def partition(expr: Expr, vocabulary: Mapping[str, AttributeSpec]) -> dict[str, tuple[CellSet, ...]]:
    """Split the values of every attribute in a query into cells: sets of values that the query treats alike.

    Returns:
        For each attribute, in the vocabulary's order, disjoint cell sets that together contain all of its values: `age
        > 0.6` gives two, and classes share one if no predicate tells them apart.
    """
    mentioned: dict[str, list[CellSet]] = {}
    for node in predicates(expr):
        mentioned.setdefault(node.name, []).append(predicate_cells(node, vocabulary[node.name]))
    specs = [vocabulary[name] for name in in_order(mentioned, vocabulary)]
    return {spec.name: KINDS[spec.kind].queries.partition(mentioned[spec.name], spec) for spec in specs}


def holds(cells: CellSet, atom: CellSet) -> bool:
    """Whether the cell set `cells` contains all of `atom`, which must be completely inside or completely outside."""
    first = atom[0]
    if isinstance(first, tuple):
        return any(cell[0] <= first[0] and first[1] <= cell[1] for cell in cells if isinstance(cell, tuple))
    return first in cells


def union(atoms: Iterable[CellSet], spec: AttributeSpec) -> CellSet:
    """The union of disjoint cell sets of one attribute, sorted and with touching intervals merged."""
    return KINDS[spec.kind].queries.union((part for atom in atoms for part in atom), spec)


@dataclass(frozen=True, slots=True)
class WeightVariable:
    """The truth of a weighted part of a query, such as `2 * (a OR b)`, as a variable that a diagram tests.

    `factor` is the weight (2), and `inner` is the index of the node of the part without its weight (`a OR b`).
    """

    factor: float
    inner: int


Variable = str | WeightVariable
"""What a node tests: an attribute by name, with a child for each cell, or a weighted part, with a child for false and
one for true."""


class Diagram(Kernel[int]):
    """The decision diagram of a query, its parts and the relations: a `Kernel` whose values are indices of nodes.

    Two queries, or two weighted parts, have the same node if they are true for the same values wherever the relations
    hold. Attributes that relations connect form a group, and are tested directly after one another.

    Args:
        groups: the relations that concern the query, as trees, in groups that share no attribute. Like the query, they
            determine the cells.
        order: order in which variables are tested. "vocabulary" (weighted parts last) is the same for every query, so
            that diagrams can be compared. "occurrence", the order of the query's text, gives smaller diagrams if
            attributes that belong together are written side by side.
        max_nodes: number of nodes above which a `LimitError` is raised.

    Attributes:
        nodes: the nodes, of the query and of all that is computed with it later.
        variables: the variable of each level.
        cells: for each attribute, the cells that the query and the relations tell apart.
        values: the node of each part of the query, by the part's `id`.
        conditions: for each group, the node of the AND of its relations.
        group_of: for each attribute with relations, the index of its group in `groups`.
    """

    def __init__(
        self, expr: Expr, vocabulary: Mapping[str, AttributeSpec], groups: Sequence[Sequence[Expr]] = (), *,
        order: Order = "vocabulary", max_nodes: int = DEFAULT_MAX_NODES,
    ) -> None:  # fmt: skip
        self.vocabulary, self.order = vocabulary, order
        self.relations = [relation for group in groups for relation in group]
        self.cells = partition(And((expr, *self.relations)) if self.relations else expr, vocabulary)
        named = [{name for relation in group for name in _names(relation)} for group in groups]
        self._members: list[list[Variable]] = [[name for name in vocabulary if name in names] for names in named]
        self.group_of: dict[Variable, int] = {name: i for i, names in enumerate(self._members) for name in names}
        self.variables: dict[int, Variable] = {}
        self._level_of: dict[Variable, int] = {}
        self.nodes = Nodes(self._value_count, max_nodes)
        self._digests: dict[int, str] = {NEVER: "false", ALWAYS: "true"}
        if order == "vocabulary":
            for name in self.cells:
                self.level(name)
        self.conditions: list[int] = []
        self.conditions = [self.conjunction([relation.evaluate(self) for relation in group]) for group in groups]
        self.values: dict[int, int] = {}
        self.root = self.given_conditions(expr.fold(self._valued))

    def _valued(self, part: Expr, operands: Sequence[int]) -> int:
        value = self.values[id(part)] = part._lower(self, operands)
        return value

    def _value_count(self, level: int) -> int:
        variable = self.variables[level]
        return len(self.cells[variable]) if isinstance(variable, str) else 2

    def variable(self, node: int) -> Variable:
        """What a node with children tests."""
        return self.variables[self.nodes.levels[node]]

    def leaf(self, node: Expr) -> int:
        """The node of a predicate or of a constant."""
        if isinstance(node, Constant):
            return ALWAYS if node.value else NEVER
        assert isinstance(node, Predicate)
        return self.falls_in(node.name, predicate_cells(node, self.vocabulary[node.name]))

    def falls_in(self, name: str, cells: CellSet) -> int:
        """The node of "the attribute `name` has one of the values in `cells`"; `NEVER` if there are none."""
        truths = tuple(ALWAYS if holds(cells, atom) else NEVER for atom in self.cells[name])
        return self.nodes.node(self.level(name), truths)

    def negation(self, value: int) -> int:
        """The node of the negation of a node."""
        return self.nodes.choice(value, NEVER, ALWAYS)

    def conjunction(self, values: Sequence[int]) -> int:
        """The node of the AND of nodes."""
        return self.chain(lambda left, right: self.nodes.choice(left, right, NEVER), [ALWAYS, *values])

    def disjunction(self, values: Sequence[int]) -> int:
        """The node of the OR of nodes."""
        return self.chain(lambda left, right: self.nodes.choice(left, ALWAYS, right), [NEVER, *values])

    def count(self, quantifier: str, count: int, values: Sequence[int]) -> int:
        """The node of "at least (at most, exactly) `count` of `values` are true", by dynamic programming."""
        allowed = allowed_counts(quantifier, count, len(values))
        # ends[j]: the node of "the count holds if j of the operands that are not yet treated are true".
        ends = [ALWAYS if number in allowed else NEVER for number in range(len(values) + 1)]
        # Operands of late variables come first, so that each choice adds nodes on top of finished ones.
        for operand in sorted(values, key=lambda node: self.nodes.levels[node], reverse=True):
            ends = [self.nodes.choice(operand, ends[number + 1], ends[number]) for number in range(len(ends) - 1)]
        return ends[0]

    def weighted(self, factor: float, value: int) -> int:
        """The node of a weighted part of the query, which tests the truth of the part as one `WeightVariable`.

        Nested weights are multiplied: `2 * (3 * a)` is `6 * a`. If the weight is 1, or the part is constant where the
        relations hold, the result is `value`, the node of the part without its weight.
        """
        value = self.given_conditions(value)
        if value in (NEVER, ALWAYS):
            return value
        variable = self.variable(value)
        if isinstance(variable, WeightVariable) and self.nodes.children[value] == (NEVER, ALWAYS):
            product = factor * variable.factor  # 2 * (3 * smile) is 6 * smile
            if product > 0:  # no underflow
                factor, value = product, variable.inner
        factor = float(f"{factor:.12g}")  # as thresholds: 0.1 * (3 * a) and 0.3 * a are one predicate
        if factor == 1:
            return value
        return self.nodes.node(self.level(WeightVariable(factor, value)), (NEVER, ALWAYS))

    def digest(self, node: int) -> str:
        """Hexadecimal digest of the formula of a node.

        In all diagrams in the vocabulary's order, formulas have the same digest exactly if they are equivalent.
        """
        for top in dependencies_first(node, self.needs, self._digests):
            variable = self.variable(top)
            if isinstance(variable, WeightVariable):
                children = [self._digests[child] for child in self.nodes.children[top]]
                text = f"weight {self._weight_digest(variable)}: {children}"
            else:
                text = f"{variable!r}: {[(cells, self._digests[child]) for cells, child in values_by_child(self, top)]}"
            self._digests[top] = hashlib.sha256(text.encode()).hexdigest()
        return self._digests[node]

    def needs(self, node: int) -> list[int]:
        """The nodes that a node directly depends on: its children, and the part inside of the weight that it tests."""
        variable = self.variables.get(self.nodes.levels[node])
        inner = [variable.inner] if isinstance(variable, WeightVariable) else []
        return [*self.nodes.children[node], *inner]

    def level(self, variable: Variable) -> int:
        """The level of a variable: its place in the order of tests, small ones first.

        A variable without a level gets one, and so do all attributes of its group, in a row.
        """
        if variable not in self._level_of:
            together = self._members[self.group_of[variable]] if variable in self.group_of else [variable]
            for each in together:
                level = len(self.variables)
                if isinstance(each, WeightVariable) and self.order == "vocabulary":
                    # Below all attributes, in an order that does not depend on the query: that of the digests.
                    level = len(self.cells) + int(self._weight_digest(each)[:16], 16)
                self._level_of[each], self.variables[level] = level, each
        return self._level_of[variable]

    def _weight_digest(self, variable: WeightVariable) -> str:
        return hashlib.sha256(f"{variable.factor!r} * {self.digest(variable.inner)}".encode()).hexdigest()

    def given_conditions(self, node: int) -> int:
        """A node that agrees with `node` wherever all relations hold (`Nodes.constrain`); `NEVER` if they never do."""
        return NEVER if NEVER in self.conditions else reduce(self.nodes.constrain, self.conditions, node)


def values_by_child(diagram: Diagram, node: int) -> list[tuple[CellSet, int]]:
    """For each distinct child of a node that tests an attribute, all values that lead to it, and the child."""
    name = cast(str, diagram.variable(node))
    atoms: dict[int, list[CellSet]] = {}
    for atom, child in zip(diagram.cells[name], diagram.nodes.children[node], strict=True):
        atoms.setdefault(child, []).append(atom)
    spec = diagram.vocabulary[name]
    merged = [(union(group, spec), child) for child, group in atoms.items()]
    return merged[::-1] if KINDS[spec.kind].reverse else merged  # in the drawing, yes comes before no


def truth_of(diagram: Diagram, part: Expr) -> bool | None:
    """The truth value of a part of the query if it is constant where the relations hold, else `None`.

    Raises:
        LimitError: the diagram became too large.
    """
    return {NEVER: False, ALWAYS: True}.get(diagram.given_conditions(diagram.values[id(part)]))


def exits(diagram: Diagram, entry: int) -> list[tuple[int, int]]:
    """Exits of the tests of one group of attributes, from `entry`, a node that tests one of them.

    Returns:
        A pair of nodes (condition, exit) for each exit, a first node outside of the group. The condition is true
        exactly if the values of the group's attributes lead from `entry` to the exit.
    """
    nodes, group = diagram.nodes, _group(diagram, entry)

    def within(node: int) -> list[int]:
        return [child for child in nodes.children[node] if child > ALWAYS and _group(diagram, child) == group]

    inside = dict.fromkeys(dependencies_first(entry, within))
    children = [child for node in reversed(inside) for _, child in values_by_child(diagram, node)]
    ends = [child for child in dict.fromkeys(children) if child not in inside]
    found = []
    for end in ends:
        leads = {other: ALWAYS if other == end else NEVER for other in ends}
        for node in inside:
            leads[node] = nodes.node(nodes.levels[node], tuple(leads[child] for child in nodes.children[node]))
        found.append((leads[entry], end))
    return found


def tested_attributes(diagram: Diagram, node: int) -> set[str]:
    """The attributes that a node and the nodes below it test, but not those inside of weighted parts only."""
    nodes = dependencies_first(node, diagram.nodes.children.__getitem__, (NEVER, ALWAYS))
    variables = (diagram.variable(below) for below in nodes)
    return {variable for variable in variables if isinstance(variable, str)}


def tested_conditions(diagram: Diagram) -> list[int]:
    """For each group of relations with an attribute that the diagram tests, the node of their AND."""
    groups = {_group(diagram, below) for below in dependencies_first(diagram.root, diagram.needs, (NEVER, ALWAYS))}
    return [condition for i, condition in enumerate(diagram.conditions) if i in groups]


def _group(diagram: Diagram, node: int) -> int | None:
    return diagram.group_of.get(diagram.variable(node))


def build_diagram(
    expr: Expr, vocabulary: Mapping[str, AttributeSpec], max_nodes: int = DEFAULT_MAX_NODES,
    groups: Sequence[Sequence[Expr]] = (),
) -> Diagram:  # fmt: skip
    """The diagram of a bound query in the vocabulary's order; if that is too large, in the order of the query's text.

    Raises:
        LimitError: both need more than `max_nodes` nodes.
    """
    try:
        return Diagram(expr, vocabulary, groups, max_nodes=max_nodes)
    except LimitError:
        return Diagram(expr, vocabulary, groups, order="occurrence", max_nodes=max_nodes)


def relations_for(expr: Expr, vocabulary: Mapping[str, AttributeSpec]) -> list[tuple[Expr, ...]]:
    """The relations that share an attribute with a query, directly or through others, in groups that share none.

    The other relations do not change the probability of the query. The trees are bound, and their nodes have no spans,
    because relations are not in the text of the query.

    Raises:
        VocabularyError: the text of a relation is not a valid query about attributes of the vocabulary.
    """
    if not isinstance(vocabulary, Vocabulary) or not vocabulary.relations:
        return []
    named = _names(expr)
    return [group for group in _connected(vocabulary) if any(named & _names(relation) for relation in group)]


@lru_cache(maxsize=64)
def _connected(vocabulary: Vocabulary) -> tuple[tuple[Expr, ...], ...]:
    """All relations of a vocabulary as bound trees, grouped with those with which they share attributes."""
    groups: list[tuple[frozenset[str], list[Expr]]] = []
    for text in vocabulary.relations:
        try:
            bound = bind(parse(text), vocabulary, query=text)
        except EnergyQLError as error:
            raise VocabularyError(f"a relation of {vocabulary.of_model} is wrong: {error}") from error
        relation = bound.map(lambda node: replace(node, span=None))
        names, members = _names(relation), [relation]
        for group in [group for group in groups if group[0] & names]:
            groups.remove(group)
            names, members = names | group[0], [*group[1], *members]
        groups.append((names, members))
    return tuple(tuple(members) for _, members in groups)


def _names(expr: Expr) -> frozenset[str]:
    return frozenset(node.name for node in predicates(expr))
