"""Labelled pictures as HTML for a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from energyql.render.markup import Markup, element
from energyql.render.pictures import DOUBTFUL, NO, YES, Cell, picture_uri

_SIDE = 128
"""Width of a picture, in pixels of the page."""


def notebook_html(cells: Sequence[Cell], texts: Sequence[str], *, title: str, footer: str, doubt: str) -> Markup:
    """HTML of pictures in rows.

    Args:
        cells: the pictures, with what stands below each.
        texts: for each picture a text for readers who cannot see it.
        title: a query, shown above the pictures.
        footer: text below the pictures.
        doubt: explanation of the marks, shown when the mouse is on one.
    """
    tiles = [_figure(cell, text, doubt) for cell, text in zip(cells, texts, strict=True)]
    rows = element("div", *tiles, style="display:flex;flex-wrap:wrap;gap:10px;margin:8px 0")
    note = element("div", footer, style="font-size:12px;opacity:.75")
    return element("div", element("code", title), rows, note)


def _figure(cell: Cell, text: str, doubt: str) -> Markup:
    source, style = picture_uri(cell.picture, 2 * _SIDE), "display:block;max-width:none;border-radius:8px"
    image = element("img", src=source, alt=text, title=text, width=_SIDE, style=style)
    mark: Markup | str = ""
    if cell.satisfied is not None:
        path = "M2 6l3 4 7-9" if cell.satisfied else "M2 1l9 9m0-9l-9 9"
        stroke = element("path", d=path, fill="none", stroke=YES if cell.satisfied else NO, stroke_width=3)
        mark = element("svg", stroke, width=14, height=12, viewBox="0 0 14 12", aria_hidden="true")
    style = f"color:{DOUBTFUL};font-weight:600"
    warning = element("strong", cell.mark, title=doubt, style=style) if cell.mark else ""
    parts = [part for part in (mark, cell.caption, warning, cell.note) if part]
    spaced = [piece for part in parts for piece in (part, " ")][:-1]
    below = element("span", *spaced, style="font-size:12px;opacity:.85")
    return element("figure", image, below, style=f"margin:0;width:{_SIDE}px")
