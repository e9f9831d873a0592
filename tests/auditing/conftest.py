from __future__ import annotations

import pytest

from auditing.painted import painted


@pytest.fixture
def folder(tiny, tmp_path):
    """The folder of a result of 40 pictures that show their truth."""
    return painted(tiny).save(tmp_path / "run")
