from __future__ import annotations

import pytest

from studio.client import serving


@pytest.fixture(scope="module")
def studio(tiny):
    """A client of a studio with a tiny model."""
    with serving([str(tiny)]) as client:
        yield client
