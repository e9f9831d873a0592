"""Results of jobs: the pictures so far, their description in the API, and the store that keeps them for a while."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from energyql.attributes.heads import DOUBT
from energyql.gallery import words
from energyql.gallery.page import Section, Traversal
from energyql.gallery.words import ALL, Clause, score_clauses
from energyql.language import Expr, bind, parse
from energyql.pipeline.checks import satisfied_by_judge
from energyql.pipeline.provenance import Provenance
from energyql.pipeline.result import Result
from energyql.pipeline.result_words import HOLDS, alternative_text, failures
from energyql.render.pictures import picture_uri
from energyql.studio.jobs import Job
from energyql.studio.limits import Limits
from energyql.studio.memory import held_bytes
from energyql.studio.problems import StudioError
from energyql.studio.schemas import Change, ClauseInfo, Fact, JobInfo, JobKind, Photograph, Picture, PictureClause, Row
from energyql.vocabulary import Vocabulary

if TYPE_CHECKING:
    from energyql.editing.edit import Edit
    from energyql.editing.invert import Inversion
    from energyql.editing.step import Leaks

PICTURE_SIDE = 512
"""Longest side of a picture in a response, in pixels; the download has the full size."""
JOB_BYTES = 8192
"""Approximate memory of a job without pictures, in bytes."""


@dataclass(eq=False)
class JobResult:
    """The result of one job so far. One thread adds pictures while others read; each reader sees a consistent state.

    Attributes:
        total: number of pictures when the job is done; an upper bound for a table, whose combinations may have no
            pictures.
        held: memory of the result, in bytes.
        results: the pictures with their latents and measurements, in the order of their positions: for an edit the
            start and each step, for a table or a gallery each row with pictures, for any other kind a single result.
        pictures: the pictures as the API describes them.
        joined: how the parts of the query of the newest pictures are joined, such as "all must hold".
        clauses: the parts of the query of the newest pictures, with their probabilities.
        edit: the finished edit; `None` until then, and for other kinds of job.
        sections: the sections of the gallery page of a table, a traversal or a gallery.
        literals: the literals of a table, such as "hair = red".
        photograph: a photograph with the latents that reproduce it.
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
        """Add pictures to a drawing; `expr` is its query, looked up in the vocabulary by `bind`."""
        start, whole = len(self.pictures), Result.join([*self.results, part])
        self.joined, self.clauses = score_clauses(expr, whole, self.vocabulary)
        self._add([whole], [self._picture(whole, i, (0, i)) for i in range(start, len(whole))])

    def add_step(self, result: Result, leaks: Leaks | None = None) -> None:
        """Add the start of an edit, a step of it with its `leaks`, or variations."""
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

    def add_row(self, result: Result | None, query: str, values: Sequence[bool] = (), reason: str = "") -> None:
        """Add a row of a table or a gallery.

        Args:
            values: for a table, whether each literal is true.
            reason: why there are no pictures, if `result` is `None`.
        """
        summary = "" if result is None else result.summary()
        if result is not None:
            self._score(result)
            new = [self._picture(result, i, (len(self.rows), i)) for i in range(len(result))]
            self._add([*self.results, result], new)
        self.rows = [*self.rows, Row(query=query, values=list(values), reason=reason, summary=summary)]

    def add_paths(self, traversal: Traversal) -> None:
        """Add the pictures of a traversal; `clauses` becomes its two queries, with probabilities in each picture."""
        result, steps = traversal.result, len(traversal.times)
        ends = zip((traversal.start, traversal.end), traversal.probability, strict=True)
        self.clauses = [Clause(str(query.expr), odds) for query, odds in ends]
        rows = range(len(result))
        self._add([result], [self._picture(result, i, divmod(i, steps), traversal.verdicts(i)) for i in rows])

    def add_photograph(self, inversion: Inversion) -> None:
        """Add the reconstruction of a photograph: the picture of the latents that were found for it."""
        self.photograph = inversion
        self._score(inversion.result)
        self._add([inversion.result], [self._picture(inversion.result, 0, (0, 0))])

    def locate(self, position: int) -> tuple[Result, int]:
        """Return the `Result` that contains the picture at a position of the job (from 0), and its row there.

        Raises:
            StudioError: there is no such picture.
        """
        row = position
        for result in self.results:
            if 0 <= row < len(result):
                return result, row
            row -= len(result)
        hint = f"there are {len(self.pictures)}, counted from 0"
        raise StudioError("NotKept", f"there is no picture {position}", hint=hint)

    def count(self) -> None:
        """Measure `held`, the memory of the result."""
        parts = (self.results, self.pictures, self.clauses, self.edit, self.sections, self.rows, self.photograph)
        self.held = JOB_BYTES + held_bytes(*parts)

    def _score(self, result: Result) -> None:
        expr = bind(parse(result.provenance["canonical"]), self.vocabulary)
        self.joined, self.clauses = score_clauses(expr, result, self.vocabulary)

    def _add(self, results: list[Result], new: list[Picture]) -> None:
        self.results, self.pictures = results, [*self.pictures, *new]
        self.count()

    def describe(self, job: Job, place: int, after: int) -> JobInfo:
        """Return the job as the API describes it.

        Args:
            place: number of jobs that run before this one.
            after: position of the first picture to return; earlier pictures are left out.
        """
        state = job.state  # read before the pictures, so that a finished job comes with all of them
        pictures, results = self.pictures, self.results
        return JobInfo(
            id=job.id, kind=self.kind, state=state, stage=job.stage, fraction=job.fraction, problem=job.problem,
            place=place, total=self.total, done=len(pictures), pictures=pictures[after:],
            joined=self.joined, clauses=[self._clause(clause) for clause in self.clauses],
            summary=results[-1].summary() if results else "",
            facts=[Fact(name=name, text=text) for name, text in words.facts(results[0])] if results else [],
            literals=self.literals, rows=self.rows, photograph=_photograph(self.photograph),
        )  # fmt: skip

    def _keeps_query(self, step: Result) -> npt.NDArray[np.bool_] | None:
        """Whether each picture of a step satisfies the query of the unedited pictures, (n,); `None` if not judged."""
        judged = None if step.provenance["judge"] is None else step.judged
        query = bind(parse(self.results[0].provenance["query"]), self.vocabulary)
        return satisfied_by_judge(query, judged, self.vocabulary)

    def _clause(self, clause: Clause) -> ClauseInfo:
        needed, p = len(self.clauses) == 1 or self.joined == ALL, clause.probability
        numbers = {} if p is None else {"mean": float(p.mean()), "least": float(p.min())}
        return ClauseInfo(text=clause.text, needed=needed, **numbers)

    def _picture(
        self, result: Result, row: int, place: tuple[int, int], verdicts: Sequence[tuple[str, bool | None]] = ()
    ) -> Picture:
        """Description of a picture in the API; `place` is its (row, column) on the page."""
        image, provenance, doubtful = result.images[row], result.provenance, bool(result.doubtful[row])
        holds = None if result.satisfied is None else bool(result.satisfied[row])
        failed = "" if verdicts or holds is not False else failures(result[row])[0]
        verdicts = verdicts or [(provenance["canonical"], holds)]
        # A drawing is one result that grows.
        count, first = (self.total, 0) if self.kind == "draw" else (len(result), sum(map(len, self.results)))
        return Picture(
            position=first + row, row=place[0], column=place[1], index=int(result.index[row]),
            query=provenance["canonical"], image=picture_uri(image, PICTURE_SIDE), width=image.width,
            height=image.height,
            alt=alternative_text(result, row, verdicts, doubtful, count),
            satisfied=None if holds is None else any(verdict for _, verdict in verdicts),
            verdict=_verdict(provenance, verdicts, failed), doubtful=doubtful, doubt=DOUBT if doubtful else "",
            energy=json_value(result.energy[row]), probability=_at(result.probability, row),
            clauses=[PictureClause(text=c.text, probability=_at(c.probability, row)) for c in self.clauses],
            judged={name: json_value(values[row]) for name, values in result.judged.items()},
            status=result.status[row].name,
        )  # fmt: skip


def _verdict(provenance: Provenance, verdicts: Sequence[tuple[str, bool | None]], failed: str) -> str:
    """Verdict on a picture, such as "The query does not hold: glasses, says the image judge", or why it has none."""
    if any(holds is None for _, holds in verdicts):
        return f"Not judged: {provenance['unjudged']}"
    parts = [f"{query if len(verdicts) > 1 else 'The query'} {HOLDS[holds]}" for query, holds in verdicts]
    why = f": {failed}" if failed not in ("", provenance["canonical"]) else ""
    return f"{'; '.join(parts)}{why}, says the {provenance['judge']}"


def _photograph(inversion: Inversion | None) -> Photograph | None:
    if inversion is None:
        return None
    image, error = picture_uri(inversion.pictures[0], PICTURE_SIDE), float(inversion.pixel_error[0])
    return Photograph(image=image, pixel_error=error, drawable=bool(inversion.drawable[0]))


def _changes(leaks: Leaks, before: Result, after: Result, row: int) -> list[Change]:
    """Attributes of picture `row` that a step changed although the query of the step does not name them."""
    return [
        Change(
            attribute=name, before=_word(before.values[name][row]), after=_word(after.values[name][row]),
            implied=name in leaks.implied and bool(leaks.implied[name][row]),
        )
        for name, rows in leaks.changed.items()
        if rows[row] and name not in leaks.asked
    ]  # fmt: skip


def _word(value: np.generic) -> str:
    plain = value.item()
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    return f"{plain:.2f}" if isinstance(plain, float) else str(plain)


def _at(values: npt.NDArray[np.float64] | None, row: int) -> float | None:
    return None if values is None else json_value(values[row])


def json_value(value: np.generic) -> Any:
    """A number, bool or text as a JSON value; `None` for NaN and infinity."""
    plain = value.item()
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


class ResultStore:
    """Jobs and their results by id; an ended job is dropped after a long time without requests, or if memory is short.

    Memory is short when all results take more bytes than `Limits.kept_bytes`, or than twice the largest result if that
    is more. So a drawing of large pictures and an edit of one of them can be kept together.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: OrderedDict[str, tuple[Job, JobResult]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, job: Job, result: JobResult) -> None:
        """Add a job and its result."""
        with self._lock:
            self._kept[job.id] = (job, result)
            self._drop_old()

    def get(self, key: str) -> tuple[Job, JobResult]:
        """Return the job with id `key` and its result, which are then kept for longer.

        Raises:
            StudioError: there is no such job, or it was dropped.
        """
        with self._lock:
            self._drop_old()
            if key not in self._kept:
                hint = "send it again: the same request gives the same pictures"
                raise StudioError("NotKept", "there is no such request here, or no longer", hint=hint)
            self._kept.move_to_end(key)
            self._kept[key][0].seen = time.monotonic()
            return self._kept[key]

    def _drop_old(self) -> None:
        oldest = time.monotonic() - self._limits.kept_seconds
        sizes = [result.held for _, result in self._kept.values()]
        total, room = sum(sizes), max(self._limits.kept_bytes, 2 * max(sizes, default=0))
        for key, (job, result) in list(self._kept.items()):
            # The newest stays, however large: its client has not received it yet.
            crowded = total > room and key != next(reversed(self._kept))
            if job.over and (job.seen < oldest or crowded):
                del self._kept[key]
                total -= result.held
