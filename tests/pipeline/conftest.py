"""Fixtures of the tests of the pipeline."""

import pytest
from hub_server import TOKEN, serving
from needed import needed
from toys import tiny_model

from energyql import generate

QUERY = 'smile AND NOT (glasses OR hair = "dark red") AND age < 0.6'


@pytest.fixture
def draw(tiny):
    """`generate` on the tiny model."""

    def call(query=QUERY, n=3, **settings):
        return generate(query, n, **({"model": tiny, "device": "cpu", "progress": False} | settings))

    return call


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that huggingface_hub takes for the only one, with a cache of its own."""
    constants = needed("huggingface_hub.constants")
    with serving() as running:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield running


@pytest.fixture
def contents(tmp_path_factory):
    """The files of a model."""
    folder = tiny_model(tmp_path_factory.mktemp("m") / "tiny")
    return {path.name: path.read_bytes() for path in folder.iterdir()}
