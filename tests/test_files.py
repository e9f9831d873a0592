import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import energyql
from energyql import Directions, Gallery, Inversion, Result, sample_pictures
from energyql import files as files_module
from energyql.errors import ArgumentError, ModelError
from energyql.files import (
    as_path,
    changing,
    check_destination,
    fingerprint,
    read_json,
    read_tensors,
    replacing,
    temporary,
    write_json,
    write_tensors,
    write_text,
)


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as files_module:
        files_module.write_text("one")
        assert not path.exists()
        assert files_module.parent == path.parent
        assert files_module.suffix == ".txt"
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as files_module:
            files_module.write_text("half")
            raise RuntimeError("no more paper")

    with pytest.raises(RuntimeError, match="paper"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_any_new_file(tmp_path):
    write_text(tmp_path / "a.txt", "a")
    (tmp_path / "b.txt").write_text("b")
    write_tensors(tmp_path / "c.safetensors", {"a": torch.ones(2)})
    modes = {stat.S_IMODE(os.stat(path).st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_long_name_needs_no_longer_one(tmp_path):
    path = tmp_path / ("n" * 250 + ".txt")
    write_text(path, "a")
    assert path.read_text() == "a"


def test_text_and_json_are_utf8(tmp_path):
    write_json(tmp_path / "a.json", {"query": "größe 😀"})
    assert "größe 😀" in (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert read_json(tmp_path / "a.json") == {"query": "größe 😀"}


def test_tensors(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"view": base.T, "half": base.half(), "grad": torch.ones(2, requires_grad=True), "scalar": base[0, 1]}
    write_tensors(tmp_path / "a.safetensors", tensors)
    loaded = load_file(tmp_path / "a.safetensors")
    assert {name: tensor.dtype for name, tensor in loaded.items()} == {n: t.dtype for n, t in tensors.items()}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot read"),
        (b"{", "cannot read"),
        (b"\xff\xfe", "cannot read"),
        (b"[1]", "must hold a JSON object"),
        (b"[" * 100_000, "cannot read"),
        (b'{"a":' * 100_000, "cannot read"),
    ],
)
def test_broken_json(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_json(path)
    assert "a.json" in str(caught.value)


def test_no_json(tmp_path):
    with pytest.raises(ModelError, match=r"a\.json is missing"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ModelError, match="cannot read"):
        read_json(tmp_path)


def test_fingerprint(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * (3 << 20))
    assert fingerprint(path) == hashlib.sha256(b"x" * (3 << 20)).hexdigest()


class TestWhatKilledProcessesLeave:
    NAMES = (".energyql-0123456789abcdef.png", ".energyql-0123456789abcdee", ".energyql-0123456789abcded.odd suffix")

    def left(self, folder):
        for name in self.NAMES:
            (folder / name).write_text("half")
        (folder / ".energyql-0123456789abcdec").mkdir()
        (folder / ".energyql-0123456789abcdec" / "a.png").write_text("half")
        for mine in (".energyql-notes", ".0123456789abcdef.png", "energyql-0123456789abcdef"):
            (folder / mine).write_text("mine")

    def test_is_removed_by_the_next_write(self, tmp_path):
        self.left(tmp_path)
        write_text(tmp_path / "a.txt", "a")
        kept = {".energyql-notes", ".0123456789abcdef.png", "energyql-0123456789abcdef", "a.txt"}
        assert {path.name for path in tmp_path.iterdir()} == kept

    def test_is_looked_for_once_in_a_folder(self, tmp_path):
        write_text(tmp_path / "a", "a")
        self.left(tmp_path)
        write_text(tmp_path / "b", "b")
        assert {*self.NAMES} <= {path.name for path in tmp_path.iterdir()}

    @pytest.mark.skipif(files_module.fcntl is None, reason="there are no locks")
    def test_what_others_still_write_stays(self, tmp_path):
        (tmp_path / "b").mkdir()
        with replacing(tmp_path / "a.txt") as written, temporary(tmp_path / "b") as staged:
            code = (
                "import sys; from pathlib import Path; from energyql.files import sweep; "
                "[sweep(Path(folder)) for folder in sys.argv[1:]]"
            )
            subprocess.run([sys.executable, "-c", code, tmp_path, tmp_path / "b"], check=True, env=own_path())
            assert written.exists()
            assert staged.exists()
            (tmp_path / "b" / ".energyql-0123456789abcdef").write_text("half")
            files_module.sweep(tmp_path / "b")
            assert list((tmp_path / "b").iterdir()) == [staged]
        assert (tmp_path / "a.txt").exists()
        assert list((tmp_path / "b").iterdir()) == []

    def test_without_locks_it_must_be_old(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files_module, "fcntl", None)
        self.left(tmp_path)
        os.utime(tmp_path / self.NAMES[0], (0, 0))
        files_module.sweep(tmp_path)
        assert not (tmp_path / self.NAMES[0]).exists()
        assert (tmp_path / self.NAMES[1]).exists()
        write_text(tmp_path / "a.txt", "a")
        assert (tmp_path / "a.txt").read_text() == "a"


def own_path():
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_only_files_are_replaced(tmp_path, kind):
    path = tmp_path / "a.txt"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}[kind]()
    if kind == "loop":
        write_text(path, "a")
        assert path.read_text() == "a"
        return
    with pytest.raises(ArgumentError, match=r"cannot write .*a\.txt: it is (a folder|not a regular file)"):
        write_text(path, "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("path", [5, None, ["a"], ""])
@pytest.mark.parametrize(
    "call",
    [
        Result.load, Inversion.load, Directions.load, energyql.read_weights, energyql.load_generator,
        Gallery().save, lambda path: energyql.write_dataset(path, "x"), lambda path: sample_pictures("avatars", path),
    ],
)  # fmt: skip
def test_what_is_no_path(call, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match="is not a path\nname a file or folder"):
        call(path)
    assert list(tmp_path.iterdir()) == []


def test_a_path_with_bytes_that_are_no_text(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9") / "a.safetensors"
    write_tensors(path, {"a": torch.arange(3)})
    assert read_tensors(path)["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", ""])
def test_what_no_system_takes_as_a_path(name):
    with pytest.raises(ArgumentError, match="is not a path"):
        as_path(name)


@pytest.mark.parametrize("name", ["n" * 300, "n" * 300 + ".png", "pipe.png"])
def test_a_file_that_cannot_be_written_is_refused_before_any_work(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ArgumentError, match="cannot write"):
        check_destination(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.png"]


def test_a_change_leaves_alone_what_others_write(tmp_path):
    """Their locks and temporary files may be gone at any moment, which must not end a training."""
    for name in ("a.txt", ".energyql-lock-labels.csv", ".energyql-0123456789abcdef.csv"):
        (tmp_path / name).write_text("old")
    with changing(tmp_path) as staged:
        assert [path.name for path in staged.iterdir()] == ["a.txt"]
        write_text(staged / "a.txt", "new")
        (tmp_path / ".energyql-lock-labels.csv").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "new"
