from __future__ import annotations

import pytest
from hypothesis import given, settings

from energyql.language import Attribute, E, Expr, parse, quote, to_text
from energyql.language.lexical import keywords
from language.strategies import names, trees


@settings(max_examples=150, deadline=None)
@given(trees)
def test_every_tree_survives_printing_and_parsing(expr: Expr) -> None:
    again = parse(to_text(expr))
    assert again == expr
    assert hash(again) == hash(expr)
    assert to_text(again) == to_text(expr)


@settings(max_examples=100, deadline=None)
@given(names)
def test_every_name_survives_quoting(name: str) -> None:
    assert parse(quote(Attribute(name).name)) == Attribute(name)


@settings(max_examples=100, deadline=None)
@given(trees)
def test_no_pair_of_parentheses_can_be_left_out(expr: Expr) -> None:
    text = to_text(expr)
    if '"' in text or "OF" in text:
        return
    stack: list[int] = []
    for closed, character in enumerate(text):
        if character == "(":
            stack.append(closed)
        elif character == ")":
            opened = stack.pop()
            without = f"{text[:opened]} {text[opened + 1 : closed]} {text[closed + 1 :]}"
            assert parse(without) != expr


@pytest.mark.parametrize("word", sorted(keywords()))
def test_keywords_are_quoted_in_any_case(word: str) -> None:
    for name in (word, word.lower(), word.title()):
        assert quote(name) == f'"{name}"'
        assert str(E[name] & E.smile) == f'"{name}" AND smile'


def test_repr_is_python() -> None:
    expr = E.smile & ~E["5 o'clock shadow"]
    assert repr(expr) == "parse('smile AND NOT \"5 o\\'clock shadow\"')"
    assert eval(repr(expr)) == expr
