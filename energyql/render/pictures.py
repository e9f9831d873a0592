"""Pictures from tensors, grids of pictures with captions, and pictures as data URIs (texts that pages can contain)."""

from __future__ import annotations

import base64
import io
import math
import os
import textwrap
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from energyql.errors import ArgumentError

PAPER, INK, FAINT = "#ffffff", "#1d2433", "#6b7280"
YES, NO, DOUBTFUL = "#15803d", "#b91c1c", "#a8570a"
GAP = 10
"""Pixels between the pictures of a grid."""
CAPTION = 20
"""Height of a caption, in pixels."""
NOTE_LINE, NOTE_LINES = 16, 2
"""Height of a line of a note below a caption, in pixels, and the most lines of a note."""
TICK = 18
"""Width of the tick or cross before a caption, in pixels."""
PIXEL_ART = 64
"""Pictures up to this longest side, in pixels, are stored in pages without loss, because their pixels are visible."""
MOST_IN_GRID = 1024
"""Most pictures in a saved grid; with pictures of side `MOST_SIDE`, it fits in the 16,383 pixels of a WebP file."""
LEAST_SIDE = 128
"""Pictures in a grid are enlarged by a whole factor until their longer side has at least this many pixels."""
MOST_SIDE = 256
"""Pictures in a grid are reduced until their longer side has at most this many pixels."""
_SPELLED = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "–": "-", "—": "-"}
)
"""Letters that Unicode does not decompose into a letter and an accent -> letters to write instead."""
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf")
"""Font files, in the font folders of the operating system, that may have letters that the font of Pillow lacks."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def to_pictures(images: Tensor) -> list[Image.Image]:
    """PIL pictures (RGB) of a tensor (batch, 1 or 3, height, width) in [-1, 1]; values outside are clipped.

    Raises:
        ArgumentError: the images have another shape.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ArgumentError(f"pictures must be (batch, 1 or 3, height, width), not {tuple(images.shape)}")
    levels = images.float().clamp(-1, 1).add_(1).mul_(127.5).round_()
    pixels = levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).to(torch.uint8, memory_format=torch.contiguous_format)
    return [Image.fromarray(array) for array in pixels.cpu().numpy()]


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A picture of a grid, with what stands below it.

    Attributes:
        picture: the picture.
        caption: a text, cut to the width of the picture; "" for none.
        satisfied: true for a tick, false for a cross, `None` for neither.
        mark: a short warning, such as "doubtful", which is never cut; "" for none.
        note: a text of at most `NOTE_LINES` lines below the caption; "" for none.
    """

    picture: Image.Image
    caption: str = ""
    satisfied: bool | None = None
    mark: str = ""
    note: str = ""


def label_grid(cells: Sequence[Cell], *, title: str = "", footer: str = "", columns: int | None = None) -> Image.Image:
    """One picture that shows several pictures in rows, each with its caption, tick or cross, and warning below.

    Args:
        cells: at least one; all pictures are drawn in the size of the first.
        title: text above the grid; "" for none.
        footer: text below the grid; "" for none.
        columns: number of pictures in a row; by default as `columns_for` chooses it. If the last row has fewer, it is
            centred.

    Raises:
        ArgumentError: there are no pictures, or `columns` is below 1.
    """
    if (count := len(cells)) == 0:
        raise ArgumentError("a grid needs at least one picture")
    columns = columns_for(count) if columns is None else columns
    if not isinstance(columns, int) or columns < 1:
        raise ArgumentError(f"a grid needs at least one column, not {columns}")
    columns = min(count, columns)
    width, height = tile_size(cells[0].picture)
    text = "".join([title, footer, *(cell.caption + cell.note for cell in cells)])
    large, small = font_for(text, 18), font_for(text, 12)
    notes = [wrapped(cell.note, small, width)[:NOTE_LINES] for cell in cells]
    labelled = any(cell.caption or cell.satisfied is not None or cell.mark or cell.note for cell in cells)
    step = height + (CAPTION if labelled else 0) + NOTE_LINE * max(map(len, notes)) + GAP
    total = max(columns * (width + GAP) + GAP, 320)
    above, below = wrapped(title, large, total - 2 * GAP), wrapped(footer, small, total - 2 * GAP)
    top = GAP + (len(above) * 24 + 4 if above else 0)
    bottom = top + math.ceil(count / columns) * step
    sheet = Image.new("RGB", (total, bottom + (len(below) * 16 + 4 if below else 0)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(above):
        draw.text((GAP, GAP - 2 + 24 * i), line, INK, large)
    last = count - 1 - (count - 1) % columns
    centring = (columns - (count - last)) * (width + GAP) // 2
    for i, (cell, note) in enumerate(zip(cells, notes, strict=True)):
        x, y = GAP + (i % columns) * (width + GAP) + (centring if i >= last else 0), top + (i // columns) * step
        sheet.paste(cell.picture.resize((width, height), Image.Resampling.BICUBIC), (x, y))
        _draw_label(draw, (x, y + height), width, cell, small)
        for j, line in enumerate(note):
            draw.text((x, y + height + CAPTION - 2 + NOTE_LINE * j), line, FAINT, small)
    for i, line in enumerate(below):
        draw.text((GAP, bottom + 16 * i), line, FAINT, small)
    return sheet


def _draw_label(draw: ImageDraw.ImageDraw, at: tuple[int, int], width: int, cell: Cell, font: Font) -> None:
    """Draw tick or cross, caption and warning in a line of some width, with its upper left corner at a place."""
    (x, y), indent = at, 0
    if cell.satisfied is not None:
        draw_verdict(draw, x, y + 4, cell.satisfied)
        indent = TICK
    mark_width = math.ceil(font.getlength(cell.mark))
    draw.text((x + width - mark_width, y + 3), cell.mark, DOUBTFUL, font)
    left = width - indent - mark_width - (GAP // 2 if cell.mark else 0)
    draw.text((x + indent, y + 3), cut(cell.caption, font, left), FAINT, font)


def columns_for(count: int) -> int:
    """Number of pictures in a row of a grid of `count`, about twice as many as rows.

    It is a number with which all rows are full, if one gives one to four times as many columns as rows; the nearer to
    twice, the better. Otherwise the last row is as full as it can be with the usual number of rows.
    """
    full = [each for each in range(1, count + 1) if count % each == 0 and count <= each * each <= 4 * count]
    if full:
        return min(full, key=lambda each: max(each * each / (2 * count), 2 * count / (each * each)))
    return math.ceil(count / math.ceil(count / math.ceil(math.sqrt(2 * count))))


def png_bytes(picture: Image.Image) -> bytes:
    """Contents of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def tile_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height, in pixels, of a picture in a grid, with a longer side from `LEAST_SIDE` to `MOST_SIDE`."""
    side = max(picture.size)
    scale = math.ceil(LEAST_SIDE / side) if side < LEAST_SIDE else min(1.0, MOST_SIDE / side)
    return round(picture.width * scale), round(picture.height * scale)


def font_for(text: str, size: int) -> Font:
    """First font, `size` pixels high, that has all letters of a text, else the one that has most of them.

    The font of Pillow is tried first, then the file that the environment variable ENERGYQL_FONT names, then `FONTS`.

    Raises:
        ArgumentError: the file that ENERGYQL_FONT names is no font.

    Warns:
        UserWarning: no font has all letters. The text is always the same, so that Python shows it once.
    """
    named = os.environ.get("ENERGYQL_FONT", "")
    if _font(named, size) is None:
        raise ArgumentError(f"{named} is no font that can be read", hint="ENERGYQL_FONT names a file such as a .ttf")
    letters = frozenset("".join(legible(text).split()))
    lacking: dict[str, int] = {}
    for name in ("", named, *FONTS):
        if _font(name, size) is not None:
            lacking[name] = sum(not _has(name, letter) for letter in letters)
            if not lacking[name]:
                break
    best = min(lacking, key=lacking.__getitem__)
    if lacking[best]:
        remedy = "let the variable ENERGYQL_FONT name a font file that has them, such as a NotoSans"
        warnings.warn(f"pictures show boxes for letters that no font here has: {remedy}", stacklevel=2)
    return _font(best, size) or ImageFont.load_default(size)


@lru_cache
def _font(name: str, size: int) -> Font | None:
    """Font in the file `name` ("" for Pillow's font), `size` pixels high; `None` if it cannot be read."""
    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None


@lru_cache(4096)
def _has(name: str, letter: str) -> bool:
    """Whether the font in the file `name` ("" for Pillow's font) has a letter, and draws no box in its place."""
    # The last code point of Unicode is no letter, so every font draws its box for it.
    font = _font(name, 12)
    if not isinstance(font, ImageFont.FreeTypeFont):
        return True
    return bytes(font.getmask(letter)) != bytes(font.getmask("\U0010ffff"))


def legible(text: str) -> str:
    """Text without accents on Latin letters ("grosse" for "größe"), for which Pillow's font draws boxes."""
    plain = ""
    for part in unicodedata.normalize("NFD", text.translate(_SPELLED)):
        plain += "" if unicodedata.combining(part) and plain[-1:].isascii() and plain else part
    return unicodedata.normalize("NFC", plain)


def cut(text: str, font: Font, width: int) -> str:
    """Return a text if it fits into `width` pixels, otherwise its longest start that fits with "..." after it.

    Line breaks become blanks, accents go as in `legible`, and at most 200 characters are used.
    """
    text = " ".join(legible(text[:200]).split())
    ends = [text, *(f"{text[:length]}..." for length in reversed(range(1, len(text))))]
    return next((end for end in ends if font.getlength(end) <= width), "...")


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """First eight lines of a text, broken to fit into `width` pixels, without accents as in `legible`."""
    text = legible(text)
    per_line = 200
    while True:
        lines = [line for part in text.splitlines() for line in textwrap.wrap(part, per_line)][:8]
        widest = max((font.getlength(line) for line in lines), default=0.0)
        if widest <= width or per_line == 1:
            return lines
        per_line = max(1, min(per_line - 1, int(per_line * width / widest)))


def draw_verdict(draw: ImageDraw.ImageDraw, x: int, y: int, satisfied: bool) -> None:
    """Draw a tick or a cross, with its upper left corner at (x, y)."""
    tick, cross = [[(1, 6), (5, 10), (12, 1)]], [[(2, 1), (11, 10)], [(2, 10), (11, 1)]]
    for points in tick if satisfied else cross:
        draw.line([(x + right, y + down) for right, down in points], YES if satisfied else NO, 3, joint="curve")


def picture_uri(picture: Image.Image, side: int) -> str:
    """Picture as a data URI, a text that can be the source of a picture in HTML: PNG up to `PIXEL_ART`, else WebP.

    Args:
        side: most pixels of the longest side; a larger picture is reduced.
    """
    scale = side / max(picture.size)
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    buffer, kind = io.BytesIO(), "png" if max(picture.size) <= PIXEL_ART else "webp"
    picture.convert("RGB").save(buffer, kind, **({} if kind == "png" else {"quality": 88, "method": 4}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
