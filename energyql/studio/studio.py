"""The studio without its web server: models, queue of jobs, and results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from energyql.energy.rule import SEMANTICS
from energyql.errors import ArgumentError, EnergyQLError
from energyql.gallery.gallery import Gallery, check_literals
from energyql.language.lexical import keywords
from energyql.logic.satisfiability import noting_tautologies
from energyql.pipeline.draw import Pipeline, PreparedQuery
from energyql.pipeline.queries import ListedQuery, check
from energyql.pipeline.settings import DrawSettings, settings_of
from energyql.sampling import SAMPLERS
from energyql.studio import tasks
from energyql.studio.descriptions import check_length, check_query, describe_model
from energyql.studio.jobs import Job, Queue
from energyql.studio.limits import Limits
from energyql.studio.memory import trim
from energyql.studio.restoring import restore
from energyql.studio.results import JobResult
from energyql.studio.schemas import (
    Check,
    CheckRequest,
    DrawRequest,
    EditRequest,
    GalleryRequest,
    Info,
    JobInfo,
    PhotographRequest,
    Restored,
    Settings,
    SourceRequest,
    TraversalRequest,
    TruthTableRequest,
    VariationsRequest,
)
from energyql.studio.store import ResultStore
from energyql.studio.tasks import (
    HeldPictures,
    Pictures,
    RunPictures,
    check_photograph,
    held_pictures,
    read_photograph,
    text_of,
)
from energyql.version import __version__

ANYTHING = "TRUE"
"""The query that every picture satisfies."""


class Studio:
    """Models, and the requests to them, which run one after the other.

    A request is checked at once; an error in it is raised before it waits.

    Args:
        models: name -> model, at least one; the first is the default.
        limits: limits of each request and of the results that are kept.

    Attributes:
        queue: the jobs that wait and run.
        store: the jobs with their results.
        info: description of the models and limits for the API.
    """

    def __init__(self, models: Mapping[str, Pipeline], limits: Limits | None = None) -> None:
        self.models = dict(models)
        self.limits = limits or Limits()
        self.queue = Queue(self.limits)
        self.store = ResultStore(self.limits)
        self.info = Info(
            version=__version__,
            models=[describe_model(name, pipeline) for name, pipeline in self.models.items()],
            semantics=[name for name, each in SEMANTICS.items() if each.has_floor],
            samplers=list(SAMPLERS),
            keywords=sorted(keywords()),
            limits=self.limits,
        )

    def check(self, request: CheckRequest) -> Check:
        """Return the meaning of a query or its error, which is not raised."""
        model = self.pipeline(request.model).model
        return check_query(
            request.query, model.vocabulary, request.semantics, self.limits, model.report, request.allow_weak
        )

    def draw(self, request: DrawRequest) -> JobInfo:
        """Queue a drawing.

        Raises:
            EnergyQLError: the query or a setting is wrong, or the queue is full.
        """
        self._check_count(request.n)
        prepared = self._prepare(request.query, request)
        result = JobResult("draw", request.n, prepared.model.vocabulary)
        return self._submit(result, lambda job: tasks.draw_pictures(prepared, request.n, request.first, job, result))

    def edit(self, request: EditRequest) -> JobInfo:
        """Queue the edit of one or several pictures.

        Raises:
            EnergyQLError: the query, a step or a setting is wrong, or the queue is full.
        """
        if len(request.steps) > self.limits.steps:
            raise ArgumentError(f"{len(request.steps)} steps are too many; this studio takes {self.limits.steps} steps")
        start, count = self._pictures(request)
        if count > 1:
            self._check_count(count * len(request.steps))
        self._prepare_all(request.steps, request, "step")
        result = JobResult("edit", count * (1 + len(request.steps)), start.prepared.model.vocabulary)
        return self._submit(result, lambda job: tasks.edit_pictures(start, request, job, result))

    def vary(self, request: VariationsRequest) -> JobInfo:
        """Queue variations of one picture, or pictures similar to several.

        Raises:
            EnergyQLError: a query or a setting is wrong, or the queue is full.
        """
        self._check_count(request.n)
        start, _ = self._pictures(request)
        earlier = start.pictures.provenance["query"] if isinstance(start, HeldPictures) else None
        query = request.wanted or request.query or earlier or ANYTHING
        self._prepare(query, request)
        result = JobResult("variations", request.n, start.prepared.model.vocabulary)
        return self._submit(result, lambda job: tasks.vary_pictures(start, request, query, job, result))

    def truth_table(self, request: TruthTableRequest) -> JobInfo:
        """Queue a truth table.

        Raises:
            EnergyQLError: a literal or a setting is wrong, or the queue is full.
        """
        pipeline, count = self.pipeline(request.model), request.n * 2 ** min(len(request.literals), 8)
        literals = check_literals(
            [check_length(each, self.limits) for each in request.literals], pipeline.model.vocabulary
        )
        self._check_count(count)
        self._prepare_all(request.literals, request, "literal")
        gallery, result = self._gallery(request, request.n), JobResult("table", count, pipeline.model.vocabulary)
        network = pipeline.model.generator
        return self._submit(result, lambda job: tasks.draw_table(gallery, network, literals, job, result))

    def traversal(self, request: TraversalRequest) -> JobInfo:
        """Queue a traversal.

        Raises:
            EnergyQLError: a query or a setting is wrong, or the queue is full.
        """
        self._check_count(request.steps * request.n)
        gallery, pipeline = self._gallery(request, request.n), self.pipeline(request.model)
        self._prepare(request.start, request)
        self._prepare(request.end, request)
        gallery.check_traversal(request.start, request.end, request.steps)
        result = JobResult("traversal", request.steps * request.n, pipeline.model.vocabulary)
        network = pipeline.model.generator
        return self._submit(result, lambda job: tasks.draw_traversal(gallery, network, request, job, result))

    def gallery(self, request: GalleryRequest) -> JobInfo:
        """Queue the queries of a gallery.

        Raises:
            EnergyQLError: a query or a setting is wrong, or the queue is full.
        """
        pipeline, count = self.pipeline(request.model), request.n * len(request.queries)
        self._check_count(count)
        self._prepare_all(request.queries, request, "query")
        vocabulary = pipeline.model.vocabulary
        gallery, result = self._gallery(request, request.n), JobResult("gallery", count, vocabulary)
        queries = [check(ListedQuery(query), vocabulary, gallery.semantics) for query in request.queries]
        network = pipeline.model.generator
        return self._submit(result, lambda job: tasks.draw_gallery(gallery, network, queries, job, result))

    def photograph(self, request: PhotographRequest, data: bytes) -> JobInfo:
        """Queue the inversion of a photograph.

        Args:
            request: the settings.
            data: content of a PNG, JPEG or WebP.

        Raises:
            EnergyQLError: the data is no such picture, or too large; a setting is wrong; or the queue is full.
        """
        check_photograph(data, self.limits.photograph_pixels)
        prepared = self._prepare(ANYTHING, Settings(model=request.model), truncation=request.truncation)
        result = JobResult("photograph", 1, prepared.model.vocabulary)
        result.held += len(data)
        decode = partial(read_photograph, data, self.limits.photograph_pixels)
        return self._submit(result, lambda job: tasks.invert_photograph(prepared, decode, request.anyway, job, result))

    def restore(self, data: bytes) -> Restored:
        """Return the request that draws a picture again, out of its provenance.

        Args:
            data: content of a PNG.

        Raises:
            StudioError: it is no PNG that energyql saved.
        """
        text = text_of(data, self.limits.photograph_pixels)
        fingerprints = {name: pipeline.model.fingerprints for name, pipeline in self.models.items()}
        return restore(text, {model.name: model for model in self.info.models}, fingerprints)

    def look(self, key: str, after: int = 0) -> JobInfo:
        """Return the progress of job `key`, and its pictures from position `after` on.

        Raises:
            StudioError: there is no such job, or no longer.
        """
        job, result = self.store.get(key)
        return result.describe(job, self.queue.place(job), after)

    def cancel(self, key: str) -> JobInfo:
        """Cancel job `key`, and return its state; a running one ends at its next check, within moments.

        Raises:
            StudioError: there is no such job, or no longer.
        """
        job, _ = self.store.get(key)
        self.queue.cancel(job)
        return self.look(key)

    def close(self) -> None:
        """Cancel all jobs and end the worker thread."""
        self.queue.close()

    def pipeline(self, name: str | None) -> Pipeline:
        """Return a model on its device, by name; `None` is the first.

        Raises:
            ArgumentError: the studio has no such model.
        """
        chosen = next(iter(self.models)) if name is None else name
        if chosen not in self.models:
            raise ArgumentError(f"this studio has no model {name!r}", hint=f"choose one of {', '.join(self.models)}")
        return self.models[chosen]

    def _submit(self, result: JobResult, work: Callable[[Job], None]) -> JobInfo:
        def work_and_trim(job: Job) -> None:
            try:
                work(job)
            finally:
                trim()

        job = self.queue.submit(work_and_trim)
        self.store.put(job, result)
        return self.look(job.id)

    def _prepare(self, query: str, request: Settings, **options: Any) -> PreparedQuery:
        settings = DrawSettings(**_options(request) | options)
        with noting_tautologies():
            return self.pipeline(request.model).prepare(check_length(query, self.limits), settings)

    def _prepare_all(self, queries: Sequence[str], request: Settings, name: str) -> None:
        """Check queries.

        Args:
            queries: the queries.
            request: their settings.
            name: kind of the queries for messages, such as "step".

        Raises:
            EnergyQLError: a query is wrong; the message has the number of the first one.
        """
        for number, query in enumerate(queries, start=1):
            try:
                self._prepare(query, request)
            except EnergyQLError as error:
                error.message = f"{name} {number}: {error.message}"
                raise

    def _pictures(self, request: SourceRequest) -> tuple[Pictures, int]:
        """Return the pictures that a request begins with, and their number.

        Raises:
            EnergyQLError: there are no such pictures, or too many.
        """
        if request.job is None:
            self._check_count(len(request.numbers))
            assert request.query is not None  # checked by the schema
            return RunPictures(self._prepare(request.query, request), request.numbers), len(request.numbers)
        _, result = self.store.get(request.job)
        pictures, inversion = held_pictures(result, request.positions)
        self._check_count(len(pictures.index))
        facts = pictures.provenance
        request = request.model_copy(update={"model": request.model or facts["model"]})
        same = {name: facts[name] for name in ("truncation", "label", "noise")}
        prepared = self._prepare(ANYTHING, request, **same)
        return HeldPictures(prepared, pictures, inversion), len(pictures.index)

    def _gallery(self, request: Settings, n: int) -> Gallery:
        return Gallery(n=n, model=self.pipeline(request.model), progress=False, **_options(request))

    def _check_count(self, n: int) -> None:
        if n > self.limits.pictures:
            raise ArgumentError(
                f"{n:,} pictures are too many; this studio draws {self.limits.pictures} pictures at a time",
                hint=f"ask for 1 to {self.limits.pictures}; energyql generate has no such limit",
            )


def _options(request: Settings) -> dict[str, Any]:
    """Return the arguments of `DrawSettings` that a request sets, by name."""
    return request.model_dump(include=set(settings_of("request")))
