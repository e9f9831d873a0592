"""What StyleGANs share: settings, fully connected layers, the mapping from z to w; and generators without one.

Parameters are at unit scale, as in the widely used checkpoints.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ArgumentError, ModelError
from energyql.generators.base import Generator, check_condition, encode_under
from energyql.generators.convolution import drawn_alone
from energyql.numerics import LARGEST
from energyql.numerics.linear import Dense, in_graph
from energyql.numerics.plain import Affine, UnitMoment, dense
from energyql.numerics.pullback import Back, inverse_norm, normalized, normalized_back
from energyql.numerics.shapes import Float


@dataclass(frozen=True)
class StyleGANConfig:
    """The settings of every StyleGAN.

    Args:
        resolution: side of the square pictures, a power of two from 8 to 1024.
        z_dim, w_dim: sizes of the two latents.
        c_dim: number of class labels, 0 for an unconditional model.
        mapping_layers: depth of the mapping network.
        mapping_lr_multiplier: learning-rate multiplier that the mapping weights are stored with.
        embed_features, layer_features: widths of the embedding of a label and of the mapping layers before the last;
            `None` for `w_dim`.
        channel_base, channel_max: limits of the number of channels, see the subclasses.
        image_channels: 1 for grey, 3 for RGB, 4 for RGBA.
        conv_clamp: activations are clamped to +- this value; `None` for no clamping.

    Raises:
        ModelError: a number is out of its range.
    """

    resolution: int
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    mapping_layers: int = 8
    mapping_lr_multiplier: float = 0.01
    embed_features: int | None = None
    layer_features: int | None = None
    channel_base: int = 32768
    channel_max: int = 512
    image_channels: int = 3
    conv_clamp: float | None = None

    def __post_init__(self) -> None:
        if type(self.resolution) is not int or self.resolution not in (8, 16, 32, 64, 128, 256, 512, 1024):
            raise ModelError(f"resolution must be a power of two from 8 to 1024, not {self.resolution!r}")
        self._check_integers(
            z_dim=(1, 1 << 16),
            w_dim=(1, 1 << 16),
            c_dim=(0, 1 << 16),
            mapping_layers=(1, 64),
            channel_base=(self.resolution, 1 << 27),  # so that the finest layer has a channel
            channel_max=(1, 1 << 16),
            image_channels=(1, 4),
        )
        for width in ("embed_features", "layer_features"):
            if getattr(self, width) is not None:
                self._check_integers(**{width: (1, 1 << 16)})
        if self.image_channels == 2:
            raise ModelError("image_channels must be 1 (grey), 3 (RGB) or 4 (RGBA), not 2")
        self._check_numbers(mapping_lr_multiplier=(0, LARGEST), conv_clamp=(0, LARGEST))

    def _check_integers(self, **ranges: tuple[int, int]) -> None:
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ModelError(f"{name} must be a whole number from {least} to {most}, not {value!r}")

    def _check_numbers(self, **ranges: tuple[float, float]) -> None:
        """The limits themselves are not allowed. `conv_clamp` may be `None`."""
        for name, (above, below) in ranges.items():
            value = getattr(self, name)
            if value is None and name == "conv_clamp":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < below:
                raise ModelError(f"{name} must be a number between {above} and {below}, not {value!r}")


ACTIVATION_SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2)  # keeps unit variance through a leaky ReLU of slope 0.2


def clamped(x: Float[Tensor, "*shape"], limit: float | None) -> Float[Tensor, "*shape"]:
    """Clamp to +- `limit`, in place where no graph needs x."""
    return x if limit is None else torch.clamp(x, -limit, limit, out=None if in_graph(x) else x)


def random_weights(*shape: int, scale: float = 1.0) -> Tensor:
    """Return normal numbers for an untrained layer; only a shape on the meta device, where weights of a file follow.

    Arithmetic on the meta device would import PyTorch's compiler, which takes longer than to load a model.
    """
    empty = torch.empty(shape)
    return empty if empty.is_meta else empty.normal_().mul_(scale)


class FullyConnected(nn.Module):
    """Linear layer with an equalised learning rate: parameters at unit scale, scaled when used."""

    def __init__(
        self, inputs: int, outputs: int, *, activate: bool = False, lr_multiplier: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(random_weights(outputs, inputs, scale=1 / lr_multiplier))
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.activate = activate
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.bias_gain = lr_multiplier

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Apply the layer."""
        x = F.linear(x * self.weight_gain, self.weight, self.bias * self.bias_gain)
        return F.leaky_relu(x, ACTIVATION_SLOPE) * ACTIVATION_GAIN if self.activate else x


class MappingNetwork(nn.Module):
    """The network from z, and a class label, to w."""

    w_avg: Tensor

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.z_dim, *[config.layer_features or config.w_dim] * (config.mapping_layers - 1), config.w_dim]
        if config.c_dim:
            self.embed = FullyConnected(config.c_dim, config.embed_features or config.w_dim)
            widths[0] += config.embed_features or config.w_dim
        for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            layer = FullyConnected(inputs, outputs, activate=True, lr_multiplier=config.mapping_lr_multiplier)
            self.add_module(f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    @property
    def layers(self) -> list[FullyConnected]:
        """The layers, in order."""
        return [cast(FullyConnected, self.get_submodule(f"fc{i}")) for i in range(self.config.mapping_layers)]

    def forward(
        self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0, label: Tensor | None = None
    ) -> Float[Tensor, "batch w_dim"]:
        """Map z and label (batch, c_dim), one-hot or `None`, to w.

        Truncation psi pulls w toward its mean: `w_avg + psi (w - w_avg)`.

        Raises:
            ArgumentError: a conditional generator has no label, an unconditional one has, or its shape is wrong.
        """
        x = normalized(z)
        classes = self.embedded(label if label is None else label.to(z.dtype), len(z))
        if classes is not None:
            x = torch.cat([x, classes], 1)
        for layer in self.layers:
            x = layer(x)
        return x if truncation == 1.0 else torch.lerp(self.mean(label), x, truncation)

    def mean(self, label: Tensor | None) -> Float[Tensor, "*count w_dim"]:
        """Return the mean of w, toward which truncation pulls; here it is one for all labels."""
        return self.w_avg

    def embedded(self, label: Tensor | None, count: int) -> Float[Tensor, "count embed_features"] | None:
        """Return the embeddings of `count` labels; `None` for a generator without classes.

        Raises:
            ArgumentError: as `forward`.
        """
        check_condition(label, count, self.config.c_dim)
        if label is None:
            return None
        return normalized(self.embedding(label))

    def embedding(self, label: Tensor) -> Float[Tensor, "count embed_features"]:
        """Return the embeddings of labels (count, c_dim) before their normalisation."""
        found: Tensor = self.embed(label)
        return found


class StyleGAN(nn.Module):
    """A mapping network; subclasses add the synthesis network.

    Attributes:
        config: the settings.
        z_dim, c_dim: sizes of the latent and of a label, from the settings.
    """

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        self.config = config
        self.z_dim = config.z_dim
        self.c_dim = config.c_dim
        self.mapping = MappingNetwork(config)

    def encode(self, z: Tensor, truncation: float = 1.0, label: Tensor | None = None) -> Tensor:
        """Map z (batch, z_dim) to w (batch, w_dim), truncated toward the mean w."""
        w: Tensor = self.mapping(z, truncation, label)
        return w


def over_white(images: Float[Tensor, "batch channels side side"]) -> Float[Tensor, "batch colours side side"]:
    """Return pictures in [-1, 1]; those with a fourth channel, the opacity (-1 clear, 1 opaque), as RGB over white."""
    if images.shape[1] != 4:
        return images
    opacity = ((images[:, 3:] + 1) / 2).clamp(0, 1)
    return 1 - opacity * (1 - images[:, :3])


def style_rows(w: Tensor, rows: int, size: int) -> Float[Tensor, "batch num_ws w_dim"]:
    """Return w (batch, size) or W+ (batch, rows, size) as (batch, rows, size).

    Raises:
        ArgumentError: w has another shape.
    """
    if tuple(w.shape[1:]) not in ((size,), (rows, size)):
        raise ArgumentError(f"w must be (batch, {size}) or (batch, {rows}, {size}), not {tuple(w.shape)}")
    return w[:, None].expand(-1, rows, -1) if w.ndim == 2 else w


class FrozenMapping:
    """A mapping network prepared for many evaluations: gains folded into the weights, one product a layer, no graph.

    Maps z to w, equal to the network up to rounding; `Differentiable` and `Convertible`.
    The parameters are copied: make another when they change. The label of all samples is (c_dim,), or `None`.

    Raises:
        ArgumentError: label and generator do not go together.
    """

    def __init__(self, network: MappingNetwork, truncation: float = 1.0, label: Tensor | None = None) -> None:
        self.truncation = truncation
        self._layers: list[Dense] = []
        # A tensor made in inference mode could not serve a gradient later.
        with torch.inference_mode(False), torch.no_grad():
            given = label if label is None else label[None].to(network.w_avg)
            condition = network.embedded(given, 1)
            for i, layer in enumerate(network.layers):
                # A leaky ReLU commutes with a positive factor.
                weight: Tensor = layer.weight * (layer.weight_gain * ACTIVATION_GAIN)
                bias: Tensor = layer.bias * (layer.bias_gain * ACTIVATION_GAIN)
                if i == 0:
                    weight, of_condition = weight.tensor_split([network.config.z_dim], 1)
                    if condition is not None:  # all samples have one class, so its part of the product is constant
                        bias = bias + of_condition @ condition[0]
                self._layers.append(Dense(weight.contiguous(), bias, ACTIVATION_SLOPE))
            self._mean = network.mean(given).reshape(-1) * (1 - truncation)

    def computed_in(self, dtype: torch.dtype) -> FrozenMapping:
        """See `Convertible`."""
        lowered = copy.copy(self)
        lowered._layers = [layer.computed_in(dtype) for layer in self._layers]
        return lowered

    def __call__(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch w_dim"]:
        """Map z to w."""
        x = normalized(z).to(self._layers[0].weight.dtype)
        for layer in self._layers:
            x = layer(x)
        return self._truncated(x.to(z))

    def pullback(self, z: Float[Tensor, "batch z_dim"]) -> tuple[Float[Tensor, "batch w_dim"], Back]:
        """See `Differentiable`."""
        scale = inverse_norm(z)
        scaled = z * scale
        x, results = scaled.to(self._layers[0].weight.dtype), []
        for layer in self._layers:
            x = layer(x)
            results.append(x)
        return self._truncated(x.to(z)), partial(self._back, scale, scaled, results)

    def plain(self) -> nn.Sequential:
        """Return the same function as a torch module of elementary operations, with copies of the parameters."""
        layers = [module for layer in self._layers for module in dense(layer)]
        truncated = [] if self.truncation == 1.0 else [Affine(self.truncation, self._mean)]
        return nn.Sequential(UnitMoment(), *layers, *truncated)

    def _back(self, scale: Tensor, scaled: Tensor, results: list[Tensor], grad: Tensor) -> Float[Tensor, "batch z_dim"]:
        """Pull `grad` back through the layers, whose outputs are `results`."""
        if self.truncation != 1.0:
            grad = grad.mul_(self.truncation)
        grad = grad.to(self._layers[0].weight.dtype)
        for layer, result in zip(reversed(self._layers), reversed(results), strict=True):
            grad = layer.back_through(grad, result)
        return normalized_back(grad.to(scaled), scaled, scale)

    def _truncated(self, x: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch w_dim"]:
        return x if self.truncation == 1.0 else torch.add(self._mean, x, alpha=self.truncation)


def encoder(
    generator: Generator, truncation: float = 1.0, condition: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """Return the function from z (batch, z_dim) to w (batch, w_dim) for one truncation and one label, (c_dim,).

    For a StyleGAN it is a `FrozenMapping`, which copies the parameters. For any other generator, and for a subclass
    with its own `encode`, it calls `encode`.

    Raises:
        ArgumentError: label and generator do not go together.
    """
    mapping = getattr(generator, "mapping", None)
    own = getattr(generator.encode, "__func__", None) is StyleGAN.encode
    if own and isinstance(mapping, MappingNetwork) and type(mapping).forward is MappingNetwork.forward:
        return FrozenMapping(mapping, truncation, condition)
    return partial(encode_under, generator, truncation=truncation, condition=condition)


class UnmappedGenerator(nn.Module):
    """A generator whose w is z, or what the network sees of it, followed by the embedding of the label.

    A subclass has the parameters `colours`, and `embed` (embed_features, c_dim) if there are classes.

    Attributes:
        config: the settings.
        z_dim, c_dim: sizes of the latent and of a label, from the settings.
    """

    embed: nn.Parameter
    colours: nn.Parameter

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.z_dim, self.c_dim = config.z_dim, config.c_dim

    def encode(
        self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0, label: Tensor | None = None
    ) -> Float[Tensor, "batch w_dim"]:
        """Return truncation * z, or of what the network sees of z, followed by the embedding of the label.

        The network was trained without truncation, and smaller values give less varied pictures. The label is
        (batch, c_dim).

        Raises:
            ArgumentError: a conditional generator has no label, an unconditional one has, or its shape is wrong.
        """
        check_condition(label, len(z), self.c_dim)
        w = truncation * self.seen(z)
        return w if label is None else torch.cat([w, F.linear(label.to(z), self.embed.to(z.dtype))], 1)

    def seen(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch z_dim"]:
        """Return what the network sees of z."""
        return z

    def checked(self, w: Tensor) -> Float[Tensor, "batch w_dim"]:
        """Return w in the precision of the parameters.

        Raises:
            ArgumentError: w has another shape than (batch, w_dim).
        """
        if w.ndim != 2 or w.shape[1] != self.config.w_dim:
            raise ArgumentError(f"w must be (batch, {self.config.w_dim}), not {tuple(w.shape)}")
        return w.to(self.colours.dtype)

    def in_parts(self, draw: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """Call `draw` with tensors that have a row for each sample, one sample at a time on a CPU; see `drawn_alone`.

        So a picture has the same bits in every batch.
        """
        if len(rows[0]) < 2 or not drawn_alone(*rows, *self.parameters()):
            return draw(*rows)
        return torch.cat([draw(*one) for one in zip(*(each.split(1) for each in rows), strict=True)])
