"""Text to tree, with the grammar in grammar/query.lark."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from lark import Lark, Token, UnexpectedCharacters, UnexpectedToken

from energyql.errors import ArgumentError, EnergyQLError, LimitError
from energyql.language import characters, diagnosis
from energyql.language.ast import Expr
from energyql.language.builder import Builder, token_span
from energyql.language.checks import shorten
from energyql.language.node import MAX_DEPTH

MAX_BYTES = 64 * 1024
"""Longest query text, in bytes of UTF-8."""


def parse(text: str) -> Expr:
    """The tree of a query; attribute names are not checked (`bind` does that).

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
    """A query, given as text or tree, as its tree and the text that the spans of this tree point into.

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
    open_brackets: list[str] = []
    try:
        for token in state.iter_parse():
            tokens.append(token)
            if token.type in diagnosis.CLOSING:
                open_brackets.append(diagnosis.CLOSING[token.type])
                if len(open_brackets) > MAX_DEPTH:
                    raise LimitError(
                        f"the query is nested more than {MAX_DEPTH} levels deep", spans=[token_span(token)]
                    )
            elif open_brackets and open_brackets[-1] == token.type:
                open_brackets.pop()
            elif token.type == "NAME" and not token.isidentifier():
                raise characters.bad_name(token)
        tree = state.feed_eof()
    except UnexpectedCharacters as error:
        raise characters.bad_character(text, error.pos_in_stream or 0) from None
    except UnexpectedToken as error:
        found = None if error.token.type == "$END" else error.token
        before = tokens if found is None else tokens[:-1]
        raise diagnosis.explain(before, found, _acceptable(before)) from None
    if not isinstance(tree, Expr):  # Lark's answer to a rule that the builder has no method for
        raise TypeError("grammar/query.lark has a rule without a method in Builder")
    return tree


def _acceptable(tokens: list[Token]) -> set[str]:
    """The types of token that can follow `tokens`.

    The tables of an LALR parser reduce before they notice a mistake, so the state at the error knows less than the
    state before it; that one is reached again here.
    """
    state = _lark().parse_interactive("")
    for token in tokens:
        state.feed_token(token)
    return set(state.accepts())


def tokenize(text: str) -> list[Token]:
    """The tokens of a piece of a query that is known to parse."""
    state = _lark().parse_interactive(text)
    return list(state.lexer_thread.lex(state.parser_state))


@cache
def _lark() -> Lark:
    """The parser, built at the first query: importing the library does not pay for it."""
    try:
        grammar = files("energyql.grammar").joinpath("query.lark").read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        raise EnergyQLError(
            "the query grammar is not installed",
            hint="in a checkout of the repository, run `pip install -e .` first",
        ) from None
    return Lark(
        grammar,
        parser="lalr",
        lexer="basic",
        propagate_positions=True,
        keep_all_tokens=True,
        maybe_placeholders=False,
        transformer=Builder(),
    )
