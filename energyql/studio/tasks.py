"""The work of a job: drawing pictures in small parts, and editing one picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from energyql.editing.edit import edit
from energyql.pipeline.prepared import PreparedQuery
from energyql.sampling import SampleResult, summarize
from energyql.studio.jobs import Job
from energyql.studio.results import JobResult
from energyql.studio.schemas import EditRequest

PART_PIXELS = 1 << 17
"""Pixels drawn in one part: eight pictures of 128 x 128, about 0.3 seconds on one core."""


def draw_pictures(prepared: PreparedQuery, n: int, first: int, job: Job, result: JobResult) -> None:
    """Sample all latents, then add a few pictures at a time to `result`: those of `energyql.generate`.

    They are the numbers `first`, ..., `first + n - 1` of their run. `job` receives the progress, and raises to end the
    work.
    """
    started = time.perf_counter()
    with interruptible(prepared.model.generator, job.check):
        sampled = SampleResult.join(list(prepared.latents(n, first=first, progress=job.report)))
        drawn = time.perf_counter()
        start, size = 0, 1  # the first picture shows how large they are
        while start < n:
            job.report("drawing", start / n)
            rows = range(start, min(start + size, n))
            smaller = replace(prepared, settings=replace(prepared.settings, batch_size=size))
            here = slice(start, rows.stop)
            latents = SampleResult(
                sampled.z[here], sampled.status[here], sampled.evaluations[here], sampled.gradients[here]
            )
            part = smaller.show(latents, first + np.asarray(rows), lambda stage, fraction: None)
            result.extend(prepared.expr, part)
            width, height = part.images[0].size
            start, size = rows.stop, max(1, PART_PIXELS // (width * height))
    job.report("drawing", 1.0)
    seconds = {"seconds_sampling": drawn - started, "seconds_drawing": time.perf_counter() - drawn}
    result.results[0].statistics.update(summarize(sampled) | seconds)


def edit_picture(prepared: PreparedQuery, request: EditRequest, job: Job, result: JobResult) -> None:
    """Draw one picture and edit it; add the start and one picture a step to `result`: those of `energyql.edit`.

    The start is number `request.index` of the run of `prepared`, and the steps have its semantics. `job` receives
    the progress, and raises to end the work.
    """
    with interruptible(prepared.model.generator, job.check):
        start = prepared.run(1, first=request.index, progress=job.report)
        result.add_step(start)
        edited = edit(
            start, request.steps, model=prepared.model, device=str(prepared.device),
            keep="everything" if request.keep is None else request.keep, strength=request.edit_strength,
            layers=request.layers, semantics=prepared.settings.semantics, allow_weak=prepared.settings.allow_weak,
            progress=job.report,
        )  # fmt: skip
    for step, leaks in zip(edited.steps, edited.leaks, strict=True):
        result.add_step(step, leaks)
    result.edit = edited


@contextmanager
def interruptible(network: object, check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before every layer of a network while the context lasts; an exception ends the computation.

    A large network draws a single picture for longer than a second, so checks between pictures would be too rare.
    A network that is no torch module has no layers to stop at.
    """
    modules = list(network.modules()) if isinstance(network, torch.nn.Module) else []
    handles = [module.register_forward_pre_hook(lambda module, arguments: check()) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
