"""Lessons as a part of the studio: each of its models that lies in a folder of the user's can be taught."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from energyql.attributes.backbones import default_backbone
from energyql.errors import ArgumentError, EnergyQLError
from energyql.files import sole_writer
from energyql.generators.families import CONFIG
from energyql.models import packaged_models
from energyql.pipeline.model import load_model
from energyql.pipeline.session import Session
from energyql.pipeline.source import ModelSource
from energyql.studio.guard import Access
from energyql.studio.problems import respond
from energyql.studio.studio import Studio
from energyql.teaching.app import create_app
from energyql.teaching.classroom import PICTURES, Classroom

log = logging.getLogger("energyql.teach")


class Lessons:
    """The lessons of a studio, each opened when its page is visited first. It is the application of their pages.

    What a lesson writes is loaded into the studio at once.

    Args:
        sources: name of a model of the studio -> where it comes from.

    Attributes:
        open: name of a model -> its lesson, with the application of its page, once that was visited.
    """

    def __init__(
        self, studio: Studio, sources: Mapping[str, str | ModelSource], device: torch.device, access: Access
    ) -> None:
        self.studio, self.device, self.access = studio, device, access
        every = {name: each if isinstance(each, ModelSource) else ModelSource(each) for name, each in sources.items()}
        self.sources = {name: each for name, each in every.items() if default_backbone() and _is_own(each.model)}
        self.open: dict[str, tuple[Classroom, FastAPI]] = {}
        self._opening = threading.Lock()
        self._ends = ExitStack()

    @property
    def models(self) -> frozenset[str]:
        """Names of the models that can be taught."""
        return frozenset(self.sources)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the page of a lesson; its path has the name of the model."""
        try:
            app = await run_in_threadpool(self._lesson, scope["path_params"]["name"])
        except EnergyQLError as error:
            await respond(error)(scope, receive, send)
            return
        await app(scope, receive, send)

    def close(self) -> None:
        """End all lessons."""
        self._ends.close()

    def _lesson(self, name: str) -> FastAPI:
        with self._opening:
            if name not in self.open:
                if name not in self.sources:
                    hint = f"one of {', '.join(self.sources)}" if self.sources else "energyql teach makes a model"
                    raise ArgumentError(f"this studio teaches no model {name!r}", hint=hint)
                self.open[name] = self._begin(name)
            return self.open[name][1]

    def _begin(self, name: str) -> tuple[Classroom, FastAPI]:
        source = self.sources[name]
        folder = Path(str(source.model))
        with ExitStack() as ends:
            ends.enter_context(sole_writer(folder / PICTURES, "a lesson"))
            own = ModelSource(folder, generator=source.generator, allow_plugins=source.allow_plugins)
            classroom = Classroom.open(own, folder, self.device)
            classroom.written = lambda: self._load(name)
            app = create_app(classroom, self.access)
            classroom.start()
            ends.callback(classroom.close)
            self._ends.push(ends.pop_all())
        return classroom, app

    def _load(self, name: str) -> None:
        """Let the studio draw with the model as it is now."""
        try:
            self.studio.put(name, Session(load_model(self.sources[name], self.device), self.device))
        except EnergyQLError:
            log.exception("the studio could not load %s again", name)


def _is_own(model: object) -> bool:
    """Whether a model is a folder that a lesson may change."""
    return isinstance(model, str | Path) and str(model) not in packaged_models() and (Path(model) / CONFIG).is_file()
