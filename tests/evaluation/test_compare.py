"""A whole comparison in miniature: numbers, files, and going on after an interruption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from energyql.errors import ArgumentError, DataError
from energyql.evaluation import compare as module
from energyql.evaluation.bench import Bench
from energyql.evaluation.compare import compare, compare_samplers
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.measure import summarize
from energyql.evaluation.methods import Method, read_methods
from energyql.evaluation.report import METHOD_COLUMNS, comparison_page, outcome_cells
from energyql.evaluation.settings import SampleCounts
from energyql.pipeline.queries import check_arguments
from energyql.sampling import SampleResult, SliceSampler
from energyql.sampling.registry import describe_sampler
from evaluation.lively import known_model, lively_model, silent

SIZE = SampleCounts(n=20, prior=200, oracle=60)
NAMES = ["slice", "ode", "paper"]


def run(
    folder: Path, queries: list[str], names: list[str] = NAMES, size: SampleCounts = SIZE, subject: Any = None
) -> Any:
    subject = subject or EvaluatedModel(known_model())
    return compare(Bench(subject, size, folder, silent), queries, read_methods(names))


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedModel:
    return EvaluatedModel(str(lively_model(tmp_path_factory.mktemp("lively"))))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, lively: EvaluatedModel) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("run")
    return folder, run(folder, ["smile AND NOT glasses", "hair = black OR age > 0.6"], subject=lively)


def test_a_comparison_has_every_measurement(measured: tuple[Path, Any]) -> None:
    _, data = measured
    assert [record["query"] for record in data["queries"]] == ["smile AND NOT glasses", "hair = black OR age > 0.6"]
    for record in data["queries"]:
        assert record["oracle"]["size"] >= 60
        assert list(record["samplers"]) == NAMES
        for outcome in record["samplers"].values():
            assert 0 <= outcome["satisfied"] <= 1
            assert 0 < outcome["frequency_error"]["largest"] <= 1
            assert 0 < outcome["frequency_error"]["floor"] < 0.5
            assert set(outcome["diversity"]) == {"z", "w", "features"}
            assert outcome["frechet"]["distance"] > 0
            assert outcome["work"] == outcome["evaluations"] + outcome["gradients"]
            assert sum(outcome["statuses"].values()) == SIZE.n
            assert outcome["seconds"] > 0
        assert record["samplers"]["slice"]["gradients"] == 0


def test_results_page_and_charts_are_written(measured: tuple[Path, Any]) -> None:
    folder, data = measured
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == data
    page = (folder / "results.md").read_text(encoding="utf-8")
    assert "| `slice`, worst |" in page
    assert "`hair = black OR age > 0.6`" in page
    for name in ("satisfied", "frequency-error"):
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.size[0] > 500
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 10
        assert f"({name}.png)" in page


def test_the_public_call(tmp_path: Path) -> None:
    data = compare_samplers(
        ["c"], ["slice", "ode"], model=known_model(), n=12, prior=100, oracle=30, out=tmp_path, progress=False
    )
    assert list(data["summary"]) == ["slice", "ode"]
    assert data["summary"]["slice"]["mean"]["satisfied"] > 0.5
    assert "`c`" in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_exact_samples_have_no_error_beyond_the_floor(tmp_path: Path) -> None:
    certain = EvaluatedModel(known_model(slope=50))
    data = run(tmp_path, ["c", "a OR NOT c"], ["slice"], SampleCounts(n=400, prior=2000, oracle=250), certain)
    for record in data["queries"]:
        outcome = record["samplers"]["slice"]
        assert outcome["frequency_error"]["largest"] < 2.5 * outcome["frequency_error"]["floor"]
        assert outcome["diversity"]["z"]["pairwise"] == pytest.approx(1, abs=0.1)
        assert outcome["diversity_floor"]["z"]["pairwise"] == pytest.approx(1, abs=0.1)
        assert outcome["diversity_floor"]["z"]["duplicates"] < 0.1
        assert outcome["frechet"] is None  # a function has no features
        assert set(outcome["diversity"]) == {"z", "w"}


def test_measurements_reveal_a_sampler_that_does_not_move(tmp_path: Path) -> None:
    class Still:
        def sample(self, energy: Any, z0: Any, *, noise: Any = None, progress: Any = None) -> Any:
            zero = torch.zeros(len(z0), dtype=torch.int64)
            return SampleResult(z0[:1].expand_as(z0).clone(), zero, zero, zero)

    data = run(tmp_path, ["c"], [Method("still", "exact", Still())], SampleCounts(n=50, prior=500, oracle=50))
    outcome = data["queries"][0]["samplers"]["still"]
    assert outcome["satisfied"] in (0, 1)
    assert outcome["frequency_error"]["largest"] > 0.5
    assert outcome["diversity"]["z"] == {"pairwise": 0, "nearest": 0, "duplicates": 1}


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, queries, measured = EvaluatedModel(known_model()), ["a", "b OR c"], []
    measure = module.measure

    def counting(method: Any, subject: Any, reference: Any, *rest: Any, **more: Any) -> Any:
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.append((str(reference.query), method.name))
        return measure(method, subject, reference, *rest, **more)

    monkeypatch.setattr(module, "measure", counting)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, queries, subject=model)
    assert measured == [("a", "slice"), ("a", "ode"), ("a", "paper"), ("b OR c", "slice")]
    measured.clear()
    first = run(tmp_path, queries, subject=model)
    assert measured == [("b OR c", "ode"), ("b OR c", "paper")]
    measured.clear()
    assert run(tmp_path, queries, subject=model) == first
    assert run(tmp_path, ["a"], ["ode"], subject=model)["contenders"] == ["ode"]
    assert not measured
    run(tmp_path, [*queries, "b"], subject=model)  # what was left out in between is not lost
    assert measured == [("b", name) for name in NAMES]
    measured.clear()
    run(tmp_path, ["a"], ["slice@2", "slice"], subject=model)
    assert measured == [("a", "slice@2")]
    measured.clear()
    run(tmp_path, ["a"], ["slice"], replace(SIZE, seed=1), model)
    assert measured == [("a", "slice")]


def test_an_outcome_counts_for_its_sampler_and_semantics() -> None:
    (method,) = read_methods("slice+descent")
    outcome = {"sampler": describe_sampler(method.sampler), "semantics": "exact", "pictures": None}
    outcome = json.loads(json.dumps(outcome))
    assert not module._missing({"samplers": {method.name: outcome}}, method, 0)
    assert module._missing({"samplers": {method.name: outcome}}, replace(method, sampler=SliceSampler()), 0)
    assert module._missing({"samplers": {method.name: outcome | {"semantics": "lace"}}}, method, 0)


def test_an_oracle_that_finds_too_little_leaves_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energyql.evaluation.reference.MOST_LATENTS", 1)
    data = run(tmp_path, ["a AND b AND NOT c"], ["slice"], SampleCounts(n=20, prior=100, oracle=50))
    outcome = data["queries"][0]["samplers"]["slice"]
    assert outcome["frequency_error"] is outcome["diversity"] is outcome["frechet"] is None
    assert outcome_cells(outcome, 20)[2:10] == ["-"] * 8
    assert "-" in comparison_page(data, "Title")


def test_mean_and_worst() -> None:
    def outcome(satisfied: float, largest: float | None) -> dict[str, Any]:
        error = None if largest is None else {"largest": largest, "floor": 0.01}
        spaces = {"z": {"pairwise": 1.0, "nearest": satisfied, "duplicates": 0.2}}
        return {
            "satisfied": satisfied, "heads": 1.0, "frequency_error": error, "diversity": spaces, "frechet": None,
            "diversity_floor": {"z": {"duplicates": 0.01}, "w": {"duplicates": 0.02}},
            "work": 10 * satisfied, "seconds": 1.0, "failures": 0,
        }  # fmt: skip

    records = [{"samplers": {"x": outcome(1.0, 0.02)}}, {"samplers": {"x": outcome(0.5, 0.04)}}]
    result = summarize([*records, {"samplers": {"x": outcome(0.9, None)}}], ["x"])["x"]
    assert result["mean"]["satisfied"] == pytest.approx(0.8)
    assert (result["worst"]["satisfied"], result["worst"]["nearest"], result["worst"]["work"]) == (0.5, 0.5, 10)
    assert (result["mean"]["frequency_error"], result["worst"]["frequency_error"]) == (pytest.approx(0.03), 0.04)
    assert result["mean"]["frechet"] is None
    assert result["worst"]["duplicates_floor"] == 0.02
    assert len(outcome_cells(records[0]["samplers"]["x"], 10)) == len(METHOD_COLUMNS)


def test_queries_from_files_and_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("# mine\nBoth: a AND b\nc\n", encoding="utf-8")
    subject = EvaluatedModel(known_model())
    checked = check_arguments(["a", str(file)], subject.vocabulary, ["lace"])
    assert [(one.title, str(one.expr)) for one in checked] == [("", "a"), ("Both", "a AND b"), ("", "c")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "a AND d"], "unknown|not an attribute"),
        (["missing.txt"], "missing.txt is missing"),
        (["a AND b", "a & b"], "is the same as"),
        (["b", "a AND NOT a"], "query 2"),
    ],
)
def test_wrong_queries(arguments: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        check_arguments(arguments, EvaluatedModel(known_model()).vocabulary, ["exact"])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="cannot write"):
        run(tmp_path / "file", ["a"])


def test_a_comparison_needs_a_query(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="no query"):
        compare_samplers([], ["slice"], out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
