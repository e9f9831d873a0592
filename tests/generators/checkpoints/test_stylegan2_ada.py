from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from energyql.errors import ModelError
from energyql.generators.checkpoints.network_pickle import NetworkRecord
from energyql.generators.load import load_generator, read_checkpoint
from energyql.generators.stylegan2 import StyleGAN2
from generators.checkpoints.writer import DATA, dumps, official


@pytest.fixture
def record() -> NetworkRecord:
    return read_checkpoint(DATA / "ada.pkl").network


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., StyleGAN2]:
    """Writes a network as the official code does, and reads it."""

    def write_and_load(tensors: dict[str, Any], protocol: int = 4, **how: Any) -> StyleGAN2:
        path = tmp_path / "model.pkl"
        content = {"G": None, "D": None, "G_ema": official(tensors, **how), "augment_pipe": None}
        path.write_bytes(dumps(content, protocol))
        generator = load_generator(path)
        assert isinstance(generator, StyleGAN2)
        return generator

    return write_and_load


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols_and_layouts(record: NetworkRecord, load: Callable[..., StyleGAN2], protocol: int) -> None:
    inline = {"z_dim": 12, "mapping_kwargs": {"lr_multiplier": 0.5, "num_layers": 3}, "conv_clamp": 3.0}
    nested = {"mapping_kwargs": {"lr_multiplier": 0.5}, "synthesis_kwargs": {"conv_clamp": 3}}
    for settings in (inline, nested):
        generator = load(record.tensors, protocol, init_kwargs=settings)
        assert generator.config.conv_clamp == 3.0
        assert generator.config.mapping_lr_multiplier == 0.5
    attributes = {"mapping.fc0.bias_gain": 0.25, "synthesis.b4.conv1.conv_clamp": 7}
    generator = load(record.tensors, protocol, init_kwargs=nested, attributes=attributes)
    assert generator.config.conv_clamp == 7.0, "what the layers say counts"
    assert generator.config.mapping_lr_multiplier == 0.25
    generator = load(record.tensors, protocol)
    assert generator.config.conv_clamp is None
    assert generator.config.mapping_lr_multiplier == 0.01
    assert (generator.config.resolution, generator.config.w_dim, generator.config.mapping_layers) == (32, 16, 3)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"synthesis.b8.architecture": "resnet"}, "architecture is resnet, its tensors are of skip"),
        ({"synthesis.b8.conv1.activation": "relu"}, "activation is relu"),
        ({"mapping.fc0.activation": "swish"}, "activation is swish"),
        ({"mapping.fc0.activation": "lrelu", "mapping.fc1.activation": "relu"}, "layers differ in activation"),
        ({"mapping.fc0.bias_gain": "x"}, "lr_multiplier must be a number between 0 and 65504, not 'x'"),
        ({"synthesis.b4.conv1.conv_clamp": -1}, "conv_clamp must be a number between 0 and 65504, not -1"),
    ],
)
def test_unsupported_settings(
    record: NetworkRecord, load: Callable[..., StyleGAN2], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load(record.tensors, attributes=attributes)


def test_half_precision_is_read_as_single(record: NetworkRecord, load: Callable[..., StyleGAN2]) -> None:
    generator = load({name: tensor.half() for name, tensor in record.tensors.items()})
    assert {tensor.dtype for tensor in generator.state_dict().values()} == {torch.float32}


def test_without_noise_inputs(record: NetworkRecord, load: Callable[..., StyleGAN2]) -> None:
    tensors = {name: tensor for name, tensor in record.tensors.items() if ".noise_" not in name}
    with pytest.raises(ModelError, match=r"missing: synthesis\.b4\.conv1\.noise_strength"):
        load(tensors)
    attributes = {
        f"{name.removesuffix('.weight')}.use_noise": False
        for name in tensors
        if name.endswith(("conv0.weight", "conv1.weight"))
    }
    generator = load(tensors, attributes=attributes, init_kwargs={"conv_clamp": 256})
    reference = load_file(DATA / "ada.safetensors")
    picture = generator.synthesize(generator.encode(reference["z"]))
    torch.testing.assert_close(picture, reference["image_none"], atol=1e-4, rtol=0)


def test_not_a_stylegan2(load: Callable[..., StyleGAN2]) -> None:
    with pytest.raises(ModelError, match=r"model\.pkl: its class Generator is not supported"):
        load({"layer.weight": torch.ones(2)})
