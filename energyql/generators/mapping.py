"""Base classes of generators: of StyleGANs, which have a mapping network, and of generators without one.

A mapping network computes w from z. Its weights are stored at unit scale and multiplied by constant factors ("gains")
when used, as in the official checkpoints of StyleGAN.
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
from energyql.renamed import takes_label

SIZES = range(1, (1 << 16) + 1)
"""Possible sizes of latents and layers."""
COUNTS = range((1 << 16) + 1)
"""Possible sizes of conditions and of their embeddings, 0 for none."""
RESOLUTIONS = (8, 16, 32, 64, 128, 256, 512, 1024)
"""Possible sides of the pictures of a StyleGAN."""


def check_settings(config: object, **allowed: Sequence[Any]) -> None:
    """Raise a `ModelError` unless settings have allowed values.

    Args:
        config: object whose attributes are the settings.
        allowed: name of a setting -> its allowed values, all of one type. So `kernel=range(1, 16, 2)` allows odd
            numbers from 1 to 15, and `tanh=(False, True)` allows both truth values, but not the numbers 0 and 1.
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
    """Raise a `ModelError` unless settings are tuples of whole numbers, all of them allowed; a tuple may be empty.

    Args:
        config: object whose attributes are the settings.
        ranges: name of a setting -> allowed numbers in ascending order. So `layers=(1, 2)` allows the numbers 1 and 2
            in the tuple `config.layers`.
    """
    for name, allowed in ranges.items():
        numbers = getattr(config, name)
        if not isinstance(numbers, tuple) or not all(type(number) is int and number in allowed for number in numbers):
            limits = f"from {allowed[0]} to {allowed[-1]}"
            raise ModelError(f"{name} must be a list of whole numbers {limits}, not {numbers!r}")


def check_numbers(config: object, **limits: tuple[float, float]) -> None:
    """Raise a `ModelError` unless settings are numbers between limits. The setting `conv_clamp` may also be `None`.

    Args:
        config: object whose attributes are the settings.
        limits: name of a setting -> lower and upper limit; the number must not be equal to a limit.
    """
    for name, (above, below) in limits.items():
        value = getattr(config, name)
        is_between = type(value) in (int, float) and above < value < below
        if not is_between and (name, value) != ("conv_clamp", None):
            raise ModelError(f"{name} must be a number between {above} and {below}, not {value!r}")


@dataclass(frozen=True)
class StyleGANConfig:
    """The settings of every StyleGAN.

    Args:
        resolution: side of the square pictures, a power of two from 8 to 1024.
        z_dim: size of z.
        w_dim: size of w.
        c_dim: number of classes, 0 for a generator without classes.
        mapping_layers: number of layers of the mapping network, which computes w from z.
        mapping_lr_multiplier: learning-rate multiplier of the mapping network in training. The stored weights and
            biases of this network are multiplied by it when used.
        embed_features: size of the embedding of a condition; `None` for the size `w_dim`.
        layer_features: size of the output of every mapping layer except the last; `None` for the size `w_dim`.
        channel_base: a number that limits the channels of layers: the higher the resolution of a layer, the fewer
            channels. The settings of each kind of StyleGAN state the formula.
        channel_max: largest number of channels of a layer.
        image_channels: channels of a picture: 1 for grey, 3 for RGB, 4 for RGBA.
        conv_clamp: limit of the absolute values of activations, `None` for no limit.

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
        check_settings(self, resolution=RESOLUTIONS, image_channels=(1, 3, 4), z_dim=SIZES, w_dim=SIZES, c_dim=COUNTS)
        widths = ("embed_features", "layer_features")
        check_settings(self, **{name: SIZES for name in widths if getattr(self, name) is not None})
        # The least channel_base gives the finest layer a channel.
        channel_base = range(self.resolution, (1 << 27) + 1)
        check_settings(self, mapping_layers=range(1, 65), channel_base=channel_base, channel_max=SIZES)
        check_numbers(self, mapping_lr_multiplier=(0, LARGEST), conv_clamp=(0, LARGEST))


@dataclass(frozen=True, kw_only=True)
class UnmappedConfig:
    """The settings of every `UnmappedGenerator`, a generator without a mapping network.

    The generator is a sequence of stages, groups of layers. The feature maps of the first stage have a side of 4, of
    the next 8, 16 and so on, up to the side of the picture.

    Args:
        z_dim: size of z.
        widths: number of channels of each stage, from the first stage to the last.
        c_dim: number of classes, 0 for a generator without classes.
        embed_features: size of the embedding of a condition, 0 without classes.
        image_channels: 1 for grey, 3 for RGB.

    Raises:
        ModelError: a setting is out of its range, or just one of `c_dim` and `embed_features` is 0.
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
"""Factor by which the output of a leaky ReLU is multiplied, so that variances stay at about 1 from layer to layer."""


def clamped(x: Float[Tensor, "*shape"], limit: float | None) -> Float[Tensor, "*shape"]:
    """Return x with its values limited to the range from `-limit` to `limit`; x itself if `limit` is `None`.

    The result is written into x, unless autograd records operations on x.
    """
    if limit is None:
        return x
    return x.clamp(-limit, limit) if in_graph(x) else x.clamp_(-limit, limit)


def random_weights(*shape: int, scale: float = 1.0) -> Tensor:
    """Return the initial weights of an untrained layer: normal numbers of mean 0 and standard deviation `scale`.

    Under `torch.device("meta")` the result is a tensor without numbers, which weights of a file replace later. Drawing
    numbers on the meta device would import PyTorch's compiler, which takes longer than loading a model.

    Args:
        shape: lengths of the axes.
        scale: standard deviation.
    """
    empty = torch.empty(shape)
    return empty if empty.is_meta else empty.normal_().mul_(scale)


class FullyConnected(nn.Module):
    """A linear layer that multiplies its stored weight and bias by constants each time it is used.

    The stored weight is multiplied by `lr_multiplier / sqrt(inputs)`, and the stored bias by `lr_multiplier`. These
    factors make the learning rates of all layers comparable in training ("equalised learning rate"). The stored weight
    starts as random normal numbers with the standard deviation `1 / lr_multiplier`.

    Args:
        inputs: length of an input row.
        outputs: length of an output row.
        activate: whether a leaky ReLU follows the linear layer. Its result is multiplied by `ACTIVATION_GAIN`, √2.
        lr_multiplier: factor of the learning rate of this layer; see above.
        bias: bias of the untrained layer, after the multiplication by `lr_multiplier`.
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
        """Return the output of the layer, with a row for each row of x."""
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
        """Map z (batch, z_dim) to w (batch, w_dim).

        Args:
            z: standard normal numbers.
            truncation: the factor psi, which pulls w toward the mean of w: the result is `mean + psi (w - mean)`.
            condition: conditions (batch, c_dim), as a rule one-hot; `None` for a generator without classes.

        Raises:
            ArgumentError: the condition is missing, or is given to a generator without classes, or has a wrong shape.
        """
        x = normalized(z)
        classes = self.embedded(condition if condition is None else condition.to(z.dtype), len(z))
        if classes is not None:
            x = torch.cat([x, classes], 1)
        for layer in self.layers:
            x = layer(x)
        return x if truncation == 1.0 else torch.lerp(self.mean(condition), x, truncation)

    def mean(self, condition: Tensor | None) -> Float[Tensor, "*count w_dim"]:
        """Return the mean of w, toward which truncation pulls w, as a tensor (w_dim,), whatever the condition.

        In a subclass the mean may depend on the condition: for conditions (count, c_dim) it is then (count, w_dim).
        """
        return self.w_avg

    def embedded(self, condition: Tensor | None, count: int) -> Float[Tensor, "count embed_features"] | None:
        """Return the embeddings of conditions, each row scaled to a mean square of 1; `None` without classes.

        Args:
            condition: conditions (count, c_dim), or `None` for a generator without classes.
            count: number of conditions that is expected.

        Raises:
            ArgumentError: the condition is missing, or is given to a generator without classes, or has a wrong shape.
        """
        check_condition_rows(condition, count, self.config.c_dim)
        return None if condition is None else normalized(self.embedding(condition))

    def embedding(self, condition: Tensor) -> Float[Tensor, "count embed_features"]:
        """Return the embeddings of conditions (count, c_dim), before each row is scaled to a mean square of 1."""
        return cast(Tensor, self.embed(condition))


class StyleGAN(nn.Module):
    """The base class of StyleGAN generators, with the network from z to w.

    Subclasses add the network from w to pictures.

    Attributes:
        config: the settings.
        z_dim: size of z.
        c_dim: size of a condition, which is the number of classes; 0 without classes.
        mapping: the network from z to w.
    """

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        self.config, self.z_dim, self.c_dim = config, config.z_dim, config.c_dim
        self.mapping = MappingNetwork(config)

    @takes_label
    def encode(self, z: Tensor, truncation: float = 1.0, condition: Tensor | None = None) -> Tensor:
        """Map z (batch, z_dim) to w (batch, w_dim).

        Args:
            z: standard normal numbers.
            truncation: the factor psi, which pulls w toward the mean of w: the result is `mean + psi (w - mean)`.
            condition: conditions (batch, c_dim), as a rule one-hot; `None` for a generator without classes.

        Raises:
            ArgumentError: the condition is missing, or is given to a generator without classes, or has a wrong shape.
        """
        return cast(Tensor, self.mapping(z, truncation, condition))


def over_white(images: Float[Tensor, "batch channels side side"]) -> Float[Tensor, "batch colours side side"]:
    """Return pictures in [-1, 1] without an opacity channel.

    Pictures of four channels (RGBA) become RGB pictures over a white background; all others are returned unchanged. The
    fourth channel is the opacity, from -1 (clear) to 1 (opaque).
    """
    if images.shape[1] != 4:
        return images
    opacity = ((images[:, 3:] + 1) / 2).clamp(0, 1)
    return 1 - opacity * (1 - images[:, :3])


def style_rows(w: Tensor, rows: int, size: int) -> Float[Tensor, "batch num_ws w_dim"]:
    """Return W+, a tensor (batch, rows, size) with a w for each layer of a network.

    Args:
        w: a w for each sample, (batch, size), which is repeated for all layers; or W+, which is returned unchanged.
        rows: number of layers that take a w.
        size: size of w.

    Raises:
        ArgumentError: w has neither of the two shapes.
    """
    if tuple(w.shape[1:]) not in ((size,), (rows, size)):
        raise ArgumentError(f"w must be (batch, {size}) or (batch, {rows}, {size}), not {tuple(w.shape)}")
    return w[:, None].expand(-1, rows, -1) if w.ndim == 2 else w


class FrozenMapping:
    """The function from z to w of a mapping network, prepared for many evaluations with one truncation and condition.

    The result is the output of the network up to rounding. Weights and constant factors are multiplied in advance, so a
    layer takes one matrix product. The weights are copies: later changes of the network have no effect. Gradients are
    computed by the method `pullback`, which is faster than autograd.

    Args:
        network: the mapping network.
        truncation: the factor psi, which pulls w toward the mean of w: the result is `mean + psi (w - mean)`.
        condition: the condition of all samples, (c_dim,), or `None` for a generator without classes.

    Attributes:
        layers: the layers of the network, with all factors multiplied in.
        mean: what truncation adds to psi times w: the mean of w times 1 - psi, (w_dim,).

    Raises:
        ArgumentError: the condition is missing, or is given to a network without classes, or has a wrong shape.
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
        """Return the same function, but with matrix products computed in `dtype`. Its result has the dtype of z."""
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
        """Return w, and a function that computes the gradient of a loss with respect to z.

        The function takes the gradient with respect to w, which it may overwrite. It must be called at most once.
        """
        scale = inverse_norm(z)
        scaled = z * scale
        x, results = scaled.to(self.layers[0].weight.dtype), []
        for layer in self.layers:
            x = layer(x)
            results.append(x)
        return self._truncated(x.to(z)), partial(self._back, scale, scaled, results)

    def _back(self, scale: Tensor, scaled: Tensor, results: list[Tensor], grad: Tensor) -> Float[Tensor, "batch z_dim"]:
        """Return the gradient with respect to z.

        Args:
            scale: for each row of z the factor that scales the row to a mean square of 1.
            scaled: z times `scale`.
            results: the outputs of the layers, from the first layer to the last.
            grad: the gradient with respect to w, which may be overwritten.
        """
        if self.truncation != 1.0:
            grad = grad.mul_(self.truncation)
        grad = grad.to(self.layers[0].weight.dtype)
        for layer, result in zip(reversed(self.layers), reversed(results), strict=True):
            grad = layer.back_through(grad, result)
        return normalized_back(grad.to(scaled), scaled, scale)

    def _truncated(self, x: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch w_dim"]:
        """Return w after truncation; x is w before truncation, the output of the last layer."""
        return x if self.truncation == 1.0 else torch.add(self.mean, x, alpha=self.truncation)


def encoder(
    generator: Generator, truncation: float = 1.0, condition: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """Return the function from z (batch, z_dim) to w (batch, w_dim) with a fixed truncation and condition.

    For a StyleGAN the function is a `FrozenMapping`: it is faster than `generator.encode`, and it has copies of the
    parameters, so later changes of the generator have no effect. For any other generator the function calls
    `generator.encode`; also for a subclass of StyleGAN that overrides `encode`.

    Args:
        generator: any generator.
        truncation: the factor psi, which pulls w toward the mean of w: the result is `mean + psi (w - mean)`.
        condition: the condition of all samples, (c_dim,), or `None` for a generator without classes.

    Raises:
        ArgumentError: the condition is missing, or is given to a generator without classes, or has a wrong shape. For a
            generator that is no StyleGAN, the error is not raised here, but perhaps when the function is called.
    """
    mapping = getattr(generator, "mapping", None)
    own = getattr(generator.encode, "__func__", None) is StyleGAN.encode
    if own and isinstance(mapping, MappingNetwork) and type(mapping).forward is MappingNetwork.forward:
        return FrozenMapping(mapping, truncation, condition)
    return partial(encode_under, generator, truncation=truncation, condition=condition)


class UnmappedGenerator(nn.Module):
    """A generator without a mapping network: w is z, or a function of z, followed by the embedding of the condition.

    A generator without classes has no embedding. Subclasses set the parameters `colours` and `embed`, and add the
    network from w to pictures.

    Attributes:
        config: the settings.
        z_dim: size of z.
        c_dim: size of a condition, which is the number of classes; 0 without classes.
        colours: weights of the last layer.
        embed: embeddings of the classes as columns, (embed_features, c_dim); missing without classes.
    """

    embed: nn.Parameter
    colours: nn.Parameter

    def __init__(self, config: UnmappedConfig) -> None:
        super().__init__()
        self.config, self.z_dim, self.c_dim = config, config.z_dim, config.c_dim

    @takes_label
    def encode(
        self, z: Tensor, truncation: float = 1.0, condition: Tensor | None = None
    ) -> Float[Tensor, "batch w_dim"]:
        """Return w: the row `truncation * seen(z)`, followed by the embedding of the condition if there are classes.

        Args:
            z: standard normal numbers, (batch, z_dim). As a rule `seen(z)` is z itself.
            truncation: the factor of z. The network was trained with 1; smaller values give less varied pictures.
            condition: conditions (batch, c_dim), as a rule one-hot; `None` for a generator without classes.

        Raises:
            ArgumentError: the condition is missing, or is given to a generator without classes, or has a wrong shape.
        """
        check_condition_rows(condition, len(z), self.c_dim)
        w = truncation * self.seen(z)
        return w if condition is None else torch.cat([w, F.linear(condition.to(z), self.embed.to(z.dtype))], 1)

    def seen(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch z_dim"]:
        """Return the part of w that depends on z, before truncation. Here it is z; a subclass may change z first."""
        return z

    def checked(self, w: Tensor) -> Float[Tensor, "batch w_dim"]:
        """Check the shape of w, and return w in the dtype of the parameters.

        Raises:
            ArgumentError: w has another shape than (batch, w_dim).
        """
        if w.ndim != 2 or w.shape[1] != self.config.w_dim:
            raise ArgumentError(f"w must be (batch, {self.config.w_dim}), not {tuple(w.shape)}")
        return w.to(self.colours.dtype)
