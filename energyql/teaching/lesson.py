"""A lesson: what a person says of the pictures of a wall, what readers make of it, and what to look at next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from energyql.attributes.labels import encode_column
from energyql.attributes.predictions import Prediction, at_rows
from energyql.attributes.quality import lacking_labels
from energyql.errors import ArgumentError, DataError, VocabularyError
from energyql.files import read_json, write_json
from energyql.kinds import KINDS
from energyql.labelling.folder import LABELS
from energyql.labelling.sample import choose_unsure
from energyql.labelling.sheet import Cells, LabelSheet
from energyql.teaching.guide import Guide
from energyql.teaching.reading import Reading, best_layer, read_wall
from energyql.teaching.wall import Wall
from energyql.training.labels import attribute_text, parse_attribute, parse_attributes
from energyql.training.settings import POOL_START
from energyql.vocabulary import AttributeSpec, Vocabulary

RECORD = "lesson.json"
"""File in the folder of the pictures: the attributes, also those without labels."""
SCREEN = 40
"""Number of pictures that a person looks at together."""
RANDOM_ON_SCREEN = 0.25
"""Share of the pictures of a screen that are random ones, for the estimate."""
SURE_ON_SCREEN = 0.4
"""Share of the other pictures that are surely of the rarest answer: clicks confirm it, or show where it is wrong."""
DOUBTED = 0.5
"""P(wrong) from which a label is shown again, until it was given twice."""
MOST_AGAIN = 4
"""Most doubted labels that a screen shows again."""
MOST_UNDO = 200
"""Number of actions that can be taken back."""


@dataclass(frozen=True)
class Meter:
    """How well an attribute is read.

    Attributes:
        counts: answer -> number of labels; for a number, "labels".
        usable: whether random pictures show that it is read better than by chance.
        quality: share of pairs, a picture of a class and one of another, that the reader orders rightly (area under the
            ROC curve), or rank correlation of a number; `None` if it is not known.
        interval: its 95 % interval.
        advice: what to do, such as "about 20 more labels of yes".
    """

    counts: Mapping[str, int]
    usable: bool
    quality: float | None
    interval: tuple[float, float] | None
    advice: str


@dataclass
class Lesson:
    """The attributes that are taught, and all that was said. Its methods are called by one thread at a time.

    Attributes:
        wall: the pictures.
        sheet: the table of labels, in the folder of the pictures; `None` before the first attribute.
        before: heads that the model had before the lesson; `None` for none.
        labels: number of a picture -> attribute -> 0/1, class index or number.
        reading: what readers say of all pictures; `None` before labels differ.
        version: rises with each action.
    """

    wall: Wall
    sheet: LabelSheet | None
    before: Guide | None = None
    rows: dict[int, Cells] = field(default_factory=dict)
    labels: dict[int, dict[str, float]] = field(default_factory=dict)
    reading: Reading | None = None
    version: int = 0
    _before: list[dict[int, Cells | None]] = field(default_factory=list)
    _again: set[tuple[int, str]] = field(default_factory=set)
    _layer_at: int = SCREEN // 2

    @classmethod
    def open(cls, wall: Wall, before: Guide | None = None) -> Lesson:
        """Begin a lesson, or continue the one in the folder of the wall.

        Raises:
            DataError: a file is damaged, or the labels are about other pictures.
        """
        path, record = wall.folder.path / LABELS, wall.folder.path / RECORD
        kept = read_json(record, DataError).get("attributes") if record.is_file() else []
        if not isinstance(kept, list):
            wrong = f"{record} is damaged: it has no list of attributes"
            raise DataError(wrong, hint=f"remove it: {LABELS} names those with labels")
        specs = [parse_attribute(str(text)) for text in kept]
        lesson = cls(wall, LabelSheet.open(path, wall.folder, None) if path.is_file() else None, before)
        for spec in specs:
            if spec.name not in lesson.vocabulary:
                lesson._extend(spec)
        if lesson.sheet is not None:
            lesson._take(lesson.sheet.rows())
            wall.draw(list(lesson.rows))
            lesson.learn()
        return lesson

    @property
    def vocabulary(self) -> Vocabulary:
        """The attributes that are taught."""
        return Vocabulary([]) if self.sheet is None else self.sheet.attributes

    @property
    def taken(self) -> Vocabulary:
        """The attributes that the model has and that are not taught."""
        own = {} if self.before is None else self.before.heads.vocabulary
        return Vocabulary(spec for name, spec in own.items() if name not in self.vocabulary)

    @property
    def can_undo(self) -> bool:
        """Whether there is an action to take back."""
        return bool(self._before)

    def add(self, text: str) -> None:
        """Add attributes, such as "glasses" or "hair=black|brown, age=0..1".

        Raises:
            VocabularyError: the text describes no attribute, or a name is taken.
        """
        specs = parse_attributes(text)
        if used := [name for name in specs if name in {*self.vocabulary, *self.taken}]:
            raise VocabularyError(f"there is an attribute {used[0]!r} already", hint="give it another name")
        for spec in specs.values():
            self._extend(spec)
        texts = [attribute_text(spec) for spec in self.vocabulary.values()]
        write_json(self.wall.folder.path / RECORD, {"attributes": texts})
        self._write(self._sheet().rows())

    def _extend(self, spec: AttributeSpec) -> None:
        """Add an attribute to the table, or begin the table."""
        folder = self.wall.folder
        begun = LabelSheet(folder.path / LABELS, folder, Vocabulary([spec]))
        self.sheet = begun if self.sheet is None else self.sheet.of(folder).adding(spec)

    def say(self, attribute: str, labels: Mapping[int, Any]) -> None:
        """`say_all` for one attribute: number of a picture -> a label."""
        self.say_all({attribute: labels})

    def say_all(self, labels: Mapping[str, Mapping[int, Any]]) -> None:
        """Take labels of pictures as one action, write them to the table, and learn from them.

        Args:
            labels: attribute -> number of a picture -> a label; `None` takes the label back.

        Raises:
            DataError: there is no such attribute or picture, or a label is no value of the attribute.
        """
        said: dict[int, dict[str, Any]] = {}
        for attribute, own in labels.items():
            self._spec(attribute)
            self.check_pictures(own)
            for number, label in own.items():
                said.setdefault(number, {})[attribute] = label
        again = {(number, name) for number, own in said.items() for name in own if name in self.labels.get(number, {})}
        before = {number: self.rows.get(number) for number in said}
        self._write(self._sheet().update(said))
        self._before = [*self._before[-MOST_UNDO + 1 :], before]
        self._again |= again

    def check_pictures(self, numbers: Iterable[int]) -> None:
        """Raise a `DataError` unless the wall has all of some pictures."""
        if unknown := [number for number in numbers if number not in self.wall.rows]:
            raise DataError(f"there is no picture {unknown[0]}", hint="name those that the page shows")

    def undo(self) -> None:
        """Take the last action back.

        Raises:
            ArgumentError: there is none.
        """
        if not self._before:
            hint = "only actions since the command was started can be"
            raise ArgumentError("there is nothing to take back", hint=hint)
        before = self._before.pop()
        self._write(self._sheet().put(before))

    def choose_layer(self) -> bool:
        """Let the reader read another layer, if there are so many more labels that another may be better.

        Returns:
            Whether there were. The lock of the wall is held only for the change.
        """
        with self.wall.lock:
            labels, vocabulary = dict(self.labels), self.vocabulary
        count = sum(len(each) for each in labels.values())
        if count < 2 * self._layer_at or self.reading is None:
            return False
        self._layer_at = count
        best = best_layer(self.wall, labels, vocabulary)
        with self.wall.lock:
            self.wall.layer = best
            self.learn()
        return True

    def learn(self) -> None:
        """Fit readers to all labels, and let them read the wall."""
        self.reading = read_wall(self.wall, self.labels, self.vocabulary)

    def read_new(self) -> None:
        """Let the readers read pictures that the wall got since they were fitted."""
        reading = self.reading
        if reading is not None and (start := len(reading.outputs)) < len(self.wall):
            self.reading = reading.further(self.wall.read(reading.judge, start))

    def screen(self, attribute: str, count: int = SCREEN) -> list[int]:
        """Numbers of the pictures to look at next for an attribute: those that teach most, and some random ones.

        Labels that the readers doubt come back among them, until they were given again.
        """
        self._spec(attribute)
        numbers = self.wall.numbers
        open_rows = [row for row, number in enumerate(numbers) if attribute not in self.labels.get(number, {})]
        random = [numbers[row] for row in open_rows if numbers[row] < POOL_START]
        if self.reading is None or attribute not in self.reading.vocabulary:
            pool = [numbers[row] for row in open_rows if numbers[row] >= POOL_START]
            return sorted([*random[:count], *pool[: max(0, count - len(random))]])
        prediction = self.reading.predictions[attribute]
        again = self._doubted(attribute)[:MOST_AGAIN]
        random = random[: round(RANDOM_ON_SCREEN * count)]
        candidates = [row for row in open_rows if numbers[row] >= POOL_START and row < len(self.reading.outputs)]
        wanted = min(count - len(random) - len(again), len(candidates))
        chosen: list[int] = []
        if wanted > 0:
            among = at_rows(prediction, torch.tensor(candidates))
            sure = _surest_of_rare(among, round(SURE_ON_SCREEN * wanted))
            unsure = [k for k in choose_unsure({attribute: among}, wanted) if k not in sure]
            chosen = [numbers[candidates[k]] for k in [*sure, *unsure][:wanted]]
        together = [*again, *random, *chosen]
        order = prediction.leads()[0] if prediction.leads() else prediction.number()
        leaning = dict(zip(numbers, order.tolist(), strict=False))
        return sorted(together, key=lambda number: -leaning.get(number, -math.inf))

    def readings(self, attribute: str) -> dict[int, tuple[str, float]]:
        """Number of each picture that was read -> the likeliest answer, and its P; of a number, it twice."""
        reading = self.reading
        if reading is None or attribute not in reading.vocabulary:
            return {}
        spec, prediction = self._spec(attribute), reading.predictions[attribute]
        values = prediction.number().tolist()
        sure = values if KINDS[spec.kind].numeric else prediction.certainty().tolist()
        answers = [spell(spec, value) for value in values]
        return dict(zip(self.wall.numbers, zip(answers, sure, strict=True), strict=False))

    def meter(self, attribute: str) -> Meter:
        """How well an attribute is read, by random pictures alone."""
        spec = self._spec(attribute)
        kind = KINDS[spec.kind]
        given = [each[attribute] for each in self.labels.values() if attribute in each]
        if kind.numeric:
            counts = {"labels": len(given)}
        else:
            counts = {name: sum(value == k for value in given) for k, name in enumerate(kind.classes(spec))}
        if self.reading is None or attribute not in self.reading.vocabulary:
            missing = [name for name, count in counts.items() if not count] if not kind.numeric else []
            advice = f"no {missing[0]} yet" if missing and given else "label some pictures"
            return Meter(counts, False, None, None, advice)
        report = self.reading.reports[attribute]
        measured = report.auc if report.correlation is None else report.correlation
        lacking = lacking_labels(report)
        advice = "" if lacking is None else f"some {lacking[0]} more{f' {lacking[1]}' if lacking[1] else ''}"
        if measured is None or math.isnan(measured[0]):
            return Meter(counts, False, None, None, advice)
        quality, *ends = measured
        return Meter(counts, lacking is None, quality, (ends[0], ends[1]), advice)

    def _doubted(self, attribute: str) -> list[int]:
        """Pictures whose labels are probably wrong and were not shown again, the most doubtful first."""
        assert self.reading is not None
        wrong, rows = self.reading.wrong[attribute], self.reading.rows
        found = (wrong > DOUBTED).nonzero()[:, 0]
        order = found[wrong[found].argsort(descending=True)]
        numbers = [self.wall.numbers[int(rows[k])] for k in order]
        return [number for number in numbers if (number, attribute) not in self._again]

    def _spec(self, attribute: str) -> AttributeSpec:
        if attribute not in self.vocabulary:
            raise DataError(f"there is no attribute {attribute!r:.60}", hint="add it first")
        return self.vocabulary[attribute]

    def _sheet(self) -> LabelSheet:
        """The table, with the pictures that the wall has now."""
        assert self.sheet is not None
        self.sheet = self.sheet.of(self.wall.folder)
        return self.sheet

    def _write(self, rows: dict[int, Cells]) -> None:
        with self.wall.lock:
            self._take(rows)
            self.learn()
            self.version += 1

    def _take(self, rows: dict[int, Cells]) -> None:
        """Read the rows of the table as numbers."""
        self.rows = rows
        self.labels = {number: {} for number in rows}
        for name, spec in self.vocabulary.items():
            column = encode_column([cells[name] or None for cells in rows.values()], spec, LABELS)
            for number, value in zip(rows, column.tolist(), strict=True):
                if not math.isnan(value):
                    self.labels[number][name] = value


def _surest_of_rare(prediction: Prediction, count: int) -> list[int]:
    """Pictures that are most surely of the answer that is rarest among the predictions; none for a number."""
    leads = prediction.leads()
    if not leads:
        return []
    rare = min(leads, key=lambda lead: float(lead.sigmoid().sum()))
    return rare.argsort(descending=True)[:count].tolist()


def spell(spec: AttributeSpec, value: float) -> str:
    """A label as text: "yes" or "no", the class, or the number with two digits."""
    kind = KINDS[spec.kind]
    return f"{value:.2f}" if kind.numeric else kind.classes(spec)[int(value)]
