"""Judges, verifiers and teachers that learn in an instant."""

from __future__ import annotations

import pytest

from energyql.training import judge, picture_fit, teacher
from energyql.training.picture_fit import PictureSettings

TINY = PictureSettings(side=8, channels=(4,), least=200, most=200)
"""Of every test that does not ask for more."""


def shorten(patch: pytest.MonkeyPatch, settings: PictureSettings = TINY) -> None:
    """Give all networks these settings, where the caller of the library gives none, and write their state seldom."""
    patch.setattr(picture_fit, "WRITES", 4)  # also the least number of steps
    for module in (judge, teacher):
        patch.setattr(module, "PictureSettings", lambda: settings)
