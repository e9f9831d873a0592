"""The web application: one page, and the HTTP API that it uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response

from energyql.studio import downloads
from energyql.studio.guard import LOOPBACK
from energyql.studio.limits import RequestLimiter
from energyql.studio.problems import REFUSALS, Problem
from energyql.studio.schemas import Check, CheckRequest, DrawRequest, EditRequest, Info, JobInfo
from energyql.studio.studio import Studio
from energyql.studio.web import STATIC, guarded_app

DESCRIPTION = """Logical queries over the attributes of a pretrained generator, and pictures that satisfy them.

Drawing takes a while, so it is a job: `POST /api/jobs` queues it, `GET /api/jobs/{id}` returns its progress and the
pictures that are drawn already, `DELETE /api/jobs/{id}` cancels it. A job without a status request for half a minute is
cancelled. The same request gives the same pictures. Errors are returned as a `Problem`."""

Responses = dict[int | str, dict[str, Any]]
PNG: Responses = {200: {"content": {"image/png": {}}, "description": "A PNG."}}
ZIP: Responses = {200: {"content": {"application/zip": {}}, "description": "A ZIP."}}


def _refusals(*kinds: str) -> Responses:
    """Return the OpenAPI description of refusals of some kinds."""
    return {code: {"model": Problem, "description": text} for code, text in (REFUSALS[kind] for kind in kinds)}


POSTED = _refusals("HTTPError", "Forbidden", "TooSlow", "TooLarge", "NotJSON", "InvalidRequest", "Busy")
UNKNOWN = _refusals("Forbidden", "NotKept", "InvalidRequest")
UNREADY = UNKNOWN | _refusals("NotReady")
UNDRAWN = UNREADY | _refusals("Busy")


def create_app(studio: Studio, *, hosts: Collection[str] = LOOPBACK, numbers: bool = False) -> FastAPI:
    """Return the web application of a studio.

    Args:
        studio: its models, queue and results; closed when the application ends.
        hosts: allowed host names, see `Guard`.
        numbers: whether IP addresses are allowed as hosts.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        studio.close()

    app = guarded_app(
        "energyql studio", DESCRIPTION, STATIC / "index.html",
        hosts=hosts, numbers=numbers, body=studio.limits.body, lifespan=lifespan,
    )  # fmt: skip
    app.include_router(_api(studio))
    app.include_router(_files(studio))
    return app


def _api(studio: Studio) -> APIRouter:
    api, limiter = APIRouter(prefix="/api", tags=["queries"]), RequestLimiter()

    @api.get("/info", responses=_refusals("Forbidden"))
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

    @api.post("/edits", status_code=202, responses=POSTED)
    async def edit(request: EditRequest, client: Request) -> JobInfo:
        """Edit one picture step by step: returns the picture before the first step and after each step."""
        return await limiter.run(client, studio.edit, request)

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

    @api.get("/result.zip", response_class=Response, responses=ZIP | UNDRAWN)
    async def archive(id: str, client: Request) -> Response:
        """Return everything: pictures, grid, latents, verdicts, provenance."""
        data = await limiter.run(client, downloads.archive, *studio.store.get(id))
        return _download(data, "application/zip", "energyql.zip")

    return api


def _download(data: bytes, kind: str, name: str) -> Response:
    return Response(data, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})
