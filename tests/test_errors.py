from __future__ import annotations

import copy
import pickle
import re
import traceback
from pathlib import Path

import pytest

from energyql.errors import ArgumentError, DataError, EnergyQLError, ModelError, Span, UnknownAttribute, draw, either

EXAMPLE = UnknownAttribute(
    "'glases' is not an attribute of model 'avatars'",
    query="smile AND NOT (glases OR beerd)",
    spans=[(15, 21), (25, 30)],
    hint="did you mean glasses, beard?",
    names=["glases", "beerd"],
)
DRAWING = """\
'glases' is not an attribute of model 'avatars'
  smile AND NOT (glases OR beerd)
                 ^^^^^^    ^^^^^
did you mean glasses, beard?"""


def test_the_drawing() -> None:
    assert str(EXAMPLE) == DRAWING
    assert EXAMPLE.render() == f"UnknownAttribute: {DRAWING}"
    assert "".join(traceback.format_exception_only(EXAMPLE)) == f"energyql.errors.UnknownAttribute: {DRAWING}\n"


def test_fields() -> None:
    assert (EXAMPLE.line, EXAMPLE.column, EXAMPLE.span) == (1, 16, Span(15, 21))
    assert EXAMPLE.span is not None
    assert EXAMPLE.span.end == 21
    bare = EnergyQLError("something")
    assert (bare.line, bare.column, bare.span, bare.query, bare.hint, str(bare)) == (*[None] * 5, "something")


def test_errors_pickle_and_copy() -> None:
    for again in (pickle.loads(pickle.dumps(EXAMPLE)), copy.copy(EXAMPLE), copy.deepcopy(EXAMPLE)):
        assert type(again) is UnknownAttribute
        assert again.render() == EXAMPLE.render()
        assert again.names == EXAMPLE.names


@pytest.mark.parametrize(
    ("query", "spans", "expected"),
    [
        ("a AND", [(5, 5)], "  a AND\n       ^"),
        ("", [(0, 0)], "\n  ^"),
        ("a AND\n  b OR", [(12, 12)], "  2 |   b OR\n    |       ^"),
        ("a\r\nb", [(3, 4)], "  2 | b\n    | ^"),
        ("a\n(b\n  c)\nd", [(2, 9)], "  2 | (b\n    | ^^\n  3 |   c)\n    |   ^^"),
        ("a\nb\nc\nd", [(0, 1), (6, 7)], "  1 | a\n    | ^\n    | ...\n  4 | d\n    | ^"),
        ("\ta b", [(3, 4)], "      a b\n        ^"),
        ("年齢 b", [(3, 4)], "  年齢 b\n       ^"),
        ("年齢 b", [(0, 2)], "  年齢 b\n  ^^^^"),
        ("e\u0301 b", [(3, 4)], "  e\u0301 b\n    ^"),
        ("e\u0301 b", [(1, 2)], "  e\u0301 b\n   ^"),
        ("a\u200bb c", [(4, 5)], "  a\\u200bb c\n           ^"),
        ("\ud800 c", [(2, 3)], "  \\ud800 c\n         ^"),
        ("ab", [(-3, 1), (1, 99)], "  ab\n  ^^"),
    ],
)
def test_drawings(query: str, spans: list[tuple[int, int]], expected: str) -> None:
    assert draw(query, spans) == expected


@pytest.mark.parametrize("start", [0, 30, 500, 969, 998])
def test_a_long_line_is_cut_around_the_span(start: int) -> None:
    query = "x" * start + "Y" + "x" * (999 - start)
    text, carets = draw(query, [(start, start + 1)]).split("\n")
    assert len(text) <= 2 + 100 + 6
    assert text[carets.index("^")] == "Y"
    assert text.startswith("  ...") == (start > 100)
    assert text.endswith("...") == (start < 900)


def test_a_long_span_is_cut_too() -> None:
    text, carets = draw("x" * 1000, [(0, 1000)]).split("\n")
    assert text == "  " + "x" * 100 + "..."
    assert carets == "  " + "^" * 100


def test_many_lines_are_cut() -> None:
    assert draw("a\n" * 50, [(0, 100)]).count("\n") == 12


def test_many_spans_on_many_lines_are_cut() -> None:
    text = draw("x AND\n" * 10_000, [(6 * number, 6 * number + 1) for number in range(10_000)])
    assert text.count("\n") <= 2 * 12


def test_every_kind_of_error_has_an_exit_code_of_its_own() -> None:
    others = [kind for kind in EnergyQLError.__subclasses__() if kind.__module__ == EnergyQLError.__module__]
    kinds = [EnergyQLError, *others]
    codes = [kind.__dict__.get("exit_code") for kind in kinds]
    assert None not in codes
    assert len(set(codes)) == len(codes)
    page = (Path(__file__).parents[1] / "docs/api/errors.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d+) \| `(\w+)`", page, re.MULTILINE) == [
        (str(kind.exit_code), kind.__name__) for kind in sorted(kinds, key=lambda kind: kind.exit_code)
    ]


def test_a_hint_names_arguments_in_python_and_options_on_the_command_line():
    error = ModelError("no", hint=f"draw with {either('a=1', '--a 1')}, or {either('b', '--b')}")
    assert (error.hint, str(error)) == ("draw with a=1, or b", "no\ndraw with a=1, or b")
    again = pickle.loads(pickle.dumps(error))
    passed_on = ArgumentError(error.message, hint=error.hint)
    for each in (error, again, passed_on, copy.copy(error)):
        assert each.for_command_line() == "no\ndraw with --a 1, or --b"
    quoting = DataError(f"line 3: {error.quoted()}")
    assert str(quoting) == "line 3: ModelError: no\ndraw with a=1, or b"
    assert quoting.for_command_line() == "line 3: ModelError: no\ndraw with --a 1, or --b"
    assert quoting.args == (str(quoting),)


def test_each_form_of_a_long_hint_is_shortened():
    error = ModelError("no", hint="x" * 600 + either("python", "--option"))
    assert len(error.hint) <= 500 and error.hint.endswith("xpython")
    assert len(error.for_command_line()) <= 503 and error.for_command_line().endswith("x--option")
