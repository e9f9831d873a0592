"""Results of jobs: the pictures of a request as they are drawn, and the store that keeps them for a while."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from energyql.editing.dependence import Leaks
from energyql.editing.edit import Edit
from energyql.gallery import words
from energyql.gallery.clauses import ALL, Clause, score_clauses
from energyql.language import Expr, bind, parse
from energyql.pipeline.description import HOLDS, alternative_text
from energyql.pipeline.evidence import verdict
from energyql.pipeline.result import Result
from energyql.render.pictures import picture_uri
from energyql.studio.jobs import Job
from energyql.studio.limits import Limits
from energyql.studio.problems import StudioError
from energyql.studio.schemas import Change, ClauseInfo, Fact, JobInfo, Picture, PictureClause
from energyql.vocabulary import Vocabulary

PICTURE_SIDE = 512
"""Longest side of a picture in a response, in pixels; the download has the full size."""


@dataclass(eq=False)
class JobResult:
    """The pictures of one request. One thread adds pictures while others read; every state they can see is consistent.

    Args:
        kind: of the request.
        total: number of pictures when the job is done.
        vocabulary: of the model.
        results: one for a drawing; for an edit the start and one a step.
        pictures: as the API returns them.
        joined, clauses: how the parts of the last query are joined, and their probabilities.
        edit: the finished edit.
    """

    kind: Literal["draw", "edit"]
    total: int
    vocabulary: Vocabulary
    results: list[Result] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    joined: str = ""
    clauses: list[Clause] = field(default_factory=list)
    edit: Edit | None = None

    @property
    def size(self) -> int:
        """Memory that it takes, in bytes, roughly."""
        pictures = sum(3 * image.width * image.height for result in self.results for image in result.images)
        latents = sum(4 * (result.z.numel() + result.w.numel()) for result in self.results)
        return pictures + latents + sum(len(picture.image) + len(picture.alt) for picture in self.pictures)

    def extend(self, expr: Expr, part: Result) -> None:
        """Add pictures of the query that is being drawn; `expr` is the query, bound."""
        start, whole = len(self.pictures), Result.join([*self.results, part])
        self.joined, self.clauses = score_clauses(expr, whole, self.vocabulary)
        new = [self._picture(whole, i, i) for i in range(start, len(whole))]
        self.results, self.pictures = [whole], [*self.pictures, *new]

    def add_step(self, result: Result, leaks: Leaks | None = None) -> None:
        """Add the start of an edit, or a step with the attributes that it changed although it did not name them."""
        expr = bind(parse(result.provenance["query"]), self.vocabulary)
        self.joined, self.clauses = score_clauses(expr, result, self.vocabulary)
        picture = self._picture(result, 0, len(self.pictures))
        if leaks is not None:
            picture.keeps_query = self._keeps_query(result)
            picture.changes = _changes(leaks, self.results[-1], result)
            picture.superseded = list(leaks.superseded)
        self.results, self.pictures = [*self.results, result], [*self.pictures, picture]

    def describe(self, job: Job, place: int, after: int) -> JobInfo:
        """Return the job and its pictures from position `after` on, as the API describes them."""
        state = job.state  # read first, so that a job that is done comes with all its pictures
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
            problem=job.problem,
        )

    def _keeps_query(self, step: Result) -> bool | None:
        """Whether the picture of a step satisfies the query of the start; none where it was not judged."""
        judged = None if step.provenance["judge"] is None else step.judged
        query = bind(parse(self.results[0].provenance["query"]), self.vocabulary)
        holds = verdict(query, judged, self.vocabulary)[0]
        return None if holds is None else bool(holds[0])

    def _clause(self, clause: Clause) -> ClauseInfo:
        needed, p = len(self.clauses) == 1 or self.joined == ALL, clause.probability
        numbers = {} if p is None else {"mean": float(p.mean()), "least": float(p.min())}
        return ClauseInfo(text=clause.text, needed=needed, **numbers)

    def _picture(self, result: Result, row: int, position: int) -> Picture:
        image, known = result.images[row], result.provenance
        holds = None if result.satisfied is None else bool(result.satisfied[row])
        count = self.total if self.kind == "draw" else 1
        return Picture(
            position=position,
            index=int(result.index[row]),
            query=known["canonical"],
            image=picture_uri(image, PICTURE_SIDE),
            width=image.width,
            height=image.height,
            alt=alternative_text(result.judged, row, count, known["judge"], [(known["canonical"], holds)]),
            satisfied=holds,
            verdict=f"Not judged: {known['unjudged']}"
            if holds is None
            else f"The query {HOLDS[holds]}, says the {known['judge']}",
            energy=json_value(result.energy[row]),
            probability=_at(result.probability, row),
            clauses=[PictureClause(text=c.text, probability=_at(c.probability, row)) for c in self.clauses],
            judged={name: json_value(values[row]) for name, values in result.judged.items()},
            doubtful=bool(result.doubtful[row]),
            status=result.status[row].name,
        )


def _changes(leaks: Leaks, before: Result, after: Result) -> list[Change]:
    return [
        Change(
            attribute=name,
            before=_word(before.values[name][0]),
            after=_word(after.values[name][0]),
            implied=name in leaks.implied and bool(leaks.implied[name][0]),
        )
        for name, rows in leaks.changed.items()
        if rows[0] and name not in leaks.asked
    ]


def _word(value: np.generic) -> str:
    plain = value.item()
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    return f"{plain:.2f}" if isinstance(plain, float) else str(plain)


def _at(values: npt.NDArray[np.float64] | None, row: int) -> float | None:
    return None if values is None else json_value(values[row])


class ResultStore:
    """Jobs and their results by id. Finished ones are dropped when they are old, or when memory is short."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: OrderedDict[str, tuple[Job, JobResult]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, job: Job, result: JobResult) -> None:
        """Keep one more result."""
        with self._lock:
            self._kept[job.id] = (job, result)
            self._drop_old()

    def get(self, key: str) -> tuple[Job, JobResult]:
        """Return the job of an id, with its result, and record that it was requested.

        Raises:
            StudioError: there is no such job, or no longer.
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
        total = sum(result.size for _, result in self._kept.values())
        for key, (job, result) in list(self._kept.items()):
            # The newest stays, however large: its client has not seen it yet.
            crowded = total > self._limits.kept_bytes and key != next(reversed(self._kept))
            if job.over and (job.seen < oldest or crowded):
                del self._kept[key]
                total -= result.size


def json_value(value: np.generic) -> Any:
    """Return a value as JSON has it, without NaN and infinity."""
    plain = value.item()
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
