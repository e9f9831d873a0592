import hashlib
import os
import stat

import pytest
import torch
from safetensors.torch import load_file

from energyql.errors import ModelError
from energyql.files import fingerprint, read_json, replacing, write_json, write_tensors, write_text


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
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
