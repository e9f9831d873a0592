"""What a StyleGAN3 is built of, and what follows from it: the signal between any two layers.

Sections and appendices are those of Karras et al., "Alias-Free Generative Adversarial Networks", NeurIPS 2021
(arXiv 2106.12423).
"""

from __future__ import annotations

import dataclasses
import math

from energyql.errors import ModelError


@dataclasses.dataclass(frozen=True)
class SignalSpec:
    """The signal that leaves a layer. Frequencies are in cycles a picture, rates in samples a picture.

    Args:
        channels: number of feature maps.
        size: side in samples, margins included.
        sampling_rate: s, samples that cover the picture without its margins.
        cutoff: f_c, up to which content is kept.
        half_width: f_h, half the transition band of the low-pass filter.
        critical: whether it is sampled at just the rate that its cutoff needs.
    """

    channels: int
    size: int
    sampling_rate: int
    cutoff: float
    half_width: float
    critical: bool


@dataclasses.dataclass(frozen=True)
class StyleGAN3Config:
    """Architecture of a StyleGAN3. The defaults are those of the T variant; `rotation_variant` gives R.

    Args:
        resolution: side of the square pictures, a power of two of at least 8.
        z_dim, w_dim: sizes of the two latents.
        c_dim: number of class labels, 0 for an unconditional model.
        mapping_layers: depth of the mapping network.
        mapping_lr_multiplier: learning-rate multiplier the mapping weights are stored with.
        channel_base, channel_max: a layer with cutoff f has min(channel_base / 2f, channel_max) channels.
        image_channels: 3 for RGB.
        num_layers: depth of the synthesis network, without the Fourier features and the last RGB layer.
        num_critical: how many layers at the end are critically sampled.
        first_cutoff, first_stopband: f_c and f_t of the first layer, in cycles a picture.
        last_stopband_rel: f_t of the last layer, as a multiple of its cutoff.
        margin_size: samples kept around the picture on each side, so that its border leaks no position.
        output_scale: pictures are multiplied by this.
        conv_kernel: side of the convolution kernels, odd.
        filter_size: taps of a low-pass filter for each sample of the coarser of its two grids.
        lrelu_upsampling: how much finer the grid is on which the nonlinearity acts.
        use_radial_filters: whether down-sampling filters pass a disc of frequencies, except in critical layers.
        conv_clamp: activations are clamped to +- this value; `None` for no clamping.

    Raises:
        ModelError: a setting makes no network.
    """

    resolution: int
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    mapping_layers: int = 2
    mapping_lr_multiplier: float = 0.01
    channel_base: int = 32768
    channel_max: int = 512
    image_channels: int = 3
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
        if type(self.resolution) is not int or self.resolution not in (8, 16, 32, 64, 128, 256, 512, 1024):
            raise ModelError(f"resolution must be a power of two from 8 to 1024, not {self.resolution!r}")
        for name, least, most in (
            ("z_dim", 1, 1 << 16),
            ("w_dim", 1, 1 << 16),
            ("c_dim", 0, 1 << 16),
            ("mapping_layers", 1, 64),
            ("channel_base", self.resolution, 1 << 24),  # so that the layer with the highest cutoff has a channel
            ("channel_max", 1, 1 << 16),
            ("image_channels", 1, 64),
            ("num_layers", 2, 64),
            ("num_critical", 1, 63),
            ("margin_size", 0, 64),
            ("conv_kernel", 1, 15),
            ("filter_size", 1, 64),
            ("lrelu_upsampling", 1, 8),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ModelError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
        if self.num_critical >= self.num_layers:
            raise ModelError(f"num_critical must be below num_layers = {self.num_layers}, not {self.num_critical}")
        if self.conv_kernel % 2 == 0:
            raise ModelError(f"conv_kernel must be odd, not {self.conv_kernel}")
        if not isinstance(self.use_radial_filters, bool):
            raise ModelError(f"use_radial_filters must be true or false, not {self.use_radial_filters!r}")
        for name, above, below in (
            ("mapping_lr_multiplier", 0, math.inf),
            ("conv_clamp", 0, math.inf),
            ("output_scale", 0, math.inf),
            ("first_cutoff", 0.5, self.resolution / 2),  # from below, so that there are samples at all
            ("first_stopband", self.first_cutoff, math.inf),
            ("last_stopband_rel", 1, math.inf),
        ):
            value = getattr(self, name)
            if value is None and name == "conv_clamp":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < below:
                raise ModelError(f"{name} must be a number between {above} and {below}, not {value!r}")

    def rotation_variant(self) -> StyleGAN3Config:
        """The R variant of a T configuration: 1x1 convolutions, radial filters, twice the channels."""
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

    def signals(self) -> list[SignalSpec]:
        """What leaves each layer, the RGB layer last (section 3.2 and appendix C.1)."""
        last_cutoff = self.resolution / 2
        last_stopband = last_cutoff * self.last_stopband_rel
        specs = []
        for i in range(self.num_layers + 1):
            progress = min(i / (self.num_layers - self.num_critical), 1)
            cutoff = self.first_cutoff * (last_cutoff / self.first_cutoff) ** progress
            stopband = self.first_stopband * (last_stopband / self.first_stopband) ** progress
            # Some stop bands are powers of two, which rounding must not push to the next rate.
            rate = 2 ** math.ceil(math.log2(min(2 * stopband, self.resolution)) - 1e-9)
            specs.append(
                SignalSpec(
                    channels=round(min(self.channel_base / 2 / cutoff, self.channel_max)),
                    size=rate + 2 * self.margin_size,
                    sampling_rate=rate,
                    cutoff=cutoff,
                    half_width=max(stopband, rate / 2) - cutoff,
                    critical=i >= self.num_layers - self.num_critical,
                )
            )
        # The margins go one layer before the end: the RGB layer does not look around.
        specs[-2] = dataclasses.replace(specs[-2], size=self.resolution)
        specs[-1] = dataclasses.replace(specs[-1], size=self.resolution, channels=self.image_channels)
        return specs
