"""The studio without its web server: models, queue and results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from energyql.errors import ArgumentError, EnergyQLError
from energyql.language.lexical import keywords
from energyql.logic.satisfiability import noting_tautologies
from energyql.pipeline.generate import Pipeline
from energyql.pipeline.prepared import PreparedQuery
from energyql.sampling import SAMPLERS
from energyql.studio.answers import Answer
from energyql.studio.drawing import draw_wall
from energyql.studio.editing import edit_picture
from energyql.studio.jobs import Queue
from energyql.studio.limits import Limits
from energyql.studio.queries import check_length, check_query, describe_attribute, examples
from energyql.studio.schemas import (
    Check,
    CheckRequest,
    DrawRequest,
    EditRequest,
    Info,
    JobInfo,
    LimitsInfo,
    ModelInfo,
    Settings,
)
from energyql.studio.shelf import Shelf
from energyql.version import __version__


class Studio:
    """Answers requests, one after the other.

    Args:
        models: by name, at least one; the first is the one that requests without a model get.
        limits: what a request may cost.
    """

    def __init__(self, models: Mapping[str, Pipeline], limits: Limits | None = None) -> None:
        self.models = dict(models)
        self.limits = limits or Limits()
        self.queue = Queue(self.limits)
        self.shelf = Shelf(self.limits)
        self._infos = [describe_model(name, pipeline) for name, pipeline in self.models.items()]

    def info(self) -> Info:
        """What there is to choose from."""
        limits = self.limits
        return Info(
            version=__version__,
            models=self._infos,
            semantics=["exact", "product", "lace"],
            samplers=list(SAMPLERS),
            keywords=sorted(keywords()),
            limits=LimitsInfo(
                pictures=limits.pictures,
                characters=limits.characters,
                steps=limits.steps,
                seconds=limits.seconds,
                waiting=limits.waiting,
            ),
        )

    def check(self, request: CheckRequest) -> Check:
        """What a query means, or what is wrong with it."""
        vocabulary = self.pipeline(request.model).model.vocabulary
        return check_query(request.query, vocabulary, request.semantics, self.limits)

    def draw(self, request: DrawRequest) -> JobInfo:
        """Queue up some pictures. Whatever is wrong with the request is said now, before it waits.

        Raises:
            EnergyQLError: the query or a setting is wrong, or the queue is full.
        """
        if request.n > self.limits.pictures:
            raise ArgumentError(
                f"n is {request.n:,}; this studio draws {self.limits.pictures} pictures at a time",
                hint=f"ask for 1 to {self.limits.pictures}; energyql generate has no such limit",
            )
        prepared = self._prepare(request)
        answer = Answer("draw", request.n, prepared.model.vocabulary)
        job = self.queue.submit(lambda job: draw_wall(prepared, request.n, job, answer))
        self.shelf.put(job, answer)
        return self.look(job.id)

    def edit(self, request: EditRequest) -> JobInfo:
        """Queue up the edit of one picture. Whatever is wrong with any of its steps is said now.

        Raises:
            EnergyQLError: the query, a step or a setting is wrong, or the queue is full.
        """
        if len(request.steps) > self.limits.steps:
            raise ArgumentError(f"{len(request.steps)} steps are too many; this studio takes {self.limits.steps} steps")
        prepared, pipeline = self._prepare(request), self.pipeline(request.model)
        for number, step in enumerate(request.steps, start=1):
            try:
                self._prepare(request.model_copy(update={"query": step}))
            except EnergyQLError as error:
                error.message = f"step {number}: {error.message}"
                raise
        answer = Answer("edit", 1 + len(request.steps), prepared.model.vocabulary)
        job = self.queue.submit(
            lambda job: edit_picture(pipeline, prepared, request.index, request.steps, request.semantics, job, answer)
        )
        self.shelf.put(job, answer)
        return self.look(job.id)

    def look(self, key: str, after: int = 0) -> JobInfo:
        """How far a request is, with its pictures from position `after` on.

        Raises:
            NotKept: there is no such request.
        """
        job, answer = self.shelf.get(key)
        job.touch()
        return answer.describe(job, self.queue.place(job), after)

    def cancel(self, key: str) -> JobInfo:
        """End a request. One that runs ends within moments, not at once.

        Raises:
            NotKept: there is no such request.
        """
        job, _ = self.shelf.get(key)
        self.queue.cancel(job)
        return self.look(key)

    def close(self) -> None:
        """End all work."""
        self.queue.close()

    def pipeline(self, name: str | None) -> Pipeline:
        """The model of a name, on its device.

        Raises:
            ArgumentError: the studio has no such model.
        """
        chosen = next(iter(self.models)) if name is None else name
        if chosen not in self.models:
            raise ArgumentError(f"this studio has no model {name!r}", hint=f"choose one of {', '.join(self.models)}")
        return self.models[chosen]

    def _prepare(self, request: Settings) -> PreparedQuery:
        check_length(request.query, self.limits)
        pipeline = self.pipeline(request.model)
        with noting_tautologies():
            return pipeline.prepare(
                request.query,
                semantics=request.semantics,
                sampler=request.sampler,
                strength=request.strength,
                truncation=request.truncation,
                seed=request.seed,
            )


def describe_model(name: str, pipeline: Pipeline) -> ModelInfo:
    """A model as the API says it."""
    model = pipeline.model
    low, high = model.bank.truncation
    weights = " ".join(f"{part} {digest}" for part, digest in sorted(model.fingerprints.items()))
    return ModelInfo(
        name=name,
        fingerprint=hashlib.sha256(weights.encode()).hexdigest()[:12],
        attributes=[describe_attribute(spec) for spec in model.vocabulary.values()],
        truncation=model.truncation,
        truncation_low=low,
        truncation_high=high,
        judge="image judge" if model.judge is not None else "attribute heads",
        examples=examples(model.vocabulary),
    )
