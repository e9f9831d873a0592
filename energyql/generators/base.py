"""The interface of generators, the record `Family` of an architecture, drawing in batches, and the number of calls.

Functions called `check_...` raise an error if a generator, condition, layer, noise or batch of pictures is not usable.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from numbers import Real
from operator import index
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from energyql.errors import ArgumentError, EnergyQLError, NotAcceptedError, misfit
from energyql.numerics.pool import always_in_pool
from energyql.numerics.pullback import Identity
from energyql.numerics.random import normals
from energyql.numerics.shapes import Float
from energyql.render.pictures import to_pictures

Condition = int | tuple[float, ...]
"""A condition of a conditional generator: the index of a class, or `c_dim` numbers."""
RANDOM: Literal["random"] = "random"
"""The value "random" in place of a condition: each sample has a random class. Heads, the classifiers of attributes, can
be trained on samples of random classes. A query does not allow this value."""


@runtime_checkable
class Generator(Protocol):
    """A map from Gaussian latents z to pictures, in two steps: `encode` maps z to w, `synthesize` maps w to pictures.

    If a generator has no intermediate latent w, its `encode` returns `truncation * z`, because the mean of z is 0.

    Attributes:
        z_dim: size of z.
    """

    z_dim: int

    def encode(self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0) -> Float[Tensor, "batch w_dim"]:
        """Map z (batch, z_dim) to w (batch, w_dim), the latent from which pictures are drawn.

        Args:
            z: standard normal numbers.
            truncation: the factor psi, which pulls w toward the mean of w: the result is `mean + psi (w - mean)`. With
                psi = 1 the result is w itself.
        """

    def synthesize(self, w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch channels height width"]:
        """Map w, the output of `encode`, to pictures in [-1, 1], shape (batch, channels, height, width)."""


class ConditionalGenerator(Generator, Protocol):
    """A generator whose `encode` needs a condition too.

    Attributes:
        c_dim: length of a condition, which is the number of classes; above 0.
    """

    c_dim: int

    def encode(self, z: Tensor, truncation: float = 1.0, condition: Tensor | None = None) -> Tensor:
        """Map z (batch, z_dim) and conditions to w (batch, w_dim).

        Args:
            z: standard normal numbers.
            truncation: the factor psi, which pulls w toward the mean of w: the result is `mean + psi (w - mean)`.
            condition: a row for each sample, (batch, c_dim), as a rule one-hot. With `None` an error may be raised.
        """


class ViewedGenerator(Generator, Protocol):
    """A generator that can reduce z to fewer numbers, from which attributes are easier to learn."""

    def features(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch features"]:
        """Return the features of z: for each row of z a row of fewer numbers, which autograd can differentiate.

        Heads, the classifiers of attributes, predict from the features if their space is "features". If z has a number
        for each pixel of a picture, the features may be the means of blocks of pixels.
        """


class DraftingGenerator(Generator, Protocol):
    """A generator that can draw pictures in less time if they may differ a little from those of `synthesize`."""

    def draft(self, w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch channels height width"]:
        """Return drafts, pictures of w that are equal to the pictures of `synthesize` up to rounding.

        The bits of a picture must not depend on the other pictures of the batch. Drafts are input of programs: of
        samplers whose energy is computed from pictures, and of labellers. The pictures of a result, which people see,
        are drawn by `synthesize`. Drafts are used only if the attribute `differentiable` of the generator is false.

        A generator that draws more pictures than it returns says so by a method `draft_calls(w)`, which returns their
        number.
        """


@runtime_checkable
class PromptedGenerator(Generator, Protocol):
    """A generator that draws pictures of a text, called prompt.

    Attributes:
        conditions: if the generator has several prompts, a tuple of them: the class of a picture is an index in this
            tuple. () if the generator has one prompt.
    """

    conditions: tuple[Any, ...]

    def under(self, prompt: str) -> PromptedGenerator:
        """Return a generator that draws pictures of `prompt`: a new one, or this one if `prompt` is its prompt."""


class ShapedGenerator(Generator, Protocol):
    """A generator whose z is noise of one or several shapes, such as that of a diffusion model.

    Attributes:
        z_shape: the shape of the noise of one picture, such as (4, 64, 64); or a list of shapes, in the order in which
            the noise is drawn, if a model adds more noise in its steps. z and w begin with these numbers, from which
            `Result.noise` and `Result.step_noise` are taken.
        description: facts that are needed to draw the pictures again in another program, as values that JSON can hold;
            results record them. This attribute may be missing.
    """

    z_shape: tuple[int, ...] | Sequence[tuple[int, ...]]
    description: dict[str, Any]


@dataclass(frozen=True)
class Family:
    """An architecture of generators: what is needed to recognise, read, build and save a generator.

    Attributes:
        name: the value of `kind` in `config.json` of a model folder, such as "stylegan3".
        network: class of the generators, a torch module. `network(settings)` builds a generator, whose attribute
            `config` is these settings.
        config: class of the settings, a dataclass with `z_dim` and `w_dim`. Its fields are saved in `config.json`.
        readers: full name of the module with the list `READERS`, "" for none. A reader is a function from the content
            of a checkpoint of another program, a `Checkpoint`, to a generator. It returns `None` if the checkpoint
            holds a network of another architecture. The module is imported when a checkpoint is read.
        formats: names of the checkpoints that the readers accept, for messages, such as "FastGAN, projected GAN".
        truncation: default truncation psi of a model folder that is made from a checkpoint. Psi pulls w toward the mean
            of w: the result is `mean + psi (w - mean)`.
        weights: name of the file with the weights in a model folder.
        read: function from the path of the file of weights, and the settings, to a generator. The method `save` of this
            generator writes the file. By default the file is one of safetensors, with the state dict of the network.
        outside: whether the weights stay in files outside model folders, which the settings name.
    """

    name: str
    network: Callable[..., Any]
    config: type[Any]
    readers: str = ""
    formats: str = ""
    truncation: float = 0.7
    weights: str = "generator.safetensors"
    read: Callable[[Path, Any], Any] | None = None
    outside: bool = False


def offers_features(generator: Generator) -> bool:
    """Return whether a generator has a method `features`, which reduces z to fewer numbers (see `ViewedGenerator`).

    A torch layer that is called `features` does not count.
    """
    return _method(generator, "features") is not None


def _method(generator: Generator, name: str) -> Callable[..., Any] | None:
    """Return a method of a generator; `None` if there is none, or if a torch layer has this name."""
    method = getattr(generator, name, None)
    return method if callable(method) and not isinstance(method, torch.nn.Module) else None


def drafter(generator: Generator) -> Callable[..., Tensor] | None:
    """Return the method `draft` of a generator; `None` if it draws no drafts (see `DraftingGenerator`).

    The result is also `None` if autograd can differentiate the pictures of the generator, because drafts may have no
    gradient.
    """
    return None if is_differentiable(generator) else _method(generator, "draft")


def draft_cost(generator: Generator) -> Callable[[Tensor], int]:
    """Return the function from w to the number of pictures that a draft of w sends through the generator's network.

    It is `len`, unless the generator has a method `draft_calls` because it draws more than is asked for.
    """
    return (drafter(generator) and _method(generator, "draft_calls")) or len


def is_differentiable(generator: Generator) -> bool:
    """Return whether autograd can differentiate the pictures of a generator: true, unless `differentiable` is false."""
    return bool(getattr(generator, "differentiable", True))


def show_pictures(generator: Generator, images: Float[Tensor, "batch channels height width"]) -> list[Image.Image]:
    """Return pictures of a generator as people see them.

    By default these are `images` themselves. A generator whose pictures are measurements, such as heights, may have a
    method `render` from `images` to pictures in [-1, 1]. Readers and judges of pictures get `images`.

    Raises:
        ArgumentError: `images`, or what `render` returns, are no pictures.
    """
    render = _method(generator, "render")
    return to_pictures(images if render is None else check_pictures(render(images), "render"))


def head_reader(generator: Generator, space: str, encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the function from z (batch, z_dim) to the input of heads, the classifiers of attributes.

    Args:
        generator: the generator to which z belongs.
        space: what the heads take as input: "w", "features" (the result of the method `features`), "picture" (a batch
            of pictures), or anything else for z itself.
        encode: function from z to w, with truncation and condition already chosen.

    Raises:
        ArgumentError: the space is "features", and the generator has no method `features`.
    """
    if space == "picture":
        return lambda z: generator.synthesize(encode(z))
    if space != "features":
        return encode if space == "w" else Identity()
    if not offers_features(generator):
        problem = f"a {type(generator).__name__} has no features of z that heads could read"
        raise ArgumentError(problem, hint='give it a method features(z), or let the heads read "w" or "z"')
    return cast(ViewedGenerator, generator).features


def check_generator(generator: Any, name: str = "this") -> Generator:
    """Return `generator` unchanged if it can be used as a `Generator`.

    It must have an attribute `z_dim`, a method `encode(z, truncation)` and a method `synthesize(w)`. If its `c_dim` is
    not 0, `encode` must take `condition` as a third argument.

    Args:
        generator: any object.
        name: name of the object in error messages.

    Raises:
        ArgumentError: the object is a class, lacks the attribute or a method, has a method that takes other arguments,
            or has a `z_shape` that does not fit its `z_dim`.
    """
    kind, hint = type(generator).__name__, "docs/any-generator.md shows how to wrap a network"
    if isinstance(generator, type):
        kind = generator.__name__
        raise ArgumentError(f"{kind} is a class, not a generator", hint=f"make one: {kind}()")
    if missing := [part for part in ("z_dim", "encode", "synthesize") if not hasattr(generator, part)]:
        raise ArgumentError(f"{name} is a {kind} without {', '.join(missing)}, so it is no generator", hint=hint)
    encoded = ("z", "truncation", "condition") if class_count(generator) else ("z", "truncation")
    for part, inputs in (("encode", encoded), ("synthesize", ("w",))):
        if wrong := misfit(getattr(generator, part), *inputs):
            call = f"{part}({', '.join(inputs)})"
            raise ArgumentError(f"{name} is a {kind} that cannot be called as {call}: {wrong}", hint=hint)
    noise_shapes(generator)
    return cast(Generator, generator)


def noise_shapes(generator: Any) -> list[tuple[int, ...]]:
    """Return the shapes of the noise of one picture: the attribute `z_shape` of a generator, always as a list.

    The list is empty if the generator has no `z_shape`.

    Raises:
        ArgumentError: `z_shape` is neither a shape nor a list of shapes, or noise of these shapes has more numbers in
            total than z (`z_dim`).
    """
    shape = getattr(generator, "z_shape", None)
    if shape is None:
        return []
    shapes = shape_list(shape, generator.z_dim)
    if not shapes:
        problem = f"z_shape of a {type(generator).__name__} is {shape!r}, which is no part of {generator.z_dim} numbers"
        raise ArgumentError(problem, hint="a shape such as (4, 64, 64), or a list of shapes")
    return shapes


def shape_list(shape: Any, count: int) -> list[tuple[int, ...]]:
    """Return one shape, or several, as a list of shapes; [] if `shape` is neither, or the tensors would be too large.

    Args:
        shape: a sequence of the lengths of axes, or a sequence of such sequences.
        count: how many numbers all tensors of these shapes together may have.
    """
    shapes = [shape] if isinstance(shape, Sequence) and not any(isinstance(size, Sequence) for size in shape) else shape
    try:
        checked = [tuple(map(index, shape)) for shape in shapes]
    except TypeError:
        return []
    return checked if 1 <= sum(map(math.prod, checked)) <= count and min(map(min, checked)) >= 1 else []


def split_noise(w: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the noise with which w (batch, w_dim) begins: for each shape a tensor (batch, *shape)."""
    sizes = [*map(math.prod, shapes)]
    parts = w[:, : sum(sizes)].split(sizes, 1)
    return [part.reshape(len(w), *shape) for part, shape in zip(parts, shapes, strict=True)]


def block_means(noise: Float[Tensor, "batch *channels height width"], blocks: int) -> Float[Tensor, "batch features"]:
    """Return the means of the blocks of noise, scaled to unit variance, as features for heads.

    Each channel is divided into `blocks` x `blocks` blocks, or fewer where an axis is shorter than `blocks`.
    """
    height, width = noise.shape[-2:]
    pool = min(height, blocks), min(width, blocks)
    return math.sqrt(height * width / math.prod(pool)) * F.adaptive_avg_pool2d(noise.flatten(1, -3), pool).flatten(1)


def check_pictures(images: Any, name: str = "synthesize") -> Tensor:
    """Return `images`, the result of `Generator.synthesize`, unchanged if it is a tensor of floats with four axes.

    Args:
        images: the result.
        name: name of the method that returned it, for the message.

    Raises:
        ArgumentError: `images` is anything else.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim != 4:
        detail = f" of {images.dtype} and shape {tuple(images.shape)}" if hasattr(images, "dtype") else ""
        hint = "it must return a tensor of floats in [-1, 1] of shape (batch, 1 or 3, height, width)"
        problem = f"{name} returned a {type(images).__name__}{detail}, which is no batch of pictures"
        raise ArgumentError(problem, hint=hint)
    return images


def device_of(generator: Generator) -> torch.device | None:
    """Return the device of the first parameter or buffer of a generator.

    `None` is returned if the generator has neither, or is no torch module.
    """
    module = generator if isinstance(generator, torch.nn.Module) else torch.nn.Module()
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), None)


def latent_size(generator: Generator, space: str) -> int | None:
    """Return the length of a row of the input of heads, the classifiers of attributes.

    For "w" the length is `w_dim`, and for z it is `z_dim`. These are attributes of the settings `config` of the
    generator, or of the generator itself if it has no `config`. `None` is returned if the attribute is missing.

    Args:
        generator: any generator.
        space: input of the heads: "w", "features" (the result of the method `features`), or anything else for z.

    Raises:
        ArgumentError: the space is "features", and the generator has no method `features`.
    """
    if space == "features":
        z = torch.zeros(1, generator.z_dim, device=device_of(generator))
        with torch.no_grad():
            return head_reader(generator, space, Identity())(z).shape[1]
    name = "w_dim" if space == "w" else "z_dim"
    return cast("int | None", getattr(getattr(generator, "config", generator), name, None))


def class_count(generator: Generator) -> int:
    """Return the number of classes of a generator, which is `c_dim`, the length of a condition; 0 without classes."""
    count = getattr(generator, "c_dim", 0)
    return count if isinstance(count, int) else 0


def check_condition(condition: Any, generator: Generator) -> Condition | None:
    """Return a condition in the one form that this library compares and saves: an integer or a tuple of floats.

    Args:
        condition: the index of a class, 0 to c_dim - 1, or its prompt; or c_dim numbers as a list, array or tensor. It
            must be `None` for a generator without classes, and must not be `None` for one with classes.
        generator: the generator for which the condition is meant; its `c_dim` is the length of a condition.

    Returns:
        The index of the class, if the condition is an index or a one-hot list ([0, 1] gives 1). For any other list, a
        tuple of c_dim floats. `None` for a generator without classes.

    Raises:
        ArgumentError: the condition is missing, or is given to a generator without classes, or is neither such an
            index nor c_dim finite numbers.
    """
    check_single_condition(condition)
    count = class_count(generator)
    if not count:
        if condition is not None:
            hint = "give a prompt, or to generate a list of prompts" if isinstance(generator, PromptedGenerator) else ""
            raise ArgumentError(
                f"this generator has no classes, so it takes no condition, such as {condition!r}", hint=hint
            )
        return None
    prompts = getattr(generator, "conditions", ())
    named = ", its prompt" if prompts else ""
    allowed = f"a condition is a class from 0 to {count - 1}{named}, or a list of {count} finite numbers"
    if condition is None:
        raise ArgumentError(f"this generator is conditional on {count} classes: give a condition", hint=allowed)
    if isinstance(condition, str) and condition in prompts:
        return int(prompts.index(condition))
    numbers = condition.tolist() if hasattr(condition, "tolist") else condition
    if type(numbers) is int and numbers in range(count):
        return numbers
    if not isinstance(numbers, Sequence) or len(numbers) != count or not all(map(_is_finite, numbers)):
        raise ArgumentError(f"{condition!r} is not a condition", hint=allowed)
    vector = tuple(map(float, numbers))
    one_hot = sorted(vector) == [0.0] * (count - 1) + [1.0]
    return vector.index(1.0) if one_hot else vector


def check_single_condition(condition: Any) -> None:
    """Raise an `ArgumentError` if the condition is a list of prompts."""
    if isinstance(condition, list | tuple) and condition and all(isinstance(each, str) for each in condition):
        raise ArgumentError("this is possible under one prompt, not under several", hint="give one as condition")


def check_fitted_condition(condition: Any, generator: Generator) -> Condition | Literal["random"] | None:
    """Check the condition of the samples on which heads, the classifiers of attributes, are trained, and return it.

    Args:
        condition: "random", for a random class in each sample; or the index of a class, or a list of c_dim numbers. It
            must be `None` for a generator without classes, and must not be `None` for one with classes.
        generator: the generator for which the condition is meant.

    Returns:
        "random", the index of a class, a tuple of c_dim floats, or `None` without classes. A one-hot list is returned
        as the index of the class.

    Raises:
        ArgumentError: the condition is missing, or is given to a generator without classes, or is none of the above.
    """
    if isinstance(condition, str) and condition == RANDOM and class_count(generator):
        return RANDOM
    return check_condition(condition, generator)


def condition_vector(condition: Condition | None, generator: Generator) -> Float[Tensor, " c_dim"] | None:
    """Return a condition as a vector of c_dim numbers in float32, the form that `encode_under` takes.

    Args:
        condition: the index of a class, which gives a one-hot vector; a tuple of c_dim numbers; or `None`, which gives
            `None`.
        generator: the generator for which the condition is meant; its `c_dim` is the length of the vector.
    """
    check_single_condition(condition)
    if condition is None:
        return None
    if isinstance(condition, tuple):
        return torch.tensor(condition, dtype=torch.float32)
    return F.one_hot(torch.tensor(condition), class_count(generator)).float()


def check_condition_rows(condition: Tensor | None, count: int, classes: int) -> None:
    """Raise an ArgumentError unless `condition` is a possible value of the argument `condition` of `encode`.

    Args:
        condition: a tensor of shape (count, classes), or `None` for a generator without classes.
        count: number of samples, which is the number of rows of z.
        classes: number of classes of the generator, 0 without classes.

    Raises:
        ArgumentError: the condition is missing, or is given to a generator without classes, or has a wrong shape.
    """
    if condition is not None and not classes:
        raise ArgumentError("this generator has no classes, so it takes no condition")
    wanted = (count, classes) if classes else None
    shape = None if condition is None else tuple(condition.shape)
    if shape != wanted:
        message = f"a generator of {classes} classes takes a condition of shape {wanted}, not {shape}"
        raise ArgumentError(message, hint="give a condition" if shape is None else "")


def encode_under(
    generator: Generator, z: Float[Tensor, "batch z_dim"], truncation: float, condition: Tensor | None = None
) -> Float[Tensor, "batch w_dim"]:
    """Return w (batch, w_dim) for z (batch, z_dim), computed by the method `encode` of a generator.

    Args:
        generator: any generator.
        z: latents.
        truncation: the factor psi, which pulls w toward the mean of w: the result is `mean + psi (w - mean)`.
        condition: the condition, as a vector (c_dim,) for all samples, or (batch, c_dim) with a row for each sample;
            `None` for a generator without classes.
    """
    if condition is None:
        return generator.encode(z, truncation)
    return cast(ConditionalGenerator, generator).encode(z, truncation, condition.to(z).expand(len(z), -1))


def check_layers(layers: Any, generator: Generator) -> tuple[int, ...]:
    """Return the indices of layers in ascending order, without repetition.

    A layer is a part of the generator that takes a w of its own: layer i takes row i of W+, a matrix (num_ws, w_dim).

    Args:
        layers: an iterable of whole numbers from 0 to num_ws - 1, at least one.
        generator: the generator that has the layers; `num_ws` of its settings `config` is their number.

    Raises:
        ArgumentError: the settings have no `num_ws`, or `layers` is empty or holds anything but indices of layers.
    """
    count = getattr(getattr(generator, "config", None), "num_ws", None)
    if not isinstance(count, int):
        raise ArgumentError(f"a {type(generator).__name__} has no layers with a w of their own")
    indices = list(layers) if isinstance(layers, Iterable) and not isinstance(layers, str) else []
    wrong = [layer for layer in indices if type(layer) is not int or layer not in range(count)]
    if wrong or not indices:
        problem = f"layers are whole numbers from 0 to {count - 1}, at least one, not {(wrong or [layers])[0]!r}"
        raise ArgumentError(problem, hint="such as [0, 1, 2], or --layers 0-2")
    return tuple(sorted(set(indices)))


def _is_finite(number: Any) -> bool:
    return isinstance(number, Real) and not isinstance(number, bool) and math.isfinite(number)


def synthesizer(generator: Generator, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return the function from w to pictures that computes feature maps, the tensors between layers, in `dtype`.

    For float32 the function is `generator.synthesize` itself. If `synthesize` has no argument `dtype`, as in generators
    that users write, the function is also `generator.synthesize` itself, and `dtype` has no effect.
    """
    if dtype == torch.float32 or "dtype" not in signature(generator.synthesize).parameters:
        return generator.synthesize
    return partial(generator.synthesize, dtype=dtype)  # type: ignore[call-arg]


Noise = Literal["const", "none"] | Tensor
"""The noise that a generator adds to its feature maps: "const", the noise stored with the weights; "none", no noise; or
a tensor (batch, noise_size), whose rows are the noise of each picture, layer after layer."""
STORED_NOISE = "const"
"""Kind of noise: the noise that is stored with the weights, the same for each picture."""
RANDOM_NOISE = "random"
"""Kind of noise: new random noise for each picture."""
_log = logging.getLogger("energyql")
PIXEL_BATCH = 1 << 20
"""Largest number of pixels in a batch of pictures, by default: 64 pictures of 128 x 128, or one of 1024 x 1024."""
FIRST_BATCH = 4
"""Number of pictures that are drawn first on another device than the CPU, to see how much memory they take."""


class NoisyGenerator(Generator, Protocol):
    """A generator whose pictures depend on noise too.

    Attributes:
        noise_size: how many random numbers one picture takes as noise, above 0.
    """

    noise_size: int

    def synthesize(self, w: Tensor, noise: Noise = "const") -> Tensor:
        """Map w, the output of `encode`, to pictures in [-1, 1], shape (batch, channels, height, width).

        Args:
            w: latents, (batch, w_dim).
            noise: "const", the noise stored with the weights; "none", no noise; or a tensor (batch, noise_size) of
                standard normal numbers.
        """


def noise_size(generator: Generator) -> int:
    """Return how many random numbers one picture takes as noise; 0 for a generator without noise."""
    size = getattr(generator, "noise_size", 0)
    return size if isinstance(size, int) else 0


def has_noise(network: torch.nn.Module) -> bool:
    """Return whether noise changes the pictures of a network.

    Noise changes them if any layer of the network, at any depth, has a parameter `noise_strength` that is not 0.
    """
    return any(value.any() for name, value in network.named_parameters() if name.endswith("noise_strength"))


def check_noise_input(noise: Any, shape: tuple[int, int]) -> None:
    """Raise an ArgumentError unless `noise` is a possible value of the argument `noise` of `synthesize`.

    Args:
        noise: "const", "none", or a tensor of shape `shape`.
        shape: number of samples, and how many random numbers one sample takes as noise.

    Raises:
        ArgumentError: `noise` is neither "const" nor "none" nor a tensor of this shape.
    """
    kind = tuple(noise.shape) if isinstance(noise, Tensor) else noise
    if kind not in ("const", "none", shape):
        raise ArgumentError(f'noise is "const", "none" or a tensor {shape}, not {kind!r}')


def check_noise(noise: str, generator: Generator) -> None:
    """Raise an ArgumentError unless a generator can draw pictures with a kind of noise.

    Args:
        noise: "const" (the noise stored with the weights), "random" (new noise for each picture) or "none".
        generator: any generator. One without noise can draw with "const" only, which then has no effect.

    Raises:
        ArgumentError: the generator has no noise, and `noise` is not "const".
    """
    if noise != STORED_NOISE and not noise_size(generator):
        problem = f"this {type(generator).__name__} adds no noise, so it cannot be drawn with noise {noise!r}"
        raise ArgumentError(problem, hint="leave out the noise; a StyleGAN2 or a FastGAN has some, as a rule")


def noise_options(generator: Any, noise: str, seed: int, index: Sequence[int]) -> dict[str, Any]:
    """Return the keyword arguments with which `generator.synthesize` draws a batch of pictures with a kind of noise.

    Args:
        generator: any generator. If it has no noise, `noise` must be "const".
        noise: "const" (the noise stored with the weights), "random" (new noise for each picture) or "none".
        seed: seed of all random noise of the run.
        index: for each picture of the batch its number among all pictures of the run. The random noise of a picture
            depends on this number and the seed only, so it is the same in every batch.

    Returns:
        An empty dict for "const", `{"noise": "none"}` for "none", and for "random" the numbers as the entry "noise", a
        tensor (batch, noise_size).
    """
    if noise != RANDOM_NOISE:
        return {} if noise == STORED_NOISE else {"noise": noise}
    rows = [normals(seed, number, 1, generator.noise_size, stream="noise") for number in index]
    return {"noise": torch.cat(rows).to(device_of(generator))}


def drawing(generator: Any, dtype: torch.dtype, noise: str, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that draws pictures from which a sampler computes energies, with a fixed kind of noise.

    The function takes two tensors: w, and for each picture its number among all pictures of the run, (batch,). The
    pictures are drafts if the generator can draw drafts (see `DraftingGenerator`).

    Args:
        generator: any generator. If it has no noise, `noise` must be "const".
        dtype: precision of the feature maps, the tensors between layers. It has no effect if `generator.synthesize` has
            no argument `dtype`.
        noise: "const" (the noise stored with the weights), "random" (new noise for each picture) or "none".
        seed: seed of all random noise. The noise of a picture depends only on the seed and the number of the picture.
    """
    draw = drafter(generator) or synthesizer(generator, dtype)
    return lambda w, rows: draw(w, **noise_options(generator, noise, seed, rows.tolist()))


@dataclass(slots=True)
class Calls:
    """A counter of the pictures that a generator draws for a query. Pictures beyond a budget are refused.

    Attributes:
        made: number of calls so far, one for each picture; a picture that autograd differentiates counts as two.
        start: value of `made` at the start of the run.
        most: value of `made` at which the run ends.
        refused: whether pictures were refused.
        in_pilot: number of calls of pilot runs since the start of the run.
    """

    made: int = 0
    start: int = 0
    most: float = math.inf
    refused: bool = False
    in_pilot: int = 0
    _told: int = 0
    _piloting: bool = False

    @property
    def left(self) -> float:
        """Number of calls that may still be made."""
        return self.most - self.made

    @property
    def budget(self) -> float:
        """Number of calls that the run may make in all; infinity without a budget."""
        return self.most - self.start

    def untold(self) -> int:
        """Return the number of calls since the start of the run, or since the last call of this method.

        So each result of a run can state the calls that were made for it.
        """
        before, self._told = self._told, self.made
        return self.made - before

    @contextmanager
    def at_most(self, budget: int | None) -> Iterator[None]:
        """Context manager for a run: the block can make at most `budget` calls; `None` for any number."""
        self.start = self._told = self.made
        most = math.inf if budget is None else self.made + budget
        self.most, self.refused, self.in_pilot = most, False, 0
        try:
            yield
        finally:
            if self.most == most:  # a stream that was abandoned may end during a later run, whose budget stays
                self.most = math.inf

    @contextmanager
    def pilot(self) -> Iterator[None]:
        """Context manager for a pilot run, whose calls an error about the budget states."""
        self._piloting = True
        try:
            yield
        finally:
            self._piloting = False

    def counted(self, draw: Callable[..., Tensor], cost: Callable[[Tensor], int] = len) -> Callable[..., Tensor]:
        """Return a function that draws like `draw`, a function from w to pictures, and counts its pictures.

        `cost` is a function from w to the number of pictures that `draw` sends through the network of the generator.
        The function raises a `NotAcceptedError`, and draws nothing, if fewer calls are left than it would make.
        """

        def counting(w: Tensor, *arguments: object, **options: object) -> Tensor:
            calls = cost(w) * (2 if w.requires_grad else 1)
            if calls > self.left:
                self.refused = True
                pilot = f"; a pilot run took {self.in_pilot:,} of {self.budget:,.0f} calls" if self.in_pilot else ""
                raise NotAcceptedError(
                    f"the budget of calls of the generator ended before a sample was complete{pilot}",
                    hint="raise budget (--budget), or ask for less; energyql explain QUERY --pilot estimates the calls",
                )
            self.made += calls
            self.in_pilot += calls if self._piloting else 0
            return draw(w, *arguments, **options)

        return counting


def draw_batches(
    synthesize: Callable[..., Tensor],
    encode: Callable[[Tensor], Tensor],
    z: Tensor,
    batch_size: int | None = None,
    w: Tensor | None = None,
    options: Callable[[slice], dict[str, Any]] = lambda rows: {},
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw pictures for latents in batches, and yield a tuple of w and pictures for each batch, in order.

    Args:
        synthesize: function from w to pictures, with the keyword arguments that `options` returns.
        encode: function from z to w.
        z: latents (n, z_dim).
        batch_size: number of pictures in a batch. By default, the first batch has `FIRST_BATCH` pictures, or on a CPU
            one for each thread. From its pictures, `fitting` computes the size of later batches, which have at least as
            many pictures: on a GPU, they take about half of the free memory; on other devices, they have together about
            a million pixels (`PIXEL_BATCH`). On a CPU, each picture has the bits that one thread computes, if there is
            a picture for each thread. If a batch takes more memory than the device has, this and all later batches have
            half as many pictures, and a log message says so once.
        w: latents w, (n, w_dim), or W+ with a w for each layer, (n, num_ws, w_dim). If it is not `None`, `encode` is
            not called, and of z only the number of rows is used.
        options: function from the slice of the rows of z in a batch to further keyword arguments of `synthesize`.

    Raises:
        ArgumentError: `synthesize` returns anything but a tensor of floats with four axes.
    """
    threads = torch.get_num_threads() if z.device.type == "cpu" else FIRST_BATCH
    size, most = batch_size or threads, len(z)  # the first pictures show how many fit
    pooled = threads <= min(size, len(z))
    start, used, fits, images = 0, _watch_memory(z.device), batch_size, None
    while start < len(z):
        # Not around `yield`, because the code of the caller must not run in these modes.
        with torch.inference_mode(), always_in_pool(pooled):
            rows = slice(start, min(start + size, len(z)))
            try:
                part = encode(z[rows]) if w is None else w[rows]
                images = check_pictures(synthesize(part, **options(rows)))
            except torch.cuda.OutOfMemoryError as error:
                images, size = None, (rows.stop - start) // 2
                if not size:
                    hint = "close other programs on the device, or draw on the CPU: --device cpu"
                    what = f"{z.device} has too little memory for one picture: {error}"
                    raise EnergyQLError(what, hint=hint) from None
        if images is None:
            if most == len(z):
                _log.warning("%s ran out of memory; pictures are drawn in smaller batches from now on", z.device)
            most = size
            continue
        yield part, images
        start += size
        fits = fits or max(threads, fitting(images, used, len(z)))
        size = min(fits, most)


def fitting(images: Tensor, used: int, most: int) -> int:
    """Return how many pictures to draw in one batch, at least one.

    On a GPU, the batch takes about half of the free memory. On other devices it has at most `PIXEL_BATCH` pixels.

    Args:
        images: the first pictures that were drawn, (count, channels, height, width).
        used: number of bytes that were in use on the GPU before these pictures were drawn, by `_watch_memory`.
        most: number of all pictures to draw; on a GPU, a batch is not larger.
    """
    if images.device.type != "cuda":
        return max(1, PIXEL_BATCH // (images.shape[-1] * images.shape[-2]))
    device = images.device
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free, peak = torch.cuda.mem_get_info(device)[0] + held, torch.cuda.max_memory_allocated(device) - used
    return min(most, max(1, len(images) * free // 2 // max(1, peak)))


def _watch_memory(device: torch.device) -> int:
    """Return how many bytes are in use on a CUDA device, and start to measure the peak; 0 for any other device."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)
