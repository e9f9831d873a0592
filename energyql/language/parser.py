"""The parser: text to tree, by the grammar in grammar/query.lark; and errors for texts that do not parse.

Lark calls these methods while it parses, children first, so no pass over the text or tree recurses. Each method takes
all parts that its rule matched, brackets and commas too, which give the span.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import takewhile
from typing import Any, TypeVar

from lark import Lark, Token, UnexpectedCharacters, UnexpectedToken

from energyql.errors import ArgumentError, EnergyQLError, LimitError, QuerySyntaxError, Span
from energyql.language.expr import (
    MAX_DEPTH,
    And,
    Attribute,
    Cardinality,
    Constant,
    Expr,
    Iff,
    Implies,
    Interval,
    Near,
    Not,
    OneOf,
    Or,
    Weight,
    Xor,
)
from energyql.language.lexical import check_name, check_number, check_positive, grammar, normalize, quote, shorten

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
    """Return a method that makes a connective from the parts of its rule."""
    return lambda self, parts: _node(parts, kind._build, (), _exprs(parts))


class TreeBuilder:
    """The methods that make nodes; only Lark calls them."""

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
    """Return `make()`; an error about the values of a node becomes an error about the text, at `parts`."""
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


CLOSING = {"LPAR": "RPAR", "LBRACE": "RBRACE", "LSQB": "RSQB"}
OPENING = {closing: opening for opening, closing in CLOSING.items()}

_SIGN = {"LPAR": "(", "RPAR": ")", "LBRACE": "{", "RBRACE": "}", "LSQB": "[", "RSQB": "]", "COMMA": ","}
_COMPARISONS = {"LT", "LE", "GT", "GE", "EQ", "NE", "IN"}
_NAME_TOKENS = {"NAME", "QUOTED"}
_STARTS = {*_NAME_TOKENS, "NUMBER", "NOT", "LPAR", "TRUE", "FALSE", "AT", "EXACTLY", "ALL", "ANY", "NONE"}

_SQL = {
    "BETWEEN": "write `0.2 <= age <= 0.4` or `age IN [0.2, 0.4]`",
    "IS": "write `hair = black`, and a yes/no attribute as it is: `smile` or `NOT smile`",
    "LIKE": "write `hair = black` or `hair IN {black, gray}`",
}
_MISPLACED = {  # where an operator should stand
    "STAR": ("a weight stands in front", "write `2 * (a OR b)`"),
    "TOLERANCE": ("a tolerance goes with =", "write `age = 0.7 +- 0.05`"),
    "COMMA": (
        "',' stands only inside OF (...), {...} and [...]",
        "write AND or OR between two conditions, or `ALL OF (a, b)`",
    ),
}
_FORM_HINTS = {
    "IN": "write `hair IN {black, gray}` or `age IN [0.2, 0.4]`",
    "AT": "write `AT LEAST 2 OF (a, b, c)` or `AT MOST 2 OF (a, b, c)`",
    "LEAST": "write `AT LEAST 2 OF (a, b, c)`",
    "MOST": "write `AT MOST 2 OF (a, b, c)`",
    "EXACTLY": "write `EXACTLY 2 OF (a, b, c)`",
    **{word: f"write `{word} OF (a, b)`" for word in ("ALL", "ANY", "NONE")},
    "OF": "write the operands in parentheses: OF (a, b, c)",
}


def diagnose(before: Sequence[Token], found: Token | None, expected: set[str]) -> QuerySyntaxError:
    """Return the error for a token that cannot stand where it stands.

    Args:
        before: the tokens up to there.
        found: the token, or None for the end of the text.
        expected: the types of token that could stand there.
    """
    if not before and found is None:
        return QuerySyntaxError("the query is empty", spans=[(0, 0)], hint="write an attribute, such as `smile`")
    last = before[-1] if before else None
    end = token_span(last).end if last is not None else 0
    here = token_span(found) if found is not None else Span(end, end)
    open_brackets = _open_brackets(before)
    opening = open_brackets[-1] if open_brackets else None
    if found is not None and found.type in OPENING:
        if opening is None:
            return QuerySyntaxError(f"{_show(found)} has no matching '{_SIGN[OPENING[found.type]]}'", spans=[here])
        if CLOSING[opening.type] != found.type:
            message = f"{_show(found)} does not match {_show(opening)}"
            return QuerySyntaxError(message, spans=[here, token_span(opening)])
    if last is None or {"LPAR", "NOT"} <= expected:
        return _missing_operand(last, found, here)
    if found is None and opening is not None and expected & OPENING.keys():
        message = f"'{_SIGN[CLOSING[opening.type]]}' is missing to close {_show(opening)}"
        return QuerySyntaxError(message, spans=[here, token_span(opening)])
    if found is not None and "AND" in expected:  # every operator between two operands is accepted where AND is
        return _missing_operator(last, found, here)
    return _inside_form(before, found, here, expected)


def _open_brackets(tokens: Sequence[Token]) -> list[Token]:
    """Return the open brackets after `tokens`, the beginning of a query, in which closed brackets match."""
    stack: list[Token] = []
    for token in tokens:
        if token.type in CLOSING:
            stack.append(token)
        elif token.type in OPENING:
            stack.pop()
    return stack


def _missing_operand(last: Token | None, found: Token | None, here: Span) -> QuerySyntaxError:
    kind = "" if found is None else found.type
    what, hint = "an operand", None
    if kind in _COMPARISONS:
        what = "an attribute"
    elif kind == "STAR":
        what, hint = "a weight", "write `2 * smile`"
    elif kind in ("LBRACE", "LSQB"):
        hint = "write ( and ) to group"
    elif found is not None and kind in _FORM_HINTS:
        hint = _keyword_hint(found)
    return _missing(what, last, found, here, hint)


def _missing_operator(last: Token, found: Token, here: Span) -> QuerySyntaxError:
    kind = found.type
    if kind == "STAR" and last.type in _NAME_TOKENS and last.lower() in {"nan", "inf", "infinity"}:
        return QuerySyntaxError(f"a weight must be a finite number, not {last}", spans=[token_span(last)])
    if kind in _MISPLACED:
        message, hint = _MISPLACED[kind]
        if kind == "STAR" and last.type in _NAME_TOKENS:
            hint = f"write `2 * {shorten(last)}`"
        return QuerySyntaxError(message, spans=[here], hint=hint)
    if kind in _COMPARISONS:
        return _misplaced_comparison(last, found, here)
    if kind in ("LBRACE", "LSQB") and last.type in _NAME_TOKENS:
        return QuerySyntaxError(f"IN is missing before {_show(found)}", spans=[here], hint=_FORM_HINTS["IN"])
    hint = "write AND or OR between them"
    if kind == "NOT":
        hint = "write AND NOT or OR NOT"
    elif kind in _FORM_HINTS and kind not in _STARTS:
        hint = _keyword_hint(found)
    elif kind == "NAME" and found.upper() in _SQL:
        hint = _SQL[found.upper()]
    elif last.type == "NAME" and last.upper() in _SQL:
        hint = _SQL[last.upper()]
    elif last.type == kind == "NAME":
        hint += ", or double quotes around a name that holds a blank"
    return _missing("an operator", last, found, here, hint)


def _misplaced_comparison(last: Token, found: Token, here: Span) -> QuerySyntaxError:
    if last.type == "NUMBER":
        message = f"{_show(found)} cannot follow a complete comparison"
        hint = "write `0.2 < age < 0.4`, or AND between two comparisons"
    elif last.type in _NAME_TOKENS:
        message = f"{_show(found)} cannot go on with this comparison"
        hint = f"both signs point the same way: write `0.2 < {shorten(last)} < 0.4`"
    else:
        message = f"only an attribute can stand before {_show(found)}"
        hint = "write `age > 0.6` or `hair = black`"
    return QuerySyntaxError(message, spans=[here], hint=hint)


def _inside_form(before: Sequence[Token], found: Token | None, here: Span, expected: set[str]) -> QuerySyntaxError:
    """Return the error for a token in the middle of a comparison, a set, an interval or a cardinality."""
    last = before[-1]
    kind = "" if found is None else found.type
    if "STAR" in expected:
        return _lone_number(last, found, here)
    if expected == {"IN"}:  # a NOT b
        advice = "write != for `is not`" if kind == "EQ" else "write AND NOT, OR NOT or NOT IN {...}"
        message = f"an operator is missing between {_show(before[-2])} and NOT"
        return QuerySyntaxError(message, spans=[token_span(last)], hint=advice)
    if "COMMA" in expected and kind in {*_NAME_TOKENS, "NUMBER"}:
        return _missing("','", last, found, here, None)
    if last.type == "LBRACE" and kind == "RBRACE":
        span = Span(token_span(last).start, here.end)
        return QuerySyntaxError("the set is empty", spans=[span], hint="write at least one value: {black}")
    hint: str | None = _FORM_HINTS.get(last.type)
    if expected <= _NAME_TOKENS:
        what = "a value" if last.type in ("LBRACE", "COMMA") else "an attribute"
        if kind == "NUMBER" and what == "a value":
            hint = 'write an interval as [0.2, 0.4], and a value that looks like a number as "5"'
        elif kind == "NUMBER":
            hint = "write the attribute between its bounds: `0.2 < age < 0.4`"
    elif "NUMBER" in expected:
        what = "a value" if expected & _NAME_TOKENS else "a whole number" if hint else "a number"
        if kind in ("TRUE", "FALSE"):
            hint = "a yes/no attribute is a condition by itself: write `smile` or `NOT smile`"
        elif kind in _NAME_TOKENS and last.type in ("LSQB", "COMMA"):
            hint = "write a set of values as {black, gray}"
        elif kind in _NAME_TOKENS and last.type in _COMPARISONS:
            hint = "only numbers have an order; a value is compared with = or !="
    else:
        what = " or ".join(f"'{_SIGN[type_]}'" if type_ in _SIGN else type_ for type_ in sorted(expected))
    if hint is None and found is not None and kind in _FORM_HINTS:
        hint = _keyword_hint(found)
    return _missing(what, last, found, here, hint)


def _lone_number(last: Token, found: Token | None, here: Span) -> QuerySyntaxError:
    number = token_span(last)
    if found is not None and found.type == "NAME" and number.end == here.start:
        return QuerySyntaxError(
            "a name cannot start with a digit",
            spans=[Span(number.start, here.end)],
            hint=f"put it in double quotes: {quote(normalize(shorten(last + found)))}",
        )
    if found is not None and found.type in _STARTS:
        return _missing("an operator", last, found, here, "write * after a weight: `2 * smile`")
    return QuerySyntaxError(
        f"the number {_show(last)} alone is no condition",
        spans=[number],
        hint="compare it, as in `age > 0.5`, or use it as a weight, as in `2 * smile`",
    )


def _missing(what: str, last: Token | None, found: Token | None, here: Span, hint: str | None) -> QuerySyntaxError:
    sides = " and ".join(_show(token) for token in (last, found) if token is not None)
    place = "before" if last is None else "after" if found is None else "between"
    return QuerySyntaxError(f"{what} is missing {place} {sides}", spans=[here], hint=hint)


def _keyword_hint(token: Token) -> str:
    return f'{token.upper()} is a keyword: an attribute or value of that name stands in double quotes, "{token}"'


def _show(token: Token) -> str:
    if token.type == "NAME":
        return f"'{shorten(token)}'"
    if token.type in ("QUOTED", "NUMBER"):
        return shorten(token)
    return token.upper() if token.isalpha() else f"'{token}'"


MAX_BYTES = 64 * 1024
"""Longest query text, in bytes of UTF-8."""

_WORDS = ["AND", "OR", "XOR", "NOT", "->", "->", "<->", "<->", "<=", ">=", "!=", "IN", "*", "*"]
_INSTEAD = {
    "'": 'names with blanks or signs stand in double quotes, as in "dark brown"',
    "-": "write NOT for `without`, -> for `implies`, -0.5 for a number, and double quotes around a name with a sign",
    "+": "write AND for `and`, and a tolerance as `age = 0.7 +- 0.05`",
    ";": "write AND between two conditions, and a comma in a list",
    ":": "write =, and double quotes around a title with a colon",
    ".": "a number needs digits, and a name with a dot double quotes",
    "/": "write a weight as a decimal number, as in 0.5 * smile",
    **dict.fromkeys("“”„‘’", 'write straight double quotes: "'),
    **dict.fromkeys("−–", "write - for a minus sign"),
    **{sign: f"write {word}" for sign, word in zip("∧∨⊕¬→⇒↔⇔≤≥≠∈×·", _WORDS, strict=True)},
}


def parse(text: str) -> Expr:
    """Return the tree of a query; attribute names are not checked (`bind` does that).

    Args:
        text: a query, such as `"smile AND NOT (glasses OR beard)"`.

    Returns:
        The tree; every node's `span` points into `text`.

    Raises:
        QuerySyntaxError: the text is not a query.
        LimitError: it is longer than 64 KiB or nested more than 200 levels deep.
        ArgumentError: `text` is not a string.
    """
    if not isinstance(text, str):
        hint = "it is a query already" if isinstance(text, Expr) else None
        raise ArgumentError(f"parse takes a string, not {type(text).__name__}", hint=hint)
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise LimitError(f"the query is longer than {MAX_BYTES // 1024} KiB")
    try:
        return _parse(text)
    except EnergyQLError as error:
        error.query = text
        raise


def as_query(query: str | Expr) -> tuple[Expr, str]:
    """Return the tree of a query, given as text or tree, and the text that the spans of the tree point into.

    A tree that was made in Python has no text, and one that was combined from several texts has spans that point into
    different ones, so a tree is printed and parsed again.

    Raises:
        QuerySyntaxError, LimitError: as `parse`.
        ArgumentError: `query` is neither text nor a tree.
    """
    if isinstance(query, Expr):
        query = str(query)
    elif not isinstance(query, str):
        raise ArgumentError(
            f"a query is a string or an expression, not {shorten(repr(query))}",
            hint='write "smile AND NOT hat" or E.smile & ~E.hat',
        )
    return parse(query), query


def _parse(text: str) -> Expr:
    state = _lark().parse_interactive(text)
    tokens: list[Token] = []
    depth = 0
    try:
        for token in state.iter_parse():
            tokens.append(token)
            depth += (token.type in CLOSING) - (token.type in OPENING)
            if depth > MAX_DEPTH:
                raise LimitError(f"the query is nested more than {MAX_DEPTH} levels deep", spans=[token_span(token)])
            if token.type == "NAME" and not token.isidentifier():
                names = [token[0], *("a" + letter for letter in token[1:])]  # of one letter, and ending in each other
                wrong = next(i for i, name in enumerate(names) if not name.isidentifier())
                raise _unexpected_character(text, token_span(token).start + wrong)
        tree = state.feed_eof()
    except UnexpectedCharacters as error:
        raise _unexpected_character(text, error.pos_in_stream or 0) from None
    except UnexpectedToken as error:
        found = None if error.token.type == "$END" else error.token
        before = tokens if found is None else tokens[:-1]
        raise diagnose(before, found, _acceptable(before)) from None
    assert isinstance(tree, Expr), "grammar/query.lark has a rule without a method in TreeBuilder"
    return tree


def _acceptable(tokens: list[Token]) -> set[str]:
    """Return the types of token that can follow `tokens`.

    An LALR parser reduces before it notices a mistake, so the state at the error accepts fewer tokens than the state
    before it, which is reached again here.
    """
    state = _lark().parse_interactive("")
    for token in tokens:
        state.feed_token(token)
    return set(state.accepts())


def tokenize(text: str) -> list[Token]:
    """Return the tokens of a piece of a query that is known to parse."""
    state = _lark().parse_interactive(text)
    return list(state.lexer_thread.lex(state.parser_state))


@cache
def _lark() -> Lark:
    """Return the parser, built at the first query, so that the import of the library is fast."""
    return Lark(
        grammar(),
        parser="lalr",
        lexer="basic",
        propagate_positions=True,
        keep_all_tokens=True,
        maybe_placeholders=False,
        transformer=TreeBuilder(),
    )


def _unexpected_character(text: str, at: int) -> QuerySyntaxError:
    """Return the error for a character at which no token can begin, or that no name can contain."""
    character = text[at]
    if character == '"':
        stop = min((text.find(end, at) for end in "\n\r" if end in text[at:]), default=len(text))
        return QuerySyntaxError(
            "a double quote is never closed", spans=[(at, at + 1), (stop, stop)], hint='write " at the end of the name'
        )
    category, name = unicodedata.category(character), unicodedata.name(character, "")
    shown = f"U+{ord(character):04X} {name}".rstrip()
    if category[0] not in "CZ" and not unicodedata.combining(character):
        quoted = '"\'"' if character == "'" else f"'{character}'"
        shown = quoted if character.isascii() else f"{quoted} ({shown})"
    hint = _INSTEAD.get(character, "only a name in double quotes can hold it" if category[0] in "LMNPS" else None)
    return QuerySyntaxError(f"unexpected character {shown}", spans=[(at, at + 1)], hint=hint)
