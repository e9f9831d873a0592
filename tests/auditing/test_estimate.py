"""Intervals of shares: against all true counts of small sets, and by simulated audits."""

from itertools import product

import numpy as np
import pytest

from benchmarks.audit import ACCURACIES, PREVALENCES, Look, Population, fixed, stopped
from energyql.auditing.estimate import Strata


def strata(size, seen, yes, guess):
    return Strata(*(np.array(column, float) for column in (size, seen, yes, guess)))


def random_strata(rng):
    """Two small strata with random true counts, of which random numbers of pictures were seen."""
    size = rng.integers(3, 25, 2)
    counts, seen = rng.integers(0, size + 1), rng.integers(0, size + 1)
    return strata(size, seen, rng.hypergeometric(counts, size - counts, seen), (1, 0))


def test_limits_are_those_of_all_counts_that_are_not_refused():
    rng = np.random.default_rng(0)
    for _ in range(60):
        some = random_strata(rng)
        refused = some._refused_any_time()
        ranges = zip(some.yes, some.size - some.seen + some.yes, strict=True)
        possible = product(*(np.arange(least, most + 1) for least, most in ranges))
        shares = [sum(counts) / some.size.sum() for counts in possible if not refused(np.array(counts), 0.0)]
        estimate, step = some.estimate(anytime=True), 2.01 / some.size.sum()
        assert min(shares) - step < estimate.low <= min(shares) + 1e-9
        assert max(shares) - 1e-9 <= estimate.high < max(shares) + step


def coverage(size, seen, counts, guess):
    """The exact probability with which the interval holds the share of true counts."""
    parts = [
        strata([n], [k], [0], [g])._distribution(np.array([float(c)]))
        for n, k, c, g in zip(size, seen, counts, guess, strict=True)
    ]
    total = 0.0
    for values in product(*(zip(*part, strict=True) for part in parts)):
        chance = np.prod([p for _, p in values])
        if chance > 1e-5:
            yes = [round(value * k) for (value, _), k in zip(values, seen, strict=True)]
            estimate = strata(size, seen, yes, guess).estimate(anytime=False)
            total += chance * (estimate.low - 1e-9 <= sum(counts) / sum(size) <= estimate.high + 1e-9)
    return total


@pytest.mark.parametrize("count", [0, 1, 2, 5, 11, 20, 33, 38, 40])
def test_one_stratum_is_exact(count):
    assert coverage([40], [10], [count], [0.5]) >= 0.95


@pytest.mark.parametrize("counts", [(19, 1), (20, 0), (17, 3), (12, 6)])
def test_two_strata(counts):
    assert coverage([20, 10], [8, 5], counts, [1, 0]) >= 0.945


def test_all_pictures_seen():
    for anytime in (True, False):
        estimate = strata([30, 10], [30, 10], [28, 3], [1, 0]).estimate(anytime=anytime)
        assert (estimate.share, estimate.low, estimate.high) == (31 / 40,) * 3
    assert str(estimate) == "77.5 % (77.5 to 77.5)"


def test_a_question_and_its_opposite():
    for anytime in (True, False):
        one = strata([300, 100], [20, 9], [18, 2], [1, 0]).estimate(anytime=anytime)
        other = strata([300, 100], [20, 9], [2, 7], [0, 1]).estimate(anytime=anytime)
        assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low), abs=2.01 / 400)


def test_what_was_not_seen_is_what_the_judge_says():
    some = strata([90, 10], [20, 0], [20, 0], [1, 0])
    assert some.share == 0.9
    assert some.estimate(anytime=False).high == 1.0  # nobody has looked at the ten


def test_the_next_picture_is_where_most_is_unknown():
    assert strata([50, 50], [20, 20], [20, 10], [1, 0]).next(np.array([True, True])) == 1
    assert strata([50, 50], [20, 20], [20, 10], [1, 0]).next(np.array([True, False])) == 0
    assert strata([90, 10], [0, 0], [0, 0], [1, 0]).next(np.array([True, True])) == 0


def test_any_time_is_wider_and_holds_all_the_way():
    rng = np.random.default_rng(3)
    holds = []
    for _ in range(25):
        population = Population.of(400, 0.85, 0.8)
        look = Look(population, 0.15)
        counts = population.audit(rng, True, look)
        assert counts.estimate(anytime=True).width > counts.estimate(anytime=False).width
        holds.append(look.holds)
    assert sum(holds) >= 24


@pytest.mark.parametrize("prevalence", PREVALENCES)
def test_the_judge_saves_clicks(prevalence):
    population = Population.of(1000, 0.85, prevalence)
    width, alone = (np.mean([fixed(population, seed, judged, 60)[1] for seed in range(12)]) for judged in (True, False))
    assert width < 0.87 * alone


@pytest.mark.slow
@pytest.mark.parametrize("prevalence", PREVALENCES)
@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_coverage(accuracy, prevalence):
    population = Population.of(2000, accuracy, prevalence)
    runs, alone = ([fixed(population, seed, judged, 60) for seed in range(500)] for judged in (True, False))
    assert np.mean(runs, 0)[0] >= 0.94
    assert np.mean([stopped(population, seed, True, 0.25)[0] for seed in range(500)]) >= 0.94
    if accuracy == 0.85:
        assert np.mean(runs, 0)[1] <= 0.8 * np.mean(alone, 0)[1]
