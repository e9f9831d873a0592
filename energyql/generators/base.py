"""Interface of generators, the record `Family` of an architecture, drawing in batches, and a counter of calls."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
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

from energyql.errors import ArgumentError, EnergyQLError, either, misfit
from energyql.numerics.pool import always_in_pool
from energyql.numerics.pullback import Identity
from energyql.numerics.random import normals
from energyql.numerics.shapes import Float
from energyql.render.pictures import to_pictures

Condition = int | tuple[float, ...]
"""A condition of a conditional generator: the index of a class, or `c_dim` numbers."""
RANDOM: Literal["random"] = "random"
"""In place of a condition: a random class in each sample. Heads may be trained so; a query does not allow it."""


@runtime_checkable
class Generator(Protocol):
    """A map from Gaussian latents z to pictures, in two steps: `encode` maps z to w, `synthesize` maps w to pictures.

    A generator without an intermediate latent w returns `truncation * z` from `encode`, because the mean of z is 0.

    Attributes:
        z_dim: size of z.
    """

    z_dim: int

    def encode(self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0) -> Float[Tensor, "batch w_dim"]:
        """Map z (batch, z_dim) to w (batch, w_dim), the latent from which pictures are drawn.

        Args:
            z: standard normal numbers.
            truncation: psi, which pulls w toward its mean: the result is `mean + psi (w - mean)`; 1 changes nothing.
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
            truncation: psi, see `Generator`.
            condition: a row for each sample, (batch, c_dim), as a rule one-hot. Leaving it out may be an error.
        """


class ViewedGenerator(Generator, Protocol):
    """A generator that can reduce z to fewer numbers, from which attributes are easier to learn."""

    def features(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch features"]:
        """Return the features of z, (batch, features), which autograd can differentiate.

        They are the input of heads whose space is "features". If z has a number for each pixel of a picture, they may
        be the means of blocks of pixels.
        """


class DraftingGenerator(Generator, Protocol):
    """A generator that can draw pictures in less time if they may differ a little from those of `synthesize`."""

    def draft(self, w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch channels height width"]:
        """Return drafts: the pictures that `synthesize` would draw from w, up to rounding.

        The bits of a draft must not depend on the other pictures of the batch. Only programs see drafts: samplers whose
        energy is computed from pictures, and labellers. They are used only if the attribute `differentiable` of the
        generator is false.

        A generator that draws more pictures than it returns has a method `draft_calls(w)`, which returns their number.
        """


class PreviewingGenerator(Generator, Protocol):
    """A generator that can draw small pictures in less time, as a StyleGAN adds up pictures of growing size.

    Attributes:
        preview_sides: possible sides of previews, in pixels.
    """

    preview_sides: Sequence[int]

    def preview(self, w: Float[Tensor, "batch w_dim"], side: int) -> Float[Tensor, "batch channels side side"]:
        """Return previews: pictures in about [-1, 1] that show nearly what those of `synthesize` show.

        Args:
            side: width and height, in pixels, one of `preview_sides`.
        """


@runtime_checkable
class PromptedGenerator(Generator, Protocol):
    """A generator that draws pictures of a text, called prompt.

    Attributes:
        conditions: the prompts, if there are several: the class of a picture is an index in this tuple. Else ().
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
        description: optional; what another program needs to draw the pictures again, as JSON values. Results record it.
    """

    z_shape: tuple[int, ...] | Sequence[tuple[int, ...]]
    description: dict[str, Any]


@dataclass(frozen=True)
class Family:
    """An architecture of generators: what is needed to recognise, read, build and save a generator.

    Attributes:
        name: the value of `kind` in `config.json` of a model folder, such as "stylegan3".
        network: class of the generators, a torch module. `network(settings)` builds one, whose `config` is these
            settings.
        config: class of the settings, a dataclass with `z_dim` and `w_dim`. Its fields are saved in `config.json`.
        readers: full name of the module with the list `READERS`, "" for none; imported when a checkpoint is read. A
            reader is a function from a `Checkpoint`, the content of another program's file, to a generator, or to
            `None` if the file holds a network of another architecture.
        formats: names of the checkpoints that the readers accept, for messages, such as "FastGAN, projected GAN".
        truncation: default truncation psi of a model folder that is made from a checkpoint.
        weights: name of the file with the weights in a model folder.
        read: function from the path of the file of weights, and the settings, to a generator, whose method `save`
            writes the file. By default the file is one of safetensors, with the state dict of the network.
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
    """Whether a generator is a `ViewedGenerator`; a torch layer called `features` does not count."""
    return _method(generator, "features") is not None


def _method(generator: Generator, name: str) -> Callable[..., Any] | None:
    """A method of a generator by its name; `None` if it is missing, or is a torch layer."""
    method = getattr(generator, name, None)
    return method if callable(method) and not isinstance(method, torch.nn.Module) else None


def drafter(generator: Generator) -> Callable[..., Tensor] | None:
    """Method `draft` of a generator; `None` if it has none or is differentiable, since drafts may have no gradient."""
    return None if is_differentiable(generator) else _method(generator, "draft")


def preview_side(generator: Generator, least: int) -> int | None:
    """Side of the smallest previews of at least `least` pixels; `None` if a generator draws none.

    Raises:
        ArgumentError: its `preview_sides` are no numbers of pixels.
    """
    if _method(generator, "preview") is None:
        return None
    sides = getattr(generator, "preview_sides", ())
    if not isinstance(sides, Sequence) or not all(type(side) is int and side > 0 for side in sides):
        wrong = f"a {type(generator).__name__} has preview_sides {sides!r:.40}, which are no sides in pixels"
        raise ArgumentError(wrong, hint="such as (64, 128); or leave out its method preview")
    return min((side for side in sides if side >= least), default=None)


def draft_cost(generator: Generator) -> Callable[[Tensor], int]:
    """Function from w to the number of pictures that drafts of w cost: `draft_calls` of the generator, else `len`."""
    return (drafter(generator) and _method(generator, "draft_calls")) or len


def is_differentiable(generator: Generator) -> bool:
    """Whether autograd can differentiate the pictures: true, unless the attribute `differentiable` is false."""
    return bool(getattr(generator, "differentiable", True))


def show_pictures(generator: Generator, images: Float[Tensor, "batch channels height width"]) -> list[Image.Image]:
    """Return pictures of a generator as people see them; an `ArgumentError` is raised if they are none.

    A generator whose pictures are measurements, such as heights, may have a method `render` from them to pictures in
    [-1, 1]. Readers and judges of pictures get `images` unchanged.
    """
    render = _method(generator, "render")
    return to_pictures(images if render is None else check_pictures(render(images), "render"))


def head_reader(generator: Generator, space: str, encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the function from z (batch, z_dim) to the input of heads, the classifiers of attributes.

    Args:
        space: "w", "features" (see `ViewedGenerator`), "picture" (a batch of pictures), or anything else for z itself.
        encode: function from z to w, with truncation and condition already chosen.
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
    """Return any object unchanged if it can be used as a `Generator`; errors call it `name`.

    Raises:
        ArgumentError: it is a class, lacks an attribute or a method, has a method that takes other arguments (`encode`
            must take `condition` if `c_dim` is not 0), or has a `z_shape` that does not fit its `z_dim`.
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
    """Shapes of the noise of one picture, the attribute `z_shape` as a list; [] without it.

    An `ArgumentError` is raised if it is no shape or list of shapes, or has more numbers in total than z.
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
    """One shape, or several, as a list of shapes; [] if `shape` is neither, or takes more than `count` numbers."""
    shapes = [shape] if isinstance(shape, Sequence) and not any(isinstance(size, Sequence) for size in shape) else shape
    try:
        checked = [tuple(map(index, shape)) for shape in shapes]
    except TypeError:
        return []
    return checked if 1 <= sum(map(math.prod, checked)) <= count and min(map(min, checked)) >= 1 else []


def split_noise(w: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Split the noise with which w (batch, w_dim) begins: for each shape a tensor (batch, *shape)."""
    sizes = [*map(math.prod, shapes)]
    parts = w[:, : sum(sizes)].split(sizes, 1)
    return [part.reshape(len(w), *shape) for part, shape in zip(parts, shapes, strict=True)]


def block_means(noise: Float[Tensor, "batch *channels height width"], blocks: int) -> Float[Tensor, "batch features"]:
    """Means of the blocks of noise, scaled to unit variance, as features for heads.

    Each channel is divided into `blocks` x `blocks` blocks, or fewer where an axis is shorter than `blocks`.
    """
    height, width = noise.shape[-2:]
    pool = min(height, blocks), min(width, blocks)
    return math.sqrt(height * width / math.prod(pool)) * F.adaptive_avg_pool2d(noise.flatten(1, -3), pool).flatten(1)


def check_pictures(images: Any, name: str = "synthesize") -> Tensor:
    """Return the result of the method `name` of a generator; an `ArgumentError` unless it is floats with four axes."""
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim != 4:
        detail = f" of {images.dtype} and shape {tuple(images.shape)}" if hasattr(images, "dtype") else ""
        hint = "it must return a tensor of floats in [-1, 1] of shape (batch, 1 or 3, height, width)"
        problem = f"{name} returned a {type(images).__name__}{detail}, which is no batch of pictures"
        raise ArgumentError(problem, hint=hint)
    return images


def device_of(generator: Generator) -> torch.device | None:
    """Device of the first parameter or buffer of a generator; `None` if it has neither, or is no torch module."""
    module = generator if isinstance(generator, torch.nn.Module) else torch.nn.Module()
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), None)


def latent_size(generator: Generator, space: str) -> int | None:
    """Length of a row of the input of heads in a `space` (see `head_reader`); `None` if the generator states none."""
    if space == "features":
        z = torch.zeros(1, generator.z_dim, device=device_of(generator))
        with torch.no_grad():
            return head_reader(generator, space, Identity())(z).shape[1]
    name = "w_dim" if space == "w" else "z_dim"
    return cast("int | None", getattr(getattr(generator, "config", generator), name, None))


def class_count(generator: Generator) -> int:
    """Number of classes of a generator, which is `c_dim`, the length of a condition; 0 without classes."""
    count = getattr(generator, "c_dim", 0)
    return count if isinstance(count, int) else 0


def check_condition(condition: Any, generator: Generator) -> Condition | None:
    """Return a condition in the one form that is compared and saved: the index of a class, or a tuple of c_dim floats.

    Args:
        condition: the index of a class or its prompt; or c_dim numbers as a list, array or tensor, which become an
            index if they are one-hot. `None` for a generator without classes, and only then.

    Raises:
        ArgumentError: the condition is missing, not needed, or none of these.
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
    """Check the condition of the samples on which heads are trained: as `check_condition`, or "random" with classes."""
    if isinstance(condition, str) and condition == RANDOM and class_count(generator):
        return RANDOM
    return check_condition(condition, generator)


def condition_vector(condition: Condition | None, generator: Generator) -> Float[Tensor, " c_dim"] | None:
    """Return a condition as a vector (c_dim,) in float32, one-hot for the index of a class; `None` stays `None`."""
    check_single_condition(condition)
    if condition is None:
        return None
    if isinstance(condition, tuple):
        return torch.tensor(condition, dtype=torch.float32)
    return F.one_hot(torch.tensor(condition), class_count(generator)).float()


def check_condition_rows(condition: Tensor | None, count: int, classes: int) -> None:
    """Raise an `ArgumentError` unless a condition for `encode` is (count, classes), or `None` if `classes` is 0."""
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
    """Call `encode` under a condition: (c_dim,) for all samples, or (batch, c_dim); `None` without classes."""
    if condition is None:
        return generator.encode(z, truncation)
    return cast(ConditionalGenerator, generator).encode(z, truncation, condition.to(z).expand(len(z), -1))


def check_layers(layers: Any, generator: Generator) -> tuple[int, ...]:
    """Return the indices of layers in ascending order, without repetition; an `ArgumentError` if they are not such.

    A layer is a part of the generator that takes a w of its own: layer i takes row i of W+, a matrix (num_ws, w_dim).
    """
    count = getattr(getattr(generator, "config", None), "num_ws", None)
    if not isinstance(count, int):
        raise ArgumentError(f"a {type(generator).__name__} has no layers with a w of their own")
    indices = list(layers) if isinstance(layers, Iterable) and not isinstance(layers, str) else []
    wrong = [layer for layer in indices if type(layer) is not int or layer not in range(count)]
    if wrong or not indices:
        problem = f"layers are whole numbers from 0 to {count - 1}, at least one, not {(wrong or [layers])[0]!r}"
        raise ArgumentError(problem, hint=f"such as {either('[0, 1, 2]', '--layers 0-2')}")
    return tuple(sorted(set(indices)))


def _is_finite(number: Any) -> bool:
    return isinstance(number, Real) and not isinstance(number, bool) and math.isfinite(number)


def synthesizer(generator: Generator, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Function from w to pictures, with feature maps in `dtype` if `synthesize` of the generator takes a dtype."""
    if dtype == torch.float32 or "dtype" not in signature(generator.synthesize).parameters:
        return generator.synthesize
    return partial(generator.synthesize, dtype=dtype)  # type: ignore[call-arg]


Noise = Literal["const", "none"] | Tensor
"""Noise of a generator: "const", stored with the weights; "none"; or a tensor (batch, noise_size)."""
STORED_NOISE = "const"
"""Kind of noise: the noise that is stored with the weights, the same for each picture."""
RANDOM_NOISE = "random"
"""Kind of noise: new random noise for each picture."""
_log = logging.getLogger("energyql")
PIXEL_BATCH = 1 << 20
"""Default limit of the pixels in a batch of pictures: 64 pictures of 128 x 128, or one of 1024 x 1024."""
FIRST_BATCH = 4
"""Number of pictures that a GPU draws first, to see how much memory they take."""


class NoisyGenerator(Generator, Protocol):
    """A generator whose pictures depend on noise too.

    Attributes:
        noise_size: how many random numbers one picture takes as noise, above 0.
    """

    noise_size: int

    def synthesize(self, w: Tensor, noise: Noise = "const") -> Tensor:
        """Map w (batch, w_dim), the output of `encode`, to pictures in [-1, 1], (batch, channels, height, width).

        Args:
            w: latents.
            noise: "const" (stored with the weights), "none", or standard normal numbers (batch, noise_size).
        """


def noise_size(generator: Generator) -> int:
    """How many random numbers one picture takes as noise; 0 for a generator without noise."""
    size = getattr(generator, "noise_size", 0)
    return size if isinstance(size, int) else 0


def has_noise(network: torch.nn.Module) -> bool:
    """Whether noise changes the pictures of a network: some parameter called `noise_strength` is not 0."""
    return any(value.any() for name, value in network.named_parameters() if name.endswith("noise_strength"))


def check_noise_input(noise: Any, shape: tuple[int, int]) -> None:
    """Raise an `ArgumentError` unless `noise` is "const", "none" or a tensor of `shape`, (batch, noise_size)."""
    kind = tuple(noise.shape) if isinstance(noise, Tensor) else noise
    if kind not in ("const", "none", shape):
        raise ArgumentError(f'noise is "const", "none" or a tensor {shape}, not {kind!r}')


def check_noise(noise: str, generator: Generator) -> None:
    """Raise an `ArgumentError` if a generator without noise is to draw with another kind of noise than "const"."""
    if noise != STORED_NOISE and not noise_size(generator):
        problem = f"this {type(generator).__name__} adds no noise, so it cannot be drawn with noise {noise!r}"
        raise ArgumentError(problem, hint="leave out the noise; a StyleGAN2 or a FastGAN has some, as a rule")


def noise_options(generator: Any, noise: str, seed: int, index: Sequence[int]) -> dict[str, Any]:
    """Keyword arguments of `synthesize` for a batch with a kind of noise: "const", "random" or "none".

    `index` has the number of each picture in the run. Random noise depends only on it and the seed, not on the batch.
    """
    if noise != RANDOM_NOISE:
        return {} if noise == STORED_NOISE else {"noise": noise}
    rows = [normals(seed, number, 1, generator.noise_size, stream="noise") for number in index]
    return {"noise": torch.cat(rows).to(device_of(generator))}


def drawing(generator: Any, dtype: torch.dtype, noise: str, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Function by which a sampler draws the pictures from which it computes energies; drafts where possible.

    It takes w, and for each picture its number in the run, (batch,), on which random noise depends (`noise_options`).
    """
    draw = drafter(generator) or synthesizer(generator, dtype)
    return lambda w, rows: draw(w, **noise_options(generator, noise, seed, rows.tolist()))


def draw_batches(
    synthesize: Callable[..., Tensor],
    encode: Callable[[Tensor], Tensor],
    z: Tensor,
    batch_size: int | None = None,
    w: Tensor | None = None,
    options: Callable[[slice], dict[str, Any]] = lambda rows: {},
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw pictures for latents in batches, and yield w and pictures of each batch, in order.

    Args:
        synthesize: function from w to pictures, with the keyword arguments that `options` returns.
        batch_size: pictures in a batch; by default what fits (`fitting`), after a small first batch. If memory runs
            out, this and all later batches have half as many, and a log message says so once. On a CPU, each picture
            has the bits that one thread computes, if there is a picture for each thread.
        w: latents (n, w_dim), or W+ (n, num_ws, w_dim), to draw in place of `encode(z)`.
        options: function from the slice of the rows of z in a batch to keyword arguments.
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
                    option = either('device="cpu"', "--device cpu")
                    hint = f"close other programs on the device, or draw on the CPU: {option}"
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
    """Number of pictures to draw in one batch, at least 1: half of the free memory of a GPU, else `PIXEL_BATCH` pixels.

    `images` are the first pictures, `used` is the memory of the GPU before them in bytes, and `most` limits batches of
    a GPU.
    """
    if images.device.type != "cuda":
        return max(1, PIXEL_BATCH // (images.shape[-1] * images.shape[-2]))
    device = images.device
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free, peak = torch.cuda.mem_get_info(device)[0] + held, torch.cuda.max_memory_allocated(device) - used
    return min(most, max(1, len(images) * free // 2 // max(1, peak)))


def _watch_memory(device: torch.device) -> int:
    """Bytes in use on a CUDA device, whose peak is measured from now on; 0 on other devices."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)
