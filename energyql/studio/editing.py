"""Editing one picture, step by step."""

from __future__ import annotations

from collections.abc import Sequence

from energyql.editing.edit import edit
from energyql.pipeline.generate import Pipeline
from energyql.pipeline.prepared import PreparedQuery
from energyql.studio.answers import Answer
from energyql.studio.interrupt import interruptible
from energyql.studio.jobs import Job


def edit_picture(
    pipeline: Pipeline,
    prepared: PreparedQuery,
    index: int,
    steps: Sequence[str],
    semantics: str,
    job: Job,
    answer: Answer,
) -> None:
    """Draw one picture and edit it; the pictures are those of `energyql.generate` and `energyql.edit`.

    Args:
        pipeline: the model.
        prepared: the query that the picture answers.
        index: number of the picture in its run.
        steps: queries, each on top of those before.
        semantics: of the steps.
        job: told how far the work is, and ends it.
        answer: gets the pictures: the start, then one a step.
    """
    with interruptible(prepared.model.generator, job.check):
        start, _ = prepared.generate(index, 1, job.report)
        answer.add_step(start)
        answer.edit = edit(
            start, steps, model=pipeline.model, device=str(pipeline.device), semantics=semantics, progress=job.report
        )
    for result, leaks in zip(answer.edit.steps, answer.edit.leaks, strict=True):
        answer.add_step(result, leaks)
