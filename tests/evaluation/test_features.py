from __future__ import annotations

from pathlib import Path

import torch

from energyql.evaluation.features import features_of, read_features
from energyql.model import load_model


def test_features_of_a_judge_are_averaged_over_positions(tiny: Path) -> None:
    judge = load_model(tiny).judge
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = read_features(features_of(judge), images)
    assert found is not None
    assert found.shape == (3, judge.channels[-1])
    x = judge.features(images).reshape(3, judge.channels[-1], -1)
    torch.testing.assert_close(found, x.mean(2))


def test_a_function_has_none() -> None:
    assert features_of(lambda images: {"smile": [True]}) is None
    assert features_of(None) is None
    assert read_features(None, torch.zeros(1, 3, 4, 4)) is None


def test_an_object_can_bring_its_own() -> None:
    class Own:
        def __call__(self, images: torch.Tensor) -> dict[str, list[bool]]:
            return {}

        def features(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))

    assert read_features(features_of(Own()), torch.ones(2, 3, 4, 4)).tolist() == [[1.0] * 3] * 2
