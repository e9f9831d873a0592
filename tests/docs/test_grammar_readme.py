"""Runs every example of grammar/README.md."""

from __future__ import annotations

import re
from typing import Any

import pytest
from markdown import ROOT, blocks, execute

from energyql.errors import EnergyQLError
from energyql.language import bind, parse

PAGE = ROOT / "grammar" / "README.md"
README = PAGE.read_text("utf-8")
BLOCKS = blocks(PAGE)
QUERIES = [line for block in BLOCKS if block.language == "query" for line in block.text.splitlines()]
ERRORS = [block.text for block in BLOCKS if block.language == "error"]


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    """The names that the Python examples define, run one after another as a reader would."""
    names: dict[str, Any] = {}
    for block in BLOCKS:
        if block.language == "python":
            execute(block, names, PAGE)
    return names


def test_no_block_is_left_out() -> None:
    assert {block.language for block in BLOCKS} == {"query", "python", "error"}
    assert README.count("\n```") == 2 * len(BLOCKS)


@pytest.mark.parametrize("line", QUERIES)
def test_queries_print_as_shown(line: str) -> None:
    query, _, printed = line.partition("# prints: ")
    assert str(parse(line)) == (printed or query).strip()


def test_python_runs(namespace: dict[str, Any]) -> None:
    assert "vocabulary" in namespace


@pytest.mark.parametrize("block", ERRORS)
def test_errors_are_as_shown(block: str, namespace: dict[str, Any]) -> None:
    query, expected = block.rstrip("\n").split("\n\n")
    with pytest.raises(EnergyQLError) as caught:
        bind(parse(query), namespace["vocabulary"], query=query)
    assert caught.value.render() == expected


def test_the_python_column_is_right(namespace: dict[str, Any]) -> None:
    exec("from energyql.language import *", namespace)
    rows = re.findall(r"^\| (.*) \| (.*E\..*) \|$", README, re.MULTILINE)
    assert len(rows) >= 9
    for texts, codes in rows:
        queries, expressions = (re.findall(r"`([^`]+)`", cell) for cell in (texts, codes))
        values = [eval(code.replace("\\|", "|"), namespace) for code in expressions if "E." in code]
        for query in queries:
            if not re.fullmatch("[A-Z ]+", query):  # `AT MOST` is short for the form beside it
                assert parse(query) in values, query
