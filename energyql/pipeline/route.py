"""The route from the number of a sample to the plan by which it is drawn: one plan, or one for each prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.numerics.random import uniforms
from energyql.pipeline.plan import Plan, Shares


def prompt_numbers(plan: Plan, index: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the position of each sample's prompt, (n,), drawn by the shares from seed and `index`, (n,)."""
    low = int(index.min())
    rows, place = np.unique(index - low, return_inverse=True)
    count, seed = int(rows[-1]) + 1, plan.settings.seed
    chances = uniforms(seed, low, count, 1, stream="prompt", rows=rows.tolist()).numpy()[place, 0]
    numbers: npt.NDArray[np.int64] = np.searchsorted(np.cumsum(shares_of(plan).values)[:-1], chances, side="right")
    return numbers


def shares_of(plan: Plan) -> Shares:
    """Return the shares of the prompts of a calibrated plan."""
    shares = None if plan.calibration is None else plan.calibration.shares
    assert shares is not None
    return shares


def route(plan: Plan, index: npt.NDArray[Any]) -> list[tuple[Plan, npt.NDArray[np.int64]]]:
    """Group samples, numbered by `index` (n,), into pairs of a plan for one prompt and positions in `index`."""
    if plan.mixture is None:
        return [(plan, np.arange(len(index)))]
    numbers = prompt_numbers(plan, index)
    return [(part, rows) for k, part in enumerate(plan.mixture.plans) if len(rows := np.flatnonzero(numbers == k))]
