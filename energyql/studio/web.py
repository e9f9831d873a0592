"""Common parts of the studio and of the page for labels: one page with its files, errors as messages, the server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from energyql import __version__
from energyql.errors import ArgumentError, EnergyQLError
from energyql.studio.guard import Access, Bodies, Guard, access_to, is_loopback
from energyql.studio.problems import INTERNAL, Json, StudioError, describe_fault, respond

STATIC = Path(__file__).parent / "static"
REFERENCE = "GET /api/openapi.json describes every request"
CONNECTIONS = 100
"""Largest number of connections; clients that hold them all open lock others out, which only a proxy prevents."""
EVERYWHERE = ("", "0.0.0.0", "::")
"""Hosts that mean every address of this machine."""


class RequestBody(BaseModel):
    """The body of a request. An unknown field is an error, and so is "4" or true in place of a number."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


def guarded_app(
    title: str, description: str, page: Path, access: Access | None, bodies: Bodies, **options: Any
) -> FastAPI:
    """Application with one page, and with the style sheets and scripts of the studio, behind a `Guard`.

    Args:
        title: title of the HTTP API of the application.
        description: description of the HTTP API.
        page: the HTML file of the page.
        access: `None` for only visitors on this machine.
        options: further arguments of `FastAPI`.
    """
    app = FastAPI(
        title=title, version=__version__, description=description, openapi_url="/api/openapi.json",
        docs_url=None, redoc_url=None,  # both are pages of FastAPI that load scripts from other servers
        default_response_class=Json, **options,
    )  # fmt: skip
    app.add_middleware(Guard, access=access or Access(), bodies=bodies)
    for kind in (EnergyQLError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _refuse)

    serve_file(app, "/", page)
    serve_file(app, "/static/gallery.css", files("energyql.gallery").joinpath("page.css"))
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def serve_file(app: FastAPI, path: str, file: object) -> None:
    """Add a route that returns a file of the package; the description of the API leaves this route out.

    Args:
        path: path of the route, such as "/api".
        file: a path, or an object whose `str` is one.
    """

    @app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)
    async def send() -> FileResponse:
        return FileResponse(str(file))


async def _refuse(request: Request, error: Exception) -> Json:
    """Response to a request that raised an error of any kind."""
    if isinstance(error, EnergyQLError):
        return respond(error)
    if isinstance(error, RequestValidationError):  # a field is missing, of the wrong type or out of range
        message = "; ".join(map(describe_fault, error.errors()[:5]))
        return respond(StudioError("InvalidRequest", message, hint=REFERENCE))
    if not isinstance(error, HTTPException):
        return respond(INTERNAL)
    if error.status_code == 400:  # FastAPI gives no details
        hint = "send UTF-8, and do not nest it deeply"
        return respond(StudioError("HTTPError", "the request is JSON that cannot be read", hint=hint))
    return respond(StudioError("HTTPError", str(error.detail), hint=REFERENCE), error.status_code)


class Listening(NamedTuple):
    """How a web application that has started can be reached.

    Attributes:
        addresses: addresses of the page, with the token if there is one; the first address is for this machine.
        exposed: whether other machines can reach the application.
        token: whether visitors need a token.
    """

    addresses: tuple[str, ...]
    exposed: bool
    token: bool


def serve_app(
    make: Callable[[Access], FastAPI],
    *,
    host: str,
    port: int,
    allowed: Sequence[str],
    ready: Callable[[Listening], None],
    token: str | None = None,
) -> None:
    """Run a web application until it is interrupted.

    Args:
        make: returns the application; called after the port is bound.
        host: name or address to listen on.
        port: port to listen on; 0 for a free one.
        allowed: further names of this machine, under which visitors may open the page.
        ready: called with the addresses of the page when the port is open.
        token: the token that visitors need; "" for none. By default a new one if other machines can reach the
            application.

    Raises:
        ArgumentError: the port cannot be bound.
    """
    with listen(host, port) as bound:
        access = access_to(host, allowed, token)
        app = make(access)
        bound.listen(128)
        addresses = addresses_of(host, bound.getsockname()[1], allowed, access.token)
        ready(Listening(addresses, not is_loopback(host), access.token is not None))
        web_server(app).run(sockets=[bound])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to a host and a port, but does not listen yet.

    It is bound before models are loaded, so that a port in use is noticed at once.

    Raises:
        ArgumentError: the socket cannot be bound, for example because the port is in use.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        message = f"cannot listen on {host}, port {port}: {error.strerror}"
        raise ArgumentError(message, hint="try another port") from None
    return bound


def web_server(app: FastAPI) -> uvicorn.Server:
    """Web server of an application, not started yet."""
    return uvicorn.Server(
        uvicorn.Config(
            app, ws="none", log_level="warning", timeout_graceful_shutdown=3, lifespan="on",
            limit_concurrency=CONNECTIONS,
        )
    )  # fmt: skip


def addresses_of(host: str, port: int, names: Sequence[str], token: str | None) -> tuple[str, ...]:
    """Address of the page of a server, such as `http://127.0.0.1:8420/`, for `host` and each of `names`.

    A host that means every address of this machine ("0.0.0.0") gives a loopback address, and the address that other
    machines see, if there is a network.

    Args:
        token: secret that is added to each address as `?token=`; `None` for none.
    """
    places = [host, *names]
    if host in EVERYWHERE:
        places = ["::1" if ":" in host else "127.0.0.1", *_own_addresses(":" in host), *names]
    end = "" if token is None else f"?token={token}"
    return tuple(f"http://{f'[{place}]' if ':' in place else place}:{port}/{end}" for place in places)


def _own_addresses(version6: bool) -> list[str]:
    """Address of this machine in its network, in a list; [] without a network.

    A UDP socket, connected to an address for documentation, shows it; connecting sends nothing.
    """
    family, far = (socket.AF_INET6, "2001:db8::1") if version6 else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))
        except OSError:
            return []
        return [probe.getsockname()[0]]
