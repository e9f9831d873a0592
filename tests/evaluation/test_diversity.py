from __future__ import annotations

import pytest
import torch

from energyql.evaluation.diversity import diversity


def points(count: int, seed: int, dim: int = 6) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_exact_samples_are_as_varied_as_exact_samples() -> None:
    found = [diversity(points(500, seed), points(500, 100 + seed)) for seed in range(8)]
    assert sum(one.pairwise for one in found) / 8 == pytest.approx(1, abs=0.02)
    assert sum(one.nearest for one in found) / 8 == pytest.approx(1, abs=0.05)
    assert sum(one.duplicates for one in found) / 8 == pytest.approx(0.01, abs=0.01)


def test_near_duplicates_show() -> None:
    half = points(250, 0)
    crowded = torch.stack([half, half + 1e-3], 1).flatten(0, 1)
    found = diversity(crowded, points(500, 1))
    assert found.duplicates == 1
    assert found.nearest < 0.01
    assert found.pairwise == pytest.approx(1, abs=0.05)


def test_distances_scale() -> None:
    found = diversity(0.5 * points(300, 0), points(300, 0))
    assert found.pairwise == pytest.approx(0.5)
    assert found.nearest == pytest.approx(0.5)


def test_the_longer_set_is_cut_because_neighbours_come_nearer_in_larger_ones() -> None:
    sampled, oracle = points(100, 0), points(1000, 1)
    assert diversity(sampled, oracle) == diversity(sampled, oracle[:100])
    assert diversity(oracle, sampled) == diversity(oracle[:100], sampled)


def test_identical_points_are_at_distance_zero() -> None:
    far = points(50, 0) + 1e4  # where differences of squares would drown
    assert diversity(torch.cat([far, far]), points(100, 1)).nearest == 0
