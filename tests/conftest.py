from __future__ import annotations

from pathlib import Path

import pytest
from toys import tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model; not to be changed."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")
