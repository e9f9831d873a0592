"""The packaged generators without their heads and judges: foreign ones for `benchmarks.own_models`."""

from __future__ import annotations

from energyql.generators.base import Generator
from energyql.generators.families import read_generator
from energyql.models import model_folder


def avatars() -> Generator:
    """Return the generator of `avatars`."""
    return read_generator(model_folder("avatars"))


def postcards() -> Generator:
    """Return the generator of `postcards`."""
    return read_generator(model_folder("postcards"))
