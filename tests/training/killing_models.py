"""Trainings that are killed (SIGKILL): `python -m training.killing_models FOLDER STEP old|judge|new`.

They train heads or a judge into a model, which stays as it was or is as it is after the training, or make a new one.
Each process that is killed is a fork, at every STEP-th file operation in turn; see `pipeline.killing`.
"""

import shutil
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from brief import ADA, train
from pipeline.killing import files, fork
from toys import tiny_model

from energyql.errors import ModelError
from energyql.files import OLD, SAVED, fingerprint
from energyql.models.unfinished import WORK
from energyql.pipeline.model import load_model
from energyql.training import judge, samples
from energyql.training.picture_fit import PictureSettings


def describe(folder):
    """Load the model, as every reader, which finishes what was begun; return its attributes and all files."""
    model = load_model(folder)
    names = [name for name in files(folder) if not name.startswith(".")]  # others are left for the next writer
    return [*model.vocabulary], [*model.judged_names], {name: fingerprint(folder / name) for name in names}


def labels(images):
    mean = images.mean((1, 2, 3))
    return {"smile": [bool(each) for each in mean > mean.median()], "dark": -mean}


def train_more(folder):
    """Replace a head of the tiny model, which a judge and a report know, and add another head."""
    train(folder, labels, replace=True)


def train_judge(folder):
    """Replace the judge of two attributes of five; the old one becomes a judge of the others. A verifier is new."""
    settings = PictureSettings(side=8, channels=(4,), least=1_600, most=1_600)
    judge.train_judge(folder, see, n=60, settings=settings, progress=False)


def see(images):
    mean = images.mean((1, 2, 3))
    return {"smile": [bool(each) for each in mean > mean.median()], "age": mean}


def main(base, step, train_more):
    old, new, target = (base / name / "model" for name in ("old", "new", "target"))  # its name is in the report
    tiny_model(old)
    shutil.copytree(old, new)
    train_more(new)
    states, found, between, kill_at, killed = [describe(old), describe(new)], [0, 0], 0, 1, True
    assert states[0] != states[1]
    while killed:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(old, target)
        killed = fork(lambda: train_more(target), kill_at)
        between += (target / SAVED / OLD).is_file()
        found[states.index(describe(target))] += 1
        train_more(target)
        assert describe(target) == states[1], f"kill {kill_at}"
        kill_at += step
    assert not [name for name in files(target) if name.startswith(".")]
    print(f"killed {kill_at // step} times, {between} between; {found[0]} times the old model, {found[1]} the new")
    assert min(found) > 0
    assert between > 0


def kill_new(base, step):
    """Kill a training into a new folder, at a later operation each time it goes on, until it is finished."""
    samples.PICTURES_A_PART, kills = 20, 0
    judge.PictureSettings = partial(PictureSettings, side=8, channels=(4,), least=1_600, most=1_600)
    whole, target = (base / name / "model" for name in ("whole", "target"))

    def work(folder):
        train(ADA, labels, folder, judge="train", replace=True)  # the last kill may come after all was saved

    work(whole)
    while fork(lambda: work(target), step * (kills + 1)):
        kills += 1
        if not any((target / name).exists() for name in ("config.json", SAVED)):
            with suppress(ModelError):
                load_model(target)
                raise AssertionError(f"kill {kills} left a model that is not finished")
    assert describe(target) == describe(whole)
    assert not (target / WORK).exists()
    print(f"killed {kills} times and continued")
    assert kills > 10


if __name__ == "__main__":
    torch.set_num_threads(1)  # a fork does not have the threads of its parent
    works = {
        "old": partial(main, train_more=train_more),
        "judge": partial(main, train_more=train_judge),
        "new": kill_new,
    }
    works[sys.argv[3]](Path(sys.argv[1]), int(sys.argv[2]))
