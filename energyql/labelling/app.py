"""The page on which a person labels pictures: one after the other, by keyboard, with the table written after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from energyql.errors import DataError
from energyql.kinds import KINDS, Kind
from energyql.labelling.sheet import Cells, LabelSheet
from energyql.studio.guard import Access, Bodies
from energyql.studio.serving import Listening, serve_app
from energyql.studio.web import guarded_app

STATIC = Path(__file__).parent / "static"
BODY = 64 * 1024
"""Largest request, in bytes."""
AHEAD = 3
"""Pictures that the page loads in advance."""
DESCRIPTION = """Labels of the pictures of a folder.

`GET /api/state` returns what is left to label, `POST /api/labels` writes the labels of one picture, and
`DELETE /api/labels/{index}` takes them back. Errors are returned as a `Problem`."""


class AttributeField(BaseModel):
    """An attribute to label."""

    name: str
    kind: Kind
    values: list[str] = Field(description="The classes of a categorical attribute.")
    low: float
    high: float
    answers: list[tuple[str, str]] = Field(description="Possible answers, each with its key; none of a number.")


class State(BaseModel):
    """What is labelled, and what is next."""

    table: str = Field(description="The CSV file with the labels.")
    attributes: list[AttributeField]
    pictures: int = Field(description="Number of all pictures.")
    labelled: int = Field(description="Number of pictures with a row in the table.")
    next: list[int] = Field(description="The next pictures without a row, in order.")
    last: int | None = Field(description="The picture that was labelled last.")


class Labels(BaseModel):
    """Labels of one picture."""

    index: int = Field(description="Number of the picture.")
    labels: dict[str, str | float | bool | None] = Field(
        description="Attribute to label; null or left out where a person cannot decide."
    )


def create_app(sheet: LabelSheet, access: Access | None = None) -> FastAPI:
    """Return the web application that labels the pictures of a table.

    Args:
        sheet: the table. It is read anew for each request, so that it may be edited meanwhile.
        access: who may use it; by default this machine.

    Raises:
        DataError: the folder holds none of its pictures.
    """
    pictures = [index for index in sheet.folder.indices if sheet.folder.file(index).is_file()]
    if not pictures:
        hint = "draw some with energyql sample; the same command goes on where one was interrupted"
        raise DataError(f"{sheet.folder.path} has no pictures yet", hint=hint)
    attributes = [
        AttributeField(
            name=name,
            kind=spec.kind,
            values=list(spec.values),
            low=spec.low,
            high=spec.high,
            answers=KINDS[spec.kind].answers(spec),
        )
        for name, spec in sheet.attributes.items()
    ]

    def state(rows: dict[int, Cells]) -> State:
        left = [index for index in pictures if index not in rows]
        return State(
            table=str(sheet.path), attributes=attributes, pictures=len(pictures), labelled=len(pictures) - len(left),
            next=left[:AHEAD], last=next(reversed(rows), None),
        )  # fmt: skip

    page = STATIC / "label.html"
    app = guarded_app("energyql label", DESCRIPTION, page, access=access or Access(), bodies=Bodies(BODY))
    app.mount("/label", StaticFiles(directory=STATIC))

    # Each handler runs on the event loop to its end, so two decisions never write at the same time.
    @app.get("/api/state")
    async def look() -> State:
        """Return what is labelled, and what is next."""
        return state(sheet.rows())

    @app.post("/api/labels")
    async def decide(request: Labels) -> State:
        """Write the labels of a picture."""
        return state(sheet.decide(request.index, request.labels))

    @app.delete("/api/labels/{index}")
    async def undo(index: int) -> State:
        """Take back the labels of a picture, which is then the next one."""
        return state(sheet.undo(index))

    @app.get("/api/pictures/{index}.png")
    async def picture(index: int) -> FileResponse:
        """Return a picture."""
        if index not in pictures:
            raise HTTPException(404, f"there is no picture {index}")
        return FileResponse(sheet.folder.file(index))

    return app


def serve(
    sheet: LabelSheet,
    *,
    host: str,
    port: int,
    allowed: Sequence[str],
    ready: Callable[[Listening], Any],
    token: str | None = None,
) -> None:
    """Serve the page until it is interrupted; the arguments are those of `energyql.studio.serving.serve`."""
    make = partial(create_app, sheet)
    serve_app(make, host=host, port=port, allowed=allowed, ready=ready, token=token)
