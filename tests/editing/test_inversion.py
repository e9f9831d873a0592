"""Inversion of pictures that a tiny model drew itself."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from toys import CONFIG, tiny_model
from typer.testing import CliRunner

import energyql
from energyql import generate, load_model
from energyql.cli.main import app
from energyql.editing.invert import pixel_error
from energyql.editing.pictures import as_images
from energyql.editing.settings import InversionSettings
from energyql.errors import ArgumentError

QUICK = InversionSettings(z_evaluations=25, w_evaluations=15, candidates=8)


@pytest.fixture(scope="module")
def pictures(model):
    return generate("smile OR beard", 3, model=model, seed=12, progress=False).images


@pytest.fixture(scope="module")
def invert(model):
    return partial(energyql.invert, model=model, settings=QUICK, progress=False)


def errors(model, outcome, pictures, clamp=1.0):
    with torch.inference_mode():
        drawn = model.generator.synthesize(outcome.result.w).clamp(-clamp, clamp)
    return pixel_error(drawn, as_images(pictures, drawn)).numpy()


def test_an_offset_of_w_lowers_the_error(invert, model, pictures):
    settings = InversionSettings(features=0.0, offset=1e-5, candidates=8)
    outcome = {space: invert(pictures, settings=settings, space=space, anyway=True) for space in ("z", "w", "w+")}
    # before pixels are cut to their range, as the search sees them
    error = {space: errors(model, inversion, pictures, clamp=torch.inf).mean() for space, inversion in outcome.items()}
    assert max(error["w"], error["w+"]) < error["z"]
    assert outcome["z"].pixel_error.mean() < 0.2
    assert outcome["w"].result.w.shape == (3, CONFIG.w_dim)
    assert outcome["w+"].result.w.shape == (3, CONFIG.num_ws, CONFIG.w_dim)
    assert outcome["w"].comparison().width > 300
    assert outcome["w"]._repr_png_().startswith(b"\x89PNG")
    assert "mean absolute pixel error of 0." in repr(outcome["w"])


def test_any_module_can_be_the_perceptual_network(invert, pictures):
    outcome = invert(pictures[:1], perceptual=torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten()))
    assert outcome.pixel_error.shape == (1,)
    with pytest.raises(ArgumentError, match="features of different sizes"):
        invert(pictures[:1], perceptual=lambda images: images.flatten(1)[:, : len(images)])


def test_without_a_judge_pixels_count(invert, tmp_path, pictures):
    outcome = invert(pictures[:1], model=load_model(tiny_model(tmp_path, judge=False, space="z")))
    assert outcome.pixel_error[0] < 0.3


def test_an_edit_keeps_the_offset(invert, edit, model, pictures, tmp_path):
    path = tmp_path / "me.png"
    pictures[0].save(path)
    outcome = invert([path])
    edited = edit(outcome, ["smile"])
    offset = outcome.result.w - model.generator.encode(outcome.result.z, 0.7)
    after = edited.final.w - model.generator.encode(edited.final.z, 0.7)
    assert offset.abs().max() > 1e-2
    assert torch.allclose(offset, after, atol=1e-4)
    assert edited.final.provenance["edit"]["start"]["inverted"]["pictures"] == [str(path)]


def test_an_edit_inverts_pictures_itself(edit, pictures):
    edited = edit(pictures[0], ["smile"])
    assert len(edited) == 1
    assert edited.provenance["start"]["inverted"]["pictures"] == ["the picture"]


def test_heads_that_read_w(invert, edit, tiny, pictures):
    edited = edit(invert(pictures[:1], model=tiny, space="w+"), ["smile"], model=tiny)
    assert (edited.final.probabilities["smile"] > 0.9).all()


def test_heads_that_read_the_direction_of_z(invert, edit, turning, pictures):
    outcome = invert(pictures, model=turning, anyway=True)  # a random network is hard to invert
    assert torch.allclose(outcome.result.z.norm(dim=1), torch.tensor(CONFIG.z_dim**0.5), atol=1e-3)
    assert np.allclose(errors(turning, outcome, pictures), outcome.pixel_error, atol=1e-3)
    assert (edit(outcome, ["smile"], model=turning).final.probabilities["smile"] > 0.9).all()


@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_an_inversion_is_saved_and_edited(edit, tiny, pictures, tmp_path, space):
    pictures[0].save(tmp_path / "me.png")
    outcome = CliRunner().invoke(
        app, ["invert", str(tmp_path / "me.png"), "--space", space, "-m", str(tiny), "-o", str(tmp_path / "me")]
    )
    assert outcome.exit_code == 0, outcome.output
    assert "me.png: mean absolute pixel error 0." in outcome.output
    assert (tmp_path / "me" / "comparison.png").is_file()
    edited = edit(tmp_path / "me", ["smile"], model=tiny)
    assert edited.provenance["start"]["inverted"]["space"] == space


def test_a_comparison_is_saved(invert, pictures, tmp_path):
    outcome = invert(pictures[:1])
    with Image.open(outcome.save(tmp_path / "pair.jpg")) as pair:
        assert pair.size == outcome.comparison().size
    with pytest.raises(ArgumentError, match=r"cannot be saved as .txt"):
        outcome.save(tmp_path / "pair.txt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "y"}, r"pictures are inverted into z, w, w\+, not 'y'"),
        *[({"pictures": nothing}, "is no picture") for nothing in (3, [], [1])],
    ],
)
def test_wrong_arguments(invert, pictures, settings, message):
    with pytest.raises(ArgumentError, match=message):
        invert(**{"pictures": pictures, **settings})


@pytest.mark.parametrize("settings", [{"features": -1.0}, {"candidates": 1}, {"z_evaluations": 0}, {"pixels": "much"}])
def test_settings_out_of_range(settings):
    with pytest.raises(ArgumentError, match=next(iter(settings))):
        InversionSettings(**settings)
