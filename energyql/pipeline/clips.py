"""Where the energy is clipped for faithful pictures, and how many samples come from the prior: by labels or a pilot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from energyql.energy.clipped import clipped_density
from energyql.pipeline.verifier import Round

CLIPS = (0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01)
"""Bounds c at which the energy may be clipped: the clipped energy is 0 wherever P(query) by the heads is at least c."""
MOST_LOST = 0.1
"""Largest share of the satisfying samples that a bound for clipping may miss."""
WAITING, WAITING_FOR_CODE = 12, 18
"""A bound may cost at most `attempts` / 12 drawn pictures for one that is kept; / 18 if the verifier is code, which
accepts every satisfying picture."""
ENOUGH_POSITIVES = 32
"""Number of satisfying held-out samples from which they choose the bound, without a pilot run."""
PILOT, PILOT_ROUND, PILOT_KEPT = 1024, 64, 64
"""Of a pilot run: most pictures; pictures in a round; and accepted pictures after which the run ends."""
REJECTION_ROUND, REJECTION_KEPT = 8, 2
"""Of the trial of rejection: pictures in a round; and accepted pictures after which the trial ends."""
EXPECTED = 6
"""Least expected number of accepted pictures in `attempts` draws for rejection to be used. A sample then ends without
one with probability e^-6."""


@dataclass(frozen=True)
class Clip:
    """A bound at which the energy of a query may be clipped (see `ClippedEnergy`), with its estimated costs.

    Attributes:
        probability: the bound c: latents with P(query) of at least c by the heads are as likely as under the prior. 0
            for draws from the prior itself.
        lost: share of the satisfying samples of the prior that are missed, because the heads give them less than c.
        calls: pictures drawn for one that is kept; `None` if no sample satisfies the query.
        satisfying: number of satisfying samples behind the estimates.
        samples: number of all samples behind the estimates.
        held_out: whether these samples are held-out labels; else they were drawn for the estimate.
    """

    probability: float
    lost: float
    calls: float | None
    satisfying: int
    samples: int
    held_out: bool = False


def estimate_clips(
    draw: Callable[[int], Round],
    held_out: Round,
    kept_per_satisfying: Callable[[float], float] = lambda clip: 1.0,
    progress: Callable[[float], None] = lambda done: None,
    spent: Callable[[], float] = lambda: 0.0,
) -> list[Clip]:
    """Estimate for each bound in `CLIPS` the share of satisfying pictures it misses, and the draws for each kept one.

    The estimates are from held-out labels if they suffice, else from a pilot run.

    Args:
        draw: function from the number of a round to `PILOT_ROUND` samples, with the energy clipped at the smallest
            bound.
        held_out: labelled samples of the prior.
        kept_per_satisfying: function from a bound to the number of kept pictures for each satisfying one.
        progress: called with the fraction of the pilot run that is done.
        spent: function that returns the used fraction of the budget of the pilot run, which ends at 1.
    """
    p, good = held_out
    by_labels = needs_no_pilot(held_out)
    density = np.ones_like(p)
    if not by_labels:
        rounds, done = list[Round](), 0.0
        while done < 1:
            rounds.append(draw(len(rounds)))
            accepted_pictures = sum(int(kept.sum()) for _, kept in rounds)
            done = max(len(rounds) * PILOT_ROUND / PILOT, accepted_pictures / PILOT_KEPT, spent())
            progress(min(done, 1.0))
        p, good = (np.concatenate(column) for column in zip(*rounds, strict=True))
        density = clipped_density(p, CLIPS[-1])  # of the draws, as a multiple of the prior's
    density = np.maximum(density, 1e-300)
    mass = (1 / density)[good]
    clips, in_pilot = [], 1.0 if by_labels else kept_per_satisfying(CLIPS[-1])
    for c in CLIPS:
        share = clipped_density(p, c)
        weights = share / density
        # In a pilot, `good` are accepted pictures, with the threshold of the smallest clip.
        kept = weights[good].sum() * kept_per_satisfying(c) / in_pilot
        lost = float((mass * (1 - share[good])).sum() / mass.sum()) if good.any() else 1.0
        clips.append(Clip(c, lost, float(weights.sum() / kept) if kept else None, int(good.sum()), len(p), by_labels))
    return clips


def ended_early(clips: Sequence[Clip]) -> bool:
    """Whether a budget ended the pilot run of these estimates."""
    return not clips[0].held_out and clips[0].samples < PILOT and clips[0].satisfying < PILOT_KEPT


def needs_no_pilot(held_out: Round) -> bool:
    """Whether enough labelled samples satisfy the query to choose the bound by them."""
    return int(held_out[1].sum()) >= ENOUGH_POSITIVES


class Forecast(NamedTuple):
    """Shares of satisfying pictures by the heads, in [0, 1]: among random pictures, and among those of a pilot run."""

    of_prior: float
    of_pilot: float


def forecast_of(by_heads: npt.NDArray[np.float64]) -> Forecast:
    """Forecast by P(query) of the heads for latents of the prior, (n,)."""
    density = clipped_density(by_heads, CLIPS[-1])
    return Forecast(float(by_heads.mean()), float((density * by_heads).sum() / max(density.sum(), 1e-300)))


def _pilot_size(rate: float) -> float:
    """Expected number of pictures of a pilot run that accepts the share `rate` of them."""
    return min(PILOT, max(PILOT_ROUND, PILOT_KEPT / max(rate, 1e-300)))


def _affordable(calls: float | None, pilot: float, attempts: int) -> int:
    """Number of samples that rejection finds for the price of a pilot run; 0 if `attempts` may not suffice for one."""
    return 0 if calls is None or calls * EXPECTED > attempts else int(pilot / calls)


def count_from_prior(trial: Clip, forecast: Forecast | None, attempts: int, budget: float) -> float:
    """Return how many samples at the start of a run are drawn by rejection alone, from the prior.

    Later samples need a pilot run. Rejection goes on until it has cost as much as that run: then no run costs more than
    about twice the least, as for the choice between renting and buying (Karlin et al. 1988, doi:10.1007/BF01762111).
    The number is infinite if, within a budget, rejection finds more samples than draws after a pilot run.

    Args:
        trial: the result of `try_rejection`.
        forecast: `None` for a model without heads.
        attempts: the setting of this name.
        budget: most calls of the generator in the run; infinity without a budget.
    """
    calls = trial.calls
    pilot = _pilot_size(forecast.of_pilot if forecast else 1 / (calls or math.inf))
    count = _affordable(calls, pilot, attempts)
    if budget == math.inf:
        return count
    left = budget - trial.samples - count * (calls or 0.0)
    if forecast is None:
        return math.inf if left < 2 * PILOT else count
    share = 1 / calls if calls else forecast.of_prior
    return math.inf if left * share > (left - pilot) * forecast.of_pilot else count


def trial_size(forecast: Forecast | None, attempts: int) -> float:
    """Return the largest number of draws of the trial of rejection; 0 if the heads say that it is not worth it."""
    most = REJECTION_KEPT * attempts / EXPECTED
    if forecast is None:
        return most
    pilot = _pilot_size(forecast.of_pilot)
    worthwhile = forecast.of_prior > 0 and _affordable(1 / forecast.of_prior, pilot, attempts)
    return min(most, pilot / 2) if worthwhile else 0


def try_rejection(
    draw: Callable[[int], npt.NDArray[np.bool_]], most: float, progress: Callable[[float], None] = lambda done: None
) -> Clip:
    """Estimate the cost of rejection by draws from the prior, until 2 pictures are accepted; the result is a clip at 0.

    Args:
        draw: function from the number of a round to whether each of its `REJECTION_ROUND` pictures is accepted.
        most: number of draws after which the trial ends in any case, see `trial_size`.
        progress: called with the fraction of the draws that is done.
    """
    kept = samples = 0
    while kept < REJECTION_KEPT and samples < most:
        kept += int(draw(samples // REJECTION_ROUND).sum())
        samples += REJECTION_ROUND
        progress(min(1.0, max(kept / REJECTION_KEPT, samples / most)))
    return Clip(0.0, 0.0, samples / kept if kept else None, kept, samples)


def choose_clip(clips: Sequence[Clip], most: float) -> Clip:
    """Return the largest bound that misses at most `MOST_LOST` of the satisfying pictures, or else the smallest bound.

    If that bound needs more than `most` pictures for one that is kept, the smallest bound that does not is returned
    instead; if there is none, the largest of all. `clips` are in descending order of the bounds.
    """
    enough = next((clip for clip in clips if clip.lost <= MOST_LOST), clips[-1])
    if enough.calls is None or enough.calls <= most:
        return enough
    affordable = [clip for clip in clips if clip.calls is not None and clip.calls <= most]
    return affordable[-1] if affordable else clips[0]
