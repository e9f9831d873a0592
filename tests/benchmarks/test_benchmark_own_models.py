"""The benchmark of a user's own generator: what it counts, what the tool gets to know, and that it resumes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from commanding import command
from holes import Stains

from benchmarks import hidden_looks, own_models
from benchmarks.own_models import Subject, Truth, drawn_for_one, mean_area, mislabelled, summarize, verify_option
from energyql.attributes.judge import Convolutions, Judge
from energyql.attributes.predictions import Categorical, YesNo
from energyql.errors import ArgumentError
from energyql.language import bind, parse
from energyql.training import teacher
from energyql.vocabulary import AttributeSpec, Vocabulary

pytestmark = pytest.mark.filterwarnings("ignore:there are few labels")

GENERATOR, HIDDEN = "holes:Stains", "test_benchmark_own_models:stains"


def stains(images: torch.Tensor) -> dict[str, Any]:
    """What pictures of `Stains` show."""
    squares = images[:, :, ::4, ::4].flatten(1).T
    middle = images.mean((1, 2, 3))
    return {
        "first": squares[0] > 0.3,
        "second": squares[3] > 0.3,
        "third": squares[6] > 0.5,
        "fourth": squares[9] > 0.8,
        "tone": ["dark" if x < -0.1 else "light" if x > 0.1 else "even" for x in middle.tolist()],
    }


def signs(w: torch.Tensor) -> dict[str, Any]:
    """What latents of `Stains` encode."""
    colours = w @ Stains().mix
    tree = ["oak" if x > 0 else "pine" for x in colours[:, 6].tolist()]
    return {"hat": colours[:, 0] > 0, "boat": colours[:, 3] > 0.5, "tree": tree}


def truth_of(**values: Any) -> Truth:
    specs = {
        "a": AttributeSpec("a", "yes/no"),
        "b": AttributeSpec("b", "yes/no"),
        "hair": AttributeSpec("hair", "categorical", ("black", "red")),
    }
    return Truth(
        Vocabulary([specs[name] for name in values]), {name: np.asarray(cells) for name, cells in values.items()}
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher labels few further pictures."""
    monkeypatch.setattr(teacher, "FURTHER", 60)


def run(out: Path, *more: str) -> dict[str, Any]:
    done = command(own_models, "--smoke", "--generator", GENERATOR, "--hidden", HIDDEN, "--out", str(out), *more)
    assert done.returncode == 0, done.stderr
    data: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return data


@pytest.mark.slow
def test_it_counts_by_the_function_and_resumes(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = run(tmp_path, "--taught", "table,function")
    assert set(data["runs"]) == {"table-200/off, weak heads allowed", "function-200/off, weak heads allowed"}
    for key, records in data["runs"].items():
        assert len(records) == 3
        for record in records.values():
            assert 0.02 <= record["prevalence"] <= 0.4
            assert record["kept"] == 8
            assert record["drawn"] == 1
            assert record["ticks"] is None or 0 <= record["ticks"] <= 1
            if key.startswith("function") and record["ticks"] is not None:
                assert record["ticks"] == 1  # the judge is the hidden function
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert set(data["trainings"]) == {"table-200", "function-200"}
    assert f"| table-200 | {data['trainings']['table-200']['area']:.3f} |" in page
    assert data["trainings"]["function-200"]["area"] is None
    assert all(training["seconds"] > 0 for training in data["trainings"].values())
    assert all(f"| {formula} |" in page for formula in data["runs"]["table-200/off, weak heads allowed"])

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("it was measured before")

    monkeypatch.setattr(own_models, "measure", fail)
    monkeypatch.setattr(own_models, "train_attributes", fail)
    again = run(tmp_path, "--taught", "table,function")
    assert (again["runs"], again["trainings"]) == (data["runs"], data["trainings"])


@pytest.mark.parametrize(("taught", "wrong"), [("hand", 0), ("hand-wrong", 20)])
def test_the_tool_gets_labels_and_not_the_function(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taught: str, wrong: int
) -> None:
    given = []
    train = own_models.train_attributes

    def watched(generator: object, labels: Any, *arguments: Any, **options: Any) -> Any:
        given.append((labels, options["judge"]))
        return train(generator, labels, *arguments, **options)

    monkeypatch.setattr(own_models, "train_attributes", watched)
    run(tmp_path, "--taught", taught)
    ((table, chosen),) = given
    assert chosen == "train"
    rows = torch.arange(len(table.index))
    assert torch.equal(table.index, rows)
    right = Subject(GENERATOR, HIDDEN, None, 400, tmp_path).labels(7, 200, lambda done: None)
    for name, cells in table.columns.items():
        assert sum(map(lambda mine, own: mine != own, cells, right[name])) == wrong


def test_a_hidden_function_of_latents_gets_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(GENERATOR, "latents:test_benchmark_own_models:signs", None, 400, tmp_path)
    monkeypatch.setattr(subject.network, "synthesize", lambda w: pytest.fail("it drew a picture"))
    w = subject.prior(7).w(torch.arange(30))
    labels, values = subject.labels(7, 30, lambda done: None), subject.read(w, lambda done: None)
    assert {name: list(cells) for name, cells in labels.items()} == {k: list(x) for k, x in values.items()}
    assert values["hat"].tolist() == signs(w)["hat"].tolist()


def test_a_hidden_function_of_latents_labels_and_counts(small: None, tmp_path: Path) -> None:
    data = run(tmp_path, "--hidden", "latents:test_benchmark_own_models:signs", "--taught", "hand")
    (records,) = data["runs"].values()
    assert {record["kept"] for record in records.values()} == {8}
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert f" | {data['trainings']['hand-200']['seconds']:.0f} |" in page


def test_a_function_of_latents_cannot_be_the_judge(tmp_path: Path) -> None:
    done = command(
        own_models, "--hidden", "latents:test_benchmark_own_models:signs", "--taught", "function",
        "--generator", GENERATOR, "--out", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 2
    assert "--taught function needs a function of pictures" in done.stderr


def test_a_training_that_was_interrupted_goes_on(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("energyql.training.run.fit_both", interrupt)  # heads are in the folder
        done = command(own_models, "--smoke", "--generator", GENERATOR, "--hidden", HIDDEN, "--out", str(tmp_path))
    assert done.returncode == 130
    assert run(tmp_path)["trainings"]["table-200"]["area"] is not None  # it has a verifier


def test_the_area_is_of_all_classes_and_half_for_what_is_not_read(tmp_path: Path) -> None:
    subject = Subject(GENERATOR, "latents:test_benchmark_own_models:signs", None, 300, tmp_path)
    columns = subject.labels(own_models.PRIOR_SEED, 300, lambda done: None)
    truth = Truth(own_models.infer(columns), own_models.arrays(columns))

    class Reader(Judge):
        """Reads `hat` wrongly and `tree` rightly, and not `boat`."""

        def forward(self, images: torch.Tensor) -> dict[str, Any]:
            rows = slice(self.read, self.read + len(images))
            self.read += len(images)
            hat = torch.from_numpy(truth.values["hat"][rows]).float()
            oak = torch.from_numpy(truth.values["tree"][rows] == "oak").float()
            values = truth.vocabulary["tree"].values
            logits = torch.stack([oak if value == "oak" else -oak for value in values], 1)
            return {"hat": YesNo(-hat), "tree": Categorical(logits, values)}

    reader = Reader(truth.vocabulary, Convolutions(8, (4,)))
    reader.read = 0  # type: ignore[assignment]
    model: Any = SimpleNamespace(verifier=reader)
    # hat 0, boat 0.5, oak 1, pine 1
    assert mean_area(subject, truth, model, lambda done: None) == pytest.approx(2.5 / 4)
    assert mean_area(subject, truth, SimpleNamespace(verifier=signs), lambda done: None) is None  # type: ignore[arg-type]


def test_a_refused_formula_is_told(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise ArgumentError("it is too rare", hint="ask for another")

    monkeypatch.setattr(own_models, "plan_query", refuse)
    data = run(tmp_path)
    assert {record["refused"] for record in data["runs"]["table-200/off, weak heads allowed"].values()} == {
        "ArgumentError: it is too rare"
    }
    assert data["summary"]["table-200/off, weak heads allowed"]["refused"] == 3
    assert data["summary"]["table-200/off, weak heads allowed"]["mean"]["true"] is None


def test_errors_are_of_the_other_attributes() -> None:
    truth = truth_of(a=[True] * 4 + [False] * 4, b=[True, False] * 4, hair=["black"] * 6 + ["red"] * 2)
    formula = bind(parse("a"), truth.vocabulary)
    values = {"a": np.array([True] * 3 + [False]), "b": np.array([True] * 4), "hair": np.array(["black"] * 4)}
    found = truth.compare(formula, values)
    assert found["true"] == 0.75
    assert (found["error"], found["bin"]) == (0.5, "b")  # all instead of half, and not the error of `a`
    assert found["above"] == pytest.approx(0.5 - (0.25 / 4 + 0.25 / 4) ** 0.5)
    everything = bind(parse("a AND b AND hair = red"), truth.vocabulary)
    assert "error" not in truth.compare(everything, values)


def test_equal_frequencies_are_no_error() -> None:
    truth = truth_of(a=[True] * 4 + [False] * 4, b=[True, False] * 4)
    found = truth.compare(bind(parse("a"), truth.vocabulary), {name: x[:4] for name, x in truth.values.items()})
    assert (found["error"], found["above"]) == (0, 0)


def test_formulas_lie_in_the_bands() -> None:
    random = np.random.default_rng(0)
    shares = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.05, "e": 0.5}
    truth = Truth(
        Vocabulary([AttributeSpec(name, "yes/no") for name in shares]),
        {name: random.random(4000) < share for name, share in shares.items()},
    )
    prevalences = [truth.holds(formula, truth.values).mean() for formula in truth.formulas(3)]
    for (least, most), prevalence in zip(reversed(own_models.BANDS), prevalences, strict=True):
        assert least <= prevalence <= most
    assert truth.formulas(3) == truth.formulas(3)


def test_limits_of_bands() -> None:
    assert own_models.read_bands("0.001-0.01,0.05-0.6") == [(0.001, 0.01), (0.05, 0.6)]
    for text in ("", "0.1", "0.2-0.1", "0-0.1", "0.5-2", "a-b"):
        with pytest.raises(ArgumentError, match="LEAST-MOST"):
            own_models.read_bands(text)


def test_each_run_takes_its_formulas_and_knows_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(own_models, "taught_model", lambda *arguments: (None, 1.0))
    monkeypatch.setattr(own_models, "mean_area", lambda *arguments: None)
    monkeypatch.setattr(own_models, "open_session", lambda model, device: None)
    monkeypatch.setattr(own_models, "measure", lambda *arguments: measured.append(str(arguments[3])) or {"kept": 0})
    for take in ("2/2", "1/2", "1/1"):
        command(
            own_models, "--smoke", "--generator", GENERATOR, "--hidden", HIDDEN, "--out", str(tmp_path), "--take", take
        )
    assert len(measured) == len(set(measured)) == 3
    (records,) = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["runs"].values()
    assert set(records) == set(measured)
    assert len(json.loads((tmp_path / "results-2-of-2.json").read_text(encoding="utf-8"))["runs"].popitem()[1]) == 1


def test_wrong_labels_are_other_values() -> None:
    vocabulary = Vocabulary(
        [
            AttributeSpec("hat", "yes/no"),
            AttributeSpec("hair", "categorical", ("black", "brown", "red")),
            AttributeSpec("age", "continuous", low=0, high=1),
        ]
    )
    right: dict[str, Any] = {
        "hat": [True, False] * 50,
        "hair": ["black", "red"] * 50,
        "age": [row / 100 for row in range(100)],
    }
    wrong = mislabelled(right, vocabulary, 0.1)
    changed = {name: {row for row in range(100) if wrong[name][row] != right[name][row]} for name in right}
    assert [len(rows) for rows in changed.values()] == [10, 10, 10]
    assert changed["hat"] != changed["hair"]
    assert set(wrong["hair"]) <= {"black", "brown", "red"}
    assert mislabelled(right, vocabulary, 0.0) == right


def test_drawn_for_one() -> None:
    class Pictures(SimpleNamespace):
        def __len__(self) -> int:
            return 4

    assert drawn_for_one(Pictures(statistics={})) == 1  # type: ignore[arg-type]
    assert drawn_for_one(Pictures(statistics={"drawn": 6.0})) == 1.5  # type: ignore[arg-type]
    assert drawn_for_one(Pictures(statistics={"drawn": 6.0, "accepted": 2.0})) == 3  # type: ignore[arg-type]
    assert drawn_for_one(Pictures(statistics={"drawn": 6.0, "accepted": 0.0})) is None  # type: ignore[arg-type]


def test_verify_is_passed_where_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_models, "generate", lambda query, verify: None)
    assert verify_option("sure") == {"verify": "sure"}
    monkeypatch.setattr(own_models, "generate", lambda query: None)
    assert verify_option("off") == {}
    with pytest.raises(ArgumentError, match="verifies no pictures"):
        verify_option("sure")


def test_worst_is_of_each_column_alone() -> None:
    records = [
        {"prevalence": 0.1, "true": 0.9, "error": 0.2, "above": 0.1, "floor": 0.1, "drawn": 1.0, "ticks": None},
        {"prevalence": 0.2, "true": 0.7, "error": 0.1, "above": 0.0, "floor": 0.1, "drawn": 3.0, "ticks": 0.5},
        {"prevalence": 0.01, "refused": "WeakHeadError: weak"},
    ]
    summary = summarize(records)
    assert summary["worst"] == {
        "prevalence": 0.1, "true": 0.7, "error": 0.2, "above": 0.1, "floor": 0.1, "drawn": 3.0, "ticks": 0.5,
        "effective": None, "calls": None, "exact": None, "said": None, "off": None,
    }  # fmt: skip
    assert summary["mean"]["true"] == pytest.approx(0.8)
    assert summary["mean"]["ticks"] == 0.5
    assert summary["refused"] == 1


@pytest.mark.parametrize(("look", "side"), [(hidden_looks.faces, 64), (hidden_looks.eyes, 128)])
def test_hidden_functions_read_each_picture_alone(look: Any, side: int) -> None:
    images = torch.rand(6, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images[3:] = images[3:].mean((2, 3), keepdim=True)
    together = {name: list(cells) for name, cells in look(images).items()}
    assert {name: [look(image[None])[name][0] for image in images] for name in together} == together
    assert len(together) >= 7
