"""Pages of directions, and named directions, which are attributes like any other."""

import dataclasses

import pytest
import torch
from labelled import CHECKPOINTS
from planted import Planted, drawn
from torch.testing import assert_close
from toys import CONFIG, random_generator, tiny_model

import energyql
from energyql.errors import ArgumentError, ModelError, VocabularyError
from energyql.generators.families import save_model
from energyql.generators.load import load_generator
from energyql.pipeline.model import load_model
from energyql.sampling import prior_latents
from energyql.training import directions as named
from energyql.training.directions import Directions, draw_directions, find_directions, name_directions


def test_the_page_shows_the_quantiles(gan, found, monkeypatch):
    shown = []
    synthesize = type(gan).synthesize
    monkeypatch.setattr(type(gan), "synthesize", lambda self, w: [shown.append(w), synthesize(self, w)][1])
    page = draw_directions(found, gan, seed=3, rows=3)
    w = torch.cat(shown).view(4, 3, 5, -1)
    assert_close(
        torch.stack([found.values(w[i].flatten(0, 1))[:, i].view(3, 5) for i in range(4)]),
        found.quantiles[:, None].expand(-1, 3, -1), rtol=1e-3, atol=1e-3,
    )  # fmt: skip
    assert page.width > 15 * 128
    shown.clear()
    draw_directions(dataclasses.replace(found, layers=(1, 4)), gan, rows=1)
    rows = torch.cat(shown).view(4, 5, 6, -1)
    assert torch.equal(rows[:, :, [0, 2, 3, 5]], rows[:1, :1, [0, 2, 3, 5]].expand(4, 5, -1, -1))
    assert (rows[:, 0, 1] - rows[:, 4, 1]).abs().max() > 0.1
    with pytest.raises(ArgumentError, match="another generator"):
        draw_directions(found, load_generator(CHECKPOINTS / "ada.pkl"))


def test_pages_that_cannot_be_drawn(gan, found):
    for changes, arguments, message in (
        ({}, {"rows": 0}, "rows must be a whole number from 1 to"),
        ({}, {"rows": 1.5}, "rows must be a whole number from 1 to"),
        ({}, {"seed": -1}, "seed must be a whole number from 0 to"),
        ({"layers": (1, 6)}, {}, r"layers are whole numbers from 0 to 5, at least one, not 6"),
        ({"condition": 1}, {}, "has no classes"),
    ):
        with pytest.raises(ArgumentError, match=message):
            draw_directions(dataclasses.replace(found, **changes), gan, **arguments)
    with pytest.raises(ArgumentError, match="a Planted has no layers"):
        draw_directions(dataclasses.replace(find_directions(Planted(), n=1), layers=(0,)), Planted())


def test_named_beside_heads_that_read_w(tmp_path):
    folder = tiny_model(tmp_path / "m")
    before = load_model(folder)
    directions = find_directions(folder, "sefa", 4)
    assert directions.truncation == (0.5, 1.0)  # that of the heads
    bank = name_directions(directions, {2: "tilt"}, folder)
    model = load_model(folder)
    assert list(model.vocabulary) == [*before.vocabulary, "tilt"] == list(bank.vocabulary)
    assert all(
        torch.equal(model.bank.heads[name].skip_weight, head.skip_weight) for name, head in before.bank.heads.items()
    )
    w = drawn(model.generator, 0.7, 50)
    assert_close(model.bank.predict(w)["tilt"].mean, directions.values(w)[:, 2], rtol=1e-4, atol=1e-4)
    spec = model.vocabulary["tilt"]
    assert (spec.kind, spec.low, spec.high, spec.tolerance) == ("continuous", -4.0, 4.0, 0.25)
    assert spec.description.startswith("sefa 2, in standard deviations: 98 % lie from -")
    assert "tilt" not in model.report
    assert "tilt" not in model.judged_names
    result = energyql.generate("tilt > 0.5 AND smile", n=8, model=model, progress=False)
    assert result.satisfied is None
    assert "the judge does not read 'tilt'" in result.summary()
    assert (directions.values(torch.as_tensor(result.w))[:, 2] > 0.4).all()
    moved = energyql.edit(1, ["tilt < -0.5"], n=4, model=model, keep=[], progress=False)
    assert (directions.values(torch.as_tensor(moved.steps[0].w))[:, 2] < -0.4).all()


def test_named_where_there_are_no_heads(gan, found, tmp_path):
    save_model(tmp_path / "m", "m", gan, truncation=0.7, dtype=torch.float32)
    name_directions(found, {0: "a", 3: "b"}, tmp_path / "m", tmp_path / "n")
    model = load_model(tmp_path / "n")
    assert (model.bank.space, model.bank.truncation, list(model.vocabulary)) == ("w", (0.7, 0.7), ["a", "b"])
    assert not (tmp_path / "m" / "vocabulary.json").exists()
    other = find_directions(gan, "ganspace", 2, truncation=0.5)
    with pytest.raises(ModelError, match="read w at truncation"):
        name_directions(other, {0: "c"}, tmp_path / "n")
    name_directions(found, {1: "c"}, tmp_path / "m", tmp_path / "n")  # beside those there
    assert list(load_model(tmp_path / "n").vocabulary) == ["a", "b", "c"]


@pytest.mark.parametrize(("condition", "asked"), [(1, None), ("random", 2), ([0.5, 0.5, 0.0], None)])
def test_classes(condition, asked, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = random_generator(dataclasses.replace(CONFIG, c_dim=3))
    with pytest.raises(ArgumentError, match="give a condition"):
        find_directions(generator)
    find_directions(generator, "sefa", 2, condition=condition, truncation=0.7).save(tmp_path)
    directions = Directions.load(tmp_path)
    assert directions.condition == (tuple(condition) if isinstance(condition, list) else condition)
    draw_directions(directions, generator)
    assert name_directions(directions, {0: "tilt"}, generator, tmp_path / "m").condition == directions.condition
    result = energyql.generate("tilt > 0.5", n=2, model=tmp_path / "m", condition=asked, progress=False)
    assert (directions.values(torch.as_tensor(result.w))[:, 0] > 0.4).all()


@pytest.mark.parametrize("space", [pytest.param("z", marks=pytest.mark.slow), "direction"])
def test_named_beside_heads_that_read_another_latent(space, tmp_path, monkeypatch):
    monkeypatch.setattr(named, "LABELS", 1500)
    monkeypatch.setattr(named, "HIDDEN", 32)
    folder = tiny_model(tmp_path / "m", space=space)
    directions = find_directions(folder, "ganspace", 2, truncation=1.0)
    with pytest.raises(ModelError, match="at truncation"):
        name_directions(directions, {0: "tilt"}, folder)
    directions = find_directions(folder, "ganspace", 2)
    bank = name_directions(directions, {0: "tilt"}, folder)
    assert bank.space == space
    assert bank.reports["tilt"].score > 0.5
    assert bank.reports["tilt"].weak is None
    assert list(bank.reports) == ["tilt"]
    model = load_model(folder)
    z = prior_latents(3, 0, 2000, model.generator.z_dim)
    values = directions.values(model.generator.encode(z, 0.75))[:, 0]
    predicted = model.bank.predict(z)["tilt"].mean
    assert torch.corrcoef(torch.stack([values, predicted]))[0, 1] > 0.7
    assert model.vocabulary["tilt"].description.startswith("ganspace 0,")


def test_names_that_cannot_be_given(gan, found, tmp_path):
    folder = tiny_model(tmp_path / "m", truncation=(0.7, 0.7))
    directions = find_directions(folder, "sefa", 2)
    for names, kind, message in (
        ({}, ArgumentError, "at least one"),
        ({2: "a"}, ArgumentError, "there is no direction 2"),
        ({-1: "a"}, ArgumentError, "there is no direction -1"),
        ({"0": "a"}, ArgumentError, "there is no direction '0'\nnumbers are 0 to 1"),
        (["a"], ArgumentError, "at least one"),
        ({0: "  "}, ArgumentError, "the name of direction 0 is blank"),
        ({0: ""}, ArgumentError, "the name of direction 0 must not be empty"),
        ({0: 3}, ArgumentError, "the name of direction 0 must be a string, not 3"),
        ({0: "a\x1b"}, ArgumentError, "the name of direction 0 must not hold the control character"),
        ({0: "smile"}, VocabularyError, "already has 'smile'"),
        ({0: "a", 1: "a"}, VocabularyError, "'a' is defined twice"),
    ):
        with pytest.raises(kind, match=message):
            name_directions(directions, names, folder)
    with pytest.raises(ArgumentError, match="device 'gpu' is not available here"):
        name_directions(directions, {0: "a"}, folder, device="gpu")
    with pytest.raises(ArgumentError, match="another generator"):
        name_directions(directions, {0: "a"}, CHECKPOINTS / "ada.pkl", tmp_path / "n")
    assert not (tmp_path / "n").exists()
    bank = name_directions(directions, {0: "smile"}, folder, replace=True)
    assert bank.vocabulary["smile"].kind == "continuous"
