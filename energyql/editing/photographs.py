"""Pictures from files, as generators draw them: square, in [-1, 1]."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from energyql.errors import ArgumentError

Picture = str | Path | Image.Image
MOST_PIXELS = 1 << 27
"""Of a picture that is read; a larger one is probably no photograph."""


def open_picture(picture: Picture) -> Image.Image:
    """A picture in memory, upright, RGB.

    Raises:
        ArgumentError: there is no such file, or it is no picture.
    """
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if os.path.isdir(picture):
        raise ArgumentError(f"{picture} is a folder, not a picture")
    try:
        with Image.open(picture) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ArgumentError(f"{picture} is too large: {opened.width} x {opened.height} pixels")
            return ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError:
        raise ArgumentError(f"there is no picture {picture}") from None
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ArgumentError(f"cannot read {picture} as a picture: {error}") from error


def as_images(pictures: Sequence[Image.Image], like: Tensor) -> Tensor:
    """Pictures as a generator's: cut to the shape from the middle, resized, in [-1, 1].

    Args:
        pictures: RGB.
        like: what the generator draws, (batch, channels, height, width).
    """
    channels, height, width = like.shape[1:]
    rows = []
    for picture in pictures:
        fitted = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
        array = np.asarray(fitted if channels == 3 else fitted.convert("L"), np.float32).reshape(height, width, -1)
        rows.append(torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1))
    return torch.stack(rows).to(like)
