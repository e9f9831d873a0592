"""Start of the studio: models, socket, web server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import uvicorn
from fastapi import FastAPI

from energyql.errors import ArgumentError
from energyql.pipeline.draw import Pipeline
from energyql.pipeline.model import Model, choose_device, load_model
from energyql.studio.app import create_app
from energyql.studio.guard import Access, access_to, is_loopback
from energyql.studio.limits import CONNECTIONS, Limits
from energyql.studio.studio import Studio

Load = Callable[[str, torch.device], Model]
"""Function from the name or folder of a model and a device to the model, such as `load_model`."""


def load_models(names: Sequence[str], device: str, load: Load = load_model) -> dict[str, Pipeline]:
    """Return name -> model of a studio.

    Args:
        names: names or folders of models.
        device: the device, or "auto".
        load: loads a model.

    Raises:
        ModelError: a model is missing or damaged.
        ArgumentError: two models have the same name.
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
    """Return a socket that is bound to a host and a port.

    Models are loaded later, so that a port in use is noticed at once.

    Raises:
        ArgumentError: the socket cannot be bound, for example because the port is in use.
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
    """Return the web server of an application."""
    config = uvicorn.Config(
        app, ws="none", log_level="warning", timeout_graceful_shutdown=3, lifespan="on", limit_concurrency=CONNECTIONS
    )
    return uvicorn.Server(config)


@dataclass(frozen=True, slots=True)
class Listening:
    """A web application that listens.

    Attributes:
        addresses: addresses of its page, with the token; the first one is for this machine.
        exposed: whether other machines can reach it.
        token: whether visitors need a token.
    """

    addresses: tuple[str, ...]
    exposed: bool
    token: bool


def serve(
    models: Sequence[str],
    *,
    host: str,
    port: int,
    device: str,
    limits: Limits,
    allowed: Sequence[str],
    ready: Callable[[Listening], None],
    token: str | None = None,
    load: Load = load_model,
) -> None:
    """Run a studio until it is interrupted.

    Args:
        models: names or folders of models, at least one.
        host: name or address to listen on.
        port: port to listen on; 0 for a free one.
        device: the device of the models, or "auto".
        limits: limits of requests.
        allowed: further host names.
        ready: called once the studio listens.
        token: the token that visitors need; empty for none. By default a new one if other machines can reach the
            studio.
        load: loads a model.

    Raises:
        EnergyQLError: the port is in use, or a model cannot be loaded.
    """

    def make(access: Access) -> FastAPI:
        return create_app(Studio(load_models(models, device, load), limits), access)

    serve_app(make, host=host, port=port, allowed=allowed, ready=ready, token=token)


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
        host: see `serve`.
        port: see `serve`.
        allowed: see `serve`.
        ready: see `serve`.
        token: see `serve`.

    Raises:
        ArgumentError: the port cannot be bound.
    """
    bound = listen(host, port)
    try:
        access = access_to(host, allowed, token)
        app = make(access)
        bound.listen(128)
        addresses = addresses_of(host, bound.getsockname()[1], allowed, access.token)
        ready(Listening(addresses, not is_loopback(host), access.token is not None))
        web_server(app).run(sockets=[bound])
    finally:
        bound.close()


def addresses_of(host: str, port: int, names: Sequence[str], token: str | None) -> tuple[str, ...]:
    """Return the addresses of the page of a server.

    If `host` means every address of this machine, these are a loopback address, the one that other machines see, and
    those with the allowed `names`.

    Args:
        host: name or address that the server listens on.
        port: its port.
        names: further host names.
        token: token in the addresses; empty or `None` for none.
    """
    places = [host, *names]
    if _listens_everywhere(host):
        version6 = ":" in host
        places = ["::1" if version6 else "127.0.0.1", *filter(None, [_own_address(version6)]), *names]
    end = "" if token is None else f"?token={token}"
    return tuple(f"http://{f'[{place}]' if ':' in place else place}:{port}/{end}" for place in places)


def _listens_everywhere(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")  # compared with, not bound to


def _own_address(version6: bool) -> str | None:
    """Return the address of this machine in its network; `None` without a network.

    It is read from a UDP socket that is connected to an address reserved for documentation, which sends nothing.
    """
    family, far = (socket.AF_INET6, "2001:db8::1") if version6 else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])
