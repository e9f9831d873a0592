"""Starts of edits: seeds, latents, results, folders of saved results, or pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from energyql.editing.folder import SavedResult
from energyql.editing.latents import Latents, LatentSpace
from energyql.errors import ArgumentError
from energyql.files import refuse_special, what_is_there
from energyql.generators.base import RANDOM_NOISE
from energyql.pipeline.result import Result
from energyql.pipeline.settings import DEFAULT_NOISE, Noise, whole_number
from energyql.sampling import prior_latents

MOST_PIXELS = 1 << 26
"""Number of pixels of the largest picture that is read; it takes some hundred megabytes of memory."""
KINDS = "a seed, a list of seeds, latents (n, z_dim), a Result or its folder, or pictures (paths or PIL images)"
_SIDE = 1 << 12
"""Least side, in pixels, to which a larger JPEG is reduced while it is read; no generator draws larger pictures."""
_PROGRAMS = ("EPS",)
"""Formats that are refused, because they are programs, for which Pillow starts an interpreter."""

Picture = str | Path | Image.Image


Start = int | Sequence[int] | Tensor | npt.NDArray[Any] | Result | SavedResult | Picture | Sequence[Picture]
"""A seed, seeds, latents (n, z_dim), an earlier result or the folder that it was saved to, or pictures."""


@dataclass(frozen=True, eq=False)
class EditStart:
    """The start of an edit.

    Attributes:
        latents: latents of n pictures.
        index: the number of each picture in its run, (n,).
        facts: facts about the start, for the provenance of the edit.
        result: the `Result` that is edited; `None` for any other start.
    """

    latents: Latents
    index: npt.NDArray[np.int64]
    facts: dict[str, Any]
    result: Result | None = None


def as_pictures(start: object) -> list[Picture] | None:
    """Return the pictures of a start that is a picture or a list of pictures; `None` for any other start."""
    if isinstance(start, Picture):
        return [start]
    if isinstance(start, list | tuple) and start and all(isinstance(item, Picture) for item in start):
        return list(start)
    return None


def read_start(start: Any, n: int | None, space: LatentSpace) -> EditStart:
    """Return the start of an edit, from anything but pictures.

    Args:
        start: see `Start`.
        n: number of pictures, if `start` is one seed; by default 1.
        space: the latent space of the model.

    Raises:
        ArgumentError: `start` is no start of an edit, or does not fit the model; or `n` is given for another start.
    """
    model = space.model
    if n is not None and not _is_seed(start):
        raise ArgumentError("n is the number of samples of one seed", hint="leave it out for any other start")
    if isinstance(start, Result | SavedResult):
        _check_result(start, space)
        latents = space.from_w(start.z.to(model.device), start.w.to(model.device))
        result = start if isinstance(start, Result) else None
        return EditStart(latents, start.index, {"start": start.provenance}, result)
    size, several = model.generator.z_dim, isinstance(start, list | tuple) and bool(start)
    facts: dict[str, Any]
    if _is_seed(start) or (several and all(map(_is_seed, start))):
        count = whole_number("n", 1 if n is None else n)
        seeds = [whole_number("a seed", seed, least=0, most=2**64 - 1) for seed in (start if several else [start])]
        z = torch.cat([prior_latents(seed, 0, count, size) for seed in seeds])
        facts = {"seeds": seeds} if several else {"seed": seeds[0], "n": count}
    elif isinstance(start, Tensor | np.ndarray):
        z = _check_latents(start, size)
        facts = {"latents": len(z)}
    else:
        text = repr(start)
        text = text if len(text) <= 60 else f"{text[:57]}..."
        raise ArgumentError(f"an edit cannot start from {text}", hint=f"give {KINDS}")
    return EditStart(Latents(z.to(model.device)), np.arange(len(z)), {"start": facts})


def noise_of(start: Any, noise: Noise | None) -> tuple[Noise, int]:
    """Return the kind of noise of an edit, and the seed of random noise.

    Args:
        start: see `Start`.
        noise: the kind of noise; by default that of the start, or "const".

    Raises:
        ArgumentError: the pictures of the start have different kinds of noise, or random noise of several seeds.
    """
    facts = start.provenance if isinstance(start, Result | SavedResult) else {}
    kind = noise or facts.get("noise", DEFAULT_NOISE)
    seed = facts.get("seed", start if _is_seed(start) else 0)
    several = isinstance(seed, list)
    if isinstance(kind, list) or (kind == RANDOM_NOISE and several):
        raise ArgumentError(
            "the result was joined from runs of different noise", hint='edit them one by one, or with noise="const"'
        )
    return kind, 0 if several else seed


def open_picture(picture: Picture) -> Image.Image:
    """Read a picture, turn it upright, and convert it to RGB.

    Args:
        picture: a path or a PIL image.

    Raises:
        ArgumentError: there is no such file, or it is no picture, or too large.
    """
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if os.path.isdir(picture):
        raise ArgumentError(f"{picture} is a folder, not a picture", hint="name a picture in it")
    refuse_special(Path(picture), ArgumentError)
    try:
        Image.init()
        with Image.open(picture, formats=[name for name in Image.ID if name not in _PROGRAMS]) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                opened.draft("RGB", (_SIDE, _SIDE))  # reduces a JPEG only
            if opened.width * opened.height > MOST_PIXELS:
                raise ArgumentError(
                    f"{picture} is too large: {opened.width} x {opened.height} pixels",
                    hint=f"make it smaller; at most {MOST_PIXELS >> 20} million pixels are read",
                )
            ImageOps.exif_transpose(opened, in_place=True)
            opened.load()
            colours: Image.Image = opened if opened.mode == "RGB" else opened.convert("RGB")
            return colours
    except FileNotFoundError:
        path = Path(picture)
        hint = what_is_there(path) if path.suffix else "name its file; `edit` takes what to edit first, then queries"
        raise ArgumentError(f"there is no picture {picture}", hint=hint) from None
    except ArgumentError:
        raise
    except Exception as error:  # each format of Pillow raises its own errors
        raise ArgumentError(
            f"cannot read {picture} as a picture: {str(error) or type(error).__name__}",
            hint="give a PNG, JPEG, WebP or another picture of pixels",
        ) from error


def as_images(pictures: Sequence[Image.Image], like: Tensor) -> Tensor:
    """Return RGB pictures as a tensor (n, channels, height, width) in [-1, 1].

    They are cropped around the centre and resized to the shape of `like`, images of the generator, whose type
    and device the tensor has.
    """
    channels, height, width = like.shape[1:]
    rows = []
    for picture in pictures:
        fitted = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
        array = np.asarray(fitted if channels == 3 else fitted.convert("L"), np.float32).reshape(height, width, -1)
        rows.append(torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1))
    return torch.stack(rows).to(like)


def _is_seed(start: object) -> bool:
    return isinstance(start, Integral) and not isinstance(start, bool)


def _check_latents(start: Tensor | npt.NDArray[Any], size: int) -> Tensor:
    try:
        z = torch.as_tensor(start).detach()
    except TypeError as error:
        raise ArgumentError(f"latents must be numbers: {error}") from error
    z = z[None] if z.ndim == 1 else z
    if z.ndim != 2 or z.shape[1] != size or not len(z) or not z.is_floating_point():
        raise ArgumentError(
            f"start latents must be z, floating point of shape (n, {size}), not {tuple(start.shape)}",
            hint="of a w, give the Result that holds it, or the picture",
        )
    if not z.isfinite().all():
        raise ArgumentError("start latents must be finite", hint="leave out samples with NaN or infinity")
    return z.float()


def _check_result(start: Result | SavedResult, space: LatentSpace) -> None:
    if not len(start.z):
        raise ArgumentError(
            "an edit cannot start from a result without pictures", hint="give a result with at least one sample"
        )
    theirs, ours = (facts.get("generator") for facts in (start.provenance["fingerprints"], space.model.fingerprints))
    if theirs != ours or start.z.shape[1] != space.model.generator.z_dim:
        raise ArgumentError(
            f"the result was made by another model, {start.provenance['model']!r}",
            hint="name that model, or give the pictures themselves, start=result.images",
        )
