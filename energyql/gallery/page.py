"""The page of a gallery: its sections as data, and its HTML, which contains style, script and pictures."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined

from energyql.attributes.heads import DOUBT
from energyql.errors import ArgumentError
from energyql.files import as_path, check_writable
from energyql.gallery import words
from energyql.gallery.words import Clause
from energyql.pipeline.queries import CheckedQuery
from energyql.pipeline.result import MARK, Result, alternative_text, reading
from energyql.render.markup import Markup, clean, element
from energyql.render.pictures import picture_uri
from energyql.sampling import Status
from energyql.version import __version__

PICTURE_SIDE = 512
"""Longest side of a picture on the page, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One picture on the page.

    Args:
        identity: name of its row in the table of numbers; unique on the page.
        result: the result that holds the picture.
        index: position of the picture in `result`.
        verdicts: pairs (query, whether it holds according to the judge, `None` if not judged): one, or on a traversal
            two.
        columns: heading -> text of further columns of the table of numbers.
        time: position on a traversal, from 0 to 1.
        odds: on a traversal, the probabilities of both queries.
        read: on a traversal, the values that the judge read, in words.
    """

    identity: str
    result: Result
    index: int
    verdicts: Sequence[tuple[str, bool | None]]
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
        """Description of the picture in words."""
        result = self.result
        judge, count = result.provenance["judge"], len(result)
        return alternative_text(result.judged, self.index, count, judge, self.verdicts, self.doubtful)

    @property
    def doubtful(self) -> bool:
        """Whether the sample is doubtful; always False on a traversal, most of whose pictures satisfy neither query."""
        return not self.odds and bool(self.result.doubtful[self.index])

    @property
    def holds(self) -> bool | None:
        """Whether any query of the picture holds; `None` if it was not judged."""
        verdicts = [holds for _, holds in self.verdicts if holds is not None]
        return any(verdicts) if verdicts else None


@dataclass(frozen=True, slots=True, eq=False)
class QuerySection:
    """One query with its pictures.

    Args:
        query: the query.
        result: the pictures.
        joined: how the clauses are joined, such as "all must hold".
        clauses: the parts of the query and their probabilities.
        same_as: number of an earlier section, from 1, whose query means the same; `None` without one.
    """

    query: CheckedQuery
    result: Result
    joined: str
    clauses: list[Clause]
    same_as: int | None = None
    kind: ClassVar = "query"

    @property
    def results(self) -> list[Result]:
        """Results with the pictures of the section."""
        return [self.result]

    @property
    def heading(self) -> str:
        """Title in the table of contents."""
        return self.query.title or str(self.query.expr)

    def tiles(self, identity: str) -> list[list[Tile]]:
        """Return the pictures of each row; `identity` is the unique name of the section."""
        columns = [{f"P({part.text})": part.describe(i) for part in self.clauses} for i in range(len(self.result))]
        return [_judged_tiles(identity, self.result, columns)]


@dataclass(frozen=True, slots=True, eq=False)
class TruthRow:
    """One combination of a truth table.

    Args:
        values: whether each literal is true.
        query: the canonical query of the combination.
        result: its pictures; `None` for a contradiction.
        reason: why the combination is a contradiction; else empty.
    """

    values: tuple[bool, ...]
    query: str
    result: Result | None
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class TruthTable:
    """Every combination of some literals: the first has all true, and from row to row the last changes fastest.

    Pictures in one column of the page start from one latent.
    """

    literals: tuple[str, ...]
    rows: list[TruthRow]
    kind: ClassVar = "table"

    @property
    def results(self) -> list[Result]:
        """Results with the pictures of the section."""
        return [row.result for row in self.rows if row.result is not None]

    @property
    def heading(self) -> str:
        """Title in the table of contents."""
        return f"Truth table of {', '.join(self.literals)}"

    def tiles(self, identity: str) -> list[list[Tile]]:
        """Return the pictures of each row; `identity` is the unique name of the section."""
        return [
            _judged_tiles(f"{identity}-{number}", row.result, [{"combination": row.query}] * len(row.result))
            if row.result is not None
            else []
            for number, row in enumerate(self.rows)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Traversal:
    """Paths through the latent space, from samples of one query to samples of another.

    Args:
        start: the query at the start of each path.
        end: the query at its end.
        times: position of each step, from 0 (start) to 1 (end).
        result: the pictures: all steps of the first path, then all of the second, and so on.
        probability: for each of the two queries, its probability in every picture; `None` if it is too large.
        holds: for each of the two queries, whether it holds in every picture according to the judge; `None` if not
            judged.
    """

    start: CheckedQuery
    end: CheckedQuery
    times: list[float]
    result: Result
    probability: Sequence[npt.NDArray[np.float64] | None]
    holds: Sequence[npt.NDArray[np.bool_] | None]
    kind: ClassVar = "traversal"

    @property
    def paths(self) -> int:
        """Number of paths."""
        return len(self.result) // len(self.times)

    @property
    def results(self) -> list[Result]:
        """Results with the pictures of the section."""
        return [self.result]

    @property
    def heading(self) -> str:
        """Title in the table of contents."""
        return " → ".join(query.title or str(query.expr) for query in (self.start, self.end))

    def tiles(self, identity: str) -> list[list[Tile]]:
        """Return the pictures of each path; `identity` is the unique name of the section."""
        steps = len(self.times)
        return [
            [self._tile(f"{identity}-{path}-{step}", path * steps + step, step) for step in range(steps)]
            for path in range(self.paths)
        ]

    def _tile(self, identity: str, index: int, step: int) -> Tile:
        queries = self.start, self.end
        verdicts = [
            (str(query.expr), None if holds is None else bool(holds[index]))
            for query, holds in zip(queries, self.holds, strict=True)
        ]
        odds = [None if values is None else float(values[index]) for values in self.probability]
        probabilities = {f"P({letter})": "?" if p is None else f"{p:.2f}" for letter, p in zip("AB", odds, strict=True)}
        read = reading(self.result.judged, index, words.attribute_names(self.start.expr, self.end.expr))
        columns = {"step": f"{step + 1} of {len(self.times)}", **probabilities}
        return Tile(identity, self.result, index, verdicts, columns, self.times[step], odds, read)


def _judged_tiles(identity: str, result: Result, columns: Sequence[Mapping[str, str]]) -> list[Tile]:
    """Return a tile for each picture of one query.

    Args:
        identity: beginning of their unique names.
        result: the pictures.
        columns: for each picture, heading -> text of further columns of the table of numbers.
    """
    query = result.provenance["canonical"]
    verdicts = [None] * len(result) if result.satisfied is None else result.satisfied.tolist()
    return [Tile(f"{identity}-{i}", result, i, [(query, holds)], columns[i]) for i, holds in enumerate(verdicts)]


Section = QuerySection | TruthTable | Traversal


def judged_results(section: Section) -> list[Result]:
    """Return the results of a section that are meant to satisfy their query; none for a traversal."""
    return [] if isinstance(section, Traversal) else section.results


def number_table(tiles: Sequence[Tile]) -> list[dict[str, str]]:
    """Return a row of the table of numbers for each tile: heading -> text.

    There is a column for the status of the solver if any sample has another status than OK, and one for doubts if any
    sample is doubtful.
    """
    doubts = any(tile.doubtful for tile in tiles)
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
            **({MARK: "yes" if tile.doubtful else "no"} if doubts else {}),
            **({"read off the picture": reading(result.judged, index)} if result.judged else {}),
        }
        rows.append(row | ({"solver": result.status[index].name.lower().replace("_", " ")} if failed else {}))
    return rows


PAGE_SUFFIXES = (".html", ".htm")
FRAME_HEIGHT = 720
"""Height of a page inside a notebook, in pixels."""

_TEMPLATES = Environment(
    loader=PackageLoader("energyql.gallery"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=clean,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals |= {
    "words": words, "judged_results": judged_results, "number_table": number_table, "mark": MARK, "doubt": DOUBT
}  # fmt: skip


def summary(sections: Sequence[Section]) -> str:
    """Return one line: the numbers of queries, of pictures, and of pictures that satisfy their query."""
    kinds = ((QuerySection, "query", "queries"), (TruthTable, "truth table", ""), (Traversal, "traversal", ""))
    counts = [(sum(isinstance(section, kind) for section in sections), one, several) for kind, one, several in kinds]
    parts = [words.plural(count, one, several) for count, one, several in counts if count]
    results = [result for section in sections for result in section.results]
    if not results:
        return ", ".join(parts) or "empty"
    parts.append(words.plural(sum(map(len, results)), "picture"))
    judged = [result for section in sections for result in judged_results(section)]
    share = words.share(judged)
    if share is None:
        return ", ".join(parts) + (f"; not judged: {judged[0].provenance['unjudged']}" if judged else "")
    satisfied, total = share
    verdict = f"{satisfied:,} of {total:,} satisfied ({words.percent(satisfied, total)})"
    left = sum(map(len, judged)) - total
    others = f"; {words.plural(left, 'picture')} not judged" if left else ""
    return f"{', '.join(parts)}; {verdict}, says the {results[0].provenance['judge']}{others}"


def render(sections: Sequence[Section], *, title: str = "", about: str = "") -> str:
    """Return the HTML of a page.

    Args:
        sections: its sections.
        title: its title; by default it names the model.
        about: text under the title; a blank line begins a new paragraph.
    """
    results = [result for section in sections for result in section.results]
    model = results[0].provenance["model"] if results else ""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return _TEMPLATES.get_template("page.html").render(
        policy=policy,
        title=title or (f"Gallery of {model}" if model else "Gallery"),
        about=[part for part in re.split(r"\n\s*\n", about) if part.strip()],
        summary=summary(sections),
        sections=sections,
        version=__version__,
        style=style,
        script=script,
    )


def frame(html: str) -> Markup:
    """Return an element that shows the page `html` inside another page, such as a notebook."""
    return element("iframe", srcdoc=html, width="100%", height=FRAME_HEIGHT, title="Gallery", style="border:0")


def _digest(text: str) -> str:
    """Return the digest by which the security policy of the page allows an inline script or style, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


@cache
def _asset(name: str) -> Markup:
    return Markup(files("energyql.gallery").joinpath(name).read_text(encoding="utf-8"))


def page_path(path: str | Path) -> Path:
    """Return the path of the file of a page.

    Args:
        path: a file that ends in .html, or a folder, in which it is `index.html`.

    Raises:
        ArgumentError: `path` ends in another suffix, or cannot be written.
    """
    path = as_path(path)
    target = path
    if os.path.isdir(path) or not path.suffix:
        target = path / "index.html"
    elif path.suffix.lower() not in PAGE_SUFFIXES:
        raise ArgumentError(f"a gallery cannot be saved as {path.suffix}", hint="end the path in .html, or in /")
    check_writable(target, target.parent)
    return target
