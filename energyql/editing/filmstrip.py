"""Filmstrips, which show an edit in one picture, and animations through latent space from result to result."""

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

from energyql.editing.arguments import AnimationOptions, AnimationSettings
from energyql.editing.latents import Latents, LatentSpace
from energyql.errors import ArgumentError, either
from energyql.files import as_path, check_destination, replacing
from energyql.generators.base import STORED_NOISE
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.model import Model
from energyql.pipeline.result import Result
from energyql.pipeline.result_words import MARK
from energyql.pipeline.session import open_session
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
    from typing_extensions import Unpack

    from energyql.editing.invert import Inversion
    from energyql.editing.step import Leaks

DEFAULT_ROWS = 8
"""Number of pictures in a filmstrip or animation, unless a call chooses them."""
LEAST_WIDTH = 110
LINE = 14
ANIMATION_SUFFIXES = (".gif", ".webp")
REST = 10
"""Duration of a frame that shows a result, as a multiple of that of a frame between results."""


def check_rows(rows: Sequence[int] | None, count: int) -> list[int]:
    """Checked numbers of the pictures to show, by default the first `DEFAULT_ROWS` of `count`."""
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
        captions: text under each picture.
        verdicts: for each picture `True` for a tick under it, `False` for a cross, `None` for neither.
    """

    title: str
    pictures: Sequence[Image.Image]
    captions: Sequence[str]
    verdicts: Sequence[bool | None]


def start_columns(start: Result, inversion: Inversion | None) -> list[Column]:
    """Columns before the first step: the start; or photographs and reconstructions, crossed if too different."""
    numbers, none = [f"#{index}" for index in start.index], [None] * len(start)
    if inversion is None:
        return [Column("start", start.images, numbers, none)]
    fit = [None if drawable else False for drawable in inversion.drawable]
    originals = Column("original", inversion.pictures, numbers, none)
    return [originals, Column("reconstruction", start.images, inversion.captions(), fit)]


def step_column(step: Result, leaks: Leaks, query: str) -> Column:
    """Column of the pictures after a step, with a tick or cross by the judge under each.

    A text beside it names the attributes that changed without need, such as "1 changed: hair", after "doubtful" if the
    heads may be wrong about the picture (`Result.doubtful`).
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
    """Draw columns, which have equally many pictures, side by side, with a row for each picture in `rows`."""
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
    stops: Sequence[Result], path: str | Path, *, model: str | Path | Model = DEFAULT_MODEL, device: str = "auto",
    progress: bool | Report = True, **options: Unpack[AnimationOptions],
) -> Path:  # fmt: skip
    """Write an animation that moves through latent space from result to result, and return the path of the file.

    Between two results, z moves on a great-circle arc, so that its length stays typical of the prior. Pictures of an
    inversion have a w that differs from the output of the mapping network by an offset, which moves on a straight line.

    Args:
        stops: at least two results of one model, truncation and condition, such as those of two calls of `generate`.
        path: a name that ends in .gif or .webp.
        model: the model with which the results were drawn; for its forms and `device` see `energyql.generate`.
        progress: see `energyql.generate`; the stage is "frames".
        options: settings by name, which follow.
        rows: numbers of the pictures that are shown side by side, from 0; by default the first eight.
        frames: number of frames from one result to the next, 1 to 200.
        seconds: duration of a frame between results, 0.02 to 60; one that shows a result takes ten times as long.

    Raises:
        ArgumentError: the results are not all of this model at one truncation and condition, or were drawn with other
            noise than "const"; an argument is out of range, or the file cannot be written.
    """
    if len(stops) < 2:
        raise ArgumentError("an animation needs at least two results", hint="make them by `generate` first")
    check_animation(path)
    wanted = AnimationSettings(**options)
    settings = {(str(stop.provenance["truncation"]), str(stop.provenance["condition"])) for stop in stops}
    session = open_session(model, device)
    ours = session.model.fingerprints.get("generator")
    if len(settings) > 1 or any(stop.provenance["fingerprints"].get("generator") != ours for stop in stops):
        raise ArgumentError("the results are not all of this model at one truncation and condition")
    facts = stops[0].provenance
    condition = facts["condition"]
    condition = tuple(condition) if isinstance(condition, list) else condition
    space = LatentSpace(session.model, facts["truncation"], condition)
    return write_traversal(space, stops, path, wanted, progress)


def write_traversal(
    space: LatentSpace, stops: Sequence[Result], path: str | Path, settings: AnimationSettings, progress: bool | Report
) -> Path:
    """Write the animation of `animate` from results in one latent space; its arguments and errors are the same."""
    path = check_animation(path)
    frames, chosen = settings.frames, check_rows(settings.rows, min(map(len, stops)))
    milliseconds = round(1000 * settings.seconds)
    if any(stop.provenance.get("noise", STORED_NOISE) != STORED_NOISE for stop in stops):
        problem = "pictures with other noise than that of the model cannot be animated"
        raise ArgumentError(problem, hint="draw them with " + either('noise="const"', "--noise const"))
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
    """Path of an animation, after a check that its name ends in .gif or .webp and that it can be written."""
    path = as_path(path)
    if path.suffix.lower() not in ANIMATION_SUFFIXES:
        hint = "for a video, write a .gif, and convert it, for example with ffmpeg -i way.gif way.mp4"
        raise ArgumentError(f"an animation ends in {' or '.join(ANIMATION_SUFFIXES)}, not {path.suffix!r}", hint=hint)
    return check_destination(path, ANIMATION_SUFFIXES)


def _interpolate_offsets(before: Tensor | None, after: Tensor | None, time: float) -> Tensor | None:
    """`(1 - time) * before + time * after` for offsets in W, (n, w_dim), or W+, (n, num_ws, w_dim); `None` is zero."""
    parts = [weight * offset for weight, offset in ((1 - time, before), (time, after)) if offset is not None]
    if {part.ndim for part in parts} == {2, 3}:  # one of them in W, the other in W+
        parts = [part if part.ndim == 3 else part[:, None] for part in parts]
    return reduce(add, parts) if parts else None


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """One picture of all pictures, in rows of at most eight."""
    width, height = tile_size(images[0])
    columns = min(len(images), max(1, math.ceil(math.sqrt(2 * len(images)))), 8)
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), PAPER)
    for place, image in enumerate(images):
        corner = place % columns * (width + GAP), place // columns * (height + GAP)
        sheet.paste(image.resize((width, height), Image.Resampling.BICUBIC), corner)
    return sheet
