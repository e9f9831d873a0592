"""The web application: one page, and the HTTP API that it uses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse

from energyql.studio import downloads
from energyql.studio.guard import Access, Bodies
from energyql.studio.limits import RequestLimiter
from energyql.studio.problems import REFUSALS, Problem
from energyql.studio.schemas import (
    Check,
    CheckRequest,
    DrawRequest,
    EditRequest,
    GalleryRequest,
    Info,
    JobInfo,
    PhotographRequest,
    Restored,
    TraversalRequest,
    TruthTableRequest,
    VariationsRequest,
)
from energyql.studio.studio import Studio
from energyql.studio.tasks import FORMATS
from energyql.studio.web import STATIC, guarded_app

DESCRIPTION = """Logical queries over the attributes of a pretrained generator, and pictures that satisfy them.

Drawing takes a while, so it is a job: a POST queues it, `GET /api/jobs/{id}` returns its progress and the pictures that
are drawn already, `DELETE /api/jobs/{id}` cancels it. A job without a status request for half a minute, or for a few
seconds while others wait, is cancelled. The same request gives the same pictures. Errors are a `Problem`."""

Responses = dict[int | str, dict[str, Any]]
PNG: Responses = {200: {"content": {"image/png": {}}, "description": "A PNG."}}
HTML: Responses = {200: {"content": {"text/html": {}}, "description": "A page."}}
ZIP: Responses = {200: {"content": {"application/zip": {}}, "description": "A ZIP."}}


def _refusals(*kinds: str) -> Responses:
    """Return the OpenAPI description of refusals of some kinds."""
    return {code: {"model": Problem, "description": text} for code, text in (REFUSALS[kind] for kind in kinds)}


POSTED = _refusals("HTTPError", "NoToken", "Forbidden", "TooSlow", "TooLarge", "NotJSON", "InvalidRequest", "Busy")
UNKNOWN = _refusals("NoToken", "Forbidden", "NotKept", "InvalidRequest")
UNREADY = UNKNOWN | _refusals("NotReady")
UNDRAWN = UNREADY | _refusals("Busy")
UPLOADS = {"/api/photographs": FORMATS, "/api/provenance": ("image/png",)}
"""Path that takes a picture as its body -> its media types."""
SOURCED = POSTED | UNREADY
"""Descriptions of refusals of requests that begin with pictures of a job."""


def create_app(studio: Studio, access: Access | None = None) -> FastAPI:
    """Return the web application of a studio.

    Args:
        studio: the studio; it is closed when the application ends.
        access: who may use the application; by default visitors on this machine.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        studio.close()

    bodies = Bodies(studio.limits.body, UPLOADS, studio.limits.photograph_bytes)
    page = STATIC / "index.html"
    app = guarded_app("energyql studio", DESCRIPTION, page, access=access or Access(), bodies=bodies, lifespan=lifespan)

    @app.api_route("/api", methods=["GET", "HEAD"], include_in_schema=False)
    async def reference() -> FileResponse:
        return FileResponse(STATIC / "api.html")

    app.include_router(_api(studio))
    app.include_router(_files(studio))
    return app


def _api(studio: Studio) -> APIRouter:
    api, limiter = APIRouter(prefix="/api", tags=["queries"]), RequestLimiter()

    @api.get("/info", responses=_refusals("NoToken", "Forbidden"))
    async def info() -> Info:
        """Return models with their attributes, samplers, semantics and limits."""
        return studio.info

    @api.post("/check", responses=POSTED)
    async def check(request: CheckRequest, client: Request) -> Check:
        """Return the meaning of a query, or its error and where it is."""
        return await limiter.run(client, studio.check, request)

    @api.post("/jobs", status_code=202, responses=POSTED)
    async def draw(request: DrawRequest, client: Request) -> JobInfo:
        """Draw pictures that satisfy a query."""
        return await limiter.run(client, studio.draw, request)

    @api.post("/edits", status_code=202, responses=SOURCED)
    async def edit(request: EditRequest, client: Request) -> JobInfo:
        """Edit pictures step by step: returns each before the first step and after each step."""
        return await limiter.run(client, studio.edit, request)

    @api.post("/variations", status_code=202, responses=SOURCED)
    async def vary(request: VariationsRequest, client: Request) -> JobInfo:
        """Draw variations of one picture, or pictures like several."""
        return await limiter.run(client, studio.vary, request)

    @api.post("/truth-tables", status_code=202, responses=POSTED)
    async def truth_table(request: TruthTableRequest, client: Request) -> JobInfo:
        """Draw every combination of one to four literals."""
        return await limiter.run(client, studio.truth_table, request)

    @api.post("/traversals", status_code=202, responses=POSTED)
    async def traversal(request: TraversalRequest, client: Request) -> JobInfo:
        """Draw paths from pictures of one query to pictures of another."""
        return await limiter.run(client, studio.traversal, request)

    @api.post("/galleries", status_code=202, responses=POSTED)
    async def gallery(request: GalleryRequest, client: Request) -> JobInfo:
        """Draw several queries for one page."""
        return await limiter.run(client, studio.gallery, request)

    @api.post("/photographs", status_code=202, responses=POSTED, openapi_extra=_uploads(*FORMATS))
    async def photograph(client: Request, settings: Annotated[PhotographRequest, Query()]) -> JobInfo:
        """Find the latents of a photograph, so that it can be edited: an edit names the job that this returns."""
        return await limiter.run(client, studio.photograph, settings, await client.body())

    @api.post("/provenance", responses=POSTED, openapi_extra=_uploads("image/png"))
    async def restore(client: Request) -> Restored:
        """Return the request that draws a picture again, out of a PNG that energyql saved."""
        return await limiter.run(client, studio.restore, await client.body())

    @api.get("/jobs/{id}", responses=UNKNOWN)
    async def look(
        id: str, after: Annotated[int, Query(ge=0, description="Leave out pictures before this.")] = 0
    ) -> JobInfo:
        """Return the progress of a job, and its pictures."""
        return studio.look(id, after)

    @api.delete("/jobs/{id}", responses=UNKNOWN | _refusals("TooSlow", "TooLarge"))
    async def cancel(id: str) -> JobInfo:
        """Cancel a job. A running one ends at its next layer or step, within moments."""
        return studio.cancel(id)

    return api


def _files(studio: Studio) -> APIRouter:
    api, limiter = APIRouter(prefix="/api/jobs/{id}", tags=["downloads"]), RequestLimiter()

    @api.get("/pictures/{position}.png", response_class=Response, responses=PNG | UNDRAWN)
    async def picture(id: str, position: int, client: Request) -> Response:
        """Return one picture in full size; its text field "energyql" holds its provenance."""
        job, result = studio.store.get(id)
        data = await limiter.run(client, downloads.picture, job, result, position)
        return _download(data, "image/png", f"energyql-{position:02d}.png")

    @api.get("/grid.png", response_class=Response, responses=PNG | UNDRAWN)
    async def grid(id: str, client: Request) -> Response:
        """Return all pictures with captions and verdicts as one picture."""
        data = await limiter.run(client, downloads.grid, *studio.store.get(id))
        return _download(data, "image/png", "energyql-grid.png")

    @api.get("/provenance.json", responses=UNREADY)
    async def provenance(id: str) -> list[dict[str, Any]]:
        """Return the provenance of the pictures: query, seed, model and fingerprints, settings, versions."""
        return downloads.provenance(*studio.store.get(id))

    @api.get("/gallery.html", response_class=Response, responses=HTML | UNDRAWN)
    async def page(
        id: str, client: Request, title: Annotated[str, Query(max_length=200, description="Of the page.")] = ""
    ) -> Response:
        """Return the gallery page of a drawing, a table, a traversal or a gallery: one file that loads nothing."""
        data = await limiter.run(client, downloads.gallery, *studio.store.get(id), title)
        return _download(data, "text/html", "energyql.html")

    @api.get("/result.zip", response_class=Response, responses=ZIP | UNDRAWN)
    async def archive(id: str, client: Request) -> Response:
        """Return everything: pictures, grid, latents, verdicts, provenance."""
        data = await limiter.run(client, downloads.archive, *studio.store.get(id))
        return _download(data, "application/zip", "energyql.zip")

    return api


def _uploads(*kinds: str) -> dict[str, Any]:
    """Return the OpenAPI description of a request whose body is a picture."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


def _download(data: bytes, kind: str, name: str) -> Response:
    return Response(data, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})
