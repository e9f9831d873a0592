"""Photographs beside their reconstructions, pictures that a generator cannot draw, and folders that are saved again."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from typer.testing import CliRunner

import energyql
from energyql import Inversion, OutOfDomainError, generate
from energyql.attributes.predictions import Categorical, YesNo
from energyql.cli.main import app
from energyql.editing.filmstrip import draw_filmstrip, start_columns
from energyql.editing.invert import Examples, _read
from energyql.editing.settings import InversionSettings
from energyql.errors import ArgumentError, DataError
from energyql.render.pictures import CAPTION, GAP, NO, YES
from energyql.vocabulary import AttributeSpec, Vocabulary

QUICK = InversionSettings(z_evaluations=20, w_evaluations=30, candidates=64)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))


@pytest.fixture(scope="module")
def pictures(model):
    return generate("smile OR beard", 2, model=model, seed=12, progress=False).images


@pytest.fixture(scope="module")
def invert(model):
    return partial(energyql.invert, model=model, settings=QUICK, progress=False, anyway=True)


@pytest.fixture(scope="module")
def inverted(invert, pictures):
    """A picture of the model and one that it cannot draw; not to be changed."""
    wide = Image.new("RGB", (24, 16))
    wide.paste(pictures[1], (4, 0))
    return invert([wide, NOISE])


@pytest.fixture(scope="module")
def edited(edit, inverted):
    return edit(inverted, ["smile", "beard"])


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def colours(picture):
    return {colour for _, colour in picture.getcolors(1 << 20)}


class TestPicturesThatCannotBeDrawn:
    def test_they_are_refused_before_anything_is_edited(self, edit, model):
        for call in (partial(energyql.invert, NOISE, model=model, progress=False), partial(edit, NOISE, ["smile"])):
            with pytest.raises(OutOfDomainError, match=r"'tiny' cannot draw the picture \(distance") as refused:
                call()
            assert "anyway" in refused.value.hint

    def test_commands_write_nothing(self, tiny, tmp_path):
        NOISE.save(tmp_path / "noise.png")
        for arguments in (["invert", "noise.png"], ["edit", "smile", "-s", "noise.png"]):
            arguments = [str(tmp_path / word) if word == "noise.png" else word for word in arguments]
            done = CliRunner().invoke(app, [*arguments, "-m", str(tiny), "-o", str(tmp_path / "out")])
            assert isinstance(done.exception, OutOfDomainError)
            assert files(tmp_path) == {"noise.png"}

    def test_asked_for_they_are_marked(self, inverted, edited):
        assert inverted.drawable.tolist() == [True, False]
        assert inverted.summary().endswith("not the given picture, which the generator cannot draw: #1")
        assert edited.summary().startswith(f"0. {inverted.summary()}\n1. ")
        assert inverted.result.satisfied is None  # so no picture of it has a tick

    def test_a_command_goes_on_if_asked(self, tiny, tmp_path):
        NOISE.save(tmp_path / "noise.png")
        asked = ["edit", "smile", "--anyway", "-s", str(tmp_path / "noise.png"), "-m", str(tiny)]
        done = CliRunner().invoke(app, [*asked, "-o", str(tmp_path / "edit")])
        assert done.exit_code == 0, done.output
        assert "which the generator cannot draw: #0" in " ".join(done.output.split())
        assert len(energyql.Inversion.load(tmp_path / "edit" / "0-start")) == 1


class TestOriginals:
    def test_they_stand_beside_the_reconstructions(self, edit, edited, inverted):
        assert edited.inversion is inverted
        strip, plain = edited.filmstrip(), edit(inverted.result, edited.queries).filmstrip()
        assert strip.width == plain.width + 128 + GAP  # a column more
        shown = inverted.pictures[1].resize((128, 128), Image.Resampling.BICUBIC)
        below = strip.height - CAPTION - GAP
        assert strip.crop((GAP, below - 128, GAP + 128, below)).tobytes() == shown.tobytes()

    def test_a_picture_that_cannot_be_drawn_has_a_cross(self, inverted):
        columns = start_columns(inverted.result, inverted)
        assert ImageColor.getrgb(NO) in colours(draw_filmstrip(columns, [1]))
        assert not {ImageColor.getrgb(NO), ImageColor.getrgb(YES)} & colours(draw_filmstrip(columns, [0]))

    def test_they_are_cropped_as_the_search_saw_them(self, inverted, pictures):
        assert [picture.size for picture in inverted.pictures] == [(16, 16)] * 2
        assert [p.tobytes() for p in inverted.pictures] == [pictures[1].tobytes(), NOISE.tobytes()]

    def test_they_are_saved_and_loaded(self, inverted, edit, edited, tmp_path):
        loaded = Inversion.load(inverted.save(tmp_path / "me"))
        assert [p.tobytes() for p in loaded.pictures] == [p.tobytes() for p in inverted.pictures]
        assert loaded.summary() == inverted.summary()
        assert torch.equal(loaded.result.z, inverted.result.z)
        again = edit(tmp_path / "me", edited.queries)
        assert again.summary() == edited.summary()
        assert isinstance(edit(edited.save(tmp_path / "edit") / "0-start", ["smile"]).inversion, Inversion)
        assert edit(tmp_path / "edit", ["smile"]).inversion is None  # it continues the last step

    @pytest.mark.parametrize("damage", ["missing", "facts", "count"])
    def test_a_damaged_folder(self, inverted, edit, tmp_path, damage):
        folder = inverted.save(tmp_path)
        data = json.loads((folder / "result.json").read_text())
        if damage == "missing":
            (folder / "originals" / "00001.png").unlink()
        elif damage == "facts":
            del data["provenance"]["inverted"]
        else:
            data["provenance"]["inverted"]["drawable"] = [True]
        (folder / "result.json").write_text(json.dumps(data))
        for call in (partial(Inversion.load, folder), partial(edit, folder, ["smile"])):
            with pytest.raises(DataError, match="inversion"):
                call()


class TestSavedAgain:
    def test_an_inversion(self, invert, inverted, pictures, tmp_path):
        smaller = invert(pictures[:1])
        fresh = files(smaller.save(tmp_path / "fresh"))
        assert fresh == {"originals/00000.png", "00000.png", "comparison.png", "grid.png", "latents.safetensors"} | {
            "result.json"
        }
        inverted.save(tmp_path / "again")
        (tmp_path / "again" / "notes.txt").write_text("mine")
        assert files(smaller.save(tmp_path / "again")) == fresh | {"notes.txt"}

    @pytest.mark.parametrize("before", ["edit", "inversion"])
    def test_an_edit(self, edit, edited, inverted, tmp_path, before):
        shorter = edit(5, ["smile"])
        fresh = files(shorter.save(tmp_path / "fresh"))
        {"edit": edited, "inversion": inverted}[before].save(tmp_path / "again")
        (tmp_path / "again" / "7").mkdir()
        (tmp_path / "again" / "7" / "notes.txt").write_text("mine")
        assert files(shorter.save(tmp_path / "again")) == fresh | {"7/notes.txt"}

    def test_a_run_or_pictures_to_label_stay(self, edited, inverted, tmp_path):
        edited.final.save(tmp_path / "a run")
        (tmp_path / "pictures to label").mkdir()
        (tmp_path / "pictures to label" / "pictures.json").write_text("{}")
        before = files(tmp_path)
        for name in ("a run", "pictures to label"):
            for made in (edited, inverted):
                with pytest.raises(ArgumentError, match=f"holds {name}"):
                    made.save(tmp_path / name)
        assert files(tmp_path) == before

    def test_an_inversion_stays_where_a_result_is_saved(self, edited, inverted, tmp_path):
        before = files(inverted.save(tmp_path))
        with pytest.raises(ArgumentError, match="holds an inversion"):
            edited.final.save(tmp_path)
        assert files(tmp_path) == before

    @pytest.mark.parametrize("name", ["filmstrip.png", "comparison.png", "1/00000.png", "originals/00000.png"])
    def test_files_of_others_stay(self, edited, inverted, tmp_path, name):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
        for made in (edited, inverted):
            with pytest.raises(ArgumentError, match=f"{name} is there already"):
                made.save(tmp_path)
        assert (tmp_path / name).read_bytes() == b"mine"

    def test_a_picture_of_another_name_makes_no_inversion(self, edited, tmp_path):
        edited.final.save(tmp_path)
        (tmp_path / "comparison.png").write_bytes(b"mine")
        with pytest.raises(ArgumentError, match="holds a run"):
            edited.save(tmp_path)

    def test_an_inversion_in_place_of_an_edit(self, edited, inverted, tmp_path):
        fresh = files(inverted.save(tmp_path / "fresh"))
        edited.save(tmp_path / "again")
        assert files(inverted.save(tmp_path / "again")) == fresh


def test_ridge_regression_predicts_w():
    """Against least squares with the same penalty, solved and left out one by one in the other form."""
    random = torch.Generator().manual_seed(0)
    thumbnails, w = torch.randn(40, 6, generator=random), torch.randn(40, 3, generator=random)
    w += thumbnails @ torch.randn(6, 3, generator=random)

    def fit(rows, known, penalty):
        x, y = known[rows], w[rows] - w.mean(0)
        return torch.linalg.solve(x.T @ x + penalty * torch.eye(6), x.T @ y)

    scaled = (thumbnails - thumbnails.mean(0)) / thumbnails.var(0).sum().sqrt()
    penalty = 0.1 * scaled.square().sum(1).mean()
    everyone = torch.arange(40)
    examples = Examples(torch.zeros(40, 1), w, torch.tensor([1, 1, 1]), thumbnails, torch.tensor(1.0))
    outcome, error = examples.predict_w(thumbnails[:5], None)
    assert torch.allclose(outcome, scaled[:5] @ fit(everyone, scaled, penalty) + w.mean(0), atol=1e-4)
    left_out = [w[i] - w.mean(0) - scaled[i] @ fit(everyone[everyone != i], scaled, penalty) for i in range(40)]
    assert error == pytest.approx(float(torch.stack(left_out).square().mean()), rel=1e-3)


def test_only_clear_readings_lead_the_search():
    read = {
        "bald": YesNo(torch.tensor([4.0, 0.4])),
        "hair": Categorical(torch.tensor([[5.0, 0.0], [0.5, 0.0]]), ("r", "b")),
    }
    specs = [
        AttributeSpec("bald", "yes/no"),
        AttributeSpec("hair", "categorical", values=("r", "b")),
        AttributeSpec("hat", "yes/no"),
    ]
    calls = []
    judge = lambda images: calls.append(1) or {**read, "hat": [True, False]}  # noqa: E731
    names, outputs, clear = _read(judge, torch.zeros(2, 3, 4, 4), Vocabulary(specs))
    assert names == ("bald", "hair", "hat")
    assert outputs.tolist() == [[6.0, 12.0, 0.0, 6.0], [6.0, 12.0, 0.0, -6.0]]
    assert clear.tolist() == [[True] * 3, [False, False, True]]
    assert len(calls) == 1
