"""The web application: one page, and the HTTP API that it uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from starlette.types import Receive, Scope, Send

from energyql.studio import downloads
from energyql.studio.guard import Access, Bodies
from energyql.studio.limits import limited_route
from energyql.studio.problems import REFUSALS, Problem
from energyql.studio.schemas import (
    Info,
    JobInfo,
    PhotographRequest,
    Restored,
)
from energyql.studio.studio import Studio
from energyql.studio.tasks import FORMATS
from energyql.studio.web import STATIC, guarded_app, serve_file

DESCRIPTION = """Logical queries over the attributes of a pretrained generator, and pictures that satisfy them.

Drawing takes a while, so it is a job: a POST queues it, `GET /api/jobs/{id}` returns its progress and the pictures that
are drawn already, `DELETE /api/jobs/{id}` cancels it. A job without a status request for half a minute, or for a few
seconds while others wait, is cancelled. The same request gives the same pictures. Errors are a `Problem`."""

Responses = dict[int | str, dict[str, Any]]


def _refusals(*kinds: str) -> Responses:
    """OpenAPI descriptions of refused requests, by HTTP status, for kinds in `REFUSALS` such as "Busy"."""
    return {code: {"model": Problem, "description": text} for code, text in (REFUSALS[kind] for kind in kinds)}


POSTED = _refusals("HTTPError", "NoToken", "Forbidden", "TooSlow", "TooLarge", "NotJSON", "InvalidRequest", "Busy")
UNKNOWN = _refusals("NoToken", "Forbidden", "NotKept", "InvalidRequest")
UNREADY = UNKNOWN | _refusals("NotReady")
UNDRAWN = UNREADY | _refusals("Busy")
UPLOADS = {"/api/photographs": FORMATS, "/api/provenance": ("image/png",)}
"""Path of requests whose body is a picture -> media types that the picture may have."""
SOURCED = POSTED | UNREADY
"""Refusals of a request that begins with pictures of a job."""


class Tab(Protocol):
    """An application inside the studio, with a page for each of some models."""

    @property
    def models(self) -> Collection[str]:
        """Names of these models, in the paths of their pages."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; its path has the name of a model."""

    def close(self) -> None:
        """End it."""


def create_app(studio: Studio, access: Access | None = None, lessons: Tab | None = None) -> FastAPI:
    """Return the web application of a studio: its page and its HTTP API.

    Args:
        studio: the models and jobs; the application closes the studio when the application ends.
        access: who may use the application; by default only visitors on this machine.
        lessons: the pages on which models are taught.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        if lessons is not None:
            lessons.close()
        studio.close()

    bodies = Bodies(studio.limits.body, UPLOADS, studio.limits.photograph_bytes)
    app = guarded_app("energyql studio", DESCRIPTION, STATIC / "index.html", access, bodies, lifespan=lifespan)
    serve_file(app, "/api", STATIC / "api.html")
    for router in (_work(studio), _status(studio), _files(studio)):
        app.include_router(router)
    if lessons is not None:
        studio.teachable = lessons.models
        app.mount("/lessons/{name}", lessons)
    return app


def _status(studio: Studio) -> APIRouter:
    """Routes that compute nothing, so that they respond at once: description of the studio, state and end of a job."""
    api = APIRouter(prefix="/api", tags=["queries"])

    @api.get("/info", responses=_refusals("NoToken", "Forbidden"))
    async def info() -> Info:
        """Return models with their attributes, samplers, semantics and limits."""
        return studio.info

    @api.get("/jobs/{id}", responses=UNKNOWN)
    async def look(
        id: str, after: Annotated[int, Query(ge=0, description="Leave out pictures before this.")] = 0
    ) -> JobInfo:
        """Return the progress of a job, and its pictures."""
        return studio.look(id, after)

    @api.delete("/jobs/{id}", responses=UNKNOWN | _refusals("TooSlow", "TooLarge"))
    async def cancel(id: str) -> JobInfo:
        """Cancel a job. A running job ends within moments, at the next layer of a network or step of the sampler."""
        return studio.cancel(id)

    return api


def _work(studio: Studio) -> APIRouter:
    """Routes that compile queries and queue jobs; a limited number of their requests runs at a time."""
    api = APIRouter(prefix="/api", tags=["queries"], route_class=limited_route())
    api.post("/check", responses=POSTED, description="Return the meaning of a query, or its error.")(studio.check)
    for path, queue, refusals, description in (
        ("/jobs", studio.draw, POSTED, "Draw pictures that satisfy a query."),
        ("/edits", studio.edit, SOURCED, "Edit pictures step by step: returns each at the start and after each step."),
        ("/variations", studio.vary, SOURCED, "Draw variations of one picture, or pictures like several."),
        ("/truth-tables", studio.truth_table, POSTED, "Draw every combination of one to four literals."),
        ("/traversals", studio.traversal, POSTED, "Draw paths from pictures of one query to pictures of another."),
        ("/galleries", studio.gallery, POSTED, "Draw several queries for one page."),
    ):
        api.post(path, status_code=202, responses=refusals, description=description)(queue)

    @api.post("/photographs", status_code=202, responses=POSTED, openapi_extra=_uploads(*FORMATS))
    def photograph(settings: Annotated[PhotographRequest, Query()], data: Body) -> JobInfo:
        """Find the latents of a photograph, so that it can be edited. To edit it, name the returned job in an edit."""
        return studio.photograph(settings, data)

    @api.post("/provenance", responses=POSTED, openapi_extra=_uploads("image/png"))
    def restore(data: Body) -> Restored:
        """Return the request that draws a picture again, made from a PNG that energyql saved."""
        return studio.restore(data)

    return api


def _files(studio: Studio) -> APIRouter:
    """Routes that send the files of a job; a limited number of their requests runs at a time."""
    api = APIRouter(prefix="/api/jobs/{id}", tags=["downloads"], route_class=limited_route())
    get = studio.store.get

    @api.get("/pictures/{position}.png", response_class=Response, responses=_file("image/png"))
    def picture(id: str, position: int) -> Response:
        """Return one picture in full size, as PNG. The text field "energyql" of the file holds the provenance."""
        return _download(downloads.picture(*get(id), position), "image/png", f"energyql-{position:02d}.png")

    @api.get("/grid.png", response_class=Response, responses=_file("image/png"))
    def grid(id: str) -> Response:
        """Return all pictures with captions and verdicts as one picture."""
        return _download(downloads.grid(*get(id)), "image/png", "energyql-grid.png")

    @api.get("/provenance.json", responses=UNDRAWN)
    def provenance(id: str) -> list[dict[str, Any]]:
        """Return the provenance of each result of the job: query, seed, model and fingerprints, settings, versions."""
        return downloads.records(*get(id))

    @api.get("/gallery.html", response_class=Response, responses=_file("text/html"))
    def page(id: str, title: Annotated[str, Query(max_length=200, description="Of the page.")] = "") -> Response:
        """Return the gallery page of a drawing, a table, a traversal or a gallery, which is a single HTML file."""
        return _download(downloads.gallery(*get(id), title), "text/html", "energyql.html")

    @api.get("/result.zip", response_class=Response, responses=_file("application/zip"))
    def archive(id: str) -> Response:
        """Return a ZIP of everything: pictures, grid, latents, verdicts, provenance."""
        return _download(downloads.archive(*get(id)), "application/zip", "energyql.zip")

    return api


async def _body(client: Request) -> bytes:
    return await client.body()


Body = Annotated[bytes, Depends(_body)]


def _file(kind: str) -> Responses:
    """OpenAPI descriptions of a file of media type `kind`, and of the refusals in its place."""
    return {200: {"content": {kind: {}}, "description": "A file."}, **UNDRAWN}


def _uploads(*kinds: str) -> dict[str, Any]:
    """OpenAPI description of a request whose body is a picture of one of the media types `kinds`."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


def _download(data: bytes, kind: str, name: str) -> Response:
    return Response(data, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})
