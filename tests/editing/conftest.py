from __future__ import annotations

from functools import partial

import pytest
from toys import tiny_model

import energyql
from energyql import Edit, Model, load_model

QUERIES = ["smile", "hair = black", "age > 0.5"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny random model whose heads read z."""
    return load_model(tiny_model(tmp_path_factory.mktemp("model"), space="z"))


@pytest.fixture(scope="session")
def turning(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny random model whose heads read the direction of z."""
    return load_model(tiny_model(tmp_path_factory.mktemp("direction"), space="direction"))


@pytest.fixture(scope="session")
def edit(model: Model) -> partial[Edit]:
    """`energyql.edit` of the tiny model, without a progress bar."""
    return partial(energyql.edit, model=model, progress=False)


@pytest.fixture(scope="session")
def edited(edit: partial[Edit]) -> Edit:
    """Six pictures in three steps; not to be changed."""
    return edit(5, QUERIES, n=6)
