from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from client import serving


@pytest.fixture(scope="module")
def studio(tiny):
    """A client of a studio with a tiny model."""
    with serving([str(tiny)]) as client:
        yield client
