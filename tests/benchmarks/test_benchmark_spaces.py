"""The benchmark of spaces measures what its table says, and goes on where it was interrupted."""

import dataclasses

import pytest
import torch
from evaluation.lively import silent
from toys import VOCABULARY, lively_judge, random_generator, random_heads

from benchmarks import spaces
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import Convolutions, Judge
from energyql.attributes.pictures import PictureBank
from energyql.evaluation.judged import EvaluatedModel
from energyql.generators.families import save_model
from energyql.pipeline.model import Model
from energyql.sampling import prior_latents
from energyql.training import run

QUERY = "smile AND NOT beard"


@pytest.fixture(scope="module")
def guides():
    """A model with heads on z, and the same with a reader."""
    generator = random_generator()
    heads = AttributeBank(VOCABULARY, random_heads(VOCABULARY, generator.z_dim), fitted=FittedUnder("z"))
    model = Model("tiny", generator, heads, lively_judge(generator, seed=2))
    return {"z": model, "picture": dataclasses.replace(model, bank=PictureBank(lively_judge(generator)))}


@pytest.fixture(scope="module")
def reference(guides):
    return EvaluatedModel(guides["z"]).judge(prior_latents(1, 0, 80, 8))


def test_both_guides_are_trained(tmp_path, monkeypatch):
    class Begun(Exception):
        """A fit began, which takes minutes."""

    def fit(*arguments, **options):
        raise Begun

    def train(*arguments, space, **options):
        with pytest.raises(Begun):
            run.train_attributes(*arguments, space=space, **options)
        begun.append(space)

    begun, packaged = [], spaces.load_model("avatars")
    for name in ("fit_bank", "fit_reader"):
        monkeypatch.setattr(run, name, fit)
    monkeypatch.setattr(spaces, "train_attributes", train)
    monkeypatch.setattr(spaces, "load_model", lambda *arguments, **options: packaged)
    guides = spaces.make_guides(dataclasses.replace(spaces.SMOKE, pictures=40, latents=40), tmp_path, silent)
    assert (begun, list(guides)) == (["w", "picture"], ["z", "w", "picture"])


def test_what_is_measured(guides, reference, monkeypatch):
    monkeypatch.setattr(spaces, "LEAST_FRECHET", 3)
    found = {space: spaces.measure(guide, QUERY, "ours", 4, reference, silent) for space, guide in guides.items()}
    for row in found.values():
        assert row["satisfied"] <= row["accuracy"] <= 1
        assert row["believed"] >= 0.75  # it was guided there
        assert 0 < row["prevalence"] < 1
        assert row["frechet"] > 0
        assert row["floor"] > 0
        assert row["seconds"] > 0
    assert found["z"]["calls"] == 0
    assert found["picture"]["calls"] >= found["picture"]["evaluations"] >= 1
    paper = spaces.measure(guides["z"], "smile", "paper", 2, reference, silent)
    assert paper["frechet"] is None or paper["n"] >= 3
    assert spaces.cells({"space": "z"} | paper)[:4] == ["smile", "z", "published-ode", "2"]
    assert len(spaces.cells({"space": "picture"} | found["picture"])) == len(spaces.HEADER)


def test_it_resumes(guides, reference, tmp_path, monkeypatch):
    guides = dict(guides)
    monkeypatch.setattr(spaces, "make_guides", lambda sizes, out, report: guides)
    monkeypatch.setattr(spaces, "prior_samples", lambda *rest: reference)
    done = []

    def measure(guide, query, method, n, reference, report):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append((guide.bank.space, method, n))
        return {"query": query, "method": method, "n": n}

    monkeypatch.setattr(spaces, "measure", measure)
    sizes = dataclasses.replace(spaces.SMOKE, n=5, dear=1)
    with pytest.raises(KeyboardInterrupt):
        spaces.run(sizes, tmp_path, [QUERY], silent)
    assert done == [("z", "ours", 5), ("z", "paper", 5), ("picture", "ours", 5)]
    done.clear()
    rows = spaces.run(sizes, tmp_path, [QUERY], silent)["rows"]
    assert done == [("picture", "paper", 1)]
    assert [(row["space"], row["method"]) for row in rows] == [
        ("z", "ours"), ("z", "paper"), ("picture", "ours"), ("picture", "paper"),
    ]  # fmt: skip
    done.clear()
    guides["z"] = dataclasses.replace(guides["z"], generator=random_generator(seed=1))
    with pytest.raises(KeyboardInterrupt):  # another model is measured anew
        spaces.run(sizes, tmp_path, [QUERY], silent)
    assert len(done) == 3


def test_guides_learn_the_choices_of_latents_and_are_kept(tmp_path, monkeypatch):
    trained = []

    def train(generator, table, place, *, space, seed, **settings):
        trained.append((space, seed))
        known = table.vocabulary
        assert list(table.columns) == list(known) == list(spaces.ATTRIBUTES)
        save_model(place, space, generator, dtype=torch.float32)
        if space == "w":
            AttributeBank(known, random_heads(known, generator.config.w_dim)).save(place)
        else:
            PictureBank(Judge(known, Convolutions(16, (4,)))).save(place)

    monkeypatch.setattr(spaces, "train_attributes", train)
    for _ in range(2):
        guides = spaces.make_guides(spaces.SMOKE, tmp_path, silent)
    assert trained == [("w", spaces.TRAINING_SEED), ("picture", spaces.TRAINING_SEED)]
    assert [guide.bank.space for guide in guides.values()] == ["direction", "w", "picture"]
    assert len({id(guide.judge) for guide in guides.values()}) == 1
