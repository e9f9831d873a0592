"""A data set that was written without disturbance, and copies of it."""

import shutil

import pytest

from dataset.plans import ALWAYS, known_plan, write


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A data set that was written without disturbance."""
    out = tmp_path_factory.mktemp("whole") / "out"
    written = write(known_plan(**ALWAYS), out)
    return out, written


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "copy")
