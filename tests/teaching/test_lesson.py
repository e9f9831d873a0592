"""Lessons without a page: labels, readers, what comes next, and what is kept."""

import shutil
import threading

import pytest
import short
import torch
from toys import lively_judge, random_generator, tiny_model

from energyql.attributes.bank import PICTURE, FittedUnder
from energyql.attributes.pictures import PictureBank
from energyql.errors import ArgumentError, DataError, ModelError, VocabularyError
from energyql.files import sole_writer
from energyql.generators.families import save_model
from energyql.labelling.folder import LABELS, PictureFolder
from energyql.labelling.sheet import LabelSheet
from energyql.pipeline.generate import generate
from energyql.pipeline.model import load_model
from energyql.pipeline.source import ModelSource
from energyql.teaching.asking import answer, check_query
from energyql.teaching.classroom import Classroom
from energyql.teaching.reading import best_layer
from energyql.teaching.sections import sections
from energyql.teaching.wall import FIRST_RANDOM, STORE
from energyql.training import teacher
from energyql.training.labels import parse_attributes, read_label_table
from energyql.training.picture_fit import PictureSettings
from energyql.training.report import area
from energyql.training.settings import POOL_START
from teaching.conftest import brightness, classroom, teach


def test_the_wall_begins_with_random_pictures_and_keeps_a_quarter(room):
    wall = room.lesson.wall
    assert wall.numbers[:FIRST_RANDOM] == list(range(FIRST_RANDOM))
    assert sum(number < POOL_START for number in wall.numbers) == FIRST_RANDOM
    assert PictureFolder.read(wall.folder.path).indices == sorted(wall.numbers)
    assert all(wall.folder.file(number).is_file() for number in wall.numbers)
    again = classroom(room.outcome.folder).lesson.wall  # nothing is drawn anew
    assert sorted(again.numbers) == sorted(wall.numbers)
    row, other = again.rows[7], wall.rows[7]
    assert again.seen([row]).features[again.layer].equal(wall.seen([other]).features[wall.layer])


def test_a_damaged_file_of_features_is_drawn_again(room):
    wall = room.lesson.wall
    file = next((wall.folder.path / STORE).iterdir())
    file.write_bytes(b"nothing")
    again = classroom(room.outcome.folder).lesson.wall
    assert len(again) == len(wall) - 32
    lost = set(wall.numbers) - set(again.numbers)
    again.draw(sorted(lost))
    assert sorted(again.numbers) == sorted(wall.numbers)


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

    rule = check_query("bright", lesson).rule
    *_, last = answer(lesson, rule, 4, None)
    shown = brightness(lesson.wall, list(last.numbers))
    assert sum(value > limit for value in shown.values()) >= 3
    assert last.finished
    assert 0 <= last.expected <= 1
    assert not lesson.labels.keys() & set(last.numbers)  # the person knows those

    one, two, three, _ = last.numbers
    room.change(lambda lesson: lesson.say("bright", {one: "no", two: "yes", three: "yes"}))
    *_, later = answer(lesson, rule, 4, None, [*last.numbers, two])
    assert later.numbers[:2] == (two, three)  # as the person said
    assert one not in later.numbers
    assert len(set(later.numbers)) == 4
    lesson.reading.wrong["bright"].fill_(0.9)
    lesson.reading.__dict__.pop("beliefs")
    assert one not in next(answer(lesson, rule, 4, None, [one])).numbers  # whatever readers say
    with pytest.raises(DataError, match="there is no picture 999"):
        room.ask("bright", 4, [999])


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

    reading = lesson.reading
    rows, others = reading.rows, torch.ones(len(lesson.wall), dtype=torch.bool)
    others[rows] = False
    believed = reading.beliefs["tone"]
    right = 1 - reading.wrong["tone"]
    clear = right > 0.6  # where a label is doubted, it is not believed
    assert clear.sum() > 50
    assert torch.equal(believed.number()[rows][clear], reading.labels["tone"][clear])
    torch.testing.assert_close(believed.certainty()[rows][clear], right[clear].clamp(max=1 - 1e-4))
    assert torch.equal(reading.beliefs["light"].number()[rows], reading.labels["light"])
    for name in ("tone", "light"):
        assert torch.equal(reading.beliefs[name].number()[others], reading.predictions[name].number()[others])
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
    room.lesson.add("bright, dark")  # the second has no labels yet
    teach(room, screens=1)
    again = classroom(room.outcome.folder).lesson
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
        (lambda lesson: lesson.add("hat, bright"), VocabularyError, "already"),
        (lambda lesson: lesson.add("a=b"), VocabularyError, "is not an attribute"),
        (lambda lesson: lesson.screen("odd"), DataError, "no attribute 'odd'"),
        (lambda lesson: check_query("bright", lesson), DataError, "nothing is known of 'bright' yet"),
    ],
)
def test_bad_input_changes_nothing(room, action, kind, message):
    room.lesson.add("bright")
    with pytest.raises(kind, match=message):
        action(room.lesson)
    assert room.lesson.rows == {}
    assert list(room.lesson.vocabulary) == ["bright"]


def test_doubted_labels_come_back_until_they_were_given_again(room):
    lesson = room.lesson
    lesson.add("bright")
    told = brightness(lesson.wall, list(range(90)))
    limit = sorted(told.values())[45]
    clear = sorted(told, key=lambda number: abs(told[number] - limit))[-6:]
    right = {number: "yes" if value > limit else "no" for number, value in told.items()}
    lesson.say("bright", right | {number: "no" if right[number] == "yes" else "yes" for number in clear})
    again = set(lesson.screen("bright")) & set(right)
    assert len(again & set(clear)) >= 2
    assert again <= set(lesson.screen("bright"))  # a reload shows them too
    lesson.say("bright", {number: lesson.rows[number]["bright"] for number in again})
    assert not again & set(lesson.screen("bright"))


def test_the_model_folder_has_what_was_learned(room):
    lesson = room.lesson
    lesson.add("bright")
    lesson.wall.draw(lesson.wall.next_numbers(140))
    teach(room)
    room.learn()
    room.save()
    assert room.saved == lesson.version
    model = load_model(room.outcome.folder)
    assert list(model.vocabulary) == ["bright"]
    result = generate("bright", 4, model=model, seed=3)
    assert len(result) == 4


def test_long_fits_give_way_between_steps(room, monkeypatch):
    lesson, steps = room.lesson, []
    monkeypatch.setattr(lesson.wall, "give_way", steps.append)
    lesson.add("bright")
    lesson.wall.draw(lesson.wall.next_numbers(140))
    teach(room)
    best_layer(lesson.wall, lesson.labels, lesson.vocabulary)
    assert len(steps) == len(lesson.wall.backbone.layers)
    steps.clear()
    room.learn()
    assert steps[0] < 0.01
    assert steps[-1] == 1


def test_giving_way_waits_for_a_click(room):
    ended = threading.Event()

    def fit():
        room.lesson.wall.give_way(0.5)
        ended.set()

    def click(lesson):
        threading.Thread(target=fit, daemon=True).start()
        assert not ended.wait(0.2)

    room.change(click)
    assert ended.wait(10)


def test_attributes_of_the_model_are_not_those_of_the_lesson(tmp_path):
    """What a packaged model reads already stays in the new folder, and is not told of as learnt here."""
    model = load_model(tiny_model(tmp_path / "tiny", truncation=(0.7, 0.7)))
    room = Classroom.open(ModelSource(tmp_path / "tiny"), tmp_path / "model", torch.device("cpu"), wanted=300)
    room.lesson.add("bright")
    room.lesson.wall.draw(room.lesson.wall.next_numbers(300))
    teach(room)
    room.learn()
    assert room.save()
    assert room.outcome.finished == []
    assert {*load_model(room.outcome.folder).vocabulary} == {*model.vocabulary, "bright"}


def test_queries_are_of_attributes_of_the_model_too(tmp_path):
    """Before anything is taught, together with what is taught, and in the next lesson of the folder."""
    tiny = tiny_model(tmp_path / "tiny", truncation=(0.7, 0.7))
    room = Classroom.open(ModelSource(tiny), tmp_path / "model", torch.device("cpu"), wanted=300)
    lesson, own = room.lesson, load_model(tiny)
    wall = lesson.wall
    wall.draw(wall.next_numbers(300))

    def p_smile(numbers):
        prior = wall.pictures.prior
        return own.bank.predict(prior.read(torch.tensor(numbers), own.bank.space), ["smile"])["smile"].certainty()

    assert "smile" in lesson.taken
    rule = check_query("smile", lesson).rule
    *_, found = answer(lesson, rule, 4, room.outcome.guide)
    everywhere = rule.log_value(own.bank.predict(wall.pictures.prior.read(torch.tensor(wall.numbers), own.bank.space)))
    assert found.expected == pytest.approx(float(everywhere.exp()[[wall.rows[n] for n in found.numbers]].mean()))
    assert found.expected > float(everywhere.exp().mean())
    lesson.add("bright")
    with pytest.raises(DataError, match="nothing is known of 'bright' yet"):
        check_query("smile AND bright", lesson)
    with pytest.raises(VocabularyError, match="'smile' already"):
        lesson.add("smile")
    teach(room)
    room.learn()
    room.ask("smile AND bright", 4)
    assert room.asked == ["bright"]
    *_, both = answer(lesson, check_query("smile AND bright", lesson).rule, 4, room.outcome.guide)
    assert len(both.numbers) == 4
    assert room.save()
    again = Classroom.open(ModelSource(tmp_path / "model"), tmp_path / "model", torch.device("cpu"), wanted=300)
    assert "bright" not in again.lesson.taken
    assert "smile" in again.lesson.taken
    *_, same = answer(again.lesson, check_query("smile AND bright", again.lesson).rule, 4, room.outcome.guide)
    assert same.numbers == both.numbers


def test_a_model_that_reads_pictures_is_not_taught(tmp_path):
    """Its attributes are read off pictures, so heads cannot be added; it is said before anything is labelled."""
    folder, generator = tmp_path / "tiny", random_generator()
    mark = save_model(folder, "tiny", generator, truncation=0.7)
    PictureBank(lively_judge(generator), fitted=FittedUnder(PICTURE, (0.7, 0.7), generator=mark)).save(folder)
    with pytest.raises(ArgumentError, match="a lesson needs heads that read latents"):
        Classroom.open(ModelSource(folder), tmp_path / "model", torch.device("cpu"))
    assert not (tmp_path / "model").exists()


def test_a_complete_training_is_not_replaced_by_quick_heads(room, monkeypatch):
    lesson = room.lesson
    lesson.add("bright")
    lesson.wall.draw(lesson.wall.next_numbers(140))
    limit = teach(room)
    room.learn()
    room.save()
    assert room.outcome.finished == []
    short.networks(monkeypatch, PictureSettings(side=8, channels=(8, 16), least=64, most=64))
    monkeypatch.setattr(teacher, "FURTHER", 64)
    room.start_finish()
    with pytest.raises(ArgumentError, match="runs already"):
        room.start_finish()
    room._trainer.join(300)
    assert room.finish.error is None
    assert list(room.finish.gained) == ["bright"]
    assert (room.outcome.finished, room.saved) == (["bright"], lesson.version)
    before = {path.name: path.read_bytes() for path in room.outcome.folder.iterdir() if path.is_file()}
    assert "lesson" not in load_model(room.outcome.folder).bank.reports["bright"].details
    told = brightness(lesson.wall, lesson.screen("bright"))
    room.change(lambda lesson: lesson.say("bright", {n: "yes" if x > limit else "no" for n, x in told.items()}))
    room.learn()
    room.save()
    assert {path.name: path.read_bytes() for path in room.outcome.folder.iterdir() if path.is_file()} == before
    with pytest.raises(VocabularyError, match="already"):  # of a training, in another lesson
        fresh = classroom(room.outcome.folder)
        fresh.lesson.add("bright")


def test_a_training_is_cancelled(room, monkeypatch):
    room.lesson.add("bright")
    teach(room)
    room.start_finish()
    room.stop_finish()
    room._trainer.join(60)
    assert not room.finish.running
    assert room.finish.error is None
    assert room.finish.gained is None


def test_a_folder_that_another_program_writes_is_told_of(room):
    lesson = room.lesson
    lesson.add("bright")
    lesson.wall.draw(lesson.wall.next_numbers(140))
    teach(room)
    room.learn()
    held, done = threading.Event(), threading.Event()

    def hold():
        with sole_writer(room.outcome.folder, "a training"):
            held.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    try:
        assert held.wait(60)
        while room.unsaved is None:  # other layers may come first
            assert room._step(None, 60.0)
        told = room.unsaved
        assert room.saved == -1
        room._step(None, 60.0)
        assert room.unsaved is told  # not tried again, until there is something new
    finally:
        done.set()
        other.join()


def test_a_folder_of_another_generator_is_refused(room):
    save_model(room.outcome.folder, "other", random_generator(seed=5), truncation=1.0, dtype=torch.float32)
    with pytest.raises(ModelError, match="another generator"):
        classroom(room.outcome.folder)


def test_a_table_of_labels_from_elsewhere_is_taken(room):
    """Labels of `energyql label` for pictures that the wall lacks: these are drawn, a few at a time."""
    sheet = LabelSheet(room.lesson.wall.folder.path / LABELS, room.lesson.wall.folder, parse_attributes("bright"))
    sheet.update({number: {"bright": "yes" if number % 2 else "no"} for number in range(90)})
    shutil.rmtree(room.lesson.wall.folder.path / STORE)
    again = classroom(room.outcome.folder).lesson
    assert again.wall.numbers == list(range(90))
    assert again.meter("bright").counts == {"no": 45, "yes": 45}
