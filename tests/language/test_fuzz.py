"""Nothing but an EnergyQLError comes out of the parser, whatever goes in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energyql.errors import EnergyQLError, LimitError
from energyql.language import parse
from language.strategies import soups


def check(text: str) -> None:
    try:
        expr = parse(text)
    except EnergyQLError as error:
        assert error.query == text
        assert error.line is not None
        assert error.column is not None
        assert error.render()
    else:
        assert parse(str(expr)) == expr


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    check(text)


@settings(max_examples=150, deadline=None)
@given(soups)
def test_token_soup(text: str) -> None:
    check(text)


@pytest.mark.parametrize(
    "piece", ["(", ")", "NOT ", "!", "a -> ", "a", "1", '"', "\n", "#", "2 * ", "ALL OF (", "{", "ÿ"]
)
def test_a_megabyte_is_refused_at_once(piece: str) -> None:
    with pytest.raises(LimitError, match="the query is longer than 64 KiB"):
        parse(piece * (1_000_000 // len(piece)))


NESTED = ("(", "NOT ", "!", "a -> ", "2 * ", "ALL OF (", "(a AND NOT ", "a OR (", "! 3 * (a ->")


@pytest.mark.parametrize(
    ("piece", "end"),
    [(piece, "a") for piece in NESTED]
    + [pytest.param(piece, "", marks=[pytest.mark.slow] * (piece not in ("(", "NOT "))) for piece in NESTED],
)
def test_deep_nesting_within_the_length_limit(piece: str, end: str) -> None:
    with pytest.raises(EnergyQLError):
        parse(piece * (65_000 // len(piece)) + end)


def test_the_nesting_limit_says_where() -> None:
    with pytest.raises(LimitError) as caught:
        parse("b OR " + "NOT " * 200 + "a")
    assert caught.value.message == "the query is nested more than 200 levels deep"
    assert caught.value.column == 6
    assert parse("(" * 1000 + "a" + ")" * 1000) == parse("a")
