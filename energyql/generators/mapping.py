"""The common part of StyleGANs (settings, fully connected layers, mapping network), and generators without mapping.

Parameters are stored at unit scale and multiplied by gains when used, as in the widely used checkpoints.
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
        z_dim: size of z.
        w_dim: size of w.
        c_dim: number of class labels, 0 for an unconditional model.
        mapping_layers: depth of the mapping network.
        mapping_lr_multiplier: learning-rate multiplier that the mapping weights are stored with.
        embed_features: width of the embedding of a label; `None` for `w_dim`.
        layer_features: width of the mapping layers before the last one; `None` for `w_dim`.
        channel_base: together with the resolution limits the number of channels; see the subclasses.
        channel_max: largest number of channels.
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
        """Raise a `ModelError` unless each number lies between its limits, exclusive; `conv_clamp` may be `None`."""
        for name, (above, below) in ranges.items():
            value = getattr(self, name)
            if value is None and name == "conv_clamp":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < below:
                raise ModelError(f"{name} must be a number between {above} and {below}, not {value!r}")


ACTIVATION_SLOPE = 0.2
"""Slope of the leaky ReLUs below 0."""
ACTIVATION_GAIN = math.sqrt(2)
"""Factor after a leaky ReLU of that slope, which keeps unit variance."""


def clamped(x: Float[Tensor, "*shape"], limit: float | None) -> Float[Tensor, "*shape"]:
    """Return x clamped to +- `limit`, in place unless autograd records operations on x; x itself without a limit."""
    return x if limit is None else torch.clamp(x, -limit, limit, out=None if in_graph(x) else x)


def random_weights(*shape: int, scale: float = 1.0) -> Tensor:
    """Return the initial weights of an untrained layer: normal numbers of standard deviation `scale`.

    On the meta device, where the weights of a file replace these, nothing is drawn: arithmetic there would import
    PyTorch's compiler, which takes longer than loading a model.
    """
    empty = torch.empty(shape)
    return empty if empty.is_meta else empty.normal_().mul_(scale)


class FullyConnected(nn.Module):
    """A linear layer with an equalised learning rate: parameters at unit scale, multiplied by gains when used.

    Args:
        inputs: length of an input row.
        outputs: length of an output row.
        activate: whether a leaky ReLU follows.
        lr_multiplier: learning-rate multiplier that the parameters are stored with.
        bias: initial value of the bias in use.
    """

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
        """Return the output of the layer for each row of x."""
        x = F.linear(x * self.weight_gain, self.weight, self.bias * self.bias_gain)
        return F.leaky_relu(x, ACTIVATION_SLOPE) * ACTIVATION_GAIN if self.activate else x


class MappingNetwork(nn.Module):
    """The network that maps z, and the class label if there are classes, to w."""

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
        """The fully connected layers, in order."""
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
        """Return the mean of w, toward which truncation pulls: the same for all labels here, not so in subclasses."""
        return self.w_avg

    def embedded(self, label: Tensor | None, count: int) -> Float[Tensor, "count embed_features"] | None:
        """Return the normalised embeddings of `count` labels (count, c_dim); `None` for a generator without classes.

        Raises:
            ArgumentError: a conditional generator has no label, an unconditional one has, or its shape is wrong.
        """
        check_condition(label, count, self.config.c_dim)
        if label is None:
            return None
        return normalized(self.embedding(label))

    def embedding(self, label: Tensor) -> Float[Tensor, "count embed_features"]:
        """Return the embeddings of labels (count, c_dim) before their normalisation."""
        embeddings: Tensor = self.embed(label)
        return embeddings


class StyleGAN(nn.Module):
    """The base of StyleGAN generators, with the mapping network; subclasses add the synthesis network.

    Attributes:
        config: the settings.
        z_dim: size of the latent, from the settings.
        c_dim: size of a label, from the settings.
    """

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        self.config = config
        self.z_dim = config.z_dim
        self.c_dim = config.c_dim
        self.mapping = MappingNetwork(config)

    def encode(self, z: Tensor, truncation: float = 1.0, label: Tensor | None = None) -> Tensor:
        """Map z (batch, z_dim) and label (batch, c_dim), one-hot or `None`, to w (batch, w_dim).

        Truncation psi pulls w toward its mean: `mean + psi (w - mean)`.

        Raises:
            ArgumentError: a conditional generator has no label, an unconditional one has, or its shape is wrong.
        """
        w: Tensor = self.mapping(z, truncation, label)
        return w


def over_white(images: Float[Tensor, "batch channels side side"]) -> Float[Tensor, "batch colours side side"]:
    """Return pictures in [-1, 1] without opacity: RGBA as RGB over white, all others unchanged.

    The fourth channel of RGBA is the opacity, from -1 (clear) to 1 (opaque).
    """
    if images.shape[1] != 4:
        return images
    opacity = ((images[:, 3:] + 1) / 2).clamp(0, 1)
    return 1 - opacity * (1 - images[:, :3])


def style_rows(w: Tensor, rows: int, size: int) -> Float[Tensor, "batch num_ws w_dim"]:
    """Return w (batch, size), repeated for each row, or W+ (batch, rows, size) as (batch, rows, size).

    Raises:
        ArgumentError: w has another shape.
    """
    if tuple(w.shape[1:]) not in ((size,), (rows, size)):
        raise ArgumentError(f"w must be (batch, {size}) or (batch, {rows}, {size}), not {tuple(w.shape)}")
    return w[:, None].expand(-1, rows, -1) if w.ndim == 2 else w


class FrozenMapping:
    """The function from z to w of a mapping network, prepared for many evaluations; equal to it up to rounding.

    The gains are multiplied into copies of the weights, so each layer is one product. Later changes of the network have
    no effect. It is `Differentiable` and `Convertible`.

    Args:
        network: the mapping network.
        truncation: psi.
        label: label of all samples, (c_dim,), or `None` for a generator without classes.

    Raises:
        ArgumentError: label and generator do not go together.
    """

    def __init__(self, network: MappingNetwork, truncation: float = 1.0, label: Tensor | None = None) -> None:
        self.truncation = truncation
        self._layers: list[Dense] = []
        # A tensor made in inference mode could not serve a gradient later.
        with torch.inference_mode(False), torch.no_grad():
            row = label if label is None else label[None].to(network.w_avg)
            condition = network.embedded(row, 1)
            for i, layer in enumerate(network.layers):
                # A leaky ReLU commutes with a positive factor.
                weight: Tensor = layer.weight * (layer.weight_gain * ACTIVATION_GAIN)
                bias: Tensor = layer.bias * (layer.bias_gain * ACTIVATION_GAIN)
                if i == 0:
                    weight, of_condition = weight.tensor_split([network.config.z_dim], 1)
                    if condition is not None:  # all samples have one class, so its part of the product is constant
                        bias = bias + of_condition @ condition[0]
                self._layers.append(Dense(weight.contiguous(), bias, ACTIVATION_SLOPE))
            self._mean = network.mean(row).reshape(-1) * (1 - truncation)

    def computed_in(self, dtype: torch.dtype) -> FrozenMapping:
        """Return the same function with its matrix products in `dtype`; see `Convertible`."""
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
        """Return w and its `Back`; see `Differentiable`."""
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
        """Return the gradient with respect to z from `grad`, that with respect to w, which is overwritten.

        `scaled` is z times `scale`, and `results` are the outputs of the layers; see `pullback`.
        """
        if self.truncation != 1.0:
            grad = grad.mul_(self.truncation)
        grad = grad.to(self._layers[0].weight.dtype)
        for layer, result in zip(reversed(self._layers), reversed(results), strict=True):
            grad = layer.back_through(grad, result)
        return normalized_back(grad.to(scaled), scaled, scale)

    def _truncated(self, x: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch w_dim"]:
        """Return w from the output of the last layer."""
        return x if self.truncation == 1.0 else torch.add(self._mean, x, alpha=self.truncation)


def encoder(
    generator: Generator, truncation: float = 1.0, condition: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """Return the function from z (batch, z_dim) to w (batch, w_dim) for one truncation and one label, (c_dim,).

    For a StyleGAN the function is a `FrozenMapping`, which copies the parameters. For any other generator, and for a
    subclass with its own `encode`, the function calls `encode`.

    Raises:
        ArgumentError: label and generator do not go together.
    """
    mapping = getattr(generator, "mapping", None)
    own = getattr(generator.encode, "__func__", None) is StyleGAN.encode
    if own and isinstance(mapping, MappingNetwork) and type(mapping).forward is MappingNetwork.forward:
        return FrozenMapping(mapping, truncation, condition)
    return partial(encode_under, generator, truncation=truncation, condition=condition)


class UnmappedGenerator(nn.Module):
    """A generator without a mapping network: w is z, or a function of z, followed by the embedding of the label.

    A subclass has the parameters `colours`, the weights of the last layer, and, if there are classes, `embed`
    (embed_features, c_dim).

    Attributes:
        config: the settings.
        z_dim: size of the latent, from the settings.
        c_dim: size of a label, from the settings.
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
        """Return w: truncation * `seen(z)`, followed by the embedding of the label, (batch, c_dim) or `None`.

        The network was trained without truncation; values below 1 give less varied pictures.

        Raises:
            ArgumentError: a conditional generator has no label, an unconditional one has, or its shape is wrong.
        """
        check_condition(label, len(z), self.c_dim)
        w = truncation * self.seen(z)
        return w if label is None else torch.cat([w, F.linear(label.to(z), self.embed.to(z.dtype))], 1)

    def seen(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch z_dim"]:
        """Return the part of w that z decides: z here; subclasses may return a function of it."""
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
        """Return the pictures that `draw` makes of tensors with a row for each sample.

        `draw` is called for one sample at a time where `drawn_alone` allows it, so that a picture has the same bits in
        every batch.
        """
        if len(rows[0]) < 2 or not drawn_alone(*rows, *self.parameters()):
            return draw(*rows)
        return torch.cat([draw(*one) for one in zip(*(each.split(1) for each in rows), strict=True)])
