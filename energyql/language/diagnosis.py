"""Errors for texts that do not parse: the mistake, its place, and the way to write it."""

from __future__ import annotations

from collections.abc import Sequence

from lark import Token

from energyql.errors import QuerySyntaxError, Span
from energyql.language.builder import token_span
from energyql.language.lexical import normalize, quote, shorten

CLOSING = {"LPAR": "RPAR", "LBRACE": "RBRACE", "LSQB": "RSQB"}
OPENING = {closing: opening for opening, closing in CLOSING.items()}

_SIGN = {"LPAR": "(", "RPAR": ")", "LBRACE": "{", "RBRACE": "}", "LSQB": "[", "RSQB": "]", "COMMA": ","}
_COMPARISONS = {"LT", "LE", "GT", "GE", "EQ", "NE", "IN"}
_NAMES = {"NAME", "QUOTED"}
_STARTS = {*_NAMES, "NUMBER", "NOT", "LPAR", "TRUE", "FALSE", "AT", "EXACTLY", "ALL", "ANY", "NONE"}

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
    """The brackets that are still open; `tokens` is the beginning of a query, so closed ones match."""
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
    if kind == "STAR" and last.type in _NAMES and last.lower() in {"nan", "inf", "infinity"}:
        return QuerySyntaxError(f"a weight must be a finite number, not {last}", spans=[token_span(last)])
    if kind in _MISPLACED:
        message, hint = _MISPLACED[kind]
        if kind == "STAR" and last.type in _NAMES:
            hint = f"write `2 * {shorten(last)}`"
        return QuerySyntaxError(message, spans=[here], hint=hint)
    if kind in _COMPARISONS:
        return _misplaced_comparison(last, found, here)
    if kind in ("LBRACE", "LSQB") and last.type in _NAMES:
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
    elif last.type in _NAMES:
        message = f"{_show(found)} cannot go on with this comparison"
        hint = f"both signs point the same way: write `0.2 < {shorten(last)} < 0.4`"
    else:
        message = f"only an attribute can stand before {_show(found)}"
        hint = "write `age > 0.6` or `hair = black`"
    return QuerySyntaxError(message, spans=[here], hint=hint)


def _inside_form(before: Sequence[Token], found: Token | None, here: Span, expected: set[str]) -> QuerySyntaxError:
    """The error in the middle of a comparison, a set, an interval or a cardinality."""
    last = before[-1]
    kind = "" if found is None else found.type
    if "STAR" in expected:
        return _lone_number(last, found, here)
    if expected == {"IN"}:  # a NOT b
        advice = "write != for `is not`" if kind == "EQ" else "write AND NOT, OR NOT or NOT IN {...}"
        message = f"an operator is missing between {_show(before[-2])} and NOT"
        return QuerySyntaxError(message, spans=[token_span(last)], hint=advice)
    if "COMMA" in expected and kind in {*_NAMES, "NUMBER"}:
        return _missing("','", last, found, here, None)
    if last.type == "LBRACE" and kind == "RBRACE":
        span = Span(token_span(last).start, here.end)
        return QuerySyntaxError("the set is empty", spans=[span], hint="write at least one value: {black}")
    hint: str | None = _FORM_HINTS.get(last.type)
    if expected <= _NAMES:
        what = "a value" if last.type in ("LBRACE", "COMMA") else "an attribute"
        if kind == "NUMBER" and what == "a value":
            hint = 'write an interval as [0.2, 0.4], and a value that looks like a number as "5"'
        elif kind == "NUMBER":
            hint = "write the attribute between its bounds: `0.2 < age < 0.4`"
    elif "NUMBER" in expected:
        what = "a value" if expected & _NAMES else "a whole number" if hint else "a number"
        if kind in ("TRUE", "FALSE"):
            hint = "a yes/no attribute is a condition by itself: write `smile` or `NOT smile`"
        elif kind in _NAMES and last.type in ("LSQB", "COMMA"):
            hint = "write a set of values as {black, gray}"
        elif kind in _NAMES and last.type in _COMPARISONS:
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
