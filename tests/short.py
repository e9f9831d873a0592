"""Trainings and searches that end in an instant, for tests that do not ask how well they do."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from energyql.editing import invert, step
from energyql.editing.settings import PRESETS, InversionSettings
from energyql.training import judge, picture_fit, teacher
from energyql.training.picture_fit import PictureSettings

TINY = PictureSettings(side=8, channels=(4,), least=200, most=200)


def networks(patch: pytest.MonkeyPatch, settings: PictureSettings = TINY) -> None:
    """Give judges, verifiers and teachers these settings, where no others are given, and write their state seldom."""
    patch.setattr(picture_fit, "WRITES", 4)  # also the least number of steps
    for module in (judge, teacher):
        patch.setattr(module, "PictureSettings", lambda: settings)


def edits(patch: pytest.MonkeyPatch, most: int = 6) -> None:
    """End edits and inversions after a few evaluations."""
    patch.setattr(step, "PENALTY_FACTORS", (3.0,))
    patch.setitem(PRESETS, "default", replace(PRESETS["default"], max_evaluations=most))
    patch.setattr(invert, "InversionSettings", partial(InversionSettings, z_evaluations=8, candidates=16))
    patch.setattr(invert, "MOST_DISTANCE", 1.0)  # so short a search may not find a picture that the model drew
