"""Fixtures of the tests of recipes."""

from __future__ import annotations

import pytest


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Avatars whose parts are rendered with a sixteenth of the pixels: how sharp they are is not tested then."""
    from recipes.avatars import drawing  # it needs libraries that tests of other recipes do without

    monkeypatch.setattr(drawing, "OVERSAMPLING", 1)
    monkeypatch.setattr(drawing, "_png", drawing._png.__wrapped__)  # the cached renderings have all pixels
