"""Libraries that only some tests need: in continuous integration they must be there, elsewhere tests are skipped."""

import os
from importlib import import_module

import pytest


def needed(name):
    """Return a module; without it the tests of this file are skipped, or fail if ENERGYQL_NEED_LIBRARIES is set."""
    if os.environ.get("ENERGYQL_NEED_LIBRARIES"):
        return import_module(name)
    return pytest.importorskip(name, reason=f"{name} is missing: pip install -e '.[test]'")
