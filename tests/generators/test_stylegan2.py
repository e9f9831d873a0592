"""StyleGAN2 against the formulas of the paper, written here with per-sample weights and explicit zero insertion."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from toys import random_generator

from energyql.errors import ArgumentError, ModelError
from energyql.generators.checkpoints.assemble import assemble
from energyql.generators.mapping import encoder
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config

SMALL = StyleGAN2Config(resolution=32, z_dim=6, w_dim=10, mapping_layers=3, channel_base=128, channel_max=12)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
FIR = (1.0, 3.0, 3.0, 1.0)


def latents(config, batch=3, dtype=torch.float64, seed=1):
    return torch.randn(batch, config.z_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


class Reference:
    """The generator from its parameters, and the filter for up-sampling, alone."""

    def __init__(self, generator, fir=FIR):
        self.config = generator.config
        self.p = generator.state_dict()
        self.taps = fir

    def linear(self, name, x, lr=1.0):
        weight, bias = self.p[f"{name}.weight"], self.p[f"{name}.bias"]
        return x @ (weight * (lr / math.sqrt(weight.shape[1]))).T + bias * lr

    def mapping(self, z, psi=1.0, label=None):
        def unit(x):
            return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()

        x = unit(z)
        if label is not None:
            x = torch.cat([x, unit(self.linear("mapping.embed", label))], dim=1)
        for i in range(self.config.mapping_layers):
            x = self.linear(f"mapping.fc{i}", x, self.config.mapping_lr_multiplier)
            x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)
        mean = self.p["mapping.w_avg"]
        return mean + psi * (x - mean)

    def fir(self, x, before, after):
        """Zero-pad and filter each channel in both directions, with gain 4: a convolution, so with flipped taps."""
        kernel = torch.tensor(self.taps, dtype=x.dtype).flip(0)
        kernel = 4 * kernel.outer(kernel) / kernel.sum() ** 2
        channels, taps = x.shape[1], len(kernel)
        x = F.pad(x, (before, after, before, after))
        return F.conv2d(x, kernel.expand(channels, 1, taps, taps), groups=channels)

    def double(self, x):
        """Zeros between pixels, then the filter, whose centre stays at the pixels or half a new pixel before them."""
        taps = len(self.taps)
        return self.fir(self.spread(x), (taps + 1) // 2, taps // 2 - 1)

    def spread(self, x):
        """Zeros between pixels."""
        batch, channels, height, width = x.shape
        out = x.new_zeros(batch, channels, 2 * height, 2 * width)
        out[:, :, ::2, ::2] = x
        return out

    def convolve(self, name, x, w, *, up=False, demodulate=True):
        weight = self.p[f"{name}.weight"]
        outputs, inputs, size, _ = weight.shape
        styles = self.linear(f"{name}.affine", w)
        if not demodulate:
            styles = styles / math.sqrt(inputs * size * size)
        weights = weight[None] * styles[:, None, :, None, None]  # (batch, outputs, inputs, size, size)
        if demodulate:
            weights = weights / (weights.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
        batch = len(x)
        padding = size // 2
        if up:  # a true convolution of the spread picture, then the filter
            x, weights, padding = self.spread(x), weights.flip((3, 4)), size - 1
        x = x.reshape(1, batch * inputs, *x.shape[2:])
        x = F.conv2d(x, weights.reshape(batch * outputs, inputs, size, size), padding=padding, groups=batch)
        x = x.reshape(batch, outputs, *x.shape[2:])
        taps = len(self.taps)
        return self.fir(x[:, :, :-1, :-1], (taps + 1) // 2 - 1, taps // 2 - 1) if up else x

    def layer(self, name, x, w, noise, *, up=False):
        x = self.convolve(f"{name}.conv", x, w, up=up)
        if noise:
            x = x + self.p[f"{name}.noise_const"] * self.p[f"{name}.noise_strength"]
        return self.act(x + self.p[f"{name}.bias"][:, None, None])

    def act(self, x):
        return self.clamp(torch.where(x > 0, x, 0.2 * x) * math.sqrt(2))

    def clamp(self, x):
        limit = self.config.conv_clamp
        return x if limit is None else x.clamp(-limit, limit)

    def synthesis(self, ws, noise=True):
        if ws.ndim == 2:
            ws = torch.stack([ws] * (2 * int(math.log2(self.config.resolution)) - 2), dim=1)
        x = torch.stack([self.p["synthesis.b4.const"]] * len(ws))
        image, row, resolution = None, 0, 4
        while resolution <= self.config.resolution:
            block = f"synthesis.b{resolution}"
            before = x
            if resolution > 4:
                x = self.layer(f"{block}.conv0", x, ws[:, row], noise, up=True)
                row += 1
            x = self.layer(f"{block}.conv1", x, ws[:, row], noise)
            row += 1  # and the picture layer shares the row of the next convolution
            resolution *= 2
            if self.config.architecture == "resnet" and resolution > 8:
                weight = self.p[f"{block}.skip.weight"]
                x = (x + self.double(F.conv2d(before, weight / math.sqrt(weight.shape[1])))) / math.sqrt(2)
            if self.config.architecture != "skip" and resolution <= self.config.resolution:
                continue
            rgb = self.convolve(f"{block}.torgb.conv", x, ws[:, row], demodulate=False)
            rgb = self.clamp(rgb + self.p[f"{block}.torgb.bias"][:, None, None])
            image = rgb if image is None else self.double(image) + rgb
        assert row + 1 == ws.shape[1]
        return image


@pytest.mark.parametrize("resolution", [8, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_it_draws_what_the_formulas_say(resolution, dtype, clamp):
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


class TestLabels:
    config = dataclasses.replace(SMALL, c_dim=4)

    def test_a_label_is_embedded(self):
        generator = random_generator(self.config).double()
        z, label = latents(self.config), torch.eye(4, dtype=torch.float64)[[0, 3, 1]]
        w = generator.encode(z, 0.9, label)
        torch.testing.assert_close(w, Reference(generator).mapping(z, 0.9, label), rtol=0, atol=1e-9)
        assert (w - generator.encode(z, 0.9, label.roll(1, 0))).abs().min(dim=1).values.max() > 1e-6

    def test_a_label_of_integers_is_a_label(self):
        generator = random_generator(self.config)
        z, label = latents(self.config, dtype=torch.float32), torch.eye(4, dtype=torch.long)[[0, 3, 1]]
        assert torch.equal(generator.encode(z, label=label), generator.encode(z, label=label.float()))


class TestRows:
    def test_equal_rows_are_w(self):
        generator = random_generator(SMALL)
        w = generator.encode(latents(SMALL, dtype=torch.float32))
        rows = w[:, None].repeat(1, SMALL.num_ws, 1)
        torch.testing.assert_close(generator.synthesize(rows), generator.synthesize(w), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("row", range(SMALL.num_ws))
    def test_a_row_drives_its_convolution_and_the_picture_layer_before_it(self, row):
        """As in the official code: row 0 is b4.conv1, row 1 is b4.torgb and b8.conv0, row 2 is b8.conv1, ..."""
        generator = random_generator(SMALL).double()
        seen = {}
        for name, module in generator.synthesis.named_modules():
            if name.endswith(("conv0", "conv1", "torgb")):
                module.register_forward_hook(
                    lambda _, inputs, __, name=name: seen.setdefault(name, []).append(inputs[1].clone())
                )
        ws = generator.encode(latents(SMALL))[:, None].repeat(1, SMALL.num_ws, 1)
        generator.synthesize(ws)
        ws[:, row] += 1
        generator.synthesize(ws)
        halves = {name: torch.cat(calls).chunk(2) for name, calls in seen.items()}  # a call may be of some samples
        changed = {name for name, (before, after) in halves.items() if not torch.equal(before, after)}
        last = SMALL.num_ws - 1
        level = 4 << (row // 2)
        if row % 2 == 0:
            assert changed == {f"b{level}.conv1"}
        else:
            assert changed == {f"b{level}.torgb"} | ({f"b{2 * level}.conv0"} if row < last else set())

    @pytest.mark.parametrize("shape", [(2, SMALL.num_ws - 1, SMALL.w_dim), (2, SMALL.w_dim + 1), (SMALL.w_dim,)])
    def test_wrong_shapes(self, shape):
        with pytest.raises(ArgumentError, match=r"w must be \(batch, 10\) or \(batch, 8, 10\), not"):
            random_generator(SMALL).synthesize(torch.zeros(shape))


class TestNoise:
    def test_constant_noise_is_added_and_can_be_left_out(self):
        generator = random_generator(SMALL).double()
        w = generator.encode(latents(SMALL))
        quiet, usual = generator.synthesize(w, "none"), generator.synthesize(w, "const")
        torch.testing.assert_close(quiet, Reference(generator).synthesis(w, noise=False), rtol=0, atol=1e-9)
        assert (quiet - usual).abs().max() > 0.01
        assert torch.equal(usual, generator.synthesize(w))

    @pytest.mark.parametrize("resolution", [8, 32])
    def test_given_noise_takes_the_place_of_the_stored(self, resolution):
        config = dataclasses.replace(SMALL, resolution=resolution)
        generator = random_generator(config).double()
        w, noise = generator.encode(latents(config, batch=9)), torch.randn(9, config.noise_size).double()
        drawn = generator.synthesize(w, noise)
        for row in (0, 4, 8):
            end = 0
            for name, stored in generator.named_buffers():
                if name.endswith("noise_const"):
                    start, end = end, end + stored.numel()
                    stored.copy_(noise[row, start:end].view_as(stored))
            assert end == config.noise_size == generator.noise_size
            torch.testing.assert_close(drawn[row], generator.synthesize(w[row : row + 1])[0], rtol=0, atol=1e-9)

    def test_a_picture_with_given_noise_does_not_depend_on_its_batch(self):
        generator = random_generator(SMALL)
        w = generator.encode(latents(SMALL, batch=9, dtype=torch.float32))
        noise = torch.randn(9, generator.noise_size)
        assert torch.equal(generator.synthesize(w, noise)[3:5], generator.synthesize(w[3:5], noise[3:5]))

    def test_noise_of_strength_zero_is_none(self):
        generator = random_generator(SMALL)
        for name, strength in generator.named_parameters():
            if name.endswith("noise_strength"):
                strength.zero_()
        assert generator.noise_size == 0

    def test_no_such_noise(self):
        w = torch.zeros(1, SMALL.w_dim)
        with pytest.raises(ArgumentError, match="not 'random'"):
            random_generator(SMALL).synthesize(w, "random")
        with pytest.raises(ArgumentError, match=r"a tensor \(1, 2704\), not \(2, 2704\)"):
            random_generator(SMALL).synthesize(w, torch.zeros(2, SMALL.noise_size))


@pytest.mark.parametrize("resolution", [8, 16, 32, 64, 128, 256, 512, 1024])
def test_every_size(resolution):
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
        ({"resolution": 4}, "resolution must be a power of two from 8 to 1024, not 4"),
        ({"resolution": 48}, "not 48"),
        ({"resolution": 32.0}, "not 32.0"),
        ({"z_dim": 0}, "z_dim must be a whole number from 1"),
        ({"w_dim": 1.5}, "w_dim must be a whole number"),
        ({"c_dim": -1}, "c_dim"),
        ({"channel_base": 31}, "channel_base must be a whole number from 32"),
        ({"channel_max": True}, "channel_max"),
        ({"image_channels": 2}, "image_channels must be 1 .grey., 3 .RGB. or 4 .RGBA., not 2"),
        ({"architecture": "dense"}, "architecture must be one of skip, resnet, orig, not 'dense'"),
        ({"filter_taps": 5}, "filter_taps must be even, not 5"),
        ({"layer_features": 0}, "layer_features must be a whole number from 1"),
        ({"conv_clamp": float("nan")}, "conv_clamp must be a number above 0"),
        ({"conv_clamp": "256"}, "conv_clamp must be a number above 0, not '256'"),
        ({"mapping_lr_multiplier": None}, "mapping_lr_multiplier"),
    ],
)
def test_impossible_architectures(wrong, message):
    with pytest.raises(ModelError, match=message):
        dataclasses.replace(SMALL, **wrong)
