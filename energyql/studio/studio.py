"""The studio without its web server: models, queue and results."""

from __future__ import annotations

from collections.abc import Mapping

from energyql.energy.rule import SEMANTICS
from energyql.errors import ArgumentError, EnergyQLError
from energyql.language.lexical import keywords
from energyql.logic.satisfiability import noting_tautologies
from energyql.pipeline.generate import Pipeline
from energyql.pipeline.prepared import PreparedQuery
from energyql.pipeline.settings import DrawOptions, DrawSettings
from energyql.sampling import SAMPLERS
from energyql.studio.descriptions import check_length, check_query, describe_model
from energyql.studio.jobs import Queue
from energyql.studio.limits import Limits
from energyql.studio.results import JobResult, ResultStore
from energyql.studio.schemas import Check, CheckRequest, DrawingRequest, DrawRequest, EditRequest, Info, JobInfo
from energyql.studio.tasks import draw_pictures, edit_picture
from energyql.version import __version__


class Studio:
    """Works on requests, one after the other.

    Args:
        models: by name, at least one; the first is the default.
        limits: of each request, and of the results that are kept.
    """

    def __init__(self, models: Mapping[str, Pipeline], limits: Limits | None = None) -> None:
        self.models = dict(models)
        self.limits = limits or Limits()
        self.queue = Queue(self.limits)
        self.store = ResultStore(self.limits)
        self.info = Info(
            version=__version__,
            models=[describe_model(name, pipeline) for name, pipeline in self.models.items()],
            semantics=list(SEMANTICS),
            samplers=list(SAMPLERS),
            keywords=sorted(keywords()),
            limits=self.limits,
        )

    def check(self, request: CheckRequest) -> Check:
        """Return the meaning of a query, or its error."""
        model = self.pipeline(request.model).model
        return check_query(
            request.query, model.vocabulary, request.semantics, self.limits, model.report, request.allow_weak
        )

    def draw(self, request: DrawRequest) -> JobInfo:
        """Queue a drawing. Errors in the request are raised now, before it waits.

        Raises:
            EnergyQLError: the query or a setting is wrong, or the queue is full.
        """
        if request.n > self.limits.pictures:
            raise ArgumentError(
                f"n is {request.n:,}; this studio draws {self.limits.pictures} pictures at a time",
                hint=f"ask for 1 to {self.limits.pictures}; energyql generate has no such limit",
            )
        prepared = self._prepare(request)
        result = JobResult("draw", request.n, prepared.model.vocabulary)
        job = self.queue.submit(lambda job: draw_pictures(prepared, request.n, request.first, job, result))
        self.store.put(job, result)
        return self.look(job.id)

    def edit(self, request: EditRequest) -> JobInfo:
        """Queue the edit of one picture. Errors in any of its steps are raised now.

        Raises:
            EnergyQLError: the query, a step or a setting is wrong, or the queue is full.
        """
        if len(request.steps) > self.limits.steps:
            raise ArgumentError(f"{len(request.steps)} steps are too many; this studio takes {self.limits.steps} steps")
        prepared = self._prepare(request)
        for number, step in enumerate(request.steps, start=1):
            try:
                self._prepare(request.model_copy(update={"query": step}))
            except EnergyQLError as error:
                error.message = f"step {number}: {error.message}"
                raise
        result = JobResult("edit", 1 + len(request.steps), prepared.model.vocabulary)
        job = self.queue.submit(lambda job: edit_picture(prepared, request, job, result))
        self.store.put(job, result)
        return self.look(job.id)

    def look(self, key: str, after: int = 0) -> JobInfo:
        """Return the progress of a request, and its pictures from position `after` on."""
        job, result = self.store.get(key)
        return result.describe(job, self.queue.place(job), after)

    def cancel(self, key: str) -> JobInfo:
        """Cancel a request. A running one ends at its next check, within moments."""
        job, _ = self.store.get(key)
        self.queue.cancel(job)
        return self.look(key)

    def close(self) -> None:
        """Cancel all jobs and end the worker thread."""
        self.queue.close()

    def pipeline(self, name: str | None) -> Pipeline:
        """Return the model of a name, on its device.

        Raises:
            ArgumentError: the studio has no such model.
        """
        chosen = next(iter(self.models)) if name is None else name
        if chosen not in self.models:
            raise ArgumentError(f"this studio has no model {name!r}", hint=f"choose one of {', '.join(self.models)}")
        return self.models[chosen]

    def _prepare(self, request: DrawingRequest) -> PreparedQuery:
        settings = DrawSettings(**request.model_dump(include=set(DrawOptions.__annotations__)))
        pipeline, query = self.pipeline(request.model), check_length(request.query, self.limits)
        with noting_tautologies():
            return pipeline.prepare(query, settings)
