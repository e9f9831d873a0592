import inspect
from typing import get_args

import numpy as np
import pytest

import energyql
from energyql.energy.rule import SEMANTICS
from energyql.errors import ArgumentError
from energyql.pipeline.settings import DrawOptions, DrawSettings, SamplerName, Semantics
from energyql.sampling import SAMPLERS

DEFAULTS = {name: getattr(DrawSettings(), name) for name in DrawSettings.__dataclass_fields__}


def test_options_are_the_fields():
    assert list(DrawOptions.__annotations__) == list(DEFAULTS)


def test_generate_shows_the_defaults():
    shown = {name: each.default for name, each in inspect.signature(energyql.generate).parameters.items()}
    assert shown.items() >= {name: value for name, value in DEFAULTS.items() if name != "relations"}.items()


def test_the_types_name_what_there_is():
    assert get_args(Semantics) == SEMANTICS
    assert get_args(SamplerName) == tuple(SAMPLERS)


def test_checks():
    assert type(DrawSettings(seed=np.int64(4)).seed) is int
    with pytest.raises(ArgumentError, match="there is no precision 'half'\nchoose float32, bfloat16"):
        DrawSettings(precision="half")
