"""The web page of an audit: a person says of one picture after the other whether it satisfies its query."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from energyql.auditing.session import Session
from energyql.errors import DataError
from energyql.labelling.app import AHEAD, BODY, STATIC, picture_response
from energyql.studio.guard import Access, Bodies
from energyql.studio.web import RequestBody, guarded_app

DESCRIPTION = """An audit of the pictures of a result.

`GET /api/state` returns the next pictures with their questions, `POST /api/answers` writes the answers about the first
of them, and `DELETE /api/answers` takes the last ones back. Verdicts of the judge are never returned. Errors are
returned as a `Problem`."""


class Asked(BaseModel):
    """A picture of the audit, and the questions about it, which a person answers with yes, no or "nobody can tell"."""

    index: int = Field(description="Number of the picture, from 0.")
    key: str = Field(description="Its name.")
    query: str
    questions: list[str] = Field(description='"query" for the whole query, or its conditions.')


class AuditState(BaseModel):
    """How far the audit by one person is, and which pictures this person is asked about next."""

    name: str = Field(description="What is audited.")
    by: str = Field(description="Who answers.")
    answered: int = Field(description="Number of pictures that this person has looked at.")
    left: int | None = Field(description="Number of further pictures; none if the width of the interval decides.")
    next: list[Asked]
    summary: str = Field(description="What the answers say; empty before the end.")


class GivenAnswers(RequestBody):
    """A person's answers to the questions about one picture, which a request of the page contains."""

    key: str
    answers: dict[str, bool | None] = Field(description="Question to answer; null if nobody can tell.")


def create_audit_app(session: Session, access: Access | None = None) -> FastAPI:
    """Make the web application of an audit by one person; by default only visitors on this machine have access.

    The caller keeps other processes from writing to the folder of the audit.
    """
    pictures = session.subject.pictures

    def state() -> AuditState:
        coming = session.next(AHEAD)
        try:
            summary = "" if coming else session.evidence.report().summary()
        except DataError as error:
            summary = error.render()
        asked = [
            Asked(index=session.subject.by_key[one.key], key=one.key, query=one.query, questions=session.asked(one))
            for one in coming
        ]
        return AuditState(
            name=session.subject.name, by=session.by, answered=len(session.answers), left=session.left if coming else 0,
            next=asked, summary=summary,
        )  # fmt: skip

    app = guarded_app("energyql audit", DESCRIPTION, STATIC / "audit.html", access, Bodies(BODY))
    app.mount("/label", StaticFiles(directory=STATIC))

    # Each handler runs on the event loop to its end, so two answers never write at the same time.
    @app.get("/api/state")
    async def look() -> AuditState:
        """Return how far the audit is, and which pictures the person is asked about next."""
        return state()

    @app.post("/api/answers")
    async def answer(request: GivenAnswers) -> AuditState:
        """Write the person's answers about the picture that the page shows, and return the new state of the audit."""
        session.answer(request.key, request.answers)
        return state()

    @app.delete("/api/answers")
    async def undo() -> AuditState:
        """Remove the answers about the last picture, which the page then shows again, and return the new state."""
        session.undo()
        return state()

    @app.get("/api/pictures/{index}")
    async def picture(index: int) -> Response:
        """Return the picture with the number `index` as PNG, WebP or JPEG; the status is 404 if there is none."""
        if not 0 <= index < len(pictures):
            raise HTTPException(404, f"there is no picture {index}")
        return picture_response(pictures[index].data(), pictures[index].key)

    return app
