"""Ordered decision diagrams with many-valued variables, and the diagram of a query under relations.

A node tests which cell one attribute falls in and has one child for each cell; `NEVER` and `ALWAYS` are the ends. Equal
nodes are one node and a node whose children are all equal is dropped, so under one variable order two formulas are
equivalent exactly if they have the same node (Bryant 1986; for weighted model counting, Darwiche 2002).

Heads are separate, so P(smile) and P(frown) can both be high for one latent, although no picture smiles and frowns.
Queries are therefore conditioned on the relations: P(query AND relations) / P(relations). Relations also let the
compiler find contradictions and tautologies that logic alone does not contain.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from operator import or_
from typing import Any, Literal

from energyql.errors import EnergyQLError, LimitError, VocabularyError
from energyql.kinds import KINDS, CellSet
from energyql.language import And, Constant, Expr, Predicate, bind, parse, predicates
from energyql.language.expr import Kernel, Node, allowed_counts
from energyql.logic.nodes import dependencies_first, holds, partition, predicate_cells, union
from energyql.vocabulary import AttributeSpec, Vocabulary

NEVER, ALWAYS = 0, 1
DEFAULT_MAX_NODES = 100_000
BRANCHES_PER_NODE = 4
"""Most branches of all nodes, as a multiple of `max_nodes`: many thresholds make wide nodes."""
WORK_PER_NODE = 12
"""Most branches visited, as a multiple of `max_nodes`, which limits the time as well as the size."""

Order = Literal["vocabulary", "occurrence"]
_BELOW_ALL = 1 << 80


@dataclass(frozen=True, slots=True)
class WeightVariable:
    """The variable for the truth of the opaque predicate `factor * inner`; `inner` is a node."""

    factor: float
    inner: int


Variable = str | WeightVariable
"""The name of an attribute, whose values are its cells, or a weighted part."""


class Diagram(Kernel[int]):
    """All diagrams of one query, sharing nodes.

    Args:
        expr: the query whose attributes and thresholds make the variables. `expr.evaluate(diagram)`
            returns its node.
        vocabulary: kinds, classes and ranges of the attributes.
        order: order of the variables. "vocabulary" is the vocabulary's order, then weighted parts; it is the same for
            every query, which makes diagrams comparable. "occurrence" follows the text, and is smaller where related
            attributes are written side by side.
        max_nodes: number of nodes above which a `LimitError` is raised; nodes with many branches count for more.
    """

    def __init__(
        self,
        expr: Expr,
        vocabulary: Mapping[str, AttributeSpec],
        *,
        order: Order = "vocabulary",
        max_nodes: int = DEFAULT_MAX_NODES,
    ) -> None:
        self.vocabulary = vocabulary
        self.cells = partition(expr, vocabulary)
        self.order = order
        self.max_nodes = max_nodes
        self.variables: dict[int, Variable] = {}
        self.levels: list[int] = [_BELOW_ALL, _BELOW_ALL]  # of node i: the key of its variable, small ones at the top
        self.children: list[tuple[int, ...]] = [(), ()]
        self._unique: dict[tuple[int, tuple[int, ...]], int] = {}
        self._memo: dict[tuple[int, int, int], int] = {}
        self._branches, self._work = 0, 0
        self._level_of: dict[Variable, int] = {}
        self._digests: dict[int, str] = {NEVER: "false", ALWAYS: "true"}
        if order == "vocabulary":
            for name in self.cells:
                self.level(name)

    def leaf(self, node: Node[Any]) -> int:
        """Return the node of a predicate or constant."""
        if isinstance(node, Constant):
            return ALWAYS if node.value else NEVER
        assert isinstance(node, Predicate)
        return self.falls_in(node.name, predicate_cells(node, self.vocabulary[node.name]))

    def falls_in(self, name: str, cells: CellSet) -> int:
        """Return the node of "the attribute falls in these cells"; without cells, `NEVER`."""
        truths = tuple(ALWAYS if cells and holds(cells, atom) else NEVER for atom in self.cells[name])
        return self.node(self.level(name), truths)

    def negation(self, value: int) -> int:
        """Return the node of NOT."""
        return self.choice(value, NEVER, ALWAYS)

    def conjunction(self, values: Sequence[int]) -> int:
        """Return the node of the AND of some nodes."""
        return self.chain(lambda left, right: self.choice(left, right, NEVER), [ALWAYS, *values])

    def disjunction(self, values: Sequence[int]) -> int:
        """Return the node of the OR of some nodes."""
        return self.chain(lambda left, right: self.choice(left, ALWAYS, right), [NEVER, *values])

    def count(self, quantifier: str, count: int, values: Sequence[int]) -> int:
        """Return the node of a count, by dynamic programming: `ends[j]` is "j are true so far, and the others fit"."""
        allowed = allowed_counts(quantifier, count, len(values))
        ends = [ALWAYS if number in allowed else NEVER for number in range(len(values) + 1)]
        # Operands of late variables come first, so that each choice adds nodes on top of finished ones.
        for operand in sorted(values, key=lambda node: self.levels[node], reverse=True):
            ends = [self.choice(operand, ends[number + 1], ends[number]) for number in range(len(ends) - 1)]
        return ends[0]

    def weighted(self, factor: float, value: int) -> int:
        """Return the node of a weighted part, which is an opaque predicate."""
        if value not in (NEVER, ALWAYS):
            variable = self.variables[self.levels[value]]
            if isinstance(variable, WeightVariable) and self.children[value] == (NEVER, ALWAYS):
                product = factor * variable.factor  # 2 * (3 * smile) is 6 * smile
                if 0 < product < math.inf:
                    factor, value = product, variable.inner
        factor = float(f"{factor:.12g}")  # as thresholds: 0.1 * (3 * a) and 0.3 * a are one predicate
        if factor == 1 or value in (NEVER, ALWAYS):
            return value
        return self.node(self.level(WeightVariable(factor, value)), (NEVER, ALWAYS))

    def choice(self, test: int, then: int, otherwise: int) -> int:
        """Return the node of "if test then `then` else `otherwise`", to which every other operator reduces."""
        root = _normal(test, then, otherwise)
        stack = [root]
        while stack:
            key = stack[-1]
            if self._known(key) is not None:
                stack.pop()
                continue
            level = min(self.levels[key[0]], self.levels[key[1]], self.levels[key[2]])
            sides = [self.cofactors(node, level) for node in key]
            parts = [_normal(*triple) for triple in zip(*sides, strict=True)]
            results = [self._known(part) for part in parts]
            if None in results:
                stack.extend(part for part, result in zip(parts, results, strict=True) if result is None)
                continue
            self._work += len(parts)
            if self._work > WORK_PER_NODE * self.max_nodes:
                raise self._too_large()
            self._memo[key] = self.node(level, tuple(result for result in results if result is not None))
            stack.pop()
        result = self._known(root)
        assert result is not None
        return result

    def branches(self, node: int) -> list[tuple[CellSet, int]]:
        """Return the different children of a node of an attribute, each after the cells that lead to it."""
        name = self.variables[self.levels[node]]
        assert isinstance(name, str)
        atoms: dict[int, list[CellSet]] = {}
        for atom, child in zip(self.cells[name], self.children[node], strict=True):
            atoms.setdefault(child, []).append(atom)
        spec = self.vocabulary[name]
        merged = [(union(group, spec), child) for child, group in atoms.items()]
        return merged[::-1] if KINDS[spec.kind].reverse else merged  # in the drawing, yes comes before no

    def digest(self, node: int) -> str:
        """Return a digest of the function of a node: equal for equivalent functions, also of different queries.

        It is comparable between diagrams of the same order; only the vocabulary's order is the same for every query.
        """
        for top in dependencies_first(node, self.needs, self._digests):
            variable = self.variables[self.levels[top]]
            if isinstance(variable, WeightVariable):
                children = [self._digests[child] for child in self.children[top]]
                text = f"weight {self._weight_digest(variable)}: {children}"
            else:
                text = f"{variable!r}: {[(cells, self._digests[child]) for cells, child in self.branches(top)]}"
            self._digests[top] = hashlib.sha256(text.encode()).hexdigest()
        return self._digests[node]

    def needs(self, node: int) -> list[int]:
        """Return the nodes that a node refers to: its children, and the node inside a weighted part."""
        variable = self.variables.get(self.levels[node])
        inner = [variable.inner] if isinstance(variable, WeightVariable) else []
        return [*self.children[node], *inner]

    def level(self, variable: Variable) -> int:
        """Return the sort key of a variable: variables with smaller keys are tested first."""
        level = self._level_of.get(variable)
        if level is None:
            level = len(self.variables)
            if isinstance(variable, WeightVariable) and self.order == "vocabulary":
                # Below all attributes, in an order that does not depend on the query: that of the digests.
                level = len(self.cells) + int(self._weight_digest(variable)[:16], 16)
            self._level_of[variable] = level
            self.variables[level] = variable
        return level

    def _weight_digest(self, variable: WeightVariable) -> str:
        return hashlib.sha256(f"{variable.factor!r} * {self.digest(variable.inner)}".encode()).hexdigest()

    def _known(self, key: tuple[int, int, int]) -> int | None:
        test, then, otherwise = key
        if test == ALWAYS or then == otherwise:
            return then
        if test == NEVER:
            return otherwise
        if then == ALWAYS and otherwise == NEVER:
            return test
        return self._memo.get(key)

    def cofactors(self, node: int, level: int) -> tuple[int, ...]:
        """Return what remains of `node` for each value of the variable of `level`, which is not below the node."""
        if self.levels[node] == level:
            return self.children[node]
        variable = self.variables[level]
        return (node,) * (len(self.cells[variable]) if isinstance(variable, str) else 2)

    def node(self, level: int, children: tuple[int, ...]) -> int:
        """Return the node of the variable of a level with these children."""
        if all(child == children[0] for child in children):
            return children[0]
        node = self._unique.get((level, children))
        if node is None:
            node = len(self.levels)
            self._branches += len(children)
            if node >= self.max_nodes + 2 or self._branches > BRANCHES_PER_NODE * self.max_nodes:
                raise self._too_large()
            self.levels.append(level)
            self.children.append(children)
            self._unique[level, children] = node
        return node

    def _too_large(self) -> LimitError:
        return LimitError(
            f"the decision diagram of this query needs more than {self.max_nodes:,} nodes; "
            'use semantics="product", which needs no diagram, or write the query in smaller parts'
        )


def _normal(test: int, then: int, otherwise: int) -> tuple[int, int, int]:
    """Return the normal form of an if-then-else, so that equal ones have one entry in the memo."""
    if then == test:
        then = ALWAYS
    if otherwise == test:
        otherwise = NEVER
    if otherwise == NEVER and then < test:  # AND commutes
        test, then = then, test
    elif then == ALWAYS and otherwise < test:  # OR commutes
        test, otherwise = otherwise, test
    return test, then, otherwise


class QueryDiagram(Diagram):
    """A diagram in which queries, and weighted parts, have the same node if they are equal wherever the relations hold.

    Attributes that relations connect, a group, are neighbours in the variable order; `ways` lists the paths of a query
    through a group.

    Args:
        expr: the query.
        vocabulary: kinds, classes and ranges of the attributes.
        groups: relations, in groups that share no attribute; see `relations_for`.
        order: see `Diagram`.
        max_nodes: see `Diagram`.

    Attributes:
        root: the node of the query.
        relations: the relations of all groups.
        values: the node of each part of the query, by the id of the part.
        conditions: the node of each group of relations.
        group_of: the number of the group that an attribute belongs to.
    """

    def __init__(
        self,
        expr: Expr,
        vocabulary: Mapping[str, AttributeSpec],
        groups: Sequence[Sequence[Expr]] = (),
        *,
        order: Order = "vocabulary",
        max_nodes: int = DEFAULT_MAX_NODES,
    ) -> None:
        named = [{leaf.name for relation in group for leaf in predicates(relation)} for group in groups]
        self._members = [[name for name in vocabulary if name in names] for names in named]
        self.group_of = {name: i for i, names in enumerate(self._members) for name in names}
        self.conditions: list[int] = []
        self.relations = [relation for group in groups for relation in group]
        whole = And((expr, *self.relations)) if self.relations else expr
        super().__init__(whole, vocabulary, order=order, max_nodes=max_nodes)
        self.conditions = [self.conjunction([relation.evaluate(self) for relation in group]) for group in groups]
        self._expr = expr  # the ids of its parts are keys
        self.values: dict[int, int] = {}
        self._ends: dict[tuple[int, int], int] = {}
        self._condition: int | None = None
        self.root = self._given_conditions(expr.fold(self._valued))

    def _valued(self, part: Expr, operands: Sequence[int]) -> int:
        value = self.values[id(part)] = part._lower(self, operands)
        return value

    def weighted(self, factor: float, value: int) -> int:
        """Return the node of a weighted part, which is an opaque predicate."""
        return super().weighted(factor, self._given_conditions(value))

    def constrain(self, node: int, condition: int) -> int:
        """Return one node for all nodes that are equal to `node` wherever `condition`, which is satisfiable, holds.

        This is the generalized cofactor of Coudert and Madre (1990): a value of an attribute that the condition rules
        out is read as the first value that it allows.
        """
        done: dict[tuple[int, int], int] = {}

        def result(pair: tuple[int, int]) -> int | None:
            return pair[0] if pair[1] == ALWAYS or pair[0] in (NEVER, ALWAYS) else done.get(pair)

        stack = [(node, condition)]
        while stack:
            pair = stack[-1]
            if result(pair) is not None:
                stack.pop()
                continue
            level = min(self.levels[pair[0]], self.levels[pair[1]])
            sides = list(zip(self.cofactors(pair[0], level), self.cofactors(pair[1], level), strict=True))
            first = next(side for side in sides if side[1] != NEVER)
            parts = [side if side[1] != NEVER else first for side in sides]
            missing = [part for part in parts if result(part) is None]
            stack.extend(missing)
            if not missing:
                done[pair] = self.node(level, tuple(result(part) or NEVER for part in parts))
        return result((node, condition)) or NEVER

    def constant(self, part: Expr) -> bool | None:
        """Return whether a part of the query is always true, or never, where the relations hold; `None` if neither.

        Only nodes of the relations are added, so this costs little compared with the diagram.

        Raises:
            LimitError: too many pairs of nodes were visited.
        """
        if self._condition is None:
            self._condition = self.conjunction(self.conditions)
        return {1: False, 2: True, 3: None}[self._leads_to(self.values[id(part)], self._condition)]

    def _leads_to(self, node: int, condition: int) -> int:
        """Return the ends that a node can reach where a condition holds: 1 for `NEVER`, plus 2 for `ALWAYS`."""

        def result(pair: tuple[int, int]) -> int | None:
            if pair[1] == NEVER:
                return 0
            if pair[0] in (NEVER, ALWAYS):
                return 1 << pair[0]
            return 3 if pair[1] == ALWAYS else self._ends.get(pair)

        stack = [(node, condition)]
        while stack:
            pair = stack[-1]
            if result(pair) is not None:
                stack.pop()
                continue
            if len(self._ends) > self.max_nodes:
                raise self._too_large()
            level = min(self.levels[pair[0]], self.levels[pair[1]])
            sides = list(zip(self.cofactors(pair[0], level), self.cofactors(pair[1], level), strict=True))
            ends = [result(side) for side in sides]
            together = reduce(or_, [each for each in ends if each is not None], 0)
            if together == 3 or None not in ends:
                self._ends[pair] = together
            else:
                stack.append(sides[ends.index(None)])
        return result((node, condition)) or 0

    def ways(self, entry: int) -> list[tuple[int, int]]:
        """Return the ways from a node of a related attribute through its group.

        Returns:
            Pairs of the node of "the values of the group's attributes lead this way" and the node where it leads: to
            another group, an attribute without relations, a weighted part, `ALWAYS` or `NEVER`.
        """
        group = self._group(entry)
        inside: dict[int, None] = {}
        for node in dependencies_first(entry, lambda node: self._within(node, group), inside):
            inside[node] = None
        children = [child for node in reversed(inside) for _, child in self.branches(node)]
        exits = [child for child in dict.fromkeys(children) if child not in inside]
        found = []
        for end in exits:
            leads = {other: ALWAYS if other == end else NEVER for other in exits}
            for node in inside:
                leads[node] = self.node(self.levels[node], tuple(leads[child] for child in self.children[node]))
            found.append((leads[entry], end))
        return found

    def attributes(self, node: int) -> set[str]:
        """Return the attributes that a node tests, other than inside weighted parts."""
        found: set[int] = {NEVER, ALWAYS}
        for below in dependencies_first(node, self.children.__getitem__, found):
            found.add(below)
        variables = (self.variables[self.levels[below]] for below in found if below > ALWAYS)
        return {variable for variable in variables if isinstance(variable, str)}

    def concerned(self) -> list[int]:
        """Return the conditions that the root, or a weighted part of it, is to be conditioned on."""
        found: set[int] = {NEVER, ALWAYS}
        for below in dependencies_first(self.root, self.needs, found):
            found.add(below)
        groups = {self._group(below) for below in found if below > ALWAYS}
        return [condition for i, condition in enumerate(self.conditions) if i in groups]

    def _within(self, node: int, group: int | None) -> list[int]:
        return [child for child in self.children[node] if child > ALWAYS and self._group(child) == group]

    def _group(self, node: int) -> int | None:
        variable = self.variables[self.levels[node]]
        return self.group_of.get(variable) if isinstance(variable, str) else None

    def _given_conditions(self, node: int) -> int:
        if NEVER in self.conditions:
            return NEVER
        for condition in self.conditions:
            node = self.constrain(node, condition)
        return node

    def level(self, variable: Variable) -> int:
        """Return the sort key of a variable; the first variable of a group adds all variables of the group."""
        if isinstance(variable, WeightVariable) or variable not in self.group_of:
            return super().level(variable)
        for member in self._members[self.group_of[variable]]:
            super().level(member)
        return super().level(variable)


def build_diagram(
    expr: Expr,
    vocabulary: Mapping[str, AttributeSpec],
    max_nodes: int = DEFAULT_MAX_NODES,
    groups: Sequence[Sequence[Expr]] = (),
) -> QueryDiagram:
    """Return the diagram of a query, in the vocabulary's order or, where that is too large, the text's.

    Raises:
        LimitError: the diagram needs more than `max_nodes` nodes in both orders.
    """
    try:
        return QueryDiagram(expr, vocabulary, groups, max_nodes=max_nodes)
    except LimitError:
        return QueryDiagram(expr, vocabulary, groups, order="occurrence", max_nodes=max_nodes)


def relations_for(expr: Expr, vocabulary: Mapping[str, AttributeSpec]) -> list[tuple[Expr, ...]]:
    """Return the relations of a vocabulary that concern a bound query, in groups that share no attribute.

    A group concerns a query that names one of the attributes which its relations connect, directly or through others.
    All other relations are independent of the query, and change no probability.

    Returns:
        Groups of bound queries without spans, because they stand in no text of the user's.

    Raises:
        VocabularyError: a relation is no query over the vocabulary.
    """
    if not isinstance(vocabulary, Vocabulary) or not vocabulary.relations:
        return []
    named = _names(expr)
    return [group for group in _connected(vocabulary) if any(named & _names(relation) for relation in group)]


@lru_cache(maxsize=64)
def _connected(vocabulary: Vocabulary) -> tuple[tuple[Expr, ...], ...]:
    """Return the relations of a vocabulary in groups that share no attribute."""
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
