"""Grammar rules to nodes: one method for every alias of grammar/query.lark.

Lark calls these methods while it parses, children first, so no pass over the text or tree recurses. Each method takes
all parts that its rule matched, brackets and commas too, which give the span.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, TypeVar

from lark import Token

from energyql.errors import ArgumentError, LimitError, QuerySyntaxError, Span
from energyql.language.cardinality import Cardinality
from energyql.language.connectives import And, Expr, Iff, Implies, Not, Or, Weight, Xor
from energyql.language.lexical import check_name, check_number, check_positive, normalize
from energyql.language.predicates import Attribute, Constant, Interval, Near, OneOf

Part = Token | Expr

_Result = TypeVar("_Result")
_NAMES = ("NAME", "QUOTED")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def text_of(token: Token) -> str:
    """Return the name that a NAME or QUOTED token stands for.

    Raises:
        QuerySyntaxError: it holds an unknown escape or a control character.
    """
    if token.type != "QUOTED":
        return normalize(token)
    for escape in _ESCAPE.finditer(token):
        if escape[1] not in '"\\':
            at = (token.start_pos or 0) + escape.start()
            raise QuerySyntaxError(
                f"unknown escape {escape[0]!r} in a quoted name".replace("\\\\", "\\"),
                spans=[(at, at + 2)],
                hint=r"only \" and \\ are escapes",
            )
    return _checked([token], lambda: check_name(_ESCAPE.sub(r"\1", token[1:-1]), "a quoted name"))


def token_span(token: Token) -> Span:
    """Return the span of a token."""
    start = token.start_pos or 0
    return Span(start, start + len(token))


def _of(kind: type[Expr]) -> Callable[[TreeBuilder, list[Part]], Expr]:
    """A method that makes a connective of its operands."""
    return lambda self, parts: _node(parts, kind._build, (), _exprs(parts))


class TreeBuilder:
    """The methods that Lark calls; they are called from nowhere else."""

    iff, or_, xor, and_ = _of(Iff), _of(Or), _of(Xor), _of(And)
    implies, not_ = _of(Implies), _of(Not)

    def group(self, parts: list[Part]) -> Expr:
        (inner,) = _exprs(parts)
        inner._set("span", _span(parts))  # parentheses are in the span, so that no caret line cuts them off
        return inner

    def weight(self, parts: list[Part]) -> Expr:
        factor = _tokens(parts)[0]
        (operand,) = _exprs(parts)
        return _checked([factor], lambda: Weight(float(factor), operand, span=_span(parts)))

    def constant(self, parts: list[Part]) -> Expr:
        return _node(parts, Constant, _tokens(parts)[0].type == "TRUE")

    def attribute(self, parts: list[Part]) -> Expr:
        return _node(parts, Attribute, text_of(_tokens(parts)[0]))

    def counted(self, parts: list[Part]) -> Expr:
        *words, number = takewhile(lambda token: token.type != "OF", _tokens(parts))
        quantifier = " ".join(word.type for word in words)
        # `Cardinality` makes the float a whole number, or refuses it.
        count: Any = float(number)
        return _checked([number], lambda: Cardinality(quantifier, count, _exprs(parts), span=_span(parts)))

    def quantified(self, parts: list[Part]) -> Expr:
        return _node(parts, Cardinality, _tokens(parts)[0].type, None, _exprs(parts))

    def compare(self, parts: list[Part]) -> Expr:
        tokens = _tokens(parts)
        fields: dict[str, Any] = {"low": None, "high": None}
        for place, token in enumerate(tokens):
            if token.type == "NUMBER":
                sign = tokens[1] if place == 0 else tokens[place - 1]
                bound = "low" if (place == 0) == (sign.type[0] == "L") else "high"
                fields |= {bound: _number(token), f"{bound}_closed": sign.type[1] == "E"}
        (name,) = (token for token in tokens if token.type in _NAMES)
        return _node(parts, partial(Interval, text_of(name), **fields))

    def interval(self, parts: list[Part]) -> Expr:
        tokens = _tokens(parts)
        low, high = (_number(token) for token in tokens if token.type == "NUMBER")
        inside = _node(parts, Interval, text_of(tokens[0]), low, high, True, True)
        return _node(parts, Not, inside) if tokens[1].type == "NOT" else inside

    def near(self, parts: list[Part]) -> Expr:
        first, sign, second, *rest = _tokens(parts)
        name, value = (first, second) if second.type == "NUMBER" else (second, first)
        tolerance = _checked(rest, lambda: check_positive(float(rest[1]), "a tolerance")) if rest else None
        near = _node(parts, Near, text_of(name), _number(value), tolerance)
        return _node(parts, Not, near) if sign.type == "NE" else near

    def one_of(self, parts: list[Part]) -> Expr:
        name, sign, value = _tokens(parts)
        return _node(parts, OneOf, text_of(name), (text_of(value),), sign.type == "NE")

    def one_of_set(self, parts: list[Part]) -> Expr:
        tokens = _tokens(parts)
        name, *values = (text_of(token) for token in tokens if token.type in _NAMES)
        return _node(parts, OneOf, name, tuple(values), tokens[1].type == "NOT")


def _number(token: Token) -> float:
    return _checked([token], lambda: check_number(float(token), "a number"))


def _node(parts: Sequence[Part], kind: Callable[..., Expr], *fields: object) -> Expr:
    return _checked(parts, lambda: kind(*fields, span=_span(parts)))


def _checked(parts: Sequence[Part], make: Callable[[], _Result]) -> _Result:
    """The result of `make`; an error about the values of a node becomes an error of the text, at `parts`."""
    try:
        return make()
    except ArgumentError as error:
        raise QuerySyntaxError(error.message, spans=error.spans or [_span(parts)], hint=error.hint) from None
    except LimitError as error:
        error.spans = error.spans or (_span(parts),)
        raise


def _exprs(parts: Sequence[Part]) -> tuple[Expr, ...]:
    return tuple(part for part in parts if isinstance(part, Expr))


def _tokens(parts: Sequence[Part]) -> list[Token]:
    return [part for part in parts if isinstance(part, Token)]


def _span(parts: Sequence[Part]) -> Span:
    ends = parts[0], parts[-1]
    first, last = (token_span(end) if isinstance(end, Token) else end.span or Span(0, 0) for end in ends)
    return Span(first.start, last.end)
