"""StyleGAN3 in plain PyTorch: no compiler, no custom operators, any device.

Karras et al., "Alias-Free Generative Adversarial Networks", NeurIPS 2021 (arXiv 2106.12423): T (translation) and R
(rotation) variants. Equations and appendices in comments are the paper's. Parameters are at unit scale, as in the
widely used checkpoints.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ArgumentError
from energyql.generators.alias_free import downsample, lowpass_filter, upsample
from energyql.generators.base import Family
from energyql.generators.convolution import Modulation, drawn_alone
from energyql.generators.mapping import (
    ACTIVATION_GAIN,
    ACTIVATION_SLOPE,
    FullyConnected,
    StyleGAN,
    clamped,
    over_white,
    style_rows,
)
from energyql.generators.stylegan3_config import SignalSpec, StyleGAN3Config
from energyql.numerics.shapes import Float

_CACHED = 1 << 21
"""Numbers of the fine grids that are computed together on the CPU."""


class FourierFeatures(nn.Module):
    """Sine waves of random frequencies and phases, shifted and rotated by a function of w, then mixed."""

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, signal: SignalSpec, w_dim: int) -> None:
        super().__init__()
        self.signal = signal
        channels = signal.channels
        angle = 2 * math.pi * torch.rand(channels)
        radius = signal.cutoff * torch.rand(channels).sqrt()  # uniform over a disc
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = FullyConnected(w_dim, 4)
        with torch.no_grad():  # without training, w neither rotates nor shifts
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", torch.stack([angle.cos(), angle.sin()], 1) * radius[:, None])
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    def forward(
        self, w: Float[Tensor, "batch w_dim"], transform: Tensor | None = None
    ) -> Float[Tensor, "batch channels size size"]:
        """Draw the waves under a transform (3, 3) or (batch, 3, 3); by default the one stored in the model."""
        learned = self.affine(w)
        learned = learned / learned[:, :2].norm(dim=1, keepdim=True)
        cosine, sine, shift = learned[:, 0], learned[:, 1], learned[:, 2:, None]
        rotation = torch.stack([cosine, -sine, sine, cosine], 1).reshape(-1, 2, 2)
        given = self.transform if transform is None else transform.to(w)
        # The user's transform comes first, then the inverse of the learned shift, then the learned rotation.
        moved = rotation @ (given[..., :2, :] - shift * given[..., 2:, :])
        freqs = self.freqs @ moved[:, :, :2]
        phases = self.phases + (self.freqs @ moved[:, :, 2:]).squeeze(2)
        # A transform that shrinks the picture may raise frequencies above what the grid can hold: fade those out.
        room = self.signal.sampling_rate / 2 - self.signal.cutoff
        amplitudes = (1 - (freqs.norm(dim=2) - self.signal.cutoff) / room).clamp(0, 1)
        size = self.signal.size
        grid = (torch.arange(size, device=w.device, dtype=w.dtype) + 0.5 - size / 2) / self.signal.sampling_rate
        along_x = freqs[:, :, :1] * grid
        along_y = freqs[:, :, 1:] * grid + phases[:, :, None]
        x = torch.sin(2 * math.pi * (along_x[:, :, None, :] + along_y[:, :, :, None])) * amplitudes[:, :, None, None]
        return F.conv2d(x, (self.weight / math.sqrt(len(self.weight)))[:, :, None, None])


def layer_filters(
    before: SignalSpec, after: SignalSpec, config: StyleGAN3Config, *, rgb: bool
) -> tuple[int, int, tuple[Tensor | None, Tensor | None]]:
    """Return how much finer the grid of the nonlinearity is than those around it, and the filters to and from it."""
    rate = max(before.sampling_rate, after.sampling_rate) * (1 if rgb else config.lrelu_upsampling)
    up, down = rate // before.sampling_rate, rate // after.sampling_rate
    up_filter = down_filter = None
    if up > 1:
        up_filter = lowpass_filter(config.filter_size * up, before.cutoff, 2 * before.half_width, rate)
    if down > 1:
        radial = config.use_radial_filters and not after.critical
        width = 2 * after.half_width
        down_filter = lowpass_filter(config.filter_size * down, after.cutoff, width, rate, radial=radial)
    return up, down, (up_filter, down_filter)


class SynthesisLayer(nn.Module):
    """Modulated convolution and bias, then a leaky ReLU on a finer grid between two low-pass filters.

    The RGB layer has neither the filters nor the leaky ReLU, and does not normalise its output.
    """

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(
        self,
        before: SignalSpec,
        after: SignalSpec,
        config: StyleGAN3Config,
        *,
        rgb: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.rgb = rgb
        self.clamp = clamp
        kernel = 1 if rgb else config.conv_kernel
        self.affine = FullyConnected(config.w_dim, before.channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.modulation = Modulation(padding=kernel - 1, demodulate=not rgb)
        self.register_buffer("magnitude_ema", torch.ones(()))
        self.up, self.down, filters = layer_filters(before, after, config, rgb=rgb)
        up_taps, down_taps = (1 if taps is None else len(taps) for taps in filters)
        for name, taps in zip(("up_filter", "down_filter"), filters, strict=True):
            self.register_buffer(name, taps if taps is None else taps.to(self.weight.device))
        # The samples that the fine grid must hold for the output size, minus those that it holds after up-sampling.
        padding = (after.size - 1) * self.down + 1 - (before.size + kernel - 1) * self.up + up_taps + down_taps - 2
        low = (padding + self.up) // 2  # keeps the centres of both grids in one place (appendix C.3)
        self.padding = (low, padding - low)

    def forward(
        self, x: Float[Tensor, "batch inputs size size"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch outputs new_size new_size"]:
        """Return the next signal."""
        styles = self.affine(w)
        gain = self.magnitude_ema.rsqrt()  # brings the input to unit variance, as measured in training
        if self.rgb:
            styles = styles * (gain / math.sqrt(self.weight[0].numel()))
            return clamped(self.modulation(x, self.weight, styles, self.bias), self.clamp)
        x = self.modulation(x, self.weight, styles, self.bias, gain=gain)
        if not drawn_alone(x):
            return self._activate(x)
        # The channels do not interact, and the fine grids of a few of them stay in the caches. Filters are slower in
        # bfloat16 than in float32.
        together = max(16, _CACHED // (self.up * x.shape[-1]) ** 2 // 16 * 16)
        dtype = torch.promote_types(x.dtype, torch.float32)
        parts = [part.to(dtype).contiguous(memory_format=torch.channels_last) for part in x.split(together, 1)]
        return torch.cat([self._activate(part).to(x.dtype) for part in parts], 1)

    def _activate(self, x: Tensor) -> Tensor:
        """Apply the leaky ReLU on a finer grid between two low-pass filters."""
        # A leaky ReLU commutes with a positive factor.
        x = upsample(x, self.up_filter, self.up, self.padding, ACTIVATION_GAIN)
        x = clamped(F.leaky_relu_(x, ACTIVATION_SLOPE), self.clamp)
        return downsample(x, self.down_filter, self.down)


class SynthesisNetwork(nn.Module):
    """The network from W or W+ to the picture."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.config = config
        signals = config.signals()
        self.input = FourierFeatures(signals[0], config.w_dim)
        self.layers = nn.ModuleList(
            SynthesisLayer(
                signals[max(i - 1, 0)], signals[i], config, rgb=i == len(signals) - 1, clamp=config.clamp_of(i)
            )
            for i in range(len(signals))
        )

    @property
    def affines(self) -> list[FullyConnected]:
        """The maps from w to the styles of each row of W+; the first decides the place of the Fourier features."""
        return [self.input.affine, *(cast(SynthesisLayer, layer).affine for layer in self.layers)]

    def forward(self, ws: Tensor, transform: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Map ws (batch, w_dim) or (batch, num_ws, w_dim) to (batch, image_channels, resolution, resolution).

        Feature maps are in `dtype`, by default that of the parameters; the picture is in that of the parameters.

        Raises:
            ArgumentError: ws or transform has another shape.
        """
        ws = style_rows(ws, self.config.num_ws, self.config.w_dim)
        if transform is not None and tuple(transform.shape) not in ((3, 3), (len(ws), 3, 3)):
            raise ArgumentError(f"transform must be (3, 3) or ({len(ws)}, 3, 3), not {tuple(transform.shape)}")
        ws = ws.to(self.input.weight.dtype)
        dtype = dtype or ws.dtype
        if not len(ws) or not drawn_alone(ws, *self.parameters()):
            return self._draw(ws, transform, dtype)
        transforms = [transform] * len(ws) if transform is None or transform.ndim == 2 else transform
        images = [self._draw(one, moved, dtype) for one, moved in zip(ws.split(1), transforms, strict=True)]
        return torch.cat(images)

    def _draw(
        self, ws: Float[Tensor, "batch num_ws w_dim"], transform: Tensor | None, dtype: torch.dtype
    ) -> Float[Tensor, "batch channels side side"]:
        x = self.input(ws[:, 0], transform).to(dtype).contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.layers):
            x = layer(x, ws[:, i + 1])
        image: Tensor = x.to(ws.dtype) * self.config.output_scale
        return image


class StyleGAN3(StyleGAN):
    """The generator: mapping and synthesis."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__(config)
        self.synthesis = SynthesisNetwork(config)

    def synthesize(self, w: Tensor, transform: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Map w (batch, w_dim) or W+ (batch, num_ws, w_dim) to pictures, about [-1, 1], (batch, channels, side, side).

        A generator with four channels is drawn over white; `synthesis` returns the fourth, the opacity, as well.

        Args:
            w: the output of `encode`, or different rows for the layers.
            transform: matrices from `placement`, (3, 3) or (batch, 3, 3); by default the one stored in the model, as a
                rule the identity.
            dtype: see `SynthesisNetwork.forward`.
        """
        return over_white(self.synthesis(w, transform, dtype))


def placement(rotation: float = 0.0, translation: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """Return a matrix (3, 3) for `StyleGAN3.synthesize` that rotates the picture, then shifts it.

    It maps a point of the transformed picture to its place in the original. The angle is in radians, clockwise; the
    shift is right and down, as fractions of the side of the picture.
    """
    cosine, sine = math.cos(rotation), math.sin(rotation)
    right, down = translation
    return torch.tensor(
        [
            [cosine, sine, -cosine * right - sine * down],
            [-sine, cosine, sine * right - cosine * down],
            [0.0, 0.0, 1.0],
        ]
    )


FAMILY = Family(
    "stylegan3",
    StyleGAN3,
    StyleGAN3Config,
    "energyql.generators.checkpoints.stylegan3",
    "StyleGAN3",
)
