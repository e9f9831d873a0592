"""Pipelines of the library diffusers as generators: z is the noise that a call of the pipeline draws by `torch.randn`.

A pipeline draws the noise with which it starts, and with some schedulers more noise in each step. All of these numbers
are z, so a picture is a function of z alone. During a call, `torch.randn` returns parts of z (`replay`).
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from energyql.errors import ArgumentError, EnergyQLError, ModelError, either, first_line
from energyql.files import as_path, real_path, refuse_code
from energyql.generators.base import Family, block_means, check_condition_rows, split_noise
from energyql.numerics.random import normals
from energyql.plugins import import_optional, without_bars
from energyql.vocabulary import closest

INDEX = "model_index.json"
"""File that every folder of a pipeline has."""
HUB = "hub:"
"""Start of the name of a pipeline on a hub: `hub:owner/name` or `hub:owner/name@revision`."""
_HUB_NAME = re.compile(r"hub:(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w.-]+))?")
_NEED = "a pipeline needs diffusers and transformers"
_INSTALL = 'pip install "diffusers>=0.42,<1" "transformers>=5" "accelerate>=1"'
_OWN = (
    "latents", "generator", "output_type", "return_dict", "batch_size", "num_images_per_prompt", "callback",
    "callback_steps", "callback_on_step_end", "callback_on_step_end_tensor_inputs",
)  # fmt: skip
"""Arguments of a pipeline's call that `PipelineGenerator` sets, and a user cannot."""
_CONDITIONS = ("prompt", "class_labels")
"""Arguments of a pipeline's call that say what a picture shows; a list of values makes a generator with classes."""
_PICTURES = ("image", "mask_image", "control_image", "reference_image")
"""Arguments of a pipeline's call that are pictures with which it starts, and not numbers that it draws."""
_ONE_CALL = threading.RLock()
"""Held during a call of a pipeline: a tokenizer keeps the padding of its last call, also for other threads."""
_LEVEL = 2 / 255
"""Distance of two grey levels in [-1, 1]; pictures count as equal if no pixel differs by more."""
_DRAFT_SIZES, _DRAFT_PIXELS = (8, 4, 2, 1), 1 << 17
"""Numbers of pictures that `PipelineGenerator.draft` may draw in a call on a CPU; largest number of their pixels."""
_SIDES, _MOST_FEATURES = (8, 4, 2, 1), 1024
"""Possible numbers of blocks of noise along an axis, tried in turn; largest number of their means, features of z."""


class _Draws(TorchFunctionMode):
    """Context in which `torch.randn` and `torch.randn_like` return `answer` of an empty tensor of their shape."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        blank: Any = {torch.randn: torch.empty, torch.randn_like: torch.empty_like}.get(func)
        options = dict(kwargs or {})
        if blank is None:
            return func(*args, **options)
        options.pop("generator", None)
        return self.answer(blank(*args, **options))


@contextmanager
def replay(noise: Sequence[Tensor]) -> Iterator[None]:
    """Make `torch.randn` return given noise in a `with` block, so that a pipeline draws the picture of this noise.

    The picture of a `Result` is drawn again by `with replay(result.step_noise): pipe(..., latents=result.noise)`. If
    the pipeline takes no argument `latents`, the list of noise is `[result.noise, *result.step_noise]`.

    Args:
        noise: the tensors that `torch.randn` and `torch.randn_like` return, in the order of their calls.

    Raises:
        ArgumentError: `torch.randn` is called for another shape, or more or less often than there is noise.
    """
    rest = list(noise)

    def answer(blank: Tensor) -> Tensor:
        if not rest or rest[0].shape != blank.shape:
            given = f"{tuple(rest[0].shape)} is next" if rest else "no more noise was given"
            raise ArgumentError(f"noise of the shape {tuple(blank.shape)} is drawn, but {given}")
        return rest.pop(0).to(blank)

    with _Draws(answer):
        yield
    if rest:
        raise ArgumentError(f"of {len(noise)} tensors of noise, {len(rest)} were not drawn")


class PipelineGenerator(nn.Module):
    """A pipeline of diffusers that draws pictures, as a generator without a mapping network.

    z has for each picture the noise with which the pipeline starts, and then the noise of the steps. w is z, scaled by
    the truncation; with several conditions, a one-hot vector that chooses one follows. When the generator is made, it
    draws two pictures, to see what noise the pipeline draws, and whether the noise decides on the picture.

    On a CPU each picture is drawn by a call of its own, so that it has the bits of a user's own call, in any batch;
    drafts are drawn several in a call, in numbers that give the same bits. On other devices the pictures of a batch are
    drawn together, and numbers may round differently in batches of other sizes.

    Args:
        pipeline: the pipeline. Its networks are used and put into evaluation mode; its scheduler is copied.
        call: arguments of its call, such as `num_inference_steps`, as values that JSON can express. If `prompt` or
            `class_labels` is a list, the generator has a class for each element.

    Attributes:
        z_shape: shapes of the noise of one picture, in the order in which it is drawn. The first one is that of the
            pipeline's argument `latents`, if there is such an argument.
        size: height and width of the pictures.
        description: pipeline, scheduler, all arguments of the call, size of the pictures, and version of diffusers.
        conditions: the values of `prompt` or `class_labels` if it is a list, else ().
        differentiable: false, because pipelines compute no gradients.

    Raises:
        ArgumentError: the object is no pipeline of pictures, does not take the arguments, or the noise that it draws by
            `torch.randn` does not decide on the picture.
    """

    differentiable = False

    def __init__(self, pipeline: Any, call: Mapping[str, Any]) -> None:
        super().__init__()
        self.kind = type(pipeline).__name__
        diffusers = _library()
        if not isinstance(pipeline, diffusers.DiffusionPipeline):
            raise ArgumentError(f"a {self.kind} is neither the path of a generator nor a pipeline of diffusers")
        if not hasattr(pipeline, "scheduler"):
            raise self._unsupported("it has no scheduler")
        self._arguments = inspect.signature(type(pipeline).__call__).parameters
        self.call = self._check_call(call)
        self.conditions: tuple[Any, ...] = ()
        self._condition = next((name for name in _CONDITIONS if name in self.call), "")
        if isinstance(several := self.call.get(self._condition), list):
            self.conditions = tuple(several)
        self.c_dim = len(self.conditions)
        for name, part in pipeline.components.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
        self.eval()
        self._pipeline = _with_own_state(pipeline)
        self._pipeline.set_progress_bar_config(disable=True)
        self._takes_latents = False
        self.z_shape, dtype, self.size = self._probe()
        self.z_dim = sum(map(math.prod, self.z_shape))
        self.w_dim = self.z_dim + self.c_dim
        with suppress(AttributeError, TypeError, ValueError, RuntimeError):  # noise of another form has no features
            self._block_means(torch.zeros(1, self.z_dim))
            self.features = self._block_means
        scheduler = {name: value for name, value in pipeline.scheduler.config.items() if not name.startswith("_")}
        settings = json.loads(json.dumps(scheduler, default=str))  # tuples as lists, and what JSON lacks as text
        scalars = (bool, int, float, str)
        defaults = {name: item.default for name, item in self._arguments.items() if type(item.default) in scalars}
        self.description: dict[str, Any] = {
            "pipeline": self.kind,
            "scheduler": {"name": type(pipeline.scheduler).__name__, "settings": settings},
            "call": {name: value for name, value in (defaults | self.call).items() if name not in _OWN},
            "size": self.size, "dtype": dtype, "diffusers": diffusers.__version__,
        }  # fmt: skip

    def get_extra_state(self) -> Tensor:
        """Bytes of the settings for the state dict, so that the fingerprint of the generator depends on them too."""
        facts = {name: value for name, value in self.description.items() if name != "diffusers"}
        text = json.dumps(facts | {"z_shape": self.z_shape}, sort_keys=True)
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    def encode(self, z: Tensor, truncation: float = 1.0, condition: Tensor | None = None) -> Tensor:
        """Return w, (batch, w_dim): z (batch, z_dim), scaled by the truncation, and the condition.

        Args:
            z: standard normal numbers.
            truncation: factor of the noise.
            condition: one-hot rows, (batch, c_dim); `None` for a generator without classes.

        Raises:
            ArgumentError: z has another size, or the condition is missing, is not one-hot, or has a wrong shape.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            shapes = " and ".join(map(str, self.z_shape))
            problem = f"z has the shape {tuple(z.shape)}, and this generator takes (batch, {self.z_dim})"
            raise ArgumentError(problem, hint=f"a row is the noise of one picture, of {shapes} numbers")
        check_condition_rows(condition, len(z), self.c_dim)
        if condition is None:
            return truncation * z
        if not ((condition == 0) | (condition == 1)).all() or not (condition.sum(1) == 1).all():
            problem = "a picture has one prompt or class, so a condition cannot mix several"
            raise ArgumentError(problem, hint="give a number")
        return torch.cat([truncation * z, condition], 1)

    def under(self, prompt: str) -> PipelineGenerator:
        """Return a generator with another prompt and the same networks; this generator itself for its own prompt.

        Raises:
            ArgumentError: the pipeline takes no prompt, or the generator chooses among several.
        """
        if not isinstance(own := self.call.get("prompt"), str):
            raise ArgumentError(f"this {self.kind} has no single prompt, so it takes no other, such as {prompt!r}")
        if prompt == own:
            return self
        other = copy.copy(self)
        other.__dict__.pop("_draft_sizes", None)
        other.call = self.call | {"prompt": prompt}
        other.description = self.description | {"call": self.description["call"] | {"prompt": prompt}}
        return other

    def synthesize(self, w: Tensor) -> Tensor:
        """Return the pictures of w (batch, w_dim) in [-1, 1], (batch, channels, height, width), without gradients.

        The pipeline's own call draws them, in its own precision. Its numbers x in [0, 1] become 2 x - 1.

        Raises:
            ArgumentError: the pipeline draws other noise than when the generator was made.
        """
        return self._pictures(w, None if w.device.type != "cpu" and self._counted else (1,))

    def draft(self, w: Tensor) -> Tensor:
        """Return the pictures of w, equal to those of `synthesize` up to rounding; small pictures take less time.

        On a CPU, a call of the pipeline draws several pictures, in numbers (of 8, 4, 2 and 1) that give the same bits;
        copies fill up a call if need be. If the bits of a picture depend on the others in its call, each is drawn
        alone. The first call of this method tests both with 31 pictures, which belong to no run.
        """
        return self._pictures(w, self._draft_sizes) if w.device.type == "cpu" else self.synthesize(w)

    def draft_calls(self, w: Tensor) -> int:
        """Return how many pictures `draft` sends through the networks for w: those of w, and copies that fill up."""
        sizes = self._draft_sizes if w.device.type == "cpu" else None
        return sum(size for _, size, _ in self._groups(w, sizes))

    @cached_property
    def _draft_sizes(self) -> tuple[int, ...]:
        """Possible numbers of pictures in a call of `draft`, the largest first; (1,) if they influence each other."""
        sizes = [size for size in _DRAFT_SIZES if size * math.prod(self.size) <= _DRAFT_PIXELS]
        if len(sizes) < 2 or not self._counted:
            return (1,)
        most = sizes[0]
        w = torch.zeros(most, self.w_dim)
        w[:, : self.z_dim] = normals(0, 0, most, self.z_dim, stream="draft")
        pictures, others = self._pictures(w, (most,)), self._pictures(w.roll(1, 0), (most,)).roll(-1, 0)
        copies = self._pictures(w[:1].expand(most, -1), (most,))
        if not torch.equal(pictures, others) or not torch.equal(pictures[:1].expand_as(copies), copies):
            return (1,)
        return tuple(
            size for size in sizes if size == most or torch.equal(self._pictures(w[:size], (size,)), pictures[:size])
        )

    def _groups(self, w: Tensor, sizes: Sequence[int] | None) -> Iterator[tuple[list[int], int, int]]:
        """For each call of the pipeline: its rows of w, the number of its pictures with copies, and its condition.

        `sizes` are the numbers of pictures that a call may draw, the largest first; `None` for all of a condition.
        """
        numbers = w[:, self.z_dim :].argmax(1).tolist() if self.c_dim else [0] * len(w)
        for number in sorted(set(numbers)):
            rows = [row for row, own in enumerate(numbers) if own == number]
            while rows:
                size = len(rows) if sizes is None else next((size for size in sizes if size <= len(rows)), sizes[-1])
                yield rows[:size], size, number
                rows = rows[size:]

    def _pictures(self, w: Tensor, sizes: Sequence[int] | None) -> Tensor:
        """Pictures of w, drawn in the groups of `_groups`."""
        noise, pictures = split_noise(w.detach(), self.z_shape), dict[int, Tensor]()
        for rows, size, number in self._groups(w, sizes):
            full = rows + rows[-1:] * (size - len(rows))
            drawn = self._draw([part[full] for part in noise], number)
            pictures |= zip(rows, drawn, strict=False)  # without the copies
        return torch.stack([pictures[row] for row in range(len(w))])

    def _block_means(self, z: Tensor) -> Tensor:
        """Features of z: means of at most 8 x 8 blocks of the noise in each channel, with variance 1."""
        noise = split_noise(z, self.z_shape)
        for number, part in enumerate(noise):
            if part.ndim == 3:
                noise[number] = self._pipeline._unpack_latents(part, *self.size, self._pipeline.vae_scale_factor)
        means = list[Tensor]()
        for side in _SIDES:
            means = [block_means(part, side) for part in noise]
            if sum(part.shape[1] for part in means) <= _MOST_FEATURES:
                break
        return torch.cat(means, 1)

    @property
    def _counted(self) -> bool:
        """Whether one call of the pipeline can draw several pictures under one condition."""
        return "class_labels" in self.call or not {"batch_size", "num_images_per_prompt"}.isdisjoint(self._arguments)

    def _check_call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the pipeline's call as JSON values; `condition` becomes `prompt` (texts) or `class_labels`."""
        call = dict(call)
        if (condition := call.pop("condition", None)) is not None:
            first = condition[0] if isinstance(condition, list | tuple) and condition else condition
            name = "prompt" if isinstance(first, str) else "class_labels"
            if name in call:
                raise ArgumentError(f"condition and {name} are one argument, and both are given", hint="leave out one")
            call[name] = condition
        possible = [name for name in self._arguments if name not in ("self", *_OWN)]
        for name in call:
            if name in _OWN:
                hint = "leave it out"
                raise ArgumentError(f"{name!r} cannot be given for a {self.kind}: it is set for each call", hint=hint)
            if name not in possible:
                near = closest(name, possible)
                hint = f"did you mean {near}?" if near else f"possible are {', '.join(possible)}"
                raise ArgumentError(f"{name!r} cannot be given for a {self.kind}", hint=hint)
        try:
            checked: dict[str, Any] = json.loads(json.dumps(call, allow_nan=False))
        except (TypeError, ValueError) as error:
            hint = "give texts, numbers and lists of them, so that the call can be recorded"
            raise ArgumentError(f"the arguments of a pipeline cannot be recorded: {error}", hint=hint) from None
        if [] in checked.values():
            raise ArgumentError("an argument of a pipeline is an empty list", hint="leave it out")
        prompts = checked.get("prompt")
        if isinstance(prompts, list) and not all(isinstance(prompt, str) for prompt in prompts):
            raise ArgumentError("the prompts of a pipeline are not all texts", hint="give a text, or a list of texts")
        return checked

    @property
    def _needed_picture(self) -> str | None:
        """Argument of the call that must be a picture; `None` if there is none."""
        for name in _PICTURES:
            if (argument := self._arguments.get(name)) is not None:
                # Many pipelines have `image: Image = None`, and an error for None; optional is `Image | None = None`.
                may_be_none = any(word in str(argument.annotation) for word in ("None", "Optional", "_empty"))
                if argument.default is argument.empty or not may_be_none:
                    return name
        return None

    def _unsupported(self, reason: str) -> ArgumentError:
        hint = "pipelines that draw pictures from a text, from a class or from nothing are supported (docs/noise.md)"
        return ArgumentError(f"a {self.kind} is no generator that energyql supports: {reason}", hint=hint)

    @torch.no_grad()
    def _draw(self, noise: Sequence[Tensor], number: int) -> Tensor:
        """Draw pictures under condition `number` by one call; `noise` has a tensor (batch, *shape) for each shape."""
        latents, rest = ({}, noise)
        if self._takes_latents:
            latents, rest = {"latents": noise[0].to(self._latents_dtype)}, noise[1:]
        with replay(rest):
            return self._called(_with_own_state(self._pipeline), len(noise[0]), number, **latents)

    def _called(self, pipeline: Any, count: int, number: int, **latents: Tensor) -> Tensor:
        """Call a copy of the pipeline, and return `count` pictures in [-1, 1] under the condition `number`."""
        call = self.call | latents | {"output_type": "pt"}
        if self.conditions:
            call[self._condition] = self.conditions[number]
        if "class_labels" in call:
            call["class_labels"] = [call["class_labels"]] * count
        if "batch_size" in self._arguments:
            call["batch_size"] = count
        elif "num_images_per_prompt" in self._arguments:
            call["num_images_per_prompt"] = count
        try:
            with _ONE_CALL:
                images = getattr(pipeline(**call), "images", None)
        except (EnergyQLError, torch.cuda.OutOfMemoryError):  # after the latter, the batch is halved
            raise
        except Exception as error:
            if name := self._needed_picture:
                raise self._unsupported(f"it starts from a picture, {name!r}") from error
            problem = f"the call of a {self.kind} failed: {type(error).__name__}: {error}"
            raise ArgumentError(problem, hint=f"it was called with {', '.join(sorted(call))}") from error
        if isinstance(images, np.ndarray) and images.ndim == 4:  # of an older pipeline, in [0, 1] too
            images = torch.from_numpy(images).movedim(3, 1)
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise self._unsupported("its call returns no pictures of one or three channels")
        return 2 * images.float() - 1

    @torch.no_grad()
    def _probe(self) -> tuple[list[tuple[int, ...]], str, list[int]]:
        """Shapes and dtype of the pipeline's noise, and size of its pictures, recorded from a first call.

        A second call with the same noise must give the same picture, which shows that the noise decides on it.
        """
        source, drawn, starts = torch.Generator().manual_seed(0), list[Tensor](), list[Tensor]()

        def answer(blank: Tensor) -> Tensor:
            drawn.append(torch.randn(blank.shape, generator=source).to(blank))
            return drawn[-1]

        pipeline = _with_own_state(self._pipeline)
        step, name = pipeline.scheduler.step, type(pipeline.scheduler).__name__

        @wraps(step)  # a pipeline looks at the signature
        def watched(*args: Any, **options: Any) -> Any:
            sample: Any = options.get("sample", args[2] if len(args) > 2 else None)
            if not starts and isinstance(sample, Tensor):
                starts.append(sample.clone())
            return step(*args, **options)

        pipeline.scheduler.step = watched
        with _Draws(answer):
            picture = self._called(pipeline, 1, 0)
        if not drawn:
            raise self._unsupported("its latent is not Gaussian, or is not drawn by torch.randn")
        if strange := [tuple(noise.shape) for noise in drawn if len(noise) != 1]:
            raise self._unsupported(f"with {name}, it draws noise of the shape {strange[0]} for one picture")
        dtype = drawn[0].dtype
        self._latents_dtype = dtype
        # The noise in the shape of the argument `latents`, which may be another one: Flux packs it into sequences.
        numbers = sorted(drawn[0].flatten().tolist())
        packed = [start for start in starts if sorted(start.flatten().tolist()) == numbers]
        tries = [(True, noise) for noise in (*packed, drawn[0])] if "latents" in self._arguments else []
        what = ""
        for self._takes_latents, first in [*tries, (False, drawn[0])]:
            try:
                again = self._draw([first, *drawn[1:]], 0)
            except ArgumentError as error:
                what = error.message
                continue
            if (again - picture).abs().max() <= _LEVEL:
                shapes = [tuple(noise.shape[1:]) for noise in (first, *drawn[1:])]
                return shapes, str(dtype).removeprefix("torch."), list(picture.shape[2:])
            what = "the same noise gives another picture"
        hint = (
            "give class_labels if it has classes; else use a scheduler with noise by torch.randn, such as Euler or LCM"
        )
        raise ArgumentError(f"a {self.kind} with {name} cannot be replayed: {what}", hint=hint)


def _with_own_state(pipeline: Any) -> Any:
    """Copy of a pipeline with the same networks and a scheduler of its own, so that calls do not interfere."""
    own = copy.copy(pipeline)
    own.scheduler = copy.deepcopy(pipeline.scheduler)
    return own


@dataclass(frozen=True)
class PipelineConfig:
    """The settings from which a model folder loads a pipeline of diffusers, whose weights are outside the folder.

    Attributes:
        pipeline: path of the pipeline's folder, or its name on a hub, `hub:owner/name`.
        call: arguments of its call, such as `{"num_inference_steps": 4}`.
    """

    pipeline: str
    call: dict[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.pipeline, str) or not isinstance(self.call, dict):
            raise ValueError("pipeline is a text, and call an object")


class StoredPipeline(PipelineGenerator):
    """A pipeline that is read from a folder, or from the cache of a hub. Nothing is downloaded, and no code is run.

    Raises:
        ModelError: the folder is missing or damaged, or holds weights that are no safetensors, or code.
        ArgumentError: diffusers is not installed, or `PipelineGenerator` cannot use the pipeline or its arguments.
    """

    def __init__(self, config: PipelineConfig) -> None:
        super().__init__(_read_pipeline(config.pipeline), config.call)
        self.config = config


FAMILY = Family("diffusers", StoredPipeline, PipelineConfig, outside=True, truncation=1.0)


def is_pipeline(source: object) -> bool:
    """Whether `source` is a pipeline of diffusers, the path of a folder with one, or its name on a hub."""
    if not isinstance(source, str | os.PathLike):
        return callable(source) and hasattr(source, "components")
    return str(source).startswith(HUB) or os.path.isfile(os.path.join(source, INDEX))


def open_pipeline(source: Any, call: Mapping[str, Any]) -> PipelineGenerator:
    """Return a pipeline of diffusers as a generator; errors are those of `StoredPipeline`, or of a download.

    Args:
        source: the pipeline, the path of its folder, or its name on a hub, `hub:owner/name`. Files of a hub that are
            not in the cache are downloaded: safetensors and JSON, but no code.
    """
    if not isinstance(source, str | os.PathLike):
        return PipelineGenerator(source, call)
    place = str(source)
    if place.startswith(HUB):
        _downloaded(place, local_files_only=False)
    else:
        place = str(real_path(as_path(source)))
    return StoredPipeline(PipelineConfig(place, dict(call)))


def _library() -> Any:
    return import_optional("diffusers", _NEED, _INSTALL)


def _downloaded(place: str, *, local_files_only: bool) -> Path:
    """Folder of a pipeline `hub:owner/name[@revision]` in the cache of the hub, after a download if that is allowed."""
    match = _HUB_NAME.fullmatch(place)
    if match is None:
        raise ArgumentError(f"{place!r} is no name of a pipeline on a hub", hint="such as hub:owner/name")
    options = {"use_safetensors": True, "local_files_only": local_files_only, "revision": match["revision"]}
    try:
        return Path(_library().DiffusionPipeline.download(match["name"], **options))
    except (OSError, ValueError, RuntimeError) as error:
        downloads = f"{either(f'load_generator({place!r})', f'energyql convert {place}')} downloads it"
        hint = downloads if local_files_only else "see to its name and to HF_TOKEN"
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise ModelError(f"there is no pipeline {place}: {problem}", hint=hint) from error


def _read_pipeline(place: str) -> Any:
    """Read the pipeline of a folder, or of the cache of a hub; code, and weights in pickles, are an error."""
    library = _library()
    folder = _downloaded(place, local_files_only=True) if place.startswith(HUB) else as_path(place)
    if not (folder / INDEX).is_file():
        moved = "load it from where it is now: load_model(..., generator=load_generator(FOLDER, ...))"
        hint = either(moved, "move it back, or make the model folder again: energyql convert")
        raise ModelError(f"there is no pipeline at {folder}: it has no {INDEX}", hint=hint)
    refuse_code(folder)
    try:
        with without_bars(library, import_optional("transformers", _NEED, _INSTALL)):
            return library.DiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except Exception as error:
        hint = "pipe.save_pretrained(FOLDER) of diffusers writes such folders"
        problem = f"{type(error).__name__}: {first_line(error)}"  # of a KeyError the message is only a name
        raise ModelError(f"cannot read the pipeline {folder}: {problem}", hint=hint) from error
