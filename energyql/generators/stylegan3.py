"""StyleGAN3 in plain PyTorch, T (translation) and R (rotation) variants: settings, low-pass filters and networks.

Sections and appendices in comments are those of Karras et al., "Alias-Free Generative Adversarial Networks", NeurIPS
2021 (arXiv 2106.12423); appendix C has the radial filter. Kaiser's window and its two design formulas are in Oppenheim
and Schafer, "Discrete-Time Signal Processing", section 7.5.3. Parameters are stored at unit scale, as in the widely
used checkpoints.
"""

from __future__ import annotations

import dataclasses
import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ArgumentError, ModelError
from energyql.generators.base import Family
from energyql.generators.convolution import Modulation, drawn_alone
from energyql.generators.mapping import (
    ACTIVATION_GAIN,
    ACTIVATION_SLOPE,
    FullyConnected,
    StyleGAN,
    StyleGANConfig,
    clamped,
    over_white,
    style_rows,
)
from energyql.numerics import LARGEST
from energyql.numerics.shapes import Float


@dataclasses.dataclass(frozen=True)
class SignalSpec:
    """The output signal of a layer. Frequencies are in cycles per picture, rates in samples per picture.

    Args:
        channels: number of feature maps.
        size: side in samples, margins included.
        sampling_rate: s, the samples along a side of the picture, without margins.
        cutoff: f_c, the highest frequency that the low-pass filter preserves.
        half_width: f_h, half the transition band of the low-pass filter.
        critical: whether the sampling rate is the lowest one for the cutoff.
    """

    channels: int
    size: int
    sampling_rate: int
    cutoff: float
    half_width: float
    critical: bool


@dataclasses.dataclass(frozen=True)
class StyleGAN3Config(StyleGANConfig):
    """Architecture of a StyleGAN3. The defaults are those of the T variant; `rotation_variant` gives R.

    Args:
        channel_base: a layer with cutoff f has min(channel_base / 2f, channel_max) channels.
        channel_max: see `channel_base`.
        num_layers: depth of the synthesis network, without the Fourier features and the last RGB layer.
        num_critical: number of critically sampled layers, at the end.
        first_cutoff: f_c, the cutoff of the first layer, in cycles per picture.
        first_stopband: f_t, the frequency at which the stop band of the first layer begins.
        last_stopband_rel: f_t of the last layer, as a multiple of its cutoff.
        margin_size: samples added around the picture on each side, so that the border does not reveal positions.
        output_scale: factor of the pictures.
        conv_kernel: side of the convolution kernels, odd.
        filter_size: taps of a low-pass filter for each sample of the coarser of its two grids.
        lrelu_upsampling: how many times finer the grid of the leaky ReLU is than the grids around it.
        use_radial_filters: whether down-sampling filters pass a disc of frequencies, except in critical layers.

    The other settings are those of `StyleGANConfig`.

    Raises:
        ModelError: a setting is out of its range.
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
        self._check_integers(
            num_layers=(2, 64),
            num_critical=(1, 63),
            margin_size=(0, 64),
            conv_kernel=(1, 15),
            filter_size=(1, 64),
            lrelu_upsampling=(1, 8),
        )
        if self.num_critical >= self.num_layers:
            raise ModelError(f"num_critical must be below num_layers = {self.num_layers}, not {self.num_critical}")
        if self.conv_kernel % 2 == 0:
            raise ModelError(f"conv_kernel must be odd, not {self.conv_kernel}")
        if not isinstance(self.use_radial_filters, bool):
            raise ModelError(f"use_radial_filters must be true or false, not {self.use_radial_filters!r}")
        self._check_numbers(
            output_scale=(0, LARGEST),
            first_cutoff=(0.5, self.resolution / 2),  # below 0.5 the first layer would have no samples
            last_stopband_rel=(1, LARGEST),
        )
        self._check_numbers(first_stopband=(self.first_cutoff, LARGEST))

    def rotation_variant(self) -> StyleGAN3Config:
        """Return the R variant of a T configuration: 1x1 convolutions, radial filters, twice the channels."""
        return dataclasses.replace(
            self,
            conv_kernel=1,
            use_radial_filters=True,
            channel_base=2 * self.channel_base,
            channel_max=2 * self.channel_max,
        )

    @property
    def num_ws(self) -> int:
        """Number of W+ rows: the Fourier features, the layers, the last RGB layer."""
        return self.num_layers + 2

    def clamp_of(self, layer: int) -> float | None:
        """Return the limit of the activations of the layer with this index, `None` for no limit."""
        return self.conv_clamp

    def signals(self) -> list[SignalSpec]:
        """Return the output signal of each layer, the RGB layer last (section 3.2 and appendix C.1)."""
        steps = self.num_layers - self.num_critical
        return self._progression(self.first_cutoff, self.first_stopband, self.resolution, self.num_layers, steps)

    def _progression(
        self, first_cutoff: float, first_stopband: float, resolution: int, layers: int, steps: int
    ) -> list[SignalSpec]:
        """Return the output signals of `layers` layers and of an RGB layer.

        Cutoffs and stop bands grow from those of the first layer to those of `resolution` in the first `steps` layers.
        """
        last_cutoff = resolution / 2
        last_stopband = last_cutoff * self.last_stopband_rel
        specs = []
        for i in range(layers + 1):
            progress = min(i / steps, 1)
            cutoff = first_cutoff * (last_cutoff / first_cutoff) ** progress
            stopband = first_stopband * (last_stopband / first_stopband) ** progress
            # Some stop bands are powers of two: rounding must not push them to the next rate.
            rate = 2 ** math.ceil(math.log2(min(2 * stopband, resolution)) - 1e-9)
            specs.append(
                SignalSpec(
                    channels=round(min(self.channel_base / 2 / cutoff, self.channel_max)),
                    size=rate + 2 * self.margin_size,
                    sampling_rate=rate,
                    cutoff=cutoff,
                    half_width=max(stopband, rate / 2) - cutoff,
                    critical=i >= layers - self.num_critical,
                )
            )
        # The margins end one layer before the last: the RGB layer reads single pixels.
        specs[-2] = dataclasses.replace(specs[-2], size=resolution)
        specs[-1] = dataclasses.replace(specs[-1], size=resolution, channels=self.image_channels)
        return specs


def kaiser_beta(taps: int, width: float) -> float:
    """Return beta, the shape parameter of the Kaiser window, for a low-pass filter.

    Args:
        taps: length of the filter.
        width: full width of the transition band, as a fraction of half the sampling rate.
    """
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95  # decibels that a filter of this length can reach
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * math.pow(attenuation - 21, 0.4) + 0.07886 * (attenuation - 21)
    return 0.0


def lowpass_filter(taps: int, cutoff: float, width: float, sampling_rate: float, *, radial: bool = False) -> Tensor:
    """Return an ideal low-pass filter in a Kaiser window, of gain 1 at frequency zero, in float32 on the CPU.

    Args:
        taps: length of the filter.
        cutoff: frequency at which the amplitude is halved, below half the sampling rate.
        width: full width of the transition band around `cutoff`.
        sampling_rate: in the unit of `cutoff` and `width`.
        radial: whether to pass a disc of frequencies rather than a square.

    Returns:
        Shape (taps,), to apply along both axes; (taps, taps) where `radial`.
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


def upsample(
    x: Float[Tensor, "batch channels side side"],
    kernel: Tensor | None,
    factor: int,
    padding: tuple[int, int],
    gain: float = 1.0,
) -> Float[Tensor, "batch channels new_side new_side"]:
    """Return x on a grid `factor` times finer: zeros are inserted between samples, and the result is padded, filtered.

    Args:
        x: samples.
        kernel: symmetric filter of unit gain, (taps,), along both axes; `None` for the identity.
        factor: ratio of new samples to old ones along each axis.
        padding: number of zeros before and after, counted in new samples; a negative number crops. new_side is
            side * factor + sum(padding) - taps + 1.
        gain: factor of the result.
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


def downsample(
    x: Float[Tensor, "batch channels side side"], kernel: Tensor | None, factor: int
) -> Float[Tensor, "batch channels new_side new_side"]:
    """Return every `factor`-th sample along each axis of x, after a filter without padding.

    The symmetric filter `kernel` is (taps,), along both axes, or (taps, taps), or `None` for the identity. The new side
    is (side - taps) // factor + 1.
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
"""Count of numbers of fine grids that are computed together on the CPU, so that they stay in the caches."""


class FourierFeatures(nn.Module):
    """The first layer: sine waves of random frequencies and phases, shifted and rotated as w says, then mixed."""

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
        """Return the waves, seen through a transform (3, 3) or (batch, 3, 3); by default the one stored in the model.

        `placement` makes such transforms.
        """
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
        return F.conv2d(x, (self.weight / math.sqrt(len(self.weight)))[:, :, None, None])


def layer_filters(
    before: SignalSpec, after: SignalSpec, config: StyleGAN3Config, *, rgb: bool
) -> tuple[int, int, tuple[Tensor | None, Tensor | None]]:
    """Return the resampling of a layer around its leaky ReLU, which is computed on a finer grid.

    Args:
        before: the input signal.
        after: the output signal.
        config: the settings of the generator.
        rgb: whether it is the RGB layer.

    Returns:
        How many times finer that grid is than the input grid, and than the output grid; and the up-sampling filter
        (taps,) and the down-sampling filter (taps,) or (taps, taps), each `None` if its grids are equally fine.
    """
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
    """A modulated convolution and a bias, then a leaky ReLU on a finer grid between two low-pass filters.

    The RGB layer has no filters, no leaky ReLU and no demodulation.

    Args:
        before: the input signal.
        after: the output signal.
        config: the settings of the generator.
        rgb: whether it is the RGB layer.
        clamp: limit of the activations, `None` for no limit.
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
        # The samples that the output size needs on the fine grid, minus those after up-sampling.
        padding = (after.size - 1) * self.down + 1 - (before.size + kernel - 1) * self.up + up_taps + down_taps - 2
        low = (padding + self.up) // 2  # so that both grids have the same centre (appendix C.3)
        self.padding = (low, padding - low)

    def forward(
        self, x: Float[Tensor, "batch inputs size size"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch outputs new_size new_size"]:
        """Return the output signal of the layer for the input signal x."""
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
        """Apply the leaky ReLU on a finer grid between two low-pass filters."""
        # A leaky ReLU commutes with a positive factor.
        x = upsample(x, self.up_filter, self.up, self.padding, ACTIVATION_GAIN)
        x = clamped(F.leaky_relu_(x, ACTIVATION_SLOPE), self.clamp)
        return downsample(x, self.down_filter, self.down)


class SynthesisNetwork(nn.Module):
    """The network that maps w or W+ to the picture."""

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
        """The layer from w to styles for each row of W+; the first one shifts and rotates the Fourier features."""
        return [self.input.affine, *(cast(SynthesisLayer, layer).affine for layer in self.layers)]

    def forward(self, ws: Tensor, transform: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Map ws (batch, w_dim) or (batch, num_ws, w_dim) to (batch, image_channels, resolution, resolution).

        `transform` is (3, 3) or (batch, 3, 3), by default the one stored in the model. Feature maps are in `dtype`, by
        default that of the parameters; the picture is in the dtype of the parameters.

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
    """The StyleGAN3 generator: mapping and synthesis networks."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__(config)
        self.synthesis = SynthesisNetwork(config)

    def synthesize(self, w: Tensor, transform: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Map w (batch, w_dim) or W+ (batch, num_ws, w_dim) to pictures, about [-1, 1], (batch, channels, side, side).

        Pictures with a fourth channel, the opacity, are drawn over white; `synthesis` returns all four channels.

        Args:
            w: the output of `encode`, or W+ with a row for each layer.
            transform: matrices from `placement`, (3, 3) or (batch, 3, 3); by default the one stored in the model, as a
                rule the identity.
            dtype: precision of the feature maps, by default that of the parameters.

        Raises:
            ArgumentError: w or transform has another shape.
        """
        return over_white(self.synthesis(w, transform, dtype))


def placement(rotation: float = 0.0, translation: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """Return a matrix (3, 3) for `StyleGAN3.synthesize` that rotates the picture, then shifts it.

    The matrix maps a point of the transformed picture to its place in the original.

    Args:
        rotation: angle in radians, clockwise.
        translation: shift to the right and down, as fractions of the side of the picture.
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
