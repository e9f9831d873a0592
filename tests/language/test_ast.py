from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from energyql.errors import ArgumentError
from energyql.language import (
    FALSE,
    TRUE,
    And,
    Attribute,
    Cardinality,
    E,
    Expr,
    Iff,
    Implies,
    Interval,
    Near,
    Not,
    OneOf,
    Or,
    Weight,
    Xor,
    at_least,
    parse,
)


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (E.a & E.b & E.c, "a AND b AND c"),
        (E.a & (E.b & E.c), "a AND b AND c"),
        (E.a | E.b & ~E.c, "a OR b AND NOT c"),
        ((E.a | E.b) & E.c, "(a OR b) AND c"),
        (E.a ^ E.b ^ E.c, "a XOR b XOR c"),
        (E.a >> E.b, "a IMPLIES b"),
        (E.a.implies(E.b >> E.c), "a IMPLIES b IMPLIES c"),
        (E.a.iff(E.b).iff(E.c), "a IFF b IFF c"),
        (2 * E.a, "2 * a"),
        (E.a * 0.5, "0.5 * a"),
        (np.float32(2) * E.a, "2 * a"),
        (E.a * np.int64(3), "3 * a"),
        (E.age > 0.6, "age > 0.6"),
        (E.age >= 1, "age >= 1"),
        (0.6 < E.age, "age > 0.6"),
        (np.float64(0.5) >= E.age, "age <= 0.5"),
        (E.age < np.float64(0.5), "age < 0.5"),
        (E.age.is_between(0.2, 0.4), "0.2 <= age <= 0.4"),
        (E.age.is_between(0.2, 0.4, closed="none"), "0.2 < age < 0.4"),
        (E.age.is_between(0.2, 0.4, closed="left"), "0.2 <= age < 0.4"),
        (E.age.is_between(0.2, 0.4, closed="right"), "0.2 < age <= 0.4"),
        (E.age.near(0.7, 0.05), "age = 0.7 +- 0.05"),
        (E.age.near(0.7), "age = 0.7"),
        (E.age.eq(0.7), "age = 0.7"),
        (E.age.ne(0.7), "age != 0.7"),
        (E.hair.eq("black"), "hair = black"),
        (E.hair.ne("dark brown"), 'hair != "dark brown"'),
        (E.hair.is_in(["gray", "black"]), "hair IN {gray, black}"),
        (E.hair.not_in({"gray"}), "hair != gray"),
        (TRUE & ~FALSE, "TRUE AND NOT FALSE"),
    ],
)
def test_operators_build_what_the_text_builds(expr: Expr, text: str) -> None:
    assert str(expr) == text
    assert parse(text) == expr


COMPARISON = "comparisons need parentheses beside"
STRUCTURE = "`==` and `!=` compare structure: write"
NAME = "write E.name for an attribute, or"
TRUTH = "an expression has no truth value in Python: write & for `and`"


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: E.a and E.b, TRUTH),
        (lambda: E.a or E.b, TRUTH),
        (lambda: not E.a, TRUTH),
        (lambda: 0.2 < E.age < 0.4, TRUTH),
        (lambda: "black" in E.hair, "`in` does not work on expressions: write E.hair.is_in([...])"),  # type: ignore[operator]
        (lambda: E.hair == "black", "`==` compares the structure of expressions: write .eq('black') for `=` and"),
        (lambda: E.age != 0.5, "`==` compares the structure of expressions: write .eq(0.5) for `=` and .ne(0.5)"),
        (lambda: E.age > 0.6 & E.a, f"& joins expressions, and 0.6 is not an expression\n{COMPARISON}"),
        (lambda: (E.a == E.b) & E.c, f"& joins expressions, and False is not an expression\n{STRUCTURE}"),
        (lambda: E.a | "b", f"| joins expressions, and 'b' is not an expression\n{NAME}"),
        (lambda: E.a ^ None, "^ joins expressions, and None is not an expression"),
        (lambda: 2 * E.age > 0.5, f"only an attribute can be compared with a number, not `2 * age`\n{COMPARISON}"),
        (lambda: E.age < E.a, "a bound must be a finite number, not parse('a')"),
        (lambda: E.age < "0.5", "a bound must be a finite number, not '0.5'"),
        (lambda: Interval("age", float("nan"), None), "a bound must be a finite number, not nan"),
        (lambda: E.age < True, "a bound must be a finite number, not True"),
        (lambda: E.age < 10**400, "a bound must be a finite number, not 1000"),
        (lambda: E.a * E.b, "a weight must be a finite number, not parse('b')"),
        (lambda: 0 * E.a, "a weight must be greater than 0, not 0"),
        (lambda: math.inf * E.a, "a weight must be a finite number, not inf"),
        (lambda: "2" * E.a, "a weight must be a finite number, not '2'"),
        (lambda: 1e39 * E.a, "a weight must be at most 1,000,000, not 1e+39"),
        (lambda: E.a.eq(True), "a yes/no attribute is an expression by itself: write E.smile or ~E.smile"),
        (lambda: E.hair.is_in("black"), "values must be a list of strings, not 'black'"),
        (lambda: E.hair.is_in([]), "at least one value is needed"),
        (lambda: E.hair.is_in([1]), "a value must be a string, not 1"),
        (lambda: E.age.near(0.5, 0), "a tolerance must be greater than 0, not 0"),
        (lambda: E.age.is_between(0.4, 0.2), "the interval from 0.4 to 0.2 is empty\nwrite the smaller number first"),
        (
            lambda: E.age.is_between(0.2, 0.4, closed="up"),  # type: ignore[arg-type]
            'closed is "both", "left", "right" or "none", not \'up\'',
        ),
        (Expr, "Expr is the base of the nodes: build a query with E or parse()"),
        (lambda: Attribute(""), "an attribute name must not be empty"),
        (lambda: Attribute("a\nb"), "an attribute name must not hold the control character U+000A"),
        (lambda: Attribute(3), "an attribute name must be a string, not 3"),  # type: ignore[arg-type]
        (lambda: Interval("age", None, None), "an interval needs a bound"),
        (lambda: And((E.a,)), "And needs at least 2 operands, not 1"),
        (lambda: Or(E.a), "Or takes a tuple of expressions, not parse('a')"),  # type: ignore[arg-type]
        (lambda: at_least(2, "a"), f"AT LEAST 2 OF joins expressions, and 'a' is not an expression\n{NAME}"),  # type: ignore[arg-type]
        (lambda: Not("a"), "Not joins expressions, and 'a' is not an expression"),  # type: ignore[arg-type]
        (lambda: Cardinality("SOME", 1, (E.a,)), "a quantifier is AT LEAST, AT MOST, EXACTLY, ALL, ANY or NONE, not"),
        (lambda: Cardinality("ALL", 1, (E.a,)), "ALL OF takes no number"),
        (lambda: Cardinality("AT LEAST", None, (E.a,)), "the number after AT LEAST must be a finite number, not None"),
        (lambda: Cardinality("ANY", None, ()), "ANY OF needs at least 1 operand, not 0"),
    ],
)
def test_mistakes_say_what_to_write(mistake: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        mistake()
    assert str(caught.value).startswith(message)
    assert isinstance(caught.value, (TypeError, ValueError))


def test_equality_is_structural() -> None:
    assert E.a == E.a
    assert E.a != E.b
    assert (E.age > 0.5) == (E.age > 0.5)
    assert (E.age > 0.5) != (E.age >= 0.5)
    assert E.age.near(-1) != E.age.near(-2)  # whose hashes are equal
    assert E.a is not None
    assert E.a != None
    assert {E.a & E.b: 1}[parse("a AND b")] == 1
    assert E.a in [E.b, E.a]
    assert Xor((E.a, E.b)) != Or((E.a, E.b))


@pytest.mark.parametrize("kind", [And, Or, Xor, Iff])
def test_operands_of_the_same_kind_are_flattened(kind: Callable[[tuple[Expr, ...]], Expr]) -> None:
    assert kind((kind((E.a, E.b)), kind((E.c, kind((E.d, E.e)))))) == kind((E.a, E.b, E.c, E.d, E.e))


def test_implications_are_not_flattened() -> None:
    assert Implies(Implies(E.a, E.b), E.c) != Implies(E.a, Implies(E.b, E.c))


def test_fields_are_normalised() -> None:
    assert E["e\u0301"] == E["é"]
    assert OneOf("hair", ["b", "a", "b"]).values == ("b", "a")  # type: ignore[arg-type]
    assert Interval("age", 0, None, True, True) == Interval("age", -0.0, None, True, False)
    assert isinstance(Interval("age", 0, None).low, float)
    assert isinstance(Near("age", 1).value, float)
    assert Weight(2, E.a).factor == 2.0
    assert Cardinality("AT MOST", 2.0, (E.a,)).count == 2  # type: ignore[arg-type]
