"""The benchmarks of sampling, speed, control tax and memory run, and measure what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commanding import command
from evaluation.lively import lively_model, silent

from benchmarks import large, memory, posterior, sampling, speed, tax
from benchmarks.sampling import LEAST_COMMON, LEAST_UNCOMMON, MOST_RARE, choose_formulas
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.pipeline.model import load_model
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import Session
from energyql.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return large.large_model(8, tmp_path_factory.mktemp("large"), silent, smoke=True)


def test_sampling_runs_and_goes_on(tmp_path: Path) -> None:
    folder = lively_model(tmp_path / "model")
    arguments = ["--model", str(folder), "--smoke", "--samplers", "slice,ode", "--out", str(tmp_path / "out")]
    done = command(sampling, *arguments)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert len(data["queries"]) == 2
    assert data["contenders"] == ["slice", "ode"]
    assert "ode, worst" in done.stdout
    assert (tmp_path / "out" / "frequency-error.png").is_file()


@pytest.mark.slow
def test_the_posterior_is_compared_with_exact_draws(tmp_path: Path) -> None:
    folder = lively_model(tmp_path / "model")
    arguments = ["--model", str(folder), "--smoke", "--out", str(tmp_path / "out")]
    for _ in range(2):  # the second time it reads what it has
        done = command(posterior, *arguments)
        assert done.returncode == 0, done.stderr
        data = json.loads((tmp_path / "out" / "posterior.json").read_text(encoding="utf-8"))
    assert len(data["rows"]) == 2
    for row in data["rows"]:
        assert row["estimate"] == pytest.approx(row["share"], rel=0.5)
        assert 0 < row["effective"] <= 40.001
    assert (tmp_path / "out" / "posterior.md").is_file()


def test_formulas_are_common_uncommon_and_rare(tmp_path: Path) -> None:
    subject = EvaluatedModel(str(lively_model(tmp_path)))
    random = np.random.default_rng(0)
    values: dict[str, Any] = {name: random.random(20_000) < 0.2 for name in ("smile", "glasses", "beard")}
    values["hair"] = random.choice(["black", "brown", "dark red"], 20_000, p=[0.9, 0.08, 0.02])
    values["age"] = random.normal(0.5, 0.1, 20_000)
    prior = JudgedSamples(torch.zeros(20_000, 1), torch.zeros(20_000, 1), values, None)
    formulas = choose_formulas(subject, prior, 4, 2, 3)
    assert len(set(formulas)) == 9
    from energyql.logic.satisfiability import satisfied

    shares = [float(satisfied(formula, values, subject.vocabulary).mean()) for formula in formulas]
    assert all(share >= LEAST_COMMON for share in shares[:4])
    assert all(LEAST_UNCOMMON <= share <= LEAST_COMMON for share in shares[4:6])
    assert all(0 < share <= MOST_RARE for share in shares[6:])


def test_heads_of_the_large_model_are_of_the_published_size_and_trained(model: Any) -> None:
    assert list(model.vocabulary) == list(large.VOCABULARY)
    for head in model.bank.heads.values():
        sizes = [len(head.hidden_bias), *(len(bias) for _, bias in head.deeper)]
        assert tuple(sizes) == large.LACE_SIZES
        assert not head.skip_weight.any()
    z = torch.randn(400, model.generator.z_dim, generator=torch.Generator().manual_seed(5))
    w = model.generator.encode(z, large.TRUNCATION)
    assert abs(float((w - model.generator.mapping.w_avg).mean())) < 0.2


@pytest.mark.slow
def test_heads_learn_what_they_are_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    taught = ("a1", "a4", "c1")
    monkeypatch.setattr(large, "VOCABULARY", Vocabulary([large.VOCABULARY[name] for name in taught]))
    w = torch.randn(1500, 16, generator=torch.Generator().manual_seed(0))
    bank = large.train(w, 300, 12, silent)
    labels = large.made_labels(w)
    for name in taught:
        prediction = bank.predict(w, (name,))[name]
        decided = prediction.logits.argmax(1) if hasattr(prediction, "logits") else (prediction.logit > 0)
        assert float((decided[1200:] == labels[name][1200:]).float().mean()) > 0.7, name


def test_trained_heads_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = large.large_model(8, tmp_path, silent, smoke=True)
    monkeypatch.setattr(large, "train", lambda *arguments: pytest.fail("trained again"))
    again = large.large_model(16, tmp_path, silent, smoke=True)
    z = torch.randn(3, first.generator.z_dim)
    torch.testing.assert_close(first.generator.encode(z), again.generator.encode(z))
    assert again.bank.heads["a1"].out_weight.equal(first.bank.heads["a1"].out_weight)


def test_speed_times_all_and_goes_on(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = {title: speed.QUERIES[title] for title in ("3, a conjunction",)}
    monkeypatch.setattr(speed, "QUERIES", queries)
    data = speed.run(model, n=3, turns=1, out=tmp_path, report=silent)
    assert [row["title"] for row in data["rows"]] == list(speed.QUERIES)
    for row in data["rows"]:
        assert row["paper"]["ratio"] == 1
        for name in speed.OURS:
            assert row[name]["ratio"] > 0
            assert 0 <= row[name]["satisfied"] <= 1
    assert len(speed.lines_of(data["rows"][0])) == 1 + len(speed.OURS) == 5
    assert "3, a conjunction" in speed.markdown(data)
    monkeypatch.setattr(speed, "_samplers", lambda *arguments: pytest.fail("timed again"))
    assert speed.run(model, n=3, turns=1, out=tmp_path, report=silent)["rows"] == data["rows"]


@pytest.mark.parametrize(("title", "count"), [("3, a conjunction", 3), ("12, with OR and IMPLIES", 12)])
def test_queries_have_as_many_attributes_as_they_say(model: Any, title: str, count: int) -> None:
    prepared = plan_query(Session(model, torch.device("cpu")), speed.QUERIES[title])
    assert len(prepared.rule.attributes) == count


def test_tax_is_a_ratio(tiny: Path) -> None:
    row = tax.measure(load_model(tiny), "smile", 2, 2, silent)
    assert row["tax"] > 0
    assert row["query"] > 0
    assert row["unconditional"] > 0


def test_tax_of_a_model_without_a_judge(model: Any) -> None:
    assert tax.measure(model, tax.LARGE_QUERY, 2, 1, silent)["n"] == 2


@pytest.mark.slow
def test_memory_of_another_process(tiny: Path) -> None:
    row = memory.measure("smile", 20, sampler="slice", threads=1, model=str(tiny))
    assert 5e7 < row["peak"] < 2e10
    with pytest.raises(Exception, match="run of 20 latents failed"):
        memory.measure("smlie", 20, sampler="slice", threads=1, model=str(tiny))
