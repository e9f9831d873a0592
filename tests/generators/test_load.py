from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from energyql.errors import ModelError
from energyql.generators import families as folder
from energyql.generators.load import load_generator
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config

DATA = Path(__file__).parent / "checkpoints" / "data"
EVERY_FORMAT = ["ada.pkl", "tensorflow.pkl", "rosinality.pt", "rosinality_training.pt"]


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_the_name_of_a_file_does_not_matter(name: str, tmp_path: Path) -> None:
    for other in ("model", "model.safetensors", "model.pt", "model.pkl"):
        (tmp_path / other).write_bytes((DATA / name).read_bytes())
        generator = load_generator(str(tmp_path / other))
        assert isinstance(generator, StyleGAN2)
        assert not generator.training
        assert not any(parameter.requires_grad for parameter in generator.parameters())


@pytest.mark.parametrize("name", ["ada_conditional.pkl", "rosinality.pt", "stylegan3-t.pkl", "stylegan3-r.pkl"])
def test_converting(tmp_path: Path, name: str) -> None:
    original = load_generator(DATA / name)
    config = folder.write_generator(tmp_path, original, dtype=torch.float32)  # type: ignore[arg-type]
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = load_generator(tmp_path)
    assert read.config == original.config  # type: ignore[attr-defined]
    weights = original.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in read.state_dict().items())  # type: ignore[attr-defined]


def test_numbers_too_large_for_half_precision(tmp_path: Path) -> None:
    made = StyleGAN2(StyleGAN2Config(8, 4, 4, mapping_layers=2, channel_base=32, channel_max=4))
    made.mapping.w_avg[0] = 1e6
    with pytest.raises(ModelError, match=r"mapping\.w_avg has numbers"):
        folder.write_generator(tmp_path, made)
    with pytest.raises(ModelError, match="Linear cannot be written"):
        folder.write_generator(tmp_path, torch.nn.Linear(1, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "config",
    [
        '{"generator": {"kind": "dcgan"}}',
        "{}",
        "[]",
        "{",
        '{"generator": 3}',
        '{"generator": {"kind": "stylegan2", "resolution": 7}}',
        '{"generator": {"kind": "stylegan2", "x": 1}}',
    ],
)
def test_damaged_folder(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_generator(tmp_path)


def test_folder_with_other_weights(tmp_path: Path) -> None:
    config = {"generator": {"kind": "stylegan2", "resolution": 8, "z_dim": 4, "w_dim": 4, "channel_base": 32}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"generator\.safetensors"):
        load_generator(tmp_path)
    save_file({"x": torch.ones(1)}, tmp_path / "generator.safetensors")
    with pytest.raises(ModelError, match=r"cannot read .*generator\.safetensors: tensors are missing"):
        load_generator(tmp_path)
    (tmp_path / "generator.safetensors").write_bytes(b"\xff" * 30)
    with pytest.raises(ModelError, match=r"generator\.safetensors"):
        load_generator(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"x", "not a checkpoint"),
        (b"<!DOCTYPE html><html>Quota exceeded</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08", "unpack"),
        (b"\x93NUMPY\x01", "NumPy"),
        (pickle.dumps({"weights": [1]}), "a dict with the entries weights, not of"),
        (pickle.dumps([1, 2]), "pickle of type list"),
        (pickle.dumps(3), "pickle of type int"),
        (pickle.dumps({}), "no entries"),
        (pickle.dumps({"G_ema": 3}), "a dict with the entries G_ema, not of"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_generator(path)
    assert str(path) in caught.value.message


def test_other_torch_files(tmp_path: Path) -> None:
    for content in ({"state_dict": {"a": torch.ones(2)}}, [torch.ones(2)], {"g_ema": 3}):
        for new in (True, False):
            torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=new)
            with pytest.raises(ModelError, match="PyTorch file") as caught:
                load_generator(tmp_path / "x.pt")
            assert caught.value.hint is not None
            assert "rosinality" in caught.value.hint


def test_safetensors_alone(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="model folder"):
        load_generator(tmp_path / "x.safetensors")


def test_missing_and_special_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="missing"):
        load_generator(tmp_path / "nothing.pkl")
    with pytest.raises(ModelError, match=r"config\.json"):
        load_generator(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ModelError, match="no regular file"):
            load_generator(tmp_path / "pipe")
