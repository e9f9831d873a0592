"""Samples in holes of the heads are marked."""

import json

import numpy as np
import pytest
import torch
from holes import Stains, look
from markup import Document
from PIL import ImageColor

from energyql import generate, until_satisfied
from energyql.attributes.heads import DOUBT, outside_shell
from energyql.pipeline.model import load_model
from energyql.pipeline.result import Result
from energyql.render.pictures import DOUBTFUL
from energyql.sampling import prior_latents
from energyql.training.heads import HeadSettings
from energyql.training.run import train_attributes


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Heads from 400 labels: good ones for `red`, and one at chance for `odd`."""
    folder, generator = tmp_path_factory.mktemp("holes"), Stains()
    trained = train_attributes(
        generator, look, folder, n=400, seed=2, judge=look, progress=False,
        settings=HeadSettings(steps=800, hidden=16),
    )  # fmt: skip
    assert trained.report["red"].score > 0.8
    assert trained.report["odd"].score < 0.6
    return load_model(folder, generator=generator, judge=trained.judge)


def test_holes_are_marked(model):
    result = generate("odd AND red", 48, model=model, allow_weak=["odd"], verify="off", progress=False)
    assert result.probability.mean() > 0.85  # the heads are certain
    assert result.satisfied.mean() < 0.6  # and wrong
    assert result.doubtful[~result.satisfied].mean() > 0.7
    assert f". {result.doubtful.sum()} are doubtful: two sets of heads disagree" in result.summary()
    assert result.statistics["doubtful"] == result.doubtful.mean()


def test_samples_of_good_heads_are_not(model):
    result = generate("red", 48, model=model, progress=False)
    assert result.satisfied.mean() > 0.8
    assert result.doubtful[result.satisfied].mean() < 0.3


def test_marks_stay_with_their_samples(model, tmp_path):
    result = generate("odd", 8, model=model, allow_weak=["odd"], progress=False)
    assert (result[[3, 1]].doubtful == result.doubtful[[3, 1]]).all()
    assert (Result.join([result, result]).doubtful == np.tile(result.doubtful, 2)).all()
    result.save(tmp_path)
    saved = json.loads((tmp_path / "result.json").read_text())["samples"]
    assert [sample["doubtful"] for sample in saved] == result.doubtful.tolist()
    kept = until_satisfied("odd", 4, budget=60, model=model, allow_weak=["odd"], progress=False)
    assert kept.statistics["doubtful"] == kept.doubtful.mean()


def test_marks_in_pictures(model):
    result = generate("odd", 8, model=model, allow_weak=["odd"], progress=False)
    good = generate("red", 8, model=model, progress=False)
    sure, doubtful = good[~good.doubtful], result[result.doubtful]
    assert len(sure)
    assert len(doubtful)
    amber = ImageColor.getrgb(DOUBTFUL)
    assert [amber in {colour for _, colour in part.grid().getcolors(1 << 16)} for part in (sure, doubtful)] == [0, 1]
    page = Document(result._repr_html_())
    assert page.texts("strong") == ["doubtful"] * len(doubtful)
    assert {mark["title"] for mark in page.all("strong")} == {DOUBT}
    said = [image["alt"].endswith(f" It is doubtful: {DOUBT}.") for image in page.all("img")]
    assert said == result.doubtful.tolist()


@pytest.mark.parametrize("size", [3, 100, 512])
def test_the_shell(size):
    z = prior_latents(0, 0, 4000, size)
    assert outside_shell(z).float().mean().item() == pytest.approx(0.001, abs=0.0015)
    assert outside_shell(2 * z[:200]).float().mean() > (0.15 if size == 3 else 0.99)
    assert outside_shell(torch.zeros(1, size)).tolist() == [False]
