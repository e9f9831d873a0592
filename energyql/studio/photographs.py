"""Pictures that a visitor sends: photographs to invert, and pictures whose provenance is wanted. Bounded in pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps

from energyql.studio.problems import StudioError

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""Formats that are read, by their media type: no other decoder sees the data."""


def check_photograph(data: bytes, most: int) -> None:
    """Read the header of a picture, so that a wrong one is refused before it waits.

    Raises:
        StudioError: it is no PNG, JPEG or WebP, or has more than `most` pixels.
    """
    with _opened(data, most):
        pass


def read_photograph(data: bytes, most: int) -> Image.Image:
    """Decode a picture and turn it upright.

    Raises:
        StudioError: it is no PNG, JPEG or WebP, it is damaged, or it has more than `most` pixels.
    """
    with _opened(data, most) as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        return opened.convert("RGB")


def text_of(data: bytes, most: int) -> str:
    """Return the text field "energyql" of a PNG; empty if it has none. No pixel is decoded.

    Raises:
        StudioError: it is no picture.
    """
    with _opened(data, most) as opened:
        text = opened.info.get("energyql", "")
        return text if isinstance(text, str) else ""


@contextmanager
def _opened(data: bytes, most: int) -> Iterator[Image.Image]:
    """Open a picture; whatever a decoder raises inside the block becomes a `StudioError`."""
    try:
        with Image.open(io.BytesIO(data), formats=list(FORMATS.values())) as opened:
            if opened.width * opened.height > most:
                raise Image.DecompressionBombError
            yield opened
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow has bounds of its own
        message = f"the picture has more than {most / 1e6:g} million pixels"
        raise StudioError("TooLarge", message, hint="reduce it first") from None
    except StudioError:
        raise
    except Exception as error:  # decoders raise errors of many kinds for damaged data
        hint = "send a PNG, a JPEG or a WebP"
        raise StudioError(
            "InvalidRequest", "the picture cannot be read: it is damaged or of another kind", hint=hint
        ) from error
