import inspect
from typing import get_args, get_type_hints

import numpy as np
import pytest

import energyql
from energyql.errors import ArgumentError
from energyql.pipeline.settings import (
    DEFAULTS,
    SETTINGS,
    DrawOptions,
    DrawSettings,
    EnergyOptions,
    SamplerName,
    Surface,
    setting_types,
    settings_of,
)


def test_options_are_the_fields():
    assert get_type_hints(DrawOptions, localns={"Sampler": SamplerName}) == setting_types()
    assert list(DrawOptions.__annotations__) == list(DEFAULTS)
    ours = get_type_hints(EnergyOptions)
    assert ours == {name: setting_types()[name] for name in ours}


def test_generate_shows_the_defaults():
    shown = {name: each.default for name, each in inspect.signature(energyql.generate).parameters.items()}
    others = {"query", "n", "model", "first", "budget", "device", "progress"}
    assert {name: shown[name] for name in shown.keys() - others} == {
        name: value for name, value in DEFAULTS.items() if name != "relations"
    }
    assert all(f"    {name}: " in (inspect.getdoc(energyql.generate) or "") for name in shown)


def test_every_place_has_the_setting_or_a_reason():
    for name, setting in SETTINGS.items():
        assert set(setting.left_out) <= set(get_args(Surface))
        assert all(reason[0].islower() for reason in setting.left_out.values()), name
        assert setting.help or {"generate", "gallery", "request"} <= set(setting.left_out), name
    assert "seed" in settings_of("request") and "seed" not in settings_of("plan")


def test_the_record_leaves_out_defaults():
    plain = DrawSettings().record(truncation=0.7)
    assert "realism" not in plain and plain["truncation"] == 0.7 and plain["noise"] == "const"
    assert DrawSettings(realism=2).record(truncation=0.7) == plain | {"realism": 2.0}


def test_checks():
    assert type(DrawSettings(seed=np.int64(4)).seed) is int
    with pytest.raises(ArgumentError, match="there is no precision 'half'\nchoose float32, bfloat16"):
        DrawSettings(precision="half")
