"""Fixtures of the tests of the pipeline."""

import pytest

from energyql import generate

QUERY = 'smile AND NOT (glasses OR hair = "dark red") AND age > 0.6'


@pytest.fixture
def draw(tiny):
    """`generate` on the tiny model."""

    def call(query=QUERY, n=3, **settings):
        return generate(query, n, **({"model": tiny, "device": "cpu", "progress": False} | settings))

    return call
