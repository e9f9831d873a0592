from __future__ import annotations

import pytest

from labelling.pages import picture_folder


@pytest.fixture
def folder(tmp_path):
    """Six random pictures and two that heads chose."""
    return picture_folder(tmp_path / "pictures")
