"""The records from which the keywords and options of comparisons and evaluations are derived."""

import inspect
from typing import get_type_hints

import pytest

import energyql
from energyql.errors import ArgumentError
from energyql.evaluation.settings import (
    CompareOptions,
    CompareSettings,
    EvaluateOptions,
    EvaluateSettings,
    SampleCounts,
)
from energyql.pipeline.settings import setting_types


@pytest.mark.parametrize(
    ("call", "options", "record", "elsewhere"),
    [
        (energyql.compare_samplers, CompareOptions, CompareSettings, {"truncation", "condition", "seed"}),
        (energyql.evaluate, EvaluateOptions, EvaluateSettings, {"condition"}),
    ],
)
def test_options_are_the_fields(call, options, record, elsewhere):
    types = setting_types(record)
    assert get_type_hints(options) == types
    assert list(options.__annotations__) == list(types)
    assert not set(types) & set(inspect.signature(call).parameters)
    assert all(f"    {name}: " in (inspect.getdoc(call) or "") for name in set(types) - elsewhere)


@pytest.mark.parametrize(
    ("record", "values", "message"),
    [
        (SampleCounts, {"n": 1}, "n must be a whole number from 2"),
        (CompareSettings, {"prior": 99}, "prior must be a whole number from 100"),
        (EvaluateSettings, {"oracle": 29}, "oracle must be a whole number from 30"),
        (EvaluateSettings, {"edits": 0}, "edits must be a whole number from 1"),
        (EvaluateSettings, {"seed": -1}, "seed must be a whole number from 0"),
    ],
)
def test_values_are_checked(record, values, message):
    with pytest.raises(ArgumentError, match=message):
        record(**values)
