"""Lessons without a page: labels, readers, what comes next, and what is kept."""

import pytest
import torch

from energyql.errors import ArgumentError, DataError, VocabularyError
from energyql.labelling.folder import LABELS, PictureFolder
from energyql.labelling.sheet import LabelSheet
from energyql.pipeline.generate import generate
from energyql.pipeline.model import load_model
from energyql.teaching.asking import answer, compile_query
from energyql.teaching.sections import sections
from energyql.teaching.wall import FIRST_RANDOM, STORE
from energyql.training.labels import read_label_table
from energyql.training.report import area
from energyql.training.settings import POOL_START
from teaching.conftest import brightness, classroom, teach


def test_the_wall_begins_with_random_pictures_and_keeps_a_quarter(room):
    wall = room.lesson.wall
    assert wall.numbers[:FIRST_RANDOM] == list(range(FIRST_RANDOM))
    assert sum(number < POOL_START for number in wall.numbers) == FIRST_RANDOM
    assert PictureFolder.read(wall.folder.path).indices == sorted(wall.numbers)
    assert all(wall.folder.file(number).is_file() for number in wall.numbers)
    again = classroom(room.folder).lesson.wall  # nothing is drawn anew
    assert sorted(again.numbers) == sorted(wall.numbers)
    row, other = again.rows[7], wall.rows[7]
    assert again.seen().features[again.layers[0]][row].equal(wall.seen().features[wall.layers[0]][other])


def test_a_damaged_file_of_features_is_drawn_again(room):
    wall = room.lesson.wall
    file = next((wall.folder.path / STORE).iterdir())
    file.write_bytes(b"nothing")
    again = classroom(room.folder).lesson.wall
    assert not len(again)
    again.draw(again.next_numbers(8))
    assert again.numbers == list(range(8))


def test_readers_learn_from_screens_and_answer(room):
    lesson = room.lesson
    lesson.add("bright")
    assert sections(lesson, "bright") == []
    first = lesson.screen("bright")
    assert first == list(range(40))  # random ones, in the order of their numbers
    limit = teach(room)
    assert lesson.reading is not None
    told = brightness(lesson.wall, lesson.wall.numbers)
    truth = torch.tensor([told[number] > limit for number in lesson.wall.numbers])
    assert area(lesson.reading.predictions["bright"].logit.double(), truth)[0] > 0.85
    assert sum(part.total for part in sections(lesson, "bright")) == len(lesson.wall)
    meter = lesson.meter("bright")
    assert meter.usable
    assert sum(meter.counts.values()) == 120
    assert meter.interval is not None
    assert meter.interval[0] <= meter.quality <= meter.interval[1]

    _, rule = compile_query("bright", lesson)
    *_, last = answer(lesson, rule, 4, None)
    shown = brightness(lesson.wall, list(last.numbers))
    assert sum(value > limit for value in shown.values()) >= 3
    assert last.finished
    assert 0 <= last.expected <= 1


def test_later_screens_have_random_and_unsure_pictures(room):
    lesson = room.lesson
    lesson.add("bright")
    teach(room, screens=1)
    screen = lesson.screen("bright")
    assert len(screen) == len(set(screen)) == 40
    random = [number for number in screen if number < POOL_START and "bright" not in lesson.labels.get(number, {})]
    assert random
    assert max(random) < 40 + len(random)  # the next ones, not chosen ones
    assert any(number >= POOL_START for number in screen)


def test_all_kinds_are_taught(room):
    lesson = room.lesson
    lesson.add("tone=dark|middle|light")
    lesson.add("light=0..1")
    told = brightness(lesson.wall, list(range(60)))
    order = sorted(told, key=told.__getitem__)
    lesson.say("tone", {number: ("dark", "middle", "light")[place // 20] for place, number in enumerate(order)})
    lesson.say("light", {number: place / 60 for place, number in enumerate(order)})
    assert lesson.reading is not None
    read = lesson.reading.predictions["light"].number()[[lesson.wall.rows[number] for number in order]]
    assert torch.corrcoef(torch.stack([read, torch.arange(60.0)]))[0, 1] > 0.8
    assert [part.title for part in sections(lesson, "tone")] == [
        "surely dark", "unsure", "surely middle", "surely light",
    ]  # fmt: skip
    assert len(sections(lesson, "light")) == 4
    assert lesson.meter("light").counts == {"labels": 60}
    assert all(answer in ("dark", "middle", "light") for answer, _ in lesson.readings("tone").values())


def test_every_action_can_be_taken_back(room):
    lesson = room.lesson
    lesson.add("bright")
    lesson.say("bright", {0: "yes", 1: "no"})
    before = lesson.sheet.path.read_bytes()
    lesson.say("bright", {1: "yes", 2: "no"})
    lesson.undo()
    assert lesson.sheet.path.read_bytes() == before
    lesson.undo()
    assert lesson.rows == {}
    assert not lesson.sheet.path.exists()
    with pytest.raises(ArgumentError, match="nothing to take back"):
        lesson.undo()


def test_a_lesson_goes_on_where_it_was(room):
    room.lesson.add("bright")
    room.lesson.add("dark")  # which has no labels yet
    teach(room, screens=1)
    again = classroom(room.folder).lesson
    assert list(again.vocabulary) == ["bright", "dark"]
    assert again.labels == room.lesson.labels
    assert again.reading is not None
    table = read_label_table(room.lesson.wall.folder.path / LABELS)  # what training reads
    assert list(table.columns) == ["bright", "dark"]
    assert LabelSheet.open(table.folder / LABELS, again.wall.folder, None).rows() == again.rows


@pytest.mark.parametrize(
    ("action", "kind", "message"),
    [
        (lambda lesson: lesson.say("odd", {0: "yes"}), DataError, "no attribute 'odd'"),
        (lambda lesson: lesson.say("bright", {10**6 + 4_999: "yes"}), DataError, "no picture 1004999"),
        (lambda lesson: lesson.say("bright", {0: "perhaps"}), DataError, "'bright' is 'perhaps'"),
        (lambda lesson: lesson.add("bright"), VocabularyError, "already"),
        (lambda lesson: lesson.add("a=b"), VocabularyError, "is not an attribute"),
        (lambda lesson: lesson.screen("odd"), DataError, "no attribute 'odd'"),
        (lambda lesson: compile_query("bright", lesson), DataError, "nothing is known of 'bright' yet"),
    ],
)
def test_bad_input_changes_nothing(room, action, kind, message):
    room.lesson.add("bright")
    with pytest.raises(kind, match=message):
        action(room.lesson)
    assert room.lesson.rows == {}
    assert list(room.lesson.vocabulary) == ["bright"]


def test_doubted_labels_come_back_once(room):
    lesson = room.lesson
    lesson.add("bright")
    limit = teach(room)
    told = brightness(lesson.wall, list(lesson.labels))
    clear = sorted(told, key=lambda number: abs(told[number] - limit))[-6:]
    lesson.say("bright", {number: "no" if told[number] > limit else "yes" for number in clear})
    again = set(lesson.screen("bright")) & set(clear)
    assert again
    assert not again & set(lesson.screen("bright"))


def test_the_model_folder_has_what_was_learned(room):
    lesson = room.lesson
    lesson.add("bright")
    lesson.wall.draw(lesson.wall.next_numbers(140))
    teach(room)
    room._fit_guide()
    room._save()
    assert room.saved == lesson.version
    model = load_model(room.folder)
    assert list(model.vocabulary) == ["bright"]
    result = generate("bright", 4, model=model, seed=3)
    assert len(result) == 4
