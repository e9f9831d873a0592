"""Estimates of the share of pictures for which the answer is yes, with intervals, from answers about some pictures.

The pictures are divided into strata: sets of pictures on which the judge has the same verdict. In each stratum,
pictures are drawn at random without replacement, and a person says yes or no. Prediction-powered inference takes the
mean verdict of the judge, and corrects it in each stratum by the mean difference between person and judge. As the
verdict is the same in a whole stratum, the result is simple: the mean over strata of the share of yes, weighted by the
sizes of the strata. See docs/decisions/audit.md.
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
"""Level of the test by which possible true counts of yes are rejected if there are several strata. It is below 5 %,
because the test is made only for the likeliest of all counts with the same share."""
_ALIKE = 1e-9
"""Shares that differ by less than this count as equal."""
_HALVINGS = 18
"""Number of halvings in the search for a limit of the interval, after which the Lagrange multiplier is exact to some
1e-4 of its value."""
_MOST_VALUES = 20_000
"""Most values of a distribution of the estimate. If there are more, the range is divided into 8,192 parts, and all
values in the same part are joined."""
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
        """Return the estimate in percent, such as "96.1 % (93.8 to 98.0)"."""
        return f"{100 * self.share:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True, eq=False)
class Strata:
    """Counts of pictures in each stratum, a set of pictures with the same verdict of the judge.

    Each attribute is an array (strata,) of float64; the first three have whole numbers.

    Attributes:
        size: number of pictures in the stratum.
        seen: number of pictures of the stratum that were drawn at random, and for which a person said yes or no.
        yes: number of pictures of the stratum for which the person said yes.
        guess: share of yes in the stratum by the judge, 0 to 1; 0.5 if there is no verdict of the judge.
    """

    size: Numbers
    seen: Numbers
    yes: Numbers
    guess: Numbers

    @property
    def share(self) -> float:
        """The estimated share of yes among all pictures, 0 to 1.

        It is the mean of the shares of yes of the strata, weighted by size. For a stratum without any answer, the share
        of the judge (`guess`) is taken.
        """
        return self._mean(np.where(self.seen > 0, self.yes / np.maximum(self.seen, 1), self.guess) * self.size)

    def _mean(self, yes: Numbers) -> float:
        return float(yes.sum() / self.size.sum())

    def next(self, open: npt.NDArray[np.bool_]) -> int:
        """Return the index of the stratum from which to draw the next picture, so that the interval shrinks most.

        By Neyman's rule, the number of pictures drawn from a stratum is in proportion to its size times the standard
        deviation of its answers. The standard deviation is estimated with one more yes and one more no.

        Args:
            open: whether each stratum has pictures that were not drawn yet, (strata,) bool; true for at least one.
        """
        share = (self.yes + 1) / (self.seen + 2)
        gain = self.size * np.sqrt(share * (1 - share) / ((self.seen + 1) * (self.seen + 2)))
        return int(np.argmax(np.where(open, gain, -1.0)))

    def estimate(self, *, anytime: bool) -> Estimate:
        """Return the estimated share of yes among all pictures, with its 95 % interval.

        Args:
            anytime: whether the interval must be valid at every moment, even if somebody stops because of the answers.
                If false, the interval is shorter, but only valid if the number of pictures was fixed in advance.
        """
        if not self.size.sum():
            return Estimate(0.5, 0.0, 1.0)
        refused = self._refused_any_time() if anytime else self._refused
        low, high = (self._limit(sign, refused) for sign in (-1.0, 1.0))
        return Estimate(min(max(self.share, low), high), low, high)

    def _limit(self, sign: float, refused: Callable[[Numbers, float], bool]) -> float:
        """Return the lower limit (`sign` -1) or the upper limit (`sign` 1) of the interval of the share.

        The true number of yes in each stratum is unknown. The limit is the last share, on the way from the likeliest
        true counts to fewer (or more) yes, that a test does not reject. Of all counts with the same share, only the
        likeliest are tested (`_path`). The search halves the way again and again.

        Args:
            sign: -1 or 1.
            refused: the test: a function that takes true counts (strata,) and `sign`, and returns whether the answers
                contradict these counts.
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
        """Return likely true counts of yes in the strata, (strata,); `position` sets how large their sum is.

        The counts maximise the log-likelihood of the answers plus a Lagrange multiplier times the sum of the counts.
        Pictures are drawn without replacement, so the log-likelihood of the true count K in a stratum of N pictures is
        concave in K. From K to K + 1 it changes by `log((K + 1) (N - K - no) / ((K + 1 - yes) (N - K)))`. The best K is
        the first one at which this change plus the multiplier is not above 0.

        Args:
            position: the multiplier divided by `_STEEPEST`, from -1 (the smallest possible counts) to 1 (the largest
                possible counts); 0 gives the likeliest counts.
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
        """Return whether the answers contradict true counts of yes, by Blaker's test for a fixed number of pictures.

        If the counts were true, the estimate `share` would have a known distribution. The test adds two probabilities.
        One is the probability of the values that are at least as extreme as `share`, on one side. The other is that of
        the most extreme values on the other side, as many of them as together are not more probable than the first
        side. The counts are rejected if the sum is below 5 %, or below 4.5 % with several strata.

        Args:
            counts: true counts of yes that are tested, (strata,).
            sign: -1 if the counts are those of a lower limit, so that values above `share` are extreme; 1 for an upper
                limit.
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
        """Return the distribution of the estimate `share` if `counts`, (strata,), are the true counts of yes.

        The distribution is two arrays of the same length: the possible values, and their probabilities. Values with
        tiny probabilities are left out, and values close to one another may be joined.
        """
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
        """Return a test of true counts of yes that is valid at any time, even if the answers decide when to stop.

        The test is a function that takes counts (strata,) and a sign, which it ignores, and returns whether the answers
        contradict the counts. The test computes a ratio: the likelihood of the answers under a mixture of all possible
        counts, divided by their likelihood under the counts that are tested. If these counts are the true ones, the
        ratio is a martingale, whatever stratum each picture was drawn from. So by Ville's inequality the ratio ever
        exceeds 20 with a probability of at most 5 %. The counts are rejected if the ratio is above 20. The mixture
        gives the verdicts of the judge the weight of one and a half answers.
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
    """Return log(number * (number - 1) * ...), a product of `steps` factors, for each stratum; all arrays (strata,)."""
    return np.asarray(_log_gamma(number + 1) - _log_gamma(number - steps + 1))
