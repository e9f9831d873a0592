"""The nodes of a query's tree (connectives, counts, constants, conditions on attributes), and `E`, to build them.

A tree can be as deep as `MAX_DEPTH`, too deep for recursion, and one node may occur in it several times. So every
method is iterative, and the depth, size and hash of a node are computed once, when it is built. The class of a
connective defines its keyword, precedence, drawing, and meaning in terms of AND, OR and NOT (method `_lower`); only its
syntax is elsewhere, in grammar/query.lark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Literal, NoReturn, Protocol, TypeVar, cast

from energyql.errors import ArgumentError, LimitError, Span
from energyql.kinds import BARE, CLASSES, NUMBERS
from energyql.language.lexical import (
    Quoted,
    check_name,
    check_number,
    check_positive,
    quote,
    shorten,
    show_number,
)
from energyql.render.graph import MOST_BOXES, Box, Role, draw_graph
from energyql.render.markup import Markup, element
from energyql.vocabulary import Vocabulary

MAX_DEPTH = 200
"""Most levels of nesting of a query, whether it is written as text or in Python."""
MAX_NODES = 65_536
"""Most nodes of a query; no text that the parser accepts has more."""
MAX_WEIGHT = 1_000_000
"""Largest weight, and largest product of nested weights, so that energies stay far below the largest float32."""
MAX_SHOWN = 2000
"""Most characters of a query that a notebook shows above the drawing of its tree."""
ATOM = 80
"""Precedence (`Expr.level`) of all that never needs parentheses: predicates, constants and counts."""
PARENTHESES = "comparisons need parentheses beside & | ^ >> *: write (E.age > 0.6) & E.smile"
_NO_TRUTH_VALUE = (
    "an expression has no truth value in Python: write & for `and`, | for `or`, ~ for `not`, "
    ".is_in([...]) for `in`, and .is_between(low, high) for `low < x < high`"
)
_CHILD_FIELDS = frozenset({"operand", "operands", "left", "right"})

T = TypeVar("T")


class Kernel(Protocol[T]):
    """The operations from which the values of all connectives are computed. Each evaluator of queries is a subclass.

    `T` is the type of the values: indices of nodes of a decision diagram, arrays of booleans, tensors, or other trees.
    The class of a connective expresses it by these operations (IMPLIES is `NOT left OR right`), so a new connective
    needs no change in any evaluator. The technique is known as a tagless interpreter (Carette, Kiselyov, Shan 2009).
    """

    def leaf(self, node: Expr) -> T:
        """Value of a predicate (a condition on an attribute) or of the constant `TRUE` or `FALSE`."""

    def negation(self, value: T) -> T:
        """Value of `NOT part`, from the value of the part."""

    def conjunction(self, values: Sequence[T]) -> T:
        """Value of AND, from the values of one or more operands."""

    def disjunction(self, values: Sequence[T]) -> T:
        """Value of OR, from the values of one or more operands."""

    def choice(self, test: T, then: T, otherwise: T) -> T:
        """Value of `(test AND then) OR (NOT test AND otherwise)`."""
        return self.disjunction([self.conjunction([test, then]), self.conjunction([self.negation(test), otherwise])])

    def count(self, quantifier: str, count: int, values: Sequence[T]) -> T:
        """Value of `quantifier count OF (...)`, where the quantifier is "AT LEAST", "AT MOST" or "EXACTLY"."""

    def weighted(self, factor: float, value: T) -> T:
        """Value of `factor * part`, from the value of the part."""

    def chain(self, combine: Callable[[T, T], T], values: Sequence[T]) -> T:
        """Value of one or more operands that an associative connective of two operands joins, from left to right.

        Neighbours are combined pair by pair, as in a balanced tree, which keeps intermediate results small.
        """
        level = list(values)
        while len(level) > 1:
            paired = [combine(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
            level = paired + level[len(level) & ~1 :]
        return level[0]


def _reflected(operator: str) -> Callable[[Expr, object], Expr]:
    """Method that raises an `ArgumentError` for `other & expression` (or another sign) if `other` is no expression."""
    return lambda self, other: check_operand(other, operator)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Expr:
    """Base class of all nodes of queries. A node has data (such as a name or bounds), operands, and a span in a text.

    Expressions combine with `&` (and), `|` (or), `^` (exclusive or), `~` (not), `>>` (implies), `.iff(other)` and
    `number * expression` (weight). `==` tells whether two trees have the same structure. Subclasses are frozen
    dataclasses.
    """

    __match_args__: ClassVar[tuple[str, ...]]
    word: ClassVar[str] = ""
    """The keyword of a connective, such as `AND`; empty for other nodes."""
    level: ClassVar[int] = ATOM
    """Precedence of the node in texts: AND, with 60, binds tighter than OR, with 40, as in grammar/query.lark."""
    nests: ClassVar[tuple[int, ...]] = ()
    """Positions (0 for the first) of operands that need no parentheses even if their `level` equals this node's."""
    role: ClassVar[Role] = "other"
    """Meaning of the node in a drawing, which decides the shape and colour of its box."""
    note: ClassVar[str] = ""
    """Second line of the box in a drawing: when the connective is true, such as "all hold"."""
    note_of_many: ClassVar[str] = ""
    """Replaces `note` if the node has three operands or more; empty if `note` fits any number of operands."""

    span: Span | None = field(default=None, kw_only=True)
    """The range of the node's characters in the text of the query; `None` for a node that was made in Python."""
    children: tuple[Expr, ...] = field(init=False)
    """The operands of this node, from left to right; empty for predicates and constants."""
    depth: int = field(init=False)
    """Number of levels of the tree below and including this node: 1 for a predicate."""
    size: int = field(init=False)
    """Number of nodes of the tree below and including this node; a node that occurs twice counts twice."""
    _heaviest: float = field(init=False)
    """Largest product of weights inside one another in the tree below and including this node; 1 without weights."""
    _hash: int = field(init=False)
    """Hash of class, data and operands of the node; equal trees have equal hashes."""

    # NumPy scalars leave `np.float32(2) * expr` and `np.float32(0.2) < expr` to the methods below.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        if type(self) is Expr:
            raise ArgumentError("Expr is the base of the nodes: build a query with E or parse()")
        self._check()
        children: list[Expr] = []
        for name in self.__match_args__:
            if name in _CHILD_FIELDS:
                value = getattr(self, name)
                children.extend(value if name == "operands" else [check_operand(value, type(self).__name__)])
        depth = 1 + max((child.depth for child in children), default=0)
        size = 1 + sum(child.size for child in children)
        heaviest = getattr(self, "factor", 1.0) * max((child._heaviest for child in children), default=1.0)
        if depth > MAX_DEPTH:
            raise LimitError(f"the query is nested more than {MAX_DEPTH} levels deep")
        if size > MAX_NODES:
            raise LimitError(f"the query has more than {MAX_NODES} parts")
        if heaviest > MAX_WEIGHT:
            raise LimitError(f"weights within weights multiply to more than {MAX_WEIGHT:,}")
        key = hash((type(self).__name__, self._data(), tuple(child._hash for child in children)))
        self._set(children=tuple(children), depth=depth, size=size, _heaviest=heaviest, _hash=key)

    def _check(self) -> None:
        """Check the fields of a new node and bring them to a normal form; an `ArgumentError` if one is wrong."""

    def _set(self, **fields: object) -> None:
        """Set fields of this node although it is frozen; only for a new node that no other code has used yet."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def walk(self) -> Iterator[Expr]:
        """Yield every node of the tree: a node before its operands, and operands from left to right."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def fold(self, combine: Callable[[Expr, list[T]], T]) -> T:
        """Compute for each node, operands first, `combine(node, values of its operands)`; return the root's value."""
        order: list[Expr] = []
        results: list[T] = []
        stack = [self]
        while stack:
            order.append(stack.pop())
            stack.extend(order[-1].children)
        for node in reversed(order):  # operands come before the node that holds them, from left to right
            first = len(results) - len(node.children)
            results[first:] = [combine(node, results[first:])]
        return results[0]

    def map(self, change: Callable[[Expr], Expr]) -> Expr:
        """The tree with `change(node)` in place of every node, operands first; unchanged parts are not copied."""
        return self.fold(lambda node, operands: change(node.with_children(operands)))

    def evaluate(self, kernel: Kernel[T]) -> T:
        """The value of the tree, computed by the operations of `kernel`."""
        return cast(T, self.fold(lambda node, operands: node._lower(kernel, operands)))

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        """The value of this node from those of its operands: the meaning of a connective, in operations of `kernel`."""
        return kernel.leaf(self)

    def with_children(self, children: Sequence[Expr]) -> Expr:
        """A copy of this node with as many other operands; this node itself if they are the present ones."""
        if all(new is old for new, old in zip(children, self.children, strict=True)):
            return self
        return cast(Expr, self._build(self._data(), children, self.span))

    @classmethod
    def _build(cls, data: Sequence[object], children: Sequence[object], span: Span | None) -> Any:
        values, operands = iter(data), iter(children)
        arguments = [
            tuple(operands) if name == "operands" else next(operands if name in _CHILD_FIELDS else values)
            for name in cls.__match_args__
        ]
        return cast("Any", cls)(*arguments, span=span)

    def _data(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__ if name not in _CHILD_FIELDS)

    def _flat(self) -> list[tuple[type[Expr], tuple[object, ...], int]]:
        return [(type(node), node._data(), len(node.children)) for node in self.walk()]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Expr):
            return NotImplemented
        return self is other or (self._hash == other._hash and self._flat() == other._flat())

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle would recurse into the children; a flat list keeps its stack shallow.
        return _rebuild, (self._flat(), [node.span for node in self.walk()])

    def __str__(self) -> str:
        return to_text(self)

    def __repr__(self) -> str:
        return f"parse({to_text(self)!r})"

    def _repr_html_(self) -> str:
        text = to_text(self)
        line = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
        return str(element("div", element("code", line), element("div", draw_tree(self), style="overflow-x:auto")))

    def _repr_svg_(self) -> str:
        return str(draw_tree(self, standalone=True))

    def _spell(self, operands: Sequence[str]) -> str:
        """The text of this node, such as `a AND b`, from the texts of its operands."""
        return f" {self.word} ".join(self._enclosed(operands))

    def _spell_negated(self) -> str | None:
        """The text of the negation of this node if it needs no NOT, as in `age != 0.7`; else `None`."""
        return None

    def _enclosed(self, operands: Sequence[str]) -> list[str]:
        """The texts of the operands, in parentheses where this node's connective requires them."""
        least = [self.level + (place not in self.nests) for place in range(len(operands))]
        rows = zip(operands, self.children, least, strict=True)
        return [text if child.level >= level else f"({text})" for text, child, level in rows]

    def _box(self) -> Box:
        if not self.children:
            return Box(to_text(self), role="leaf")
        note = self.note_of_many if len(self.children) > 2 else ""
        return Box(self.word, note or self.note, self.role)

    def __and__(self, other: object) -> Expr:
        return And((self, check_operand(other, "&")))

    def __or__(self, other: object) -> Expr:
        return Or((self, check_operand(other, "|")))

    def __xor__(self, other: object) -> Expr:
        return Xor((self, check_operand(other, "^")))

    def __rshift__(self, other: object) -> Expr:
        return Implies(self, check_operand(other, ">>"))

    __rand__, __ror__, __rxor__, __rrshift__ = (_reflected(sign) for sign in ("&", "|", "^", ">>"))

    def __invert__(self) -> Expr:
        return Not(self)

    def __mul__(self, factor: float) -> Expr:
        return Weight(factor, self)

    __rmul__ = __mul__

    def implies(self, other: Expr) -> Expr:
        """`self IMPLIES other`, the same as `self >> other`."""
        return Implies(self, other)

    def iff(self, other: Expr) -> Expr:
        """`self IFF other`: both are true or both are false."""
        return Iff((self, other))

    def __bool__(self) -> NoReturn:
        raise ArgumentError(_NO_TRUTH_VALUE)

    def __contains__(self, item: object) -> NoReturn:
        raise ArgumentError("`in` does not work on expressions: write E.hair.is_in([...])")

    def __lt__(self, bound: float) -> Expr:
        text = shorten(str(self))
        raise ArgumentError(f"only an attribute can be compared with a number, not `{text}`", hint=PARENTHESES)

    __le__ = __gt__ = __ge__ = __lt__


def _rebuild(flat: list[tuple[type[Expr], tuple[object, ...], int]], spans: list[Span | None]) -> Expr:
    """The tree that a pickle stores: class, data and number of operands of each node, as `Expr.walk` yields them."""
    nodes: list[Expr] = []
    for (kind, data, arity), span in zip(reversed(flat), reversed(spans), strict=True):
        nodes.append(kind._build(data, [nodes.pop() for _ in range(arity)], span))
    return nodes[0]


def to_text(expr: Expr) -> str:
    """A query as text that parses to an equal tree, with upper-case keywords and the fewest parentheses."""
    return expr.fold(lambda node, texts: node._spell(texts))


def draw_tree(expr: Expr, *, standalone: bool = False) -> Markup:
    """Draw a query's tree as SVG, with operands in the order of the text; above `MOST_BOXES` nodes, their number.

    The SVG has the colours of the page around it; with `standalone` it is for a separate file, with a background and
    fixed colours.
    """
    if expr.size > MOST_BOXES:
        large = Box(f"too large to draw: {expr.size:,} parts", role="root")
        return draw_graph([large], [], title="A large query", standalone=standalone)
    boxes: list[Box] = []
    edges: list[tuple[int, int]] = []
    stack = [(expr, -1)]
    while stack:
        node, parent = stack.pop()
        edges.append((parent, len(boxes)))
        stack += [(child, len(boxes)) for child in reversed(node.children)]
        boxes.append(node._box())
    return draw_graph(boxes, edges[1:], title=f"The tree of the query {to_text(expr)}", standalone=standalone)


def check_operand(value: object, operator: str) -> Expr:
    """Return `value` if it is an expression; an `ArgumentError` names the sign or name `operator` of the connective."""
    if isinstance(value, Expr):
        return value
    hints = {
        bool: "`==` and `!=` compare structure: write .eq(...), .ne(...) or .iff(...); a constant is TRUE or FALSE",
        str: "write E.name for an attribute, or parse(text) for a query",
    }
    hint = hints.get(type(value), PARENTHESES if isinstance(value, (int, float)) else None)
    raise ArgumentError(f"{operator} joins expressions, and {shorten(repr(value))} is not an expression", hint=hint)


def check_operands(kind: str, values: object, least: int) -> tuple[Expr, ...]:
    """The operands of a node as a tuple; an `ArgumentError` if one is no expression, or they are fewer than `least`."""
    if isinstance(values, (str, Expr)) or not isinstance(values, Iterable):
        raise ArgumentError(f"{kind} takes a tuple of expressions, not {shorten(repr(values))}")
    operands = tuple(check_operand(value, kind) for value in values)
    if len(operands) < least:
        raise ArgumentError(f"{kind} needs at least {least} operand{'s' * (least > 1)}, not {len(operands)}")
    return operands


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Not(Expr):
    """`NOT operand`: true where the operand is false."""

    word, level, nests, role = "NOT", 70, (0,), "not"
    operand: Expr

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.negation(operands[0])

    def _spell(self, operands: Sequence[str]) -> str:
        return self.operand._spell_negated() or f"NOT {self._enclosed(operands)[0]}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Weight(Expr):
    """`factor * operand`: true where the operand is true; its energy is `factor` times the energy of the operand.

    `factor` is above 0 and at most `MAX_WEIGHT` (a million).
    """

    level, nests = 70, (0,)
    factor: float
    operand: Expr

    def _check(self) -> None:
        factor = check_positive(self.factor, "a weight")
        if factor > MAX_WEIGHT:
            raise ArgumentError(f"a weight must be at most {MAX_WEIGHT:,}, not {show_number(factor)}")
        self._set(factor=factor)

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.weighted(self.factor, operands[0])

    def _spell(self, operands: Sequence[str]) -> str:
        return f"{show_number(self.factor)} * {self._enclosed(operands)[0]}"

    def _box(self) -> Box:
        return Box(f"{show_number(self.factor)} *", "weight", "weight")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Joined(Expr):
    """Base of associative connectives of two or more operands: `a AND (b AND c)` becomes one AND of three operands."""

    operands: tuple[Expr, ...]

    def _check(self) -> None:
        flat: list[Expr] = []
        for operand in check_operands(type(self).__name__, self.operands, 1):
            flat.extend(operand.operands if isinstance(operand, Joined) and type(operand) is type(self) else (operand,))
        self._set(operands=check_operands(type(self).__name__, flat, 2))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class And(Joined):
    """AND: true where all operands are true."""

    word, level, role, note = "AND", 60, "and", "all hold"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.conjunction(operands)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Xor(Joined):
    """XOR: true where an odd number of operands is true."""

    word, level, note, note_of_many = "XOR", 50, "exactly one holds", "an odd number holds"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.chain(lambda left, right: kernel.choice(left, kernel.negation(right), right), operands)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Or(Joined):
    """OR: true where at least one operand is true."""

    word, level, role, note = "OR", 40, "or", "at least one holds"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.disjunction(operands)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Paired(Expr):
    """Base of connectives that join exactly two operands and are not associative."""

    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Implies(Paired):
    """`left IMPLIES right`: false only where `left` is true and `right` is false."""

    word, level, nests, note = "IMPLIES", 30, (1,), "if the upper, then the lower"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.disjunction([kernel.negation(operands[0]), operands[1]])


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Iff(Joined):
    """IFF: true where both operands are true or both are false; `a IFF b IFF c` means `(a IFF b) IFF c`."""

    word, level, note, note_of_many = "IFF", 20, "both or neither", "folded from the left"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.chain(lambda left, right: kernel.choice(left, right, kernel.negation(right)), operands)


_COUNTED, _UNCOUNTED = ("AT LEAST", "AT MOST", "EXACTLY"), ("ALL", "ANY", "NONE")


def allowed_counts(quantifier: str, count: int | None, size: int) -> range:
    """The numbers of true operands, of `size`, with which a `Cardinality` is true: 2 and 3 for AT LEAST 2 of three."""
    if count is None:
        least, most = {"ALL": (size, size), "ANY": (1, size), "NONE": (0, 0)}[quantifier]
    else:
        least = 0 if quantifier == "AT MOST" else count
        most = size if quantifier == "AT LEAST" else count
    return range(least, min(most, size) + 1)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cardinality(Expr):
    """A condition on how many operands are true, such as `AT LEAST 2 OF (a, b, c)`.

    Attributes:
        quantifier: "AT LEAST", "AT MOST" or "EXACTLY", with a `count`; or "ALL", "ANY" or "NONE".
        count: the number after the quantifier; `None` for "ALL", "ANY" and "NONE".
        operands: one or more expressions.
    """

    quantifier: str
    count: int | None
    operands: tuple[Expr, ...]

    def _check(self) -> None:
        operands, count, quantifier = check_operands(self.head, self.operands, 1), self.count, self.quantifier
        self._set(operands=operands)
        if quantifier in _UNCOUNTED:
            if count is not None:
                raise ArgumentError(f"{quantifier} OF takes no number")
            return
        if quantifier not in _COUNTED:
            *others, last = _COUNTED + _UNCOUNTED
            raise ArgumentError(f"a quantifier is {', '.join(others)} or {last}, not {shorten(repr(quantifier))}")
        whole = check_number(count, f"the number after {quantifier}")
        if not whole.is_integer() or whole < 0:
            raise ArgumentError(f"{quantifier} needs a whole number that is not negative, not {show_number(whole)}")
        # AT MOST 4 OF (a, b) is merely always true, and a program may well write it for a short list.
        if whole > len(operands) and quantifier != "AT MOST":
            number = "1 is" if len(operands) == 1 else f"{len(operands)} are"
            raise ArgumentError(f"{quantifier} {show_number(whole)} can never be true: only {number} given")
        self._set(count=int(whole))

    @property
    def head(self) -> str:
        """The text before the list of operands, such as `AT LEAST 2 OF`."""
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


Operands = Expr | Iterable[Expr]


def at_least(count: int, *operands: Operands) -> Expr:
    """`AT LEAST count OF (...)`: `count` or more operands are true. Operands are expressions or lists of them.

    Raises:
        ArgumentError: `count` is no whole number, is below 0, or is above the number of operands; or an operand is no
            expression, or there is none.
    """
    return Cardinality("AT LEAST", count, _flatten(operands))


def at_most(count: int, *operands: Operands) -> Expr:
    """`AT MOST count OF (...)`: at most `count` operands are true. Operands are expressions or lists of them."""
    return Cardinality("AT MOST", count, _flatten(operands))


def exactly(count: int, *operands: Operands) -> Expr:
    """`EXACTLY count OF (...)`: exactly `count` operands are true. Operands are expressions or lists of them."""
    return Cardinality("EXACTLY", count, _flatten(operands))


def all_of(*operands: Operands) -> Expr:
    """`ALL OF (...)`: every operand is true. Operands are expressions or lists of them."""
    return Cardinality("ALL", None, _flatten(operands))


def any_of(*operands: Operands) -> Expr:
    """`ANY OF (...)`: at least one operand is true. Operands are expressions or lists of them."""
    return Cardinality("ANY", None, _flatten(operands))


def none_of(*operands: Operands) -> Expr:
    """`NONE OF (...)`: no operand is true. Operands are expressions or lists of them."""
    return Cardinality("NONE", None, _flatten(operands))


def _flatten(operands: tuple[Operands, ...]) -> tuple[Expr, ...]:
    # Cardinality refuses what is no expression.
    lists = (each if isinstance(each, Iterable) and not isinstance(each, str) else [each] for each in operands)
    return tuple(chain.from_iterable(lists))


Closed = Literal["both", "left", "right", "none"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Constant(Expr):
    """The constant `TRUE` or `FALSE` in a query."""

    value: bool

    def _spell(self, operands: Sequence[str]) -> str:
        return "TRUE" if self.value else "FALSE"


TRUE = Constant(True)
"""The query that every sample satisfies."""
FALSE = Constant(False)
"""The query that no sample satisfies."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Predicate(Expr):
    """Base of conditions on the attribute `name`.

    `form` is the way of writing the condition: `BARE` for the name alone (`smile`), `CLASSES` for a comparison with
    classes (`hair = black`), `NUMBERS` for one with numbers (`age > 0.6`).
    """

    form: ClassVar[str]
    name: str

    def _check(self) -> None:
        self._set(name=check_name(self.name, "an attribute name"))


def predicates(expr: Expr) -> list[Predicate]:
    """The predicates (conditions on attributes) of a query, in the order of its text."""
    return [node for node in expr.walk() if isinstance(node, Predicate)]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Attribute(Predicate):
    """The condition that a yes/no attribute is true, as in `smile`; also the `E.age` in `E.age > 0.6`."""

    form = BARE

    def _check(self) -> None:
        name = check_name(self.name, "an attribute name")
        self._set(name=Quoted(name) if isinstance(self.name, Quoted) else name)

    def _spell(self, operands: Sequence[str]) -> str:
        return quote(self.name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (str, int, float)):
            instead = f"write .eq({other!r}) for `=` and .ne({other!r}) for `!=`"
            raise ArgumentError(f"`==` compares the structure of expressions: {instead}")
        return Expr.__eq__(self, other)

    def __hash__(self) -> int:
        return self._hash

    def __lt__(self, bound: float) -> Expr:
        return Interval(self.name, None, bound)

    def __le__(self, bound: float) -> Expr:
        return Interval(self.name, None, bound, high_closed=True)

    def __gt__(self, bound: float) -> Expr:
        return Interval(self.name, bound, None)

    def __ge__(self, bound: float) -> Expr:
        return Interval(self.name, bound, None, low_closed=True)

    def eq(self, value: str | float) -> Expr:
        """The condition `hair = black` for a string, or `age = 0.7` for a number.

        A number is equal if it is within the tolerance that the model's vocabulary gives for the attribute.

        Raises:
            ArgumentError: `value` is a truth value, or cannot be a value of an attribute.
        """
        if isinstance(value, bool):
            raise ArgumentError("a yes/no attribute is an expression by itself: write E.smile or ~E.smile")
        return OneOf(self.name, (value,)) if isinstance(value, str) else Near(self.name, value)

    def ne(self, value: str | float) -> Expr:
        """The negation of `eq(value)`: `hair != black` for a string, `age != 0.7` for a number."""
        return self.not_in([value]) if isinstance(value, str) else Not(self.eq(value))

    def is_in(self, values: Iterable[str]) -> Expr:
        """The condition that the attribute has one of `values`, as in `hair IN {black, gray}`."""
        return OneOf(self.name, values)  # type: ignore[arg-type]  # OneOf makes it a tuple

    def not_in(self, values: Iterable[str]) -> Expr:
        """The condition that the attribute has none of `values`, as in `hair NOT IN {black, gray}`."""
        return OneOf(self.name, values, negated=True)  # type: ignore[arg-type]  # OneOf makes it a tuple

    def is_between(self, low: float, high: float, closed: Closed = "both") -> Expr:
        """The condition that the attribute lies between `low` and `high`, as in `age IN [0.2, 0.4]`.

        `closed` says which of the two ends belong to the interval: "both", "left", "right" or "none".
        """
        if closed not in ("both", "left", "right", "none"):
            raise ArgumentError(f'closed is "both", "left", "right" or "none", not {shorten(repr(closed))}')
        return Interval(self.name, low, high, closed in ("both", "left"), closed in ("both", "right"))

    def near(self, value: float, tolerance: float | None = None) -> Expr:
        """The condition that the attribute is within `tolerance` of `value`, as in `age = 0.7 +- 0.05`.

        `None` stands for the tolerance that the model's vocabulary gives for the attribute.
        """
        return Near(self.name, value, tolerance)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OneOf(Predicate):
    """The condition that a categorical attribute has one of `values` (`hair = black`), or none of them if `negated`."""

    form = CLASSES
    values: tuple[str, ...]
    negated: bool = False

    def _check(self) -> None:
        Predicate._check(self)
        if isinstance(self.values, str):
            raise ArgumentError(f"values must be a list of strings, not {shorten(repr(self.values))}")
        values = tuple(dict.fromkeys(check_name(value, "a value") for value in self.values))
        if not values:
            raise ArgumentError("at least one value is needed")
        self._set(values=values, negated=bool(self.negated))

    def _spell(self, operands: Sequence[str]) -> str:
        if len(self.values) == 1:
            return f"{quote(self.name)} {'!=' if self.negated else '='} {quote(self.values[0])}"
        return f"{quote(self.name)} {'NOT IN' if self.negated else 'IN'} {{{', '.join(map(quote, self.values))}}}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Interval(Predicate):
    """The condition that a continuous attribute lies between bounds: `age > 0.6`, `0.2 < age <= 0.4`.

    `low` or `high` is `None` if there is no bound on that side; `low_closed` and `high_closed` say whether the bound
    belongs to the interval (`<=` in place of `<`).
    """

    form = NUMBERS
    low: float | None
    high: float | None
    low_closed: bool = False
    high_closed: bool = False

    def bounds(self, tolerance: float) -> tuple[float, float]:
        """The lower and upper end, infinite without a bound; `tolerance` is there for `Near.bounds` and not used."""
        return -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high

    def _check(self) -> None:
        Predicate._check(self)
        low, high = (None if bound is None else check_number(bound, "a bound") for bound in (self.low, self.high))
        if low is None and high is None:
            raise ArgumentError("an interval needs a bound")
        if low is not None and high is not None and low >= high:
            hint = "write the smaller number first" if low > high else "write `= value +- tolerance` for one value"
            raise ArgumentError(f"the interval from {show_number(low)} to {show_number(high)} is empty", hint=hint)
        closed = bool(self.low_closed) and low is not None, bool(self.high_closed) and high is not None
        self._set(low=low, high=high, low_closed=closed[0], high_closed=closed[1])

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
    """The condition that a continuous attribute is within `tolerance` of `value`: `age = 0.7 +- 0.05`.

    A `tolerance` of `None` stands for the one that the model's vocabulary gives for the attribute; `bind` fills it in.
    """

    form = NUMBERS
    value: float
    tolerance: float | None = None

    def bounds(self, tolerance: float) -> tuple[float, float]:
        """The lower and upper end of the interval around `value`; `tolerance` is used if the condition has none."""
        tolerance = tolerance if self.tolerance is None else self.tolerance
        return self.value - tolerance, self.value + tolerance

    def _check(self) -> None:
        Predicate._check(self)
        self._set(value=check_number(self.value, "a value"))
        if self.tolerance is not None:
            self._set(tolerance=check_positive(self.tolerance, "a tolerance"))

    def _spell_negated(self) -> str:
        return self._spell((), "!=")

    def _spell(self, operands: Sequence[str], sign: str = "=") -> str:
        tolerance = "" if self.tolerance is None else f" +- {show_number(self.tolerance)}"
        return f"{quote(self.name)} {sign} {show_number(self.value)}{tolerance}"


class Namespace:
    """Class of `E`, which gives attributes of any name: `E.smile`, or `E["5 o'clock shadow"]` for any text.

    Names that begin with an underscore need brackets too, because Python looks up such names on every object.
    """

    __slots__ = ()

    # Without these two, Python would try E[0], E[1], ... for `for x in E` and `x in E`.
    __iter__ = None
    __contains__ = None

    def __getattr__(self, name: str) -> Attribute:
        if name.startswith("_"):
            raise AttributeError(f"E has no {name!r}: write E[{name!r}] for an attribute of that name")
        return Attribute(name)

    def __getitem__(self, name: str) -> Attribute:
        return Attribute(Quoted(name) if isinstance(name, str) else name)

    def __repr__(self) -> str:
        return "E"

    def __reduce__(self) -> str:
        return "E"  # the name in this module by which pickle and copy find the one E


class ModelNamespace(Namespace):
    """The attributes of one model, for queries in Python: like `E`, but with names that notebooks complete.

    An unknown name raises `UnknownAttribute`.
    """

    __slots__ = ("_vocabulary",)

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def __getattr__(self, name: str) -> Attribute:
        return Attribute(self._vocabulary.listed(Namespace.__getattr__(self, name).name).name)

    def __getitem__(self, name: str) -> Attribute:
        attribute = Namespace.__getitem__(self, name)
        name = self._vocabulary[attribute.name].name
        return Attribute(name) if name in self._vocabulary else attribute

    def __dir__(self) -> list[str]:
        return [name for name in self._vocabulary if name.isidentifier() and not name.startswith("_")]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._vocabulary)

    def __repr__(self) -> str:
        return f"E of {self._vocabulary.of_model}"

    def __reduce__(self) -> tuple[type[ModelNamespace], tuple[Vocabulary]]:  # type: ignore[override]
        return ModelNamespace, (self._vocabulary,)


E = Namespace()
"""Object with attributes of any name, to write queries in Python: `E.smile & ~E.hat`, `E.age > 0.6`."""
