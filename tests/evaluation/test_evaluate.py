from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from energyql.errors import ArgumentError
from energyql.evaluation import evaluate as module
from energyql.evaluation.compare import SampleCounts
from energyql.evaluation.evaluate import evaluate, make_plan
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.protocols import PROTOCOLS
from energyql.evaluation.report import EDIT_COLUMNS, EVALUATION_COLUMNS, edit_rows, evaluation_rows, evaluation_tables
from evaluation.lively import known_model, lively_model, silent

SIZE = SampleCounts(n=16, prior=300, oracle=40)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedModel:
    return EvaluatedModel(str(lively_model(tmp_path_factory.mktemp("lively"))))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, subject: EvaluatedModel) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("evaluation")
    plan = make_plan(["conditional-1", "sequential-5", "logic"], ["slice", "paper"], counts=SIZE, edits=3)
    return folder, evaluate(subject, plan, folder, silent)


def test_samples_are_measured_side_by_side(evaluated: tuple[Path, Any]) -> None:
    _, data = evaluated
    comparison = data["setups"]["conditional-1"]["comparison"]
    assert len(comparison["queries"]) >= 3
    for record in comparison["queries"]:
        for outcome in record["samplers"].values():
            (share,) = outcome["accuracy"].values()
            assert 0 <= share <= 1
            assert outcome["frechet"]["to_prior"] > 0
    lines = evaluation_rows(comparison, data["contenders"], SIZE.n)
    assert [line[0] for line in lines] == ["slice", "paper"]
    assert all(len(line) == 1 + len(EVALUATION_COLUMNS) for line in lines)
    logic = data["setups"]["logic"]["comparison"]["queries"]
    assert [len(record["samplers"]["slice"]["accuracy"] or ()) for record in logic] == [2, 0, 2, 0, 0]


def test_edits_are_measured_step_by_step(evaluated: tuple[Path, Any]) -> None:
    folder, data = evaluated
    sequence = data["setups"]["sequential-5"]["sequence"]
    assert list(sequence) == ["default", "lace"]
    for preset, found in sequence.items():
        assert len(found["steps"]) == 5
        for step in found["steps"]:
            assert 0 <= step["leak_rate"] <= 1
            assert 0 <= step["identity"] <= 2
            assert step["disentangled"] == step["strength"] - step["leak"]
            assert 0 <= step["all"] <= step["satisfied"] <= 1
        with Image.open(folder / "sequential-5" / f"filmstrip-{preset}.png") as picture:
            assert picture.size[0] > 100
    lines = edit_rows(sequence)
    assert len(lines) == 2 * 6
    assert all(len(line) == 1 + len(EDIT_COLUMNS) for line in lines)


def test_reports(evaluated: tuple[Path, Any]) -> None:
    folder, data = evaluated
    assert json.loads((folder / "evaluation.json").read_text(encoding="utf-8")) == data
    page = (folder / "evaluation.md").read_text(encoding="utf-8")
    for setup in ("conditional-1", "sequential-5", "logic"):
        assert PROTOCOLS[setup].title in page
    linked = [part.split(")")[0] for part in page.split("](")[1:]]
    assert len(linked) > 10
    assert all((folder / name).is_file() for name in linked)
    assert len(evaluation_tables(data)) == 3


def test_a_second_run_measures_nothing_again(
    evaluated: tuple[Path, Any], subject: EvaluatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = evaluated
    monkeypatch.setattr(module, "measure_sequence", lambda *arguments: pytest.fail("edited again"))
    monkeypatch.setattr("energyql.evaluation.compare.measure", lambda *arguments, **more: pytest.fail("sampled again"))
    plan = make_plan(["conditional-1", "sequential-5", "logic"], ["slice", "paper"], counts=SIZE, edits=3)
    assert evaluate(subject, plan, folder, silent)["setups"] == data["setups"]


def test_what_a_model_cannot_serve_is_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    plan = make_plan(["sequential-5", "conditional-1"], ["slice"], ["query-only"], counts=SIZE, edits=2)
    data = evaluate(EvaluatedModel(known_model()), plan, tmp_path, silent)
    assert "no query of 5 attributes" in data["setups"]["sequential-5"]["missing"]
    assert "comparison" in data["setups"]["conditional-1"]
    assert "Not run: no query of 5" in (tmp_path / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("setups", "presets", "said"),
    [
        (["conditional"], ["lace"], "no protocol 'conditional'"),
        (["logic"], ["laze"], "no preset 'laze'"),
        ([], ["lace"], "nothing to evaluate"),
    ],
)
def test_wrong_names(setups: list[str], presets: list[str], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        make_plan(setups, "slice", presets, counts=SIZE)
