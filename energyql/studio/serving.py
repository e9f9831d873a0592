"""Starting the studio: models, socket, web server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import uvicorn
from fastapi import FastAPI

from energyql.errors import ArgumentError
from energyql.pipeline.arguments import choose_device
from energyql.pipeline.generate import Pipeline
from energyql.pipeline.model import load_model
from energyql.studio.app import create_app
from energyql.studio.guard import known_hosts
from energyql.studio.limits import Limits
from energyql.studio.patience import PatientProtocol
from energyql.studio.studio import Studio

CONNECTIONS = 100
"""Most connections at a time; beyond that the server answers 503 at once, in plain text."""


def load_models(names: Sequence[str], device: str) -> dict[str, Pipeline]:
    """The models of a studio by their own names.

    Raises:
        ModelError: one is missing or damaged.
        ArgumentError: two have the same name.
    """
    place = choose_device(device)
    models: dict[str, Pipeline] = {}
    for name in names:
        model = load_model(name, place)
        if model.name in models:
            raise ArgumentError(f"two models are called {model.name!r}", hint='change "name" in config.json of one')
        models[model.name] = Pipeline(model, place)
    return models


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, so that a port which is taken is noticed before models are loaded.

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
    """The server of an application that `create_app` made."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
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
) -> None:
    """Run a studio until it is interrupted.

    Args:
        models: names or folders, at least one.
        host, port: where to listen; port 0 takes a free one.
        device: where to compute.
        limits: of a request.
        allowed: further names under which the studio may be asked for.
        ready: called with the address once the studio listens.
    """
    bound = listen(host, port)
    try:
        studio = Studio(load_models(models, device), limits)
        hosts, numbers = known_hosts(host, allowed)
        app = create_app(studio, hosts=hosts, numbers=numbers)
        bound.listen(128)
        ready(f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/")
        web_server(app).run(sockets=[bound])
    finally:
        bound.close()
