from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from energyql.errors import CheckpointWarning, ModelError
from energyql.generators.load import load_generator
from energyql.generators.stylegan2 import StyleGAN2
from generators.checkpoints.writer import DATA


@pytest.fixture
def content() -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(DATA / "rosinality.pt", weights_only=True)
    return loaded


def load(path: Path, content: Any) -> StyleGAN2:
    torch.save(content, path)
    generator = load_generator(path)
    assert isinstance(generator, StyleGAN2)
    return generator


def test_where_the_generator_is(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x"
    expected = load(path, content).state_dict()
    for other in ({"g": content["g_ema"]}, content["g_ema"]):
        other["latent_avg"] = content["latent_avg"]
        assert all(torch.equal(tensor, expected[name]) for name, tensor in load(path, other).state_dict().items())


def test_checkpoints_without_noise(content: dict[str, Any], tmp_path: Path) -> None:
    content["g_ema"] = {name: value for name, value in content["g_ema"].items() if not name.startswith("noises")}
    with pytest.warns(CheckpointWarning, match="lacks noise pictures, which are drawn from seed 0"):
        first, second = load(tmp_path / "x", content), load(tmp_path / "x", content)
    noise = first.synthesis.get_submodule("b8.conv0").noise_const
    assert noise.shape == (8, 8)
    assert torch.equal(noise, second.synthesis.get_submodule("b8.conv0").noise_const)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv1.conv.weight", None, "missing|no synthesis"),
        ("convs.0.conv.blur.kernel", torch.ones(4, 4), "different resampling filters"),
        ("convs.7.conv.modulation.extra", torch.ones(1), "has a tensor convs"),
        ("something.else", torch.ones(1), "has a tensor something"),
        ("convs.0.noise.weight", torch.ones(2), "damaged"),
        ("convs.40.noise.weight", torch.ones(1), "has not"),
        ("noises.noise_0", torch.ones(3), "noise_const|damaged"),
        ("style.3.bias", torch.ones(5), "fit together"),
        ("note", "text", "note is not a tensor"),
    ],
)
def test_misfits(content: dict[str, Any], tmp_path: Path, name: str, value: Any, message: str) -> None:
    if value is None:
        del content["g_ema"][name]
    else:
        content["g_ema"][name] = value
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "x", content)
