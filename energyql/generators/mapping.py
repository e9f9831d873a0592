"""Base classes of generators: of StyleGANs, which have a mapping network from z to w, and of generators without one.

Weights are stored at unit scale and multiplied by constant factors ("gains") when used, as in official checkpoints.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ArgumentError, ModelError
from energyql.generators.base import Generator, check_condition_rows, encode_under
from energyql.numerics import LARGEST
from energyql.numerics.linear import Dense, in_graph
from energyql.numerics.pullback import Back, inverse_norm, normalized, normalized_back
from energyql.numerics.shapes import Float

SIZES = range(1, (1 << 16) + 1)
"""Possible sizes of latents and layers."""
COUNTS = range((1 << 16) + 1)
"""Possible sizes of conditions and of their embeddings, 0 for none."""
RESOLUTIONS = (8, 16, 32, 64, 128, 256, 512, 1024)
"""Possible sides of the pictures of a StyleGAN."""


def check_settings(config: object, **allowed: Sequence[Any]) -> None:
    """Raise a `ModelError` unless attributes of `config` have allowed values, of the type of the first one.

    So `kernel=range(1, 16, 2)` allows odd numbers, and `tanh=(False, True)` truth values, but not the numbers 0 and 1.
    """
    for name, values in allowed.items():
        value = getattr(config, name)
        if type(value) is type(values[0]) and value in values:
            continue
        if isinstance(values, range):
            parity = "a whole" if values.step == 1 else "an odd" if values[0] % 2 else "an even"
            kind = f"{parity} number from {values[0]} to {values[-1]}"
        else:
            kind = f"one of {', '.join(map(str, values))}"
        raise ModelError(f"{name} must be {kind}, not {value!r}")


def check_lists(config: object, **ranges: Sequence[int]) -> None:
    """Raise a `ModelError` unless attributes of `config` are tuples of integers in the given, ascending ranges."""
    for name, allowed in ranges.items():
        numbers = getattr(config, name)
        if not isinstance(numbers, tuple) or not all(type(number) is int and number in allowed for number in numbers):
            limits = f"from {allowed[0]} to {allowed[-1]}"
            raise ModelError(f"{name} must be a list of whole numbers {limits}, not {numbers!r}")


def check_numbers(config: object, **limits: tuple[float, float]) -> None:
    """Raise a `ModelError` unless attributes of `config` lie strictly between limits, or `conv_clamp` is `None`."""
    for name, (above, below) in limits.items():
        value = getattr(config, name)
        is_between = type(value) in (int, float) and above < value < below
        if not is_between and (name, value) != ("conv_clamp", None):
            raise ModelError(f"{name} must be a number between {above} and {below}, not {value!r}")


@dataclass(frozen=True)
class StyleGANConfig:
    """The settings of every StyleGAN; a `ModelError` is raised if one is out of its range.

    Args:
        resolution: side of the square pictures, a power of two from 8 to 1024.
        c_dim: number of classes, 0 for a generator without classes.
        mapping_layers: number of layers of the mapping network, which computes w from z.
        mapping_lr_multiplier: factor of the learning rate of the mapping network in training, by which its stored
            weights and biases are multiplied when used.
        embed_features: size of the embedding of a condition; `None` for `w_dim`.
        layer_features: size of the output of every mapping layer but the last; `None` for `w_dim`.
        channel_base: limits the channels of layers of high resolution, by a formula that subclasses state.
        channel_max: largest number of channels of a layer.
        image_channels: 1 for grey, 3 for RGB, 4 for RGBA.
        conv_clamp: limit of the absolute values of activations, `None` for no limit.
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
        check_settings(self, resolution=RESOLUTIONS, image_channels=(1, 3, 4), z_dim=SIZES, w_dim=SIZES, c_dim=COUNTS)
        widths = ("embed_features", "layer_features")
        check_settings(self, **{name: SIZES for name in widths if getattr(self, name) is not None})
        # The least channel_base gives the finest layer a channel.
        channel_base = range(self.resolution, (1 << 27) + 1)
        check_settings(self, mapping_layers=range(1, 65), channel_base=channel_base, channel_max=SIZES)
        check_numbers(self, mapping_lr_multiplier=(0, LARGEST), conv_clamp=(0, LARGEST))


@dataclass(frozen=True, kw_only=True)
class UnmappedConfig:
    """The settings of every `UnmappedGenerator`; a `ModelError` is raised if one is out of its range.

    The network is a sequence of stages, groups of layers. Feature maps of the first stage have a side of 4, of the next
    8, 16 and so on, up to the side of the picture.

    Args:
        widths: number of channels of each stage, from the first stage to the last.
        c_dim: number of classes, 0 for a generator without classes.
        embed_features: size of the embedding of a condition, 0 without classes, and only then.
        image_channels: 1 for grey, 3 for RGB.
    """

    z_dim: int
    widths: tuple[int, ...]
    c_dim: int = 0
    embed_features: int = 0
    image_channels: int = 3

    def __post_init__(self) -> None:
        check_settings(self, z_dim=SIZES, c_dim=COUNTS, embed_features=COUNTS, image_channels=(1, 3))
        check_lists(self, widths=SIZES)
        if (self.c_dim == 0) != (self.embed_features == 0):
            raise ModelError("c_dim and embed_features must both be 0, or neither")

    @property
    def w_dim(self) -> int:
        """Size of w: w is z, or a function of z of the same size, followed by the embedding of the condition if any."""
        return self.z_dim + self.embed_features

    @property
    def resolution(self) -> int:
        """Side of the pictures in pixels."""
        return 4 << (len(self.widths) - 1)


ACTIVATION_SLOPE = 0.2
"""Slope of the leaky ReLUs for negative inputs."""
ACTIVATION_GAIN = math.sqrt(2)
"""Factor of the output of a leaky ReLU, so that variances stay at about 1 from layer to layer."""


def clamped(x: Float[Tensor, "*shape"], limit: float | None) -> Float[Tensor, "*shape"]:
    """Clamp x to ±`limit`, in place unless autograd records operations on x; `None` is no limit."""
    if limit is None:
        return x
    return x.clamp(-limit, limit) if in_graph(x) else x.clamp_(-limit, limit)


def random_weights(*shape: int, scale: float = 1.0) -> Tensor:
    """Initial weights of an untrained layer: normal numbers with the standard deviation `scale`.

    On the meta device they are not drawn: that would import PyTorch's compiler, which takes longer than loading a
    model.
    """
    empty = torch.empty(shape)
    return empty if empty.is_meta else empty.normal_().mul_(scale)


class FullyConnected(nn.Module):
    """A linear layer with equalised learning rate: its stored weight and bias are multiplied by constants at each use.

    The constants, `lr_multiplier / sqrt(inputs)` and `lr_multiplier`, make learning rates of all layers comparable.
    `bias` is that of the untrained layer, after the multiplication. With `activate`, a leaky ReLU times
    `ACTIVATION_GAIN` follows.
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
        """Map rows (..., inputs) to rows (..., outputs)."""
        if x.device.type == "cpu" or x.ndim != 2:
            x = F.linear(x * self.weight_gain, self.weight, self.bias * self.bias_gain)
        else:  # in one operation, which rounds in another way
            x = torch.addmm(self.bias, x, self.weight.t(), beta=self.bias_gain, alpha=self.weight_gain)
        return F.leaky_relu(x, ACTIVATION_SLOPE) * ACTIVATION_GAIN if self.activate else x


class MappingNetwork(nn.Module):
    """The network that computes w from z and, if the generator has classes, from a condition."""

    w_avg: Tensor

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.z_dim, *[config.layer_features or config.w_dim] * (config.mapping_layers - 1), config.w_dim]
        if config.c_dim:
            self.embed = FullyConnected(config.c_dim, config.embed_features or config.w_dim)
            widths[0] += config.embed_features or config.w_dim
        for i, sizes in enumerate(itertools.pairwise(widths)):
            layer = FullyConnected(*sizes, activate=True, lr_multiplier=config.mapping_lr_multiplier)
            self.add_module(f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    @property
    def layers(self) -> list[FullyConnected]:
        """The fully connected layers, from the first to the last, without the embedding of conditions."""
        return [cast(FullyConnected, self.get_submodule(f"fc{i}")) for i in range(self.config.mapping_layers)]

    def forward(
        self, z: Tensor, truncation: float = 1.0, condition: Tensor | None = None
    ) -> Float[Tensor, "batch w_dim"]:
        """Map z (batch, z_dim) to w (batch, w_dim), as `encode` of a `ConditionalGenerator` does."""
        x = normalized(z)
        classes = self.embedded(condition if condition is None else condition.to(z.dtype), len(z))
        if classes is not None:
            x = torch.cat([x, classes], 1)
        for layer in self.layers:
            x = layer(x)
        return x if truncation == 1.0 else torch.lerp(self.mean(condition), x, truncation)

    def mean(self, condition: Tensor | None) -> Float[Tensor, "*count w_dim"]:
        """Mean of w, (w_dim,), for truncation; a subclass may return one for each condition, (count, w_dim)."""
        return self.w_avg

    def embedded(self, condition: Tensor | None, count: int) -> Float[Tensor, "count embed_features"] | None:
        """Embeddings of conditions (count, c_dim), each scaled to a mean square of 1; `None` without classes."""
        check_condition_rows(condition, count, self.config.c_dim)
        return None if condition is None else normalized(self.embedding(condition))

    def embedding(self, condition: Tensor) -> Float[Tensor, "count embed_features"]:
        """Embeddings of conditions (count, c_dim) before they are scaled."""
        return cast(Tensor, self.embed(condition))


class StyleGAN(nn.Module):
    """Base class of StyleGANs: the mapping network from z to w. Subclasses add the network from w to pictures."""

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        self.config, self.z_dim, self.c_dim = config, config.z_dim, config.c_dim
        self.mapping = MappingNetwork(config)

    def encode(self, z: Tensor, truncation: float = 1.0, condition: Tensor | None = None) -> Tensor:
        """Map z (batch, z_dim) to w (batch, w_dim), as `encode` of a `ConditionalGenerator` does."""
        return cast(Tensor, self.mapping(z, truncation, condition))


def over_white(images: Float[Tensor, "batch channels side side"]) -> Float[Tensor, "batch colours side side"]:
    """RGB pictures of RGBA pictures in [-1, 1], over a white background; pictures without opacity are unchanged."""
    if images.shape[1] != 4:
        return images
    opacity = ((images[:, 3:] + 1) / 2).clamp(0, 1)
    return 1 - opacity * (1 - images[:, :3])


def style_rows(w: Tensor, rows: int, size: int) -> Float[Tensor, "batch num_ws w_dim"]:
    """W+, a w for each layer, (batch, rows, size), from w (batch, size) or W+; other shapes are an `ArgumentError`."""
    if tuple(w.shape[1:]) not in ((size,), (rows, size)):
        raise ArgumentError(f"w must be (batch, {size}) or (batch, {rows}, {size}), not {tuple(w.shape)}")
    return w[:, None].expand(-1, rows, -1) if w.ndim == 2 else w


class FrozenMapping:
    """The function from z to w of a mapping network, prepared for many calls with one truncation and condition.

    Gains are multiplied into copies of the weights, so a layer takes one matrix product, and later changes of the
    network have no effect. The method `pullback` computes gradients faster than autograd. Results are those of the
    network up to rounding.

    Attributes:
        layers: the layers of the network, with all factors multiplied in.
        mean: (1 - truncation) times the mean of w, (w_dim,).
    """

    def __init__(self, network: MappingNetwork, truncation: float = 1.0, condition: Tensor | None = None) -> None:
        self.truncation = truncation
        self.layers = list[Dense]()
        # A tensor made in inference mode could not serve a gradient later.
        with torch.inference_mode(False), torch.no_grad():
            row = condition if condition is None else condition[None].to(network.w_avg)
            embedded = network.embedded(row, 1)
            for i, layer in enumerate(network.layers):
                # A leaky ReLU commutes with a positive factor.
                weight: Tensor = layer.weight * (layer.weight_gain * ACTIVATION_GAIN)
                bias: Tensor = layer.bias * (layer.bias_gain * ACTIVATION_GAIN)
                if i == 0:
                    weight, of_condition = weight.tensor_split([network.config.z_dim], 1)
                    if embedded is not None:  # all samples have one class, so its part of the product is constant
                        bias = bias + of_condition @ embedded[0]
                self.layers.append(Dense(weight.contiguous(), bias, ACTIVATION_SLOPE))
            self.mean = network.mean(row).reshape(-1) * (1 - truncation)

    def computed_in(self, dtype: torch.dtype) -> FrozenMapping:
        """The same function with matrix products in `dtype`; its result has the dtype of z."""
        lowered = copy.copy(self)
        lowered.layers = [layer.computed_in(dtype) for layer in self.layers]
        return lowered

    def __call__(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch w_dim"]:
        """Return w for z."""
        x = normalized(z).to(self.layers[0].weight.dtype)
        for layer in self.layers:
            x = layer(x)
        return self._truncated(x.to(z))

    def pullback(self, z: Float[Tensor, "batch z_dim"]) -> tuple[Float[Tensor, "batch w_dim"], Back]:
        """Return w, and a function from the gradient with respect to w to that with respect to z.

        The function must be called at most once; it may overwrite its argument.
        """
        scale = inverse_norm(z)
        scaled = z * scale
        x, results = scaled.to(self.layers[0].weight.dtype), []
        for layer in self.layers:
            x = layer(x)
            results.append(x)
        return self._truncated(x.to(z)), partial(self._back, scale, scaled, results)

    def _back(self, scale: Tensor, scaled: Tensor, results: list[Tensor], grad: Tensor) -> Float[Tensor, "batch z_dim"]:
        """Gradient with respect to z; `results` are the outputs of the layers, `scaled` is z times `scale`."""
        if self.truncation != 1.0:
            grad = grad.mul_(self.truncation)
        grad = grad.to(self.layers[0].weight.dtype)
        for layer, result in zip(reversed(self.layers), reversed(results), strict=True):
            grad = layer.back_through(grad, result)
        return normalized_back(grad.to(scaled), scaled, scale)

    def _truncated(self, x: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch w_dim"]:
        """Move x, the output of the last layer, toward the mean of w."""
        return x if self.truncation == 1.0 else torch.add(self.mean, x, alpha=self.truncation)


def encoder(
    generator: Generator, truncation: float = 1.0, condition: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """Function from z (batch, z_dim) to w (batch, w_dim) with a fixed truncation and condition, (c_dim,) or `None`.

    For a StyleGAN that does not override `encode`, it is a `FrozenMapping`: faster, but with copies of the parameters,
    and an unfit condition is an `ArgumentError` at once.
    """
    mapping = getattr(generator, "mapping", None)
    own = getattr(generator.encode, "__func__", None) is StyleGAN.encode
    if own and isinstance(mapping, MappingNetwork) and type(mapping).forward is MappingNetwork.forward:
        return FrozenMapping(mapping, truncation, condition)
    return partial(encode_under, generator, truncation=truncation, condition=condition)


class UnmappedGenerator(nn.Module):
    """A generator without a mapping network: w is z, or a function of z, then the embedding of the condition if any.

    Subclasses set the parameters, and add the network from w to pictures.

    Attributes:
        colours: weights of the last layer.
        embed: embeddings of the classes as columns, (embed_features, c_dim); missing without classes.
    """

    embed: nn.Parameter
    colours: nn.Parameter

    def __init__(self, config: UnmappedConfig) -> None:
        super().__init__()
        self.config, self.z_dim, self.c_dim = config, config.z_dim, config.c_dim

    def encode(
        self, z: Tensor, truncation: float = 1.0, condition: Tensor | None = None
    ) -> Float[Tensor, "batch w_dim"]:
        """Return w: the row `truncation * seen(z)`, followed by the embedding of the condition if there are classes.

        The network was trained with a truncation of 1; smaller values give less varied pictures.
        """
        check_condition_rows(condition, len(z), self.c_dim)
        w = truncation * self.seen(z)
        return w if condition is None else torch.cat([w, F.linear(condition.to(z), self.embed.to(z.dtype))], 1)

    def seen(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch z_dim"]:
        """Part of w that depends on z, before truncation: z itself, unless a subclass changes it."""
        return z

    def checked(self, w: Tensor) -> Float[Tensor, "batch w_dim"]:
        """Return w in the dtype of the parameters; raise an `ArgumentError` unless it is (batch, w_dim)."""
        if w.ndim != 2 or w.shape[1] != self.config.w_dim:
            raise ArgumentError(f"w must be (batch, {self.config.w_dim}), not {tuple(w.shape)}")
        return w.to(self.colours.dtype)
