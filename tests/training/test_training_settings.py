"""Settings of trainings, labelling, directions and data sets: one record feeds keywords and options."""

import dataclasses
import inspect

import pytest
from holes import Stains, look
from typer.main import get_command

from energyql import (
    ArgumentError,
    ModelSource,
    find_directions,
    load_model,
    load_onnx,
    open_session,
    sample_pictures,
    train_attributes,
    train_judge,
    write_dataset,
)
from energyql.cli.main import app
from energyql.dataset.settings import DatasetOptions, DatasetSettings
from energyql.generators.onnx import OnnxOptions, OnnxSettings
from energyql.labelling.settings import SampleOptions, SampleSettings
from energyql.pipeline.settings import settings_in
from energyql.pipeline.source import CodeOptions
from energyql.training.settings import (
    DirectionOptions,
    DirectionSettings,
    JudgeOptions,
    JudgeSettings,
    TrainOptions,
    TrainSettings,
)
from energyql.training.target import open_source

CODE = list(CodeOptions.__annotations__)


@pytest.mark.parametrize(
    ("function", "options", "record", "apart"),
    [
        (train_attributes, TrainOptions, TrainSettings, []),
        (train_judge, JudgeOptions, JudgeSettings, []),
        (find_directions, DirectionOptions, DirectionSettings, ["method", "n"]),
        (sample_pictures, SampleOptions, SampleSettings, []),
        (write_dataset, DatasetOptions, DatasetSettings, []),
        (load_onnx, OnnxOptions, OnnxSettings, []),
        (load_model, CodeOptions, ModelSource, ["model"]),
    ],
)
def test_keywords_are_the_fields_of_the_record(function, options, record, apart):
    types = {each.name: each.type for each in dataclasses.fields(record) if each.name not in apart}
    own = options.__annotations__
    if options is DatasetOptions:
        own = {name: each for name, each in own.items() if name not in CODE}
    assert {name: each.__forward_arg__ for name, each in own.items()} == types
    last = list(inspect.signature(function).parameters.values())[-1]
    assert (last.kind, last.annotation) == (last.VAR_KEYWORD, f"Unpack[{options.__name__}]")


@pytest.mark.parametrize(
    ("command", "record"),
    [
        ("train", TrainSettings), ("train-judge", JudgeSettings), ("directions", DirectionSettings),
        ("sample", SampleSettings), ("dataset", DatasetSettings),
    ],
)  # fmt: skip
def test_commands_have_all_options_of_the_record(command, record):
    options = {each.name: each for each in get_command(app).commands[command].params}
    for name, setting in settings_in(record).items():
        assert options[name].help.startswith(setting.help[:10])


class TestSource:
    def test_a_session_of_a_source_without_code_is_that_of_the_name(self):
        assert open_session(ModelSource("avatars"), "cpu") is open_session("avatars", "cpu")

    def test_a_session_of_a_source_with_code(self):
        assert open_session(ModelSource("avatars", judge="none"), "cpu").model.judge is None

    def test_keywords_change_a_source(self):
        assert load_model(ModelSource("avatars", judge="none"), "cpu").judge is None
        assert load_model(ModelSource("avatars", judge="none"), "cpu", judge=None).judge is not None

    def test_a_judge_of_a_training_is_an_argument_of_its_own(self, tmp_path):
        with pytest.raises(ArgumentError, match="the judge of a ModelSource is for drawing"):
            train_attributes(ModelSource(Stains(), judge=look), look, tmp_path / "m")
        with pytest.raises(ArgumentError, match="the reader of a ModelSource is for drawing"):
            open_source(ModelSource(Stains(), reader=look))
