"""Verified sampling: a reader decides for each drawn picture whether it is kept, and heads say only where to look.

Samplers go where heads are surest, which is not where the query holds. So a reader of pictures, the judge of the model,
looks at every draw, and a sample draws again until one is accepted. In the mode "sure" the draws are those of the
sampler. In the mode "faithful" they come from the clipped energy (see `ClippedEnergy`), under which every latent that
the heads think possible is as likely as under the prior, so that what is kept has the frequencies of the prior among
the pictures that the reader accepts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.labels import ImageLabeller, call_labeller, read_images
from energyql.attributes.predictions import Prediction
from energyql.energy.rule import EnergyRule
from energyql.language import Expr
from energyql.logic.truth import satisfied
from energyql.vocabulary import Vocabulary

MOST_ATTEMPTS = 256
"""Pictures that are drawn for a sample at most; the last is returned if none was accepted."""
LEAST_PROBABILITY = 0.9
"""Probability of the query, by a reader that gives probabilities, from which a picture is accepted."""
CLIPS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01)
"""Probabilities at which the energy may be clipped."""
MOST_LOST = 0.05
"""Share of the satisfying pictures that may be missed for a cheaper clip."""
MOST_CALLS = 64.0
"""Calls of the generator for a kept picture above which less than `MOST_LOST` is paid for."""
PILOT, PILOT_ROUND, PILOT_KEPT = 1024, 64, 64
"""Most pictures of the pilot, those drawn together, and the accepted ones after which it ends."""

Decide = Callable[[Tensor], npt.NDArray[np.bool_]]
"""Function from pictures in [-1, 1], (batch, channels, height, width), to whether each is accepted."""


def decide_by(reader: ImageLabeller, expr: Expr, rule: EnergyRule, vocabulary: Vocabulary) -> Decide:
    """Return the decision of a reader on a query.

    A reader that predicts every attribute of the query accepts a picture if the probability of the whole query is at
    least `LEAST_PROBABILITY`; one that returns values, such as a function, accepts what satisfies the query.

    Args:
        reader: the reader of pictures.
        expr: the bound query.
        rule: its probability as a function of predictions.
        vocabulary: the attributes of the model.
    """

    @torch.inference_mode()
    def decide(pictures: Tensor) -> npt.NDArray[np.bool_]:
        answers = call_labeller(reader, pictures, "the judge")
        predictions = {name: answers[name] for name in rule.attributes if isinstance(answers.get(name), Prediction)}
        if rule.attributes and len(predictions) == len(rule.attributes):
            accepted: npt.NDArray[np.bool_] = rule.log_value(predictions).exp().cpu().numpy() >= LEAST_PROBABILITY
            return accepted
        holds = satisfied(expr, read_images(lambda _: answers, pictures, vocabulary), vocabulary)
        return np.broadcast_to(holds, (len(pictures),)).copy()

    return decide


@dataclass(frozen=True)
class Clip:
    """The probability at which the energy of a query is clipped, with what a pilot run says about it.

    Attributes:
        probability: c, see `ClippedEnergy`.
        lost: estimated share of the satisfying pictures that are missed: the mean of max(1 - P / c, 0) over them.
        calls: estimated number of pictures drawn for one that is kept; `None` if the pilot kept none.
        kept: pictures that the pilot kept.
        drawn: pictures that it drew.
    """

    probability: float
    lost: float
    calls: float | None
    kept: int
    drawn: int

    def record(self) -> dict[str, Any]:
        """Return the numbers as provenance holds them."""
        return asdict(self)


Round = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""P(query) by the heads of some draws, and whether the reader accepts the picture of each, (n,) both."""


def choose_clip(draw: Callable[[int], Round]) -> Clip:
    """Choose where the energy of a query is clipped, by a pilot run.

    Args:
        draw: function from the number of a round to `PILOT_ROUND` draws with the energy clipped at the smallest of
            `CLIPS`.

    Returns:
        The largest clip of `CLIPS` by which at most `MOST_LOST` are missed; if its pictures take more than `MOST_CALLS`
        calls, the smallest that takes no more, else the cheapest.
    """
    rounds: list[Round] = []
    while len(rounds) * PILOT_ROUND < PILOT and sum(int(kept.sum()) for _, kept in rounds) < PILOT_KEPT:
        rounds.append(draw(len(rounds)))
    p, kept = (np.concatenate(column) for column in zip(*rounds, strict=True))
    least = CLIPS[-1]
    density = np.minimum(p / least, 1)  # of the draws, as a multiple of the prior's

    def at(c: float) -> Clip:
        weights = np.minimum(p / c, 1) / density
        if not kept.any():
            return Clip(c, 1.0, None, 0, len(p))
        mass = (1 / density)[kept]
        lost = float((mass * np.maximum(1 - p[kept] / c, 0)).sum() / mass.sum())
        return Clip(c, lost, float(weights.sum() / weights[kept].sum()), int(kept.sum()), len(p))

    clips = [at(c) for c in CLIPS]
    enough = next((clip for clip in clips if clip.lost <= MOST_LOST), clips[-1])
    if enough.calls is None or enough.calls <= MOST_CALLS:
        return enough
    affordable = [clip for clip in clips if clip.calls is not None and clip.calls <= MOST_CALLS]
    return affordable[-1] if affordable else clips[0]
