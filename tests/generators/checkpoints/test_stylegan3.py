import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from energyql.errors import ModelError
from energyql.generators.checkpoints.network_pickle import Checkpoint, NetworkRecord
from energyql.generators.checkpoints.stylegan3 import read_stylegan3
from energyql.generators.load import load_generator, read_checkpoint
from energyql.generators.stylegan3 import StyleGAN3

DATA = Path(__file__).parent / "data"
NAMES = ("stylegan3-t", "stylegan3-t-conditional", "stylegan3-r", "stylegan3-r-conditional")
"""Tiny networks of random weights, pickled and drawn by the official code: `.pkl`, and `.safetensors` with z, label, w
and pictures at two truncations. The source text that an official pickle holds is replaced by a placeholder."""


MISFIT = "its settings do not fit its weights: "


@pytest.fixture
def record() -> NetworkRecord:
    return read_checkpoint(DATA / "stylegan3-t.pkl").network


def build(record: NetworkRecord, **settings: object) -> StyleGAN3 | None:
    """The generator of a record, with other settings."""
    checkpoint = Checkpoint(None, 1)
    changed = dataclasses.replace(record, init_kwargs={**record.init_kwargs, **settings})
    checkpoint.__dict__["network"] = changed  # a cached property
    return read_stylegan3(checkpoint)


@pytest.mark.parametrize("truncation", [1.0, 0.7])
@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_those_of_the_official_code(name, truncation):
    generator = load_generator(DATA / f"{name}.pkl")
    expected = load_file(DATA / f"{name}.safetensors")
    w = generator.encode(expected["z"], truncation, expected.get("label"))
    assert torch.allclose(w, expected[f"w_{truncation:g}"], rtol=0, atol=1e-5)
    image = generator.synthesize(w)
    assert torch.allclose(image, expected[f"image_{truncation:g}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_our_filters_are_those_in_the_file(name):
    generator = load_generator(DATA / f"{name}.pkl")
    state, designed = generator.state_dict(), StyleGAN3(generator.config).state_dict()
    filters = [key for key in state if key.endswith("_filter")]
    assert len(filters) == 2 * generator.config.num_layers
    for key in filters:
        assert torch.allclose(designed[key], state[key], rtol=0, atol=1e-7)


def test_settings_of_the_synthesis_may_stand_apart(record):
    top = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs")
    settings = {name: record.init_kwargs[name] for name in top}
    apart = {name: value for name, value in record.init_kwargs.items() if name not in top}
    nested = dataclasses.replace(record, init_kwargs={**settings, "synthesis_kwargs": apart})
    assert build(nested).config == build(record).config


def test_half_precision_is_read_as_single(record):
    halved = dataclasses.replace(record, tensors={name: tensor.half() for name, tensor in record.tensors.items()})
    generator = build(halved)
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert all(tensor.dtype == torch.float32 for tensor in generator.state_dict().values())


def test_another_network(record):
    tensors = {name: tensor for name, tensor in record.tensors.items() if not name.startswith("synthesis.input")}
    assert build(dataclasses.replace(record, tensors=tensors)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_resolution": 33}, "resolution must be one of 8, 16, 32, 64, 128, 256, 512, 1024, not 33"),
        ({"img_resolution": 64}, f"{MISFIT}it has no layer synthesis.L1_52_8, which they ask for"),
        ({"num_layers": 6}, f"{MISFIT}it has no layer synthesis.L4_52_8, which they ask for"),
        (
            {"conv_kernel": 1},
            (
                "tensors do not fit together: synthesis.layers.0.weight (8, 8, 3, 3) instead of (8, 8, 1, 1), "
                "synthesis.layers.1.weight (8, 8, 3, 3) instead of (8, 8, 1, 1), "
                "synthesis.layers.2.weight (8, 8, 3, 3) instead of (8, 8, 1, 1) and 2 more"
            ),
        ),
        ({"c_dim": 2}, "tensors are missing: mapping.embed.weight, mapping.embed.bias"),
        (
            {"mapping_kwargs": {"num_layers": 1}},
            "it has tensors that a StyleGAN3 has not: mapping.fc1.weight, mapping.fc1.bias",
        ),
        ({"sharpness": 3}, "it has a setting sharpness = 3, which is not supported"),
    ],
)
def test_settings_that_do_not_fit_the_tensors(record, changes, message):
    with pytest.raises(ModelError) as caught:
        build(record, **changes)
    assert str(caught.value) == message


def test_a_missing_setting(record):
    settings = {name: value for name, value in record.init_kwargs.items() if name != "img_channels"}
    with pytest.raises(ModelError, match="its settings lack image_channels"):
        build(dataclasses.replace(record, init_kwargs=settings))
