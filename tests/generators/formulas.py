"""The formulas of the StyleGAN2 paper, with per-sample weights and explicit zero insertion."""

import math

import torch
import torch.nn.functional as F

from energyql.generators.stylegan2 import StyleGAN2Config

SMALL = StyleGAN2Config(resolution=32, z_dim=6, w_dim=10, mapping_layers=3, channel_base=128, channel_max=12)
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

    def mapping(self, z, psi=1.0, condition=None):
        def unit(x):
            return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()

        x = unit(z)
        if condition is not None:
            x = torch.cat([x, unit(self.linear("mapping.embed", condition))], dim=1)
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
