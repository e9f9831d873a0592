"""The benchmark of costly evaluations measures what its table says, and goes on where it was interrupted."""

import json

import numpy as np
import pytest
import torch
from commanding import command
from evaluation.lively import picture_model, silent
from toys import VOCABULARY

from benchmarks import noise
from energyql.errors import ArgumentError
from energyql.language import bind, parse
from energyql.sampling import as_energy, prior_latents

COMMON, RARER = "smile OR beard", "beard AND NOT smile"


@pytest.fixture(scope="module")
def model():
    return picture_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("noise") / "pictures"
    model.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """The folder of a run, and how the command ended."""
    out = tmp_path_factory.mktemp("out")
    arguments = (str(folder), "--smoke", "--formulas", COMMON, "--out", str(out))
    return out, arguments, command(noise, *arguments)


def test_every_method_has_a_row(finished):
    out, _, done = finished
    assert done.returncode == 0, done.stderr
    data = json.loads((out / "results.json").read_text())
    rows = {(row["formula"], row["method"]): row for row in data["rows"]}
    assert {method for _, method in rows} == set(noise.METHODS)
    ours, rejection = rows[COMMON, noise.OURS], rows[COMMON, noise.REJECTION]
    assert rejection["calls"] == pytest.approx(ours["calls"], abs=0.2)
    assert rows[COMMON, "best of 16"]["calls"] == 16
    assert rows[COMMON, noise.RENO]["calls"] == 100
    assert "takes no prompt" in rows[COMMON, noise.WORDS]["refused"]
    for row in rows.values():
        if "refused" not in row and row["samples"]:
            assert 0 <= row["judge"] <= 1
            assert row["above"] == pytest.approx(max(0, row["error"] - row["floor"]))
            assert 0 < row["effective"] <= row["samples"]
    assert (out / "curves.png").is_file()
    assert "best of 64" in (out / "results.md").read_text()


def test_it_resumes(finished, monkeypatch):
    out, arguments, _ = finished
    data = json.loads((out / "results.json").read_text())
    left_out = data["rows"].pop()
    (out / "results.json").write_text(json.dumps(data))
    measured = []
    measure = noise.measure
    monkeypatch.setattr(noise, "measure", lambda *given: measured.append(given[2]) or measure(*given))
    assert command(noise, *arguments).returncode == 0
    assert measured == [left_out["method"]]
    again = json.loads((out / "results.json").read_text())["rows"]
    assert again[-1] | {"seconds": 0} == left_out | {"seconds": 0}


def test_best_of_n_takes_what_the_guide_likes_most(model):
    subject = noise.Subject(model, [RARER])
    energies = np.random.default_rng(1).random((2 * 64, 1))
    pool = noise.Reading({name: np.arange(128) for name in VOCABULARY}, energies)
    reading, costs = noise.measure(subject, 0, "best of 4", 2, pool, None, silent)
    assert costs == {"calls": 4}
    assert reading.energies[:, 0].tolist() == [energies[:4].min(), energies[64:68].min()]
    rejected, _ = noise.measure(subject, 0, noise.REJECTION, 2, pool, 100.0, silent)
    assert 0 < len(rejected.energies) < 100
    with pytest.raises(ArgumentError, match="ours was not measured"):
        noise.measure(subject, 0, noise.REJECTION, 2, pool, None, silent)


def test_words_of_a_query_become_prompts():
    query = bind(parse("smile AND NOT (glasses OR hair = red)"), noise.load_model("avatars").vocabulary)
    assert noise.caption("a face", query, negate=True) == ("a face, smile", "glasses, hair red")
    assert noise.caption("", query, negate=False)[0] == "smile, no glasses, no hair red"


def test_reno_lowers_the_energy_and_keeps_the_length_of_noise():
    z0 = prior_latents(0, 0, 8, 400)
    energy = as_energy(lambda z: torch.nn.functional.softplus(-5 * (z[:, 0] - 2)))
    result = noise.ReNO().sample(energy, z0)
    assert (result.gradients == 50).all()
    assert energy(result.z).mean() < 0.3 * energy(z0).mean()
    assert result.z.norm(dim=1).mean() == pytest.approx(20, abs=1)


def test_a_model_with_heads_is_refused(tmp_path):
    done = command(noise, "avatars", "--smoke", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "give a network with --guide" in done.stderr
