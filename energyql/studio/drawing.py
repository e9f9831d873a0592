"""Drawing a query bit by bit, so that pictures can be seen, and the work be ended, before all of it is done."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from energyql.pipeline.prepared import PreparedQuery
from energyql.sampling import SampleResult, summarize
from energyql.studio.answers import Answer
from energyql.studio.interrupt import interruptible
from energyql.studio.jobs import Job

PIXELS = 1 << 17
"""Pixels that are drawn together: eight pictures of 128 x 128, some 0.3 seconds on one core."""


def draw_wall(prepared: PreparedQuery, n: int, job: Job, answer: Answer) -> None:
    """Sample all, then draw a few at a time; the pictures are those of `energyql.generate`.

    Args:
        prepared: the query on its model.
        n: pictures.
        job: told how far the work is, and ends it.
        answer: gets the pictures as they come.
    """
    started = time.perf_counter()
    with interruptible(prepared.model.generator, job.check):
        sampled = SampleResult.join(list(prepared.sample(0, n, job.report)))
        drawn = time.perf_counter()
        start, size = 0, 1  # one picture first tells how large they are
        while start < n:
            job.report("drawing", start / n)
            rows = range(start, min(start + size, n))
            shown = replace(prepared, batch_size=size).show(_rows(sampled, rows), np.asarray(rows), _silent)
            answer.extend(prepared.expr, shown)
            width, height = shown.images[0].size
            start, size = rows.stop, max(1, PIXELS // (width * height))
    job.report("drawing", 1.0)
    seconds = {"seconds_sampling": drawn - started, "seconds_drawing": time.perf_counter() - drawn}
    answer.results[0].statistics.update(summarize(sampled) | seconds)


def _rows(sampled: SampleResult, rows: range) -> SampleResult:
    part = slice(rows.start, rows.stop)
    return SampleResult(
        sampled.z[part],
        sampled.status[part],
        sampled.evaluations[part],
        sampled.gradients[part],
        {name: values[part] for name, values in sampled.diagnostics.items()},
    )


def _silent(stage: str, fraction: float) -> None:
    """`Answer` shows how far the drawing is."""
