"""Model folders whose files are something else: devices that never end, folders, loops, numbers without end."""

import os
import shutil

import pytest
from evaluation.lively import known_model
from PIL import Image

from energyql import Result, generate, load_generator, read_weights, write_dataset
from energyql.attributes.quality import read_reports
from energyql.editing.pictures import open_picture
from energyql.errors import DataError, EnergyQLError, ModelError
from energyql.files import MOST_JSON, fingerprint, read_bytes, read_json, read_tensors
from energyql.models import read_vocabulary
from energyql.pipeline.model import load_model
from energyql.pipeline.queries import read_queries
from energyql.pipeline.score import rank_table
from energyql.pipeline.session import open_session
from energyql.training.labels import read_label_table

FILES = [
    "judge.safetensors",
    "judge.json",
    "attributes.safetensors",
    "vocabulary.json",
    "generator.safetensors",
    "config.json",
]


def put(kind, path):
    """Put something in place of a file."""
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        other = path.with_name("other-" + path.name)
        other.symlink_to(path.name)
        path.symlink_to(other.name)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(kind)


KINDS = ["folder", "loop", "pipe", "/dev/full", "/dev/zero"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_in_place_of_a_file(tiny, tmp_path, name, kind):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    put(kind, folder / name)
    for call in (load_model, lambda folder: open_session(folder, "cpu")):
        with pytest.raises(ModelError):
            call(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [read_json, read_tensors, fingerprint, lambda path: read_bytes(path, 1 << 20)])
def test_nothing_that_may_never_end_is_read(tmp_path, read, kind):
    put(kind, tmp_path / "file")
    with pytest.raises(ModelError, match=r"cannot read .*file"):
        read(tmp_path / "file")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(MOST_JSON + 1)  # a hole, which takes no room
    monkeypatch.setattr("pathlib.Path.open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(ModelError, match=r"a\.json: it is larger than 64 MiB"):
        read_json(path)


@pytest.mark.parametrize("number", ["9" * 21, "-" + "9" * 400, "1" + "0" * 5000])
def test_huge_whole_numbers(tiny, tmp_path, number):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    for name, part in {"config.json": "0.7", "vocabulary.json": "0.05", "judge.json": "16"}.items():
        path = folder / name
        text = path.read_text()
        assert part in text
        path.write_text(text.replace(part, number, 1))
        with pytest.raises(ModelError, match=rf"cannot read .*{name}: (a number has|Exceeds the limit)"):
            (read_vocabulary if name == "vocabulary.json" else load_model)(folder)
        path.write_text(text)
    with pytest.raises(ModelError):
        read_json(written(tmp_path / "a.json", f'{{"a": {number}}}'))
    assert read_json(written(tmp_path / "a.json", f'{{"a": {2**64 - 1}}}')) == {"a": 2**64 - 1}


def written(path, text):
    path.write_text(text)
    return path


def test_reports(tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    put("/dev/zero", folder / "report.json")
    assert read_reports(folder) == {}


def opened(*_, **__):
    pytest.fail("it was opened")


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
@pytest.mark.parametrize(
    "read",
    [
        open_picture, read_queries, read_label_table, read_weights, load_generator,
        lambda path: rank_table("smile", path), lambda path: write_dataset(path, path.parent / "out"),
    ],
)  # fmt: skip
def test_no_file_that_a_user_names_may_never_end(tmp_path, monkeypatch, read, kind):
    """A pipe that nobody writes to would wait for ever, and a device would fill the memory."""
    put(kind, tmp_path / "file")
    monkeypatch.setattr(Image, "open", opened)
    monkeypatch.setattr("pathlib.Path.open", opened)
    with pytest.raises(EnergyQLError, match=r"cannot read .*: (it is no regular file|it is not a file)"):
        read(tmp_path / "file")


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
def test_no_picture_of_a_saved_result_may_never_end(tmp_path, monkeypatch, kind):
    generate("a", 1, model=known_model(), progress=False).save(tmp_path)
    put(kind, tmp_path / "00000.png")
    monkeypatch.setattr(Image, "open", opened)
    with pytest.raises(DataError, match=r"damaged result: cannot read .*00000\.png: it is no regular file\ndraw it"):
        _ = Result.load(tmp_path).images
