"""Pictures of a user: reading them, as tensors, and features of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.files import check_file, what_is_there

MOST_PIXELS = 1 << 26
"""Most pixels of a picture that is read; such a picture takes some hundred megabytes of memory."""
_SIDE = 1 << 12
"""Least side in pixels to which a larger JPEG is reduced while it is read; no generator draws larger pictures."""
_PROGRAMS = ("EPS",)
"""Formats that are refused: their files are programs, and Pillow starts an interpreter for them."""

Picture = str | Path | Image.Image
"""A picture, or the path of its file."""
Embed = Callable[[Tensor], Tensor]
"""Function from pictures in [-1, 1], (batch, channels, height, width), to numbers that describe them, (batch, ...)."""


def as_pictures(start: object) -> list[Picture] | None:
    """One or several pictures as a list; `None` for any other start of an edit, and for an empty list."""
    if isinstance(start, Picture):
        return [start]
    if isinstance(start, list | tuple) and start and all(isinstance(item, Picture) for item in start):
        return list(start)
    return None


def open_picture(picture: Picture) -> Image.Image:
    """Open a picture as a PIL image in RGB; a file is turned upright as its EXIF data say.

    Raises:
        ArgumentError: the file does not exist, is no picture, or has too many pixels.
    """
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    path = Path(picture)
    if not os.path.exists(path):
        hint = what_is_there(path) if path.suffix else "name its file; `edit` takes what to edit first, then queries"
        raise ArgumentError(f"there is no picture {picture}", hint=hint)
    check_file(path, kind=ArgumentError)
    try:
        Image.init()
        with Image.open(picture, formats=[name for name in Image.ID if name not in _PROGRAMS]) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                opened.draft("RGB", (_SIDE, _SIDE))  # reduces a JPEG only
            if opened.width * opened.height > MOST_PIXELS:
                hint = f"make it smaller; at most {MOST_PIXELS >> 20} million pixels are read"
                raise ArgumentError(f"{picture} is too large: {opened.width} x {opened.height} pixels", hint=hint)
            ImageOps.exif_transpose(opened, in_place=True)
            return opened.convert("RGB")
    except ArgumentError:
        raise
    except Exception as error:  # each format of Pillow raises its own errors
        problem = f"cannot read {picture} as a picture: {str(error) or type(error).__name__}"
        raise ArgumentError(problem, hint="give a PNG, JPEG, WebP or another picture of pixels") from error


def as_images(pictures: Sequence[Image.Image], like: Tensor) -> Tensor:
    """RGB pictures as one tensor in [-1, 1], (n, channels, height, width).

    They are cropped around the centre and resized to the size of `like`, (1, channels, height, width); with one channel
    they become grey.
    """
    channels, height, width = like.shape[1:]
    rows = []
    for picture in pictures:
        fitted = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
        array = np.asarray(fitted if channels == 3 else fitted.convert("L"), np.float32).reshape(height, width, -1)
        rows.append(torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1))
    return torch.stack(rows).to(like)


def flat_features(embed: Embed, images: Tensor) -> Tensor:
    """Features of each picture as one row, (batch, features).

    Raises:
        ArgumentError: `embed` returns no tensor of at least two dimensions with a row for each picture.
    """
    features = embed(images)
    if not isinstance(features, Tensor) or features.ndim < 2 or len(features) != len(images):
        shape = f" of shape {tuple(features.shape)}" if isinstance(features, Tensor) else ""
        wrong = f"{type(features).__name__}{shape}"
        raise ArgumentError(f"an embedding module must return a tensor (batch, features), not {wrong}")
    return features.flatten(1)
