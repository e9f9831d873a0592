"""Shares of finite sets of pictures, with intervals, estimated from strata of which some pictures were looked at.

A stratum is a set of pictures for which a judge says the same. In each stratum, pictures are drawn at random without
replacement, and a person says yes or no. The estimate of prediction-powered inference is the mean of what the judge
says, corrected in each stratum by the mean difference of person and judge. Where the judge says the same for all
pictures of a stratum, this is the sum of the shares of yes, weighted by the sizes of the strata. See
docs/decisions/audit.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

LEVEL = 0.95
"""Probability with which an interval holds the true share."""
_STEEPEST = 30.0
"""Largest multiplier of a path: `e**30` is more than any count of pictures."""
_UNPROVEN = 0.045
"""Probability below which counts of several strata are refused. It is below 5 %, because only the likeliest counts of a
share are tested."""
_ALIKE = 1e-9
"""Shares that differ by less are equal."""
_HALVINGS = 18
"""Steps of a search along a path: the multiplier at its end is exact to some 1e-4 of its value."""
_MOST_VALUES = 20_000
"""Most values of a distribution; beyond it, values in the same 8,192nd of the range are joined."""
_LEAST = 1e-12
"""Probabilities below it are left out of a distribution."""
_log_gamma = np.vectorize(math.lgamma, otypes=[float])


@dataclass(frozen=True)
class Estimate:
    """An estimated share of pictures, with a 95 % interval; all three from 0 to 1."""

    share: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """`high - low`."""
        return self.high - self.low

    def __str__(self) -> str:
        """Return the estimate in percent, such as "96.1 % (93.8 to 98.0)"."""
        return f"{100 * self.share:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True, eq=False)
class Strata:
    """Counts of pictures, one entry for each stratum; (strata,) float64 with whole numbers.

    Attributes:
        size: number of pictures.
        seen: number of pictures that were drawn at random, and for which a person said yes or no.
        yes: number of pictures for which the person said yes.
        guess: share of yes that the judge states, 0 to 1; 0.5 if it states none.
    """

    size: Numbers
    seen: Numbers
    yes: Numbers
    guess: Numbers

    @property
    def share(self) -> float:
        """The estimate: mean of the shares of yes by size; of a stratum where nothing was seen, the judge's share."""
        return self._mean(np.where(self.seen > 0, self.yes / np.maximum(self.seen, 1), self.guess) * self.size)

    def _mean(self, yes: Numbers) -> float:
        return float(yes.sum() / self.size.sum())

    def next(self, open: npt.NDArray[np.bool_]) -> int:
        """Return the stratum of which a further picture shortens the interval most, by Neyman's rule.

        The rule takes pictures in proportion to size times standard deviation, which is estimated with one more yes and
        one more no.

        Args:
            open: which strata have pictures left, (strata,) bool; at least one.
        """
        share = (self.yes + 1) / (self.seen + 2)
        gain = self.size * np.sqrt(share * (1 - share) / ((self.seen + 1) * (self.seen + 2)))
        return int(np.argmax(np.where(open, gain, -1.0)))

    def estimate(self, *, anytime: bool) -> Estimate:
        """Return the share of yes among all pictures, with its interval.

        Args:
            anytime: whether the interval is to be valid at whatever moment somebody stops. Else it is valid for a
                number of pictures that was fixed before, and shorter.
        """
        if not self.size.sum():
            return Estimate(0.5, 0.0, 1.0)
        refused = self._refused_any_time() if anytime else self._refused
        low, high = (self._limit(sign, refused) for sign in (-1.0, 1.0))
        return Estimate(min(max(self.share, low), high), low, high)

    def _limit(self, sign: float, refused: Callable[[Numbers, float], bool]) -> float:
        """Return the lower limit (`sign` -1) or upper limit (1) of the share.

        The limit is searched along a path of true counts, which begins at the likeliest counts. Each point of the path
        has the likeliest counts of all that have its share.

        Args:
            sign: -1 or 1.
            refused: function of true counts and sign that tells whether the answers speak against these counts.
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
        """Return the likeliest true counts of yes, (strata,), at a Lagrange multiplier for their sum.

        The logarithm of the likelihood of a count K, drawn without replacement, is concave. So K goes up as long as
        `log((K + 1) (N - K - no) / ((K + 1 - yes) (N - K)))`, its change, is above the multiplier.

        Args:
            position: -1 to 1; the multiplier divided by its largest value. -1 gives the smallest counts, 1 the largest.
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
        """Return whether the estimate is in an outer tail of its distribution under true counts.

        The probability of this tail, and of the other tail as far as it is not more probable, is below 5 % (Blaker), or
        4.5 % with several strata.
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
        """Return the possible values of `share`, and their probabilities, if `counts` are the true counts of yes."""
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
        """Return a function that tells whether true counts are refused by a test that is valid at any time.

        The test is a likelihood ratio: a mixture of all counts, against the counts. Its value is a martingale if the
        counts are true, whatever stratum each picture was drawn from, so it ever exceeds 20 with a probability of at
        most 5 % (Ville). The mixture trusts the judge as much as one and a half pictures.
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
    """Return the logarithm of `number * (number - 1) * ...`, a product of `steps` factors, in each stratum."""
    return np.asarray(_log_gamma(number + 1) - _log_gamma(number - steps + 1))
