"""Starting the studio: models, socket, web server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

import h11
import torch
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from energyql.errors import ArgumentError
from energyql.pipeline.generate import Pipeline
from energyql.pipeline.model import Model, choose_device, load_model
from energyql.studio import guard
from energyql.studio.app import create_app
from energyql.studio.limits import Limits
from energyql.studio.studio import Studio

CONNECTIONS = 100
"""Connections at a time; beyond that the server returns 503 at once, in plain text."""


class HeaderTimeoutProtocol(H11Protocol):
    """Close a connection when the headers of a request do not arrive in time, which uvicorn itself does not do.

    `Guard` limits the time of the body.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first request."""
        super().connection_made(transport)
        self._await_headers(True)

    def data_received(self, data: bytes) -> None:
        """Stop the timer when the headers are complete, and start it again between requests."""
        super().data_received(data)
        self._await_headers(self.conn.their_state is h11.IDLE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._await_headers(False)
        super().connection_lost(exc)

    def _await_headers(self, awaited: bool) -> None:
        if awaited and self._timer is None:  # a request that arrives byte by byte gets no more time
            self._timer = self.loop.call_later(guard.REQUEST_SECONDS, self.transport.close)
        elif not awaited and self._timer is not None:
            self._timer.cancel()
            self._timer = None


Load = Callable[[str, torch.device], Model]
"""From the name or folder of a model and a device to the model, such as `load_model`."""


def load_models(names: Sequence[str], device: str, load: Load = load_model) -> dict[str, Pipeline]:
    """Load the models of a studio, by their own names.

    Raises:
        ModelError: one is missing or damaged.
        ArgumentError: two have the same name.
    """
    place = choose_device(device)
    models: dict[str, Pipeline] = {}
    for name in names:
        model = load(name, place)
        if model.name in models:
            raise ArgumentError(f"two models are called {model.name!r}", hint='change "name" in config.json of one')
        models[model.name] = Pipeline(model, place)
    return models


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket, so that a port in use is noticed before models are loaded.

    Raises:
        ArgumentError: it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ArgumentError(f"cannot listen on {host}, port {port}: {reason}", hint="try another --port") from None
    return bound


def web_server(app: FastAPI) -> uvicorn.Server:
    """Return the web server of an application that `create_app` made."""
    config = uvicorn.Config(
        app,
        http=HeaderTimeoutProtocol,
        log_level="warning",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=3,
        lifespan="on",
    )
    return uvicorn.Server(config)


def serve(
    models: Sequence[str],
    *,
    host: str,
    port: int,
    device: str,
    limits: Limits,
    allowed: Sequence[str],
    ready: Callable[[str], None],
    load: Load = load_model,
) -> None:
    """Run a studio until it is interrupted.

    Args:
        models: names or folders, at least one.
        host: name or address to listen on.
        port: to listen on; 0 takes a free one.
        device: where to compute.
        limits: of a request.
        allowed: further host names.
        ready: called with the address once the studio listens.
        load: opens a model.
    """

    def make(hosts: frozenset[str], numbers: bool) -> FastAPI:
        return create_app(Studio(load_models(models, device, load), limits), hosts=hosts, numbers=numbers)

    serve_app(make, host=host, port=port, allowed=allowed, ready=ready)


def serve_app(
    make: Callable[[frozenset[str], bool], FastAPI],
    *,
    host: str,
    port: int,
    allowed: Sequence[str],
    ready: Callable[[str], None],
) -> None:
    """Run a web application until it is interrupted.

    Args:
        make: returns the application, from `hosts` and `numbers` as `Guard` takes them; called once the port is taken.
        host: as for `serve`.
        port: as for `serve`.
        allowed: as for `serve`.
        ready: as for `serve`.
    """
    bound = listen(host, port)
    try:
        app = make(*guard.known_hosts(host, allowed))
        bound.listen(128)
        ready(f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/")
        web_server(app).run(sockets=[bound])
    finally:
        bound.close()
