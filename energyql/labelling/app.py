"""The web page on which a person labels pictures by keyboard, one at a time. Labels are written after each picture."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from energyql.errors import DataError
from energyql.files import MOST_PICTURE, read_bytes
from energyql.kinds import KINDS, Kind
from energyql.labelling.looks import Looks
from energyql.labelling.sheet import Cells, LabelSheet
from energyql.studio.guard import Access, Bodies
from energyql.studio.web import RequestBody, guarded_app

STATIC = Path(__file__).parent / "static"
BODY = 64 * 1024
"""Largest size of the body of a request, in bytes."""
AHEAD = 3
"""Number of next pictures that a response names, so that the page loads them in advance."""
DESCRIPTION = """Labels of the pictures of a folder.

`GET /api/state` returns what is left to label, `POST /api/labels` writes the labels of one picture, and
`DELETE /api/labels/{index}` takes them back. Errors are returned as a `Problem`."""
_TYPES = {b"\x89PNG": "image/png", b"RIFF": "image/webp", b"\xff\xd8\xff": "image/jpeg"}
"""First bytes of a picture -> its media type."""


class AttributeField(BaseModel):
    """An attribute to label, as the page gets it: name, kind, range or classes, and the answers with their keys."""

    name: str
    kind: Kind
    values: list[str] = Field(description="The classes of a categorical attribute.")
    low: float
    high: float
    answers: list[tuple[str, str]] = Field(description="Possible answers, each with its key; none of a number.")


class Again(BaseModel):
    """A picture that is shown again: its labels, and the attributes whose labels readers doubt."""

    labels: dict[str, str]
    doubted: list[str]


class State(BaseModel):
    """How far the labelling is: the attributes, counts of pictures, and the next pictures to label or to look at."""

    table: str = Field(description="The CSV file with the labels.")
    attributes: list[AttributeField]
    pictures: int = Field(description="Number of all pictures; of those to look at again, if doubtful.")
    labelled: int = Field(description="Number of pictures with a row in the table, or that were looked at again.")
    next: list[int] = Field(description="The next pictures, in order.")
    last: int | None = Field(description="The picture that was labelled, or looked at, last.")
    doubtful: bool = Field(default=False, description="Whether labels that readers doubt are looked at again.")
    again: list[Again] = Field(default=[], description="If doubtful: what is doubted about each of the next pictures.")


class Labels(RequestBody):
    """Labels of one picture, in a request of the page."""

    index: int = Field(description="Number of the picture.")
    labels: dict[str, str | float | bool | None] = Field(description="Attribute to label; null if nobody can decide.")


def picture_response(data: bytes, name: object) -> Response:
    """Response with a picture as PNG, WebP or JPEG.

    Raises:
        DataError: the file is of another kind. It may be a link, in a folder from a stranger, to a private file.
    """
    kind = next((kind for start, kind in _TYPES.items() if data.startswith(start)), None)
    if kind is None:
        raise DataError(f"{name} is no picture", hint="pictures are PNG, WebP or JPEG; draw it again")
    return Response(data, media_type=kind)


def create_app(sheet: LabelSheet, access: Access | None = None, looks: Looks | None = None) -> FastAPI:
    """Make the web application that labels the pictures of a table, or that shows some again (`looks`).

    Each request reads the file, so a user may edit it meanwhile. By default only visitors on this machine have access.

    Raises:
        DataError: the folder of the table has no pictures yet.
    """
    pictures = [index for index in sheet.folder.indices if sheet.folder.file(index).is_file()]
    if not pictures:
        raise DataError(f"{sheet.folder.path} has no pictures yet", hint="draw some with energyql sample")
    specs = sheet.attributes.values()
    attributes = [AttributeField(**asdict(spec), answers=KINDS[spec.kind].labels.answers(spec)) for spec in specs]

    def spelled(cells: Cells) -> dict[str, str]:
        return {name: KINDS[spec.kind].labels.label(cells[name], spec) or "" for name, spec in sheet.attributes.items()}

    def state(rows: dict[int, Cells]) -> State:
        if looks is not None:
            doubted = looks.left()
            coming, done = list(doubted)[:AHEAD], len(looks.looked)
            return State(
                table=str(sheet.path), attributes=attributes, pictures=done + len(doubted), labelled=done,
                next=coming, last=looks.looked[-1][0] if looks.looked else None, doubtful=True,
                again=[Again(labels=spelled(rows[index]), doubted=doubted[index]) for index in coming],
            )  # fmt: skip
        left = [index for index in pictures if index not in rows]
        return State(
            table=str(sheet.path), attributes=attributes, pictures=len(pictures), labelled=len(pictures) - len(left),
            next=left[:AHEAD], last=next(reversed(rows), None),
        )  # fmt: skip

    app = guarded_app("energyql label", DESCRIPTION, STATIC / "label.html", access, Bodies(BODY))
    app.mount("/label", StaticFiles(directory=STATIC))

    # Each handler runs on the event loop to its end, so two decisions never write at the same time.
    @app.get("/api/state")
    async def look() -> State:
        """Return the attributes to label, how many pictures are labelled, and which pictures are next."""
        return state(sheet.rows())

    @app.post("/api/labels")
    async def decide(request: Labels) -> State:
        """Write the labels of one picture to the table, in place of its earlier labels, and return the new state."""
        return state((looks or sheet).decide(request.index, request.labels))

    @app.delete("/api/labels/{index}")
    async def undo(index: int) -> State:
        """Take back what was said of one picture, so that the page shows it again; return the new state."""
        return state((looks or sheet).undo(index))

    @app.get("/api/pictures/{index}.png")
    async def picture(index: int) -> Response:
        """Return the picture with the number `index`; the status is 404 if there is no such picture."""
        if index not in pictures:
            raise HTTPException(404, f"there is no picture {index}")
        file = sheet.folder.file(index)
        return picture_response(read_bytes(file, MOST_PICTURE, DataError), file)

    return app
