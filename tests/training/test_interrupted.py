"""A training that is interrupted keeps what it has finished, and the same call continues it with the same result."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from brief import ADA, SHORT, bright
from holes import Stains
from labelled import answers, latents_of
from toys import random_generator, tiny_model

from energyql import train_attributes, train_judge
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.labels import labeller_name
from energyql.errors import DataError, ModelError, VocabularyError
from energyql.models.unfinished import RECORD, START, WORK, Work
from energyql.pipeline.model import load_model
from energyql.training.foreign import add_heads
from energyql.training.labels import LabelTable
from energyql.training.samples import Prior, Thumbnails, label_prior
from energyql.vocabulary import Vocabulary

TESTS = Path(__file__).parents[1]
STAGES = ("drawing", "teacher", "training", "checking", "judge", "verifier")


@pytest.fixture(scope="module", autouse=True)
def small_parts():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("energyql.training.samples.PICTURES_A_PART", 20)
        yield


@pytest.fixture(scope="module")
def table():
    found = answers(latents_of(Stains(), 80, 0.7, seed=0))
    columns = {name: found[name].tolist() for name in ("glasses", "age")}
    return LabelTable(columns, index=torch.arange(80))


class Stop:
    """Progress that ends a training once a stage is half done; it also lists the stages that were seen."""

    def __init__(self, where=None, error=KeyboardInterrupt):
        self.where, self.error, self.seen = where, error, []

    def __call__(self, stage, done):
        self.seen.append(stage)
        if stage == self.where and done >= 0.5:
            raise self.error


def train(labels, folder, stop=None, model=None, **more):
    """Train on a generator that draws in no time, unless another one is given."""
    options = {"n": 60, "settings": SHORT, "judge": "train", "progress": stop or Stop()} | more
    return train_attributes(model or Stains(), labels, folder, **options)


def read(folder):
    return load_model(folder, generator=Stains())


def files(folder):
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {path: (folder / path).read_bytes() for path in paths if not path.parts[0].startswith(".")}


def whole(factory, **more):
    """The folder of a training with the arguments of `interrupt`, which nothing interrupts; not to be changed."""
    train(bright, folder := factory.mktemp("whole") / "m", **more)
    return folder


@pytest.fixture(scope="module")
def judged(small_parts, tmp_path_factory):
    return whole(tmp_path_factory)


@pytest.fixture(scope="module")
def unjudged(small_parts, tmp_path_factory):
    return whole(tmp_path_factory, judge=None)


def interrupt(labels, folder, stage, **more):
    with pytest.raises(KeyboardInterrupt) as caught:
        train(labels, folder, Stop(stage), **more)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:there are few labels")
def test_every_stage_of_a_training_with_teacher_and_judge(tmp_path, table):
    train(table, tmp_path / "whole" / "m", seed=0)
    folder = tmp_path / "m"
    for stage in STAGES:
        interrupt(table, folder, stage, seed=0)
        if stage in ("judge", "verifier"):  # the heads are finished
            model = read(folder)
            assert (model.judge, model.verifier) == (None, None)
            assert files(folder).items() <= files(tmp_path / "whole" / "m").items()
            continue
        assert not [name for name in os.listdir(folder) if not name.startswith(".")]
        with pytest.raises(ModelError, match="the training of .*m is not finished"):
            read(folder)
    last = Stop()
    train(table, folder, last, seed=0)
    assert not {"training", "checking"} & set(last.seen)  # the heads are finished
    assert files(folder) == files(tmp_path / "whole" / "m")
    assert not (folder / WORK).exists()


def test_what_is_damaged_is_done_again(tmp_path, judged):
    message = interrupt(bright, tmp_path / "m", "judge")
    steps = (
        "labels, heads, second heads, pictures for the judge, proposals, pictures of proposals, further pictures, "
        "verifier, judge (in part)"
    )
    call = f"train_attributes(a Stains, ..., out={str(tmp_path / 'm')!r}) with the same arguments"
    assert message == f"interrupted; kept: {steps}; to continue: {call}"
    interrupt(bright, tmp_path / "n" / "m", "checking")
    shutil.copytree(tmp_path / "n" / "m", tmp_path / "damaged" / "m")
    for path in (tmp_path / "damaged").rglob("*"):
        if path.is_file() and path.name != RECORD and START not in path.parts:
            content = path.read_bytes()
            path.write_bytes(content.replace(b"bright", b"blight") if b"bright" in content else content[:-1])
    calls = []

    def look(images):
        calls.append(len(images))
        return bright(images)

    look.identity = labeller_name(bright)
    for folder, again in (("m", 0), ("n/m", 60), ("damaged/m", 120)):
        calls.clear()
        train(look, tmp_path / folder)
        assert sum(calls) == again
        assert files(tmp_path / folder) == files(judged)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"command": 3, "finished": [], "directory": ""}'])
def test_a_damaged_record_is_as_none(tmp_path, unjudged, content):
    interrupt(bright, tmp_path / "m", "training", judge=None)
    (tmp_path / "m" / WORK / RECORD).write_text(content)
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_model(tmp_path / "m")
    train(bright, tmp_path / "m", judge=None)
    assert files(tmp_path / "m") == files(unjudged)


@pytest.mark.parametrize("other", [{"truncation": 0.5}, {"seed": 3}, {"n": 50}, {"judge": None}])
def test_other_arguments_are_another_training(tmp_path, judged, other):
    interrupt(bright, tmp_path / "m", "checking", **other)
    train(bright, tmp_path / "m")
    assert files(tmp_path / "m") == files(judged)


class Sees(torch.nn.Module):
    def __init__(self, sign):
        super().__init__()
        self.sign = torch.nn.Parameter(torch.tensor(sign))

    def forward(self, images):
        return {"bright": self.sign * images.mean((1, 2, 3))}


def times(images, sign):
    return {"bright": sign * images.mean((1, 2, 3))}


@pytest.mark.parametrize(
    "labeller", [Sees, lambda sign: functools.partial(times, sign=sign), lambda sign: functools.partial(Sees(sign))]
)
def test_labels_of_another_labeller_do_not_count(tmp_path, labeller):
    for wrapped in (lambda each: each, lambda each: Thumbnails(each, 8)):
        prior, index = Prior(Stains(), 0, FittedUnder(), torch.device("cpu")), torch.arange(30)
        read = [
            label_prior(prior, index, wrapped(labeller(sign)), tmp_path, progress=lambda done: None)["bright"]
            for sign in (1.0, -1.0, -1.0)
        ]
        assert read[0] == [-value for value in read[1]] and read[1] == read[2]


def test_heads_of_another_network_are_not_finished(tmp_path):
    interrupt(Sees(1.0), tmp_path / "m", "judge")
    with pytest.raises(VocabularyError, match="the model already has 'bright'"):
        train(Sees(-1.0), tmp_path / "m")


def test_an_exception_of_the_caller_keeps_as_much(tmp_path):
    with pytest.raises(RuntimeError, match="^cancelled$"):
        train(bright, tmp_path / "m", Stop("judge", RuntimeError("cancelled")))
    last = Stop()
    train(bright, tmp_path / "m", last)
    assert "training" not in last.seen


def test_a_model_that_can_be_queried_stays_so(tmp_path):
    tiny_model(tmp_path / "m", judge=False)
    before = files(tmp_path / "m")
    for call, stage in (
        (lambda stop: train(bright, tmp_path / "m", stop, model=tmp_path / "m"), "checking"),
        (
            lambda stop: train_judge(
                tmp_path / "m", lambda images: {"smile": images.mean((1, 2, 3)) > 0}, n=60, progress=stop
            ),
            "judge",
        ),
    ):
        with pytest.raises(KeyboardInterrupt, match=r"; to continue: train_\w+\("):
            call(Stop(stage))
        assert files(tmp_path / "m") == before
        assert "smile" in load_model(tmp_path / "m").vocabulary


def test_heads_of_an_interrupted_training_that_were_replaced_are_not_taken_for_its_own(tmp_path):
    message = interrupt(bright, tmp_path / "m", "judge", model=ADA)
    assert f"; to continue: train_attributes({str(ADA)!r}, ..., out={str(tmp_path / 'm')!r}) with" in message
    model = load_model(tmp_path / "m")
    head, specs = model.bank.heads["bright"], model.vocabulary
    other = {"bright": dataclasses.replace(head, std=2 * head.std)}
    add_heads(tmp_path / "m", AttributeBank(specs, other, fitted=FittedUnder(truncation=(0.7, 0.7))), replace=True)
    with pytest.raises(VocabularyError, match="the model already has 'bright'"):
        train(bright, tmp_path / "m", model=ADA)


def test_a_generator_of_code(tmp_path):
    generator = random_generator()
    interrupt(bright, tmp_path / "m", "training", model=generator, judge=None)
    with pytest.raises(ModelError, match="is not finished\nfinished and kept: labels, heads .in part.\nto continue: "):
        load_model(tmp_path / "m", generator=generator)
    with pytest.raises(ModelError, match="is not finished"):
        train(bright, None, model=tmp_path / "m")


def test_a_refused_training_leaves_an_interrupted_one(tmp_path):
    interrupt(bright, tmp_path / "m", "judge")
    record = Work(tmp_path / "m").record
    with pytest.raises(DataError):
        train(lambda images: {"same": [1] * len(images)}, tmp_path / "m", command=["train", "again"])
    assert Work(tmp_path / "m").record == record
    assert read(tmp_path / "m").judge is None


def test_an_import_of_heads_leaves_an_interrupted_training(tmp_path):
    tiny_model(tmp_path / "m", judge=False)
    interrupt(bright, tmp_path / "m", "judge", model=tmp_path / "m")
    source = load_model(tmp_path / "m")
    specs = Vocabulary([source.vocabulary["smile"]])
    heads = {"smile": source.bank.heads["smile"]}
    add_heads(tmp_path / "m", AttributeBank(specs, heads, fitted=FittedUnder(truncation=(0.5, 1.0))), replace=True)
    last = Stop()
    train(bright, tmp_path / "m", last, model=tmp_path / "m")
    assert "training" not in last.seen
    add_heads(ADA, AttributeBank(specs, heads), tmp_path / "new")
    assert not (tmp_path / "new" / WORK).exists()


def test_the_steps_of_another_command_do_not_count(tmp_path):
    work = Work(tmp_path)
    work.begin(["train", "a"])
    with work.step("labels"):
        pass
    with pytest.raises(RuntimeError), work.step("heads") as path:
        path.write_text("half")
        raise RuntimeError
    assert work.kept_steps() == "labels, heads (in part)"
    work.begin(["train", "a"])
    assert work.record["finished"] == ["labels"]
    work.begin(["train", "b"])
    assert work.record["finished"] == []
    assert json.loads((tmp_path / WORK / RECORD).read_text())["command"] == ["train", "b"]
    work.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes that are killed are forks")
@pytest.mark.slow
def test_killed_at_file_operations(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "training.killing_models", str(tmp_path), "7", "new"]
    paths = os.pathsep.join(map(str, [TESTS.parent, TESTS, TESTS / "training"]))
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=False,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "continued" in run.stdout
