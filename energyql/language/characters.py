"""What to say of a character that cannot stand in a query, or not where it stands."""

from __future__ import annotations

import unicodedata

from lark import Token

from energyql.errors import QuerySyntaxError
from energyql.language.builder import token_span
from energyql.language.checks import shorten

_INSTEAD = {
    "'": 'names with blanks or signs stand in double quotes, as in "dark brown"',
    "-": "write NOT for `without`, -> for `implies`, and a number right behind its sign, as in -0.5",
    "+": "write AND for `and`, and a tolerance as `age = 0.7 +- 0.05`",
    ";": "write AND between two conditions, and a comma in a list",
    ":": "write =",
    ".": "a number needs digits, and a name with a dot double quotes",
    "/": "write a weight as a decimal number, as in 0.5 * smile",
    "∧": "write AND",
    "∨": "write OR",
    "⊕": "write XOR",
    "¬": "write NOT",
    "→": "write ->",
    "⇒": "write ->",
    "↔": "write <->",
    "⇔": "write <->",
    "≤": "write <=",
    "≥": "write >=",
    "≠": "write !=",
    "∈": "write IN",
    "×": "write *",
    "·": "write *",
    "−": "write - for a minus sign",
    "–": "write - for a minus sign",
    "“": 'write straight double quotes: "',
    "”": 'write straight double quotes: "',
    "„": 'write straight double quotes: "',
    "‘": 'write straight double quotes: "',
    "’": 'write straight double quotes: "',
}


def bad_character(text: str, at: int) -> QuerySyntaxError:
    """The lexer stopped at a character that begins nothing."""
    character = text[at]
    if character == '"':
        stop = min((text.find(end, at) for end in "\n\r" if end in text[at:]), default=len(text))
        return QuerySyntaxError(
            "a double quote is never closed", spans=[(at, at + 1), (stop, stop)], hint='write " at the end of the name'
        )
    return _unexpected_character(character, at)


def bad_name(token: Token) -> QuerySyntaxError:
    """A NAME token holds a character that no name can hold."""
    start = token.start_pos or 0
    for offset, character in enumerate(token):
        if not (character if offset == 0 else "a" + character).isidentifier():
            return _unexpected_character(character, start + offset)
    return QuerySyntaxError(
        f"'{shorten(token)}' is not a name", spans=[token_span(token)], hint="put it in double quotes"
    )


def _unexpected_character(character: str, at: int) -> QuerySyntaxError:
    code = f"U+{ord(character):04X}"
    name = unicodedata.name(character, "")
    if unicodedata.category(character)[0] in "CZ" or unicodedata.combining(character):
        shown = f"{code} {name}".strip()
    else:
        shown = (
            (f"'{character}'" if character != "'" else '"\'"')
            if character.isascii()
            else f"'{character}' ({code} {name})".replace(" )", ")")
        )
    hint = _INSTEAD.get(character)
    if hint is None and unicodedata.category(character)[0] in "LMNPS":
        hint = "only a name in double quotes can hold it"
    return QuerySyntaxError(f"unexpected character {shown}", spans=[(at, at + 1)], hint=hint)
