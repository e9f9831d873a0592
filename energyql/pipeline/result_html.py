"""A result as HTML for notebooks, and its pictures in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt
from PIL import Image

from energyql.render.markup import Markup, element
from energyql.render.pictures import NO, YES, picture_uri

MOST_PICTURES = 64
"""A notebook shows no more; a grid or a gallery shows all."""
MOST_QUERY = 300
"""Characters of a query in a picture's alternative text."""
_SIDE = 128


def reading(judged: Mapping[str, npt.NDArray[Any]], index: int, only: Iterable[str] | None = None) -> str:
    """What was read off one picture: "smile, hair = red, skin_tone = 0.42; no hat, beard".

    Args:
        judged: attribute -> value of each picture.
        index: of the picture.
        only: these attributes and no others.
    """
    names = judged if only is None else [name for name in only if name in judged]
    there: list[str] = []
    missing: list[str] = []
    for name in names:
        value = judged[name][index].item()
        if isinstance(value, bool):
            (there if value else missing).append(name)
        else:
            there.append(f"{name} = {value if isinstance(value, str) else f'{value:.2f}'}")
    parts = [", ".join(there)] if there else []
    return "; ".join([*parts, f"no {', '.join(missing)}"] if missing else parts)


def alternative_text(
    judged: Mapping[str, npt.NDArray[Any]], index: int, count: int, judge: str, verdicts: Sequence[tuple[str, bool]]
) -> str:
    """A picture in words: what was read off it, and whether the queries that it is measured by hold.

    Args:
        judged: attribute -> value of each picture.
        index, count: which picture of how many.
        judge: who read the values.
        verdicts: pairs (query, holds).
    """
    read = f"{judge[:1].upper()}{judge[1:]}: {reading(judged, index)}. " if judged else ""
    asked = " ".join(
        f"The query {query if len(query) <= MOST_QUERY else query[:MOST_QUERY] + '…'} "
        f"{'holds' if holds else 'does not hold'}."
        for query, holds in verdicts
    )
    return f"Picture {index + 1} of {count}. {read}{asked}"


def result_html(
    pictures: Sequence[Image.Image],
    *,
    title: str,
    captions: Sequence[str],
    verdicts: Sequence[bool],
    words: Sequence[str],
    footer: str,
) -> Markup:
    """Pictures in rows, with a caption and a tick or cross under each, in the colours of the notebook.

    Args:
        pictures: any number; `MOST_PICTURES` of them are shown.
        title: above them, as code.
        captions, verdicts, words: of each picture: what stands below, tick or cross, alternative text.
        footer: below all.
    """
    shown = zip(pictures[:MOST_PICTURES], captions, verdicts, words, strict=False)
    tiles = [_tile(*tile) for tile in shown]
    more = len(pictures) - len(tiles)
    rows = element("div", *tiles, style="display:flex;flex-wrap:wrap;gap:10px;margin:8px 0")
    note = f"{footer}. Not shown: {more:,} more" if more else footer
    return element("div", element("code", title), rows, element("div", note, style="font-size:12px;opacity:.75"))


def _tile(picture: Image.Image, caption: str, verdict: bool, text: str) -> Markup:
    shown = element(
        "img",
        src=picture_uri(picture, 2 * _SIDE),
        alt=text,
        title=text,
        width=_SIDE,
        style="display:block;max-width:none;border-radius:8px",
    )
    path = "M2 6l3 4 7-9" if verdict else "M2 1l9 9m0-9l-9 9"
    mark = element(
        "svg",
        element("path", d=path, fill="none", stroke=YES if verdict else NO, stroke_width=3),
        width=14,
        height=12,
        viewBox="0 0 14 12",
        aria_hidden="true",
    )
    below = element("span", mark, " ", caption, style="font-size:12px;opacity:.85")
    return element("figure", shown, below, style=f"margin:0;width:{_SIDE}px")
