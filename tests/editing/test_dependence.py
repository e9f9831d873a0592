import json

import numpy as np

from energyql.editing.step import Dependence, Leaks
from energyql.language import bind, parse
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary(
    [
        AttributeSpec("smile", "yes/no"),
        AttributeSpec("mouth", "categorical", values=("up", "flat", "down")),
        AttributeSpec("age", "continuous", tolerance=0.1),
    ]
)
BEFORE = {"smile": np.array([False, False]), "mouth": np.array(["down", "flat"]), "age": np.array([0.5, 0.5])}
AFTER = {"smile": np.array([True, True]), "mouth": np.array(["up", "up"]), "age": np.array([0.58, 0.65])}


def dependence(count=200):
    """Smiles have mouths that turn up; ages are drawn alike."""
    ages = np.linspace(0, 1, count)
    draws = {"smile": np.ones(count, bool), "mouth": np.full(count, "up"), "age": ages}
    prior = {
        "smile": np.arange(count) % 2 == 0,
        "mouth": np.array(["up", "down"])[np.arange(count) % 2],
        "age": ages,
    }
    return Dependence(draws, prior, VOCABULARY)


def test_changes_that_are_asked_or_implied_are_no_leaks():
    leaks = Leaks.between(BEFORE, AFTER, dependence(), "smile", "NOT smile", asked=["smile"], kept=[*VOCABULARY])
    assert set(leaks.changed) == set(VOCABULARY)
    assert leaks.kept == ("mouth", "age")
    assert {name: rows.tolist() for name, rows in leaks.leaked.items()} == {
        "mouth": [False, True],
        "age": [False, True],
    }
    assert list(leaks.implied) == ["mouth"]
    assert leaks.by_attribute == {"mouth": 0.5, "age": 0.5}
    assert leaks.rate == 2 / 3  # of mouth in one sample and age in two
    assert leaks.of(0) == ()
    assert leaks.of(1) == ("mouth", "age")
    text = str(leaks)
    assert "66.7% of the other attributes changed (mouth 50.0%, age 50.0%)" in text
    assert "implied: mouth" in text
    assert "superseded: NOT smile" in text
    assert json.loads(json.dumps(leaks.to_dict()))["implied"] == {"mouth": [True, False]}


def test_values_that_a_query_makes_impossible():
    result = dependence()
    assert result.excludes("mouth", np.array(["up", "down", "flat"])).tolist() == [False, True, False]  # flat: too rare
    assert not result.excludes("age", np.array([0.1, 0.9])).any()
    assert str(result.consequences(["smile"])) == "NOT mouth = down"
    assert result.consequences(["smile", "mouth"]) is None
    assert result.excludes_query(bind(parse("NOT smile"), VOCABULARY))
    assert not result.excludes_query(bind(parse("age > 0.5"), VOCABULARY))


def test_too_few_draws_imply_nothing():
    result = dependence(20)
    assert not result.excludes("mouth", np.array(["down"])).any()
    assert not result.excludes_query(bind(parse("NOT smile"), VOCABULARY))
    leaks = Leaks.between(BEFORE, BEFORE, result, "smile", asked=["smile"], kept=[])
    assert leaks.rate == 0
    assert "too few draws of the model satisfy the query" in str(leaks)
