"""Estimates of the share of pictures for which the answer is yes, with intervals, from answers about some pictures.

Prediction-powered inference, stratified by the verdict of the judge: in each stratum, pictures are drawn at random
without replacement, and the estimate is the mean of the strata's shares of yes by size. See docs/decisions/audit.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

LEVEL = 0.95
"""Probability with which an interval contains the true share."""
_STEEPEST = 30.0
"""Largest absolute value of the Lagrange multiplier in `Strata._path`: `e**30` is more than any count of pictures."""
_UNPROVEN = 0.045
"""Level of the test with several strata: below 5 %, as only the likeliest of all counts with one share are tested."""
_ALIKE = 1e-9
"""Shares that differ by less than this count as equal."""
_HALVINGS = 18
"""Halvings in the search for a limit of the interval."""
_MOST_VALUES = 20_000
"""Most values of a distribution of the estimate; more of them are joined in 8,192 parts of the range."""
_LEAST = 1e-12
"""Values with a smaller probability are left out of the distribution of the estimate."""
_log_gamma = np.vectorize(math.lgamma, otypes=[float])


@dataclass(frozen=True)
class Estimate:
    """An estimated share of pictures, with a 95 % interval from `low` to `high`; all three numbers are from 0 to 1."""

    share: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Width of the interval, `high - low`."""
        return self.high - self.low

    def __str__(self) -> str:
        """In percent, such as "96.1 % (93.8 to 98.0)"."""
        return f"{100 * self.share:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True, eq=False)
class Strata:
    """Counts of pictures in each stratum, a set of pictures with the same verdict of the judge.

    Each attribute is an array (strata,) of float64; the first three have whole numbers.

    Attributes:
        size: pictures in the stratum.
        seen: pictures that were drawn at random, and for which a person said yes or no.
        yes: pictures for which the person said yes.
        guess: share of yes by the judge, 0 to 1; 0.5 if there is no verdict of the judge.
    """

    size: Numbers
    seen: Numbers
    yes: Numbers
    guess: Numbers

    @property
    def share(self) -> float:
        """The estimated share of yes among all pictures: the mean of the strata's shares of yes, weighted by size.

        A stratum without any answer has the share of the judge (`guess`).
        """
        return self._mean(np.where(self.seen > 0, self.yes / np.maximum(self.seen, 1), self.guess) * self.size)

    def _mean(self, yes: Numbers) -> float:
        return float(yes.sum() / self.size.sum())

    def next(self, open: npt.NDArray[np.bool_]) -> int:
        """Stratum from which to draw the next picture, so that the interval shrinks most, by Neyman's allocation.

        The pictures drawn from a stratum are in proportion to its size times the standard deviation of its answers,
        which is estimated with one more yes and one more no.

        Args:
            open: whether each stratum has pictures that were not drawn yet, (strata,); true for at least one.
        """
        share = (self.yes + 1) / (self.seen + 2)
        gain = self.size * np.sqrt(share * (1 - share) / ((self.seen + 1) * (self.seen + 2)))
        return int(np.argmax(np.where(open, gain, -1.0)))

    def estimate(self, *, anytime: bool) -> Estimate:
        """The estimated share of yes among all pictures, with its 95 % interval.

        Args:
            anytime: whether the interval must be valid at every moment, even if somebody stops because of the answers.
                If false, it is shorter, but only valid if the number of pictures was fixed in advance.
        """
        if not self.size.sum():
            return Estimate(0.5, 0.0, 1.0)
        refused = self._refused_any_time() if anytime else self._refused
        low, high = (self._limit(sign, refused) for sign in (-1.0, 1.0))
        return Estimate(min(max(self.share, low), high), low, high)

    def _limit(self, sign: float, refused: Callable[[Numbers, float], bool]) -> float:
        """Lower (`sign` -1) or upper (1) limit of the interval: the last share that `refused` accepts, by bisection.

        Of all true counts with the same share, only the likeliest (`_path`) are tested.
        """
        accepted, beyond, inner, outer = 0.0, 1.0, self._path(0.0), self._path(sign)
        if not refused(outer, sign):
            return self._mean(outer)
        for _ in range(_HALVINGS):
            middle = (accepted + beyond) / 2
            counts = self._path(sign * middle**4)
            if refused(counts, sign):
                beyond, outer = middle, counts
            else:
                accepted, inner = middle, counts
            if abs(outer - inner).sum() <= 1:  # there are no counts between them
                break
        return self._mean(outer)

    def _path(self, position: float) -> Numbers:
        """Likeliest true counts of yes in the strata, (strata,), when `position` pulls their sum down (-1) or up (1).

        They maximise the log-likelihood plus `position * _STEEPEST` (a Lagrange multiplier) times the sum; at 0 they
        are the maximum likelihood. Draws are without replacement: for K yes among the N pictures of a stratum, the
        log-likelihood is concave, and rises from K to K + 1 by `log((K + 1) (N - K - no) / ((K + 1 - yes) (N - K)))`.
        The best K is the first at which this plus the multiplier is not above 0.
        """
        yes, no, size, factor = self.yes, self.seen - self.yes, self.size + 1, math.exp(-_STEEPEST * position)
        square, linear, constant = factor - 1, size - no - factor * (size + yes), factor * yes * size
        root = np.sqrt(np.maximum(linear * linear - 4 * square * constant, 0))
        stable = -(linear + np.where(linear < 0, -root, root)) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = stable / square, constant / stable  # K + 1 where the change is the multiplier
            counts = np.where((first >= yes) & (first <= size - no), first, second)
            counts = np.where(no == 0, constant / square / size if factor > 1 else size, counts)
            counts = np.where(yes == 0, size + no / square if factor < 1 else 0, counts)
        return np.clip(np.floor(counts), yes, self.size - no)

    def _refused(self, counts: Numbers, sign: float) -> bool:
        """Whether the answers contradict true counts (strata,), by Blaker's test (2000) for a fixed number of pictures.

        If the counts were true, the values of the estimate that are at least as extreme as `share`, and those of the
        other tail as far as it is not more probable, would together have a probability below 5 % (4.5 % with several
        strata). At a lower limit (`sign` -1) large values are extreme.
        """
        values, chances = self._distribution(counts)
        towards = -sign * (values - self.share)
        order = np.argsort(-towards, kind="stable")
        tail = chances[towards > -_ALIKE].sum()
        other = np.cumsum(chances[order][::-1])
        most = np.searchsorted(other, tail + _LEAST, side="right")
        several = np.count_nonzero(self.seen) > 1
        return bool(tail + (other[most - 1] if most else 0.0) < (_UNPROVEN if several else 1 - LEVEL))

    def _distribution(self, counts: Numbers) -> tuple[Numbers, Numbers]:
        """Values of the estimate, and their probabilities, if `counts`, (strata,), are the true counts of yes."""
        unseen = self.seen == 0
        values, chances = np.array([self._mean((self.guess * self.size)[unseen])]), np.ones(1)
        for stratum in np.flatnonzero(~unseen):
            size, seen, count = (int(column[stratum]) for column in (self.size, self.seen, counts))
            least, most = max(0, seen - (size - count)), min(seen, count)
            steps = np.arange(least, most, dtype=float)
            ratios = (count - steps) * (seen - steps) / ((steps + 1) * (size - count - seen + steps + 1))
            logs = np.concatenate([[0.0], np.cumsum(np.log(ratios))])
            odds = np.exp(logs - logs.max())
            shares = self.size[stratum] / self.size.sum() * np.arange(least, most + 1) / seen
            chances = np.multiply.outer(chances, odds / odds.sum()).ravel()
            values = np.add.outer(values, shares).ravel()[chances > _LEAST]
            chances = chances[chances > _LEAST]
            if len(values) > _MOST_VALUES:
                part = np.unique(np.round(values * 8192), return_inverse=True)[1]
                values = np.asarray(np.bincount(part, chances * values), float)
                chances = np.asarray(np.bincount(part, chances), float)
                values = values / chances
        return values, chances

    def _refused_any_time(self) -> Callable[[Numbers, float], bool]:
        """Make a test like `_refused` that is valid whenever one stops (martingales of Waudby-Smith and Ramdas 2020).

        It divides the likelihood of the answers under a beta-binomial mixture of all counts, in which the verdicts of
        the judge weigh one and a half answers, by that under the tested counts. If these are true, the ratio ever
        exceeds 20 with a probability of at most 5 % (Ville's inequality), whatever stratum each picture was drawn from.
        """
        more, less, no = self.guess + 0.25, 1.25 - self.guess, self.seen - self.yes
        mixture = _log_beta(self.yes + more, no + less) - _log_beta(more, less)
        drawn = _falling(self.size, self.seen)

        def refused(counts: Numbers, sign: float) -> bool:
            likelihood = _falling(counts, self.yes) + _falling(self.size - counts, no) - drawn
            return bool((mixture - likelihood).sum() >= -math.log(1 - LEVEL))

        return refused


def _log_beta(one: Numbers, other: Numbers) -> Numbers:
    return np.asarray(_log_gamma(one) + _log_gamma(other) - _log_gamma(one + other))


def _falling(number: Numbers, steps: Numbers) -> Numbers:
    """Log of number * (number - 1) * ..., a product of `steps` factors, for each stratum; all arrays (strata,)."""
    return np.asarray(_log_gamma(number + 1) - _log_gamma(number - steps + 1))
