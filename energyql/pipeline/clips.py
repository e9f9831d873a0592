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
"""Largest share of the satisfying samples that a bound for clipping may miss. A larger bound misses more samples, and
needs fewer draws.

It was measured with 20,000 labels of a DCGAN. With the share 0.1, frequencies are wrong by 0.02, as much as the
frequencies of 600 exact samples. With 0.05, they are wrong by 0.012, but 22 % more draws are needed if 10 to 16 % of
all pictures satisfy the query, and 35 % more for rarer queries."""
WAITING, WAITING_FOR_CODE = 12, 18
"""Divisors of the setting `attempts`. The bound for clipping is chosen so that at most `attempts` / 12 pictures are
drawn for one that is kept, if there is such a bound. The divisor is 18 if the verifier is code, which accepts every
satisfying picture and not only those of which it is sure.

With 8 instead of 12, and with an earlier `Balance`, 24 queries on a DCGAN with 5,000 labels need 22 draws instead of
18, and 96.7 instead of 97.2 % of the pictures are right, 90 instead of 94 % for the worst query. With 16, frequencies
are worse."""
ENOUGH_POSITIVES = 32
"""If at least this many held-out samples satisfy the query, the bound for clipping is chosen by held-out samples;
otherwise by a pilot run."""
PILOT, PILOT_ROUND, PILOT_KEPT = 1024, 64, 64
"""Three numbers for the pilot run: the largest number of pictures; the number of pictures that are drawn together; and
the number of accepted pictures after which the run ends."""
REJECTION_ROUND, REJECTION_KEPT = 8, 2
"""Two numbers for the trial of rejection: the number of pictures that are drawn together; and the number of accepted
pictures after which the trial ends."""
EXPECTED = 6
"""Rejection is used if a sample would meet at least so many accepted pictures in as many draws as the setting
`attempts`. A sample then ends without an accepted picture with a probability of e^-6."""


@dataclass(frozen=True)
class Clip:
    """A bound at which the energy of a query may be clipped, with estimates of what the bound costs.

    Attributes:
        probability: the bound c. The clipped energy is 0 wherever P(query) by the heads is at least c, so such latents
            are drawn as often as under the prior; see `ClippedEnergy`. 0 for draws from the prior, without heads.
        lost: estimated share of the samples of the prior that satisfy the query but are missed, because P(query) by the
            heads is below c.
        calls: estimated number of pictures drawn for one that is kept; `None` if none of the samples satisfies the
            query.
        satisfying: number of satisfying samples by which the estimates were made.
        samples: number of all samples by which the estimates were made.
        held_out: whether the samples are held-out labels; else they were drawn for the estimate.
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
    """Estimate for each bound in `CLIPS` the share of satisfying pictures that it misses, and the cost of a picture.

    The cost is the number of pictures that are drawn for one that is kept. The estimates are made from held-out labels;
    or from a pilot run, if fewer than 32 of the labelled samples satisfy the query.

    Args:
        draw: function that draws a round of the pilot run: `PILOT_ROUND` samples, with the energy clipped at the
            smallest of `CLIPS`. Its argument is the number of the round.
        held_out: samples of the prior with labels.
        kept_per_satisfying: function from a bound to the number of kept pictures for each drawn one that satisfies the
            query.
        progress: called with the fraction of the pilot run that is done.
        spent: function that returns the used fraction of what a budget leaves for the pilot run; at 1 the run ends.
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
    """Return whether the pilot run for the estimates of clips was ended by a budget."""
    return not clips[0].held_out and clips[0].samples < PILOT and clips[0].satisfying < PILOT_KEPT


def needs_no_pilot(held_out: Round) -> bool:
    """Return whether enough labelled samples satisfy the query to choose the bound for clipping by them."""
    return int(held_out[1].sum()) >= ENOUGH_POSITIVES


class Forecast(NamedTuple):
    """Shares of pictures that satisfy the query, as the heads predict them, in [0, 1].

    Attributes:
        of_prior: of random pictures.
        of_pilot: of the pictures of a pilot run.
    """

    of_prior: float
    of_pilot: float


def forecast_of(by_heads: npt.NDArray[np.float64]) -> Forecast:
    """Return the forecast by P(query) of the heads for latents of the prior, (n,)."""
    density = clipped_density(by_heads, CLIPS[-1])
    return Forecast(float(by_heads.mean()), float((density * by_heads).sum() / max(density.sum(), 1e-300)))


def _pilot_size(rate: float) -> float:
    """About how many pictures a pilot run draws if the share `rate` of them is accepted."""
    return min(PILOT, max(PILOT_ROUND, PILOT_KEPT / max(rate, 1e-300)))


def _affordable(calls: float | None, pilot: float, attempts: int) -> int:
    """How many samples rejection finds for the price of a pilot run; 0 where `attempts` may not suffice for one."""
    return 0 if calls is None or calls * EXPECTED > attempts else int(pilot / calls)


def count_from_prior(trial: Clip, forecast: Forecast | None, attempts: int, budget: float) -> float:
    """Return how many samples at the start of a run are drawn by rejection alone, from the prior.

    Later samples have a clipped energy, for which a pilot run is made, so a run of a few pictures needs none. The
    number is so large that rejection costs as much as the pilot run: then no run costs more than about twice the least,
    as for the choice between renting and buying (Karlin et al. 1988, doi:10.1007/BF01762111).

    Args:
        trial: the result of `try_rejection`.
        forecast: what the heads predict; `None` for a model without heads.
        attempts: the setting, most pictures that may be drawn for one that is accepted.
        budget: most calls of the generator in the run; infinity without a budget.

    Returns:
        The number; infinity with a budget in which rejection finds more samples than draws after a pilot run would.
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
    """Return after how many draws the trial of rejection ends in any case; 0 if the heads say that it is not worth it.

    The arguments are those of `count_from_prior`.
    """
    most = REJECTION_KEPT * attempts / EXPECTED
    if forecast is None:
        return most
    pilot = _pilot_size(forecast.of_pilot)
    worthwhile = forecast.of_prior > 0 and _affordable(1 / forecast.of_prior, pilot, attempts)
    return min(most, pilot / 2) if worthwhile else 0


def try_rejection(
    draw: Callable[[int], npt.NDArray[np.bool_]], most: float, progress: Callable[[float], None] = lambda done: None
) -> Clip:
    """Estimate by a few draws from the prior how many of them the verifier must see for one that it accepts.

    The draws end as soon as 2 pictures are accepted.

    Args:
        draw: function from the number of a round to whether each of its `REJECTION_ROUND` pictures is accepted.
        most: number of draws after which the trial ends in any case, see `trial_size`.
        progress: called with the fraction of the draws that is done.

    Returns:
        The draws as a clip with the bound 0, which misses nothing.
    """
    kept = samples = 0
    while kept < REJECTION_KEPT and samples < most:
        kept += int(draw(samples // REJECTION_ROUND).sum())
        samples += REJECTION_ROUND
        progress(min(1.0, max(kept / REJECTION_KEPT, samples / most)))
    return Clip(0.0, 0.0, samples / kept if kept else None, kept, samples)


def choose_clip(clips: Sequence[Clip], most: float) -> Clip:
    """Return the largest bound for clipping that misses at most 10 % (`MOST_LOST`) of the satisfying pictures.

    Args:
        clips: the bounds in descending order, with their estimated costs.
        most: most pictures that may be drawn for one that is kept.

    Returns:
        The bound with its costs; the smallest bound if all bounds miss more. If the bound that is so chosen needs more
        than `most` pictures, the smallest bound that needs at most `most` is returned instead; if there is no such
        bound, the largest of all bounds.
    """
    enough = next((clip for clip in clips if clip.lost <= MOST_LOST), clips[-1])
    if enough.calls is None or enough.calls <= most:
        return enough
    affordable = [clip for clip in clips if clip.calls is not None and clip.calls <= most]
    return affordable[-1] if affordable else clips[0]
