from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from energyql.errors import UnknownAttribute, VocabularyError
from energyql.vocabulary import AttributeSpec, Vocabulary, unknown_name

SPECS = [
    AttributeSpec("smile", "yes/no"),
    AttributeSpec("hair", "categorical", ("black", "gray"), description="colour of the hair"),
    AttributeSpec("age", "continuous", low=0, high=100, tolerance=5),
]
VOCABULARY = Vocabulary(SPECS, model="avatars")


def test_json_round_trip() -> None:
    data = json.loads(json.dumps(VOCABULARY.to_dict()))
    assert data == {
        "version": 1,
        "model": "avatars",
        "attributes": [
            {"name": "smile", "kind": "yes/no"},
            {
                "name": "hair",
                "kind": "categorical",
                "values": ["black", "gray"],
                "description": "colour of the hair",
            },
            {"name": "age", "kind": "continuous", "low": 0.0, "high": 100.0, "tolerance": 5.0},
        ],
    }
    assert Vocabulary.from_dict(data) == VOCABULARY
    assert hash(Vocabulary.from_dict(data)) == hash(VOCABULARY)
    assert pickle.loads(pickle.dumps(VOCABULARY)) == VOCABULARY


def test_order_and_model_count() -> None:
    assert Vocabulary(SPECS[::-1], model="avatars") != VOCABULARY
    assert Vocabulary(SPECS, model="faces") != VOCABULARY
    assert VOCABULARY != dict(VOCABULARY)


def test_repr_is_a_table() -> None:
    assert repr(VOCABULARY) == (
        "Vocabulary of model 'avatars':\n"
        "  smile  yes/no\n"
        "  hair   black, gray  # colour of the hair\n"
        "  age    0 to 100, = means +- 5"
    )


@pytest.mark.parametrize(
    ("name", "match"),
    [("smyle", "smile"), ("SMILE", "smile"), ("hairs", "hair"), ("xyzzy", None), ("", None), ("a_g_e", "age")],
)
def test_suggestions(name: str, match: str | None) -> None:
    assert VOCABULARY.suggest(name) == match


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "the name of an attribute must not be empty"),
        ({"name": 3}, "the name of an attribute must be a string, not 3"),
        ({"name": "a\nb"}, "must not hold the control character U\\+000A"),
        ({"kind": "number"}, "kind is one of yes/no, categorical, continuous, not 'number'"),
        ({"kind": "categorical"}, "attribute 'x': a categorical attribute needs at least two values, not 0"),
        ({"kind": "categorical", "values": ("a",)}, "needs at least two values, not 1"),
        ({"kind": "categorical", "values": ("a", "b", "a")}, "value 'a' is listed twice"),
        ({"kind": "categorical", "values": ("é", "e\u0301")}, "value 'é' is listed twice"),
        ({"kind": "categorical", "values": "ab"}, "values must be a list of strings, not 'ab'"),
        ({"kind": "categorical", "values": (1, 2)}, "a value must be a string, not 1"),
        ({"values": ("a", "b")}, "attribute 'x': a yes/no attribute has no values"),
        ({"kind": "continuous", "low": 1}, "low must be below high, not 1 and 1"),
        ({"kind": "continuous", "high": float("nan")}, "high must be a finite number, not nan"),
        ({"kind": "continuous", "low": "0"}, "low must be a finite number, not '0'"),
        ({"kind": "continuous", "tolerance": 0}, "tolerance must be greater than 0, not 0"),
        ({"description": None}, "description must be a string, not None"),
        ({"description": "a\x1b[31m"}, "attribute 'x': description must not hold the control character U\\+001B"),
        ({"description": "a\x9b31m"}, "description must not hold the control character U\\+009B"),
    ],
)
def test_wrong_specs(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        AttributeSpec(**{"name": "x", "kind": "yes/no", **fields})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "a vocabulary must be an object, not list"),
        ({}, "vocabulary version None is unknown; this energyql reads 1"),
        ({"version": 2, "attributes": []}, "version 2 is unknown; this energyql reads 1"),
        ({"version": 1}, "needs a list of attributes"),
        ({"version": 1, "attributes": [3]}, "an attribute must be an object with name and kind, not 3"),
        ({"version": 1, "attributes": [{"name": "a"}]}, "an attribute has no kind"),
        ({"version": 1, "attributes": [{"name": "a", "kind": "yes/no", "size": 3}]}, "'a': unknown field size"),
        ({"version": 1, "attributes": [], "model": 3}, "the model of a vocabulary must be a string, not 3"),
        ({"version": 1, "attributes": [], "model": "\x1b[2J"}, "model of a vocabulary must not hold the control char"),
        ({"version": 1, "attributes": [{"name": "a", "kind": "yes/no"}] * 2}, "attribute 'a' is defined twice"),
    ],
)
def test_wrong_json(data: Any, message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.from_dict(data)


def test_an_unknown_attribute() -> None:
    known = Vocabulary([AttributeSpec("smile", "yes/no")], model="faces")
    with pytest.raises(UnknownAttribute, match="'smlie' is not an attribute of model 'faces'\ndid you mean smile?"):
        known["smlie"]
    assert known.get("smlie") is None
    assert "smlie" not in known
    long = unknown_name("n" * 99, ["a" * 500], "is missing")
    assert str(long) == f"'{'n' * 37}...' is missing\nattributes: {'a' * 197}..."
