"""Filmstrips, which show an edit in one picture; and animations of paths through latent space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw
from torch import Tensor

from energyql.editing.latents import Latents, LatentSpace
from energyql.errors import ArgumentError
from energyql.files import as_path, check_destination, naming_target, replacing
from energyql.generators.base import STORED_NOISE, Label
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.draw import pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.result import MARK, Result
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
"""Number of pictures in a filmstrip or animation, unless a call names them."""
LEAST_WIDTH = 110
LINE = 14
ANIMATION_SUFFIXES = (".gif", ".webp")
REST = 10
"""Duration of a frame that shows a result, as a number of frames between results."""


def check_rows(rows: Sequence[int] | None, count: int) -> list[int]:
    """Return the numbers of the pictures to show.

    Args:
        rows: the numbers; by default the first `DEFAULT_ROWS`.
        count: number of pictures.

    Raises:
        ArgumentError: there is no such picture.
    """
    if rows is None:
        return list(range(min(count, DEFAULT_ROWS)))
    chosen = list(rows)
    bad = [row for row in chosen if isinstance(row, bool) or not hasattr(row, "__index__") or not 0 <= row < count]
    if bad or not chosen:
        wrong = f"there is no picture {bad[0]!r}" if bad else "name at least one picture"
        raise ArgumentError(wrong, hint=f"pictures are numbered 0 to {count - 1}")
    return [int(row) for row in chosen]


@dataclass(frozen=True)
class Column:
    """A column of a filmstrip.

    Attributes:
        title: text above the column.
        pictures: the pictures.
        captions: text under each picture.
        verdicts: whether each picture satisfies the query, drawn as a tick or a cross; `None` draws neither.
    """

    title: str
    pictures: Sequence[Image.Image]
    captions: Sequence[str]
    verdicts: Sequence[bool | None]


def start_columns(start: Result, inversion: Inversion | None) -> list[Column]:
    """Return the column of the start; for photographs that of the originals, then that of the reconstructions."""
    numbers, none = [f"#{index}" for index in start.index], [None] * len(start)
    if inversion is None:
        return [Column("start", start.images, numbers, none)]
    fit = [None if drawable else False for drawable in inversion.drawable]
    notes = [
        f"error {error:.3f}" if drawable else "not this picture"
        for error, drawable in zip(inversion.pixel_error, inversion.drawable, strict=True)
    ]
    originals = Column("original", inversion.pictures, numbers, none)
    return [originals, Column("reconstruction", start.images, notes, fit)]


def step_column(step: Result, leaks: Leaks, query: str) -> Column:
    """Return the column of a step: its query, the judge's verdicts, doubts, and the attributes that leaked."""
    rows = range(len(step))
    title = query if step.satisfied is not None else f"{query} (not judged)"
    verdicts = [None if step.satisfied is None else bool(step.satisfied[row]) for row in rows]
    doubts = [[MARK] if doubtful else [] for doubtful in step.doubtful]
    leaked = [[f"{len(names)} changed: {', '.join(names)}"] if (names := leaks.of(row)) else [] for row in rows]
    return Column(title, step.images, [", ".join(doubts[row] + leaked[row]) for row in rows], verdicts)


def draw_filmstrip(columns: Sequence[Column], rows: Sequence[int] | None) -> Image.Image:
    """Draw a filmstrip: columns side by side, a row for each picture.

    Args:
        columns: the columns, of equal length.
        rows: numbers of the pictures; by default the first eight.

    Raises:
        ArgumentError: there is no such picture.
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
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BICUBIC)
            sheet.paste(picture, (x, y))
            indent = 0 if verdict is None else TICK
            if verdict is not None:
                draw_verdict(draw, x, y + height + 4, verdict)
            draw.text((x + indent, y + height + 3), cut(caption, small, cell - indent), FAINT, small)
    return sheet


def animate(
    stops: Sequence[Result],
    path: str | Path,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    rows: Sequence[int] | None = None,
    frames: int = 16,
    seconds: float = 0.06,
    device: str = "auto",
    progress: bool | Report = True,
) -> Path:
    """Write an animation of the path through latent space from result to result, which rests at each result.

    z moves on great-circle arcs, on which its length stays typical of the prior; the offset of w of inverted pictures
    moves on straight lines.

    Args:
        stops: at least two results of one model, truncation and label, such as those of two calls of `generate`.
        path: a path that ends in .gif or .webp.
        model: the model of the results.
        rows: numbers of the pictures, shown side by side; by default the first eight.
        frames: number of frames from one stop to the next, 1 to 200.
        seconds: duration of a frame, at least 0.02.
        device: "cpu", "cuda" and so on; "auto" is a GPU if there is one.
        progress: whether to show a bar; or a function of the name of a stage and the fraction of it that is done.

    Returns:
        The path.

    Raises:
        ArgumentError: the results do not belong together, an argument is out of range, or `path` cannot be written.
    """
    if not isinstance(stops, Sequence) or len(stops) < 2 or not all(isinstance(stop, Result) for stop in stops):
        raise ArgumentError(
            "an animation needs a list of at least two results",
            hint="of queries make results first: [generate(query, 4) for query in queries]",
        )
    check_animation(path)
    settings = {(str(stop.provenance["truncation"]), str(stop.provenance["label"])) for stop in stops}
    pipeline = pipeline_for(model, device)
    ours = pipeline.model.fingerprints.get("generator")
    if len(settings) > 1 or any(stop.provenance["fingerprints"].get("generator") != ours for stop in stops):
        raise ArgumentError(
            "the results are not all of this model at one truncation and label",
            hint="draw them with one model, truncation and label",
        )
    facts = stops[0].provenance
    label: Label | None = tuple(facts["label"]) if isinstance(facts["label"], list) else facts["label"]
    space = LatentSpace(pipeline.model, facts["truncation"], label)
    return write_traversal(space, stops, path, rows, frames, seconds, progress)


def write_traversal(
    space: LatentSpace, stops: Sequence[Result], path: str | Path, rows: Sequence[int] | None, frames: int,
    seconds: float, progress: bool | Report,
) -> Path:  # fmt: skip
    """Write an animation through results, which have equal numbers of pictures; see `animate`."""
    path = check_animation(path)
    frames, chosen = whole_number("frames", frames, most=200), check_rows(rows, min(map(len, stops)))
    milliseconds = round(1000 * finite_number("seconds", seconds))
    if not 20 <= milliseconds <= 60_000:
        raise ArgumentError(f"seconds must lie between 0.02 and 60, not {seconds:g}")
    if any(stop.provenance.get("noise", STORED_NOISE) != STORED_NOISE for stop in stops):
        raise ArgumentError(
            "pictures with other noise than that of the model cannot be animated",
            hint='draw them with noise="const": frames in between have no number from which noise could be drawn',
        )
    latents = [space.from_w(*(part[chosen].to(space.model.device) for part in (stop.z, stop.w))) for stop in stops]
    times = [(i + 1) / frames for i in range(frames - 1)]
    shown, durations = [_side_by_side([stops[0].images[row] for row in chosen])], [REST * milliseconds]
    count = (len(stops) - 1) * frames
    with reporting(progress) as report:

        def show(pictures: Sequence[Image.Image]) -> None:
            report("frames", len(shown) / count)
            shown.append(_side_by_side(pictures))

        for (before, after), stop in zip(pairwise(latents), stops[1:], strict=True):
            for time in times:
                z = interpolate(before.z, after.z, [time])[:, 0]
                offset = _interpolate_offsets(before.offset, after.offset, time)
                show(space.pictures(Latents(z, offset)))
            show([stop.images[row] for row in chosen])
            durations += [milliseconds] * (frames - 1) + [REST * milliseconds]
    coding = {"quality": 85, "method": 4} if path.suffix.lower() == ".webp" else {"optimize": False}
    with naming_target(path), replacing(path) as temporary:
        shown[0].save(temporary, save_all=True, append_images=shown[1:], duration=durations, loop=0, **coding)
    return path


def check_animation(path: str | Path) -> Path:
    """Return the path of an animation as a `Path`.

    Raises:
        ArgumentError: its suffix is not .gif or .webp, or it cannot be written.
    """
    path = as_path(path)
    if path.suffix.lower() not in ANIMATION_SUFFIXES:
        raise ArgumentError(
            f"an animation ends in {' or '.join(ANIMATION_SUFFIXES)}, not {path.suffix!r}",
            hint="for a video, write a .gif, and convert it, for example with ffmpeg -i way.gif way.mp4",
        )
    return check_destination(path, ANIMATION_SUFFIXES)


def _interpolate_offsets(before: Tensor | None, after: Tensor | None, time: float) -> Tensor | None:
    parts = [weight * offset for weight, offset in ((1 - time, before), (time, after)) if offset is not None]
    if not parts:
        return None
    if {part.ndim for part in parts} == {2, 3}:  # one of them in W, the other in W+
        parts = [part if part.ndim == 3 else part[:, None] for part in parts]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Return one picture of all pictures, in rows of at most eight."""
    width, height = tile_size(images[0])
    columns = min(len(images), max(1, math.ceil(math.sqrt(2 * len(images)))), 8)
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), PAPER)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        scaled = image.resize((width, height), Image.Resampling.BICUBIC)
        sheet.paste(scaled, (column * (width + GAP), row * (height + GAP)))
    return sheet
