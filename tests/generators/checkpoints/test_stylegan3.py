import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from energyql.errors import ModelError
from energyql.generators.checkpoints.network_pickle import NetworkRecord, read_network_pickle
from energyql.generators.checkpoints.stylegan3 import build_stylegan3, convert_stylegan3, is_stylegan3
from energyql.generators.stylegan3 import StyleGAN3

DATA = Path(__file__).parent / "data"
NAMES = ("stylegan3-t", "stylegan3-t-conditional", "stylegan3-r", "stylegan3-r-conditional")
"""Tiny networks of random weights, pickled and drawn by the official code: `.pkl`, and `.safetensors` with z, label, w
and pictures at two truncations. The source text that an official pickle holds is replaced by a placeholder."""


@pytest.fixture
def record() -> NetworkRecord:
    return read_network_pickle(DATA / "stylegan3-t.pkl")


def with_settings(record: NetworkRecord, **changes: object) -> NetworkRecord:
    return dataclasses.replace(record, init_kwargs={**record.init_kwargs, **changes})


@pytest.mark.parametrize("truncation", [1.0, 0.7])
@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_those_of_the_official_code(name, truncation):
    generator = build_stylegan3(read_network_pickle(DATA / f"{name}.pkl"))
    expected = load_file(DATA / f"{name}.safetensors")
    w = generator.encode(expected["z"], truncation, expected.get("label"))
    assert torch.allclose(w, expected[f"w_{truncation:g}"], rtol=0, atol=1e-5)
    image = generator.synthesize(w)
    assert torch.allclose(image, expected[f"image_{truncation:g}"], rtol=0, atol=1e-5)


def test_settings(record):
    config, state = convert_stylegan3(record)
    assert (config.resolution, config.c_dim, config.num_layers, config.mapping_layers) == (32, 0, 5, 2)
    assert config.conv_clamp == 256  # the default of the official code
    assert not config.use_radial_filters
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    StyleGAN3(config).load_state_dict(state)
    config, _ = convert_stylegan3(read_network_pickle(DATA / "stylegan3-r-conditional.pkl"))
    assert (config.conv_kernel, config.use_radial_filters, config.conv_clamp) == (1, True, None)
    assert (config.c_dim, config.output_scale) == (2, 0.5)


def test_our_filters_are_those_in_the_file():
    for name in NAMES:
        config, state = convert_stylegan3(read_network_pickle(DATA / f"{name}.pkl"))
        designed = StyleGAN3(config).state_dict()
        filters = [key for key in state if key.endswith("_filter")]
        assert len(filters) == 2 * config.num_layers
        for key in filters:
            assert torch.allclose(designed[key], state[key], rtol=0, atol=1e-7)


def test_settings_of_the_synthesis_may_stand_apart(record):
    top = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs")
    settings = {name: record.init_kwargs[name] for name in top}
    apart = {name: value for name, value in record.init_kwargs.items() if name not in top}
    nested = dataclasses.replace(record, init_kwargs={**settings, "synthesis_kwargs": apart})
    assert convert_stylegan3(nested)[0] == convert_stylegan3(record)[0]


def test_ready_to_draw(record):
    generator = build_stylegan3(record)
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())


def test_half_precision_is_read_as_single(record):
    halved = dataclasses.replace(record, tensors={name: tensor.half() for name, tensor in record.tensors.items()})
    assert all(tensor.dtype == torch.float32 for tensor in build_stylegan3(halved).state_dict().values())


def test_another_network(record):
    tensors = {name: tensor for name, tensor in record.tensors.items() if not name.startswith("synthesis.input")}
    other = dataclasses.replace(record, tensors=tensors)
    assert is_stylegan3(record)
    assert not is_stylegan3(other)
    with pytest.raises(ModelError) as caught:
        convert_stylegan3(other)
    assert str(caught.value) == (
        f"cannot read {record.source}: it has no Fourier features, so it is not a StyleGAN3 generator"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_resolution": 33}, "resolution must be a power of two from 8 to 1024, not 33"),
        ({"img_resolution": 64}, "its settings ask for a layer synthesis.L1_52_8, which it has not"),
        ({"num_layers": 6}, "its settings ask for a layer synthesis.L4_52_8, which it has not"),
        ({"conv_kernel": 1}, "synthesis.layers.0.weight has the shape (8, 8, 3, 3) instead of (8, 8, 1, 1)"),
        ({"c_dim": 2}, "it has no mapping.embed.weight"),
        ({"mapping_kwargs": {"num_layers": 1}}, "it has a tensor 'mapping.fc1.weight', which a StyleGAN3 has not"),
        ({"mapping_kwargs": 3}, "its mapping_kwargs are 3"),
        ({"sharpness": 3}, "it has a setting 'sharpness' = 3, which is not supported"),
    ],
)
def test_settings_that_do_not_fit_the_tensors(record, changes, message):
    with pytest.raises(ModelError) as caught:
        build_stylegan3(with_settings(record, **changes))
    assert str(caught.value) == f"cannot read {record.source}: {message}"


def test_a_missing_setting(record):
    settings = {name: value for name, value in record.init_kwargs.items() if name != "img_channels"}
    with pytest.raises(ModelError, match="its settings lack img_channels"):
        build_stylegan3(dataclasses.replace(record, init_kwargs=settings))
