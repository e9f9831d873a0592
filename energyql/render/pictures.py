"""Pictures from tensors, grids of pictures with captions, and pictures as parts of pages."""

from __future__ import annotations

import base64
import io
import math
import os
import textwrap
import unicodedata
import warnings
from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral

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
TICK = 18
"""Width of a verdict (a tick or a cross), in pixels."""
PIXEL_ART = 64
"""Longest side of pictures that are stored without loss, since each of their pixels is visible."""
MOST_IN_GRID = 1024
"""Most pictures of a grid in one file: with tiles of side `MOST_SIDE` the grid fits in the 16,383 pixels of a WebP."""
LEAST_SIDE = 128
"""Tiles of a grid are enlarged until their longer side is at least this long."""
MOST_SIDE = 256
"""Tiles of a grid are reduced until their longer side is at most this long."""
_SPELLED = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "–": "-", "—": "-"}
)
"""Replacement of letters that Unicode does not decompose into a letter and an accent."""
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf")
"""Font files of operating systems that may have letters that the font of Pillow lacks; Pillow searches their folders.
"""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def to_pictures(images: Tensor) -> list[Image.Image]:
    """Return PIL pictures (RGB) of images in [-1, 1], (batch, 1 or 3, height, width); values outside are clipped.

    Raises:
        ArgumentError: the images have another shape.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ArgumentError(
            f"pictures must be (batch, 1 or 3, height, width), not {tuple(images.shape)}",
            hint="the `synthesize` of a generator must return grey or RGB pictures",
        )
    levels = images.float().clamp(-1, 1).add_(1).mul_(127.5).round_()
    pixels = levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).to(torch.uint8, memory_format=torch.contiguous_format)
    return [Image.fromarray(array) for array in pixels.cpu().numpy()]


def label_grid(
    pictures: Sequence[Image.Image],
    *,
    title: str = "",
    captions: Sequence[str] | None = None,
    verdicts: Sequence[bool] | None = None,
    marks: Sequence[str] | None = None,
    footer: str = "",
    columns: int | None = None,
) -> Image.Image:
    """Return one picture with pictures in rows, and under each its caption, a tick or a cross, and a warning.

    Args:
        pictures: all of one size, at least one.
        title: text above the grid.
        captions: a text for each picture, cut to its width; `None` for none.
        verdicts: for each picture whether it gets a tick (true) or a cross (false); `None` for neither.
        marks: for each picture a short warning after its caption, which is never cut, "" for none.
        footer: text below the grid.
        columns: pictures in a row; by default the grid is about twice as wide as high.

    Raises:
        ArgumentError: there are no pictures, or `columns` is below 1.
    """
    count = len(pictures)
    if count == 0:
        raise ArgumentError("a grid needs at least one picture")
    if columns is None:
        columns = math.ceil(math.sqrt(2 * count))
        columns = math.ceil(count / math.ceil(count / columns))  # the same number of rows, fewer gaps in the last one
    if not isinstance(columns, Integral) or columns < 1:
        raise ArgumentError(f"a grid needs at least one column, not {columns!r}")
    columns = min(count, columns)
    width, height = tile_size(pictures[0])
    cell = height + (0 if captions is None and verdicts is None and marks is None else CAPTION) + GAP
    text = "".join((title, footer, *(captions or ())))
    large, small = font_for(text, 18), font_for(text, 12)
    total = max(columns * (width + GAP) + GAP, 320)
    above, below = wrapped(title, large, total - 2 * GAP), wrapped(footer, small, total - 2 * GAP)
    top = GAP + (len(above) * 24 + 4 if above else 0)
    bottom = top + math.ceil(count / columns) * cell
    sheet = Image.new("RGB", (total, bottom + (len(below) * 16 + 4 if below else 0)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(above):
        draw.text((GAP, GAP - 2 + 24 * i), line, INK, large)
    for i, picture in enumerate(pictures):
        x, y = GAP + (i % columns) * (width + GAP), top + (i // columns) * cell
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        sheet.paste(picture, (x, y))
        if verdicts is not None:
            draw_verdict(draw, x, y + height + 4, verdicts[i])
        indent, mark = 0 if verdicts is None else TICK, "" if marks is None else marks[i]
        mark_width = math.ceil(small.getlength(mark))
        if mark:
            draw.text((x + width - mark_width, y + height + 3), mark, DOUBTFUL, small)
        if captions is not None:
            left = width - indent - mark_width - (GAP // 2 if mark else 0)
            draw.text((x + indent, y + height + 3), cut(captions[i], small, left), FAINT, small)
    for i, line in enumerate(below):
        draw.text((GAP, bottom + 16 * i), line, FAINT, small)
    return sheet


def png_bytes(picture: Image.Image) -> bytes:
    """Return a picture as the contents of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def tile_size(picture: Image.Image) -> tuple[int, int]:
    """Return the width and height, in pixels, of a picture in a grid."""
    side = max(picture.size)
    scale = math.ceil(LEAST_SIDE / side) if side < LEAST_SIDE else min(1.0, MOST_SIDE / side)
    return round(picture.width * scale), round(picture.height * scale)


def font_for(text: str, size: int) -> Font:
    """Return the font with most letters of a text, first the font of Pillow, then fonts of the system.

    The environment variable ENERGYQL_FONT names a file that is tried before those of the system.

    Args:
        text: the text.
        size: height of the letters, in pixels.

    Raises:
        ArgumentError: the file that ENERGYQL_FONT names is no font.

    Warns:
        UserWarning: no font has all letters. The text is always the same, so that Python shows it once.
    """
    named = os.environ.get("ENERGYQL_FONT", "")
    if _font(named, size) is None:
        raise ArgumentError(f"{named} is no font that can be read", hint="ENERGYQL_FONT names a file such as a .ttf")
    letters = frozenset("".join(legible(text).split()))
    lacking: dict[str, frozenset[str]] = {}
    for name in ("", named, *FONTS):
        if _font(name, size) is not None:
            lacking[name] = frozenset(letter for letter in letters if not _has(name, letter))
            if not lacking[name]:
                break
    best = min(lacking, key=lambda name: len(lacking[name]))
    if lacking[best]:
        warnings.warn(
            "pictures show boxes for letters that no font here has: let the variable ENERGYQL_FONT name a font file "
            "that has them, such as a NotoSans",
            stacklevel=2,
        )
    return _font(best, size) or ImageFont.load_default(size)


@lru_cache
def _font(name: str, size: int) -> Font | None:
    """Return the font in the file `name`, that of Pillow for ""; `None` if the file is missing or damaged."""
    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None


@lru_cache(4096)
def _has(name: str, letter: str) -> bool:
    """Return whether the font in the file `name` has a letter, rather than a box in its place."""
    # The last code point of Unicode is no letter, so every font draws its box for it.
    font = _font(name, 12)
    if not isinstance(font, ImageFont.FreeTypeFont):
        return True
    return bytes(font.getmask(letter)) != bytes(font.getmask("\U0010ffff"))


def legible(text: str) -> str:
    """Return a text without accents on Latin letters, such as "grosse" for "größe".

    The font of Pillow draws boxes for letters with accents.
    """
    characters: list[str] = []
    for part in unicodedata.normalize("NFD", text.translate(_SPELLED)):
        if not (unicodedata.combining(part) and characters and characters[-1].isascii()):
            characters.append(part)
    return unicodedata.normalize("NFC", "".join(characters))


def cut(text: str, font: Font, width: int) -> str:
    """Return the start of `text` that fits into `width` pixels, without accents or line breaks; see `legible`."""
    text = " ".join(legible(text[:200]).split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """Return the first eight lines of a text, broken so that none is wider than `width` pixels; see `legible`."""
    text = legible(text)
    per_line = 200
    while True:
        lines = [line for part in text.splitlines() for line in textwrap.wrap(part, per_line)][:8]
        widest = max((font.getlength(line) for line in lines), default=0.0)
        if widest <= width or per_line == 1:
            return lines
        per_line = max(1, min(per_line - 1, int(per_line * width / widest)))


def draw_verdict(draw: ImageDraw.ImageDraw, x: int, y: int, satisfied: bool) -> None:
    """Draw a tick (`satisfied`) or a cross with its upper left corner at x and y, in pixels."""
    if satisfied:
        draw.line([(x + 1, y + 6), (x + 5, y + 10), (x + 12, y + 1)], YES, 3, joint="curve")
    else:
        draw.line([(x + 2, y + 1), (x + 11, y + 10)], NO, 3)
        draw.line([(x + 2, y + 10), (x + 11, y + 1)], NO, 3)


def picture_uri(picture: Image.Image, side: int) -> str:
    """Return a picture as a data URI: PNG if its sides are at most `PIXEL_ART`, else WebP.

    Args:
        picture: the picture.
        side: longest side, in pixels; a larger picture is reduced.
    """
    scale = side / max(picture.size)
    if scale < 1:
        size = tuple(max(1, round(length * scale)) for length in picture.size)
        picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    small = max(picture.size) <= PIXEL_ART
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG" if small else "WEBP", **({} if small else {"quality": 88, "method": 4}))
    kind = "png" if small else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
