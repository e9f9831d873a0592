"""Judged pictures in words, and the tile of one picture in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt
from PIL import Image

from energyql.attributes.doubt import DOUBT
from energyql.render.markup import Markup, element
from energyql.render.pictures import DOUBTFUL, NO, YES, picture_uri

MOST_QUERY = 300
"""Most characters of a query in a picture's alternative text."""
HOLDS = {True: "holds", False: "does not hold", None: "is not judged"}
"""Verdicts on a query, in words."""
MARK = "doubtful"
"""Mark of a doubtful sample; see `Result`."""
_SIDE = 128


def reading(judged: Mapping[str, npt.NDArray[Any]], index: int, only: Iterable[str] | None = None) -> str:
    """Return the judged values of one picture, of all or `only` some attributes: smile, hair = red; no hat, no cap."""
    present: list[str] = []
    absent: list[str] = []
    for name in judged if only is None else [name for name in only if name in judged]:
        value = judged[name][index].item()
        if isinstance(value, bool):
            (present if value else absent).append(name if value else f"no {name}")
        else:
            present.append(f"{name} = {value if isinstance(value, str) else f'{value:.2f}'}")
    return "; ".join(", ".join(part) for part in (present, absent) if part)


def alternative_text(
    judged: Mapping[str, npt.NDArray[Any]],
    index: int,
    count: int,
    judge: str | None,
    verdicts: Sequence[tuple[str, bool | None]],
    doubtful: bool = False,
) -> str:
    """Describe a picture in words.

    Args:
        judged: values of all pictures by the judge.
        index: the picture, counted from 0.
        count: of all pictures.
        judge: name of the judge.
        verdicts: pairs of a query, and whether it holds.
        doubtful: whether the sample is, see `Result`.
    """
    read = f"{judge[:1].upper()}{judge[1:]}: {reading(judged, index)}. " if judge and judged else ""
    asked = " ".join(
        f"The query {query if len(query) <= MOST_QUERY else query[:MOST_QUERY] + '…'} {HOLDS[holds]}."
        for query, holds in verdicts
    )
    doubt = f" It is doubtful: {DOUBT}." if doubtful else ""
    return f"Picture {index + 1} of {count}. {read}{asked}{doubt}"


def tile(picture: Image.Image, caption: str, holds: bool | None, text: str, doubtful: bool = False) -> Markup:
    """Return a picture above its caption, its verdict, a tick or a cross, and the mark of a doubtful sample.

    All but the marks has the colours of the notebook.
    """
    source, style = picture_uri(picture, 2 * _SIDE), "display:block;max-width:none;border-radius:8px"
    shown = element("img", src=source, alt=text, title=text, width=_SIDE, style=style)
    mark: Markup | str = ""
    if holds is not None:
        path = "M2 6l3 4 7-9" if holds else "M2 1l9 9m0-9l-9 9"
        stroke = element("path", d=path, fill="none", stroke=YES if holds else NO, stroke_width=3)
        mark = element("svg", stroke, width=14, height=12, viewBox="0 0 14 12", aria_hidden="true")
    warning = element("strong", MARK, title=DOUBT, style=f"color:{DOUBTFUL};font-weight:600") if doubtful else ""
    below = element("span", mark, " ", caption, " " if doubtful else "", warning, style="font-size:12px;opacity:.85")
    return element("figure", shown, below, style=f"margin:0;width:{_SIDE}px")
