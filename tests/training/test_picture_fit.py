"""Judges and teachers see pictures that are distorted much at first and little at the end."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from energyql.attributes.judge import Convolutions, Judge
from energyql.training import picture_fit
from energyql.training.labelled import Labelled
from energyql.training.picture_fit import (
    CALM,
    Family,
    PictureSettings,
    distort,
    distortion_strength,
    fit_network,
    fit_readers,
    leave_out,
)
from energyql.training.steps import Course
from energyql.vocabulary import AttributeSpec, Vocabulary


def test_distortions_are_strong_first_and_weak_at_the_end():
    assert [distortion_strength(share) for share in (0.0, 0.25, 0.5)] == [1, 1, 1]
    assert distortion_strength(1.0) == pytest.approx(CALM)
    strengths = [distortion_strength(k / 20) for k in range(21)]
    assert all(after <= before for before, after in pairwise(strengths))


def test_they_fade_during_a_fit(monkeypatch):
    seen, distort = [], picture_fit.distort

    def watched(images, generator, strength=1.0):
        seen.append(strength)
        return distort(images, generator, strength)

    monkeypatch.setattr(picture_fit, "distort", watched)
    pictures = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    settings = PictureSettings(side=8, channels=(4,), least=800, most=800, batch=20)
    labels = {"a": torch.tensor([0.0, 1.0]).repeat(4)}
    fit_network(Labelled(pictures, labels, Vocabulary([AttributeSpec("a", "yes/no")])), settings)
    assert seen == [distortion_strength(step / 40) for step in range(40)]
    assert seen[0] == 1
    assert seen[-1] < 0.2


def test_each_reader_leaves_out_its_test_pictures(monkeypatch, tmp_path):
    calls, made, shares, specs = [], [], [], Vocabulary([AttributeSpec("a", "yes/no")])

    def fitted(labelled, settings, course):
        calls.append((labelled.inputs.flatten().tolist(), settings, course))
        made.append(Judge(specs, Convolutions(8, (4,))))
        return made[-1]

    monkeypatch.setattr(picture_fit, "fit_network", fitted)
    monkeypatch.setattr(picture_fit, "read_outputs", lambda reader, pictures: pictures + 100.0 * made.index(reader))
    numbers = Labelled(torch.arange(6.0)[:, None], {"a": torch.zeros(6)}, specs)
    small, large = PictureSettings(side=8), PictureSettings(side=16)
    splits = leave_out((torch.tensor([4, 0, 2]), torch.tensor([1, 3, 5])), first=2)
    course = Course(2**63 - 1, "cpu", tmp_path, shares.append)
    readers, unseen = fit_readers(numbers, splits, [Family([small, large], 4)], course)
    assert readers == made
    assert [learned for learned, _, _ in calls] == 2 * [[1, 3, 5], [4, 0, 2]]
    assert [settings for _, settings, _ in calls] == [small, large, large, small]
    assert unseen.flatten().tolist() == [104, 102, 203, 205]  # means of readers 0 and 2, then of 1 and 3
    assert [own.seed for _, _, own in calls] == [2**63 - 1, 0, 1, 2]
    assert [own.checkpoint for _, _, own in calls] == [tmp_path / str(k) for k in range(4)]
    calls[2][2].progress(0.5)
    assert shares == [2.5 / 4]


def test_distortions_are_zoom_shift_blur_contrast_and_noise():
    pictures, random = torch.rand(5, 3, 12, 12) * 2 - 1, torch.Generator().manual_seed(3)
    zoom, shift = (0.06 * (torch.rand(5, 2, generator=random) * 2 - 1) for _ in range(2))
    grid = F.affine_grid(torch.cat([torch.diag_embed(1 + zoom), shift[:, :, None]], 2), [5, 3, 12, 12], False)
    moved = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    blurred = F.avg_pool2d(F.pad(moved, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    mixed = torch.lerp(moved, blurred, torch.rand(5, 1, 1, 1, generator=random))
    contrast = 1 + 0.05 * torch.randn(5, 1, 1, 1, generator=random)
    noise = 0.06 * torch.rand(5, 1, 1, 1, generator=random) * torch.randn(pictures.shape, generator=random)
    distorted = distort(pictures, torch.Generator().manual_seed(3))
    torch.testing.assert_close(distorted, mixed * contrast + noise, atol=1e-5, rtol=0)
    torch.testing.assert_close(distort(pictures, random, 0.0), pictures, atol=1e-6, rtol=0)
