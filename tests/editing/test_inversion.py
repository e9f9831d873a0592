"""Pictures into latents, on a tiny model, whose own pictures can be found again."""

import numpy as np
import pytest
import torch
from PIL import Image
from toys import CONFIG, tiny_model
from typer.testing import CliRunner

from energyql import edit, generate, invert, load_model
from energyql.cli.main import app
from energyql.editing.inversion import pixel_error
from energyql.editing.settings import InversionSettings
from energyql.editing.start import as_images, open_picture
from energyql.errors import ArgumentError

QUICK = InversionSettings(z_evaluations=25, w_evaluations=15, candidates=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_model(tmp_path_factory.mktemp("model"), space="z"))


@pytest.fixture(scope="module")
def pictures(model):
    return generate("TRUE OR smile", 3, model=model, seed=12, progress=False).images


@pytest.fixture(scope="module", autouse=True)
def no_warnings():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run(pictures, model, **settings):
    return invert(pictures, model=model, settings=QUICK, progress=False, **settings)


def test_each_space_comes_nearer(model, pictures):
    settings = InversionSettings(features=0.0, offset=1e-5, candidates=8)
    found = {
        space: invert(pictures, model=model, settings=settings, space=space, progress=False)
        for space in ("z", "w", "w+")
    }
    with torch.inference_mode():  # before pixels are cut to their range, because so the search sees them
        drawn = [model.generator.synthesize(found[space].result.w) for space in ("z", "w", "w+")]
    errors = [pixel_error(images, as_images(pictures, images)).mean() for images in drawn]
    assert max(errors[1:]) < errors[0]
    assert found["z"].pixel_error.mean() < 0.2
    assert found["w"].result.w.shape == (3, CONFIG.w_dim)
    assert found["w+"].result.w.shape == (3, CONFIG.num_ws, CONFIG.w_dim)
    assert found["w"].comparison().width > 300
    assert "mean absolute pixel error" in repr(found["w"])


def test_what_an_inversion_tells_is_what_its_latents_draw(model, pictures):
    found = run(pictures, model)
    with torch.inference_mode():
        drawn = model.generator.synthesize(found.result.w).clamp(-1, 1)
    again = pixel_error(drawn, as_images(pictures, drawn)).numpy()
    assert np.allclose(again, found.pixel_error, atol=1e-3)


def test_any_module_can_be_the_perceptual_network(model, pictures):
    blind = run(pictures[:1], model, perceptual=torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten()))
    assert blind.pixel_error.shape == (1,)
    with pytest.raises(ArgumentError, match="perceptual must be"):
        run(pictures, model, perceptual="lpips")


def test_without_a_judge_pixels_count(tmp_path, pictures):
    found = run(pictures[:1], load_model(tiny_model(tmp_path, judge=False, space="z")))
    assert found.pixel_error[0] < 0.3


def test_an_edit_of_a_picture_keeps_what_w_has_of_its_own(model, pictures, tmp_path):
    path = tmp_path / "me.png"
    pictures[0].save(path)
    found = run([path], model)
    edited = edit(found, ["smile"], model=model, progress=False)
    offset = found.result.w - model.generator.encode(found.result.z, 0.7)
    after = edited.final.w - model.generator.encode(edited.final.z, 0.7)
    assert offset.abs().max() > 1e-2
    assert torch.allclose(offset, after, atol=1e-4)
    assert edited.final.provenance["edit"]["start"]["inverted"]["pictures"] == [str(path)]


def test_an_edit_inverts_pictures_itself(model, pictures):
    edited = edit(pictures[0], ["smile"], model=model, progress=False)
    assert len(edited) == 1
    assert edited.provenance["start"]["pictures"] == ["picture in memory"]


def test_heads_that_read_w(tiny, pictures):
    found = run(pictures[:1], tiny, space="w+")
    edited = edit(found, ["smile"], model=tiny, progress=False)
    assert (edited.final.probabilities["smile"] > 0.9).all()


def test_heads_that_read_the_direction_of_z(tmp_path, pictures):
    turning = load_model(tiny_model(tmp_path, space="direction"))
    found = run(pictures, turning)
    assert torch.allclose(found.result.z.norm(dim=1), torch.tensor(CONFIG.z_dim**0.5), atol=1e-3)
    with torch.inference_mode():
        drawn = turning.generator.synthesize(found.result.w).clamp(-1, 1)
    assert np.allclose(pixel_error(drawn, as_images(pictures, drawn)).numpy(), found.pixel_error, atol=1e-3)
    edited = edit(found, ["smile"], model=turning, progress=False)
    assert (edited.final.probabilities["smile"] > 0.9).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "y"}, r"pictures are inverted into z, w, w\+, not 'y'"),
        ({"settings": 3}, "settings must be InversionSettings"),
    ],
)
def test_mistakes(model, pictures, settings, message):
    with pytest.raises(ArgumentError, match=message):
        invert(pictures, model=model, progress=False, **settings)


@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_an_inversion_is_saved_and_edited(tiny, pictures, tmp_path, space):
    pictures[0].save(tmp_path / "me.png")
    found = CliRunner().invoke(
        app, ["invert", str(tmp_path / "me.png"), "--space", space, "-m", str(tiny), "-o", str(tmp_path / "me")]
    )
    assert found.exit_code == 0, found.output
    assert "me.png: mean absolute pixel error 0." in found.output
    assert (tmp_path / "me" / "comparison.png").is_file()
    edited = edit(tmp_path / "me", ["smile"], model=tiny, progress=False)
    assert edited.provenance["start"]["inverted"]["space"] == space


def test_a_comparison_is_saved(model, pictures, tmp_path):
    found = run(pictures[:1], model)
    with Image.open(found.save(tmp_path / "pair.jpg")) as pair:
        assert pair.size == found.comparison().size
    with pytest.raises(ArgumentError, match="cannot be saved as .txt"):
        found.save(tmp_path / "pair.txt")


def test_no_pictures(model, tmp_path):
    for nothing in (3, [], [1]):
        with pytest.raises(ArgumentError, match="is no picture"):
            invert(nothing, model=model)
    (tmp_path / "text.png").write_text("no picture")
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "text.png", "cannot read"),
        ("none.png", "there is no"),
    ):
        with pytest.raises(ArgumentError, match=message):
            open_picture(path)


@pytest.mark.parametrize("settings", [{"features": -1.0}, {"candidates": 1}, {"z_evaluations": 0}, {"pixels": "much"}])
def test_settings_out_of_range(settings):
    with pytest.raises(ArgumentError, match=next(iter(settings))):
        InversionSettings(**settings)


def test_pictures_are_cut_square_from_the_middle():
    wide = Image.new("L", (40, 20), 255)
    wide.paste(0, (0, 0, 10, 20))
    images = as_images([wide.convert("RGB")], torch.zeros(1, 3, 10, 10))
    assert images.shape == (1, 3, 10, 10)
    assert images.min() > 0.8
    assert as_images([wide.convert("RGB")], torch.zeros(1, 1, 10, 10)).shape == (1, 1, 10, 10)
