"""Drawn examples are kept between runs, and nothing but time depends on that."""

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import CONFIG, random_generator, tiny_model

import energyql
from energyql import load_model
from energyql.attributes.judge import JointJudge
from energyql.editing import invert as invert_module
from energyql.editing.invert import place_of, read_cache, write_cache
from energyql.editing.settings import InversionSettings
from energyql.files import CACHE as FOLDER
from energyql.files import cache_folder

QUICK = InversionSettings(z_evaluations=5, w_evaluations=5, candidates=8)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache" / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def counted(folder, monkeypatch):
    """A model, and the w of all pictures that it draws."""
    model, drawn = load_model(folder), []
    synthesize = type(model.generator).synthesize

    def counting(self, w, *arguments, **more):
        drawn.append(w)
        return synthesize(self, w, *arguments, **more)

    monkeypatch.setattr(type(model.generator), "synthesize", counting)
    return model, drawn


def invert(model, **more):
    picture = load_picture(model)
    return energyql.invert(picture, model=model, settings=QUICK, anyway=True, progress=False, **more)


def load_picture(model):
    return energyql.generate("TRUE", 1, model=model, progress=False, seed=9).images[0]


def same(left, right):
    return torch.equal(left.result.w, right.result.w) and np.array_equal(left.pixel_error, right.pixel_error)


@pytest.mark.filterwarnings("ignore")
def test_the_second_time_nothing_is_drawn_and_nothing_differs(cache, counted, monkeypatch):
    model, drawn = counted
    picture = load_picture(model)

    def run():
        drawn.clear()
        outcome = energyql.invert(picture, model=model, settings=QUICK, anyway=True, progress=False)
        return outcome, sum(map(len, drawn))

    first, before = run()
    assert len(list(cache.iterdir())) == 1
    second, after = run()
    assert before - after == QUICK.candidates
    assert same(first, second)
    monkeypatch.setenv(FOLDER, "")
    third, again = run()
    assert again == before
    assert same(first, third)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("content", [b"", b"nonsense", "other", "nan", "shape"])
def test_damaged_files_are_drawn_again(cache, folder, content):
    model = load_model(folder)
    good = invert(model)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    if isinstance(content, str):
        tensors = invert_module.read_tensors(path)
        if content == "other":
            del tensors["features"]
        elif content == "nan":
            tensors["thumbnails"][0, 0] = torch.nan
        else:
            tensors["thumbnails"] = tensors["thumbnails"][1:]
        invert_module.write_tensors(path, tensors)
    else:
        path.write_bytes(content)
    assert same(good, invert(model))
    assert path.read_bytes() == whole  # written again


@pytest.mark.filterwarnings("ignore")
def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path, folder, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(FOLDER, str(tmp_path / "file" / "cache"))
    model = load_model(folder)
    outcome = invert(model)
    monkeypatch.setenv(FOLDER, "")
    assert same(outcome, invert(model))
    assert not list(folder.glob("**/examples"))


class TestPlace:
    """One file for everything that the pictures depend on."""

    def test_everything_counts(self, cache, folder):
        generator, judge, w = random_generator(), load_model(folder).judge, torch.randn(8, CONFIG.w_dim)
        other = random_generator(seed=1)
        clamped = random_generator(CONFIG.__class__(**{**vars(CONFIG), "conv_clamp": 7.0}))
        places = [
            place_of(generator, w, None, 16), place_of(generator, w + 1, None, 16), place_of(other, w, None, 16),
            place_of(generator, w, judge.features, 16), place_of(generator, w, None, 8),
            place_of(clamped, w, None, 16), place_of(generator, w, JointJudge([judge.only(["age"])]).features, 16),
        ]  # fmt: skip
        assert len(set(places)) == len(places)
        assert {place.parent for place in places} == {cache}
        assert place_of(random_generator(), w.clone(), None, 16) == places[0]

    def test_code_of_others_is_not_kept(self, cache, folder):
        generator, judge, w = random_generator(), load_model(folder).judge, torch.randn(8, CONFIG.w_dim)

        class Own(torch.nn.Module):
            z_dim = 8

        assert place_of(Own(), w, None, 16) is None
        for embed in (lambda images: images, judge, judge.forward, torch.nn.Identity()):
            assert place_of(generator, w, embed, 16) is None

    def test_where(self, monkeypatch, tmp_path):
        monkeypatch.delenv(FOLDER)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(sys, "platform", "linux")
        assert cache_folder() == tmp_path / "energyql"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert cache_folder() is None
        monkeypatch.setattr(sys, "platform", "darwin")
        assert cache_folder() == Path.home() / "Library" / "Caches" / "energyql"
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.delenv("LOCALAPPDATA", raising=False)
        assert cache_folder() is None
        monkeypatch.setenv(FOLDER, "")
        assert cache_folder() is None


def test_the_oldest_go(cache, folder, monkeypatch):
    monkeypatch.setattr(invert_module, "MOST_FILES", 2)
    variance = torch.tensor(0.5, dtype=torch.float64)
    w, measured = torch.zeros(3, 2), {"shape": torch.tensor([3, 4, 4]), "pixel_variance": variance}
    measured["thumbnails"] = torch.rand(3, 5)
    for age, name in ((30, "a"), (20, "b"), (10, "c")):
        path = cache / f"{name}.safetensors"
        write_cache(path, measured)
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert sorted(path.stem for path in cache.iterdir()) == ["b", "c"]
    assert read_cache(cache / "b.safetensors", w, False)["pixel_variance"] == 0.5  # used
    write_cache(cache / "d.safetensors", measured)
    assert sorted(path.stem for path in cache.iterdir()) == ["b", "d"]
    monkeypatch.setattr(invert_module, "MOST_BYTES", 10)
    write_cache(cache / "large.safetensors", measured)
    assert not (cache / "large.safetensors").exists()
    assert stat.S_ISREG((cache / "d.safetensors").stat().st_mode)
