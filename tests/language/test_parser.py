from __future__ import annotations

import re
import subprocess
import sys

import pytest

from energyql.errors import ArgumentError, LimitError, QuerySyntaxError, Span
from energyql.language import E, Not, as_query, parse
from energyql.language.lexical import grammar
from energyql.language.parser import MAX_BYTES, TreeBuilder


def test_spans_point_into_the_text() -> None:
    text = "smile AND\n NOT (glasses OR hair != black) AND 2 * hat"
    expr = parse(text)
    assert [text[slice(*node.span)] for node in expr.walk() if node.span] == [
        text,
        "smile",
        "NOT (glasses OR hair != black)",
        "(glasses OR hair != black)",
        "glasses",
        "hair != black",
        "2 * hat",
        "hat",
    ]


def test_the_span_of_a_cardinality_ends_with_its_parenthesis() -> None:
    text = " AT LEAST 2 OF (a, b , c) "
    assert parse(text).span == Span(1, len(text) - 1)


def test_not_equal_to_a_number_is_a_negation_with_one_span() -> None:
    expr = parse("age != 0.7")
    assert isinstance(expr, Not)
    assert expr.span == expr.operand.span == Span(0, 10)


def test_error_fields() -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        parse("a AND\n  OR b")
    error = caught.value
    assert (error.line, error.column, error.span) == (2, 3, Span(8, 10))
    assert error.query == "a AND\n  OR b"
    assert error.message == "an operand is missing between AND and OR"


def test_length_is_counted_in_bytes() -> None:
    assert parse("a" * MAX_BYTES) == E["a" * MAX_BYTES]
    for text in ("a" * (MAX_BYTES + 1), "é" * (MAX_BYTES // 2 + 1)):
        with pytest.raises(LimitError, match="longer than 64 KiB"):
            parse(text)


def test_byte_order_mark_and_odd_blanks_are_blanks() -> None:
    assert parse("\ufeffa\u00a0AND\r\nb\x0c") == E.a & E.b


@pytest.mark.parametrize("wrong", [None, 3, b"smile"])
def test_only_text_is_parsed(wrong: object) -> None:
    with pytest.raises(ArgumentError, match="a query is a string or an expression, not"):
        parse(wrong)  # type: ignore[arg-type]


def test_names_are_plain_strings() -> None:
    assert type(parse("smile").name) is str  # type: ignore[attr-defined]
    assert type(parse("hair = black").values[0]) is str  # type: ignore[attr-defined]


def test_as_query_gives_spans_to_every_tree() -> None:
    mixed = parse("  a") & E.b & parse("c OR d")
    expr, text = as_query(mixed)
    assert expr == mixed
    assert text == "a AND b AND (c OR d)"
    assert [text[slice(*node.span)] for node in expr.walk() if node.span][1:] == ["a", "b", "(c OR d)", "c", "d"]
    assert as_query(" a")[1] == " a"
    with pytest.raises(ArgumentError, match="a query is a string or an expression, not 3"):
        as_query(3)  # type: ignore[arg-type]


def test_importing_the_language_builds_no_parser_and_imports_no_torch() -> None:
    code = (
        "import sys, energyql.language.parser as p; "
        "assert p._lark.cache_info().currsize == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_rule_of_the_grammar_has_a_method() -> None:
    aliases = set(re.findall(r"-> ([a-z_]+) *(?://.*)?$", grammar(), re.MULTILINE))
    methods = {name for name in vars(TreeBuilder) if not name.startswith("__")}
    assert aliases == methods


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("a ∧ b", "unexpected character '∧' (U+2227 LOGICAL AND)\n", 3),
        ("a\u200bb", "unexpected character U+200B ZERO WIDTH SPACE\n", 2),
        ("a \x00", "unexpected character U+0000\n", 3),
        ("a \ud800", "unexpected character U+D800\n", 3),
        ("\u0301", "unexpected character U+0301 COMBINING ACUTE ACCENT\n", 1),
        ("a²", "unexpected character '²' (U+00B2 SUPERSCRIPT TWO)\n", 2),
        ("٣a", "unexpected character '٣' (U+0663 ARABIC-INDIC DIGIT THREE)\n", 1),
        ("a 😀", "unexpected character '😀' (U+1F600 GRINNING FACE)\n", 3),
        ("a @ b", "unexpected character '@'\n", 3),
        ('a AND "b\nc"', "a double quote is never closed\n", 7),
        (r'"\x"', r"unknown escape '\x' in a quoted name" + "\n", 2),
    ],
)
def test_the_character_is_named(text: str, message: str, column: int) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        parse(text)
    assert f"{caught.value}\n".startswith(message)
    assert caught.value.column == column
