"""Pictures of latents that may lie beside what their z is mapped to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.editing.latents import Latents, LatentSpace, shifted
from energyql.pipeline.prepared import PreparedQuery
from energyql.pipeline.result import Result
from energyql.progress import Report
from energyql.sampling import SampleResult, Status, summarize

WITH_OFFSET = 16
"""Pictures drawn together where w has an offset, unless a call says otherwise."""


def show(
    prepared: PreparedQuery,
    space: LatentSpace,
    latents: Latents,
    index: npt.NDArray[np.int64],
    report: Report,
    ended: SampleResult | None = None,
) -> Result:
    """Pictures of latents, and all that is known about them.

    Args:
        prepared: what they are judged by.
        space: the model's latents.
        latents: which.
        index: number of each sample in its run, (n,).
        report: of the progress.
        ended: the run that led to the latents; `None` where there was none.
    """
    ended = _at_rest(latents.z) if ended is None else ended
    if latents.offset is None:
        result = prepared.show(_with(ended, latents.z), index, report)
    else:
        size, parts = prepared.batch_size or WITH_OFFSET, []
        for start in range(0, len(latents), size):
            rows = slice(start, start + size)
            some = latents[rows]

            def encode(z: Tensor, some: Latents = some) -> Tensor:
                return shifted(space.encode(z), some.offset)

            def part(stage: str, fraction: float, start: int = start, some: Latents = some) -> None:
                report(stage, (start + fraction * len(some)) / len(latents))

            one = replace(prepared, encode=encode, batch_size=size)
            parts.append(one.show(_rows(ended, rows, some.z), index[rows], part))
        result = Result.join(parts)
    if len(result):
        result.statistics.update(summarize(ended))
    return result


def _at_rest(z: Tensor) -> SampleResult:
    none = torch.zeros(len(z), dtype=torch.int64)
    return SampleResult(z, none + Status.OK, none, none)


def _with(ended: SampleResult, z: Tensor) -> SampleResult:
    return replace(ended, z=z)


def _rows(ended: SampleResult, rows: slice, z: Tensor) -> SampleResult:
    return SampleResult(z, ended.status[rows], ended.evaluations[rows], ended.gradients[rows])
