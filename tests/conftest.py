from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shapes
import typer
from attack import MARK

gc.disable()  # until all tests are collected: it would take half of that time, and find nothing
os.environ["ENERGYQL_CACHE"] = ""  # tests leave the user's caches alone, and do not depend on them
os.environ["ENERGYQL_STATE"] = ""  # nor is any code trusted that an earlier test allowed
shapes.install()  # before anything of the library is imported that has shapes in its signatures

import short  # noqa: E402
from toys import tiny_model  # noqa: E402


def pytest_runtest_setup() -> None:
    """Check the first calls of every test."""
    shapes.begin_test()


def pytest_collection_finish() -> None:
    """Leave modules and tests out of all later garbage collections: they stay until the end."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def tiny_networks() -> Iterator[None]:
    """How well judges, verifiers and teachers learn is not tested, unless a test gives them other settings."""
    with pytest.MonkeyPatch.context() as patch:
        short.networks(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_features() -> Iterator[None]:
    """Trainings are the same whether the extra `features` is installed or not, unless a test names a backbone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("energyql.training.target.default_backbone", lambda: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def built_commands() -> Iterator[None]:
    """Typer builds all commands of a program at each call; here it builds them once."""
    with pytest.MonkeyPatch.context() as patch:
        build = functools.cache(typer.main.get_command)
        for place in ("typer.main.get_command", "typer.testing._get_command"):
            patch.setattr(place, build)
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model; not to be changed."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def unharmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working directory is `tmp_path`, in which no `Attack` may leave its mark."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / MARK).exists()


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where a browser is. Without one the tests fail where they must run, and say that they are skipped elsewhere."""
    from browser import MISSING, find_chromium  # Playwright takes seconds to import

    path = find_chromium()
    if path is None:
        (pytest.fail if os.environ.get("ENERGYQL_NEED_BROWSER") else pytest.skip)(MISSING)
    return path


@pytest.fixture(scope="module")
def chromium(chromium_path: str) -> Iterator[Any]:
    """A started browser."""
    from browser import started

    with started(chromium_path) as browser:
        yield browser
