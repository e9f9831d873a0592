"""Expressions: the base of all nodes, what joins them, counts of them, constants, conditions on an attribute, and `E`.

A tree can be as deep as `MAX_DEPTH`, too deep for a recursive walk on Python's own stack, and its nodes may be shared.
So every method here is iterative, and each node keeps its depth, size and hash from the moment it is built.

The class of a connective holds its keyword, precedence, lowering and drawing; only its syntax is in the grammar.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, Generic, Literal, NoReturn, TypeVar, cast

from energyql.errors import ArgumentError, LimitError, Span
from energyql.kinds import BARE, CLASSES, NUMBERS
from energyql.language.lexical import (
    MAX_WEIGHT,
    check_name,
    check_number,
    check_positive,
    check_weight,
    quote,
    shorten,
    show_number,
)
from energyql.render.graph import MOST_BOXES, Box, Role, draw_graph
from energyql.render.markup import Markup, element
from energyql.vocabulary import Vocabulary, unknown_name

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


_NO_TRUTH_VALUE = (
    "an expression has no truth value in Python: write & for `and`, | for `or`, ~ for `not`, "
    ".is_in([...]) for `in`, and .is_between(low, high) for `low < x < high`"
)
ATOM = 80
"""Precedence of everything that needs no parentheses: predicates, constants, counts."""
PARENTHESES = "comparisons need parentheses beside & | ^ >> *: write (E.age > 0.6) & E.smile"


def _reflected(operator: str) -> Callable[[Expr, object], Expr]:
    """Return a method for `other & expression`, where `other` is no expression; it raises an error."""
    return lambda self, other: check_operand(other, operator)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Expr(Node["Expr"]):
    """Base class of all nodes of queries.

    Combines with `&` (and), `|` (or), `^` (exclusive or), `~` (not), `>>` (implies), `.iff(other)` and
    `number * expression` (weight). `==` compares structure.
    """

    word: ClassVar[str] = ""
    """The keyword of the connective."""
    level: ClassVar[int] = ATOM
    """Precedence: the higher, the tighter it binds, as in the nesting of the rules in grammar/query.lark."""
    nests: ClassVar[tuple[int, ...]] = ()
    """The operands that may be of the same level without parentheses, by position."""
    role: ClassVar[Role] = "other"
    """Shape and colour in a drawing."""
    note: ClassVar[str] = ""
    """The second line in a drawing: when the connective holds."""
    note_of_many: ClassVar[str] = ""
    """The note for three operands and more, if it differs."""

    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)

    # NumPy scalars leave `np.float32(2) * expr` and `np.float32(0.2) < expr` to the methods below.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        raise ArgumentError("Expr is the base of the nodes: build a query with E or parse()")

    def __and__(self, other: object) -> Expr:
        return And((self, check_operand(other, "&")))

    def __or__(self, other: object) -> Expr:
        return Or((self, check_operand(other, "|")))

    def __xor__(self, other: object) -> Expr:
        return Xor((self, check_operand(other, "^")))

    def __rshift__(self, other: object) -> Expr:
        return Implies(self, check_operand(other, ">>"))

    __rand__, __ror__, __rxor__, __rrshift__ = map(_reflected, ("&", "|", "^", ">>"))

    def __invert__(self) -> Expr:
        return Not(self)

    def __mul__(self, factor: object) -> Expr:
        if isinstance(factor, Expr):
            raise ArgumentError("* takes a weight, as in 2 * E.smile: write & for `and`")
        return Weight(factor, self)  # type: ignore[arg-type]  # Weight checks it

    __rmul__ = __mul__

    def implies(self, other: Expr) -> Expr:
        """Return `self IMPLIES other`, the same as `self >> other`."""
        return Implies(self, check_operand(other, "implies"))

    def iff(self, other: Expr) -> Expr:
        """Return `self IFF other`: both are true or both are false."""
        return Iff((self, check_operand(other, "iff")))

    @property
    def _binding(self) -> int:
        return self.level

    def _spell(self, operands: Sequence[str]) -> str:
        return f" {self.word} ".join(self._enclosed(operands))

    def _spell_negated(self) -> str | None:
        """Return the text of NOT this node if there is one without NOT, such as `age != 0.7`, else `None`."""
        return None

    def _box(self) -> Box:
        if not self.children:
            return Box(to_text(self), role="leaf")
        note = self.note_of_many if len(self.children) > 2 else ""
        return Box(self.word, note or self.note, self.role)

    def _enclosed(self, operands: Sequence[str]) -> list[str]:
        """Return the texts of the operands, in parentheses where they bind no tighter than this node."""
        tight = [
            child._binding > self.level or (child._binding == self.level and place in self.nests)
            for place, child in enumerate(self.children)
        ]
        return [text if bare else f"({text})" for text, bare in zip(operands, tight, strict=True)]

    def __bool__(self) -> NoReturn:
        raise ArgumentError(_NO_TRUTH_VALUE)

    def __contains__(self, item: object) -> NoReturn:
        raise ArgumentError("`in` does not work on expressions: write E.hair.is_in([...])")

    def __lt__(self, bound: object) -> Expr:
        raise ArgumentError(
            f"only an attribute can be compared with a number, not `{shorten(str(self))}`", hint=PARENTHESES
        )

    __le__ = __gt__ = __ge__ = __lt__


def check_operand(value: object, operator: str) -> Expr:
    """Return `value`, an operand of `operator`.

    Raises:
        ArgumentError: it is not an expression.
    """
    if isinstance(value, Expr):
        return value
    hint = None
    if isinstance(value, bool):
        hint = "`==` and `!=` compare structure: write .eq(...), .ne(...) or .iff(...); a constant is TRUE or FALSE"
    elif isinstance(value, (int, float)):
        hint = PARENTHESES
    elif isinstance(value, str):
        hint = "write E.name for an attribute, or parse(text) for a query"
    raise ArgumentError(f"{operator} joins expressions, and {shorten(repr(value))} is not an expression", hint=hint)


def check_operands(kind: str, values: object, least: int) -> tuple[Expr, ...]:
    """Return the operands of a node as a tuple; `kind` is the name of the node in messages.

    Raises:
        ArgumentError: they are no iterable of expressions, or too few.
    """
    if isinstance(values, (str, Node)) or not isinstance(values, Iterable):
        raise ArgumentError(f"{kind} takes a tuple of expressions, not {shorten(repr(values))}")
    operands = tuple(check_operand(value, kind) for value in values)
    if len(operands) < least:
        raise ArgumentError(f"{kind} needs at least {least} operand{'s' * (least > 1)}, not {len(operands)}")
    return operands


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Not(Expr):
    """`NOT operand`."""

    word, level, nests, role = "NOT", 70, (0,), "not"
    operand: Expr

    def __post_init__(self) -> None:
        check_operand(self.operand, "Not")
        self._seal()

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.negation(operands[0])

    @property
    def _binding(self) -> int:
        return ATOM if self.operand._spell_negated() else self.level

    def _spell(self, operands: Sequence[str]) -> str:
        return self.operand._spell_negated() or f"NOT {self._enclosed(operands)[0]}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Weight(Expr):
    """`factor * operand`: multiplies the energy of `operand`."""

    level, nests = 70, (0,)
    factor: float
    operand: Expr

    def __post_init__(self) -> None:
        self._set("factor", check_weight(self.factor))
        check_operand(self.operand, "Weight")
        self._seal()

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.weighted(self.factor, operands[0])

    def _spell(self, operands: Sequence[str]) -> str:
        return f"{show_number(self.factor)} * {self._enclosed(operands)[0]}"

    def _box(self) -> Box:
        return Box(f"{show_number(self.factor)} *", "weight", "weight")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Joined(Expr):
    """Two or more operands under an associative operator; an operand of the same class is replaced by its operands."""

    operands: tuple[Expr, ...]

    def __post_init__(self) -> None:
        flat: list[Expr] = []
        for operand in check_operands(type(self).__name__, self.operands, 1):
            flat.extend(operand.operands if isinstance(operand, Joined) and type(operand) is type(self) else (operand,))
        self._set("operands", check_operands(type(self).__name__, flat, 2))
        self._seal()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class And(Joined):
    """All operands are true."""

    word, level, role, note = "AND", 60, "and", "all hold"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.conjunction(operands)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Xor(Joined):
    """True when an odd number of operands is true."""

    word, level, note, note_of_many = "XOR", 50, "exactly one holds", "an odd number holds"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.chain(lambda left, right: kernel.choice(left, kernel.negation(right), right), operands)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Or(Joined):
    """At least one operand is true."""

    word, level, role, note = "OR", 40, "or", "at least one holds"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.disjunction(operands)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Paired(Expr):
    """Two operands under an operator that is not associative."""

    left: Expr
    right: Expr

    def __post_init__(self) -> None:
        check_operand(self.left, type(self).__name__)
        check_operand(self.right, type(self).__name__)
        self._seal()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Implies(Paired):
    """`left IMPLIES right`: false only where left is true and right is not."""

    word, level, nests, note = "IMPLIES", 30, (1,), "if the upper, then the lower"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.disjunction([kernel.negation(operands[0]), operands[1]])


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Iff(Joined):
    """Equivalence of two operands; of several, folded from the left."""

    word, level, note, note_of_many = "IFF", 20, "both or neither", "folded from the left"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.chain(lambda left, right: kernel.choice(left, right, kernel.negation(right)), operands)


def allowed_counts(quantifier: str, count: int | None, size: int) -> range:
    """Return the numbers of true operands, of `size`, for which a cardinality is true."""
    if count is None:
        least, most = {"ALL": (size, size), "ANY": (1, size), "NONE": (0, 0)}[quantifier]
    else:
        least = 0 if quantifier == "AT MOST" else count
        most = size if quantifier == "AT LEAST" else count
    return range(least, min(most, size) + 1)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cardinality(Expr):
    """`AT LEAST 2 OF (a, b, c)`; the quantifier is AT LEAST, AT MOST, EXACTLY (with count), ALL, ANY or NONE."""

    quantifier: str
    count: int | None
    operands: tuple[Expr, ...]

    def __post_init__(self) -> None:
        self._set("operands", check_operands(self.head, self.operands, 1))
        self._set("count", self._checked_count())
        self._seal()

    @property
    def head(self) -> str:
        """The words before the operands: `AT LEAST 2 OF`."""
        return f"{self.quantifier} OF" if self.count is None else f"{self.quantifier} {self.count} OF"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        if self.count is not None:
            return kernel.count(self.quantifier, self.count, operands)
        if self.quantifier == "ALL":
            return kernel.conjunction(operands)
        either = kernel.disjunction(operands)
        return either if self.quantifier == "ANY" else kernel.negation(either)

    def _spell(self, operands: Sequence[str]) -> str:
        return f"{self.head} ({', '.join(operands)})"

    def _box(self) -> Box:
        return Box(self.head, f"these {len(self.operands)}")

    def _checked_count(self) -> int | None:
        count, quantifier = self.count, self.quantifier
        if quantifier in ("ALL", "ANY", "NONE"):
            if count is not None:
                raise ArgumentError(f"{quantifier} OF takes no number")
            return None
        if quantifier not in ("AT LEAST", "AT MOST", "EXACTLY"):
            raise ArgumentError(
                f"a quantifier is AT LEAST, AT MOST, EXACTLY, ALL, ANY or NONE, not {shorten(repr(quantifier))}"
            )
        whole = check_number(count, f"the number after {quantifier}")
        if not whole.is_integer() or whole < 0:
            raise ArgumentError(f"{quantifier} needs a whole number that is not negative, not {show_number(whole)}")
        # AT MOST 4 OF (a, b) is merely always true, and a program may well write it for a short list.
        if whole > len(self.operands) and quantifier != "AT MOST":
            given = "only 1 is given" if len(self.operands) == 1 else f"only {len(self.operands)} are given"
            raise ArgumentError(f"{quantifier} {show_number(whole)} can never be true: {given}")
        return int(whole)


Operands = Expr | Iterable[Expr]


def at_least(count: int, *operands: Operands) -> Expr:
    """Return `AT LEAST count OF (...)`: so many of the operands hold, or more.

    This function and the five below take operands as expressions, lists of expressions, or both.

    Raises:
        ArgumentError: `count` is no whole number from 0 up or can never be reached, an operand is no expression, or
            there is none.
    """
    return Cardinality("AT LEAST", count, _flatten(operands))


def at_most(count: int, *operands: Operands) -> Expr:
    """Return `AT MOST count OF (...)`: so many of the operands hold, or fewer. See `at_least`."""
    return Cardinality("AT MOST", count, _flatten(operands))


def exactly(count: int, *operands: Operands) -> Expr:
    """Return `EXACTLY count OF (...)`: so many of the operands hold, and the others do not. See `at_least`."""
    return Cardinality("EXACTLY", count, _flatten(operands))


def all_of(*operands: Operands) -> Expr:
    """Return `ALL OF (...)`: every operand holds. See `at_least`."""
    return Cardinality("ALL", None, _flatten(operands))


def any_of(*operands: Operands) -> Expr:
    """Return `ANY OF (...)`: at least one operand holds. See `at_least`."""
    return Cardinality("ANY", None, _flatten(operands))


def none_of(*operands: Operands) -> Expr:
    """Return `NONE OF (...)`: no operand holds. See `at_least`."""
    return Cardinality("NONE", None, _flatten(operands))


def _flatten(operands: tuple[Operands, ...]) -> tuple[Expr, ...]:
    flat: list[Expr] = []
    for operand in operands:
        if isinstance(operand, Iterable) and not isinstance(operand, (str, bytes, Expr)):
            flat.extend(operand)
        else:
            flat.append(operand)  # Cardinality refuses what is no expression
    return tuple(flat)


Closed = Literal["both", "left", "right", "none"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Constant(Expr):
    """`TRUE` or `FALSE`."""

    value: bool

    def __post_init__(self) -> None:
        if not isinstance(self.value, bool):
            raise ArgumentError(f"a constant is True or False, not {shorten(repr(self.value))}")
        self._seal()

    def _spell(self, operands: Sequence[str]) -> str:
        return "TRUE" if self.value else "FALSE"


TRUE = Constant(True)
"""The query that every sample satisfies."""
FALSE = Constant(False)
"""The query that no sample satisfies."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Predicate(Expr):
    """A condition on the attribute `name`; `form` is one of those in `energyql.kinds`."""

    form: ClassVar[str]
    name: str

    def __post_init__(self) -> None:
        self._set("name", check_name(self.name, "an attribute name"))
        self._check()
        self._seal()

    def _check(self) -> None:
        """Check and normalise the fields of the kind of predicate."""


def predicates(expr: Expr) -> list[Predicate]:
    """Return the predicates of a query, in the order of its text."""
    return [node for node in expr.walk() if isinstance(node, Predicate)]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Attribute(Predicate):
    """A yes/no attribute on its own: `smile`. In Python also the left side of a comparison: `E.age > 0.6`."""

    form = BARE

    def _spell(self, operands: Sequence[str]) -> str:
        return quote(self.name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (str, int, float)):
            raise ArgumentError(
                f"`==` compares the structure of expressions: write .eq({other!r}) for `=` and .ne({other!r}) for `!=`"
            )
        return Node.__eq__(self, other)

    def __hash__(self) -> int:
        return Node.__hash__(self)

    def __lt__(self, bound: object) -> Expr:
        return Interval(self.name, None, self._bound(bound))

    def __le__(self, bound: object) -> Expr:
        return Interval(self.name, None, self._bound(bound), high_closed=True)

    def __gt__(self, bound: object) -> Expr:
        return Interval(self.name, self._bound(bound), None)

    def __ge__(self, bound: object) -> Expr:
        return Interval(self.name, self._bound(bound), None, low_closed=True)

    def _bound(self, bound: object) -> float:
        if isinstance(bound, Expr):
            raise ArgumentError(f"'{shorten(self.name)}' can be compared with a number only", hint=PARENTHESES)
        return check_number(bound, "a bound")

    def eq(self, value: str | float) -> Expr:
        """Return `hair = black` for a string; for a number `age = 0.7`, within the attribute's own tolerance."""
        if isinstance(value, bool):
            raise ArgumentError("a yes/no attribute is an expression by itself: write E.smile or ~E.smile")
        if isinstance(value, Iterable) and not isinstance(value, str):
            raise ArgumentError("one value is needed, not several", hint="write .is_in([...]) or .not_in([...])")
        return OneOf(self.name, (value,)) if isinstance(value, str) else Near(self.name, value)

    def ne(self, value: str | float) -> Expr:
        """Return `hair != black` for a string, `age != 0.7` for a number."""
        return self.not_in([value]) if isinstance(value, str) else Not(self.eq(value))

    def is_in(self, values: Iterable[str]) -> Expr:
        """Return `hair IN {black, gray}`."""
        return OneOf(self.name, values)  # type: ignore[arg-type]  # OneOf makes it a tuple

    def not_in(self, values: Iterable[str]) -> Expr:
        """Return `hair NOT IN {black, gray}`."""
        return OneOf(self.name, values, negated=True)  # type: ignore[arg-type]  # OneOf makes it a tuple

    def is_between(self, low: float, high: float, closed: Closed = "both") -> Expr:
        """Return `age IN [low, high]`; `closed` says which ends belong to it: "both", "left", "right" or "none"."""
        if closed not in ("both", "left", "right", "none"):
            raise ArgumentError(f'closed is "both", "left", "right" or "none", not {shorten(repr(closed))}')
        return Interval(
            self.name,
            self._bound(low),
            self._bound(high),
            low_closed=closed in ("both", "left"),
            high_closed=closed in ("both", "right"),
        )

    def near(self, value: float, tolerance: float | None = None) -> Expr:
        """Return `age = value +- tolerance`; by default with the attribute's own tolerance."""
        return Near(self.name, value, tolerance)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OneOf(Predicate):
    """A categorical attribute is one of `values` (or none of them): `hair = black`, `hair NOT IN {black, red}`."""

    form = CLASSES
    values: tuple[str, ...]
    negated: bool = False

    def _check(self) -> None:
        if isinstance(self.values, str) or not isinstance(self.values, Iterable):
            raise ArgumentError(f"values must be a list of strings, not {shorten(repr(self.values))}")
        items = tuple(self.values)
        number = next((value for value in items if isinstance(value, Real)), None)
        if number is not None:
            hint = "numbers lie in a range: write .is_between(low, high)"
            raise ArgumentError(f"a value must be a string, not {shorten(repr(number))}", hint=hint)
        values = tuple(dict.fromkeys(check_name(value, "a value") for value in items))
        if not values:
            raise ArgumentError("at least one value is needed")
        self._set("values", values)
        self._set("negated", bool(self.negated))

    def _spell(self, operands: Sequence[str]) -> str:
        if len(self.values) == 1:
            return f"{quote(self.name)} {'!=' if self.negated else '='} {quote(self.values[0])}"
        return f"{quote(self.name)} {'NOT IN' if self.negated else 'IN'} {{{', '.join(map(quote, self.values))}}}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Interval(Predicate):
    """A continuous attribute lies between bounds; `None` is unbounded: `age > 0.6`, `0.2 < age <= 0.4`."""

    form = NUMBERS
    low: float | None
    high: float | None
    low_closed: bool = False
    high_closed: bool = False

    def bounds(self, tolerance: float) -> tuple[float, float]:
        """Return the ends of the interval, which may be infinite; see `Near.bounds`."""
        return -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high

    def _check(self) -> None:
        low = None if self.low is None else check_number(self.low, "a bound")
        high = None if self.high is None else check_number(self.high, "a bound")
        if low is None and high is None:
            raise ArgumentError("an interval needs a bound")
        if low is not None and high is not None and low >= high:
            shown = show_number(low), show_number(high)
            raise ArgumentError(
                f"the interval from {shown[0]} to {shown[1]} is empty",
                hint="write the smaller number first" if low > high else "write `= value +- tolerance` for one value",
            )
        self._set("low", low)
        self._set("high", high)
        self._set("low_closed", bool(self.low_closed) and low is not None)
        self._set("high_closed", bool(self.high_closed) and high is not None)

    def _spell(self, operands: Sequence[str]) -> str:
        name = quote(self.name)
        above, below = "<=" if self.low_closed else "<", "<=" if self.high_closed else "<"
        if self.low is None:
            return f"{name} {below} {show_number(self.high or 0.0)}"
        if self.high is None:
            return f"{name} {'>=' if self.low_closed else '>'} {show_number(self.low)}"
        return f"{show_number(self.low)} {above} {name} {below} {show_number(self.high)}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Near(Predicate):
    """A continuous attribute is within `tolerance` of `value`: `age = 0.7 +- 0.05`; `None` is the attribute's own."""

    form = NUMBERS
    value: float
    tolerance: float | None = None

    def bounds(self, tolerance: float) -> tuple[float, float]:
        """Return the ends of the interval; `tolerance` is the attribute's own."""
        tolerance = tolerance if self.tolerance is None else self.tolerance
        return self.value - tolerance, self.value + tolerance

    def _check(self) -> None:
        self._set("value", check_number(self.value, "a value"))
        if self.tolerance is not None:
            self._set("tolerance", check_positive(self.tolerance, "a tolerance"))

    def _spell(self, operands: Sequence[str]) -> str:
        return self._with_sign("=")

    def _spell_negated(self) -> str:
        return self._with_sign("!=")

    def _with_sign(self, sign: str) -> str:
        tolerance = "" if self.tolerance is None else f" +- {show_number(self.tolerance)}"
        return f"{quote(self.name)} {sign} {show_number(self.value)}{tolerance}"


class Namespace:
    """All attributes by name: `E.smile` or, for a name of any kind, `E["5 o'clock shadow"]`.

    Names that begin with an underscore need brackets, since Python and its tools look such names up on every object.
    """

    __slots__ = ()

    # Without these two, Python would try E[0], E[1], ... for `for x in E` and `x in E`.
    __iter__ = None
    __contains__ = None

    def __getattr__(self, name: str) -> Attribute:
        if name.startswith("_"):
            raise AttributeError(f"E has no {name!r}: write E[{name!r}] for an attribute of that name")
        return Attribute(name)

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            raise AttributeError(f"{name!r} cannot be set: write E.{name}.eq({shorten(repr(value))}) for `=`")
        object.__setattr__(self, name, value)

    def __getitem__(self, name: str) -> Attribute:
        if not isinstance(name, str):
            raise ArgumentError(f"E[...] takes the name of an attribute, not {shorten(repr(name))}")
        return Attribute(name)

    def __repr__(self) -> str:
        return "E"

    def __reduce__(self) -> str:
        return "E"  # the name in this module by which pickle and copy find the one E


class ModelNamespace(Namespace):
    """The attributes of one model by name: like `E`, with completion of names, and an error for unknown ones.

    Args:
        vocabulary: the attributes.
    """

    __slots__ = ("_vocabulary",)

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def __getattr__(self, name: str) -> Attribute:
        return self[Namespace.__getattr__(self, name).name]

    def __getitem__(self, name: str) -> Attribute:
        attribute = Namespace.__getitem__(self, name)
        if attribute.name not in self._vocabulary:
            fault = f"is not an attribute of {self._vocabulary.of_model}"
            raise unknown_name(attribute.name, self._vocabulary, fault)
        return attribute

    def __dir__(self) -> list[str]:
        return [name for name in self._vocabulary if name.isidentifier() and not name.startswith("_")]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._vocabulary)

    def __repr__(self) -> str:
        return f"E of {self._vocabulary.of_model}"

    def __reduce__(self) -> tuple[type[ModelNamespace], tuple[Vocabulary]]:  # type: ignore[override]
        return ModelNamespace, (self._vocabulary,)


E = Namespace()
"""All attributes by their names; see `Namespace`."""
