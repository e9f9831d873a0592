"""The generator StyleGAN3 in plain PyTorch: T, whose pictures follow translations, and R, which follows rotations too.

Comments refer to Karras et al., "Alias-Free Generative Adversarial Networks", NeurIPS 2021 (arXiv 2106.12423). The
formulas for filters in a Kaiser window are in Oppenheim and Schafer, "Discrete-Time Signal Processing", section 7.5.3.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ArgumentError
from energyql.generators.base import Family
from energyql.generators.convolution import Maps, Modulation, convolve, drawn_alone, one_by_one
from energyql.generators.mapping import (
    ACTIVATION_GAIN,
    ACTIVATION_SLOPE,
    FullyConnected,
    StyleGAN,
    StyleGANConfig,
    check_numbers,
    check_settings,
    clamped,
    over_white,
    style_rows,
)
from energyql.numerics import LARGEST
from energyql.numerics.shapes import Float


@dataclasses.dataclass(frozen=True)
class SignalSpec:
    """The output signal of a layer: feature maps as samples of a continuous picture with limited frequencies.

    Frequencies are in cycles per side of the picture. The symbols s, f_c and f_h are those of the StyleGAN3 paper.

    Args:
        channels: number of feature maps.
        size: side of the feature maps in samples, with the margins around the picture.
        sampling_rate: s, the number of samples along a side of the picture, without margins.
        cutoff: f_c, the frequency at which the low-pass filter of the layer halves the amplitude.
        half_width: f_h, half the width of the transition band of this filter.
        critical: whether the cutoff is half the sampling rate, the largest possible, as in the last layers.
    """

    channels: int
    size: int
    sampling_rate: int
    cutoff: float
    half_width: float
    critical: bool


@dataclasses.dataclass(frozen=True)
class StyleGAN3Config(StyleGANConfig):
    """Settings of a StyleGAN3 besides those of `StyleGANConfig`: by default of variant T, see `rotation_variant`.

    The low-pass filter of a layer passes frequencies below its cutoff, and removes those in its stop band, which begins
    above the cutoff. Frequencies are in cycles per side of the picture.

    Args:
        channel_base: a layer with cutoff f has min(channel_base / (2 f), channel_max) channels, rounded.
        num_layers: number of layers from w to pictures, without the Fourier features and the RGB layer at the end.
        num_critical: number of layers at the end whose cutoff is half the sampling rate, the largest possible.
        first_cutoff: cutoff of the first layer.
        first_stopband: frequency at which the stop band of the first layer begins.
        last_stopband_rel: frequency at which the stop band of the last layer begins, divided by its cutoff.
        margin_size: samples around the picture on each side, so that the border does not reveal positions.
        output_scale: factor of the output of the last layer.
        filter_size: length of the low-pass filter between a coarse and a fine grid, in samples of the coarse grid.
        lrelu_upsampling: how many times finer the grid of a leaky ReLU is than the finer of the grids around its layer.
        use_radial_filters: whether filters for down-sampling pass a disc of frequencies rather than a square, except in
            the last `num_critical` layers.
    """

    mapping_layers: int = 2
    num_layers: int = 14
    num_critical: int = 2
    first_cutoff: float = 2
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3
    margin_size: int = 10
    output_scale: float = 0.25
    conv_kernel: int = 3
    filter_size: int = 6
    lrelu_upsampling: int = 2
    use_radial_filters: bool = False
    conv_clamp: float | None = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, num_layers=range(2, 65), conv_kernel=range(1, 16, 2), filter_size=range(1, 65))
        check_settings(self, num_critical=range(1, self.num_layers), use_radial_filters=(False, True))
        check_settings(self, margin_size=range(65), lrelu_upsampling=range(1, 9))
        # Below a cutoff of 0.5 the first layer would have no samples.
        check_numbers(self, output_scale=(0, LARGEST), first_cutoff=(0.5, self.resolution / 2))
        check_numbers(self, last_stopband_rel=(1, LARGEST), first_stopband=(self.first_cutoff, LARGEST))

    def rotation_variant(self) -> StyleGAN3Config:
        """Settings of variant R from those of T: 1x1 convolutions, radial filters and twice as many channels."""
        base, most = 2 * self.channel_base, 2 * self.channel_max
        return dataclasses.replace(self, conv_kernel=1, use_radial_filters=True, channel_base=base, channel_max=most)

    @property
    def num_ws(self) -> int:
        """Number of rows of W+: one for the Fourier features, one for each layer, and one for the RGB layer."""
        return len(self.signals()) + 1

    def clamp_of(self, layer: int) -> float | None:
        """Limit of absolute values of activations in layer number `layer`, from 0; `None` for no limit."""
        return self.conv_clamp

    def signals(self) -> list[SignalSpec]:
        """Output signals of all layers in order, the RGB layer last (section 3.2 and appendix C.1 of the paper)."""
        steps = self.num_layers - self.num_critical
        return self._progression(self.first_cutoff, self.first_stopband, self.resolution, self.num_layers, steps)

    def _progression(self, f_c: float, f_t: float, resolution: int, layers: int, steps: int) -> list[SignalSpec]:
        """Signals of layers, then of an RGB layer. Cutoffs grow from f_c, stop bands from f_t, over `steps` layers."""
        last_cutoff = resolution / 2
        last_stopband = last_cutoff * self.last_stopband_rel
        specs = []
        for i in range(layers + 1):
            progress = min(i / steps, 1)
            cutoff = f_c * (last_cutoff / f_c) ** progress
            stopband = f_t * (last_stopband / f_t) ** progress
            # Some stop bands are powers of two: rounding must not push them to the next rate.
            rate = 2 ** math.ceil(math.log2(min(2 * stopband, resolution)) - 1e-9)
            channels = round(min(self.channel_base / 2 / cutoff, self.channel_max))
            half_width, critical = max(stopband, rate / 2) - cutoff, i >= layers - self.num_critical
            specs.append(SignalSpec(channels, rate + 2 * self.margin_size, rate, cutoff, half_width, critical))
        # The margins end one layer before the last: the RGB layer reads single pixels.
        specs[-2] = dataclasses.replace(specs[-2], size=resolution)
        specs[-1] = dataclasses.replace(specs[-1], size=resolution, channels=self.image_channels)
        return specs


def kaiser_beta(taps: int, width: float) -> float:
    """Shape parameter beta of a Kaiser window; `width` is that of the transition band, over half the sampling rate."""
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95  # decibels that a filter of this length can reach
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * math.pow(attenuation - 21, 0.4) + 0.07886 * (attenuation - 21)
    return 0.0


def lowpass_filter(taps: int, cutoff: float, width: float, sampling_rate: float, radial: bool = False) -> Tensor:
    """Low-pass filter, the ideal filter times a Kaiser window, of sum 1: (taps,) for each axis, or radial (taps, taps).

    Args:
        cutoff: frequency at which the amplitude is halved, below half the sampling rate.
        width: width of the transition band, the frequencies around `cutoff` between passing and removing.
        sampling_rate: samples per unit of length; `cutoff` and `width` are in cycles per the same unit.
        radial: whether the filter passes a disc of frequencies rather than a square.
    """
    beta = kaiser_beta(taps, 2 * width / sampling_rate)
    position = torch.arange(taps, dtype=torch.float64, device="cpu") - (taps - 1) / 2
    # The window is I0(beta sqrt(1 - (position / edge)^2)) up to scale. At least 1, so that one tap divides by no zero.
    edge = max((taps - 1) / 2, 1.0)
    window = torch.special.i0(beta * (1 - (position / edge) ** 2).clamp(min=0).sqrt())
    band = 2 * cutoff / sampling_rate
    if radial:
        radius = math.pi * torch.hypot(position[:, None], position[None, :])
        # J1(band r) / r, the transform of a disc, whose limit at the centre is band / 2
        ideal = torch.where(radius > 0, torch.special.bessel_j1(band * radius) / radius.clamp(min=1e-9), band / 2)
        kernel = ideal * window.outer(window)
    else:
        kernel = torch.special.sinc(band * position) * window
    normalized: Tensor = kernel / kernel.sum()
    return normalized.float()


def upsample(x: Maps, kernel: Tensor | None, factor: int, padding: tuple[int, int], gain: float = 1.0) -> Maps:
    """Interpolate x on a grid `factor` times finer along each axis: insert zeros, pad with zeros, and filter.

    The side becomes side * factor + sum(padding) - taps + 1.

    Args:
        kernel: symmetric filter of sum 1, (taps,), for each axis; `None` for no filter (1 tap).
        padding: zeros before the first sample and after the last, on the fine grid; a negative number removes samples.
    """
    if kernel is None:
        kernel = x.new_ones(1)
    taps, channels = len(kernel), x.shape[1]
    # The factor makes up for the inserted zeros.
    weight = (kernel * (factor * math.sqrt(gain))).to(x.dtype).expand(channels, 1, 1, taps).contiguous()
    # A transposed convolution need not multiply the zeros. It pads by taps - 1, and inserts none after the last sample.
    low, high = padding[0] - (taps - 1), padding[1] - (taps - 1) + (factor - 1)
    crop = max(0, -max(low, high))  # a margin that both sides lose is never computed
    x = F.conv_transpose2d(x, weight, stride=(1, factor), padding=(0, crop), groups=channels)
    x = F.conv_transpose2d(x, weight.transpose(2, 3), stride=(factor, 1), padding=(crop, 0), groups=channels)
    return F.pad(x, (low + crop, high + crop) * 2) if low + crop or high + crop else x


def downsample(x: Maps, kernel: Tensor | None, factor: int) -> Maps:
    """Filter x without padding, and keep every `factor`-th sample: the side becomes (side - taps) // factor + 1.

    The filter is symmetric, (taps, taps), or (taps,) for each axis; `None` for no filter (1 tap).
    """
    if kernel is None:
        return x[:, :, ::factor, ::factor]
    channels = x.shape[1]
    kernel = kernel.to(x.dtype)
    if kernel.ndim == 2:
        return F.conv2d(x, kernel.expand(channels, 1, -1, -1).contiguous(), stride=factor, groups=channels)
    weight = kernel.expand(channels, 1, 1, -1).contiguous()
    x = F.conv2d(x, weight, stride=(1, factor), groups=channels)
    return F.conv2d(x, weight.transpose(2, 3), stride=(factor, 1), groups=channels)


_CACHED = 1 << 21
"""About how many numbers of maps on fine grids a CPU computes together, so that they stay in its caches."""


Filters = tuple[Tensor | None, Tensor | None]
"""The two filters of a layer: for up-sampling, then for down-sampling; `None` for no filter."""


class FourierFeatures(nn.Module):
    """The first layer from w to pictures: learned mixtures of random sine waves, which w rotates and shifts."""

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

    def forward(self, w: Float[Tensor, "batch w_dim"], transform: Tensor | None = None) -> Maps:
        """Return the feature maps for w; `transform` is that of `StyleGAN3.synthesize`."""
        learned = self.affine(w)
        learned = learned / learned[:, :2].norm(dim=1, keepdim=True)
        cosine, sine, shift = learned[:, 0], learned[:, 1], learned[:, 2:, None]
        rotation = torch.stack([cosine, -sine, sine, cosine], 1).reshape(-1, 2, 2)
        matrix = self.transform if transform is None else transform.to(w)
        # The user's transform comes first, then the inverse of the learned shift, then the learned rotation.
        total = rotation @ (matrix[..., :2, :] - shift * matrix[..., 2:, :])
        freqs = self.freqs @ total[:, :, :2]
        phases = self.phases + (self.freqs @ total[:, :, 2:]).squeeze(2)
        # A transform that shrinks the picture raises frequencies, perhaps above those of the grid: fade those out.
        room = self.signal.sampling_rate / 2 - self.signal.cutoff
        amplitudes = (1 - (freqs.norm(dim=2) - self.signal.cutoff) / room).clamp(0, 1)
        size = self.signal.size
        grid = (torch.arange(size, device=w.device, dtype=w.dtype) + 0.5 - size / 2) / self.signal.sampling_rate
        along_x = freqs[:, :, :1] * grid
        along_y = freqs[:, :, 1:] * grid + phases[:, :, None]
        x = torch.sin(2 * math.pi * (along_x[:, :, None, :] + along_y[:, :, :, None])) * amplitudes[:, :, None, None]
        return convolve(x, (self.weight / math.sqrt(len(self.weight)))[:, :, None, None])


def layer_filters(signals: Sequence[SignalSpec], place: int, config: StyleGAN3Config) -> tuple[int, int, Filters]:
    """Factors of up- and of down-sampling around the leaky ReLU of layer `place` of `signals`, and their filters.

    If a factor is 1, its filter is `None`; else that for up-sampling is (taps,), that for down-sampling (taps,) or
    (taps, taps).
    """
    before, after, size = signals[max(place - 1, 0)], signals[place], config.filter_size
    finer = 1 if place == len(signals) - 1 else config.lrelu_upsampling
    rate = max(before.sampling_rate, after.sampling_rate) * finer
    up, down = rate // before.sampling_rate, rate // after.sampling_rate
    radial = config.use_radial_filters and not after.critical
    up_filter = lowpass_filter(size * up, before.cutoff, 2 * before.half_width, rate) if up > 1 else None
    down_filter = lowpass_filter(size * down, after.cutoff, 2 * after.half_width, rate, radial) if down > 1 else None
    return up, down, (up_filter, down_filter)


class SynthesisLayer(nn.Module):
    """A modulated convolution, then a bias and a leaky ReLU on a finer grid, between two low-pass filters.

    The RGB layer, which makes the picture, has no filters, no leaky ReLU and no demodulation.
    """

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, signals: Sequence[SignalSpec], place: int, config: StyleGAN3Config) -> None:
        super().__init__()
        before, after = signals[max(place - 1, 0)], signals[place]
        self.rgb, self.clamp = place == len(signals) - 1, config.clamp_of(place)
        kernel = 1 if self.rgb else config.conv_kernel
        self.affine = FullyConnected(config.w_dim, before.channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.modulation = Modulation(padding=kernel - 1, demodulate=not self.rgb)
        self.register_buffer("magnitude_ema", torch.ones(()))
        self.up, self.down, filters = layer_filters(signals, place, config)
        up_taps, down_taps = (1 if taps is None else len(taps) for taps in filters)
        for name, taps in zip(("up_filter", "down_filter"), filters, strict=True):
            self.register_buffer(name, taps if taps is None else taps.to(self.weight.device))
        # The samples that the output size needs on the fine grid, minus those after up-sampling.
        padding = (after.size - 1) * self.down + 1 - (before.size + kernel - 1) * self.up + up_taps + down_taps - 2
        low = (padding + self.up) // 2  # so that both grids have the same centre (appendix C.3)
        self.padding = (low, padding - low)

    def forward(self, x: Maps, w: Float[Tensor, "batch w_dim"]) -> Maps:
        """Return the output of the layer for the feature maps x, with styles that are computed from w."""
        styles = self.affine(w)
        gain = self.magnitude_ema.rsqrt()  # scales the input to unit variance; the variance was measured in training
        if self.rgb:
            styles = styles * (gain / math.sqrt(self.weight[0].numel()))
            return clamped(self.modulation(x, self.weight, styles, self.bias), self.clamp)
        x = self.modulation(x, self.weight, styles, self.bias, gain=gain)
        if not drawn_alone(x):
            return self._activate(x)
        # A few channels at a time, so that their fine grids stay in the caches. Filters are slower in bfloat16 than in
        # float32.
        together = max(16, _CACHED // (self.up * x.shape[-1]) ** 2 // 16 * 16)
        dtype = torch.promote_types(x.dtype, torch.float32)
        parts = [part.to(dtype).contiguous(memory_format=torch.channels_last) for part in x.split(together, 1)]
        return torch.cat([self._activate(part).to(x.dtype) for part in parts], 1)

    def _activate(self, x: Tensor) -> Tensor:
        """Up-sample x to a finer grid, apply the leaky ReLU, and down-sample to the output grid."""
        # A leaky ReLU commutes with a positive factor.
        x = upsample(x, self.up_filter, self.up, self.padding, ACTIVATION_GAIN)
        x = clamped(F.leaky_relu_(x, ACTIVATION_SLOPE), self.clamp)
        return downsample(x, self.down_filter, self.down)


class SynthesisNetwork(nn.Module):
    """The network that maps w, or W+ (a w for each layer), to pictures."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.config = config
        signals = config.signals()
        self.input = FourierFeatures(signals[0], config.w_dim)
        self.layers = nn.ModuleList(SynthesisLayer(signals, place, config) for place in range(len(signals)))

    @property
    def affines(self) -> list[FullyConnected]:
        """The linear layers that take w, one for each row of W+; the first is that of the Fourier features."""
        return [self.input.affine, *(cast(SynthesisLayer, layer).affine for layer in self.layers)]

    def forward(self, ws: Tensor, transform: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Map w, or W+, to pictures in the dtype of the parameters; see `StyleGAN3.synthesize`."""
        ws = style_rows(ws, self.config.num_ws, self.config.w_dim)
        if transform is not None and tuple(transform.shape) not in ((3, 3), (len(ws), 3, 3)):
            raise ArgumentError(f"transform must be (3, 3) or ({len(ws)}, 3, 3), not {tuple(transform.shape)}")
        ws = ws.to(self.input.weight.dtype)
        placements = (self.input.transform if transform is None else transform).expand(len(ws), 3, 3)
        return one_by_one(self, lambda ws, moved: self._draw(ws, moved, dtype or ws.dtype), ws, placements)

    def _draw(self, ws: Float[Tensor, "batch num_ws w_dim"], placements: Tensor, dtype: torch.dtype) -> Maps:
        x = self.input(ws[:, 0], placements).to(dtype).contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.layers):
            x = layer(x, ws[:, i + 1])
        return cast(Tensor, x.to(ws.dtype) * self.config.output_scale)


class StyleGAN3(StyleGAN):
    """The StyleGAN3 generator: a mapping network from z to w, and a synthesis network from w to pictures."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__(config)
        self.synthesis = SynthesisNetwork(config)

    def synthesize(self, w: Tensor, transform: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Map latents to pictures in about [-1, 1], (batch, channels, side, side).

        Pictures with a fourth channel, the opacity, are drawn over white; the network `synthesis` returns all four
        channels.

        Args:
            w: the output of `encode`, (batch, w_dim), or W+ with a w for each layer, (batch, num_ws, w_dim).
            transform: matrix that rotates and shifts the picture, by `placement`, (3, 3) or (batch, 3, 3); by default
                the matrix stored with the weights, as a rule the identity.
            dtype: precision of the feature maps; by default the dtype of the parameters.

        Raises:
            ArgumentError: w or `transform` has another shape.
        """
        return over_white(self.synthesis(w, transform, dtype))


def placement(rotation: float = 0.0, translation: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """Matrix (3, 3) for `StyleGAN3.synthesize` that rotates, then shifts a picture; it is the inverse of the movement.

    Args:
        rotation: angle in radians, clockwise.
        translation: shift to the right, and shift down, as fractions of the side of the picture.
    """
    cosine, sine = math.cos(rotation), math.sin(rotation)
    right, down = translation
    first = [cosine, sine, -cosine * right - sine * down]
    second = [-sine, cosine, sine * right - cosine * down]
    return torch.tensor([first, second, [0.0, 0.0, 1.0]])


FAMILY = Family("stylegan3", StyleGAN3, StyleGAN3Config, "energyql.generators.checkpoints.stylegan3", "StyleGAN3")
