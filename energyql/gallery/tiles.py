"""Pictures of a page, each with its row in the table of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from energyql.gallery import words
from energyql.pipeline.result import Result
from energyql.pipeline.result_html import alternative_text, reading
from energyql.render.pictures import picture_uri
from energyql.sampling import Status

PICTURE_SIDE = 512
"""Longest side of a picture on the page, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One picture.

    Args:
        identity: of its row in the table of numbers; unique on the page.
        result: where the picture comes from.
        index: its place in `result`.
        verdicts: the judge's verdict on each query that the picture is measured by: pairs (query, holds).
        columns: further columns of the table of numbers: heading -> text.
        time: position on a traversal, from 0 to 1.
        odds: on a traversal, the probabilities of both queries.
        read: on a traversal, the values that the judge read.
    """

    identity: str
    result: Result
    index: int
    verdicts: Sequence[tuple[str, bool]]
    columns: Mapping[str, str]
    time: float = 0.0
    odds: Sequence[float | None] = ()
    read: str = ""

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return picture_uri(self.result.images[self.index], PICTURE_SIDE)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture on the page, in pixels."""
        width, height = self.result.images[self.index].size
        return min(width, PICTURE_SIDE), round(height * min(1.0, PICTURE_SIDE / width))

    @property
    def alternative(self) -> str:
        """The picture in words."""
        result = self.result
        return alternative_text(result.judged, self.index, len(result), result.provenance["judge"], self.verdicts)

    @property
    def holds(self) -> bool:
        """Whether any of its queries holds."""
        return any(holds for _, holds in self.verdicts)

    @property
    def energy(self) -> float:
        """In nats, lower is better."""
        return float(self.result.energy[self.index])

    @property
    def caption(self) -> str:
        """Probability or energy, for below the picture."""
        return words.value(self.result, self.index)


def number_table(tiles: Sequence[Tile]) -> list[dict[str, str]]:
    """Return a row for each tile: heading -> text. The solver's status is there if any sample has a status but OK."""
    failed = any(tile.result.status[tile.index] != Status.OK for tile in tiles)
    rows = []
    for tile in tiles:
        result, index = tile.result, tile.index
        row = {
            "picture": str(index + 1),
            "seed": f"{result.provenance['seed']}, picture {result.index[index]}",
            "verdict": words.verdict(tile.verdicts),
            "energy": words.energy_text(result, index),
            **tile.columns,
            "read off the picture": reading(result.judged, index),
        }
        rows.append(row | ({"solver": result.status[index].name.lower().replace("_", " ")} if failed else {}))
    return rows
