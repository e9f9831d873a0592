"""Fixtures of the tests of training."""

import pytest
import torch
from toys import random_generator

from energyql.training.directions import find_directions


@pytest.fixture(scope="module")
def gan():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return random_generator()


@pytest.fixture(scope="module")
def found(gan):
    return find_directions(gan, "sefa", 4, truncation=0.7)
