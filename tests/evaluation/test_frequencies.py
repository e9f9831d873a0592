from __future__ import annotations

import numpy as np
import pytest

from energyql.evaluation.frequencies import Cells, effective_size, frequencies, frequency_error, noise_floor
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
def cells() -> Cells:
    return Cells(VOCABULARY, PRIOR)


def test_every_value_has_a_cell(cells: Cells) -> None:
    quarters = tuple(f"age in quarter {k} of 4" for k in (1, 2, 3, 4))
    assert cells.names == ("smile", "hair = black", "hair = red", *quarters)
    assert cells.indicators(PRIOR).tolist() == [
        [1, 0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 1, 0, 0],
        [0, 0, 1, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 0, 1],
    ]
    assert frequencies(cells.indicators(PRIOR)).tolist() == [0.25, 0.25, 0.75, 0.25, 0.25, 0.25, 0.25]


def test_quarters_are_those_of_the_prior_and_have_no_ends(cells: Cells) -> None:
    values = {"smile": np.array([True] * 2), "hair": np.array(["red"] * 2), "age": np.array([-1e9, 1e9])}
    assert cells.indicators(values)[:, 3:].tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]


def test_weights_count() -> None:
    indicators = np.array([[1, 0], [0, 1]], np.float32)
    assert frequencies(indicators, np.array([3.0, 1.0])).tolist() == [0.75, 0.25]
    assert effective_size(np.ones(7)) == 7
    assert effective_size(np.array([1.0, 1e-9])) == pytest.approx(1)
    assert effective_size(np.array([])) == 0


def test_the_largest_error_is_found_and_named() -> None:
    sampled = np.array([[1, 1, 0]] * 3 + [[1, 0, 0]], np.float32)
    oracle = np.array([[1, 0, 0], [1, 1, 1]] * 2, np.float32)
    found = frequency_error(sampled, oracle, np.array([1.0, 1.0, 1.0, 1.0]))
    assert (found.largest, found.cell) == (0.5, 2)


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


def test_same_seed_same_floor() -> None:
    oracle = np.eye(20, dtype=np.float32)
    assert noise_floor(oracle, np.ones(20), 50) == noise_floor(oracle, np.ones(20), 50)
