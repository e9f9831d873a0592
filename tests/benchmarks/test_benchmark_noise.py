"""The benchmark of costly evaluations measures what its table says, and goes on where it was interrupted."""

import inspect
import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from commanding import command
from evaluation.lively import picture_model, silent
from toys import VOCABULARY

from benchmarks import noise
from energyql.errors import ArgumentError
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.metrics import AttributeBins
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
    arguments = (str(folder), "--smoke", "--formulas", COMMON, "--labels", "300", "--out", str(out))
    return out, arguments, command(noise, *arguments)


def test_every_method_has_a_row(finished):
    out, _, done = finished
    assert done.returncode == 0, done.stderr
    data = json.loads((out / "results.json").read_text())
    rows = {(row["formula"], row["method"]): row for row in data["rows"]}
    assert {method for _, method in rows} == set(noise.METHODS)
    ours, rejection = rows[COMMON, noise.OURS], rows[COMMON, noise.REJECTION]
    assert rejection["calls"] <= ours["calls"] + 0.2
    assert rejection["reference"] == noise.OURS
    assert rows[COMMON, "best of 16"]["calls"] == 16
    assert rows[COMMON, noise.SURE]["calls"] >= 300 / 3 + 1  # those of the labels too
    assert rows[COMMON, noise.SURE]["guide"] == 1
    assert rows[COMMON, noise.RENO]["calls"] == pytest.approx(99, abs=0.5)
    assert "no flow of many steps" in rows[COMMON, noise.LOGDIFF]["refused"]
    assert "takes no prompt" in rows[COMMON, noise.WORDS]["refused"]
    for row in rows.values():
        if "refused" not in row and row["samples"]:
            assert 0 <= row["judge"] <= 1
            assert row["above"] == pytest.approx(max(0, row["error"] - row["floor"]))
            assert 0 < row["effective"] <= row["samples"]
    assert (out / "curves.png").is_file()
    told = (out / "results.md").read_text()
    assert "best of 64" in told
    assert "calls (64): " in told  # a bar


def test_it_resumes(finished, monkeypatch):
    out, arguments, _ = finished
    before = json.loads((out / "results.json").read_text())["rows"]
    left_out = next(row for row in before[::-1] if row["method"] == noise.REJECTION)
    (path,) = [file for file in (out / "formulas").iterdir() if left_out in json.loads(file.read_text()).values()]
    rows = json.loads(path.read_text())
    del rows[left_out["method"]]
    path.write_text(json.dumps(rows))
    measured = []
    measure = noise.measure
    monkeypatch.setattr(noise, "measure", lambda *given: measured.append(given[2]) or measure(*given))
    for take in ("1/2", "2/2"):
        assert command(noise, *arguments, "--take", take).returncode == 0
    assert measured == [left_out["method"]]  # by the part with its formula, and by no other
    again = json.loads((out / "results.json").read_text())["rows"]
    assert left_out | {"seconds": 0} in [row | {"seconds": 0} for row in again]
    assert len(again) == len(before)


def test_best_of_n_takes_what_the_guide_likes_most(model):
    subject = noise.Subject(model, [RARER])
    energies = np.random.default_rng(1).random((2 * 64, 1))
    pool = noise.Reading({name: np.arange(128) for name in VOCABULARY}, energies), torch.zeros(128, 0)
    reading, costs = noise.measure(subject, 0, "best of 4", 2, pool, None, silent)
    assert costs == {"calls": 4}
    assert reading.energies[:, 0].tolist() == [energies[:4].min(), energies[64:68].min()]
    for method in (noise.REJECTION, noise.WORDS + noise.AT_EQUAL_CALLS):
        with pytest.raises(ArgumentError, match="ours was not measured"):
            noise.measure(subject, 0, method, 2, pool, None, silent)


def test_rejection_stops_at_equal_calls_or_as_many_samples(model):
    subject = noise.Subject(model, [RARER])
    values = {name: np.arange(640) for name in VOCABULARY}
    half = noise.Reading(values, np.full((640, 1), np.log(2))), torch.zeros(640, 0)
    few, costs = noise.measure(subject, 0, noise.REJECTION, 10, half, 8.0, silent)
    assert costs == {"calls": 0.8}
    assert 0 < len(few.energies) < 8
    whole, costs = noise.measure(subject, 0, noise.REJECTION, 10, half, 640.0, silent)
    assert len(whole.energies) == 10
    assert costs["calls"] == (whole.values["smile"][-1] + 1) / 10 < 5


def test_calls_are_all_pictures_that_were_drawn(model, monkeypatch):
    """Those of the pilot too, which belong to no sample."""
    drawn, kind = [], type(model.generator)
    synthesize = kind.synthesize
    subject = noise.Subject(model, [RARER])
    counted = lambda self, w, **more: drawn.append(len(w)) or synthesize(self, w, **more)  # noqa: E731
    counted.__signature__ = inspect.signature(synthesize)
    monkeypatch.setattr(kind, "synthesize", counted)
    for _ in range(2):
        drawn.clear()
        sampled, costs = noise.draw(subject.prepared[0], 5, silent)
        assert costs["calls"] * 5 == pytest.approx(sum(drawn))
        assert sum(drawn) > sampled.evaluations.sum()


def test_a_formula_without_or_with_one_exact_sample(model):
    subject = noise.Subject(model, [RARER])
    prior = subject.evaluated.judge(prior_latents(0, 0, 20, subject.evaluated.z_dim))
    yes, bins = {"smile": np.zeros(20, bool), "beard": np.arange(20) < 1}, AttributeBins(VOCABULARY, prior.values)
    one, none = (replace(prior, values=prior.values | yes | {"beard": yes["beard"] & some}) for some in (True, False))
    reading = noise.Reading({name: column[:1] for name, column in one.values.items()}, np.zeros((1, 1)))
    assert noise.compare(subject, 0, reading, one, bins)["effective"] == 1
    row = noise.compare(subject, 0, reading, none, bins)
    assert (row["judge"], row["guide"], row["error"], row["effective"]) == (1, 1, None, None)
    row |= {"band": 0, "method": noise.OURS, "calls": 1.0}
    assert noise.lines({"rows": [row]})[0][2:6] == ["100.0%", "100.0%", "100.0%", "nan"]


def test_readings_of_another_guide_or_judge_are_not_mixed(folder, model, tmp_path):
    for part, network in (("reader", model.bank.reader), ("judge", model.judge)):
        other = deepcopy(network)
        with torch.no_grad():
            next(other.parameters()).mul_(2)
        other.save(tmp_path / part, part)
    names = (None, None), (tmp_path / "reader", None), (None, str(tmp_path / "judge"))
    subjects = [noise.open_subject(str(folder), guide, judge, {}, False, False) for guide, judge in names]
    assert len({EvaluatedModel(subject).identity for subject in subjects}) == 3


def test_words_of_a_query_become_prompts():
    query = bind(parse("smile AND NOT (glasses OR hair = red)"), noise.load_model("avatars").vocabulary)
    words = {"phrase": noise.plain_phrase, "sentence": noise.plain_sentence}
    assert noise.caption("a face", query, negate=True, **words) == ("a face, smile", "glasses, hair red")
    assert noise.caption("", query, negate=False, **words)[0] == "smile, no glasses, no hair red"


def test_reno_lowers_the_energy_and_keeps_the_length_of_noise():
    z0 = prior_latents(0, 0, 8, 400)
    energy = as_energy(lambda z: torch.nn.functional.softplus(-5 * (z[:, 0] - 2)))
    result = noise.ReNO().sample(energy, z0)
    assert (result.gradients == 49).all()
    assert (result.evaluations == 50).all()
    assert energy(result.z).mean() < 0.3 * energy(z0).mean()
    assert result.z.norm(dim=1).mean() == pytest.approx(20, abs=1)


def test_reno_takes_the_steps_of_its_authors():
    """Those of the optimizer of torch that they use, with their loss."""
    z0 = prior_latents(3, 0, 2, 30)
    energy = lambda z: 3 * (z[:, 0] - 1).square() + z[:, 1].cos()  # noqa: E731
    wanted = []
    for row in z0:
        at = row[None].clone().requires_grad_()
        optimizer = torch.optim.SGD([at], lr=5.0, momentum=0.9, nesterov=True)
        tried = []
        for _ in range(50):
            tried.append((energy(at).item(), at.detach().clone()))
            optimizer.zero_grad()
            (energy(at).sum() + 0.01 * (at.norm() ** 2 / 2 - 29 * at.norm().log())).backward()
            torch.nn.utils.clip_grad_norm_(at, 0.1)
            optimizer.step()
        wanted.append(min(tried, key=lambda pair: pair[0])[1])
    torch.testing.assert_close(noise.ReNO().sample(as_energy(energy), z0).z, torch.cat(wanted), atol=1e-3, rtol=0)


def test_spellings_of_the_laws_have_one_circuit(model):
    a, b, c = (parse(text) for text in ("smile", "NOT beard", "age > 0.5"))
    for law, spell in noise.SPELLINGS.items():
        one, other = spell(a, b, c)
        rules = [noise.Subject(model, [query]).prepared[0].rule for query in (one, other)]
        assert rules[0] == rules[1]
        assert (str(one) == str(other)) == (law == "associative")


@pytest.mark.slow
def test_laws_and_time(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(noise, "TIMED_SHARE", (0.02, 0.6))
    done = command(noise, str(folder), "--smoke", "--part", "laws,time", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "laws.json").read_text())["rows"]
    assert {row["law"]: row["identical"] for row in rows} == dict.fromkeys(noise.SPELLINGS, 1)
    assert {row["words"] for row in rows} == {None}
    (row,) = json.loads((tmp_path / "time.json").read_text())["rows"]
    assert row["tax"] > 1
    assert row["peak"] >= row["plain_peak"] > 1e6
    assert not (tmp_path / "results.json").exists()


def test_formulas_of_the_part_prompts_have_not_xor_and_at_least(folder, tmp_path):
    out = (str(folder), "--smoke", "--out", str(tmp_path))
    for more in (("best of 4",), ("ours", "--take", "1/3")):
        done = command(noise, *out, "--part", "prompts", "--methods", *more)
        assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["best of 4", "ours", "best of 4", "best of 4"]
    for word, row in zip(("NOT", "XOR", "AT LEAST"), [rows[0], *rows[2:]], strict=True):
        assert word in row["formula"]
        assert row["band"] == len(noise.BANDS)
    assert "NOT, XOR, AT LEAST, satisfied by the judge: ours" in (tmp_path / "results.md").read_text()
    planned = command(noise, *out, "--part", "prompts", "--methods", "ours,ReNO", "--labels", "300", "--plan").stdout
    assert not list(tmp_path.glob("heads-*"))  # a plan trains nothing
    assert "576" in planned  # 3 formulas, 3 samples, 64 calls
    assert "891" in planned  # 3 formulas, 3 samples, 99 calls


def test_a_formula_that_no_random_picture_satisfies_is_refused(folder, tmp_path):
    done = command(noise, str(folder), "--smoke", "--formulas", "smile;0.99 < age < 0.99001", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "none of 150 random pictures satisfies" in done.stderr


def test_a_model_with_heads_is_refused(tmp_path):
    done = command(noise, "avatars", "--smoke", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "give a network with --guide" in done.stderr
