from __future__ import annotations

from pathlib import Path

import pytest
from avatars import random_avatars


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with the attributes of the packaged one; not to be changed."""
    return random_avatars(tmp_path_factory.mktemp("models") / "avatars")


@pytest.fixture(scope="session")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with larger pictures."""
    return random_avatars(tmp_path_factory.mktemp("larger"), 128)
