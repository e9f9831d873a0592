from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from energyql.evaluation.edits import _features, edit_strength, identity_distance
from energyql.evaluation.metrics import Features

YES, NO = True, False


def rows(*values: bool) -> np.ndarray:
    return np.array(values)


def test_identity_is_one_minus_the_cosine() -> None:
    before = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    after = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    torch.testing.assert_close(identity_distance(before, after), torch.tensor([0.0, 1.0, 2.0]).double())


def test_strength_is_what_was_won_and_leak_what_was_lost() -> None:
    result = edit_strength(
        rows(NO, NO, NO, YES), rows(YES, YES, NO, YES), {"hat": rows(NO, NO, NO, YES), "age": rows(YES, NO, NO, YES)}
    )
    assert result == {"strength": 0.5, "leak": 0.5, "leaking": "age", "disentangled": 0}


def test_a_perfect_edit() -> None:
    result = edit_strength(rows(NO, NO), rows(YES, YES), {"hat": rows(NO, NO)})
    assert (result["disentangled"], result["leaking"]) == (1, "")
    assert edit_strength(rows(NO), rows(YES), {})["disentangled"] == 1


def test_doing_nothing_is_worth_nothing_and_harm_is_negative() -> None:
    assert edit_strength(rows(NO, YES), rows(NO, YES), {"hat": rows(NO, NO)})["disentangled"] == 0
    assert edit_strength(rows(NO, YES), rows(NO, NO), {"hat": rows(NO, YES)})["disentangled"] == -1


def test_features_of_pictures_are_those_of_images_from_minus_one_to_one() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 1] = 255
    result = _features(Features("own", lambda images: images), [Image.fromarray(pixels)] * 40).unflatten(1, (3, 2, 3))
    assert len(result) == 40
    assert result[0, :, 0, 1].tolist() == pytest.approx([1, 1, 1])
    assert result.min() == -1
