import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from energyql.errors import ArgumentError, ModelError
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config, placement

TINY = StyleGAN3Config(
    64, z_dim=8, w_dim=8, mapping_layers=2, channel_base=512, channel_max=8, num_layers=8, num_critical=2
)
MARGIN = 20
"""Width of the frame that is left out where a comparison needs pixels from outside the picture."""


def build(config: StyleGAN3Config, seed: int = 0) -> StyleGAN3:
    """A generator of random weights whose layers know the magnitude of their inputs, as after training."""
    torch.manual_seed(seed)
    generator = StyleGAN3(config).eval().requires_grad_(False)
    w = latents(generator)
    x = generator.synthesis.input(w)
    for layer in generator.synthesis.layers:
        layer.magnitude_ema.copy_(x.square().mean())
        x = layer(x, w)
    return generator


def latents(generator: StyleGAN3, count: int = 3) -> Tensor:
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(1))
    return generator.encode(z)


def psnr(a: Tensor, b: Tensor) -> float:
    """Decibels, against a range of +- two standard deviations."""
    return 10 * math.log10(16 * float(a.var()) / float((a - b).square().mean()))


# settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": "14"}, "num_layers must be a whole number from 2 to 64, not '14'"),
        ({"num_critical": 0}, "num_critical must be a whole number from 1 to 13, not 0"),
        ({"num_critical": 14}, "num_critical must be a whole number from 1 to 13, not 14"),
        ({"conv_kernel": 2}, "conv_kernel must be an odd number from 1 to 15, not 2"),
        ({"margin_size": -1}, "margin_size must be a whole number from 0 to 64, not -1"),
        ({"lrelu_upsampling": 0}, "lrelu_upsampling must be a whole number from 1 to 8, not 0"),
        ({"use_radial_filters": 1}, "use_radial_filters must be one of False, True, not 1"),
        ({"first_cutoff": 32}, "first_cutoff must be a number between 0.5 and 32.0, not 32"),
        ({"first_stopband": 2}, "first_stopband must be a number between 2 and 65504, not 2"),
        ({"last_stopband_rel": 1.0}, "last_stopband_rel must be a number between 1 and 65504, not 1.0"),
        ({"conv_clamp": 0}, "conv_clamp must be a number between 0 and 65504, not 0"),
        ({"conv_clamp": 1e308}, "conv_clamp must be a number between 0 and 65504, not 1e+308"),
        ({"output_scale": 3.5e38}, "output_scale must be a number between 0 and 65504, not 3.5e+38"),
        ({"output_scale": math.nan}, "output_scale must be a number between 0 and 65504, not nan"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ModelError) as caught:
        StyleGAN3Config(**{"resolution": 64, **settings})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("config", "sizes", "channels"),
    [
        (
            StyleGAN3Config(256),
            [36, 36, 36, 52, 52, 84, 84, 148, 148, 148, 276, 276, 276, 256, 256],
            [512] * 9 + [362, 256, 181, 128, 128, 3],
        ),
        (
            StyleGAN3Config(512).rotation_variant(),
            [36, 36, 52, 52, 84, 84, 148, 148, 276, 276, 532, 532, 532, 512, 512],
            [1024] * 7 + [967, 645, 431, 287, 192, 128, 128, 3],
        ),
        (
            StyleGAN3Config(1024),
            [36, 36, 52, 52, 84, 148, 148, 276, 276, 532, 1044, 1044, 1044, 1024, 1024],
            [512] * 7 + [323, 203, 128, 81, 51, 32, 32, 3],
        ),
    ],
)
def test_sizes_and_channels_of_the_standard_models(config, sizes, channels):
    """As the official code has them in the names of its layers."""
    assert [signal.size for signal in config.signals()] == sizes
    assert [signal.channels for signal in config.signals()] == channels


def test_signals_are_what_the_paper_asks_for():
    for resolution in (8, 16, 32, 64, 128, 256, 512, 1024):
        signals = StyleGAN3Config(resolution).signals()
        cutoffs = [signal.cutoff for signal in signals]
        assert cutoffs[0] == 2
        assert cutoffs[-3:] == pytest.approx([resolution / 2] * 3)
        assert np.diff(np.log(cutoffs[:-2])) == pytest.approx(math.log(resolution / 4) / 12)
        for signal in signals:
            assert signal.sampling_rate >= 2 * signal.cutoff - 1e-9  # Nyquist
            assert signal.half_width > 0


# protocol


@pytest.mark.parametrize("resolution", [8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize("rotation", [False, True])
def test_shapes(resolution, rotation):
    config = StyleGAN3Config(
        resolution, z_dim=5, w_dim=6, channel_base=max(resolution, 128), channel_max=4, image_channels=1, num_layers=5
    )
    generator = StyleGAN3(config.rotation_variant() if rotation else config)
    with torch.no_grad():
        w = generator.encode(torch.randn(2, 5))
        assert w.shape == (2, 6)
        image = generator.synthesize(w)
    assert image.shape == (2, 1, resolution, resolution)
    assert image.isfinite().all()


@pytest.mark.parametrize(
    "changes",
    [
        {"num_critical": 1, "margin_size": 0},
        {"lrelu_upsampling": 1},
        {"lrelu_upsampling": 3, "filter_size": 5, "use_radial_filters": True},  # an odd radial filter has a centre tap
        {"filter_size": 1, "conv_kernel": 5, "margin_size": 3},
        {"conv_clamp": None, "first_cutoff": 1.5, "first_stopband": 7.0, "last_stopband_rel": 1.1},
    ],
)
def test_unusual_settings(changes):
    generator = build(dataclasses.replace(TINY, **changes))
    image = generator.synthesize(latents(generator))
    assert image.shape == (3, 3, 64, 64)
    assert image.isfinite().all()


def test_every_row_of_w_plus_counts():
    generator = build(TINY)
    w = latents(generator, 1)
    rows = w[:, None].repeat(1, TINY.num_ws, 1)
    picture = generator.synthesize(rows)
    assert torch.equal(picture, generator.synthesize(w))
    generator.synthesis.input.affine.weight.normal_(0, 0.1)  # untrained, the first row has no effect
    picture = generator.synthesize(rows)
    for row in range(TINY.num_ws):
        changed = rows.clone()
        changed[:, row] += 1
        assert not torch.allclose(generator.synthesize(changed), picture)


def test_a_sample_does_not_depend_on_its_batch():
    generator = build(TINY)
    w = latents(generator)
    batch = generator.synthesize(w)
    for i in range(3):
        assert torch.allclose(generator.synthesize(w[i : i + 1]), batch[i : i + 1], atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 7), (2, 9, 8), (8,)])
def test_w_of_another_shape(shape):
    with pytest.raises(ArgumentError, match=r"w must be \(batch, 8\) or \(batch, 10, 8\), not "):
        StyleGAN3(TINY).synthesize(torch.zeros(shape))


def test_a_transform_of_another_shape():
    with pytest.raises(ArgumentError, match=r"transform must be \(3, 3\) or \(2, 3, 3\), not \(2, 2\)"):
        StyleGAN3(TINY).synthesize(torch.zeros(2, 8), torch.eye(2))


@pytest.mark.parametrize("rotation", [False, True])
def test_gradients_reach_w(rotation):
    generator = build(TINY.rotation_variant() if rotation else TINY).double()
    generator.synthesis.input.affine.weight.normal_(0, 0.1)
    w, direction = torch.randn(2, 1, 8, dtype=torch.float64)
    weights = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    w.requires_grad_()
    (gradient,) = torch.autograd.grad((generator.synthesize(w) * weights).sum(), w)
    step = 1e-9  # small, for the kinks of the leaky ReLUs
    with torch.no_grad():
        ahead, behind = ((generator.synthesize(w + s * direction) * weights).sum() for s in (step, -step))
    assert float((gradient * direction).sum()) == pytest.approx(float((ahead - behind) / (2 * step)), rel=1e-4)


# equivariance


@pytest.mark.parametrize("rotation", [False, True])
def test_moving_the_input_moves_the_picture(rotation):
    """A pixel of the picture is a quarter of a sample in the first layers, so this is not about whole samples."""
    generator = build(TINY.rotation_variant() if rotation else TINY)
    w = latents(generator)
    still = generator.synthesize(w)
    moved = generator.synthesize(w, placement(translation=(5 / 64, -3 / 64)))  # right and up
    assert psnr(still[:, :, 3:, :-5], moved[:, :, :-3, 5:]) > 60
    assert psnr(still, moved) < 30
    for layer in generator.synthesis.layers:  # the same network with nearest neighbours for filters
        if layer.up_filter is not None:
            layer.up_filter.zero_()
            layer.up_filter[(len(layer.up_filter) - layer.up) // 2 :][: layer.up] = 1 / layer.up
        if layer.down_filter is not None:
            layer.down_filter.zero_()
            layer.down_filter[(len(layer.down_filter) - 1) // 2] = 1
            if layer.down_filter.ndim == 2:
                layer.down_filter[:, : (len(layer.down_filter) - 1) // 2] = 0
                layer.down_filter[:, (len(layer.down_filter) + 1) // 2 :] = 0
    still = generator.synthesize(w)
    moved = generator.synthesize(w, placement(translation=(5 / 64, -3 / 64)))
    assert psnr(still[:, :, 3:, :-5], moved[:, :, :-3, 5:]) < 40


def test_moving_by_a_fraction_of_a_pixel():
    generator = build(TINY)
    w = latents(generator)
    shift = 2.5
    still = generator.synthesize(w)
    phase = torch.exp(-2j * math.pi * shift * torch.fft.fftfreq(64))
    expected = torch.fft.ifft(torch.fft.fft(still, dim=-1) * phase, dim=-1).real
    moved = generator.synthesize(w, placement(translation=(shift / 64, 0)))
    achieved = psnr(expected[..., MARGIN:-MARGIN], moved[..., MARGIN:-MARGIN])
    rounded = psnr(still.roll(2, -1)[..., MARGIN:-MARGIN], moved[..., MARGIN:-MARGIN])
    assert achieved > 55
    assert achieved > rounded + 10


def test_turning_the_input_of_r_turns_the_picture():
    generator = build(TINY.rotation_variant())
    w = latents(generator)
    turned = generator.synthesize(w, placement(rotation=math.pi / 2))
    clockwise = torch.rot90(generator.synthesize(w), -1, (2, 3))
    assert psnr(clockwise, turned) > 60
    generator = build(TINY)
    turned = generator.synthesize(w, placement(rotation=math.pi / 2))
    assert psnr(torch.rot90(generator.synthesize(w), -1, (2, 3)), turned) < 20


def test_a_transform_for_each_sample():
    generator = build(TINY)
    w = latents(generator, 2)
    transforms = [placement(0.3), placement(translation=(0.1, 0.2))]
    together = generator.synthesize(w, torch.stack(transforms))
    for i, transform in enumerate(transforms):
        assert torch.allclose(together[i], generator.synthesize(w, transform)[i], atol=1e-5)


def test_w_moves_and_turns_the_picture():
    """The learned transform of w acts like the user's: (cos, sin, shift) up to a positive factor."""
    generator = build(TINY)
    w = latents(generator, 1)
    moved = generator.synthesize(w, placement(translation=(0.25, -0.125)))
    turned = generator.synthesize(w, placement(0.3))
    affine = generator.synthesis.input.affine
    affine.bias.copy_(2 * torch.tensor([1.0, 0.0, 0.25, -0.125]))
    assert torch.allclose(generator.synthesize(w), moved, atol=1e-4)
    affine.bias.copy_(2 * torch.tensor([math.cos(0.3), -math.sin(0.3), 0.0, 0.0]))
    assert torch.allclose(generator.synthesize(w), turned, atol=1e-4)


def test_shrinking_too_far_fades_out():
    generator = build(TINY)
    shrunk = torch.diag(torch.tensor([1e4, 1e4, 1.0]))
    assert generator.synthesis.input(latents(generator), shrunk).abs().max() == 0
