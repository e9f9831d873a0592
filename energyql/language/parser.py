"""The parser: text to tree, with the grammar in grammar/query.lark."""

from __future__ import annotations

import unicodedata
from functools import cache

from lark import Lark, Token, UnexpectedCharacters, UnexpectedToken

from energyql.errors import ArgumentError, EnergyQLError, LimitError, QuerySyntaxError
from energyql.language.builder import TreeBuilder, token_span
from energyql.language.connectives import Expr
from energyql.language.diagnosis import CLOSING, OPENING, diagnose
from energyql.language.lexical import grammar, shorten
from energyql.language.node import MAX_DEPTH

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
    """The types of token that can follow `tokens`.

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
    """The parser, built at the first query, so that importing the library stays fast."""
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
    """The error for a character at which no token can begin, or that no name can hold."""
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
