"""The work of the jobs that make a gallery page: a truth table, a traversal, several queries."""

from __future__ import annotations

from collections.abc import Sequence

from energyql.gallery.gallery import Gallery
from energyql.language import Expr
from energyql.pipeline.queries import CheckedQuery
from energyql.progress import Report
from energyql.studio.jobs import Job
from energyql.studio.requests import TraversalRequest
from energyql.studio.results import JobResult
from energyql.studio.schemas import Row
from energyql.studio.tasks import interruptible


def draw_table(gallery: Gallery, network: object, literals: Sequence[Expr], job: Job, result: JobResult) -> None:
    """Draw every combination of checked literals, and add the rows to `result` when all are drawn.

    `job` receives the progress, and raises to end the work; `network` is the generator.
    """
    gallery.progress = _only("table", job)
    with interruptible(network, job.check):
        table = gallery.add_truth_table(*literals, n=gallery.n)
    result.literals, result.total = list(table.literals), sum(map(len, table.results))
    for row in table.rows:
        summary = "" if row.result is None else row.result.summary()
        result.add_row(Row(query=row.query, values=list(row.values), reason=row.reason, summary=summary), row.result)
    result.finish_sections(gallery.sections)


def draw_traversal(gallery: Gallery, network: object, request: TraversalRequest, job: Job, result: JobResult) -> None:
    """Draw paths from one query to another, and add their pictures to `result` when all are drawn; see `draw_table`."""
    gallery.progress = _only("traversal", job)
    with interruptible(network, job.check):
        traversal = gallery.add_traversal(request.start, request.end, request.steps, n=gallery.n)
    result.add_paths(traversal)
    result.finish_sections(gallery.sections)


def draw_gallery(
    gallery: Gallery, network: object, queries: Sequence[CheckedQuery], job: Job, result: JobResult
) -> None:
    """Draw several checked queries; each is added to `result` as soon as it is drawn; see `draw_table`."""
    gallery.progress = job.report
    with interruptible(network, job.check):
        for query in queries:
            drawn = gallery.add(query.text, query.title)
            result.add_row(Row(query=str(query.expr), summary=drawn.summary()), drawn)
            result.finish_sections(gallery.sections)


def _only(stage: str, job: Job) -> Report:
    """Return a function that reports one stage to a job, and lets every call end the work."""

    def report(name: str, fraction: float) -> None:
        if name == stage:
            job.report(name, fraction)
        job.check()

    return report
