from __future__ import annotations

import pytest
import torch
from toys import random_generator

from energyql.pipeline.source import ModelSource
from energyql.teaching.classroom import Classroom


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A model folder in whose subfolder 160 pictures were drawn."""
    folder = tmp_path_factory.mktemp("teaching") / "model"
    room = classroom(folder)
    room.lesson.wall.draw(room.lesson.wall.next_numbers(160))
    return folder


@pytest.fixture
def room(pictures, tmp_path):
    """A classroom on a copy of these pictures, whose thread does not run."""
    import shutil

    shutil.copytree(pictures, tmp_path / "model")
    return classroom(tmp_path / "model")


def classroom(folder) -> Classroom:
    return Classroom.open(ModelSource(random_generator()), folder, torch.device("cpu"), wanted=160)


def brightness(wall, numbers) -> dict[int, float]:
    """What pictures show: their mean."""
    images = wall.pictures.prior.generator.synthesize(wall.pictures.prior.w(torch.tensor(numbers)))
    return dict(zip(numbers, images.mean((1, 2, 3)).tolist(), strict=True))


def teach(room, name="bright", screens=3, share=0.5) -> float:
    """Label whole screens of an attribute, pictures above a quantile of the brightness; return the limit."""
    wall = room.lesson.wall
    limits = sorted(brightness(wall, list(wall.numbers)).values())  # more are drawn meanwhile
    limit = limits[int((1 - share) * len(limits))]
    for _ in range(screens):
        shown = room.lesson.screen(name)
        told = brightness(wall, shown)
        room.change(
            lambda lesson, told=told: lesson.say(name, {n: "yes" if x > limit else "no" for n, x in told.items()})
        )
    return limit
