"""Lessons in notebooks and programs."""

import numpy as np
import pytest
from toys import random_generator

import energyql
from energyql.errors import ArgumentError, DataError, VocabularyError
from energyql.pipeline.model import load_model


def bright(lesson):
    """Numbers of the brighter half of the pictures that are shown."""
    told = [np.asarray(picture, float).mean() for picture in lesson.pictures()]
    return [number for number, each in zip(lesson.shown, told, strict=True) if each > np.median(told)]


def test_a_lesson_without_a_page(tmp_path):
    generator = random_generator()
    with energyql.open_lesson(generator, tmp_path / "model", n=300) as lesson:
        lesson.add("bright")
        with pytest.raises(VocabularyError, match="already"):
            lesson.add("bright")
        with pytest.raises(DataError, match="nothing was learned yet"):
            lesson.save()
        assert lesson.look("bright", 30).width > 0
        assert lesson.shown == list(range(30))
        with pytest.raises(DataError, match="not one of those shown"):
            lesson.say("bright", [31])
        for _ in range(3):
            meter = lesson.say("bright", bright(lesson))
            lesson.look("bright", 30)
        assert sum(meter.counts.values()) == 90
        lesson.say("bright", dict.fromkeys(lesson.shown))
        lesson.undo()
        grid = lesson.ask("NOT bright", 4)
        assert grid.width > 0
        assert len(lesson.shown) == len(lesson.pictures()) == 4
        assert lesson.save() == tmp_path / "model"
        with pytest.raises(ArgumentError, match="a lesson"):
            other_process(generator, tmp_path / "model")
    assert list(load_model(tmp_path / "model").vocabulary) == ["bright"]
    with energyql.open_lesson(generator, tmp_path / "model", n=300) as lesson:
        assert lesson.look("bright", 10).width > 0


def other_process(generator, folder):
    """Open the lesson in another thread, which counts as another program."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(energyql.open_lesson, generator, folder, n=300).result()
