"""The settings of a StyleGAN3, and the signals between its layers that follow from them.

Sections and appendices are those of Karras et al., "Alias-Free Generative Adversarial Networks", NeurIPS 2021
(arXiv 2106.12423).
"""

from __future__ import annotations

import dataclasses
import math

from energyql.errors import ModelError
from energyql.generators.stylegan_config import StyleGANConfig


@dataclasses.dataclass(frozen=True)
class SignalSpec:
    """The output signal of a layer. Frequencies are in cycles per picture, rates in samples per picture.

    Args:
        channels: number of feature maps.
        size: side in samples, margins included.
        sampling_rate: s, samples that cover the picture without its margins.
        cutoff: f_c, the frequency up to which content is kept.
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
        channel_base, channel_max: a layer with cutoff f has min(channel_base / 2f, channel_max) channels.
        num_layers: depth of the synthesis network, without the Fourier features and the last RGB layer.
        num_critical: number of critically sampled layers, at the end.
        first_cutoff, first_stopband: f_c and f_t of the first layer, in cycles per picture.
        last_stopband_rel: f_t of the last layer, as a multiple of its cutoff.
        margin_size: samples kept around the picture on each side, so that its border leaks no position.
        output_scale: pictures are multiplied by this.
        conv_kernel: side of the convolution kernels, odd.
        filter_size: taps of a low-pass filter for each sample of the coarser of its two grids.
        lrelu_upsampling: how much finer the grid of the nonlinearity is.
        use_radial_filters: whether down-sampling filters pass a disc of frequencies, except in critical layers.

    The other settings are those of `StyleGANConfig`.
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
            output_scale=(0, math.inf),
            first_cutoff=(0.5, self.resolution / 2),  # below 0.5 the first layer would have no samples
            last_stopband_rel=(1, math.inf),
        )
        self._check_numbers(first_stopband=(self.first_cutoff, math.inf))

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
        """Return the limit of the activations of a layer, `None` for none."""
        return self.conv_clamp

    def signals(self) -> list[SignalSpec]:
        """Return the output signal of each layer, the RGB layer last (section 3.2 and appendix C.1)."""
        steps = self.num_layers - self.num_critical
        return self._progression(self.first_cutoff, self.first_stopband, self.resolution, self.num_layers, steps)

    def _progression(
        self, first_cutoff: float, first_stopband: float, resolution: int, layers: int, steps: int
    ) -> list[SignalSpec]:
        """Return the signals of `layers` and an RGB layer, whose cutoffs grow in `steps` to that of the resolution."""
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
