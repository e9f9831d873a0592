from __future__ import annotations

import numpy as np
import pytest

from energyql.evaluation.accuracy import conditional_accuracy
from energyql.language import bind, parse
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary(
    [
        AttributeSpec("smile", "yes/no"),
        AttributeSpec("hair", "categorical", ("black", "red")),
        AttributeSpec("age", "continuous", low=0, high=100),
    ]
)
VALUES = {
    "smile": np.array([True, True, False, True]),
    "hair": np.array(["red", "black", "black", "black"]),
    "age": np.array([50.0, 60.0, 40.0, 90.0]),
}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("smile", {"smile": 0.75}),
        ("NOT smile", {"NOT smile": 0.25}),
        ("smile AND hair = red", {"smile": 0.75, "hair = red": 0.25}),
        ("2 * smile AND age > 45", {"smile": 0.75, "age > 45": 0.75}),
        ("age = 50 +- 1", {"age = 50 +- 1": 1 - (0 + 10 + 10 + 40) / 4 / 100}),
    ],
)
def test_conditions_of_a_conjunction(query: str, expected: dict[str, float]) -> None:
    found = conditional_accuracy(bind(parse(query), VOCABULARY), VALUES, VOCABULARY)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("query", ["smile OR age > 3", "smile AND (smile OR age > 3)", "NOT (smile AND age > 3)"])
def test_other_queries_have_none(query: str) -> None:
    assert conditional_accuracy(bind(parse(query), VOCABULARY), VALUES, VOCABULARY) is None
