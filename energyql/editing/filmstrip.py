"""Filmstrips, which show an edit in one picture, and animations, which move through latent space between results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw
from torch import Tensor

from energyql.editing.latents import Latents, LatentSpace
from energyql.errors import ArgumentError
from energyql.files import as_path, check_destination, replacing
from energyql.generators.base import STORED_NOISE
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.model import Model
from energyql.pipeline.result import MARK, Result
from energyql.pipeline.session import open_session
from energyql.pipeline.settings import finite_number, whole_number
from energyql.progress import Report, reporting
from energyql.render.pictures import (
    CAPTION,
    FAINT,
    GAP,
    INK,
    PAPER,
    TICK,
    cut,
    draw_verdict,
    font_for,
    tile_size,
    wrapped,
)
from energyql.sampling.traversal import interpolate

if TYPE_CHECKING:
    from energyql.editing.invert import Inversion
    from energyql.editing.step import Leaks

DEFAULT_ROWS = 8
"""Number of pictures in a filmstrip or animation, unless a call chooses the pictures by number."""
LEAST_WIDTH = 110
LINE = 14
ANIMATION_SUFFIXES = (".gif", ".webp")
REST = 10
"""Duration of a frame that shows a result, divided by the duration of a frame between two results."""


def check_rows(rows: Sequence[int] | None, count: int) -> list[int]:
    """Check which pictures are to be shown, and return their numbers.

    Args:
        rows: the numbers, counted from 0; `None` for the first `DEFAULT_ROWS` pictures.
        count: number of all pictures.

    Raises:
        ArgumentError: `rows` is empty, there are no pictures, or a number is below 0 or not below `count`.
    """
    chosen = list(range(min(count, DEFAULT_ROWS)) if rows is None else rows)
    if not chosen:
        raise ArgumentError("there is no picture to show")
    for row in chosen:
        if not 0 <= row < count:
            raise ArgumentError(f"there is no picture {row}", hint=f"pictures are numbered 0 to {count - 1}")
    return chosen


@dataclass(frozen=True)
class Column:
    """A column of a filmstrip, with one picture in each row.

    Attributes:
        title: text above the column.
        pictures: the pictures, from the first row to the last.
        captions: text under each picture.
        verdicts: for each picture `True` to draw a tick under it, `False` to draw a cross, or `None` for neither.
    """

    title: str
    pictures: Sequence[Image.Image]
    captions: Sequence[str]
    verdicts: Sequence[bool | None]


def start_columns(start: Result, inversion: Inversion | None) -> list[Column]:
    """Return the columns of a filmstrip before the first step.

    Without an inversion there is one column, the start. With an inversion there are two: the photographs, and their
    reconstructions. A reconstruction gets a cross if it differs too much from the photograph.

    Args:
        start: the pictures before the first step.
        inversion: the inversion of the photographs that were edited; `None` if no photographs were edited.
    """
    numbers, none = [f"#{index}" for index in start.index], [None] * len(start)
    if inversion is None:
        return [Column("start", start.images, numbers, none)]
    fit = [None if drawable else False for drawable in inversion.drawable]
    originals = Column("original", inversion.pictures, numbers, none)
    return [originals, Column("reconstruction", start.images, inversion.captions(), fit)]


def step_column(step: Result, leaks: Leaks, query: str) -> Column:
    """Return the column that shows the pictures after a step.

    Under each picture is a tick if the picture satisfies the query by the judge, else a cross. A text beside the tick
    or cross names the attributes that changed without need, such as "1 changed: hair". The text begins with "doubtful"
    if the heads may be wrong about the picture (see `Result.doubtful`). Without a judge there are no ticks and crosses.

    Args:
        step: the pictures after the step, with the judge's verdicts.
        leaks: the report of the attributes that changed without need.
        query: text of the step's query, the title of the column.
    """
    captions = []
    for row, doubtful in enumerate(step.doubtful):
        names = leaks.of(row)
        leaked = f"{len(names)} changed: {', '.join(names)}" if names else ""
        captions.append(", ".join(filter(None, [MARK if doubtful else "", leaked])))
    if step.satisfied is None:
        return Column(f"{query} (not judged)", step.images, captions, [None] * len(step))
    return Column(query, step.images, captions, step.satisfied.tolist())


def draw_filmstrip(columns: Sequence[Column], rows: Sequence[int] | None) -> Image.Image:
    """Draw a filmstrip: the columns side by side, with a row for each chosen picture.

    Args:
        columns: the columns, which all have the same number of pictures.
        rows: numbers of the pictures to draw, counted from 0; by default the first eight.

    Raises:
        ArgumentError: `rows` is empty or contains a number that no picture has.
    """
    chosen = check_rows(rows, len(columns[0].pictures))
    width, height = tile_size(columns[-1].pictures[0])
    cell = max(width, LEAST_WIDTH)
    texts = "".join(text for column in columns for text in (column.title, *column.captions))
    bold, small = font_for(texts, 14), font_for(texts, 12)
    heads = [wrapped(column.title, bold, cell) for column in columns]
    top = GAP + LINE * max(map(len, heads)) + 8
    sheet = Image.new("RGB", (len(columns) * (cell + GAP) + GAP, top + len(chosen) * (height + CAPTION + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for position, (lines, column) in enumerate(zip(heads, columns, strict=True)):
        x = GAP + position * (cell + GAP)
        for i, line in enumerate(lines):
            draw.text((x, GAP + LINE * i), line, INK, bold)
        for i, row in enumerate(chosen):
            y = top + i * (height + CAPTION + GAP)
            picture, verdict, caption = column.pictures[row], column.verdicts[row], column.captions[row]
            sheet.paste(picture.resize((width, height), Image.Resampling.BICUBIC), (x, y))
            indent = 0 if verdict is None else TICK
            if verdict is not None:
                draw_verdict(draw, x, y + height + 4, verdict)
            draw.text((x + indent, y + height + 3), cut(caption, small, cell - indent), FAINT, small)
    return sheet


def animate(
    stops: Sequence[Result], path: str | Path, *, model: str | Path | Model = DEFAULT_MODEL,
    rows: Sequence[int] | None = None, frames: int = 16, seconds: float = 0.06, device: str = "auto",
    progress: bool | Report = True,
) -> Path:  # fmt: skip
    """Write an animation that moves through latent space from result to result.

    Between two results, z moves on a great-circle arc, so that its length stays typical of the prior. If the pictures
    come from an inversion, their w differs from the output of the mapping network by an offset, which moves on a
    straight line.

    Args:
        stops: at least two results of one model, truncation and condition, such as those of two calls of `generate`.
        path: name of the file, which ends in .gif or .webp.
        model: the model with which the results were drawn: name of a packaged model, a model folder, or a `Model` in
            memory.
        rows: numbers of the pictures, counted from 0, shown side by side; by default the first eight.
        frames: number of frames from one result to the next, 1 to 200.
        seconds: duration of a frame between results, 0.02 to 60; a frame that shows a result takes ten times as long.
        device: "cpu", "cuda" and so on. With "auto", a `Model` in memory stays on its device; another model uses a GPU
            if there is one.
        progress: true for a progress bar, false for none; or a function, called with the stage "frames" and the
            fraction of the frames that are drawn.

    Returns:
        The path of the file.

    Raises:
        ArgumentError: the results are not all of this model at one truncation and condition, or were drawn with other
            noise than "const"; an argument is out of range, or the file cannot be written.
    """
    if len(stops) < 2:
        raise ArgumentError("an animation needs at least two results", hint="make them by `generate` first")
    check_animation(path)
    settings = {(str(stop.provenance["truncation"]), str(stop.provenance["condition"])) for stop in stops}
    session = open_session(model, device)
    ours = session.model.fingerprints.get("generator")
    if len(settings) > 1 or any(stop.provenance["fingerprints"].get("generator") != ours for stop in stops):
        raise ArgumentError("the results are not all of this model at one truncation and condition")
    facts = stops[0].provenance
    condition = facts["condition"]
    condition = tuple(condition) if isinstance(condition, list) else condition
    space = LatentSpace(session.model, facts["truncation"], condition)
    return write_traversal(space, stops, path, rows, frames, seconds, progress)


def write_traversal(
    space: LatentSpace, stops: Sequence[Result], path: str | Path, rows: Sequence[int] | None, frames: int,
    seconds: float, progress: bool | Report,
) -> Path:  # fmt: skip
    """Write an animation that moves through latent space from result to result, and return the path of the file.

    Args:
        space: the latent space from which the frames between results are drawn.
        stops: the results; picture i of a result moves to picture i of the next result.
        path: name of the file, which ends in .gif or .webp.
        rows: numbers of the pictures to show, counted from 0; `None` for the first eight.
        frames: number of frames from one result to the next, 1 to 200.
        seconds: duration of a frame between results, 0.02 to 60; a frame that shows a result takes ten times as long.
        progress: true for a progress bar, false for none; or a function, called with the stage "frames" and the
            fraction of the frames that are drawn.

    Raises:
        ArgumentError: an argument is out of range, the file cannot be written, or the noise of the pictures is not
            "const".
    """
    path = check_animation(path)
    frames, chosen = whole_number("frames", frames, most=200), check_rows(rows, min(map(len, stops)))
    milliseconds = round(1000 * finite_number("seconds", seconds))
    if not 20 <= milliseconds <= 60_000:
        raise ArgumentError(f"seconds must lie between 0.02 and 60, not {seconds:g}")
    if any(stop.provenance.get("noise", STORED_NOISE) != STORED_NOISE for stop in stops):
        problem = "pictures with other noise than that of the model cannot be animated"
        raise ArgumentError(problem, hint='draw them with noise="const"')
    latents = [space.from_w(*(part[chosen].to(space.model.device) for part in (stop.z, stop.w))) for stop in stops]
    sheets = [_side_by_side([stops[0].images[row] for row in chosen])]
    with reporting(progress) as report:
        for (before, after), stop in zip(pairwise(latents), stops[1:], strict=True):
            for frame in range(1, frames + 1):
                report("frames", len(sheets) / (frames * (len(stops) - 1)))
                if frame == frames:
                    pictures = [stop.images[row] for row in chosen]
                else:
                    offset = _interpolate_offsets(before.offset, after.offset, frame / frames)
                    z = interpolate(before.z, after.z, [frame / frames])[:, 0]
                    pictures = space.pictures(Latents(z, offset))
                sheets.append(_side_by_side(pictures))
    durations = [milliseconds if place % frames else REST * milliseconds for place in range(len(sheets))]
    coding = {"quality": 85, "method": 4} if path.suffix.lower() == ".webp" else {"optimize": False}
    with replacing(path) as temporary:
        sheets[0].save(temporary, save_all=True, append_images=sheets[1:], duration=durations, loop=0, **coding)
    return path


def check_animation(path: str | Path) -> Path:
    """Check that an animation can be written to a file named `path`, and return the name as a `Path`.

    Raises:
        ArgumentError: the name does not end in .gif or .webp, or the file cannot be written.
    """
    path = as_path(path)
    if path.suffix.lower() not in ANIMATION_SUFFIXES:
        hint = "for a video, write a .gif, and convert it, for example with ffmpeg -i way.gif way.mp4"
        raise ArgumentError(f"an animation ends in {' or '.join(ANIMATION_SUFFIXES)}, not {path.suffix!r}", hint=hint)
    return check_destination(path, ANIMATION_SUFFIXES)


def _interpolate_offsets(before: Tensor | None, after: Tensor | None, time: float) -> Tensor | None:
    """Return the offset of w between two results, `(1 - time) * before + time * after`.

    Args:
        before: offset of the earlier result, (n, w_dim) or (n, num_ws, w_dim); `None` for zero.
        after: offset of the later result, in one of these shapes; `None` for zero.
        time: a number from 0 (the earlier result) to 1 (the later result).

    Returns:
        The offset, (n, num_ws, w_dim) if one of the two has this shape, else (n, w_dim); `None` if both are `None`.
    """
    parts = [weight * offset for weight, offset in ((1 - time, before), (time, after)) if offset is not None]
    if {part.ndim for part in parts} == {2, 3}:  # one of them in W, the other in W+
        parts = [part if part.ndim == 3 else part[:, None] for part in parts]
    return reduce(add, parts) if parts else None


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Return one picture that shows all pictures in rows of at most eight."""
    width, height = tile_size(images[0])
    columns = min(len(images), max(1, math.ceil(math.sqrt(2 * len(images)))), 8)
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), PAPER)
    for place, image in enumerate(images):
        corner = place % columns * (width + GAP), place // columns * (height + GAP)
        sheet.paste(image.resize((width, height), Image.Resampling.BICUBIC), corner)
    return sheet
