import json
import os

import numpy as np
import pytest
import torch
from markup import Document, decode
from PIL import Image, ImageColor
from safetensors.torch import load_file

from energyql.errors import ArgumentError
from energyql.files import check_destination
from energyql.pipeline import result as module
from energyql.pipeline.result import MOST_PICTURES, MOST_QUERY, Result, alternative_text, reading
from energyql.render.pictures import NO, YES
from energyql.sampling import Status

QUERY = "größe AND 😀 OR smile"


def make(n=3, energy=None, semantics="exact", **changes):
    energy = np.array([0.0, 0.5, np.inf][:n] if energy is None else energy)
    fields = {
        "images": [Image.new("RGB", (16, 16), (i * 60, 0, 0)) for i in range(n)],
        "z": torch.arange(8.0 * n).reshape(n, 8),
        "w": torch.arange(16.0 * n).reshape(n, 16),
        "index": np.arange(n),
        "energy": energy,
        "probabilities": {
            "smile": np.arange(n) / 10,
            "hair": {"red": np.arange(n) / 10, "black": np.ones(n)},
            "age": (np.arange(n) / 10, np.full(n, 0.1)),
        },
        "judged": {"smile": np.array([True, False, True][:n]), "hair": np.array(["red"] * n), "age": np.full(n, 0.5)},
        "satisfied": np.array([True, False, True][:n]),
        "status": [Status.OK, Status.STEP_LIMIT, Status.OK][:n],
        "statistics": {"evaluations_mean": 3.0},
        "provenance": {"query": QUERY, "seed": 7, "model": "tiny", "semantics": semantics, "judge": "image judge"},
    }
    if "satisfied" in changes:  # not judged
        heads = {"smile": "balanced accuracy 0.9", "hat": None}
        fields["provenance"] |= {"judge": None, "unjudged": "the model has no judge", "heads": heads}
    return Result(**(fields | changes))


def test_a_summary_counts_and_says_who_says_so():
    assert make().summary() == "2 of 3 satisfy the query, says the image judge; the solver could not finish 1"
    assert make(1).summary() == "1 of 1 satisfy the query, says the image judge"
    assert len(make()) == 3
    assert repr(make()).startswith(f"<Result of '{QUERY}': 2 of 3")


def test_what_nobody_judged_has_no_tick_and_no_cross(tmp_path):
    result = make(2, satisfied=None, judged={})
    heads = "by the attribute heads (smile: balanced accuracy 0.9, hat: quality not measured)"
    assert result.verdict() == f"not judged: the model has no judge; mean P 0.80 {heads}"
    assert make(2, semantics="lace", satisfied=None).verdict().endswith(f"mean energy 0.25 {heads}")
    assert result.select([1]).satisfied is Result.join([result, result]).satisfied is None
    marks = {ImageColor.getrgb(YES), ImageColor.getrgb(NO)}
    assert not {colour for _, colour in result.grid().getcolors(1 << 16)} & marks
    assert {colour for _, colour in make(2).grid().getcolors(1 << 16)} >= marks
    page = Document(result._repr_html_())
    assert page.all("svg") == page.all("path") == []
    assert page.all("img")[0]["alt"] == f"Picture 1 of 2. The query {QUERY} is not judged."
    saved = json.loads((result.save(tmp_path / "run") / "result.json").read_text(encoding="utf-8"))
    assert [sample["satisfied"] for sample in saved["samples"]] == [None, None]
    values = make(2, satisfied=None, judged={"hair": np.array(["red", "black"])}).values
    assert {name: column.tolist() for name, column in values.items()} == {
        "smile": [False, False], "hair": ["red", "black"], "age": [0.0, 0.1]
    }  # fmt: skip
    assert result.values["hair"].tolist() == ["black", "black"]


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".jpeg", ".webp"])
def test_a_grid_in_every_format(tmp_path, suffix):
    path = tmp_path / "new" / f"faces{suffix}"
    assert make().save(path) == path
    with Image.open(path) as picture:
        assert picture.size == make().grid().size
        assert picture.format == {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(suffix, "PNG")
    assert list(path.parent.iterdir()) == [path]


def test_a_png_carries_its_provenance(tmp_path):
    with Image.open(make().save(str(tmp_path / "faces.png"))) as picture:
        assert json.loads(picture.text["energyql"]) == make().provenance


class TestFolder:
    def test_everything_is_there(self, tmp_path):
        result, folder = make(), tmp_path / "run"
        assert result.save(folder) == folder
        names = ["00000.png", "00001.png", "00002.png", "grid.png", "latents.safetensors", "result.json"]
        assert sorted(path.name for path in folder.iterdir()) == names
        latents = load_file(folder / "latents.safetensors")
        assert torch.equal(latents["z"], result.z)
        assert torch.equal(latents["w"], result.w)
        with Image.open(folder / "00001.png") as picture:
            assert picture.tobytes() == result.images[1].tobytes()
            assert json.loads(picture.text["energyql"])["seed"] == 7

    def test_the_json_is_strict(self, tmp_path):
        make(judged={"age": np.array([0.5, np.nan, np.inf])}).save(tmp_path)

        def refuse(constant):
            raise AssertionError(f"{constant} is not JSON")

        data = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"), parse_constant=refuse)
        assert data["provenance"]["query"] == QUERY
        assert [sample["energy"] for sample in data["samples"]] == [0.0, 0.5, None]
        assert [sample["judged"]["age"] for sample in data["samples"]] == [0.5, None, None]
        assert data["samples"][1]["status"] == "STEP_LIMIT"
        assert data["samples"][0]["satisfied"] is True

    def test_a_folder_with_a_dot_that_is_there(self, tmp_path):
        (tmp_path / "run.v2").mkdir()
        make().save(tmp_path / "run.v2")
        assert (tmp_path / "run.v2" / "grid.png").exists()

    def test_latents_that_are_one_tensor(self, tmp_path):
        z = torch.ones(3, 8)
        make(z=z, w=z).save(tmp_path)
        assert torch.equal(load_file(tmp_path / "latents.safetensors")["w"], z)


class TestFailures:
    @pytest.mark.parametrize("name", ["faces.gif", "faces.txt", "run.v2"])
    def test_endings(self, tmp_path, name):
        with pytest.raises(
            ArgumentError, match=r"cannot be saved as \.\w+\nend the path in \.png, .* or name a folder"
        ):
            check_destination(tmp_path / name)

    def test_a_folder_called_faces_png(self, tmp_path):
        (tmp_path / "faces.png").mkdir()
        with pytest.raises(ArgumentError, match="it is a folder"):
            make().save(tmp_path / "faces.png")
        assert list((tmp_path / "faces.png").iterdir()) == []

    @pytest.mark.parametrize("name", ["file", "file/run", "file/faces.png", "file/deep/faces.png"])
    def test_below_a_file(self, tmp_path, name):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(ArgumentError, match="file is not a folder"):
            make().save(tmp_path / name)
        assert (tmp_path / "file").read_text() == "mine"

    def test_where_nothing_can_be_written(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(ArgumentError, match="is not writable"):
            check_destination(tmp_path / "faces.png")

    def test_what_the_system_refuses(self, tmp_path):
        with pytest.raises(ArgumentError, match=r"cannot write .*: File name too long"):
            make().save(tmp_path / ("n" * 300 + ".png"))
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_fills_up_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "faces.png"
        path.write_bytes(b"old")

        def full(self, target, **settings):
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", full)
        with pytest.raises(ArgumentError, match=r"cannot write .*faces\.png: No space left on device"):
            make().save(path)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_folder_that_fails_has_no_result_file(self, tmp_path, monkeypatch):
        def full(path, tensors):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module, "write_tensors", full)
        with pytest.raises(ArgumentError, match="No space left"):
            make().save(tmp_path / "run")
        assert not (tmp_path / "run" / "result.json").exists()

    def test_a_side_that_the_format_cannot_hold(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Result, "grid", lambda self: Image.new("RGB", (20_000, 2)))
        with pytest.raises(ArgumentError, match=r"cannot write .*\nsave as \.png"):
            make().save(tmp_path / "faces.webp")
        assert list(tmp_path.iterdir()) == []


class TestGrid:
    def test_columns(self):
        assert make().grid(columns=1).height > make().grid().height
        with pytest.raises(ArgumentError, match="at least one column, not 0"):
            make().grid(columns=0)

    @pytest.mark.parametrize(
        ("semantics", "captions"), [("exact", ["P 0.050"]), ("lace", ["E 2.996"]), ("product", ["E 2.996"])]
    )
    def test_only_exact_energies_are_probabilities(self, monkeypatch, semantics, captions):
        seen = {}
        monkeypatch.setattr(module, "label_grid", lambda images, **settings: seen.update(settings))
        make(1, energy=[-np.log(0.05)], semantics=semantics).grid()
        assert seen["captions"] == captions
        probability = make(energy=[0.0, np.inf, np.log(2)], semantics=semantics).probability
        assert probability is None if semantics != "exact" else probability == pytest.approx([1, 0, 0.5])
        assert seen["title"] == QUERY
        assert seen["verdicts"] == [True]

    def test_energies_without_bounds(self):
        make(energy=[np.nan, np.inf, -2000.0], semantics="lace").grid()


class TestParts:
    def test_some_samples(self):
        some = make().select([2, 0])
        assert some.index.tolist() == [2, 0]
        assert [image.getpixel((0, 0))[0] for image in some.images] == [120, 0]
        assert (some.z[:, 0].tolist(), some.w[:, 0].tolist()) == ([16.0, 0.0], [32.0, 0.0])
        assert some.energy.tolist() == [np.inf, 0.0]
        read = some.probabilities
        assert [column.tolist() for column in (read["smile"], read["hair"]["red"], read["age"][0])] == [[0.2, 0.0]] * 3
        assert some.judged["smile"].tolist() == some.satisfied.tolist() == [True, True]
        assert (some.status, some.provenance["n"]) == ([Status.OK, Status.OK], 2)

    def test_joined_again(self):
        whole = make()
        joined = Result.join([whole.select([0]), whole.select([]), whole.select([1, 2])])
        assert torch.equal(joined.z, whole.z)
        assert str(joined.probabilities) == str(whole.probabilities)
        assert joined.status == whole.status
        assert len(joined.images) == joined.provenance["n"] == 3

    def test_no_parts(self):
        with pytest.raises(ArgumentError, match="at least one result"):
            Result.join([])

    def test_nothing_to_save(self, tmp_path):
        with pytest.raises(ArgumentError, match="there is no picture to save: 0 of 0 satisfy"):
            make().select([]).save(tmp_path / "faces.png")
        assert not list(tmp_path.iterdir())


JUDGED = {
    "smile": np.array([True, False]),
    "hair": np.array(["red", "dark brown"]),
    "age": np.array([0.125, 0.5]),
    "hat": np.array([False, False]),
}


@pytest.mark.parametrize(
    ("index", "only", "expected"),
    [
        (0, None, "smile, hair = red, age = 0.12; no hat"),
        (1, None, "hair = dark brown, age = 0.50; no smile, hat"),
        (1, ["hat"], "no hat"),
        (0, ["smile", "bald"], "smile"),
        (0, [], ""),
    ],
)
def test_a_reading(index, only, expected):
    assert reading(JUDGED, index, only) == expected


def test_alternative_text():
    assert alternative_text(JUDGED, 0, 2, "image judge", [("smile", True), ("hat", False)]) == (
        "Picture 1 of 2. Image judge: smile, hair = red, age = 0.12; no hat. "
        "The query smile holds. The query hat does not hold."
    )
    assert alternative_text({}, 0, 1, None, [("x" * 9999, True)]) == (
        f"Picture 1 of 1. The query {'x' * MOST_QUERY}… holds."
    )


def many(count):
    return make(3).select([0, 1] * (count // 2) + [2] * (count % 2))


def test_a_notebook_shows_pictures_verdicts_and_words():
    html = make(3)._repr_html_()
    document = Document(html)
    images = document.all("img")
    assert [decode(image["src"]).getpixel((0, 0))[0] for image in images] == [0, 60, 120]
    read = "Image judge: hair = red, age = 0.50; no smile"
    assert images[1]["alt"] == f"Picture 2 of 3. {read}. The query {QUERY} does not hold."
    assert document.texts("code") == [QUERY]
    assert len({attributes["d"] for attributes in document.all("path")}) == 2
    assert f"{make().summary()}. Model tiny, seed 7, exact semantics" in document.texts("div")
    assert make()._repr_png_().startswith(b"\x89PNG")


def test_a_notebook_shows_not_too_many_pictures():
    html = many(MOST_PICTURES + 3)._repr_html_()
    assert len(Document(html).all("img")) == MOST_PICTURES
    assert "Not shown: 3 more" in html
    assert Document(many(0)._repr_html_()).all("img") == []
