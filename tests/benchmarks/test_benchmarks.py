"""The benchmark draws the formulas that it says it draws, and resumes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commanding import command
from evaluation.lively import lively_model, silent

from benchmarks import satisfaction
from benchmarks.common import effective_number, read_take
from benchmarks.formulas import all_relations, attributes_of, depth_of, random_formulas
from benchmarks.satisfaction import markdown, summarize, table_rows
from energyql.errors import ArgumentError, EnergyQLError, TautologyWarning
from energyql.evaluation.judged import EvaluatedModel
from energyql.language import Expr, bind, parse
from energyql.logic.circuit import compile_query
from energyql.logic.satisfiability import satisfied
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary(
    [
        *(AttributeSpec(name, "yes/no") for name in ("smile", "hat", "beard", "glasses")),
        AttributeSpec("hair", "categorical", ("black", "brown", "red", "gray")),
        AttributeSpec("age", "continuous", low=0, high=100),
    ]
)
SETTINGS: dict[str, Any] = {"count": 3, "n": 4, "semantics": ["exact", "lace"], "solver": "default", "seed": 0}


def independent(formula: Expr) -> float:
    """Prevalence where the attributes are independent."""
    random = np.random.default_rng(0)
    values: dict[str, Any] = {name: random.random(4000) < 0.4 for name in ("smile", "hat", "beard", "glasses")}
    values["hair"] = random.choice(["black", "brown", "red", "gray"], 4000)
    values["age"] = 100 * random.random(4000)
    return float(satisfied(formula, values, VOCABULARY).mean())


@pytest.fixture(scope="module")
def formulas() -> list[Expr]:
    return random_formulas(VOCABULARY, independent)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose judge sees something else in every picture."""
    return lively_model(tmp_path_factory.mktemp("model"))


def test_formulas_are_the_same_each_time_and_differ_by_seed(formulas: list[Expr]) -> None:
    assert formulas == random_formulas(VOCABULARY, independent)
    assert formulas != random_formulas(VOCABULARY, independent, seed=1)


def test_formulas_do_not_change_between_versions() -> None:
    drawn = random_formulas(VOCABULARY, lambda formula: 0.5, 3)
    assert [str(formula) for formula in drawn] == [
        "NOT beard AND hair IN {red, black}",
        "smile OR NOT (beard AND NOT hat)",
        "(age < 60 AND hair IN {gray, black} XOR NOT AT LEAST 2 OF (beard, hair = black, age > 70)) AND 20 < age < 80",
    ]


def test_each_depth_has_its_third(formulas: list[Expr]) -> None:
    assert [depth_of(formula) for formula in formulas] == [1] * 8 + [2] * 8 + [3] * 8


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("NOT smile", 0),
        ("smile AND NOT hat", 1),
        ("smile AND NOT (glasses OR beard)", 2),
        ("AT LEAST 2 OF (smile, hat, NOT (beard IMPLIES glasses XOR age > 50))", 3),
    ],
)
def test_depth(text: str, depth: int) -> None:
    assert depth_of(parse(text)) == depth


def test_formulas_ask_for_something_possible_and_use_what_they_name(formulas: list[Expr]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", TautologyWarning)
        circuits = [compile_query(formula, VOCABULARY) for formula in formulas]  # raises for a contradiction
    assert len(set(circuits)) == len(formulas)
    for formula, circuit in zip(formulas, circuits, strict=True):
        assert set(circuit.attributes) == attributes_of(formula)


def test_formulas_are_text_that_parses_to_themselves(formulas: list[Expr]) -> None:
    assert [bind(parse(str(formula)), VOCABULARY) for formula in formulas] == formulas


def test_formulas_use_all_connectives_and_kinds_of_literals(formulas: list[Expr]) -> None:
    text = " ".join(map(str, formulas))
    for word in ("AND", "OR", "NOT", "XOR", "IMPLIES", "AT LEAST", "hair =", "hair IN", "age >", "age <", "< age <"):
        assert word in text


@pytest.mark.parametrize(("least", "most"), [(0.001, 0.6), (0.2, 0.4)])
def test_prevalence_keeps_its_limits(least: float, most: float) -> None:
    drawn = random_formulas(VOCABULARY, independent, 9, least=least, most=most)
    assert all(least <= independent(formula) <= most for formula in drawn)


def test_a_model_that_shows_nothing_is_an_error() -> None:
    with pytest.raises(EnergyQLError, match="prevalence"):
        random_formulas(VOCABULARY, lambda formula: 0.0)


def test_prevalence_is_counted_among_pictures_that_can_be() -> None:
    knowing = Vocabulary(VOCABULARY.values(), relations=["smile IMPLIES hat", "NOT (beard AND hat)"])
    relations = all_relations(knowing)
    assert relations == parse("ALL OF (smile IMPLIES hat, NOT (beard AND hat))")
    assert all_relations(VOCABULARY) == parse("TRUE")


def test_run_resumes_and_recomputes_only_what_is_missing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated, measure = EvaluatedModel(str(model)), satisfaction.measure
    measured: list[str] = []
    most = 3

    def counting(model: EvaluatedModel, formula: Expr, *rest: Any) -> dict[str, Any]:
        if len(measured) == most:
            raise KeyboardInterrupt
        measured.append(str(formula))
        return measure(model, formula, *rest)

    monkeypatch.setattr(satisfaction, "measure", counting)
    with pytest.raises(KeyboardInterrupt):
        satisfaction.run(evaluated, **SETTINGS, prior=200, out=tmp_path, report=silent)
    assert len(json.loads((tmp_path / "results.json").read_text())["formulas"]) == 1

    most = -1
    measured.clear()
    data = satisfaction.run(evaluated, **SETTINGS, prior=200, out=tmp_path, report=silent)
    assert len(data["formulas"]) == 3
    assert len(measured) == 4
    assert data["formulas"][0]["formula"] not in measured
    assert data == json.loads((tmp_path / "results.json").read_text())

    measured.clear()
    again = satisfaction.run(evaluated, **SETTINGS, prior=200, out=tmp_path, report=silent)
    assert again["formulas"] == data["formulas"]
    assert not measured
    satisfaction.run(evaluated, **SETTINGS | {"seed": 1}, prior=200, out=tmp_path, report=silent)
    assert len(measured) == 6


def test_measurement_counts_every_sample(model: Path) -> None:
    evaluated = EvaluatedModel(str(model))
    formula = bind(parse("smile AND NOT glasses"), evaluated.vocabulary)
    outcome = satisfaction.measure(evaluated, formula, "exact", satisfaction.SOLVERS["default"], 5, 0)
    assert sum(outcome["statuses"].values()) == 5
    assert outcome["heads"] * 5 == round(outcome["heads"] * 5)
    assert outcome["judge"] * 5 == round(outcome["judge"] * 5)


def test_mean_and_worst() -> None:
    outcomes = [
        {"judge": 0.5, "heads": 1.0, "evaluations": 20.0, "failures": 0},
        {"judge": 1.0, "heads": 0.9, "evaluations": 40.0, "failures": 3},
    ]
    records = [
        {"formula": f"a | {i}", "prevalence": 0.1 * (i + 1), "semantics": {"exact": outcome}}
        for i, outcome in enumerate(outcomes)
    ]
    summary = summarize(records, ["exact"])
    assert summary["mean"]["exact"] == {"judge": 0.75, "heads": 0.95, "evaluations": 30.0, "failures": 1.5}
    assert summary["worst"]["exact"] == {"judge": 0.5, "heads": 0.9, "evaluations": 40.0, "failures": 3}
    assert table_rows(records, ["exact"])[-2:] == [
        ["mean", "15.0", "75.0", "95.0", "30", "1.5"],
        ["worst", "10.0", "50.0", "90.0", "40", "3"],
    ]
    page = markdown({"settings": {"semantics": ["exact"]}, "machine": {}, "formulas": records})
    assert "| mean | 15.0 | 75.0 | 95.0 | 30 | 1.5 |" in page
    assert "| `a \\| 1` | 20.0 |" in page


@pytest.mark.slow
def test_command_line(model: Path, tmp_path: Path) -> None:
    done = command(satisfaction, "--model", str(model), "--smoke", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "worst" in done.stdout
    data = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [record["depth"] for record in data["formulas"]] == [1, 2, 3]
    assert set(data["summary"]["mean"]) == {"exact", "product", "lace", "jem"}
    assert data["machine"]["torch"]
    assert "| worst |" in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_command_line_refuses_unknown_semantics(tmp_path: Path) -> None:
    done = command(satisfaction, "--semantics", "fuzzy", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "choose from exact, product, lace, jem" in done.stderr


def test_formulas_to_take() -> None:
    assert read_take("2/3")(7) == [1, 4]
    for text in ("0/2", "3/2", "half"):
        with pytest.raises(ArgumentError, match="PLACE/PARTS"):
            read_take(text)


def test_effective_number() -> None:
    exact = np.tile([[1, 0], [0, 1], [1, 0], [0, 1]], (500, 1))
    assert effective_number(exact, exact[:200]) == 200  # more would be the sampled ones themselves
    assert effective_number(exact, np.tile([[1, 0]], (200, 1))) == pytest.approx(1, rel=1e-2)
