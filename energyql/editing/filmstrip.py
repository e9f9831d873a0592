"""Edits as one picture, and as moving pictures."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from energyql.editing.leaks import Leaks
from energyql.errors import ArgumentError
from energyql.pipeline.result import Result
from energyql.render.pictures import CAPTION, FAINT, GAP, INK, PAPER, TICK, cut, draw_verdict, tile_scale, wrapped

MOST_ROWS = 8
"""Rows of a filmstrip unless a call names its own."""
LEAST_WIDTH = 110
LINE = 14


def check_rows(rows: Sequence[int] | None, count: int) -> list[int]:
    """The pictures to show.

    Args:
        rows: by number; the first ones by default.
        count: how many there are.

    Raises:
        ArgumentError: there is no such picture.
    """
    if rows is None:
        return list(range(min(count, MOST_ROWS)))
    chosen = list(rows)
    bad = [row for row in chosen if isinstance(row, bool) or not hasattr(row, "__index__") or not 0 <= row < count]
    if bad or not chosen:
        wrong = f"there is no picture {bad[0]!r}" if bad else "name at least one picture"
        raise ArgumentError(wrong, hint=f"pictures are numbered 0 to {count - 1}")
    return [int(row) for row in chosen]


def draw_filmstrip(
    start: Result, steps: Sequence[Result], leaks: Sequence[Leaks], queries: Sequence[str], rows: Sequence[int] | None
) -> Image.Image:
    """A row for each picture, a column for the start and each step.

    Above each column its query; under each picture a tick or a cross, and the names of the attributes that changed
    although nobody asked.
    """
    chosen = check_rows(rows, len(start))
    scale = tile_scale(start.images[0].size)
    width, height = (round(side * scale) for side in start.images[0].size)
    cell = max(width, LEAST_WIDTH)
    bold, small = ImageFont.load_default(14), ImageFont.load_default(12)
    heads = [wrapped(text, bold, cell) for text in ("start", *queries)]
    top = GAP + LINE * max(map(len, heads)) + 8
    columns = 1 + len(steps)
    sheet = Image.new("RGB", (columns * (cell + GAP) + GAP, top + len(chosen) * (height + CAPTION + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, lines in enumerate(heads):
        x = GAP + column * (cell + GAP)
        for i, line in enumerate(lines):
            draw.text((x, GAP + LINE * i), line, INK, bold)
        result = start if column == 0 else steps[column - 1]
        for i, row in enumerate(chosen):
            y = top + i * (height + CAPTION + GAP)
            picture = result.images[row]
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BICUBIC)
            sheet.paste(picture, (x, y))
            if column == 0:
                draw.text((x, y + height + 3), f"#{result.index[row]}", FAINT, small)
                continue
            draw_verdict(draw, x, y + height + 4, bool(result.satisfied[row]))
            leaked = ", ".join(leaks[column - 1].of(row))
            if leaked:
                draw.text((x + TICK, y + height + 3), cut(leaked, small, cell - TICK), FAINT, small)
    return sheet
