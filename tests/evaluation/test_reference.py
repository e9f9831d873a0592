"""The oracle against frequencies in closed form."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch

from energyql.evaluation import reference as module
from energyql.evaluation.bench import Bench
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.methods import read_methods
from energyql.evaluation.reference import Oracle, find_oracle, prior_samples
from energyql.evaluation.settings import SampleCounts
from energyql.language import bind, parse
from energyql.pipeline.model import Model
from evaluation.lively import known_model, silent

NORMAL = NormalDist()
TAIL = 1 - NORMAL.cdf(1.5)
PRIOR = 2000


def find(model: Model, query: str, target: int, folder: Path, prior: int = PRIOR) -> Oracle:
    subject = EvaluatedModel(model)
    bound = bind(parse(query), subject.vocabulary)
    seen = prior_samples(subject, prior, folder, silent)
    energy = read_methods("slice")[0].energy(subject, bound)
    return find_oracle(Bench(subject, SampleCounts(oracle=target), folder, silent), bound, energy, seen)


def share(oracle: Oracle, name: str) -> float:
    return float(np.average(oracle.samples.values[name], weights=oracle.weights))


def c_given_a() -> float:
    """P(z0 + z2 > 0 given z0 > 1.5), by the midpoint rule."""
    grid = [1.5 + (k + 0.5) * 1e-3 for k in range(6000)]
    return sum(NORMAL.pdf(x) * NORMAL.cdf(x) for x in grid) / sum(map(NORMAL.pdf, grid))


def test_a_frequent_query_takes_the_prior_as_it_is(tmp_path: Path) -> None:
    oracle = find(known_model(), "a", 50, tmp_path)
    assert oracle.size == len(oracle.samples) == len(oracle.weights)
    assert oracle.samples.values["a"].all()
    assert (oracle.latents, oracle.pictures) == (0, PRIOR)
    assert oracle.prevalence == pytest.approx(TAIL, abs=3 * oracle.prevalence_error)
    assert share(oracle, "c") == pytest.approx(c_given_a(), abs=0.05)


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.3], ids=["true heads", "heads too strict", "heads too lax"])
def test_a_rare_query_is_true_whatever_the_heads_say(tmp_path: Path, shift: float) -> None:
    oracle = find(known_model(shift=shift), "a AND b", 500, tmp_path)
    assert oracle.size >= 500
    assert oracle.latents > 0
    assert oracle.samples.values["a"].all()
    assert oracle.samples.values["b"].all()
    assert oracle.prevalence == pytest.approx(TAIL**2, abs=3.5 * oracle.prevalence_error)
    assert oracle.prevalence_error < 0.1 * TAIL**2
    expected = c_given_a()
    assert share(oracle, "c") == pytest.approx(expected, abs=3.5 * math.sqrt(expected * (1 - expected) / oracle.size))
    mean = np.average(oracle.samples.values["n"], weights=oracle.weights)
    assert mean == pytest.approx(0, abs=3.5 / math.sqrt(oracle.size))
    z1 = np.average(oracle.samples.z[:, 1].numpy(), weights=oracle.weights)
    assert z1 == pytest.approx(NORMAL.pdf(1.5) / TAIL, abs=0.1)  # where proposals would be 1.5 ± shift too far
    if shift > 0:
        assert oracle.samples.z[:, 1].mean() > NORMAL.pdf(1.5) / TAIL + 0.05


def test_a_search_is_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find(known_model(), "a AND b", 100, tmp_path)
    monkeypatch.setattr(module, "uniforms", lambda *arguments, **more: pytest.fail("searched again"))
    again = find(known_model(), "a AND b", 100, tmp_path)
    assert again.weights.tolist() == first.weights.tolist()
    assert again.samples.z.equal(first.samples.z)
    assert {name: column.tolist() for name, column in again.samples.values.items()} == {
        name: column.tolist() for name, column in first.samples.values.items()
    }


def test_an_interrupted_search_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find(known_model(), "a AND b", 300, tmp_path / "whole")
    save, times = JudgedSamples.save, []

    def interrupted(self: JudgedSamples, path: Path, *arguments: Any, **more: Any) -> None:
        save(self, path, *arguments, **more)
        times.append("oracle" in path.name)
        if sum(times) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(JudgedSamples, "save", interrupted)
        find(known_model(), "a AND b", 300, tmp_path / "parts")
    again = find(known_model(), "a AND b", 300, tmp_path / "parts")
    assert (again.latents, again.pictures) == (whole.latents, whole.pictures)
    assert again.weights.tolist() == whole.weights.tolist()
    assert again.samples.z.equal(whole.samples.z)


def test_a_search_ends_at_most_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LATENTS", 3 * module.LATENTS_AT_ONCE)
    oracle = find(known_model(), "a AND b AND NOT c", 500, tmp_path, prior=500)
    assert oracle.latents == 3 * module.LATENTS_AT_ONCE
    assert oracle.size < 500


def test_draws_differ_from_one_another_and_are_no_more_than_the_oracle_is_worth(tmp_path: Path) -> None:
    oracle = find(known_model(shift=0.3), "a AND b", 100, tmp_path)
    drawn = oracle.draws(10_000)
    assert len(drawn) == int(oracle.size)
    assert len({tuple(row) for row in drawn.z.tolist()}) == len(drawn)
    assert oracle.draws(7).z.equal(oracle.draws(7).z)


def test_a_longer_prior_begins_with_a_shorter_one(tmp_path: Path) -> None:
    subject = EvaluatedModel(known_model())
    short = prior_samples(subject, 700, tmp_path, silent)
    long = prior_samples(subject, 1200, tmp_path, silent)
    assert long.z[:700].equal(short.z)
    assert long.values["n"][:700].tolist() == short.values["n"].tolist()
    assert abs(float(long.z.mean())) < 0.05


def test_prior_of_another_model_is_judged_anew(tmp_path: Path) -> None:
    prior_samples(EvaluatedModel(known_model()), 10, tmp_path, silent)
    prior_samples(EvaluatedModel(known_model(shift=0.3)), 10, tmp_path, silent)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    subject = EvaluatedModel(known_model())
    good = prior_samples(subject, 10, tmp_path, silent)
    (path,) = tmp_path.glob("*/*.npz")
    path.write_bytes(path.read_bytes()[:100])
    assert prior_samples(subject, 10, tmp_path, silent).values["n"].tolist() == good.values["n"].tolist()


@pytest.mark.parametrize(
    ("place", "value"),
    [(b"PK\x01\x02", (8, 1)), (b"PK\x01\x02", (10, 99)), (b"z.npy", (25, 255))],
    ids=["encrypted", "unknown compression", "compressed data"],
)
def test_damage_inside_an_archive(tmp_path: Path, place: bytes, value: tuple[int, int]) -> None:
    JudgedSamples(torch.zeros(9, 1), torch.zeros(9, 1), {}, None).save(tmp_path / "a.npz")
    data, (offset, byte) = bytearray((tmp_path / "a.npz").read_bytes()), value
    data[data.index(place) + offset] = byte
    (tmp_path / "a.npz").write_bytes(data)
    assert JudgedSamples.load(tmp_path / "a.npz") is None
