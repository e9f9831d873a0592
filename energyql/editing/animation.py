"""Moving pictures of ways through latent space: between the steps of an edit, or between any two results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energyql.editing.filmstrip import check_rows
from energyql.editing.latents import Latents, LatentSpace
from energyql.errors import ArgumentError
from energyql.files import replacing
from energyql.pipeline.arguments import finite_number, whole_number
from energyql.pipeline.result import Result
from energyql.render.pictures import GAP, PAPER, tile_scale, to_pictures
from energyql.sampling.traversal import interpolate

SUFFIXES = (".gif", ".webp")
REST = 10
"""How many times as long as the others a picture is shown that is not on the way."""
DRAWN_TOGETHER = 16


@dataclass(frozen=True, eq=False)
class Film:
    """Draws what lies between pictures.

    Attributes:
        space: the latents that the pictures are from.
    """

    space: LatentSpace

    def write(
        self, stops: Sequence[Result], path: str | Path, *, rows: Sequence[int] | None, frames: int, seconds: float
    ) -> Path:
        """Write the way through results as a moving picture that rests at each of them and runs for ever.

        Args:
            stops: results of the same size, at least two.
            path: ends in .gif or .webp.
            rows: which pictures of each, side by side; by default the first eight.
            frames: pictures from one stop to the next.
            seconds: for which each is shown.

        Returns:
            The path.

        Raises:
            ArgumentError: an argument is outside its range, or the path cannot be written.
        """
        path = check_path(path)
        frames, chosen = whole_number("frames", frames, most=200), check_rows(rows, min(map(len, stops)))
        milliseconds = round(1000 * finite_number("seconds", seconds))
        if not 20 <= milliseconds <= 60_000:
            raise ArgumentError(f"seconds must lie between 0.02 and 60, not {seconds:g}")
        pictures, durations = [_side_by_side([stops[0].images[row] for row in chosen])], [REST * milliseconds]
        for before, after in pairwise(stops):
            times = [(i + 1) / frames for i in range(frames)]
            between = self._between(self._latents(before, chosen), self._latents(after, chosen), times[:-1])
            pictures += [_side_by_side(images) for images in between]
            pictures.append(_side_by_side([after.images[row] for row in chosen]))
            durations += [milliseconds] * (frames - 1) + [REST * milliseconds]
        write_animation(path, pictures, durations)
        return path

    def _latents(self, result: Result, rows: list[int]) -> Latents:
        device = self.space.model.device
        return self.space.beside(result.z[rows].to(device), result.w[rows].to(device))

    def _between(self, before: Latents, after: Latents, times: list[float]) -> list[list[Image.Image]]:
        """The pictures at each time, in the order of the samples."""
        if not times:
            return []
        places = interpolate(before.z, after.z, times)  # (n, times, z_dim)
        found: list[list[Image.Image]] = []
        for i, time in enumerate(times):
            offset = _mix(before.offset, after.offset, time)
            latents = Latents(places[:, i], offset)
            images: list[Image.Image] = []
            for start in range(0, len(latents), DRAWN_TOGETHER):
                with torch.inference_mode():
                    w = self.space.w(latents[slice(start, start + DRAWN_TOGETHER)])
                    images += to_pictures(self.space.model.generator.synthesize(w))
            found.append(images)
        return found


def check_path(path: str | Path) -> Path:
    """A path that a moving picture can be written to.

    Raises:
        ArgumentError: it ends otherwise.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ArgumentError(f"a moving picture ends in {' or '.join(SUFFIXES)}, not {path.suffix!r}")
    return path


def write_animation(path: Path, pictures: Sequence[Image.Image], milliseconds: Sequence[int]) -> None:
    """Write pictures of one size as a GIF or WebP that runs for ever, whole or not at all."""
    first, *others = pictures
    settings = {"quality": 85, "method": 4} if path.suffix.lower() == ".webp" else {"optimize": False}
    try:
        with replacing(path) as temporary:
            first.save(temporary, save_all=True, append_images=others, duration=list(milliseconds), loop=0, **settings)
    except OSError as error:
        raise ArgumentError(f"cannot write {path}: {error.strerror or error}") from error


def _mix(before: Tensor | None, after: Tensor | None, time: float) -> Tensor | None:
    if before is None and after is None:
        return None
    parts = [(1 - time) * before] if before is not None else []
    parts += [time * after] if after is not None else []
    if {part.ndim for part in parts} == {2, 3}:  # one of them in W, the other in W+
        parts = [part if part.ndim == 3 else part[:, None] for part in parts]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """In rows of at most eight."""
    scale = tile_scale(images[0].size)
    width, height = (round(side * scale) for side in images[0].size)
    columns = min(len(images), max(1, math.ceil(math.sqrt(2 * len(images)))), 8)
    rows = math.ceil(len(images) / columns)
    if len(images) == 1:
        return images[0].resize((width, height), Image.Resampling.BICUBIC)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), PAPER)
    for place, image in enumerate(images):
        row, column = np.divmod(place, columns)
        shown = image.resize((width, height), Image.Resampling.BICUBIC)
        sheet.paste(shown, (int(column) * (width + GAP), int(row) * (height + GAP)))
    return sheet
