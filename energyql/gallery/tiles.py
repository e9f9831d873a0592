"""Pictures on a page: walls of tiles that can be enlarged, and the table of their numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from energyql.gallery import words
from energyql.gallery.clauses import Clause
from energyql.pipeline.result import Result
from energyql.pipeline.result_html import alternative_text, reading
from energyql.render.markup import Markup, element
from energyql.render.pictures import picture_uri
from energyql.sampling import Status

PICTURE_SIDE = 512
"""Longest side of a picture on the page, in pixels."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture.

    Args:
        identity: of its row in the table of numbers; unique on the page.
        result, index: which picture.
        verdicts: what the judge says of each query that the picture is measured by: pairs (query, holds).
        below: what stands under it.
        marks: what stands in its corner.
        cells: more columns of the table of numbers: heading -> text.
    """

    identity: str
    result: Result
    index: int
    verdicts: Sequence[tuple[str, bool]]
    below: Markup
    marks: Markup
    cells: Mapping[str, str] = field(default_factory=dict)


def answer_tile(identity: str, result: Result, index: int, query: str, cells: Mapping[str, str] | None = None) -> Tile:
    """The tile of a picture that answers one query, canonical text: with a tick or a cross, and its probability."""
    satisfied = bool(result.satisfied[index])
    number = element("span", f"#{result.index[index]}", class_="number")
    below = element("span", words.value(result, index), number, class_="below")
    return Tile(identity, result, index, [(query, satisfied)], below, badge(satisfied), cells or {})


def wall(tiles: Sequence[Tile], *, label: str, kind: str = "") -> Markup:
    """Tiles side by side, as many in a row as there is room for.

    Args:
        label: what a screen reader calls the group.
        kind: a further class, for the style sheet.
    """
    return element("ul", *map(_tile, tiles), class_=f"wall {kind}".strip(), role="list", aria_label=label)


def numbers(tiles: Sequence[Tile]) -> Markup:
    """A table with a row for each tile, which the enlarged view reads as well."""
    headings = ["picture", "seed", "verdict", "energy", *tiles[0].cells, "read off the picture"]
    if any(tile.result.status[tile.index] != Status.OK for tile in tiles):
        headings.append("solver")
    head = element("tr", *(element("th", heading, scope="col") for heading in headings))
    body = [_row(tile, "solver" in headings) for tile in tiles]
    return element("table", element("thead", head), element("tbody", *body), class_="numbers")


def clause_cells(clauses: Sequence[Clause], index: int) -> dict[str, str]:
    """The probability of every clause in one picture, as cells of the table of numbers."""
    return {
        f"P({clause.text})": "too large to tell" if clause.probability is None else f"{clause.probability[index]:.3f}"
        for clause in clauses
    }


def strip(probability: npt.NDArray[np.float64], needed: bool) -> Markup:
    """A bar a picture, as high as the probability.

    Args:
        needed: whether a low bar means that the query fails; it then has the colour of failure.
    """
    width, gap, height = 9, 3, 24
    bars = [
        element(
            "rect",
            x=i * (width + gap),
            y=f"{height * (1 - max(p, 0.04)):.1f}",
            width=width,
            height=f"{height * max(p, 0.04):.1f}",
            rx=1,
            class_="unsure" if needed and p < 0.5 else "sure",
        )
        for i, p in enumerate(map(float, probability))
    ]
    total = len(bars) * (width + gap) - gap
    return element("svg", *bars, class_="strip", viewBox=f"0 0 {total} {height}", width=total, aria_hidden="true")


def bar(probability: float, kind: str) -> Markup:
    """One lying bar, as long as the probability."""
    back = element("rect", class_="back", width=100, height=6)
    front = element("rect", class_=kind, width=f"{100 * min(max(probability, 0.0), 1.0):.1f}", height=6)
    return element(
        "svg", back, front, class_="bar", viewBox="0 0 100 6", preserveAspectRatio="none", aria_hidden="true"
    )


def badge(satisfied: bool) -> Markup:
    """A tick or a cross: told apart by shape, not by colour alone."""
    name = "yes" if satisfied else "no"
    return element("svg", element("use", href=f"#{name}"), class_=f"badge {name}", aria_hidden="true")


def _tile(tile: Tile) -> Markup:
    picture, energy = tile.result.images[tile.index], float(tile.result.energy[tile.index])
    holds = any(verdict for _, verdict in tile.verdicts)
    shown = element(
        "img",
        src=picture_uri(picture, PICTURE_SIDE),
        alt=alternative_text(
            tile.result.judged, tile.index, len(tile.result), tile.result.provenance["judge"], tile.verdicts
        ),
        width=min(picture.width, PICTURE_SIDE),
        height=round(picture.height * min(1.0, PICTURE_SIDE / picture.width)),
        decoding="async",
    )
    framed = element("span", shown, tile.marks, class_="frame")
    return element(
        "li",
        element("button", framed, tile.below, type="button", class_="tile", data_row=tile.identity),
        class_="yes" if holds else "no",
        data_energy="Infinity" if math.isnan(energy) else str(energy).replace("inf", "Infinity"),
    )


def _row(tile: Tile, with_status: bool) -> Markup:
    result, index = tile.result, tile.index
    energy = float(result.energy[index])
    exact = result.provenance["semantics"] == "exact"
    cells = [
        f"{result.provenance['seed']}, picture {result.index[index]}",
        words.verdict(tile.verdicts),
        f"{energy:.4g}" + (f" (P {math.exp(-energy):.4f})" if exact else ""),
        *tile.cells.values(),
        reading(result.judged, index),
    ]
    if with_status:
        cells.append(result.status[index].name.lower().replace("_", " "))
    head = element("th", str(index + 1), scope="row")
    return element("tr", head, *(element("td", cell) for cell in cells), id=tile.identity)
