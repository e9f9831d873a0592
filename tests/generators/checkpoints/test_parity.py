"""Pictures of tiny random networks, made by the original programs, against ours."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from energyql.generators.load import load_generator
from energyql.generators.stylegan2 import StyleGAN2
from generators.checkpoints.writer import DATA

# README.md beside the data tells how each was made.
CHECKPOINTS = [
    "ada.pkl", "ada_conditional.pkl", "tensorflow.pkl", "tensorflow_conditional.pkl", "rosinality.pt",
    "rosinality_64.pt", "rosinality_training.pt",
]  # fmt: skip


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("truncation", [1.0, 0.7])
def test_same_latent_same_picture(name: str, truncation: float) -> None:
    generator = load_generator(DATA / name)
    assert isinstance(generator, StyleGAN2)
    reference = load_file(DATA / f"{name.partition('.')[0]}.safetensors")
    w = generator.encode(reference["z"], truncation, condition=reference.get("label"))
    torch.testing.assert_close(w, reference[f"w_{truncation}"], atol=1e-5, rtol=0)
    picture = generator.synthesize(w)
    assert picture.std() > 0.1
    torch.testing.assert_close(picture, reference[f"image_{truncation}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name in CHECKPOINTS if name != "rosinality_64.pt"])
def test_same_picture_without_noise(name: str) -> None:
    generator = load_generator(DATA / name)
    assert isinstance(generator, StyleGAN2)
    reference = load_file(DATA / f"{name.partition('.')[0]}.safetensors")
    picture = generator.synthesize(generator.encode(reference["z"], condition=reference.get("label")), noise="none")
    torch.testing.assert_close(picture, reference["image_none"], atol=1e-4, rtol=0)
    assert (picture - reference["image_1.0"]).abs().max() > 0.1, "noise makes no difference in this fixture"


def test_clamping_matters_in_the_fixture() -> None:
    generator = load_generator(DATA / "ada_conditional.pkl")
    assert isinstance(generator, StyleGAN2)
    assert generator.config.conv_clamp == 0.9
    reference = load_file(DATA / "ada_conditional.safetensors")
    for module in generator.modules():
        if hasattr(module, "clamp"):
            module.clamp = None  # type: ignore[assignment]
    picture = generator.synthesize(generator.encode(reference["z"], condition=reference["label"]))
    assert (picture - reference["image_1.0"]).abs().max() > 0.1
