"""The records from which the keywords and options of edits, inversions and animations are derived."""

import inspect
from dataclasses import fields
from typing import get_type_hints

import pytest

import energyql
from energyql.editing import arguments
from energyql.errors import ArgumentError
from energyql.pipeline.settings import setting_types


@pytest.mark.parametrize(
    ("call", "options", "record"),
    [
        (energyql.edit, arguments.EditOptions, arguments.EditSettings),
        (energyql.invert, arguments.InvertOptions, arguments.InvertSettings),
        (energyql.animate, arguments.AnimationOptions, arguments.AnimationSettings),
    ],
)
def test_options_are_the_fields(call, options, record):
    names = [each.name for each in fields(record)]
    assert get_type_hints(options) == setting_types(record)
    assert list(options.__annotations__) == names
    assert not set(names) & set(inspect.signature(call).parameters)
    assert all(f"  {name}: " in call.__doc__ for name in names if name not in ("batch_size", "allow_weak"))


@pytest.mark.parametrize(
    ("record", "values", "message"),
    [
        (arguments.EditSettings, {"mode": "both"}, "there is no mode 'both'\nchoose cumulative, alone"),
        (arguments.EditSettings, {"anyway": 1}, "anyway is true or false, not 1"),
        (arguments.EditSettings, {"noise": "loud"}, "there is no noise 'loud'"),
        (arguments.InvertSettings, {"space": "x"}, r"pictures are inverted into z, w, w\+, not 'x'"),
        (arguments.AnimationSettings, {"frames": 201}, "frames must be a whole number from 1 to 200"),
    ],
)
def test_values_are_checked(record, values, message):
    with pytest.raises(ArgumentError, match=message):
        record(**values)
