"""The web page on which a person teaches attributes, and the HTTP API that it uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from energyql.errors import DataError, EnergyQLError
from energyql.files import MOST_PICTURE, read_bytes
from energyql.kinds import KINDS, Kind
from energyql.labelling.app import picture_response
from energyql.language import quote
from energyql.language.lexical import keywords
from energyql.studio.guard import Access, Bodies
from energyql.studio.problems import Problem, StudioError, describe
from energyql.studio.schemas import Check
from energyql.studio.web import RequestBody, guarded_app
from energyql.teaching.asking import check_query
from energyql.teaching.classroom import Classroom
from energyql.teaching.lesson import SCREEN, Lesson
from energyql.teaching.sections import sections
from energyql.vocabulary import AttributeSpec

STATIC = Path(__file__).parent / "static"
BODY = 256 * 1024
"""Largest size of the body of a request, in bytes."""
MOST_ASKED = 64
"""Most pictures that are asked for at a time."""
DESCRIPTION = """A lesson: attributes are taught by labels of pictures, and queries are answered on the way.

`GET /api/lesson` returns how far it is, `GET /api/wall` the pictures to look at, `POST /api/labels` takes labels, and
`POST /api/questions` begins to answer a query. Only the page that wrote last may write; another one takes over with
`POST /api/writer`. Errors are returned as a `Problem`."""


class MeterInfo(BaseModel):
    """How well an attribute is read."""

    counts: dict[str, int] = Field(description="Answer to number of labels.")
    usable: bool
    quality: float | None = Field(description="Share of pairs that are ordered rightly, by random pictures.")
    low: float | None
    high: float | None
    advice: str


class AttributeInfo(BaseModel):
    """An attribute."""

    name: str
    written: str = Field(description="The name as a query writes it, in double quotes where it needs them.")
    kind: Kind
    values: list[str] = Field(description="Possible answers; none of a number.")
    low: float
    high: float


class TaughtAttribute(AttributeInfo):
    """An attribute of the lesson."""

    meter: MeterInfo


class FinishInfo(BaseModel):
    """The complete training."""

    running: bool
    stage: str
    fraction: float
    gained: dict[str, str] | None
    problem: Problem | None


class LessonInfo(BaseModel):
    """How far a lesson is."""

    folder: str
    use: str = Field(description="Command that uses what is in the folder; empty before there is anything.")
    trains: bool = Field(description="Whether there is a complete training.")
    attributes: list[TaughtAttribute]
    taken: list[AttributeInfo] = Field(description="Those that the model had before, of which queries may be too.")
    keywords: list[str]
    drawn: int
    wanted: int
    labelled: int = Field(description="Number of pictures with labels.")
    version: int
    can_undo: bool
    writer: str = Field(description="The page that may write; empty before the first.")
    saved: bool = Field(description="Whether something was written to the folder.")
    newest: bool = Field(description="Whether they know of all labels.")
    finished: list[str] = Field(description="Attributes whose heads there are of a complete training.")
    unsaved: Problem | None = Field(description="Why the newest could not be written.")
    problem: Problem | None = Field(description="Why no more pictures are drawn.")
    finish: FinishInfo | None


class Cell(BaseModel):
    """A picture of the wall."""

    number: int
    label: str | None
    guess: str | None = Field(default=None, description="What the reader says.")
    sure: float | None = Field(default=None, description="How sure it is, in [0, 1]; of a number, the number.")
    again: bool = Field(default=False, description="Whether its label is doubted.")


class SectionInfo(BaseModel):
    """A part of the wall."""

    title: str
    count: int
    cells: list[Cell]


class WallInfo(BaseModel):
    """The pictures to look at next, and the wall in parts."""

    attribute: str
    version: int
    screen: list[Cell]
    sections: list[SectionInfo]


class AnswerCell(BaseModel):
    """A picture of an answer."""

    number: int
    readings: dict[str, str] = Field(description="Attribute of the query to its label, or else to what is read.")


class AnswerInfo(BaseModel):
    """The answer to a query so far."""

    query: str
    cells: list[AnswerCell]
    expected: float | None = Field(description="Share that is expected to be right.")
    drawn: int
    kept: int
    finished: bool
    problem: Problem | None


class _Written(RequestBody):
    page: str = Field(max_length=40, description="Identity of the page.")


class NewAttribute(_Written):
    """An attribute to add, such as "glasses", "hair=black|brown" or "age=0..1"."""

    text: str = Field(max_length=300)


class GivenLabels(_Written):
    """Labels of pictures."""

    labels: dict[str, dict[str, str | float | bool | None]] = Field(
        description="Attribute to number of a picture to its label; null for none."
    )


class Question(RequestBody):
    """A query."""

    query: str = Field(max_length=2_000)
    n: int = Field(default=16, ge=1, le=MOST_ASKED)
    keep: list[int] = Field(
        default=[], max_length=MOST_ASKED, description="Those of before, of which the right ones stay."
    )


class Text(RequestBody):
    """A text that may be a query."""

    query: str = Field(max_length=2_000)


def create_app(classroom: Classroom, access: Access | None = None) -> FastAPI:
    """Make the web application of a lesson; by default only visitors on this machine have access."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        classroom.start()
        yield
        classroom.close()

    app = guarded_app("energyql teach", DESCRIPTION, STATIC / "teach.html", access, Bodies(BODY), lifespan=lifespan)
    app.mount("/teach", StaticFiles(directory=STATIC))
    _lesson_routes(app, classroom)
    _question_routes(app, classroom)
    return app


def _lesson_routes(app: FastAPI, classroom: Classroom) -> None:
    lesson, wall = classroom.lesson, classroom.lesson.wall
    writer = [""]  # the page that may write

    def write(page: str, action: Callable[[Lesson], None]) -> LessonInfo:
        with wall.lock:
            if writer[0] not in ("", page):
                hint = "take over, and teach here"
                raise StudioError("NotReady", "another page teaches in this lesson", hint=hint)
            classroom.change(action)
            writer[0] = page
        return _describe(classroom, writer[0])

    @app.get("/api/lesson")
    def look() -> LessonInfo:
        """Return the attributes, how well they are read, and what goes on."""
        return _describe(classroom, writer[0])

    @app.post("/api/writer")
    def take_over(request: _Written) -> LessonInfo:
        """Let a page write, in place of another."""
        writer[0] = request.page
        return _describe(classroom, writer[0])

    @app.post("/api/attributes")
    def add(request: NewAttribute) -> LessonInfo:
        """Add an attribute."""
        return write(request.page, lambda lesson: lesson.add(request.text))

    @app.post("/api/labels")
    def label(request: GivenLabels) -> LessonInfo:
        """Take labels of pictures, write them to the table, and learn from them."""
        try:
            labels = {name: {int(key): label for key, label in own.items()} for name, own in request.labels.items()}
        except ValueError:
            raise DataError("labels are of pictures, by their numbers") from None
        return write(request.page, lambda lesson: lesson.say_all(labels))

    @app.post("/api/undo")
    def undo(request: _Written) -> LessonInfo:
        """Take the last action back."""
        return write(request.page, lambda lesson: lesson.undo())

    @app.get("/api/wall")
    def look_at_wall(attribute: str = "", count: int = SCREEN) -> WallInfo:
        """Return the pictures to look at next for an attribute, and the wall in parts; without one, its beginning."""
        with wall.lock:
            if not attribute:
                first = [Cell(number=number, label=None) for number in wall.numbers[:SCREEN]]
                parts = [SectionInfo(title="random pictures", count=len(wall), cells=first)]
                return WallInfo(attribute="", version=lesson.version, screen=[], sections=parts)
            lesson.read_new()
            screen = lesson.screen(attribute, max(1, min(count, 4 * SCREEN)))
            cells = _Cells(lesson, attribute)
            parts = [
                SectionInfo(title=part.title, count=part.total, cells=[cells(number) for number in part.numbers])
                for part in sections(lesson, attribute)
            ]
            version = lesson.version
            return WallInfo(attribute=attribute, version=version, screen=[cells(n) for n in screen], sections=parts)

    @app.post("/api/finish", status_code=202)
    def finish(request: _Written) -> LessonInfo:
        """Begin the complete training."""
        return write(request.page, lambda lesson: classroom.start_finish())

    @app.delete("/api/finish")
    def stop(page: str) -> LessonInfo:
        """Cancel it."""
        return write(page, lambda lesson: classroom.stop_finish())

    @app.get("/api/pictures/{number}.png")
    def picture(number: int) -> Response:
        """Return a picture of the wall, of at most 256 pixels."""
        if number not in wall.rows:
            raise HTTPException(404, f"there is no picture {number}")
        file = wall.folder.file(number)
        response = picture_response(read_bytes(file, MOST_PICTURE, DataError), file)
        response.headers["cache-control"] = "private, max-age=86400"  # a number always has the same picture
        return response


def _question_routes(app: FastAPI, classroom: Classroom) -> None:
    lesson = classroom.lesson

    @app.post("/api/check")
    def check(request: Text) -> Check:
        """Return whether a text is a query that can be asked now."""
        try:
            checked = check_query(request.query, lesson)
        except EnergyQLError as error:
            return Check(ok=False, problem=describe(error))
        return Check(ok=True, warnings=[describe(each) for each in checked.warnings], canonical=str(checked.expr))

    @app.post("/api/questions", status_code=202)
    def ask(request: Question) -> AnswerInfo:
        """Begin to answer a query, in place of the last one."""
        classroom.ask(request.query, request.n, request.keep)
        return _answer(classroom)

    @app.get("/api/questions")
    def answered() -> AnswerInfo:
        """Return the answer to the last query so far."""
        return _answer(classroom)

    @app.delete("/api/questions")
    def stop() -> AnswerInfo:
        """Draw no more for the last query."""
        classroom.stop_asking()
        return _answer(classroom)


class _Cells:
    """Function from the number of a picture to its description for an attribute."""

    def __init__(self, lesson: Lesson, attribute: str) -> None:
        self.lesson, self.attribute, self.readings = lesson, attribute, lesson.readings(attribute)

    def __call__(self, number: int) -> Cell:
        label = self.lesson.rows.get(number, {}).get(self.attribute) or None
        guess, sure = self.readings.get(number, (None, None))
        again = label is not None and guess is not None and guess != label
        return Cell(number=number, label=label, guess=guess, sure=sure, again=again)

    def told(self, number: int) -> str:
        """The label of a picture, or else what is read; "" for neither."""
        cell = self(number)
        return cell.label or cell.guess or ""


def _answer(classroom: Classroom) -> AnswerInfo:
    found = classroom.answered
    if found is None:
        raise StudioError("NotReady", "nothing was asked yet")
    with classroom.lesson.wall.lock:
        columns = {name: _Cells(classroom.lesson, name).told for name in classroom.asked}
        cells = [
            AnswerCell(number=number, readings={name: of(number) for name, of in columns.items()})
            for number in found.numbers
        ]
    problem = classroom.problem if not found.finished else None
    return AnswerInfo(
        query=classroom.query, cells=cells,
        expected=found.expected if found.numbers else None, drawn=found.drawn, kept=found.kept,
        finished=found.finished or problem is not None, problem=None if problem is None else describe(problem),
    )  # fmt: skip


def _describe(classroom: Classroom, writer: str) -> LessonInfo:
    lesson, outcome, finish = classroom.lesson, classroom.outcome, classroom.finish
    with lesson.wall.lock:
        attributes = [
            TaughtAttribute(**_attribute(spec), meter=_meter(lesson, spec.name)) for spec in lesson.vocabulary.values()
        ]
        taken = [AttributeInfo(**_attribute(spec)) for spec in lesson.taken.values()]
    done = None
    if finish is not None:
        done = FinishInfo(
            running=finish.running, stage=finish.stage, fraction=finish.fraction,
            gained=None if finish.gained is None else dict(finish.gained),
            problem=None if finish.error is None else describe(finish.error),
        )  # fmt: skip
    known = () if lesson.reading is None else tuple(lesson.reading.vocabulary)
    use = outcome.use(known[0]) if known and classroom.saved >= 0 else ""
    return LessonInfo(
        folder=str(outcome.folder), use=use, trains=outcome.trains, attributes=attributes, taken=taken,
        keywords=sorted(keywords()), drawn=len(lesson.wall), wanted=classroom.wanted, labelled=len(lesson.labels),
        version=lesson.version, can_undo=lesson.can_undo, writer=writer, saved=classroom.saved >= 0,
        newest=classroom.saved == lesson.version, finished=list(outcome.finished),
        unsaved=None if classroom.unsaved is None else describe(classroom.unsaved),
        problem=None if classroom.problem is None else describe(classroom.problem), finish=done,
    )  # fmt: skip


def _attribute(spec: AttributeSpec) -> dict[str, Any]:
    values = list(KINDS[spec.kind].classes(spec))
    return {
        "name": spec.name, "written": quote(spec.name), "kind": spec.kind, "values": values,
        "low": spec.low, "high": spec.high,
    }  # fmt: skip


def _meter(lesson: Lesson, attribute: str) -> MeterInfo:
    meter = asdict(lesson.meter(attribute))
    low, high = meter.pop("interval") or (None, None)
    return MeterInfo(**meter, low=low, high=high)
