"""Lessons about photographs, and the judge that they teach."""

import numpy as np
import pytest
import torch
from PIL import Image
from toys import random_generator

from energyql.attributes.judge import load_judge, open_labeller
from energyql.errors import ArgumentError, DataError
from energyql.labelling.folder import PictureFolder
from energyql.pipeline.model import load_model
from energyql.teaching.classroom import Classroom
from energyql.training.run import train_attributes
from energyql.training.settings import POOL_START


@pytest.fixture
def photographs(tmp_path):
    """120 photographs in two folders, of which half are red; and files that are none."""
    random = np.random.default_rng(0)
    for i in range(120):
        pixels = random.integers(0, 120, (20, 28, 3), dtype=np.uint8)
        pixels[..., 0] += 100 * (i % 2)
        path = tmp_path / "photographs" / ("a" if i < 60 else "b") / f"{i:03d}.{('jpg', 'png')[i % 3 == 0]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (tmp_path / "photographs" / "notes.txt").write_text("no picture")
    return tmp_path / "photographs"


def begin(photographs, folder) -> Classroom:
    return Classroom.of_photographs(photographs, folder, torch.device("cpu"))


def is_red(room, number) -> bool:
    name = room.lesson.wall.pictures.names[number]
    return int(name.split("/")[1].split(".")[0]) % 2 == 1


def teach(room) -> None:
    lesson = room.lesson
    lesson.wall.draw(lesson.wall.next_numbers(200))
    lesson.add("red")
    room.change(lambda lesson: lesson.say("red", {n: "yes" if is_red(room, n) else "no" for n in lesson.screen("red")}))


def test_every_photograph_has_a_number(photographs, tmp_path):
    room = begin(photographs, tmp_path / "judge")
    wall = room.lesson.wall
    assert room.wanted == 120
    wall.draw(wall.next_numbers(200))
    assert sorted(wall.numbers) == [*range(96), *range(POOL_START, POOL_START + 24)]
    assert wall.next_numbers(10) == []
    assert not room._step(None, 0.0)  # nothing is left to draw
    folder = PictureFolder.read(tmp_path / "judge" / "pictures")
    assert (folder.random, len(folder.unsure)) == (96, 24)
    with Image.open(folder.file(0)) as picture:
        assert picture.size == (256, 256)


def test_photographs_keep_their_numbers(photographs, tmp_path):
    before = begin(photographs, tmp_path / "judge").lesson.wall.pictures.names
    Image.new("RGB", (9, 9)).save(photographs / "a" / "0.png")
    next(photographs.glob("b/*")).unlink()
    after = begin(photographs, tmp_path / "judge").lesson.wall.pictures.names
    assert after[POOL_START + 24] == "a/0.png"
    assert {number: name for number, name in after.items() if name != "a/0.png"}.items() <= before.items()
    assert len(after) == 120


def test_photographs_teach_a_judge_of_other_models(photographs, tmp_path):
    room = begin(photographs, tmp_path / "judge")
    teach(room)
    room.learn()
    room.save()
    assert room.saved == room.lesson.version
    judge = load_judge(tmp_path / "judge")
    assert list(judge.vocabulary) == ["red"]
    assert judge.report["red"].auc is not None
    numbers = room.lesson.wall.numbers
    images = torch.cat([shown(room.lesson.wall.folder.file(number)) for number in numbers])
    read = judge(images)["red"].logit > 0
    assert np.mean([bool(each) == is_red(room, number) for each, number in zip(read, numbers, strict=True)]) > 0.95
    labeller = open_labeller(str(tmp_path / "judge"))
    trained = train_attributes(random_generator(), labeller, tmp_path / "model", n=100, progress=False)
    assert list(trained.bank.vocabulary) == ["red"]
    model = load_model(tmp_path / "model", judge=str(tmp_path / "judge"))
    assert list(model.judge.vocabulary) == ["red"]


def shown(file) -> torch.Tensor:
    """A picture of the folder, as judges take it."""
    with Image.open(file) as picture:
        return torch.from_numpy(np.asarray(picture, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


def test_answers_come_from_the_photographs_and_end(photographs, tmp_path):
    room = begin(photographs, tmp_path / "judge")
    teach(room)
    room.ask("red", 60)
    for _ in range(20):
        room._step(room._answers, 0.0)
        if room.answered.finished:
            break
    assert room.answered.finished
    assert room.answered.drawn == 0
    assert room.lesson.wall.rows.keys() >= set(room.answered.numbers)


def test_there_is_no_further_training(photographs, tmp_path):
    room = begin(photographs, tmp_path / "judge")
    teach(room)
    with pytest.raises(ArgumentError, match="needs no further training"):
        room.start_finish()


@pytest.mark.parametrize(("damage", "message"), [
    (lambda photographs, judge: [path.unlink() for path in photographs.glob("b/*")], "60 photographs, which are too"),
    (lambda photographs, judge: photographs.rename(photographs.with_name("moved")), "another folder of photographs"),
    (lambda photographs, judge: (judge / "pictures" / "photographs.json").write_text("{}"), "is damaged"),
    (lambda photographs, judge: (judge / "config.json").write_text("{}"), "is a model"),
])  # fmt: skip
def test_what_is_wrong(photographs, tmp_path, damage, message):
    judge = tmp_path / "judge"
    if "too" not in message:
        begin(photographs, judge)
    damage(photographs, judge)
    where = photographs if photographs.exists() else photographs.with_name("moved")
    with pytest.raises((ArgumentError, DataError), match=message):
        begin(where, judge)


def test_a_photograph_that_cannot_be_read_is_named(photographs, tmp_path):
    room = begin(photographs, tmp_path / "judge")
    name = room.lesson.wall.pictures.names[0]
    (photographs / name).write_bytes(b"no picture")
    with pytest.raises(ArgumentError, match=name):
        room.lesson.wall.draw([0])


def test_a_folder_without_a_judge(tmp_path):
    with pytest.raises(ArgumentError, match="has no judge"):
        open_labeller(str(tmp_path))
