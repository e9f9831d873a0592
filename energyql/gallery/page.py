"""The page of a gallery: its sections as data, and its HTML as one text, with style, script and pictures inside."""

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

from energyql import __version__
from energyql.attributes.heads import DOUBT
from energyql.files import as_path, check_destination
from energyql.gallery import words
from energyql.gallery.words import Clause
from energyql.language.lexical import plural
from energyql.pipeline.queries import CheckedQuery
from energyql.pipeline.result import Result
from energyql.pipeline.result_words import MARK, alternative_text, captions, failures, reading
from energyql.render.markup import Markup, clean
from energyql.render.pictures import picture_uri
from energyql.sampling import Status

PICTURE_SIDE = 512
"""Longest side of a picture on the page, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One picture on the page.

    Args:
        identity: unique name on the page, by which a link leads to the picture's row in the table of numbers.
        verdicts: a query, and whether the picture satisfies it by the judge, `None` if not judged; on a traversal two.
        columns: heading -> text, for further columns in the row of the table of numbers.
        time: position on a traversal, from 0 (start) to 1 (end).
        odds: on a traversal, the probabilities of its two queries; `None` for a query that is too large to compute.
        read: on a traversal, the values that the judge read off the picture, such as "smile, hair = red".
        number: probability of the query, or energy; "" if it says nothing about this picture.
        failed: the parts of the query that fail by the judge, such as "glasses".
    """

    identity: str
    result: Result
    index: int
    verdicts: Sequence[tuple[str, bool | None]]
    columns: Mapping[str, str]
    time: float = 0.0
    odds: Sequence[float | None] = ()
    read: str = ""
    number: str = ""
    failed: str = ""

    @property
    def source(self) -> str:
        """The picture as a data URI, for the attribute `src`."""
        return picture_uri(self.result.images[self.index], PICTURE_SIDE)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture on the page, in pixels."""
        width, height = self.result.images[self.index].size
        return min(width, PICTURE_SIDE), round(height * min(1.0, PICTURE_SIDE / width))

    @property
    def alternative(self) -> str:
        """Description of the picture in words, for the attribute `alt`."""
        return alternative_text(self.result, self.index, self.verdicts, self.doubtful)

    @property
    def doubtful(self) -> bool:
        """Whether the heads may be wrong although they are certain (`Result.doubtful`); never on a traversal."""
        return not self.odds and bool(self.result.doubtful[self.index])

    @property
    def holds(self) -> bool | None:
        """Whether the picture satisfies its query, or one of the two of a traversal; `None` if not judged."""
        verdicts = [holds for _, holds in self.verdicts if holds is not None]
        return any(verdicts) if verdicts else None


@dataclass(frozen=True, slots=True, eq=False)
class _OneResult:
    """Base class of sections whose pictures are all in one `Result`."""

    result: Result

    @property
    def results(self) -> list[Result]:
        """List with the one result of the section."""
        return [self.result]


@dataclass(frozen=True, slots=True, eq=False)
class QuerySection(_OneResult):
    """One query with its pictures.

    Args:
        joined: how `clauses` are joined, such as "all must hold".
        clauses: the parts of the query, and the probability of each part in each picture.
        same_as: number, from 1, of an earlier section whose query has the same meaning, or `None`.
    """

    query: CheckedQuery
    joined: str
    clauses: list[Clause]
    same_as: int | None = None
    kind: ClassVar = "query"

    @property
    def heading(self) -> str:
        """Title of the section in the table of contents."""
        return _heading(self.query)

    def tiles(self, identity: str) -> list[list[Tile]]:
        """Pictures of the section by rows; `identity` is its unique name."""
        return [_judged_tiles(identity, self.result, self.clauses)]


@dataclass(frozen=True, slots=True, eq=False)
class RefusedSection:
    """One query of which the verifier accepted no picture, and the reason."""

    query: CheckedQuery
    reason: str
    kind: ClassVar = "refused"

    @property
    def results(self) -> list[Result]:
        """Empty list."""
        return []

    @property
    def heading(self) -> str:
        """Title of the section in the table of contents."""
        return _heading(self.query)

    def tiles(self, identity: str) -> list[list[Tile]]:
        """Empty list."""
        return []


@dataclass(frozen=True, slots=True, eq=False)
class TruthRow:
    """One combination of a truth table, such as "smile AND NOT hat".

    Args:
        values: whether each literal is true.
        result: the pictures; `None` if there are none, for a `reason`.
        contradiction: whether no picture can satisfy the query.
    """

    values: tuple[bool, ...]
    query: str
    result: Result | None
    reason: str = ""
    contradiction: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class TruthTable:
    """The pictures of every combination of some literals, a row for each.

    All literals are true in the first row; the last literal alternates from row to row. The sampler starts all pictures
    of one column from the same latent.
    """

    literals: tuple[str, ...]
    rows: list[TruthRow]
    kind: ClassVar = "table"

    @property
    def results(self) -> list[Result]:
        """Results of the rows that have pictures."""
        return [row.result for row in self.rows if row.result is not None]

    @property
    def heading(self) -> str:
        """Title of the section in the table of contents."""
        return f"Truth table of {', '.join(self.literals)}"

    def tiles(self, identity: str) -> list[list[Tile]]:
        """Pictures of the section by rows; `identity` is its unique name."""
        return [
            [] if row.result is None else _judged_tiles(f"{identity}-{number}", row.result, combination=row.query)
            for number, row in enumerate(self.rows)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Traversal(_OneResult):
    """Paths through the latent space, from samples of one query to samples of another.

    Args:
        result: the pictures: all steps of the first path, then all of the second, and so on.
        times: position of each step on its path, from 0 (start) to 1 (end).
        probability: of `start` and of `end`, in each picture, (n,); `None` for a query that is too large to compute.
        holds: whether each picture satisfies `start` and `end` by the judge, (n,); `None` if not judged.
    """

    start: CheckedQuery
    end: CheckedQuery
    times: list[float]
    probability: Sequence[npt.NDArray[np.float64] | None]
    holds: Sequence[npt.NDArray[np.bool_] | None]
    kind: ClassVar = "traversal"

    @property
    def paths(self) -> int:
        """Number of paths."""
        return len(self.result) // len(self.times)

    @property
    def heading(self) -> str:
        """Title of the section in the table of contents."""
        return " → ".join(map(_heading, (self.start, self.end)))

    def verdicts(self, index: int) -> list[tuple[str, bool | None]]:
        """Pairs for `start` and `end`: the query, and whether picture `index` satisfies it (`None` if not judged)."""
        queries = zip((self.start, self.end), self.holds, strict=True)
        return [(str(query.expr), None if holds is None else bool(holds[index])) for query, holds in queries]

    def tiles(self, identity: str) -> list[list[Tile]]:
        """Pictures of the section by paths; `identity` is its unique name."""
        steps, tiles = len(self.times), list[Tile]()
        names = list(dict.fromkeys([*self.start.rule.attributes, *self.end.rule.attributes]))
        for i in range(len(self.result)):
            path, step = divmod(i, steps)
            odds = [None if values is None else float(values[i]) for values in self.probability]
            texts = {f"P({letter})": words.odds_text(p) for letter, p in zip("AB", odds, strict=True)}
            columns, read = {"step": f"{step + 1} of {steps}"} | texts, reading(self.result.judged, i, names)
            name = f"{identity}-{path}-{step}"
            tiles.append(Tile(name, self.result, i, self.verdicts(i), columns, self.times[step], odds, read))
        return [tiles[i : i + steps] for i in range(0, len(tiles), steps)]


def _heading(query: CheckedQuery) -> str:
    return query.title or str(query.expr)


def _judged_tiles(identity: str, result: Result, clauses: Sequence[Clause] = (), **columns: str) -> list[Tile]:
    """Tiles of the pictures of one query, with columns for its clauses and the given texts."""
    query, tiles = result.provenance["canonical"], []
    verdicts = [None] * len(result) if result.satisfied is None else result.satisfied.tolist()
    for i, (holds, number, failed) in enumerate(zip(verdicts, captions(result), failures(result), strict=True)):
        texts = columns | {f"P({clause.text})": clause.describe(i) for clause in clauses}
        tiles.append(Tile(f"{identity}-{i}", result, i, [(query, holds)], texts, number=number, failed=failed))
    return tiles


Section = QuerySection | RefusedSection | TruthTable | Traversal


def number_table(tiles: Sequence[Tile]) -> list[dict[str, str]]:
    """The page's table of numbers, for each picture a dict: heading of a column -> text.

    The column "solver", the status of the sampler, is there only if one is not OK; "doubtful" only if the heads may be
    wrong about a picture.
    """
    doubts = any(tile.doubtful for tile in tiles)
    failed = any(tile.result.status[tile.index] != Status.OK for tile in tiles)
    rows = []
    for tile in tiles:
        result, index = tile.result, tile.index
        row = {
            "picture": str(index + 1),
            "seed": f"{result.provenance['seed']}, picture {result.index[index]}",
            "verdict": words.verdict_phrase(tile.verdicts),
            "energy": words.energy_text(result, index),
            **tile.columns,
        }
        row |= {MARK: words.yes_no(tile.doubtful)} if doubts else {}
        row |= {"read off the picture": reading(result.judged, index)} if result.judged else {}
        row |= {"solver": result.status[index].name.lower().replace("_", " ")} if failed else {}
        rows.append(row)
    return rows


_TEMPLATES = Environment(
    loader=PackageLoader("energyql.gallery"), autoescape=True, undefined=StrictUndefined, finalize=clean,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
_TEMPLATES.globals |= {"words": words, "plural": plural, "number_table": number_table, "mark": MARK, "doubt": DOUBT}


def summary(sections: Sequence[Section]) -> str:
    """One line such as "2 queries, 16 pictures; 15 of 16 satisfied (94 %), says the image judge"."""
    nouns = (
        ("query", "query", "queries"), ("refused", "query without pictures", "queries without pictures"),
        ("table", "truth table", ""), ("traversal", "traversal", ""),
    )  # fmt: skip
    kinds = [section.kind for section in sections]
    counts = [plural(kinds.count(kind), one, several) for kind, one, several in nouns if kind in kinds]
    results = [result for section in sections for result in section.results]
    judged = [result for section in sections if section.kind != "traversal" for result in section.results]
    parts = ", ".join([*counts, *([plural(sum(map(len, results)), "picture")] if results else [])]) or "empty"
    share = words.share(judged)
    if share is None:
        return parts + (f"; not judged: {judged[0].provenance['unjudged']}" if judged else "")
    satisfied, total = share
    left = sum(map(len, judged)) - total
    others = f"; {plural(left, 'picture')} not judged" if left else ""
    verdict = f"{satisfied:,} of {total:,} satisfied ({words.percent(satisfied, total)})"
    return f"{parts}; {verdict}, says the {results[0].provenance['judge']}{others}"


def same_queries(sections: Sequence[Section]) -> list[str]:
    """Line for each query with the same meaning as an earlier one: "line 3 (A) means the same as line 1 (B)"."""
    queries = {number: each for number, each in enumerate(sections, 1) if isinstance(each, QuerySection)}
    return [
        f"{section.query.name} means the same as {queries[section.same_as].query.name}"
        for section in queries.values()
        if section.same_as is not None
    ]


def render(sections: Sequence[Section], *, title: str = "", about: str = "") -> str:
    """HTML of a page; blank lines in `about` separate paragraphs, and the default `title` names the model."""
    results = [result for section in sections for result in section.results]
    model = results[0].provenance["model"] if results else ""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return _TEMPLATES.get_template("page.html").render(
        policy=policy, title=title or (f"Gallery of {model}" if model else "Gallery"), summary=summary(sections),
        about=[part for part in re.split(r"\n\s*\n", about) if part.strip()], sections=sections,
        version=__version__, style=style, script=script,
    )  # fmt: skip


def _digest(text: str) -> str:
    """Digest of a script or style sheet for the page's security policy, by which browsers refuse all others."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


@cache
def _asset(name: str) -> Markup:
    return Markup(files("energyql.gallery").joinpath(name).read_text(encoding="utf-8"))


def page_path(path: str | Path) -> Path:
    """Path of the HTML file for a page; `path` is a .html file, or a folder, in which it is `index.html`.

    Raises:
        ArgumentError: `path` has a suffix other than .html and .htm, or cannot be written.
    """
    target = as_path(path)
    is_folder = os.path.isdir(target) or not target.suffix
    return check_destination(target / "index.html" if is_folder else target, (".html", ".htm"))
