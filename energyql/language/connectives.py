"""Expressions and what joins them: NOT, AND, OR, XOR, IMPLIES, IFF and weights.

The class of a connective holds its keyword, precedence, lowering and drawing: all that is its own, but for the grammar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NoReturn

from energyql.errors import ArgumentError, Span
from energyql.language.lexical import check_weight, shorten, show_number
from energyql.language.node import Kernel, Node, T, to_text
from energyql.render.graph import Box, Role

_NO_TRUTH_VALUE = (
    "an expression has no truth value in Python: write & for `and`, | for `or`, ~ for `not`, "
    ".is_in([...]) for `in`, and .is_between(low, high) for `low < x < high`"
)
ATOM = 80
"""Precedence of everything that needs no parentheses: predicates, constants, counts."""
PARENTHESES = "comparisons need parentheses beside & | ^ >> *: write (E.age > 0.6) & E.smile"


def _reflected(operator: str) -> Callable[[Expr, object], Expr]:
    """A method for `other & expression`, where `other` is no expression: an error."""
    return lambda self, other: check_operand(other, operator)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Expr(Node["Expr"]):
    """Base of every node.

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
    """The same for three operands and more, where that differs."""

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
        """`self IMPLIES other`, the same as `self >> other`."""
        return Implies(self, check_operand(other, "implies"))

    def iff(self, other: Expr) -> Expr:
        """`self IFF other`: both are true or both are false."""
        return Iff((self, check_operand(other, "iff")))

    @property
    def _binding(self) -> int:
        return self.level

    def _spell(self, operands: Sequence[str]) -> str:
        return f" {self.word} ".join(self._enclosed(operands))

    def _spell_negated(self) -> str | None:
        """The text of NOT this node, if there is a shorter one than NOT and its text: `age != 0.7`."""
        return None

    def _box(self) -> Box:
        if not self.children:
            return Box(to_text(self), role="leaf")
        note = self.note_of_many if len(self.children) > 2 else ""
        return Box(self.word, note or self.note, self.role)

    def _enclosed(self, operands: Sequence[str]) -> list[str]:
        """The texts of the operands, in parentheses where they bind no tighter than this node."""
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
    """Return the operands of a node, at least `least`; `kind` names the node.

    Raises:
        ArgumentError: they are no iterable of expressions, or too few.
    """
    if isinstance(values, (str, Node)) or not isinstance(values, Iterable):
        raise ArgumentError(f"{kind} takes a tuple of expressions, not {shorten(repr(values))}")
    found = tuple(check_operand(value, kind) for value in values)
    if len(found) < least:
        raise ArgumentError(f"{kind} needs at least {least} operand{'s' * (least > 1)}, not {len(found)}")
    return found


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
    """Two or more operands under an associative operator; an operand of the same kind gives its own operands."""

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
