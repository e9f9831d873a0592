"""The routes: one page, and the API that it uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from energyql.errors import EnergyQLError
from energyql.studio import downloads
from energyql.studio.gate import Gate
from energyql.studio.guard import LOOPBACK, Guard
from energyql.studio.problems import INTERNAL, Problem, describe, status_of
from energyql.studio.schemas import Check, CheckRequest, DrawRequest, EditRequest, Info, JobInfo
from energyql.studio.studio import Studio
from energyql.version import __version__

STATIC = Path(__file__).parent / "static"
DESCRIPTION = """Logical queries over the attributes of a pretrained generator, and pictures that satisfy them.

Drawing takes a while, so it is a job: `POST /api/jobs` queues it up, `GET /api/jobs/{id}` says how far it is and has
the pictures that are there already, `DELETE /api/jobs/{id}` ends it. A job that nobody asks about for half a minute is
given up. The same request gives the same pictures. Whatever is wrong comes back as a `Problem`."""

REFUSED: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": text}
    for code, text in {
        400: "The request is JSON that cannot be read: it is not UTF-8, or nested too deeply.",
        403: "The request comes from another site, or asks for another host.",
        408: "The request did not arrive in time.",
        413: "The request is too large.",
        415: "The request is not JSON.",
        422: "The query or a setting is wrong.",
    }.items()
}
BUSY: dict[int | str, dict[str, Any]] = {503: {"model": Problem, "description": "Too many requests are waiting."}}
UNKNOWN: dict[int | str, dict[str, Any]] = {
    403: REFUSED[403],
    404: {"model": Problem, "description": "There is no such request, or no longer."},
    422: REFUSED[422],
}
ENDING: dict[int | str, dict[str, Any]] = UNKNOWN | {code: REFUSED[code] for code in (408, 413)}
UNREADY: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "description": "It is not there yet."}}
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "A PNG."}}
ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}, "description": "A ZIP."}}


def create_app(studio: Studio, *, hosts: Collection[str] = LOOPBACK, numbers: bool = False) -> FastAPI:
    """The web application of a studio.

    Args:
        studio: does the work; it is closed when the application ends.
        hosts, numbers: see `Guard`.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        studio.close()

    app = FastAPI(
        title="energyql studio",
        version=__version__,
        description=DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, hosts=hosts, numbers=numbers, body=studio.limits.body)
    app.add_exception_handler(EnergyQLError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_values)
    app.add_exception_handler(HTTPException, _refuse_path)
    app.add_exception_handler(Exception, _apologize)
    app.include_router(_api(studio))
    app.include_router(_files(studio))

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.api_route("/static/gallery.css", methods=["GET", "HEAD"], include_in_schema=False)
    async def gallery_style() -> FileResponse:
        return FileResponse(str(files("energyql.gallery").joinpath("page.css")))

    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def _api(studio: Studio) -> APIRouter:
    api, gate = APIRouter(prefix="/api", tags=["queries"]), Gate()

    @api.get("/info", responses={403: REFUSED[403]})
    async def info() -> Info:
        """Models with their attributes, samplers, semantics, limits."""
        return studio.info()

    @api.post("/check", responses=REFUSED | BUSY)
    async def check(request: CheckRequest, asker: Request) -> Check:
        """What a query means, or what is wrong with it and where."""
        return await gate.run(asker, studio.check, request)

    @api.post("/jobs", status_code=202, responses=REFUSED | BUSY)
    async def draw(request: DrawRequest, asker: Request) -> JobInfo:
        """Draw pictures that satisfy a query."""
        return await gate.run(asker, studio.draw, request)

    @api.post("/edits", status_code=202, responses=REFUSED | BUSY)
    async def edit(request: EditRequest, asker: Request) -> JobInfo:
        """Edit one picture step by step: answers with the picture as it was, and as it is after each step."""
        return await gate.run(asker, studio.edit, request)

    @api.get("/jobs/{id}", responses=UNKNOWN)
    async def look(
        id: str, after: Annotated[int, Query(ge=0, description="Leave out pictures before this.")] = 0
    ) -> JobInfo:
        """How far a job is, and its pictures."""
        return studio.look(id, after)

    @api.delete("/jobs/{id}", responses=ENDING)
    async def cancel(id: str) -> JobInfo:
        """End a job. One that runs ends at its next layer or step, within moments."""
        return studio.cancel(id)

    return api


def _files(studio: Studio) -> APIRouter:
    api, gate = APIRouter(prefix="/api/jobs/{id}", tags=["downloads"]), Gate()

    @api.get("/pictures/{position}.png", response_class=Response, responses=PNG | UNKNOWN | UNREADY | BUSY)
    async def picture(id: str, position: int, asker: Request) -> Response:
        """One picture with all its pixels; its text field "energyql" holds what replays it."""
        job, answer = studio.shelf.get(id)
        data = await gate.run(asker, downloads.picture, job, answer, position)
        return _download(data, "image/png", f"energyql-{position:02d}.png")

    @api.get("/grid.png", response_class=Response, responses=PNG | UNKNOWN | UNREADY | BUSY)
    async def grid(id: str, asker: Request) -> Response:
        """All pictures with captions and verdicts in one picture."""
        return _download(await gate.run(asker, downloads.grid, *studio.shelf.get(id)), "image/png", "energyql-grid.png")

    @api.get("/provenance.json", responses=UNKNOWN | UNREADY)
    async def provenance(id: str) -> list[dict[str, Any]]:
        """What replays the pictures: query, seed, model and fingerprints, settings, versions."""
        return downloads.provenance(*studio.shelf.get(id))

    @api.get("/result.zip", response_class=Response, responses=ZIP | UNKNOWN | UNREADY | BUSY)
    async def archive(id: str, asker: Request) -> Response:
        """Everything: pictures, grid, latents, verdicts, provenance."""
        return _download(
            await gate.run(asker, downloads.archive, *studio.shelf.get(id)), "application/zip", "energyql.zip"
        )

    return api


def _download(data: bytes, kind: str, name: str) -> Response:
    return Response(data, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})


def _answer(problem: Problem, status: int) -> JSONResponse:
    headers = {"retry-after": "2"} if status == 503 else None
    return JSONResponse(problem.model_dump(), status_code=status, headers=headers)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EnergyQLError)
    return _answer(describe(error), status_of(error))


async def _refuse_values(request: Request, error: Exception) -> JSONResponse:
    """Fields that are missing, of the wrong type or out of range, in one sentence each."""
    assert isinstance(error, RequestValidationError)
    parts = []
    for fault in error.errors()[:5]:
        parts.append(_fault(fault))
    message = "; ".join(parts)
    hint = "GET /api/openapi.json describes every request"
    drawing = f"InvalidRequest: {message}\n{hint}"
    return _answer(Problem(error="InvalidRequest", message=message, hint=hint, drawing=drawing), 422)


def _fault(fault: Mapping[str, Any]) -> str:
    place = fault["loc"][1:]  # the first says body, query or path
    if fault["type"] == "json_invalid":
        return f"the request is not JSON: {fault['ctx']['error']} at character {place[0] + 1}"
    return f"{'.'.join(str(step) for step in place)}: {fault['msg']}" if place else str(fault["msg"])


async def _refuse_path(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message, hint = str(error.detail), None
    if error.status_code == 400:  # all that the framework says is that there was an error
        message, hint = "the request is JSON that cannot be read", "send UTF-8, and do not nest it deeply"
    drawing = "\n".join(filter(None, [f"HTTPError: {message}", hint]))
    return _answer(Problem(error="HTTPError", message=message, hint=hint, drawing=drawing), error.status_code)


async def _apologize(request: Request, error: Exception) -> JSONResponse:
    return _answer(INTERNAL, 500)
