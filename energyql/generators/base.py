"""Protocols of generators, checks of their labels, layers and noise, drawing in batches, and the record `Family`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from numbers import Real
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from energyql.errors import ArgumentError, misfit
from energyql.numerics.pullback import Identity
from energyql.numerics.random import normals
from energyql.numerics.shapes import Float

Label = int | tuple[float, ...]
"""A class, or the `c_dim` numbers that a generator is conditional on."""
RANDOM: Literal["random"] = "random"
"""In place of a label: a random class for each sample. Heads can be fitted to such samples, but queries need one label
for all pictures."""


@runtime_checkable
class Generator(Protocol):
    """A map from Gaussian latents to pictures.

    A module without an intermediate latent returns `truncation * z` from `encode`: w is then z, whose mean is 0.
    """

    z_dim: int

    def encode(self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0) -> Float[Tensor, "batch w_dim"]:
        """Map z ~ N(0, I), shape (batch, z_dim), to w, the latent that attribute heads read, shape (batch, w_dim).

        Truncation psi pulls w toward its mean: `mean + psi (w - mean)`.
        """
        ...

    def synthesize(self, w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch channels height width"]:
        """Map the output of `encode` to pictures in [-1, 1], shape (batch, channels, height, width)."""
        ...


class ConditionalGenerator(Generator, Protocol):
    """A generator with a class label as a second input; `c_dim` is above 0."""

    c_dim: int

    def encode(self, z: Tensor, truncation: float = 1.0, label: Tensor | None = None) -> Tensor:
        """Map z (batch, z_dim) and a label (batch, c_dim), as a rule one-hot, to w (batch, w_dim).

        Truncation is that of `Generator.encode`.
        """
        ...


class ViewedGenerator(Generator, Protocol):
    """A generator that can reduce z to fewer numbers, from which attributes are easier to learn."""

    def features(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch features"]:
        """Return the input of heads on the space "features", one row for each row of z, differentiable by autograd.

        For instance the means of blocks of pixels, where z is the noise of a picture.
        """
        ...


@dataclass(frozen=True)
class Family:
    """A generator architecture: how its generators are recognised, read, built and saved.

    Attributes:
        name: `kind` of the generator in the configuration of a model folder.
        network: class of the generators, a torch module with a `config`; `network(config)` builds one.
        config: dataclass of the settings, `z_dim` and `w_dim` among them; saved in the configuration of a model folder.
        readers: name of the module with `READERS`, "" for none. A reader is a function that returns the generator in a
            foreign `Checkpoint`, or `None` if the checkpoint holds another network. The module is imported when a
            foreign checkpoint is read.
        formats: names of the checkpoints that the readers accept, for messages.
        truncation: default psi of a model folder that is made from a checkpoint.
    """

    name: str
    network: Callable[[Any], Any]
    config: type[Any]
    readers: str = ""
    formats: str = ""
    truncation: float = 0.7


def offers_features(generator: Generator) -> bool:
    """Return whether a generator is a `ViewedGenerator`: it has a method `features`, not a layer of that name."""
    features = getattr(generator, "features", None)
    return callable(features) and not isinstance(features, torch.nn.Module)


def head_reader(generator: Generator, space: str, encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the function from z (batch, z_dim) to the input of heads: latents (batch, latent_dim), or pictures.

    Args:
        generator: the generator that z belongs to.
        space: the space of the heads: "w", "features" or "picture"; with any other, the function returns z itself.
        encode: function from z to w.

    Raises:
        ArgumentError: the space is "features", and the generator has no method `features`.
    """
    if space == "picture":
        return lambda z: generator.synthesize(encode(z))
    if space != "features":
        return encode if space == "w" else Identity()
    if not offers_features(generator):
        raise ArgumentError(
            f"a {type(generator).__name__} has no features of z that heads could read",
            hint='give it a method features(z), or let the heads read "w" or "z"',
        )
    return cast(ViewedGenerator, generator).features


def check_generator(generator: Any, name: str = "this") -> Generator:
    """Return `generator` if it has all parts of a `Generator`, and they can be called as its protocol says.

    Args:
        generator: any object.
        name: what it is called in messages.

    Raises:
        ArgumentError: it is a class, lacks a part, or one of its methods takes other arguments.
    """
    kind, hint = type(generator).__name__, "docs/any-generator.md shows how to wrap a network"
    if isinstance(generator, type):
        kind = generator.__name__
        raise ArgumentError(f"{kind} is a class, not a generator", hint=f"make one: {kind}()")
    if missing := [part for part in ("z_dim", "encode", "synthesize") if not hasattr(generator, part)]:
        raise ArgumentError(f"{name} is a {kind} without {', '.join(missing)}, so it is no generator", hint=hint)
    if type(generator).__module__.partition(".")[0] == "energyql":  # tests check the methods of these
        return cast(Generator, generator)
    encoded = ("z", "truncation", "label") if class_count(generator) else ("z", "truncation")
    for part, inputs in (("encode", encoded), ("synthesize", ("w",))):
        if wrong := misfit(getattr(generator, part), *inputs):
            call = f"{part}({', '.join(inputs)})"
            raise ArgumentError(f"{name} is a {kind} that cannot be called as {call}: {wrong}", hint=hint)
    return cast(Generator, generator)


def check_pictures(images: Any) -> Tensor:
    """Return `images`, the result of a `synthesize`, if it is a batch of pictures.

    Raises:
        ArgumentError: it is no tensor of floats with four axes.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim != 4:
        detail = f" of {images.dtype} and shape {tuple(images.shape)}" if hasattr(images, "dtype") else ""
        raise ArgumentError(
            f"synthesize returned a {type(images).__name__}{detail}, which is no batch of pictures",
            hint="it must return a tensor of floats in [-1, 1] of shape (batch, 1 or 3, height, width)",
        )
    return images


def device_of(generator: Generator) -> torch.device | None:
    """Return the device of a generator's tensors; `None` if it has none."""
    module = generator if isinstance(generator, torch.nn.Module) else torch.nn.Module()
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), None)


def latent_size(generator: Generator, space: str) -> int | None:
    """Return the length of the latents that heads on `space` read; `None` if the generator does not state its `w_dim`.

    Args:
        generator: any.
        space: "w" or "features"; z is read on any other space.

    Raises:
        ArgumentError: the space is "features", and the generator has no method `features`.
    """
    if space == "features":
        z = torch.zeros(1, generator.z_dim, device=device_of(generator))
        with torch.no_grad():
            return head_reader(generator, space, Identity())(z).shape[1]
    name = "w_dim" if space == "w" else "z_dim"
    size: int | None = getattr(getattr(generator, "config", generator), name, None)
    return size


def class_count(generator: Generator) -> int:
    """Return c_dim, the length of a label; 0 for a generator without classes."""
    count = getattr(generator, "c_dim", 0)
    return count if isinstance(count, int) else 0


def check_label(label: Any, generator: Generator) -> Label | None:
    """Return a label in the form in which labels are compared and recorded.

    Args:
        label: a class, 0 to c_dim - 1; c_dim numbers as a list, array or tensor; or `None`.
        generator: the generator that is conditional on the label.

    Returns:
        The class, also for a one-hot list; otherwise a tuple of c_dim floats. `None` for a generator without classes.

    Raises:
        ArgumentError: the generator needs a label, has no classes, or has no such label.
    """
    count = class_count(generator)
    if not count:
        if label is None:
            return None
        raise ArgumentError(
            f"this generator has no classes, so it takes no label, such as {label!r}",
            hint="leave out label, or --label",
        )
    allowed = f"a label is a class from 0 to {count - 1}, or a list of {count} numbers"
    if label is None:
        raise ArgumentError(f"this generator is conditional on {count} classes: give a label", hint=allowed)
    numbers = label.tolist() if hasattr(label, "tolist") else label
    if isinstance(numbers, int) and not isinstance(numbers, bool):
        if not 0 <= numbers < count:
            raise ArgumentError(f"there is no class {numbers}", hint=allowed)
        return numbers
    if not isinstance(numbers, Sequence) or isinstance(numbers, str):
        raise ArgumentError(f"{label!r} is not a label", hint=allowed)
    if len(numbers) != count or not all(_is_finite(number) for number in numbers):
        raise ArgumentError(f"{label!r} are not {count} finite numbers", hint=allowed)
    condition = tuple(float(number) for number in numbers)
    one_hot = sorted(condition) == [0.0] * (count - 1) + [1.0]
    return condition.index(1.0) if one_hot else condition


def check_fitted_label(label: Any, generator: Generator) -> Label | Literal["random"] | None:
    """Return the label under which heads are fitted: that of `check_label`, or "random" if the generator has classes.

    Raises:
        ArgumentError: the generator needs a label, has no classes, or has no such label.
    """
    if isinstance(label, str) and label == RANDOM and class_count(generator):
        return RANDOM
    return check_label(label, generator)


def as_condition(label: Label | None, generator: Generator) -> Float[Tensor, " c_dim"] | None:
    """Return the input of `encode` for a label from `check_label`: (c_dim,) float32, or `None` for `None`."""
    if label is None:
        return None
    if isinstance(label, tuple):
        return torch.tensor(label, dtype=torch.float32)
    return torch.nn.functional.one_hot(torch.tensor(label), class_count(generator)).float()


def check_condition(label: Tensor | None, count: int, classes: int) -> None:
    """Check the label that the `encode` of a generator receives.

    Args:
        label: it must be (count, classes), or `None` for a generator without classes.
        count: number of samples.
        classes: c_dim of the generator, 0 for none.

    Raises:
        ArgumentError: a conditional generator has no label, an unconditional one has, or its shape is wrong.
    """
    if label is None:
        if classes:
            raise ArgumentError(
                f"this generator is conditional on {classes} classes: give a label",
                hint=f"a tensor of shape {(count, classes)}",
            )
    elif not classes:
        raise ArgumentError("this generator has no classes, so it takes no label", hint="leave out label")
    elif label.shape != (count, classes):
        raise ArgumentError(f"label must have shape {(count, classes)}, not {tuple(label.shape)}")


def encode_under(
    generator: Generator, z: Float[Tensor, "batch z_dim"], truncation: float, condition: Tensor | None = None
) -> Float[Tensor, "batch w_dim"]:
    """Return w of z from `generator.encode`, under a truncation and a label.

    The label `condition` is (c_dim,) for all samples, or (batch, c_dim), or `None` for a generator without classes.
    """
    if condition is None:
        return generator.encode(z, truncation)
    return cast(ConditionalGenerator, generator).encode(z, truncation, condition.to(z).expand(len(z), -1))


def check_layers(layers: Any, generator: Generator) -> tuple[int, ...]:
    """Return the indices of layers, which are the rows of W+, in ascending order and each once.

    Args:
        layers: any iterable of whole numbers, at least one.
        generator: the generator with these layers.

    Raises:
        ArgumentError: the generator has no layers, or `layers` is empty or holds anything but indices of layers.
    """
    count = getattr(getattr(generator, "config", None), "num_ws", None)
    if not isinstance(count, int):
        raise ArgumentError(
            f"a {type(generator).__name__} has no layers with a w of their own", hint="leave out layers"
        )
    indices = list(layers) if isinstance(layers, Iterable) and not isinstance(layers, str) else []
    if not indices or not all(type(layer) is int and 0 <= layer < count for layer in indices):
        wrong = next((layer for layer in indices if type(layer) is not int or not 0 <= layer < count), layers)
        raise ArgumentError(
            f"layers are whole numbers from 0 to {count - 1}, at least one, not {wrong!r}",
            hint="such as [0, 1, 2], or --layers 0-2",
        )
    return tuple(sorted(set(indices)))


def _is_finite(number: Any) -> bool:
    return isinstance(number, Real) and not isinstance(number, bool) and math.isfinite(number)


def synthesizer(generator: Generator, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return the function from w to pictures that computes feature maps in `dtype`.

    A generator whose `synthesize` has no argument `dtype` draws in its own precision; the generators of this library
    have that argument.
    """
    if dtype == torch.float32 or "dtype" not in signature(generator.synthesize).parameters:
        return generator.synthesize
    return partial(generator.synthesize, dtype=dtype)  # type: ignore[call-arg]


STORED_NOISE = "const"
"""The noise that is stored with the weights, the same for each picture."""
RANDOM_NOISE = "random"
"""Other noise for each picture."""
PIXEL_BATCH = 1 << 20
"""Most pixels in a batch of pictures, by default: 64 pictures of 128 x 128, or one of 1024 x 1024."""


class NoisyGenerator(Generator, Protocol):
    """A generator whose pictures depend on noise as well; `noise_size` is above 0."""

    noise_size: int

    def synthesize(
        self, w: Tensor, noise: Literal["const", "none"] | Float[Tensor, "batch noise_size"] = "const"
    ) -> Tensor:
        """Map the output of `encode` to pictures in [-1, 1], shape (batch, channels, height, width).

        The noise is that of the weights ("const"), left out ("none"), or standard normal numbers (batch, noise_size).
        """
        ...


def noise_size(generator: Generator) -> int:
    """Return the count of noise numbers of a picture; 0 for a generator without noise."""
    size = getattr(generator, "noise_size", 0)
    return size if isinstance(size, int) else 0


def check_noise(noise: str, generator: Generator) -> None:
    """Check that a generator can draw pictures with the noise "const", "random" or "none".

    Raises:
        ArgumentError: the generator has no noise, and `noise` is not "const".
    """
    if noise != STORED_NOISE and not noise_size(generator):
        raise ArgumentError(
            f"this {type(generator).__name__} adds no noise, so it cannot be drawn with noise {noise!r}",
            hint="leave out the noise; a StyleGAN2 or a FastGAN has some, as a rule",
        )


def noise_options(generator: Any, noise: str, seed: int, index: Sequence[int]) -> dict[str, Any]:
    """Return the keyword arguments of `generator.synthesize` for pictures with a kind of noise.

    Args:
        generator: a generator that `check_noise` accepts with this noise.
        noise: "const", "random" or "none".
        seed: seed of the run.
        index: the number of each picture in its run. The random noise of a picture depends only on it and the seed.
    """
    if noise != RANDOM_NOISE:
        return {} if noise == STORED_NOISE else {"noise": noise}
    rows = [normals(seed, number, 1, generator.noise_size, stream="noise") for number in index]
    return {"noise": torch.cat(rows).to(device_of(generator))}


def drawing(generator: Any, dtype: torch.dtype, noise: str, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that draws pictures from two tensors: w, and the number of each picture in its run, (batch,).

    `synthesizer` describes `dtype`, and `noise_options` describes `noise` and `seed`.
    """
    synthesize = synthesizer(generator, dtype)
    return lambda w, rows: synthesize(w, **noise_options(generator, noise, seed, rows.tolist()))


def draw_batches(
    synthesize: Callable[..., Tensor],
    encode: Callable[[Tensor], Tensor],
    z: Tensor,
    batch_size: int | None = None,
    w: Tensor | None = None,
    options: Callable[[slice], dict[str, Any]] = lambda rows: {},
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield w and the pictures of each batch of latents, in order.

    Args:
        synthesize: function from w to pictures.
        encode: function from z to w.
        z: latents (n, z_dim).
        batch_size: pictures of a batch; by default as many as `PIXEL_BATCH` allows.
        w: latents (n, ...) that are drawn instead of `encode(z)`.
        options: function from the rows of a batch to further keyword arguments of `synthesize`.

    Raises:
        ArgumentError: `synthesize` returns no pictures.
    """
    size = batch_size or 1  # the first picture shows how many fit
    start = 0
    while start < len(z):
        with torch.inference_mode():  # not around `yield`, because the code of the caller must not run in this mode
            rows = slice(start, min(start + size, len(z)))
            part = encode(z[rows]) if w is None else w[rows]
            images = check_pictures(synthesize(part, **options(rows)))
        yield part, images
        start += size
        size = batch_size or max(1, PIXEL_BATCH // (images.shape[-1] * images.shape[-2]))
