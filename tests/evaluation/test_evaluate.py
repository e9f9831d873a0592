from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import short
from PIL import Image

from energyql.editing.settings import PRESETS
from energyql.errors import ArgumentError
from energyql.evaluation import reference
from energyql.evaluation.evaluate import evaluate
from energyql.evaluation.protocols import PROTOCOLS
from energyql.evaluation.report import (
    EDIT_COLUMNS,
    EDIT_NOTE,
    EVALUATION_COLUMNS,
    EVALUATION_NOTE,
    edit_rows,
    evaluation_notes,
    evaluation_rows,
    evaluation_tables,
)
from energyql.sampling import ODESolver
from evaluation.lively import known_model, lively_model, silent

SIZES: Any = {"n": 4, "prior": 100, "oracle": 30, "progress": silent}
NAMES = ("conditional-1", "sequential-5", "logic")


@pytest.fixture(scope="module", autouse=True)
def short_edits() -> Iterator[None]:
    """How well an edit succeeds is not tested here."""
    with pytest.MonkeyPatch.context() as patch:
        short.edits(patch)
        patch.setitem(PRESETS, "lace", replace(PRESETS["lace"], solver=ODESolver("dopri5", rtol=0.1, atol=0.1)))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(lively_model(tmp_path_factory.mktemp("lively")))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, model: str) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:  # few latents are needed, so few are proposed, and few together
        patch.setattr(reference, "MOST_PICTURES", 300)
        patch.setattr(reference, "LATENTS_AT_ONCE", 256)
        patch.setattr(reference, "PICTURES_AT_ONCE", 32)
        return folder, evaluate(NAMES, out=folder, model=model, samplers=["slice", "paper"], edits=2, **SIZES)


def test_samples_are_measured_side_by_side(evaluated: tuple[Path, Any]) -> None:
    _, data = evaluated
    comparison = data["setups"]["conditional-1"]["comparison"]
    assert len(comparison["queries"]) >= 3
    for record in comparison["queries"]:
        for outcome in record["samplers"].values():
            (share,) = outcome["accuracy"].values()
            assert 0 <= share <= 1
            assert outcome["frechet"]["to_prior"] > 0
    lines = evaluation_rows(comparison, data["contenders"], SIZES["n"])
    assert [line[0] for line in lines] == ["slice", "paper"]
    assert all(len(line) == 1 + len(EVALUATION_COLUMNS) for line in lines)
    logic = data["setups"]["logic"]["comparison"]["queries"]
    assert [len(record["samplers"]["slice"]["accuracy"] or ()) for record in logic] == [2, 0, 2, 0, 0]


def test_edits_are_measured_step_by_step(evaluated: tuple[Path, Any]) -> None:
    folder, data = evaluated
    sequence = data["setups"]["sequential-5"]["sequence"]
    assert list(sequence) == ["default", "lace"]
    for preset, result in sequence.items():
        assert len(result["steps"]) == 5
        for one in result["steps"]:
            assert 0 <= one["leak_rate"] <= 1
            assert 0 <= one["identity"] <= 2
            assert one["disentangled"] == one["strength"] - one["leak"]
            assert 0 <= one["all"] <= one["satisfied"] <= 1
        with Image.open(folder / "sequential-5" / f"filmstrip-{preset}.png") as picture:
            assert picture.size[0] > 100
    lines = edit_rows(sequence)
    assert len(lines) == 2 * 6
    assert all(len(line) == 1 + len(EDIT_COLUMNS) for line in lines)


def test_reports(evaluated: tuple[Path, Any]) -> None:
    folder, data = evaluated
    assert json.loads((folder / "evaluation.json").read_text(encoding="utf-8")) == data
    page = (folder / "evaluation.md").read_text(encoding="utf-8")
    for setup in NAMES:
        assert PROTOCOLS[setup].title in page
    linked = [part.split(")")[0] for part in page.split("](")[1:]]
    assert len(linked) > 10
    assert all((folder / name).is_file() for name in linked)
    assert len(evaluation_tables(data)) == 3


def test_a_second_run_measures_nothing_again(
    evaluated: tuple[Path, Any], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = evaluated
    for name in ("evaluate.measure_sequence", "compare.measure"):
        monkeypatch.setattr(f"energyql.evaluation.{name}", lambda *arguments, **more: pytest.fail("measured again"))
    again = evaluate(NAMES, out=folder, model=model, samplers=["slice", "paper"], edits=2, **SIZES)
    assert again["setups"] == data["setups"]


def test_a_protocol_that_a_model_cannot_serve_is_reported_and_the_others_run(tmp_path: Path) -> None:
    data = evaluate(
        ["sequential-5", "conditional-1"], out=tmp_path, model=known_model(), samplers="slice", edits=2, **SIZES
    )
    assert "no query of 5 attributes" in data["setups"]["sequential-5"]["missing"]
    assert "comparison" in data["setups"]["conditional-1"]
    assert "Not run: no query of 5" in (tmp_path / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"protocols": ["conditional"]}, "no protocol 'conditional'"),
        ({"protocols": "conditional"}, "no protocol 'conditional'"),
        ({"protocols": 5}, "no protocol 5"),
        ({"presets": "gentle"}, "no preset 'gentle'"),
        ({"samplers": 5}, "no sampler '5'"),
        ({"presets": ["laze"]}, "no preset 'laze'"),
        ({"protocols": []}, "nothing to evaluate"),
        ({"edits": 0}, "edits must be"),
        ({"prior": 99}, "prior must be a whole number from 100"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=said):
        evaluate(**{"out": tmp_path / "out", "model": known_model()} | wrong)
    assert not (tmp_path / "out").exists()


def test_only_tables_that_are_there_are_explained() -> None:
    def notes(*kinds: str) -> list[str]:
        return evaluation_notes({"setups": {kind: {kind: {}} for kind in kinds}})

    assert notes("comparison", "sequence") == [EVALUATION_NOTE, EDIT_NOTE]
    assert notes("comparison", "missing") == [EVALUATION_NOTE]
    assert notes("sequence") == [EDIT_NOTE]
