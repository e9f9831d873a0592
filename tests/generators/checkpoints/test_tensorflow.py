from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import random_generator

from energyql.errors import ModelError
from energyql.generators.load import load_generator
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from generators.checkpoints.writer import Call, Named, dumps

NETWORK = Named("dnnlib.tflib.network", "Network")


def network(variables: list[tuple[str, Any]], components: dict[str, Any] | None = None, **settings: Any) -> Call:
    state = {
        "version": settings.pop("version", 4),
        "name": "G",
        "static_kwargs": settings,
        "components": components or {},
        "build_module_src": "",
        "variables": variables,
    }
    return Call(NETWORK, (), state)


def variables_of(generator: StyleGAN2) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Mapping and synthesis variables for the weights of a generator of ours, written from the format's description."""
    mapping, synthesis = [], []
    for name, tensor in generator.state_dict().items():
        parts, value = name.split("."), tensor.numpy()
        if name.startswith("mapping.fc"):
            mapping.append((f"Dense{parts[1][2:]}/{parts[2]}", value.T))
        elif name == "synthesis.b4.const":
            synthesis.append(("4x4/Const/const", value[None]))
        elif name.startswith("synthesis.b"):
            side = int(parts[1][1:])
            layers = {"conv0": "Conv0_up", "conv1": "Conv1" if side > 4 else "Conv", "torgb": "ToRGB", "skip": "Skip"}
            layer = layers[parts[2]]
            prefix = f"{side}x{side}/{layer}/"
            if name.endswith(("conv.weight", "skip.weight")):
                value = value.transpose(2, 3, 1, 0)
                synthesis.append((prefix + "weight", value[::-1, ::-1].copy() if layer == "Conv0_up" else value))
            elif name.endswith("affine.weight"):
                synthesis.append((prefix + "mod_weight", value.T))
            elif name.endswith("affine.bias"):
                synthesis.append((prefix + "mod_bias", value - 1))
            elif name.endswith("noise_const"):
                number = 2 * (side.bit_length() - 1) - (4 if parts[2] == "conv1" else 5)
                synthesis.append((f"noise{number}", value[None, None]))
            else:
                synthesis.append((prefix + parts[-1], value))
    return mapping, synthesis


@pytest.fixture
def generator() -> StyleGAN2:
    torch.manual_seed(0)
    made = StyleGAN2(StyleGAN2Config(16, 8, 8, mapping_layers=2, channel_base=64, channel_max=8))
    made.mapping.w_avg.normal_()
    for name, parameter in made.named_parameters():
        if "noise_strength" in name or name.endswith("bias"):
            parameter.data.add_(torch.randn_like(parameter))
    return made.eval().requires_grad_(False)


class Writer:
    def __init__(self, path: Path, generator: StyleGAN2) -> None:
        self.path = path
        self.mapping, self.synthesis = variables_of(generator)
        self.own: list[tuple[str, Any]] = [("lod", np.float32(0)), ("dlatent_avg", generator.mapping.w_avg.numpy())]

    def load(self, **settings: Any) -> StyleGAN2:
        components = {"mapping": network(self.mapping), "synthesis": network(self.synthesis)}
        self.path.write_bytes(dumps((network([]), network([]), network(self.own, components, **settings))))
        made = load_generator(self.path)
        assert isinstance(made, StyleGAN2)
        return made


@pytest.fixture
def writer(tmp_path: Path, generator: StyleGAN2) -> Writer:
    return Writer(tmp_path / "tf.pkl", generator)


def test_round_trip(generator: StyleGAN2, writer: Writer) -> None:
    read = writer.load()
    assert read.config == generator.config
    for name, tensor in generator.state_dict().items():
        torch.testing.assert_close(read.state_dict()[name], tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_configuration_e(generator: StyleGAN2, tmp_path: Path, architecture: Any) -> None:
    other = random_generator(dataclasses.replace(generator.synthesis.config, architecture=architecture))
    writer = Writer(tmp_path / "tf.pkl", other)
    read = writer.load(architecture=architecture)
    assert read.config == other.config
    w = other.encode(torch.ones(2, 8))
    torch.testing.assert_close(read.synthesize(w), other.synthesize(w), atol=1e-5, rtol=0)
    with pytest.raises(ModelError, match=f"architecture is skip, its tensors are of {architecture}"):
        writer.load(architecture="skip")


def test_configurations_b_to_d_are_fully_grown(generator: StyleGAN2, tmp_path: Path) -> None:
    other = random_generator(dataclasses.replace(generator.synthesis.config, architecture="orig"))
    writer = Writer(tmp_path / "tf.pkl", other)
    small = [("ToRGB_lod1/bias", np.ones(3, np.float32)), ("lod", np.float32(0))]
    grown = [(name.replace("16x16/ToRGB", "ToRGB_lod0"), value) for name, value in writer.synthesis]
    writer.synthesis = grown + small
    w = other.encode(torch.ones(2, 8))
    torch.testing.assert_close(writer.load().synthesize(w), other.synthesize(w), atol=1e-5, rtol=0)
    writer.synthesis[-1] = ("lod", np.float32(1.5))
    with pytest.raises(ModelError, match="its training was not finished"):
        writer.load()


def test_without_a_filter_pixels_are_doubled(writer: Writer) -> None:
    expected = torch.zeros(4, 4)
    expected[1:3, 1:3] = 0.25
    assert torch.equal(writer.load(resample_kernel=None).synthesis.resample_filter, expected)


def test_settings(writer: Writer) -> None:
    read = writer.load(conv_clamp=2, mapping_lrmul=0.1, resample_kernel=[1, 1, 1, 1], nonlinearity="lrelu")
    assert read.config.conv_clamp == 2.0
    assert read.config.mapping_lr_multiplier == 0.1
    assert torch.equal(read.synthesis.resample_filter, torch.full((4, 4), 1 / 16))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "resnet"}, "architecture is resnet"),
        ({"nonlinearity": "relu"}, "nonlinearity is relu"),
        ({"normalize_latents": False}, "normalize_latents is False"),
        ({"version": 2}, "version 2 is older"),
        ({"resample_kernel": [1] * 65}, r"filter has the shape \(65,\)"),
        ({"resample_kernel": "x"}, "damaged"),
    ],
)
def test_unsupported_settings(writer: Writer, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        writer.load(**settings)


def test_unsupported_networks(writer: Writer) -> None:
    complete = list(writer.synthesis)
    writer.synthesis.append(("16x16/Conv2/bias", np.zeros(3, np.float32)))
    with pytest.raises(ModelError, match="16x16/Conv2/bias"):
        writer.load()
    writer.synthesis = complete
    writer.mapping.append(("LabelConcat/weight", np.zeros((3, 8), np.float32)))
    with pytest.raises(ModelError, match="has a tensor mapping/LabelConcat/weight"):
        writer.load()
    writer.synthesis = [("4x4/Const/const", np.zeros((1, 8, 4, 4), np.float32))]
    with pytest.raises(ModelError, match="not a StyleGAN2"):
        writer.load()


def test_damaged_networks(tmp_path: Path) -> None:
    for broken in (
        network([], {"mapping": 3, "synthesis": 4}),
        network([], {"mapping": network([("x",)]), "synthesis": network([])}),  # type: ignore[list-item]
        network([], {"mapping": network(3), "synthesis": network([])}),  # type: ignore[arg-type]
        Call(NETWORK),
    ):
        (tmp_path / "tf.pkl").write_bytes(dumps((broken, broken, broken)))
        with pytest.raises(ModelError, match=r"tf\.pkl"):
            load_generator(tmp_path / "tf.pkl")
