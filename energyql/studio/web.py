"""Common parts of the web applications of energyql: a guarded page with its files, and errors as messages."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from energyql.errors import EnergyQLError
from energyql.studio.guard import Access, Bodies, Guard
from energyql.studio.problems import INTERNAL, StudioError, describe_fault, respond
from energyql.version import __version__

STATIC = Path(__file__).parent / "static"


def guarded_app(
    title: str,
    description: str,
    page: Path,
    *,
    access: Access,
    bodies: Bodies,
    lifespan: Callable[[FastAPI], Any] | None = None,
) -> FastAPI:
    """Return an application with one page, the style sheets and scripts of the studio, and a `Guard` in front.

    Args:
        title: title of its HTTP API.
        description: description of its HTTP API.
        page: the HTML file.
        access: who may use the application; see `Guard`.
        bodies: the bodies of requests; see `Guard`.
        lifespan: context manager that is entered when the application starts and left when it ends.
    """
    app = FastAPI(
        title=title,
        version=__version__,
        description=description,
        openapi_url="/api/openapi.json",
        docs_url=None,  # pages of FastAPI that load scripts from other servers
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, access=access, bodies=bodies)
    for kind in (EnergyQLError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _refuse)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def start() -> FileResponse:
        return FileResponse(page)

    @app.api_route("/static/gallery.css", methods=["GET", "HEAD"], include_in_schema=False)
    async def gallery_style() -> FileResponse:
        return FileResponse(str(files("energyql.gallery").joinpath("page.css")))

    app.mount("/static", StaticFiles(directory=STATIC))
    return app


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    """Return the response to a request that raised an error of any kind."""
    if isinstance(error, EnergyQLError):
        return respond(error)
    if isinstance(error, RequestValidationError):  # a field is missing, of the wrong type or out of range
        message = "; ".join(map(describe_fault, error.errors()[:5]))
        return respond(StudioError("InvalidRequest", message, hint="GET /api/openapi.json describes every request"))
    if not isinstance(error, HTTPException):
        return respond(INTERNAL)
    message, hint = str(error.detail), None
    if error.status_code in (404, 405):
        hint = "GET /api/openapi.json describes every request"
    elif error.status_code == 400:  # FastAPI gives no details
        message, hint = "the request is JSON that cannot be read", "send UTF-8, and do not nest it deeply"
    return respond(StudioError("HTTPError", message, hint=hint), error.status_code)
