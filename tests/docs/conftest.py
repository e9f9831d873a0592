from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from toys import CONFIG, random_generator, random_heads

from energyql.attributes.bank import AttributeBank
from energyql.attributes.judge import Judge
from energyql.pipeline.model import save_model
from recipes.avatars.vocabulary import VOCABULARY


def random_avatars(folder: Path, side: int) -> Path:
    """Write a random model with the attributes of the packaged one."""
    config = dataclasses.replace(CONFIG, resolution=side)
    fingerprint = save_model(folder, "tiny", random_generator(config))
    AttributeBank(VOCABULARY, random_heads(VOCABULARY, config.w_dim), generator=fingerprint).save(folder)
    Judge(VOCABULARY, side=16, channels=(4, 6)).eval().save(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with the attributes of the packaged one; not to be changed."""
    return random_avatars(tmp_path_factory.mktemp("model"), 16)


@pytest.fixture(scope="session")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with pictures of 128 x 128."""
    return random_avatars(tmp_path_factory.mktemp("larger"), 128)
