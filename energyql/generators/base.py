"""The interface of a generator, its class labels and its noise, and the record that describes an architecture."""

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
"""A random class for each sample. Heads can be fitted to such samples; the pictures of one query share a label."""


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
        """As for `Generator`; label has shape (batch, c_dim), as a rule one-hot."""
        ...


class ViewedGenerator(Generator, Protocol):
    """A generator that offers a view of z: fewer numbers, from which attributes are easier to learn."""

    def features(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch features"]:
        """Return what heads on the space "features" read of z, row by row. Autograd must be able to differentiate it.

        For instance the means of blocks, where z is the noise of a picture.
        """
        ...


@dataclass(frozen=True)
class Family:
    """A generator architecture: how its generators are recognised, read, built and saved.

    Attributes:
        name: `kind` of the generator in the configuration of a model folder.
        network: class of the generators, a torch module with a `config`; `network(config)` builds one.
        config: dataclass of the settings, `z_dim` and `w_dim` among them; saved in the configuration of a model folder.
        readers: module with `READERS`, functions from a foreign `Checkpoint` to a generator, or to `None` if it holds
            another network; "" for none. It is imported when a foreign checkpoint is read.
        formats: the checkpoints that the readers accept, for messages.
        truncation: psi of a model folder that is made from a checkpoint, unless a call says otherwise.
    """

    name: str
    network: Callable[[Any], Any]
    config: type[Any]
    readers: str = ""
    formats: str = ""
    truncation: float = 0.7


def offers_features(generator: Generator) -> bool:
    """Whether a generator is a `ViewedGenerator`. A layer that is called `features` is no view of z."""
    found = getattr(generator, "features", None)
    return callable(found) and not isinstance(found, torch.nn.Module)


def head_reader(generator: Generator, space: str, encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the function from z (batch, z_dim) to what is read on `space`: latents (batch, latent_dim), or pictures.

    Args:
        generator: whose z it is.
        space: "w", "features", "picture", or another, whose heads read z itself.
        encode: from z to w.

    Raises:
        ArgumentError: the space is "features", and the generator offers none.
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
    """Return a generator, called `name` in messages, where it has all parts and they can be called.

    Raises:
        ArgumentError: it is a class, lacks a part, or takes other arguments.
    """
    kind, hint = type(generator).__name__, "docs/any-generator.md shows how to wrap a network"
    if isinstance(generator, type):
        kind = generator.__name__
        raise ArgumentError(f"{kind} is a class, not a generator", hint=f"make one: {kind}()")
    if missing := [part for part in ("z_dim", "encode", "synthesize") if not hasattr(generator, part)]:
        raise ArgumentError(f"{name} is a {kind} without {', '.join(missing)}, so it is no generator", hint=hint)
    if type(generator).__module__.partition(".")[0] == "energyql":  # ours take what they should
        return cast(Generator, generator)
    encoded = ("z", "truncation", "label") if class_count(generator) else ("z", "truncation")
    for part, inputs in (("encode", encoded), ("synthesize", ("w",))):
        if wrong := misfit(getattr(generator, part), *inputs):
            call = f"{part}({', '.join(inputs)})"
            raise ArgumentError(f"{name} is a {kind} that cannot be called as {call}: {wrong}", hint=hint)
    return cast(Generator, generator)


def check_pictures(images: Any) -> Tensor:
    """Return what `synthesize` returned, if those are pictures.

    Raises:
        ArgumentError: they are no tensor of floats, or have another shape.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim != 4:
        told = f" of {images.dtype} and shape {tuple(images.shape)}" if hasattr(images, "dtype") else ""
        raise ArgumentError(
            f"synthesize returned a {type(images).__name__}{told}, which is no batch of pictures",
            hint="it must return a tensor of floats in [-1, 1] of shape (batch, 1 or 3, height, width)",
        )
    return images


def device_of(generator: Generator) -> torch.device | None:
    """Return the device of a generator's tensors; `None` if it has none."""
    module = generator if isinstance(generator, torch.nn.Module) else torch.nn.Module()
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), None)


def latent_size(generator: Generator, space: str) -> int | None:
    """Return how many numbers heads on `space` read; `None` if the generator does not say how large its w is.

    Raises:
        ArgumentError: the space is "features", and the generator offers none.
    """
    if space == "features":
        z = torch.zeros(1, generator.z_dim, device=device_of(generator))
        with torch.no_grad():
            return head_reader(generator, space, Identity())(z).shape[1]
    name = "w_dim" if space == "w" else "z_dim"
    size: int | None = getattr(getattr(generator, "config", generator), name, None)
    return size


def class_count(generator: Generator) -> int:
    """Return c_dim, the numbers in a label; 0 for a generator without classes."""
    count = getattr(generator, "c_dim", 0)
    return count if isinstance(count, int) else 0


def check_label(label: Any, generator: Generator) -> Label | None:
    """Return a label in the form in which it is compared and recorded: a class where it is one-hot.

    A label is a class, 0 to c_dim - 1; or c_dim numbers as a list, array or tensor; or `None`.

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
    if len(numbers) != count or not all(_finite(number) for number in numbers):
        raise ArgumentError(f"{label!r} are not {count} finite numbers", hint=allowed)
    condition = tuple(float(number) for number in numbers)
    one_hot = sorted(condition) == [0.0] * (count - 1) + [1.0]
    return condition.index(1.0) if one_hot else condition


def check_fitted_label(label: Any, generator: Generator) -> Label | Literal["random"] | None:
    """Check a label that heads are fitted under: as `check_label`, but "random" is allowed."""
    if isinstance(label, str) and label == RANDOM and class_count(generator):
        return RANDOM
    return check_label(label, generator)


def as_condition(label: Label | None, generator: Generator) -> Float[Tensor, " c_dim"] | None:
    """Return a checked label as the input of `encode`, float32; `None` for no label."""
    if label is None:
        return None
    if isinstance(label, tuple):
        return torch.tensor(label, dtype=torch.float32)
    return torch.nn.functional.one_hot(torch.tensor(label), class_count(generator)).float()


def check_condition(label: Tensor | None, count: int, classes: int) -> None:
    """Check the label that `encode` of a generator with so many classes, or 0, gets for `count` samples.

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
    """Call `generator.encode`; the label is (c_dim,) for all samples, (batch, c_dim), or `None` without classes."""
    if condition is None:
        return generator.encode(z, truncation)
    return cast(ConditionalGenerator, generator).encode(z, truncation, condition.to(z).expand(len(z), -1))


def check_layers(layers: Any, generator: Generator) -> tuple[int, ...]:
    """Return layers, rows of W+, in ascending order, each once.

    Raises:
        ArgumentError: the generator has no layers, or not these.
    """
    count = getattr(getattr(generator, "config", None), "num_ws", None)
    if not isinstance(count, int):
        raise ArgumentError(
            f"a {type(generator).__name__} has no layers with a w of their own", hint="leave out layers"
        )
    found = list(layers) if isinstance(layers, Iterable) and not isinstance(layers, str) else []
    if not found or not all(type(layer) is int and 0 <= layer < count for layer in found):
        wrong = next((layer for layer in found if type(layer) is not int or not 0 <= layer < count), layers)
        raise ArgumentError(
            f"layers are whole numbers from 0 to {count - 1}, at least one, not {wrong!r}",
            hint="such as [0, 1, 2], or --layers 0-2",
        )
    return tuple(sorted(set(found)))


def _finite(number: Any) -> bool:
    return isinstance(number, Real) and not isinstance(number, bool) and math.isfinite(number)


def synthesizer(generator: Generator, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return the function from w to pictures with feature maps in `dtype`, where `generator.synthesize` takes a dtype.

    Those of this library's StyleGANs do; any other generator draws in its own precision.
    """
    if dtype == torch.float32 or "dtype" not in signature(generator.synthesize).parameters:
        return generator.synthesize
    return partial(generator.synthesize, dtype=dtype)  # type: ignore[call-arg]


STORED_NOISE, RANDOM_NOISE, NO_NOISE = "const", "random", "none"
"""The noise that is stored with the weights; other noise for each picture; no noise."""


PIXEL_BATCH = 1 << 20
"""Pixels drawn together, unless a call says otherwise: 64 pictures of 128 x 128, one of 1024 x 1024."""


class NoisyGenerator(Generator, Protocol):
    """A generator whose pictures depend on noise as well; `noise_size` is above 0."""

    noise_size: int

    def synthesize(
        self, w: Tensor, noise: Literal["const", "none"] | Float[Tensor, "batch noise_size"] = "const"
    ) -> Tensor:
        """As for `Generator`; noise is that of the weights, none, or given, standard normal."""
        ...


def noise_size(generator: Generator) -> int:
    """Return how many numbers of noise a picture has; 0 for a generator without noise."""
    size = getattr(generator, "noise_size", 0)
    return size if isinstance(size, int) else 0


def check_noise(noise: str, generator: Generator) -> None:
    """Check that a generator can be drawn with a kind of noise.

    Raises:
        ArgumentError: it has no noise, so that only "const" makes sense.
    """
    if noise != STORED_NOISE and not noise_size(generator):
        raise ArgumentError(
            f"this {type(generator).__name__} adds no noise, so it cannot be drawn with noise {noise!r}",
            hint="leave out the noise; a StyleGAN2 or a FastGAN has some, as a rule",
        )


def noise_options(generator: Any, noise: str, seed: int, index: Sequence[int]) -> dict[str, Any]:
    """Return the arguments of `generator.synthesize` that draw pictures with a kind of noise.

    Args:
        generator: that `check_noise` accepts.
        noise: "const", "random" or "none".
        seed: of the run.
        index: numbers of the pictures in their run. Random noise of a picture depends on seed and number alone.
    """
    if noise != RANDOM_NOISE:
        return {} if noise == STORED_NOISE else {"noise": noise}
    rows = [normals(seed, number, 1, generator.noise_size, stream="noise") for number in index]
    return {"noise": torch.cat(rows).to(device_of(generator))}


def drawing(generator: Any, dtype: torch.dtype, noise: str, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function from w, and the numbers of the pictures in their run, (batch,), to pictures.

    The arguments are those of `synthesizer` and `noise_options`.
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
    """Yield w and the images of z (n, z_dim), batch by batch, in order; w is `encode(z)` unless it is given.

    A batch has `batch_size` pictures, by default as many as `PIXEL_BATCH` allows. `options` returns further arguments
    of `synthesize` for the rows of a batch.
    """
    size = batch_size or 1  # the first picture shows how many fit
    start = 0
    while start < len(z):
        with torch.inference_mode():  # inside the loop: it must not reach the code that takes the batches
            rows = slice(start, min(start + size, len(z)))
            drawn = encode(z[rows]) if w is None else w[rows]
            images = check_pictures(synthesize(drawn, **options(rows)))
        yield drawn, images
        start += size
        size = batch_size or max(1, PIXEL_BATCH // (images.shape[-1] * images.shape[-2]))
