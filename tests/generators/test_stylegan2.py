"""StyleGAN2 against the formulas of the paper."""

import dataclasses

import pytest
import torch
from toys import random_generator

from energyql.errors import ArgumentError, ModelError
from energyql.generators.base import preview_side
from energyql.generators.checkpoints.assemble import assemble
from energyql.generators.mapping import encoder
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from generators.formulas import SMALL, Reference, latents

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


@pytest.mark.parametrize("resolution", [8, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_pictures_are_those_of_the_formulas(resolution, dtype, clamp):
    config = dataclasses.replace(SMALL, resolution=resolution, conv_clamp=clamp)
    generator = random_generator(config).to(dtype)
    reference = Reference(generator)
    w = generator.encode(latents(config, dtype=dtype), 0.7)
    assert w.dtype == dtype
    torch.testing.assert_close(w, reference.mapping(latents(config, dtype=dtype), 0.7), rtol=0, atol=TOLERANCE[dtype])
    image = generator.synthesize(w)
    assert image.shape == (3, 3, resolution, resolution)
    assert image.std() > 0.1
    torch.testing.assert_close(image, reference.synthesis(w), rtol=0, atol=TOLERANCE[dtype])


def as_official(generator, taps=None):
    """The weights under their official names, with this filter."""
    tensors = {name.replace(".conv.", "."): tensor for name, tensor in generator.state_dict().items()}
    return tensors if taps is None else tensors | {"synthesis.resample_filter": torch.tensor(taps) / sum(taps)}


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_the_other_architectures(architecture, clamp):
    config = dataclasses.replace(SMALL, architecture=architecture, conv_clamp=clamp)
    generator = random_generator(config)
    w = generator.encode(latents(config, dtype=torch.float32, batch=9))
    image = generator.synthesize(w)
    assert image.std() > 0.1
    torch.testing.assert_close(image, Reference(generator).synthesis(w), rtol=0, atol=1e-4)
    assert torch.equal(generator.synthesize(w[3:5]), image[3:5]), "a picture does not depend on its batch"
    exact = generator.double().synthesize(w.double())
    torch.testing.assert_close(exact, Reference(generator).synthesis(w.double()), rtol=0, atol=1e-9)


def test_a_preview_is_the_picture_of_a_smaller_network():
    made = random_generator(dataclasses.replace(SMALL, resolution=32))
    small = StyleGAN2(dataclasses.replace(SMALL, resolution=16)).eval().requires_grad_(False)
    small.load_state_dict({name: tensor for name, tensor in made.state_dict().items() if ".b32." not in name})
    w = made.encode(latents(made.config, dtype=torch.float32, batch=9))
    previews = made.preview(w, 16)
    assert torch.equal(previews, small.synthesize(w))
    assert torch.equal(made.preview(w[3:5], 16), previews[3:5]), "a preview does not depend on its batch"
    assert (list(made.preview_sides), preview_side(made, 9), preview_side(made, 17)) == ([4, 8, 16], 16, None)
    with pytest.raises(ArgumentError, match="no previews of 12 pixels; sides: 4, 8, 16"):
        made.preview(w, 12)
    assert preview_side(random_generator(dataclasses.replace(SMALL, architecture="orig")), 4) is None


@pytest.mark.parametrize("sides", [64, (64, 12.5), (0,), "large"])
def test_sides_of_previews_that_are_none(sides):
    class Wrong:
        preview_sides = sides

        def preview(self, w, side):
            return w

    with pytest.raises(ArgumentError, match="a Wrong has preview_sides .*, which are no sides in pixels"):
        preview_side(Wrong(), 64)
    del Wrong.preview
    assert preview_side(Wrong(), 64) is None


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
@pytest.mark.parametrize("taps", [(1.0,), (1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 2.0, 3.0), (1.0, 2.0, 3.0, 5.0),
                                  (1.0, 4.0, 6.0, 4.0, 1.0), (3.0, 1.0, 4.0, 1.0, 5.0, 9.0)])  # fmt: skip
def test_other_filters(architecture, taps):
    made = random_generator(dataclasses.replace(SMALL, resolution=16, architecture=architecture))
    generator = assemble(as_official(made, taps))
    assert generator.config.filter_taps == max(4, len(taps) + len(taps) % 2)
    w = generator.encode(latents(SMALL, dtype=torch.float32))
    image = generator.synthesize(w) / generator.synthesize(w).std()
    expected = Reference(generator.double(), taps).synthesis(w.double())
    torch.testing.assert_close(image.double(), expected / expected.std(), rtol=0, atol=1e-4)


def test_other_widths_of_the_mapping_network():
    config = dataclasses.replace(SMALL, c_dim=3, layer_features=7, embed_features=5, resolution=8)
    generator = random_generator(config)
    shapes = [tuple(layer.weight.shape) for layer in generator.mapping.layers]
    assert shapes == [(7, 6 + 5), (7, 7), (10, 7)]
    z, label = latents(config, dtype=torch.float32), torch.eye(3)
    w = Reference(generator).mapping(z, 0.7, label)
    torch.testing.assert_close(generator.encode(z, 0.7, label), w, rtol=0, atol=1e-4)
    prepared = encoder(generator, 0.7, label[1])
    torch.testing.assert_close(prepared(z)[1], w[1], rtol=0, atol=1e-4)
    read = assemble(as_official(generator)).config
    assert (read.layer_features, read.embed_features, read.z_dim) == (7, 5, 6)


def test_a_fourth_channel_is_the_opacity_over_white():
    generator = random_generator(dataclasses.replace(SMALL, resolution=8, image_channels=4))
    w = generator.encode(latents(SMALL, dtype=torch.float32))
    red, green, blue, opacity = generator.synthesis(w).unbind(1)
    share = (opacity.clamp(-1, 1) + 1) / 2
    expected = torch.stack([share * colour + (1 - share) for colour in (red, green, blue)], 1)
    assert share.std() > 0.1
    torch.testing.assert_close(generator.synthesize(w), expected)


@pytest.mark.parametrize("resolution", [8, 16, 32, 64, 128, 256, 512, 1024])
def test_pictures_of_every_resolution(resolution):
    config = StyleGAN2Config(resolution, z_dim=4, w_dim=4, mapping_layers=1, channel_base=1024, channel_max=2)
    generator = StyleGAN2(config).eval().requires_grad_(False)
    image = generator.synthesize(generator.encode(torch.ones(1, 4)))
    assert image.shape == (1, 3, resolution, resolution)
    assert image.isfinite().all()


def test_the_gradient_is_the_gradient():
    config = dataclasses.replace(SMALL, resolution=8)
    generator = random_generator(config).double()
    z = latents(config, batch=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: generator.synthesize(generator.encode(z, 0.7)).mean(dim=(2, 3)), z)


@pytest.mark.parametrize("how", ["latents", "module", "autocast"])
def test_low_precision(how):
    generator = random_generator(SMALL)
    w = generator.encode(latents(SMALL, dtype=torch.float32))
    exact = generator.synthesize(w)
    if how == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            image = generator.synthesize(w)
    else:
        image = (generator.bfloat16() if how == "module" else generator).synthesize(w.bfloat16())
        assert image.dtype == torch.bfloat16
    error = (image.float() - exact).abs()
    assert 0 < error.mean() < 0.05 * exact.abs().mean()


def test_dead_filters_and_styles_are_not_nan():
    generator = random_generator(SMALL)
    layer = generator.synthesis.b8.conv0.conv
    layer.weight[0] = 0
    layer.affine.weight.zero_()
    layer.affine.bias.zero_()
    w = generator.encode(latents(SMALL, dtype=torch.float32))
    image = generator.synthesize(w)
    torch.testing.assert_close(image, Reference(generator).synthesis(w), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resolution": 4}, "resolution must be one of 8, 16, .*, 1024, not 4"),
        ({"resolution": 48}, "not 48"),
        ({"resolution": 32.0}, "not 32.0"),
        ({"z_dim": 0}, "z_dim must be a whole number from 1"),
        ({"w_dim": 1.5}, "w_dim must be a whole number"),
        ({"c_dim": -1}, "c_dim"),
        ({"channel_base": 31}, "channel_base must be a whole number from 32"),
        ({"channel_max": True}, "channel_max"),
        ({"image_channels": 2}, "image_channels must be one of 1, 3, 4, not 2"),
        ({"architecture": "dense"}, "architecture must be one of skip, resnet, orig, not 'dense'"),
        ({"filter_taps": 5}, "filter_taps must be an even number from 4 to 64, not 5"),
        ({"layer_features": 0}, "layer_features must be a whole number from 1"),
        ({"conv_clamp": float("nan")}, "conv_clamp must be a number between 0 and 65504"),
        ({"conv_clamp": "256"}, "conv_clamp must be a number between 0 and 65504, not '256'"),
        ({"conv_clamp": 1e308}, r"conv_clamp must be a number between 0 and 65504, not 1e\+308"),
        ({"conv_clamp": 10**19}, "conv_clamp must be a number between 0 and 65504, not 10000000000000000000"),
        ({"mapping_lr_multiplier": 1e18}, "mapping_lr_multiplier must be a number between 0 and 65504"),
        ({"mapping_lr_multiplier": None}, "mapping_lr_multiplier"),
    ],
)
def test_impossible_architectures(wrong, message):
    with pytest.raises(ModelError, match=message):
        dataclasses.replace(SMALL, **wrong)
