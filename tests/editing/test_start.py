"""What an edit can start from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toys import CONFIG

from energyql import generate
from energyql.editing.pictures import as_images, open_picture
from energyql.errors import ArgumentError


def test_seeds(edit):
    both = edit([5, 8], ["smile"])
    assert torch.equal(both.start.z[1:], edit(8, ["smile"]).start.z)


@pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray])
def test_latents(edit, kind):
    z = torch.randn(2, CONFIG.z_dim, generator=torch.Generator().manual_seed(0))
    start = edit(z if kind is torch.Tensor else z.double().numpy(), ["smile"]).start
    assert torch.allclose(start.z, z)


def test_a_result_keeps_its_truncation(edit, model):
    first = generate("beard", 2, model=model, truncation=0.6, progress=False)
    result = edit(first, ["smile"])
    assert result.start is first
    assert result.final.provenance["truncation"] == 0.6


def test_a_saved_edit(edit, edited, tmp_path):
    again = edit(edited.save(tmp_path / "edit"), ["glasses"])
    expected = edit(edited, ["glasses"])
    assert expected.start is edited.final
    assert torch.allclose(again.final.z, expected.final.z)
    assert again.final.provenance["truncation"] == edited.final.provenance["truncation"]
    assert again.start.index.tolist() == edited.final.index.tolist()
    first = edit(str(tmp_path / "edit" / "1"), ["glasses"])
    assert torch.equal(first.start.z, edited.steps[0].z)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("latents.safetensors", None),
        ("latents.safetensors", "text"),
        ("result.json", "{}"),
        ("result.json", '{"samples": [], "provenance": {}}'),
        ("result.json", '{"samples": 3, "provenance": 3}'),
    ],
)
def test_a_damaged_folder(edit, edited, tmp_path, name, content):
    folder = edited.final.save(tmp_path / "result")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ArgumentError, match="holds a damaged result"):
        edit(folder, ["glasses"])


def test_a_folder_without_a_result(edit, tmp_path):
    with pytest.raises(ArgumentError, match="holds no result"):
        edit(tmp_path, ["glasses"])


def test_a_run_in_parts(edit, edited, tmp_path):
    edited.final.save(tmp_path)
    edited.final.save(tmp_path / "01024")
    with pytest.raises(ArgumentError, match=r"holds a run in several parts\nname one of them, such as .*01024"):
        edit(tmp_path, ["glasses"])
    assert len(edit(tmp_path / "01024", ["glasses"])) == len(edited)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (None, "an edit cannot start from None"),
        (True, "an edit cannot start from True"),
        (-1, "seed must be a whole number"),
        ([], "an edit cannot start from"),
        ([1, "x.png"], "an edit cannot start from"),
        (torch.zeros(2, 3), r"floating point of shape \(n, 8\)"),
        (torch.full((1, 8), torch.nan), "must be z, finite"),
        ("missing.png", "there is no picture missing.png"),
        ("smile", "there is no picture smile\n.*`edit` takes what to edit first, then queries"),
    ],
)
def test_wrong_starts(edit, start, message):
    with pytest.raises(ArgumentError, match=message):
        edit(start, ["smile"])


def test_wrong_results(edit, model):
    with pytest.raises(ArgumentError, match="n is the number of samples of one seed"):
        edit([1, 2], ["smile"], n=2)
    result = generate("smile", 1, model=model, progress=False)
    with pytest.raises(ArgumentError, match="a result without pictures"):
        edit(result[[]], ["smile"])
    result.provenance["fingerprints"]["generator"] = "another"
    with pytest.raises(ArgumentError, match="made by another model"):
        edit(replace(result), ["smile"])


def test_files_that_are_no_pictures(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "text.png", "cannot read"), ("none.png", "there is")):
        with pytest.raises(ArgumentError, match=message):
            open_picture(path)


def test_pictures_are_cropped_square_around_the_centre():
    wide = Image.new("L", (40, 20), 255)
    wide.paste(0, (0, 0, 10, 20))
    images = as_images([wide.convert("RGB")], torch.zeros(1, 3, 10, 10))
    assert images.shape == (1, 3, 10, 10)
    assert images.min() > 0.8
    assert as_images([wide.convert("RGB")], torch.zeros(1, 1, 10, 10)).shape == (1, 1, 10, 10)
