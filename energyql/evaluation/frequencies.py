"""How often every attribute has every value, and how far that is from how often it should."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.vocabulary import AttributeSpec

Array = npt.NDArray[np.float64]
Indicators = npt.NDArray[np.float32]
"""(n, cells): 1 where a sample falls into a cell, else 0."""
Values = Mapping[str, npt.NDArray[Any]]
"""Attribute -> decided values, (n,)."""
QUARTERS = 4
"""Cells of a continuous attribute, equally frequent in the prior."""


class Cells:
    """What is counted: yes of a yes/no attribute, each class, each quarter of a continuous attribute.

    Args:
        vocabulary: the attributes.
        prior: values of samples of the prior, whose quartiles bound the quarters.

    Attributes:
        names: one a cell, such as "smile", "hair = black", "age in quarter 2 of 4".
    """

    def __init__(self, vocabulary: Mapping[str, AttributeSpec], prior: Values) -> None:
        self._specs = list(vocabulary.values())
        shares = np.arange(1, QUARTERS) / QUARTERS
        self._edges = {
            spec.name: np.quantile(prior[spec.name], shares) for spec in self._specs if spec.kind == "continuous"
        }
        names: list[str] = []
        for spec in self._specs:
            if spec.kind == "yes/no":
                names.append(spec.name)
            elif spec.kind == "categorical":
                names += [f"{spec.name} = {value}" for value in spec.values]
            else:
                names += [f"{spec.name} in quarter {k + 1} of {QUARTERS}" for k in range(QUARTERS)]
        self.names = tuple(names)

    def indicators(self, values: Values) -> Indicators:
        """Which samples fall into which cells."""
        columns: list[npt.NDArray[Any]] = []
        for spec in self._specs:
            column = values[spec.name]
            if spec.kind == "yes/no":
                columns.append(np.asarray(column, bool))
            elif spec.kind == "categorical":
                columns += [column == value for value in spec.values]
            else:
                quarter = np.searchsorted(self._edges[spec.name], column, side="right")
                columns += [quarter == k for k in range(QUARTERS)]
        return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True)
class FrequencyError:
    """The largest difference between two frequencies of one cell.

    Attributes:
        largest: in [0, 1].
        cell: index of that cell.
        floor: what an exact sampler would show in the mean, because samples and oracle are finite.
    """

    largest: float
    cell: int
    floor: float


def frequencies(indicators: Indicators, weights: Array | None = None) -> Array:
    """Share of (weighted) samples in each cell, (cells,)."""
    return np.average(indicators, axis=0, weights=weights).astype(np.float64)


def frequency_error(
    sampled: Indicators, oracle: Indicators, weights: Array, *, repetitions: int = 200, seed: int = 0
) -> FrequencyError:
    """The largest error of the frequency of any cell.

    Nothing is subtracted for noise. `floor` tells how much of it there is: the mean of the same number over
    `repetitions` of drawing as many samples from the oracle itself, which is drawn anew each time as well (bootstrap:
    Efron 1979).

    Args:
        sampled: of the samples to judge, (n, cells).
        oracle: of exact samples, (m, cells).
        weights: of exact samples, (m,), above 0.
        repetitions, seed: of the bootstrap.
    """
    difference = np.abs(frequencies(sampled) - frequencies(oracle, weights))
    cell = int(difference.argmax())
    floor = noise_floor(oracle, weights, len(sampled), repetitions=repetitions, seed=seed)
    return FrequencyError(float(difference[cell]), cell, floor)


def noise_floor(oracle: Indicators, weights: Array, n: int, *, repetitions: int = 200, seed: int = 0) -> float:
    """The mean of the largest frequency error of n exact samples; see `frequency_error`."""
    random = np.random.default_rng(seed)
    share = weights / weights.sum()
    exact = random.multinomial(n, share, size=repetitions) @ oracle / n
    again = random.multinomial(len(share), np.full(len(share), 1 / len(share)), size=repetitions) * share
    found = (again / again.sum(axis=1, keepdims=True)) @ oracle
    return float(np.abs(exact - found).max(axis=1).mean())


def effective_size(weights: Array) -> float:
    """How many equal weights tell as much: (Σw)² / Σw² (Kish 1965)."""
    return float(weights.sum() ** 2 / np.square(weights).sum()) if len(weights) else 0.0
