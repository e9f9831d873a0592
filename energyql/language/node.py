"""The base of all nodes of a query's tree, and the operations by which connectives are evaluated.

A tree can be as deep as `MAX_DEPTH`, too deep for a recursive walk on Python's own stack, and its nodes may be shared.
So every method here is iterative, and each node keeps its depth, size and hash from the moment it is built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast

from energyql.errors import LimitError, Span
from energyql.language.lexical import MAX_WEIGHT
from energyql.render.graph import MOST_BOXES, Box, draw_graph
from energyql.render.markup import Markup, element

MAX_DEPTH = 200
"""Levels of nesting that a query can have, in text and in Python."""
MAX_NODES = 65_536
"""Nodes that a query can have; no text within the parser's own limit holds more."""

MAX_SHOWN = 2000
"""Characters of a query that a notebook shows above its tree."""

_CHILD_FIELDS = frozenset({"operand", "operands", "left", "right"})

N = TypeVar("N", bound="Node[Any]")
T = TypeVar("T")


class Node(Generic[N]):
    """A node of the tree: fields that are data, fields that are nodes, and a span.

    Subclasses are frozen dataclasses that call `_seal` once their fields are checked. `N` is the type of the operands.
    """

    __slots__ = ("_hash", "_heaviest", "children", "depth", "size")
    __match_args__: ClassVar[tuple[str, ...]]
    children: tuple[N, ...]
    """The operands of this node, from left to right; empty for predicates and constants."""
    depth: int
    """Levels of the tree: 1 for a predicate."""
    size: int
    """Nodes of the tree, a shared one counted as often as it is printed."""
    span: Span | None
    _heaviest: float
    _hash: int

    def walk(self) -> Iterator[N]:
        """Yield every node, parents before children and from left to right, as they stand in the text."""
        stack = [cast("N", self)]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def fold(self, combine: Callable[[N, list[T]], T]) -> T:
        """Return `combine(node, results of its operands)` of the root, computed from the leaves up."""
        order, stack = [], [cast("N", self)]
        while stack:
            node = stack.pop()
            order.append(node)
            stack.extend(node.children)
        results: list[T] = []
        for node in reversed(order):  # operands come before the node that holds them, from left to right
            first = len(results) - len(node.children)
            operands = results[first:]
            del results[first:]
            results.append(combine(node, operands))
        return results[0]

    def map(self, change: Callable[[N], N]) -> N:
        """Return the tree with `change(node)` in place of every node, operands first; what stays equal is shared."""
        return self.fold(lambda node, operands: change(node.with_children(operands)))

    def evaluate(self, kernel: Kernel[T]) -> T:
        """Return the value of the tree, every connective lowered to the operations of `kernel`."""
        value: T = self.fold(lambda node, operands: node._lower(kernel, operands))
        return value

    def __str__(self) -> str:
        return to_text(self)

    def __repr__(self) -> str:
        return f"parse({to_text(self)!r})"

    def _repr_html_(self) -> str:
        text = to_text(self)
        shown = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
        return str(element("div", element("code", shown), element("div", draw_tree(self), style="overflow-x:auto")))

    def _repr_svg_(self) -> str:
        return str(draw_tree(self, standalone=True))

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        """Return the value of this node, given the values of its operands: the meaning of a connective."""
        return kernel.leaf(self)

    def _spell(self, operands: Sequence[str]) -> str:
        """Return the text of this node, given the texts of its operands."""
        raise NotImplementedError

    def _box(self) -> Box:
        """Return the box of this node in a drawing of the tree."""
        raise NotImplementedError

    def with_children(self, children: Sequence[N]) -> N:
        """Return this node with other operands; the node itself if they are its own."""
        if all(new is old for new, old in zip(children, self.children, strict=True)):
            return cast("N", self)
        return cast("N", self._build(self._data(), children, self.span))

    @classmethod
    def _build(cls, data: Sequence[object], children: Sequence[object], span: Span | None) -> Any:
        values, operands = iter(data), iter(children)
        arguments: list[object] = []
        for name in cls.__match_args__:
            if name == "operands":
                arguments.append(tuple(operands))
            else:
                arguments.append(next(operands if name in _CHILD_FIELDS else values))
        return cast("Any", cls)(*arguments, span=span)

    def _data(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__ if name not in _CHILD_FIELDS)

    def _seal(self) -> None:
        children: list[N] = []
        for name in self.__match_args__:
            if name in _CHILD_FIELDS:
                value = getattr(self, name)
                children.extend(value if name == "operands" else [value])
        depth = 1 + max((child.depth for child in children), default=0)
        size = 1 + sum(child.size for child in children)
        if depth > MAX_DEPTH:
            raise LimitError(f"the query is nested more than {MAX_DEPTH} levels deep")
        if size > MAX_NODES:
            raise LimitError(f"the query has more than {MAX_NODES} parts")
        heaviest = getattr(self, "factor", 1.0) * max((child._heaviest for child in children), default=1.0)
        if heaviest > MAX_WEIGHT:
            raise LimitError(f"weights within weights multiply to more than {MAX_WEIGHT:,}")
        self._set("children", tuple(children))
        self._set("depth", depth)
        self._set("size", size)
        self._set("_heaviest", heaviest)
        self._set("_hash", hash((type(self).__name__, self._data(), tuple(child._hash for child in children))))

    def _set(self, name: str, value: object) -> None:
        """Write a field of this frozen node; only for a node that no other code holds yet."""
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Node):
            return NotImplemented
        stack: list[tuple[Node[Any], Node[Any]]] = [(self, other)]
        while stack:
            left, right = stack.pop()
            if left is right:
                continue
            if type(left) is not type(right) or left._hash != right._hash or left._data() != right._data():
                return False
            if len(left.children) != len(right.children):
                return False
            stack.extend(zip(left.children, right.children, strict=True))
        return True

    def __hash__(self) -> int:
        return self._hash

    def __copy__(self) -> Node[N]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Node[N]:
        return self  # nodes never change

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle would recurse into the children; a flat list keeps its stack shallow.
        flat = [(type(node), node._data(), len(node.children), node.span) for node in self.walk()]
        return _rebuild, (flat,)


def _rebuild(flat: list[tuple[type[Any], tuple[object, ...], int, Span | None]]) -> Any:
    """Undo `Node.__reduce__`: `flat` lists parents before children, so it is read from the end."""
    done: list[Any] = []
    for kind, data, arity, span in reversed(flat):
        done.append(kind._build(data, [done.pop() for _ in range(arity)], span))
    return done[0]


def to_text(expr: Node[Any]) -> str:
    """Return the text of a tree: upper-case keywords and the fewest parentheses, so that it parses to an equal tree."""
    text: str = expr.fold(lambda node, texts: node._spell(texts))
    return text


def draw_tree(expr: Node[Any], *, standalone: bool = False) -> Markup:
    """Draw a tree as SVG: operators with their operands, in the order of the text; see `draw_graph`."""
    if expr.size > MOST_BOXES:
        large = Box(f"too large to draw: {expr.size:,} parts", role="root")
        return draw_graph([large], [], title="A large query", standalone=standalone)
    boxes: list[Box] = []
    edges: list[tuple[int, int]] = []
    stack: list[tuple[Node[Any], int | None]] = [(expr, None)]
    while stack:
        node, parent = stack.pop()
        if parent is not None:
            edges.append((parent, len(boxes)))
        stack += [(child, len(boxes)) for child in reversed(node.children)]
        boxes.append(node._box())
    return draw_graph(boxes, edges, title=f"The tree of the query {to_text(expr)}", standalone=standalone)


class Kernel(ABC, Generic[T]):
    """The operations to which every connective is lowered. An evaluator of queries implements these and no others.

    `T` is the value of a part of a query: a node of a decision diagram, an array of truths, a tensor, another tree.
    Connectives are written over this interface (`Implies.lower` is `NOT left OR right`), so a new one needs no change
    in any evaluator, and operands that a lowering uses twice are evaluated once. The technique is known as a tagless
    interpreter (Carette, Kiselyov, Shan 2009).
    """

    @abstractmethod
    def leaf(self, node: Node[Any]) -> T:
        """Return the value of a predicate or constant."""

    @abstractmethod
    def negation(self, value: T) -> T:
        """Return the value of NOT."""

    @abstractmethod
    def conjunction(self, values: Sequence[T]) -> T:
        """Return the value of AND, of one or more operands."""

    @abstractmethod
    def disjunction(self, values: Sequence[T]) -> T:
        """Return the value of OR, of one or more operands."""

    @abstractmethod
    def choice(self, test: T, then: T, otherwise: T) -> T:
        """Return the value of `(test AND then) OR (NOT test AND otherwise)`, whose two sides exclude one another."""

    @abstractmethod
    def count(self, quantifier: str, count: int, values: Sequence[T]) -> T:
        """Return the value of AT LEAST, AT MOST or EXACTLY `count` of one or more operands."""

    @abstractmethod
    def weighted(self, factor: float, value: T) -> T:
        """Return the value of a part with a weight."""

    def chain(self, combine: Callable[[T, T], T], values: Sequence[T]) -> T:
        """Combine one or more operands by an associative operation, in the order that suits this evaluator.

        By default pairwise, as a balanced tree: the same result as from the left, with smaller intermediate results.
        """
        level = list(values)
        while len(level) > 1:
            paired = [combine(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
            level = paired + level[len(level) & ~1 :]
        return level[0]
