"""The class `Studio`, which checks the requests of the web page and queues the jobs that draw the pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from energyql import __version__
from energyql.energy.rule import SEMANTICS
from energyql.errors import ArgumentError, EnergyQLError
from energyql.gallery.gallery import Gallery, check_literals, check_traversal
from energyql.language.lexical import keywords
from energyql.logic.satisfiability import noting_tautologies
from energyql.pipeline.model import Model
from energyql.pipeline.plan import Plan, plan_query
from energyql.pipeline.run import draw_numbers
from energyql.pipeline.session import Session
from energyql.pipeline.settings import DrawSettings, settings_of
from energyql.sampling import SAMPLERS
from energyql.studio import tasks
from energyql.studio.descriptions import check_length, check_query, describe_model
from energyql.studio.jobs import Job, Queue
from energyql.studio.limits import Limits
from energyql.studio.memory import trim
from energyql.studio.restoring import restore
from energyql.studio.results import JobResult, ResultStore
from energyql.studio.schemas import (
    Check,
    CheckRequest,
    DrawRequest,
    EditRequest,
    GalleryRequest,
    Info,
    JobInfo,
    JobKind,
    PhotographRequest,
    Restored,
    Settings,
    SourceRequest,
    TraversalRequest,
    TruthTableRequest,
    VariationsRequest,
)
from energyql.studio.tasks import Start, checking_each_layer, held_pictures, opened_picture, read_photograph

ANYTHING = "TRUE"
"""The query that every picture satisfies."""


class Studio:
    """The models of a studio, and the jobs that draw with them, which run one after the other.

    A request is checked when it arrives. So an error in a request is raised at once, not when the job runs: an
    `EnergyQLError` for a wrong query or setting, an unknown model or job, or a full queue.

    Args:
        models: name -> model, at least one; the first is the default.
        limits: limits of each request and of the results that are kept.

    Attributes:
        queue: the jobs that wait and run.
        store: the jobs with their results.
        teachable: names of models that can be taught (`Lessons`).
    """

    def __init__(self, models: Mapping[str, Session], limits: Limits | None = None) -> None:
        self.models = dict(models)
        self.limits = limits or Limits()
        self.queue = Queue(self.limits)
        self.store = ResultStore(self.limits)
        self.teachable: Collection[str] = ()
        self._described = {name: describe_model(name, session) for name, session in self.models.items()}

    @property
    def info(self) -> Info:
        """Description of models and limits for the API."""
        models = [
            each.model_copy(update={"teachable": each.name in self.teachable}) for each in self._described.values()
        ]
        return Info(
            version=__version__, models=models,
            semantics=[name for name, each in SEMANTICS.items() if each.has_floor], samplers=list(SAMPLERS),
            keywords=sorted(keywords()), limits=self.limits,
        )  # fmt: skip

    def put(self, name: str, session: Session) -> None:
        """Draw with another state of a model from now on; jobs that run go on with the old one."""
        self._described[name] = describe_model(name, session)
        self.models[name] = session

    def check(self, request: CheckRequest) -> Check:
        """Return the meaning of a query. If the query is wrong, return its error, without raising the error."""
        return check_query(request, self.session(request.model), self.limits)

    def draw(self, request: DrawRequest) -> JobInfo:
        """Queue the drawing of pictures that satisfy a query, and return the new job."""
        self._check_count(request.n)
        plan = self._plan(request.query, request)
        work = partial(tasks.draw_pictures, plan, request.n, request.first)
        return self._submit("draw", request.n, plan.model, work)

    def edit(self, request: EditRequest) -> JobInfo:
        """Queue the edit of one or several pictures, and return the new job."""
        if len(request.steps) > self.limits.steps:
            raise ArgumentError(f"{len(request.steps)} steps are too many; this studio takes {self.limits.steps} steps")
        start = self._start(request)
        if start.count > 1:
            self._check_count(start.count * len(request.steps))
        self._plan_all(request.steps, request, "step", verify="off")
        total = start.count * (1 + len(request.steps))
        return self._submit("edit", total, start.plan.model, partial(tasks.edit_pictures, start, request))

    def vary(self, request: VariationsRequest) -> JobInfo:
        """Queue the drawing of variations of one picture, or of pictures similar to several, and return the new job."""
        self._check_count(request.n)
        start = self._start(request)
        query = request.wanted or request.query or start.query
        self._plan(query, request, verify="off")
        work = partial(tasks.vary_pictures, start, request, query)
        return self._submit("variations", request.n, start.plan.model, work)

    def truth_table(self, request: TruthTableRequest) -> JobInfo:
        """Queue a truth table, which is pictures of every combination of some literals, and return the new job."""
        model = self.session(request.model).model
        literals = check_literals([check_length(each, self.limits) for each in request.literals], model.vocabulary)
        total = request.n * 2 ** len(literals)
        self._check_count(total)
        self._plan_all(request.literals, request, "literal")
        return self._submit("table", total, model, partial(tasks.draw_table, self._gallery(request), literals))

    def traversal(self, request: TraversalRequest) -> JobInfo:
        """Queue a traversal, which is paths from pictures of one query to pictures of another; return the new job."""
        self._check_count(request.steps * request.n)
        gallery = self._gallery(request)
        for query in (request.start, request.end):
            model = self._plan(query, request, verify="off").model
        check_traversal(request.start, request.end, request.steps, gallery.settings, gallery.vocabulary)
        work = partial(tasks.draw_traversal, gallery, request)
        return self._submit("traversal", request.steps * request.n, model, work)

    def gallery(self, request: GalleryRequest) -> JobInfo:
        """Queue the drawing of several queries for one page, and return the new job."""
        total = request.n * len(request.queries)
        self._check_count(total)
        self._plan_all(request.queries, request, "query")
        work = partial(tasks.draw_gallery, self._gallery(request), request.queries)
        return self._submit("gallery", total, self.session(request.model).model, work)

    def photograph(self, request: PhotographRequest, data: bytes) -> JobInfo:
        """Queue the search for the latents of a photograph, and return the new job.

        Args:
            request: the settings of the search.
            data: the photograph, content of a PNG, JPEG or WebP; another format, or too many pixels, is an error.
        """
        most = self.limits.photograph_pixels
        with opened_picture(data, most):  # refuses a wrong picture at once
            pass
        plan = self._plan(ANYTHING, Settings(model=request.model), truncation=request.truncation)
        work = partial(tasks.invert_photograph, plan, partial(read_photograph, data, most), request.anyway)
        return self._submit("photograph", 1, plan.model, work, held=len(data))

    def restore(self, data: bytes) -> Restored:
        """Return the request that draws a picture again, made from the provenance (query, seed, settings) in its file.

        Args:
            data: content of a PNG.

        Raises:
            StudioError: the data is no PNG that energyql saved, or is too large or damaged.
        """
        with opened_picture(data, self.limits.photograph_pixels) as picture:
            text = picture.info.get("energyql")
        return restore(text, {name: session.model.fingerprints for name, session in self.models.items()})

    def look(self, key: str, after: int = 0) -> JobInfo:
        """Return the progress of the job with id `key`, and its pictures from position `after` on.

        Raises:
            StudioError: there is no such job, or it was dropped.
        """
        job, result = self.store.get(key)
        return result.describe(job, self.queue.place(job), after)

    def cancel(self, key: str) -> JobInfo:
        """Cancel the job with id `key`, and return its progress. A running job ends at its next check, within moments.

        Raises:
            StudioError: there is no such job, or it was dropped.
        """
        job, _ = self.store.get(key)
        self.queue.cancel(job)
        return self.look(key)

    def close(self) -> None:
        """Cancel all jobs and end the worker thread."""
        self.queue.close()

    def session(self, name: str | None) -> Session:
        """Return the model called `name`, on its device; the first model if `name` is `None`.

        Raises:
            ArgumentError: the studio has no such model.
        """
        chosen = next(iter(self.models)) if name is None else name
        if chosen not in self.models:
            raise ArgumentError(f"this studio has no model {name!r}", hint=f"choose one of {', '.join(self.models)}")
        return self.models[chosen]

    def _submit(
        self, kind: JobKind, total: int, model: Model, work: Callable[[Job, JobResult], None], held: int = 0
    ) -> JobInfo:
        """Queue a job, which holds `held` bytes besides its result while it waits."""
        result = JobResult(kind, total, model.vocabulary)
        result.held += held

        def run(job: Job) -> None:
            try:
                with checking_each_layer(model.generator, job.check):
                    work(job, result)
            finally:
                result.count()
                trim()

        job = self.queue.submit(run)
        self.store.put(job, result)
        return self.look(job.id)

    def _plan(self, query: str, request: Settings, **options: Any) -> Plan:
        settings = DrawSettings(**_options(request) | options)
        with noting_tautologies():
            return plan_query(self.session(request.model), check_length(query, self.limits), settings)

    def _plan_all(self, queries: Sequence[str], request: Settings, name: str, **options: Any) -> None:
        """Check queries without drawing them; the error of a wrong one begins with its number, as in "step 2"."""
        for number, query in enumerate(queries, start=1):
            try:
                self._plan(query, request, **options)
            except EnergyQLError as error:
                error.message = f"{name} {number}: {error.message}"
                raise

    def _start(self, request: SourceRequest) -> Start:
        """Pictures that a request begins with: of a run, to be drawn in the new job, or of a job in the store."""
        if request.job is None:
            self._check_count(len(request.numbers))
            assert request.query is not None  # checked by the schema
            plan = self._plan(request.query, request)
            numbers = request.numbers
            return Start(plan, len(numbers), lambda job: draw_numbers(plan, numbers, job.report), request.query)
        _, result = self.store.get(request.job)
        pictures = held_pictures(result, request.positions)
        self._check_count(len(pictures.index))
        facts = pictures.provenance
        request = request.model_copy(update={"model": request.model or facts["model"]})
        known = {name: facts[name] for name in ("truncation", "condition", "noise")}
        plan = self._plan(ANYTHING, request, verify="off", **known)
        query = facts["query"] or ANYTHING
        return Start(plan, len(pictures.index), lambda job: pictures, query, result.photograph)

    def _gallery(self, request: TruthTableRequest | TraversalRequest | GalleryRequest) -> Gallery:
        return Gallery(n=request.n, model=self.session(request.model), progress=False, **_options(request))

    def _check_count(self, n: int) -> None:
        if n > self.limits.pictures:
            message = f"{n:,} pictures are too many; this studio draws {self.limits.pictures} pictures at a time"
            raise ArgumentError(message, hint="energyql generate has no such limit")


def _options(request: Settings) -> dict[str, Any]:
    """Settings in a request by name, as arguments of `DrawSettings`."""
    return request.model_dump(include=set(settings_of("request")))
