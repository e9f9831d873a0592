"""What tests of hostile checkpoints share."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from energyql.errors import ModelError
from energyql.generators.load import load_generator


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    """A file that must not exist after the test."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "something in the file was run"


@pytest.fixture
def refused(tmp_path: Path) -> Any:
    """Writes bytes to a file, loads it and gives the error."""

    def check(content: bytes, name: str = "model.pkl") -> ModelError:
        path = tmp_path / name
        path.write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(ModelError) as caught:
                load_generator(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 100e6 + 10 * len(content)
        assert str(path) in caught.value.message
        return caught.value

    return check
