"""Pictures of latents, in batches, drawn as the plan says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.generators.base import draw_batches, noise_options
from energyql.pipeline.plan import Plan
from energyql.pipeline.route import route

STREAM_BATCH = 64
"""Number of samples in each result of a stream, unless `batch_size` is larger; a mixture draws as many at a time."""


def render(
    plan: Plan, z: Tensor, index: npt.NDArray[Any], w: Tensor | None = None, batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw the pictures of n samples, and yield for each batch the latents w and the pictures in [-1, 1].

    Args:
        plan: the plan; calibrated, if it is for several prompts.
        z: latents (n, z_dim).
        index: number of each sample in its run, (n,), which decides on random noise.
        w: latents to draw in place of `encode(z)`, (n, w_dim) or (n, num_ws, w_dim).
        batch_size: by default that of the settings.
    """
    if plan.mixture is not None:
        for some in np.split(np.arange(len(z)), range(STREAM_BATCH, len(z), STREAM_BATCH)):
            groups = [(part, torch.from_numpy(some[rows])) for part, rows in route(plan, index[some])]
            drawn = [
                batch
                for part, rows in groups
                for batch in render(part, z[rows], index[rows.numpy()], None if w is None else w[rows], batch_size)
            ]
            back = torch.cat([rows for _, rows in groups]).argsort()
            yield torch.cat([latents for latents, _ in drawn])[back], torch.cat([images for _, images in drawn])[back]
        return
    settings, generator = plan.settings, plan.model.generator

    def options(rows: slice) -> dict[str, Any]:
        return noise_options(generator, settings.noise, settings.seed, index[rows].tolist())

    yield from draw_batches(plan.synthesize, plan.encode, z, batch_size or settings.batch_size, w, options)


def render_drafts(plan: Plan, z: Tensor, numbers: Tensor) -> Iterator[Tensor]:
    """Draw pictures, perhaps drafts, only for networks to look at, and yield them in batches; `numbers` is (n,)."""

    def rows_of(batch: slice) -> dict[str, Any]:
        return {"rows": numbers[batch]}

    for _, images in draw_batches(plan.drafts(plan.dtype), plan.encode, z, plan.settings.batch_size, options=rows_of):
        yield images
