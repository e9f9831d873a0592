"""Start of the studio: load the models, and run the web application on a port."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from fastapi import FastAPI

from energyql.errors import ArgumentError
from energyql.pipeline.model import choose_device, load_model
from energyql.pipeline.session import Session
from energyql.pipeline.source import ModelSource
from energyql.studio.app import Tab, create_app
from energyql.studio.guard import Access, is_loopback
from energyql.studio.limits import Limits
from energyql.studio.studio import Studio
from energyql.studio.web import serve_app


def load_models(models: Sequence[str | ModelSource], device: str) -> dict[str, Session]:
    """Load the models of a studio: name of a model -> the model on the device.

    Args:
        models: names of packaged models, or model folders; or sources, which say which code is used or allowed.
        device: see `energyql.generate`.

    Raises:
        ModelError: a model is missing or damaged.
        ArgumentError: two models have the same name, or there is no such device.
    """
    place, loaded = choose_device(device), dict[str, Session]()
    for source in models:
        model = load_model(source, place)
        if model.name in loaded:
            raise ArgumentError(f"two models are called {model.name!r}", hint='change "name" in config.json of one')
        loaded[model.name] = Session(model, place)
    return loaded


def serve(
    models: Sequence[str | ModelSource],
    *,
    device: str,
    limits: Limits,
    host: str,
    lessons: Callable[[Studio, Mapping[str, str | ModelSource], torch.device, Access], Tab],
    **options: Any,
) -> None:
    """Run a studio until it is interrupted.

    Args:
        models: see `load_models`, at least one.
        device: see `energyql.generate`.
        limits: limits of requests and of kept results.
        host: name or address to listen on.
        lessons: makes the pages on which models are taught, if only this machine can reach the studio.
        options: port, token and so on: the keyword arguments of `energyql.studio.web.serve_app`.

    Raises:
        EnergyQLError: the port is in use, or a model cannot be loaded.
    """

    def make(access: Access) -> FastAPI:
        loaded = load_models(models, device)
        studio = Studio(loaded, limits)
        sources = dict(zip(loaded, models, strict=True))
        tab = lessons(studio, sources, choose_device(device), access) if is_loopback(host) else None
        return create_app(studio, access, tab)

    serve_app(make, host=host, **options)
