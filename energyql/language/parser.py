"""The parser: from the text of a query to its tree, and errors for texts that do not parse.

The grammar is in grammar/query.lark. Lark calls the methods of `TreeBuilder` while it parses, operands first, so that
no function recurses into deep queries. A method takes all tokens and nodes that its grammar rule matched, brackets and
commas too, because the span of the new node includes them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from itertools import takewhile
from typing import Any, TypeVar

from lark import Lark, Token, UnexpectedCharacters, UnexpectedToken

from energyql.errors import ArgumentError, EnergyQLError, LimitError, QuerySyntaxError, Span
from energyql.language.expr import (
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
from energyql.language.lexical import Quoted, check_name, check_number, check_positive, grammar, shorten

Part = Token | Expr

_Result = TypeVar("_Result")
_NAMES = ("NAME", "QUOTED")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def text_of(token: Token) -> str:
    """The name that a NAME or QUOTED token stands for, without double quotes and escapes.

    Raises:
        QuerySyntaxError: a quoted name is empty, or contains an unknown escape or a control character.
    """
    if token.type != "QUOTED":
        return check_name(token)
    for escape in _ESCAPE.finditer(token):
        if escape[1] not in '"\\':
            at = (token.start_pos or 0) + escape.start()
            message = f"unknown escape {escape[0]!r} in a quoted name".replace("\\\\", "\\")
            raise QuerySyntaxError(message, spans=[(at, at + 2)], hint=r"only \" and \\ are escapes")
    return _checked([token], lambda: check_name(_ESCAPE.sub(r"\1", token[1:-1]), "a quoted name"))


def token_span(token: Token) -> Span:
    """The range of a token's characters in the text of the query."""
    start = token.start_pos or 0
    return Span(start, start + len(token))


def _of(kind: type[Expr]) -> Callable[[TreeBuilder, list[Part]], Expr]:
    """Method of `TreeBuilder` that makes a node of class `kind`."""
    return lambda self, parts: _node(parts, kind._build, (), _exprs(parts))


class TreeBuilder:
    """Methods that make the nodes of the tree, each named as its grammar rule; `parts` are what the rule matched."""

    iff, or_, xor, and_ = _of(Iff), _of(Or), _of(Xor), _of(And)
    implies, not_ = _of(Implies), _of(Not)

    def group(self, parts: list[Part]) -> Expr:
        (inner,) = _exprs(parts)
        inner._set(span=_span(parts))  # parentheses are in the span, so that no caret line cuts them off
        return inner

    def weight(self, parts: list[Part]) -> Expr:
        factor = _tokens(parts)[0]
        (operand,) = _exprs(parts)
        return _checked([factor], lambda: Weight(float(factor), operand, span=_span(parts)))

    def constant(self, parts: list[Part]) -> Expr:
        return _node(parts, Constant, _tokens(parts)[0].type == "TRUE")

    def attribute(self, parts: list[Part]) -> Expr:
        token = _tokens(parts)[0]
        return _node(parts, Attribute, Quoted(text_of(token)) if token.type == "QUOTED" else text_of(token))

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
        tokens = _tokens(parts)
        name, *values = (text_of(token) for token in tokens if token.type in _NAMES)
        return _node(parts, OneOf, name, tuple(values), tokens[1].type in ("NE", "NOT"))


def _number(token: Token) -> float:
    return _checked([token], lambda: check_number(float(token), "a number"))


def _node(parts: Sequence[Part], kind: Callable[..., Expr], *fields: object) -> Expr:
    return _checked(parts, lambda: kind(*fields, span=_span(parts)))


def _checked(parts: Sequence[Part], make: Callable[[], _Result]) -> _Result:
    """Result of `make()`, with an `ArgumentError` as a `QuerySyntaxError`; errors without spans get that of `parts`."""
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
_STARTS = {*_NAMES, "NUMBER", "NOT", "LPAR", "TRUE", "FALSE", "AT", "EXACTLY", "ALL", "ANY", "NONE"}
_WHOLE = {"LEAST", "MOST", "EXACTLY"}
_KEYWORD = "a keyword that is the name of an attribute or value stands in double quotes"
_IN = "write `hair IN {black, gray}` or `age IN [0.2, 0.4]`"

# Columns: what is missing, types of the token before, types of the token after, and the hint. `None` stands for any.
# The first row that fits counts. A word of SQL that is no keyword here is written in single quotes in place of a type.
_HINTS: list[tuple[str | None, Collection[str] | None, Collection[str] | None, str]] = [
    ("a weight", None, None, "write `2 * smile`"),
    ("'*'", None, None, "write `2 * smile`, and double quotes around a name that starts with a digit"),
    ("a comparison", None, None, "compare it, as in `age > 0.5`, or use it as a weight, as in `2 * smile`"),
    ("an operand", None, ("LBRACE", "LSQB"), "write ( and ) to group"),
    ("an operator", None, ("STAR",), "a weight stands in front: write `2 * (a OR b)`"),
    ("an operator", None, ("TOLERANCE",), "a tolerance goes with =: write `age = 0.7 +- 0.05`"),
    ("an operator", None, ("COMMA",), "',' stands only inside OF (...), {...} and [...]: write AND or OR here"),
    ("an operator", ("NUMBER",), _COMPARISONS, "write `0.2 < age < 0.4`, or AND between two comparisons"),
    ("an operator", _NAMES, _COMPARISONS, "both signs point the same way: write `0.2 < age < 0.4`"),
    ("an operator", None, _COMPARISONS, "only an attribute can be compared: write `age > 0.6` or `hair = black`"),
    ("an operator", None, ("NOT",), "write AND NOT, OR NOT, NOT IN {...}, or != for `is not`"),
    ("an operator", None, ("'BETWEEN'",), "write `0.2 <= age <= 0.4` or `age IN [0.2, 0.4]`"),
    ("an operator", None, ("'IS'",), "write `hair = black`, and a yes/no attribute as it is: `smile` or `NOT smile`"),
    ("an operator", None, ("'LIKE'",), "write `hair = black` or `hair IN {black, gray}`"),
    ("an operator", None, ("LEAST", "MOST", "OF"), _KEYWORD),
    ("an operator", ("NAME",), ("NAME",), "write AND or OR, or double quotes around a name that holds a blank"),
    ("an operator", None, None, "write AND or OR between them"),
    ("a value", None, ("RBRACE",), "write at least one value: {black}"),
    ("a value", None, ("NUMBER",), 'write an interval as [0.2, 0.4], and a value that looks like a number as "5"'),
    ("an attribute", None, ("NUMBER",), "write the attribute between its bounds: `0.2 < age < 0.4`"),
    (None, None, ("TRUE", "FALSE"), "a yes/no attribute is a condition by itself: write `smile` or `NOT smile`"),
    ("a number", ("LSQB", "COMMA"), _NAMES, "write a set of values as {black, gray}"),
    ("a number", _COMPARISONS, _NAMES, "only numbers have an order; a value is compared with = or !="),
    ("IN", None, None, _IN),
    (None, ("IN",), None, _IN),
    (None, ("AT", *_WHOLE), None, "write `AT LEAST 2 OF (a, b, c)`, or AT MOST or EXACTLY"),
    (None, ("ALL", "ANY", "NONE"), None, "write `ALL OF (a, b)`"),
    (None, ("OF",), None, "write the operands in parentheses: OF (a, b, c)"),
    (None, None, ("AT", *_WHOLE, "ALL", "ANY", "NONE", "OF"), _KEYWORD),
]


def diagnose(before: Sequence[Token], wrong: Token | None, expected: set[str]) -> QuerySyntaxError:
    """Error for the first token of a text that does not fit the grammar.

    Args:
        before: the tokens of the text before the wrong token.
        wrong: the token that does not fit; `None` if the text ends too early.
        expected: the types of token that the grammar allows after `before`.
    """
    if not before and wrong is None:
        return QuerySyntaxError("the query is empty", spans=[(0, 0)], hint="write an attribute, such as `smile`")
    if expected == {"IN"}:  # `a NOT b`: the mistake is before NOT
        return diagnose(before[:-1], before[-1], {"AND"})
    last = before[-1] if before else None
    end = token_span(last).end if last is not None else 0
    here = token_span(wrong) if wrong is not None else Span(end, end)
    stack: list[Token] = []
    for token in before:
        if token.type in CLOSING:
            stack.append(token)
        elif token.type in OPENING:
            stack.pop()
    if wrong is not None and wrong.type in OPENING and not stack:
        return QuerySyntaxError(f"{_show(wrong)} has no matching '{_SIGN[OPENING[wrong.type]]}'", spans=[here])
    if wrong is not None and wrong.type in OPENING and CLOSING[stack[-1].type] != wrong.type:
        message = f"{_show(wrong)} does not match {_show(stack[-1])}"
        return QuerySyntaxError(message, spans=[here, token_span(stack[-1])])
    if wrong is None and stack and expected & OPENING.keys() and not {"LPAR", "NOT"} <= expected:
        message = f"'{_SIGN[CLOSING[stack[-1].type]]}' is missing to close {_show(stack[-1])}"
        return QuerySyntaxError(message, spans=[here, token_span(stack[-1])])
    what = _missing(last, "" if wrong is None else wrong.type, expected)
    sides = " and ".join(_show(token) for token in (last, wrong) if token is not None)
    place = "before" if last is None else "after" if wrong is None else "between"
    rows = (row for row in _HINTS if row[0] in (None, what) and _fits(last, row[1]) and _fits(wrong, row[2]))
    return QuerySyntaxError(f"{what} is missing {place} {sides}", spans=[here], hint=next(rows, [None])[-1])


def _missing(last: Token | None, kind: str, expected: set[str]) -> str:
    """Name of what is missing between `last` and a token of type `kind` ("" at the end), such as "an operator"."""
    if last is None or {"LPAR", "NOT"} <= expected:
        return "an attribute" if kind in _COMPARISONS else "a weight" if kind == "STAR" else "an operand"
    if kind and "AND" in expected:  # every operator between two operands is accepted where AND is
        return "IN" if kind in ("LBRACE", "LSQB") and last.type in _NAMES else "an operator"
    if "STAR" in expected:
        return "'*'" if kind in _STARTS else "a comparison"
    if "COMMA" in expected and kind in (*_NAMES, "NUMBER"):
        return "','"
    if expected <= {*_NAMES}:
        return "a value" if last.type in ("LBRACE", "COMMA") else "an attribute"
    if "NUMBER" in expected:
        return "a value" if expected & {*_NAMES} else "a whole number" if last.type in _WHOLE else "a number"
    return " or ".join(f"'{_SIGN[type_]}'" if type_ in _SIGN else type_ for type_ in sorted(expected))


def _fits(token: Token | None, types: Collection[str] | None) -> bool:
    return types is None or (token is not None and (token.type in types or f"'{token.upper()}'" in types))


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
    """The tree of a query; attribute names are not checked (`bind` does that).

    Args:
        text: a query, such as `"smile AND NOT (glasses OR beard)"`.

    Returns:
        The tree. The `span` of every node is the range of its characters in `text`.

    Raises:
        QuerySyntaxError: the text is not a query.
        LimitError: the text is longer than 64 KiB, or nested more than 200 levels deep; or nested weights multiply to
            more than a million.
        ArgumentError: `text` is not a string.
    """
    if not isinstance(text, str):
        hint = 'write "smile AND NOT hat" or E.smile & ~E.hat'
        raise ArgumentError(f"a query is a string or an expression, not {shorten(repr(text))}", hint=hint)
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise LimitError(f"the query is longer than {MAX_BYTES // 1024} KiB")
    try:
        return _parse(text)
    except EnergyQLError as error:
        error.query = text
        raise


def as_query(query: str | Expr) -> tuple[Expr, str]:
    """The tree of a query, given as text or tree, and the text that its spans refer to; errors are those of `parse`.

    A tree is printed and parsed again: made in Python, it has no spans, and combined from several queries, those of
    several texts.
    """
    text = str(query) if isinstance(query, Expr) else query
    return parse(text), text


def _parse(text: str) -> Expr:
    state = _lark().parse_interactive(text)
    tokens: list[Token] = []
    try:
        for token in state.iter_parse():
            tokens.append(token)
            if token.type == "NAME" and not token.isidentifier():
                names = [token[0], *("a" + letter for letter in token[1:])]  # of one letter, and ending in each other
                first = next(i for i, name in enumerate(names) if not name.isidentifier())
                raise _unexpected_character(text, token_span(token).start + first)
        tree = state.feed_eof()
    except UnexpectedCharacters as error:
        raise _unexpected_character(text, error.pos_in_stream or 0) from None
    except UnexpectedToken as error:
        wrong = None if error.token.type == "$END" else error.token
        before = tokens if wrong is None else tokens[:-1]
        raise diagnose(before, wrong, _acceptable(before)) from None
    assert isinstance(tree, Expr), "grammar/query.lark has a rule without a method in TreeBuilder"
    return tree


def _acceptable(tokens: list[Token]) -> set[str]:
    """Types of token that the grammar allows after `tokens`; after a mistake, a parser knows only some of them."""
    state = _lark().parse_interactive("")
    for token in tokens:
        state.feed_token(token)
    return set(state.accepts())


def tokenize(text: str) -> list[Token]:
    """The tokens of `text`, which may be a piece of a query.

    Raises:
        lark.exceptions.LarkError: a character of the text cannot begin a token.
    """
    state = _lark().parse_interactive(text)
    return list(state.lexer_thread.lex(state.parser_state))


@cache
def _lark() -> Lark:
    """The parser of the grammar, built at the first call, so that importing the library is fast."""
    return Lark(grammar(), parser="lalr", lexer="basic", keep_all_tokens=True, transformer=TreeBuilder())


def _unexpected_character(text: str, at: int) -> QuerySyntaxError:
    """Error for the character `text[at]`, at which no token can begin or which no name can contain."""
    character = text[at]
    if character == '"':
        stop = min((text.find(end, at) for end in "\n\r" if end in text[at:]), default=len(text))
        spans, remedy = [(at, at + 1), (stop, stop)], 'write " at the end of the name'
        return QuerySyntaxError("a double quote is never closed", spans=spans, hint=remedy)
    category, name = unicodedata.category(character), unicodedata.name(character, "")
    shown = f"U+{ord(character):04X} {name}".rstrip()
    if category[0] not in "CZ" and not unicodedata.combining(character):
        quoted = '"\'"' if character == "'" else f"'{character}'"
        shown = quoted if character.isascii() else f"{quoted} ({shown})"
    hint = _INSTEAD.get(character, "only a name in double quotes can hold it" if category[0] in "LMNPS" else None)
    return QuerySyntaxError(f"unexpected character {shown}", spans=[(at, at + 1)], hint=hint)
