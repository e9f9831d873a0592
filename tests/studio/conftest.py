from __future__ import annotations

import pytest
import short

from studio.client import serving


@pytest.fixture(scope="package", autouse=True)
def short_edits():
    """How well an edit or an inversion succeeds is not tested here."""
    with pytest.MonkeyPatch.context() as patch:
        short.edits(patch)
        yield


@pytest.fixture(scope="module")
def studio(tiny):
    """A client of a studio with a tiny model."""
    with serving([str(tiny)]) as client:
        yield client


@pytest.fixture(scope="package")
def chromium(chromium_path):
    """A started browser, one for all tests of the studio."""
    from browser import started  # Playwright takes seconds to import

    with started(chromium_path) as browser:
        yield browser


@pytest.fixture(scope="session")
def url():
    """The address of a studio with the packaged model."""
    with serving(["avatars"]) as client:
        yield client.url


@pytest.fixture
def visitor(chromium, url):
    """Somebody who has opened nothing yet."""
    from studio.page import visiting  # Playwright takes seconds to import

    with visiting(chromium, url, permissions=["clipboard-read", "clipboard-write"]) as visitor:
        yield visitor


@pytest.fixture(scope="session")
def small(tiny):
    """The address of a studio with a tiny model, whose pictures are noise and quick."""
    with serving([str(tiny)]) as client:
        yield client.url


@pytest.fixture
def guest(chromium, small):
    """Somebody who has opened nothing yet, at the studio with the tiny model."""
    from studio.page import visiting

    with visiting(chromium, small, permissions=["clipboard-read", "clipboard-write"]) as visitor:
        yield visitor
