"""The diagram of one query, given relations between attributes: queries that hold in every picture of a model.

Heads are separate, so P(smile) and P(frown) can both be high for one latent, although no picture smiles and frowns.
Queries are therefore conditioned on the relations: P(query AND relations) / P(relations). Relations also let the
compiler find contradictions and tautologies that logic alone does not contain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from energyql.errors import EnergyQLError, LimitError, VocabularyError
from energyql.language import And, Expr, bind, parse, predicates
from energyql.logic.diagram import ALWAYS, DEFAULT_MAX_NODES, NEVER, Diagram, Order, Variable, WeightVariable
from energyql.logic.nodes import dependencies_first
from energyql.vocabulary import AttributeSpec, Vocabulary


class QueryDiagram(Diagram):
    """A diagram in which queries, and weighted parts, have one node if they agree wherever the relations hold.

    Attributes that relations connect are neighbours in the variable order. The path of a query through such a group is
    what `ways` lists.

    Args:
        expr: the query.
        vocabulary: kinds, classes and ranges of the attributes.
        groups: relations, in groups that share no attribute; see `relations_for`.
        order: see `Diagram`.
        max_nodes: see `Diagram`.

    Attributes:
        root: the node of the query.
        relations: those of all groups.
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
        self.root = self._given_conditions(expr.evaluate(self))

    def weighted(self, factor: float, value: int) -> int:
        """Return the node of a weighted part, which is an opaque predicate."""
        return super().weighted(factor, self._given_conditions(value))

    def constrain(self, node: int, condition: int) -> int:
        """Return the node that stands for all nodes that agree with `node` wherever a satisfiable condition holds.

        This is the generalized cofactor of Coudert and Madre (1990): a value of an attribute that the condition rules
        out is read as the first value that it allows.
        """
        done: dict[tuple[int, int], int] = {}

        def known(pair: tuple[int, int]) -> int | None:
            return pair[0] if pair[1] == ALWAYS or pair[0] in (NEVER, ALWAYS) else done.get(pair)

        stack = [(node, condition)]
        while stack:
            pair = stack[-1]
            if known(pair) is not None:
                stack.pop()
                continue
            level = min(self.levels[pair[0]], self.levels[pair[1]])
            sides = list(zip(self.cofactors(pair[0], level), self.cofactors(pair[1], level), strict=True))
            first = next(side for side in sides if side[1] != NEVER)
            parts = [side if side[1] != NEVER else first for side in sides]
            missing = [part for part in parts if known(part) is None]
            stack.extend(missing)
            if not missing:
                done[pair] = self.node(level, tuple(known(part) or NEVER for part in parts))
        return known((node, condition)) or NEVER

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
        """Return the key of a variable; a related attribute brings its whole group along."""
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
    """The relations in groups that share no attribute."""
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
