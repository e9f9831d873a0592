"""Runs the files in tests/golden: a new case needs no Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from energyql.errors import EnergyQLError
from energyql.language import Expr, bind, parse
from energyql.vocabulary import AttributeSpec, Vocabulary

GOLDEN = Path(__file__).parents[1] / "golden"

VOCABULARY = Vocabulary(
    [
        *(AttributeSpec(name, "yes/no") for name in ("smile", "glasses", "beard", "hat", "5 o'clock shadow")),
        AttributeSpec("hair", "categorical", ("black", "dark brown", "gray", "red", "blond")),
        AttributeSpec("age", "continuous", tolerance=0.1),
    ],
    model="avatars",
)


def cases(name: str) -> list[tuple[str, str]]:
    lines = [line for line in (GOLDEN / name).read_text("utf-8").split("\n") if not line.startswith("##")]
    found: list[tuple[str, str]] = []
    for block in "\n".join(lines).strip("\n").split("\n\n"):
        query, _, expected = block.strip("\n").partition("\n")
        found.append((query.replace("\\n", "\n").replace("\\t", "\t"), expected))
    return found


def dump(expr: Expr) -> str:
    parts = [repr(value) for value in expr._data()] + [dump(child) for child in expr.children]
    return f"{type(expr).__name__}({', '.join(parts)})"


@pytest.mark.parametrize(
    "query", [line for line in (GOLDEN / "identity.txt").read_text("utf-8").splitlines() if not line.startswith("##")]
)
def test_identity(query: str) -> None:
    assert str(parse(query)) == query


@pytest.mark.parametrize(("query", "expected"), cases("print.txt"))
def test_print(query: str, expected: str) -> None:
    assert str(parse(query)) == expected
    assert parse(expected) == parse(query)


@pytest.mark.parametrize(("query", "expected"), cases("tree.txt"))
def test_tree(query: str, expected: str) -> None:
    assert dump(parse(query)) == expected


@pytest.mark.parametrize(("query", "expected"), cases("syntax_errors.txt"))
def test_syntax_error(query: str, expected: str) -> None:
    with pytest.raises(EnergyQLError) as caught:
        parse(query)
    assert caught.value.render() == expected


@pytest.mark.parametrize(("query", "expected"), cases("binding_errors.txt"))
def test_binding_error(query: str, expected: str) -> None:
    with pytest.raises(EnergyQLError) as caught:
        bind(parse(query), VOCABULARY, query=query)
    assert caught.value.render() == expected
