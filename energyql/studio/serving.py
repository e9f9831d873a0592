"""Start of the studio: load the models, and run the web application on a port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from energyql.errors import ArgumentError
from energyql.pipeline.draw import Pipeline
from energyql.pipeline.model import Model, choose_device, load_model
from energyql.studio.app import create_app
from energyql.studio.limits import Limits
from energyql.studio.studio import Studio
from energyql.studio.web import serve_app

Load = Callable[[str, torch.device], Model]
"""Loads a model from its name or folder onto a device, as `load_model` does."""


def load_models(names: Sequence[str], device: str, load: Load = load_model) -> dict[str, Pipeline]:
    """Load the models of a studio: name of a model -> the model on the device.

    Args:
        names: names of packaged models, or model folders.
        device: see `energyql.generate`.
        load: called with each of `names` and the device.

    Raises:
        ModelError: a model is missing or damaged.
        ArgumentError: two models have the same name, or there is no such device.
    """
    place, models = choose_device(device), dict[str, Pipeline]()
    for name in names:
        model = load(name, place)
        if model.name in models:
            raise ArgumentError(f"two models are called {model.name!r}", hint='change "name" in config.json of one')
        models[model.name] = Pipeline(model, place)
    return models


def serve(models: Sequence[str], *, device: str, limits: Limits, load: Load = load_model, **options: Any) -> None:
    """Run a studio until it is interrupted.

    Args:
        models: names of packaged models, or model folders, at least one.
        device: see `energyql.generate`.
        limits: limits of requests and of kept results.
        load: loads a model from its name or folder onto a device.
        options: host, port, token and so on: the keyword arguments of `energyql.studio.web.serve_app`.

    Raises:
        EnergyQLError: the port is in use, or a model cannot be loaded.
    """
    serve_app(lambda access: create_app(Studio(load_models(models, device, load), limits), access), **options)
