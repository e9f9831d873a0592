"""Conditional accuracy, frequencies and diversity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from energyql.evaluation.metrics import (
    AttributeBins,
    conditional_accuracy,
    diversity,
    effective_size,
    frequencies,
    frequency_error,
    noise_floor,
)
from energyql.language import bind, parse
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary(
    [
        AttributeSpec("smile", "yes/no"),
        AttributeSpec("hair", "categorical", ("black", "red")),
        AttributeSpec("age", "continuous", low=0, high=100),
    ]
)
PRIOR = {
    "smile": np.array([True, False, False, False]),
    "hair": np.array(["red", "black", "red", "red"]),
    "age": np.array([10.0, 20.0, 30.0, 40.0]),
}


@pytest.fixture
def bins() -> AttributeBins:
    return AttributeBins(VOCABULARY, PRIOR)


def test_every_value_has_a_cell(bins: AttributeBins) -> None:
    quarters = [f"age in quarter {k} of 4" for k in (1, 2, 3, 4)]
    assert bins.names == ["smile", "hair = black", "hair = red", *quarters]
    assert bins.indicators(PRIOR).tolist() == [
        [1, 0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 1, 0, 0],
        [0, 0, 1, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 0, 1],
    ]
    assert frequencies(bins.indicators(PRIOR)).tolist() == [0.25, 0.25, 0.75, 0.25, 0.25, 0.25, 0.25]


def test_quarters_are_those_of_the_prior_and_have_no_ends(bins: AttributeBins) -> None:
    values = {"smile": np.array([True] * 2), "hair": np.array(["red"] * 2), "age": np.array([-1e9, 1e9])}
    assert bins.indicators(values)[:, 3:].tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]


def test_weights_count() -> None:
    indicators = np.array([[1, 0], [0, 1]], np.float32)
    assert frequencies(indicators, np.array([3.0, 1.0])).tolist() == [0.75, 0.25]
    assert effective_size(np.ones(7)) == 7
    assert effective_size(np.array([1.0, 1e-9])) == pytest.approx(1)
    assert effective_size(np.array([])) == 0


def test_the_largest_error_is_found_and_named() -> None:
    sampled = np.array([[1, 1, 0]] * 3 + [[1, 0, 0]], np.float32)
    oracle = np.array([[1, 0, 0], [1, 1, 1]] * 2, np.float32)
    result = frequency_error(sampled, oracle, np.array([1.0, 1.0, 1.0, 1.0]))
    assert result[:2] == (0.5, 2)


def test_the_floor_is_what_exact_samples_show() -> None:
    random = np.random.default_rng(0)

    def draw(count: int) -> np.ndarray:
        return (random.random((count, 12)) < 0.3).astype(np.float32)

    n, m = 200, 500
    seen = [np.abs(frequencies(draw(n)) - frequencies(draw(m))).max() for _ in range(400)]
    floors = [noise_floor(draw(m), np.ones(m), n) for _ in range(10)]
    assert np.mean(floors) == pytest.approx(np.mean(seen), rel=0.05)
    assert np.std(floors) < 0.1 * np.mean(floors)


def test_the_floor_grows_where_weights_are_uneven() -> None:
    random = np.random.default_rng(0)
    oracle = (random.random((500, 12)) < 0.3).astype(np.float32)
    uneven = np.exp(2 * random.standard_normal(500))
    assert noise_floor(oracle, uneven, 10**6) > 2 * noise_floor(oracle, np.ones(500), 10**6)


VALUES = {
    "smile": np.array([True, True, False, True]),
    "hair": np.array(["red", "black", "black", "black"]),
    "age": np.array([50.0, 60.0, 40.0, 90.0]),
}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("smile", {"smile": 0.75}),
        ("NOT smile", {"NOT smile": 0.25}),
        ("smile AND hair = red", {"smile": 0.75, "hair = red": 0.25}),
        ("2 * smile AND age > 45", {"smile": 0.75, "age > 45": 0.75}),
        ("age = 50 +- 1", {"age = 50 +- 1": 1 - (0 + 10 + 10 + 40) / 4 / 100}),
    ],
)
def test_conditions_of_a_conjunction(query: str, expected: dict[str, float]) -> None:
    result = conditional_accuracy(bind(parse(query), VOCABULARY), VALUES, VOCABULARY)
    assert result == pytest.approx(expected)


@pytest.mark.parametrize("query", ["smile OR age > 3", "smile AND (smile OR age > 3)", "NOT (smile AND age > 3)"])
def test_accuracy_is_none_for_other_queries(query: str) -> None:
    assert conditional_accuracy(bind(parse(query), VOCABULARY), VALUES, VOCABULARY) is None


def points(count: int, seed: int, dim: int = 6) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_exact_samples_are_as_varied_as_exact_samples() -> None:
    result = [diversity(points(500, seed), points(500, 100 + seed)) for seed in range(8)]
    assert sum(one["pairwise"] for one in result) / 8 == pytest.approx(1, abs=0.02)
    assert sum(one["nearest"] for one in result) / 8 == pytest.approx(1, abs=0.05)
    assert sum(one["duplicates"] for one in result) / 8 == pytest.approx(0.01, abs=0.01)


def test_diversity_counts_near_duplicates() -> None:
    half = points(250, 0)
    crowded = torch.stack([half, half + 1e-3], 1).flatten(0, 1)
    result = diversity(crowded, points(500, 1))
    assert result["duplicates"] == 1
    assert result["nearest"] < 0.01
    assert result["pairwise"] == pytest.approx(1, abs=0.05)


def test_the_longer_set_is_cut_because_neighbours_come_nearer_in_larger_ones() -> None:
    sampled, oracle = points(100, 0), points(1000, 1)
    assert diversity(sampled, oracle) == diversity(sampled, oracle[:100])
    assert diversity(oracle, sampled) == diversity(oracle[:100], sampled)


def test_identical_points_are_at_distance_zero() -> None:
    far = points(50, 0) + 1e4  # where differences of squares would drown
    assert diversity(torch.cat([far, far]), points(100, 1))["nearest"] == 0
