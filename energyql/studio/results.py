"""Results of jobs: the pictures that are drawn so far, and their description in the API."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.attributes.heads import DOUBT
from energyql.editing.edit import Edit
from energyql.editing.invert import Inversion
from energyql.editing.step import Leaks
from energyql.gallery import words
from energyql.gallery.page import Section, Traversal
from energyql.gallery.words import ALL, Clause, score_clauses
from energyql.language import Expr, bind, parse
from energyql.pipeline.checks import verdict
from energyql.pipeline.queries import CheckedQuery
from energyql.pipeline.result import HOLDS, Result, alternative_text
from energyql.render.pictures import picture_uri
from energyql.studio.jobs import Job
from energyql.studio.memory import held_bytes
from energyql.studio.schemas import Change, ClauseInfo, Fact, JobInfo, JobKind, Photograph, Picture, PictureClause, Row
from energyql.vocabulary import Vocabulary

PICTURE_SIDE = 512
"""Longest side of a picture in a response, in pixels; the download has the full size."""
JOB_BYTES = 8192
"""Approximate memory of a job without pictures, in bytes."""


@dataclass(eq=False)
class JobResult:
    """The result of one job so far. One thread adds pictures while others read; each reader sees a consistent state.

    Attributes:
        kind: kind of the job.
        total: number of pictures when the job is done, as far as that is known.
        vocabulary: attributes of the model.
        held: memory of the result, in bytes.
        results: the pictures in their order: one result for a drawing; for an edit one for the start and one for each
            step; else one for each row.
        pictures: the pictures as the API describes them.
        joined: how the parts of the last query are joined, in words.
        clauses: the parts of the last query and their probabilities.
        edit: the finished edit.
        sections: the sections of the gallery page of a table, a traversal or a gallery.
        literals: the literals of a table.
        rows: the rows of a table or a gallery.
        photograph: the inversion of a photograph.
    """

    kind: JobKind
    total: int
    vocabulary: Vocabulary
    held: int = JOB_BYTES
    results: list[Result] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    joined: str = ""
    clauses: list[Clause] = field(default_factory=list)
    edit: Edit | None = None
    sections: list[Section] = field(default_factory=list)
    literals: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    photograph: Inversion | None = None

    def extend(self, expr: Expr, part: Result) -> None:
        """Add pictures to those of a drawing; `expr` is its query, bound."""
        start, whole = len(self.pictures), Result.join([*self.results, part])
        self.joined, self.clauses = score_clauses(expr, whole, self.vocabulary)
        new = [self._picture(whole, i, (0, i)) for i in range(start, len(whole))]
        self._add([whole], new)

    def add_step(self, result: Result, leaks: Leaks | None = None) -> None:
        """Add the start of an edit; or, with `leaks`, a step and the attributes that changed in it."""
        self._score(result)
        column = len(self.results)
        new = [self._picture(result, row, (row, column)) for row in range(len(result))]
        if leaks is not None:
            keeps = self._keeps_query(result)
            for row, picture in enumerate(new):
                picture.keeps_query = None if keeps is None else bool(keeps[row])
                picture.changes = _changes(leaks, self.results[-1], result, row)
                picture.superseded = list(leaks.superseded)
        self._add([*self.results, result], new)

    def finish_edit(self, edit: Edit) -> None:
        """Record an edit whose steps were added by `add_step`."""
        self.edit = edit
        self._count()

    def finish_sections(self, sections: Sequence[Section]) -> None:
        """Record the sections of the gallery page; their pictures were added before."""
        self.sections = list(sections)
        self._count()

    def add_row(self, row: Row, result: Result | None) -> None:
        """Add a row of a table or a gallery; `result` is `None` if its query is a contradiction."""
        number = len(self.rows)
        if result is not None:
            self._score(result)
            new = [self._picture(result, i, (number, i)) for i in range(len(result))]
            self._add([*self.results, result], new)
        self.rows = [*self.rows, row]

    def add_paths(self, traversal: Traversal) -> None:
        """Add the pictures of a traversal; its clauses are the queries at its two ends."""
        result, steps = traversal.result, len(traversal.times)
        ends = (traversal.start, traversal.end)
        self.clauses = [Clause(str(query.expr), odds) for query, odds in zip(ends, traversal.probability, strict=True)]
        new = []
        for i in range(len(result)):
            verdicts = [None if holds is None else bool(holds[i]) for holds in traversal.holds]
            new.append(self._picture(result, i, divmod(i, steps), list(zip(ends, verdicts, strict=True))))
        self._add([result], new)

    def add_photograph(self, inversion: Inversion) -> None:
        """Add the reconstruction of a photograph."""
        self.photograph = inversion
        self._score(inversion.result)
        self._add([inversion.result], [self._picture(inversion.result, 0, (0, 0))])

    def locate(self, position: int) -> tuple[Result, int] | None:
        """Return the result that holds the picture at a position, and its row there; `None` without such a picture."""
        for result in self.results:
            if position < len(result):
                return result, position
            position -= len(result)
        return None

    def _score(self, result: Result) -> None:
        expr = bind(parse(result.provenance["canonical"]), self.vocabulary)
        self.joined, self.clauses = score_clauses(expr, result, self.vocabulary)

    def _add(self, results: list[Result], new: list[Picture]) -> None:
        self.results, self.pictures = results, [*self.pictures, *new]
        self._count()

    def _count(self) -> None:
        parts = (self.results, self.pictures, self.clauses, self.edit, self.sections, self.rows, self.photograph)
        self.held = JOB_BYTES + held_bytes(*parts)

    def describe(self, job: Job, place: int, after: int) -> JobInfo:
        """Return the job as the API describes it.

        Args:
            job: the job of this result.
            place: number of jobs before it.
            after: position of the first picture to return.
        """
        state = job.state  # read before the pictures, so that a finished job comes with all of them
        pictures, last = self.pictures, self.results[-1] if self.results else None
        return JobInfo(
            id=job.id,
            kind=self.kind,
            state=state,
            stage=job.stage,
            fraction=job.fraction,
            place=place,
            total=self.total,
            done=len(pictures),
            pictures=pictures[after:],
            joined=self.joined,
            clauses=[self._clause(clause) for clause in self.clauses],
            summary=last.summary() if last else "",
            facts=[Fact(name=name, text=text) for name, text in words.facts(self.results[0])] if last else [],
            literals=self.literals,
            rows=self.rows,
            photograph=_photograph(self.photograph),
            problem=job.problem,
        )

    def _keeps_query(self, step: Result) -> npt.NDArray[np.bool_] | None:
        """Return whether each picture of a step satisfies the query of the start, (n,); `None` if it was not judged."""
        judged = None if step.provenance["judge"] is None else step.judged
        query = bind(parse(self.results[0].provenance["query"]), self.vocabulary)
        return verdict(query, judged, self.vocabulary)[0]

    def _clause(self, clause: Clause) -> ClauseInfo:
        needed, p = len(self.clauses) == 1 or self.joined == ALL, clause.probability
        numbers = {} if p is None else {"mean": float(p.mean()), "least": float(p.min())}
        return ClauseInfo(text=clause.text, needed=needed, **numbers)

    def _picture(
        self,
        result: Result,
        row: int,
        place: tuple[int, int],
        ends: Sequence[tuple[CheckedQuery, bool | None]] = (),
    ) -> Picture:
        """Return the description of a picture.

        Args:
            result: the result that holds it.
            row: its row in the result.
            place: its (row, column) on the page.
            ends: for a traversal, its two queries with the verdicts on the picture.
        """
        image, provenance = result.images[row], result.provenance
        holds = None if result.satisfied is None else bool(result.satisfied[row])
        verdicts = [(str(query.expr), verdict) for query, verdict in ends] or [(provenance["canonical"], holds)]
        count = self.total if self.kind == "draw" else len(result)
        first = sum(map(len, self.results)) if self.kind != "draw" else 0
        doubtful = bool(result.doubtful[row])
        return Picture(
            position=first + row,
            row=place[0],
            column=place[1],
            index=int(result.index[row]),
            query=provenance["canonical"],
            image=picture_uri(image, PICTURE_SIDE),
            width=image.width,
            height=image.height,
            alt=alternative_text(result.judged, row, count, provenance["judge"], verdicts, doubtful),
            satisfied=any(verdict for _, verdict in verdicts) if ends and holds is not None else holds,
            verdict=_verdict(provenance, verdicts),
            doubtful=doubtful,
            doubt=DOUBT if doubtful else "",
            energy=json_value(result.energy[row]),
            probability=_at(result.probability, row),
            clauses=[PictureClause(text=c.text, probability=_at(c.probability, row)) for c in self.clauses],
            judged={name: json_value(values[row]) for name, values in result.judged.items()},
            status=result.status[row].name,
        )


def _verdict(provenance: Mapping[str, Any], verdicts: Sequence[tuple[str, bool | None]]) -> str:
    """Return the verdicts on a picture in words: that on one query, or on both queries of a traversal."""
    if any(holds is None for _, holds in verdicts):
        return f"Not judged: {provenance['unjudged']}"
    if len(verdicts) == 1:
        return f"The query {HOLDS[verdicts[0][1]]}, says the {provenance['judge']}"
    parts = "; ".join(f"{query} {HOLDS[holds]}" for query, holds in verdicts)
    return f"{parts}, says the {provenance['judge']}"


def _photograph(inversion: Inversion | None) -> Photograph | None:
    if inversion is None:
        return None
    return Photograph(
        image=picture_uri(inversion.pictures[0], PICTURE_SIDE),
        pixel_error=float(inversion.pixel_error[0]),
        drawable=bool(inversion.drawable[0]),
    )


def _changes(leaks: Leaks, before: Result, after: Result, row: int) -> list[Change]:
    """Return the changes of picture `row` in attributes that the query of the step does not name."""
    return [
        Change(
            attribute=name,
            before=_word(before.values[name][row]),
            after=_word(after.values[name][row]),
            implied=name in leaks.implied and bool(leaks.implied[name][row]),
        )
        for name, rows in leaks.changed.items()
        if rows[row] and name not in leaks.asked
    ]


def _word(value: np.generic) -> str:
    plain = value.item()
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    return f"{plain:.2f}" if isinstance(plain, float) else str(plain)


def _at(values: npt.NDArray[np.float64] | None, row: int) -> float | None:
    return None if values is None else json_value(values[row])


def json_value(value: np.generic) -> Any:
    """Return a number, bool or text as a JSON value; `None` for NaN and infinity."""
    plain = value.item()
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
