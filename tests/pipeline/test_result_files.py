"""Results in files: what is written, what is refused, and what comes back."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from made_results import QUERY, make
from PIL import Image
from safetensors.torch import load_file, save
from toys import pixels

from energyql.errors import ArgumentError, DataError
from energyql.files import check_destination
from energyql.pipeline import result_folder as folders
from energyql.pipeline.result import Result
from energyql.render.pictures import png_bytes


class TestFolder:
    def test_everything_is_there(self, tmp_path):
        result, result_folder = make(), tmp_path / "run"
        assert result.save(result_folder) == result_folder
        names = ["00000.png", "00001.png", "00002.png", "grid.png", "latents.safetensors", "result.json"]
        assert sorted(path.name for path in result_folder.iterdir()) == names
        latents = load_file(result_folder / "latents.safetensors")
        assert torch.equal(latents["z"], result.z)
        assert torch.equal(latents["w"], result.w)
        with Image.open(result_folder / "00001.png") as picture:
            assert picture.tobytes() == result.images[1].tobytes()
            assert json.loads(picture.text["energyql"])["seed"] == 7

    def test_the_json_is_strict(self, tmp_path):
        make(judged={"age": np.array([0.5, np.nan, np.inf])}).save(tmp_path)

        def refuse(constant):
            raise AssertionError(f"{constant} is not JSON")

        data = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"), parse_constant=refuse)
        assert data["provenance"]["query"] == QUERY
        assert [sample["energy"] for sample in data["samples"]] == [0.0, 0.5, "Infinity"]
        assert [sample["judged"]["age"] for sample in data["samples"]] == [0.5, None, "Infinity"]
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

    def test_what_the_system_refuses(self, tmp_path):
        with pytest.raises(ArgumentError, match="is too long for a path"):
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

        monkeypatch.setattr(folders, "write_tensors", full)
        with pytest.raises(ArgumentError, match="No space left"):
            make().save(tmp_path / "run")
        assert not (tmp_path / "run" / "result.json").exists()

    def test_a_side_that_the_format_cannot_hold(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Result, "grid", lambda self: Image.new("RGB", (20_000, 2)))
        with pytest.raises(ArgumentError, match=r"cannot write .*\nsave as \.png"):
            make().save(tmp_path / "faces.webp")
        assert list(tmp_path.iterdir()) == []


def equal(left, right):
    """Whether two results hold the same, in every field."""
    for one, other in ((getattr(left, field.name), getattr(right, field.name)) for field in dataclasses.fields(left)):
        if isinstance(one, list) and isinstance(one[0], Image.Image):
            one, other = pixels(one), pixels(other)
        if isinstance(one, torch.Tensor):
            one, other = one.numpy(), other.numpy()
        np.testing.assert_equal(one, other)
    return True


class TestLoad:
    def test_everything_comes_back(self, tmp_path):
        odd = {
            "smile": np.array([True, False, True]),
            "hair": np.array(["Infinity", "dark red", ""]),
            "age": np.array([np.nan, -np.inf, 1 / 3]),
        }
        for number, result in enumerate([make(), make(judged=odd), make(energy=np.array([np.nan, -np.inf, 1e-300]))]):
            result_folder = tmp_path / str(number)
            result.save(result_folder)
            assert equal(Result.load(result_folder), result)
            assert equal(Result.load(str(result_folder)), Result.load(result_folder))

    def test_of_a_real_run(self, draw, tmp_path):
        result = draw()
        assert equal(Result.load(result.save(tmp_path)), result)

    def test_verdicts_that_nobody_gave(self, tmp_path):
        make().save(tmp_path)
        damage(tmp_path, lambda data: [sample.update(satisfied=None) for sample in data["samples"]])
        assert Result.load(tmp_path).satisfied is None

    def test_a_second_smaller_result_leaves_nothing_of_the_first(self, tmp_path):
        (tmp_path / "00077.txt").write_text("mine")
        make(3).save(tmp_path)
        make(1).save(tmp_path)
        names = ["00000.png", "00077.txt", "grid.png", "latents.safetensors", "result.json"]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        assert len(Result.load(tmp_path)) == 1

    def test_pictures_of_the_users_are_left_alone(self, tmp_path):
        (tmp_path / "00077.png").write_bytes(b"mine")
        make(1).save(tmp_path)
        assert (tmp_path / "00077.png").read_bytes() == b"mine"

    def test_no_result(self, tmp_path):
        for result_folder in (tmp_path, tmp_path / "missing"):
            with pytest.raises(DataError, match="holds no result\nname one that generate"):
                Result.load(result_folder)

    @pytest.mark.parametrize(
        "change",
        [
            lambda data: data.pop("samples"),
            lambda data: data.update(samples=[]),
            lambda data: data.update(samples=3),
            lambda data: data.update(samples=[1, 2, 3]),
            lambda data: data.update(provenance=[]),
            lambda data: data["provenance"].pop("query"),
            lambda data: data["provenance"].update(judge=3),
            lambda data: data.update(statistics={"a": []}),
            lambda data: data["samples"].append(data["samples"][0]),
            lambda data: data["samples"][1].update(picture="../../secret.png"),
            lambda data: data["samples"][1].update(picture="00099.png"),
            lambda data: data["samples"][1].update(picture=None),
            lambda data: data["samples"][1].update(index=True),
            lambda data: data["samples"][1].update(index=1 << 80),
            lambda data: data["samples"][1].update(index=-1),
            lambda data: data["samples"][1].update(energy="high"),
            lambda data: data["samples"][1].update(energy=10**400),
            lambda data: data["samples"][1].update(satisfied=1),
            lambda data: data["samples"][1].update(status="EXCELLENT"),
            lambda data: data["samples"][1].update(status=[]),
            lambda data: data["samples"][1].pop("judged"),
            lambda data: data["samples"][1].update(judged={"cat": True}),
            lambda data: data["samples"][1]["judged"].update(smile=[1]),
            lambda data: data["samples"][1]["probabilities"].update(age=[0.5]),
            lambda data: [sample.update(probabilities=0.5) for sample in data["samples"]],
        ],
    )
    def test_damaged_measurements_are_refused(self, tmp_path, change):
        make().save(tmp_path)
        damage(tmp_path, change)
        with pytest.raises(DataError, match="holds a damaged result: "):
            Result.load(tmp_path)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("result.json", b"{"),
            ("result.json", b"[]"),
            ("result.json", b"[" * 100_000),
            ("result.json", b"\xff"),
            ("latents.safetensors", b""),
            ("latents.safetensors", b"\xff" * 100),
            ("latents.safetensors", save({"z": torch.ones(3, 2)})),
            ("latents.safetensors", save({"z": torch.ones(2, 2), "w": torch.ones(3, 2)})),
            ("latents.safetensors", save({"z": torch.ones(3, 2), "w": torch.ones(3, 2, dtype=torch.int8)})),
            ("00001.png", b""),
            ("00001.png", b"GIF89a"),
            ("00001.png", png_bytes(Image.effect_noise((64, 64), 50))[:500]),
        ],
    )
    def test_damaged_files_are_refused(self, tmp_path, name, content):
        make().save(tmp_path)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="holds a damaged result: "):
            Result.load(tmp_path)


def damage(result_folder, change):
    data = json.loads((result_folder / "result.json").read_text(encoding="utf-8"))
    change(data)
    (result_folder / "result.json").write_text(json.dumps(data), encoding="utf-8")
