"""What all nodes share: limits, comparison by structure, copying and pickling.

A tree can be as deep as `MAX_DEPTH`, which is more than Python's own stack likes in a recursive walk, and its nodes may
be shared. So everything here is iterative, and each node keeps its depth, size and hash from the moment it is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from energyql.errors import LimitError, Span
from energyql.language.checks import MOST_WEIGHT

if TYPE_CHECKING:
    from energyql.language.ast import Expr

MAX_DEPTH = 200
"""Levels of nesting that a query can have, in text and in Python."""
MAX_NODES = 65_536
"""Nodes that a query can have; no text within the parser's own limit holds more."""

_CHILD_FIELDS = frozenset({"operand", "operands", "left", "right"})


class Node:
    """A node of the tree: fields that are data, fields that are nodes, and a span.

    Subclasses are frozen dataclasses that call `_seal` once their fields are checked.
    """

    __slots__ = ("_depth", "_hash", "_heaviest", "_size")
    __match_args__: ClassVar[tuple[str, ...]]
    if TYPE_CHECKING:  # a dataclass would make fields of these
        _depth: int
        _size: int
        _heaviest: float
        _hash: int
    span: Span | None

    @property
    def children(self) -> tuple[Expr, ...]:
        """The operands of this node, from left to right; empty for predicates and constants."""
        found: list[Expr] = []
        for name in self.__match_args__:
            if name in _CHILD_FIELDS:
                value = getattr(self, name)
                found.extend(value if name == "operands" else [value])
        return tuple(found)

    @property
    def depth(self) -> int:
        """Levels of the tree: 1 for a predicate."""
        return self._depth

    @property
    def size(self) -> int:
        """Nodes of the tree, a shared one counted as often as it is printed."""
        return self._size

    def walk(self) -> Iterator[Expr]:
        """Every node, parents before children and from left to right, which is the order of the text."""
        stack = [cast("Expr", self)]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def map_leaves(self, change: Callable[[Expr], Expr]) -> Expr:
        """The same tree with every predicate and constant replaced by `change(it)`."""
        done: list[Expr] = []
        stack = [(cast("Expr", self), False)]
        while stack:
            node, expanded = stack.pop()
            children = node.children
            if not children:
                done.append(change(node))
            elif not expanded:
                stack.append((node, True))
                stack.extend((child, False) for child in reversed(children))
            else:
                changed = done[len(done) - len(children) :]
                del done[len(done) - len(children) :]
                same = all(new is old for new, old in zip(changed, children, strict=True))
                done.append(node if same else node._with_children(changed))
        return done[0]

    def _with_children(self, children: Sequence[Expr]) -> Expr:
        remaining = iter(children)
        arguments: list[object] = []
        for name in self.__match_args__:
            if name == "operands":
                arguments.append(tuple(remaining))
            else:
                arguments.append(next(remaining) if name in _CHILD_FIELDS else getattr(self, name))
        return cast("type[Expr]", type(self))(*arguments, span=self.span)

    def _data(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__ if name not in _CHILD_FIELDS)

    def _seal(self) -> None:
        children = self.children
        depth = 1 + max((child._depth for child in children), default=0)
        size = 1 + sum(child._size for child in children)
        if depth > MAX_DEPTH:
            raise LimitError(f"the query is nested more than {MAX_DEPTH} levels deep")
        if size > MAX_NODES:
            raise LimitError(f"the query has more than {MAX_NODES} parts")
        heaviest = getattr(self, "factor", 1.0) * max((child._heaviest for child in children), default=1.0)
        if heaviest > MOST_WEIGHT:
            raise LimitError(f"weights within weights multiply to more than {MOST_WEIGHT:,}")
        self._set("_depth", depth)
        self._set("_size", size)
        self._set("_heaviest", heaviest)
        self._set("_hash", hash((type(self).__name__, self._data(), tuple(child._hash for child in children))))

    def _set(self, name: str, value: object) -> None:
        """Writes a field of this frozen node; only for a node that nobody else has seen yet."""
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Node):
            return NotImplemented
        stack: list[tuple[Node, Node]] = [(self, other)]
        while stack:
            left, right = stack.pop()
            if left is right:
                continue
            if type(left) is not type(right) or left._hash != right._hash or left._data() != right._data():
                return False
            ours, theirs = left.children, right.children
            if len(ours) != len(theirs):
                return False
            stack.extend(zip(ours, theirs, strict=True))
        return True

    def __hash__(self) -> int:
        return self._hash

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Node:
        return self  # nodes never change

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle would recurse into the children; a flat list in postfix order keeps its stack shallow.
        flat = [(type(node), node._data(), len(node.children), node.span) for node in self.walk()]
        return _rebuild, (flat,)


def _rebuild(flat: list[tuple[type[Any], tuple[object, ...], int, Span | None]]) -> Any:
    """Undoes `Node.__reduce__`: `flat` lists parents before children, so it is read from the end."""
    done: list[Any] = []
    for kind, data, arity, span in reversed(flat):
        children = [done.pop() for _ in range(arity)]
        values, operands = iter(data), iter(children)
        arguments: list[object] = []
        for name in kind.__match_args__:
            if name == "operands":
                arguments.append(tuple(operands))
            else:
                arguments.append(next(operands if name in _CHILD_FIELDS else values))
        done.append(kind(*arguments, span=span))
    return done[0]
