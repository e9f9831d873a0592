"""`open_lesson`: teach attributes from a notebook or a program, in place of the page of `energyql teach`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from PIL import Image

from energyql.editing.pictures import open_picture
from energyql.errors import DataError
from energyql.files import sole_writer
from energyql.pipeline.model import choose_device
from energyql.pipeline.settings import whole_number
from energyql.progress import Report, reporting
from energyql.render.pictures import Cell, label_grid
from energyql.teaching.asking import answer, check_query
from energyql.teaching.classroom import PICTURES, Classroom
from energyql.teaching.lesson import SCREEN, Meter
from energyql.teaching.wall import AT_ONCE
from energyql.training.target import AnyModel, source_of, training_folder


def open_lesson(
    model: AnyModel,
    out: str | Path | None = None,
    *,
    n: int = 400,
    device: torch.device | str = "auto",
    progress: bool | Report = False,
) -> OpenLesson:
    """Begin a lesson about the pictures of a generator, or continue the one in a folder.

    Args:
        model: as for `train_attributes`.
        out: the model folder to make or to add to, whose subfolder `pictures` holds the lesson; by default that of
            `model`.
        n: number of pictures that are drawn at once; 256 at least are needed for heads.
        device, progress: see `train_attributes`.

    Raises:
        EnergyQLError: model or folder are damaged or do not fit each other; the extra `features` is not installed; or
            another program teaches in the folder.
    """
    n, source = whole_number("n", n), source_of(model)
    folder = training_folder(source.model, out)
    with ExitStack() as ends:
        ends.enter_context(sole_writer(folder / PICTURES, "a lesson"))
        room = Classroom.open(source, folder, choose_device(device), n)
        wall = room.lesson.wall
        with reporting(progress) as report:
            while len(wall) < n:
                wall.draw(wall.next_numbers(min(AT_ONCE, n - len(wall))))
                report("drawing", len(wall) / n)
        room.lesson.read_new()
        return OpenLesson(room, ends.pop_all())


class OpenLesson:
    """A lesson in a notebook or a program, made by `open_lesson`; as a context manager it is closed at the end.

    What is said is written at once to the table of `energyql label` in the subfolder `pictures`.

    Attributes:
        shown: numbers of the pictures that were shown last.
    """

    def __init__(self, room: Classroom, ends: ExitStack) -> None:
        self._room, self._lesson, self._ends = room, room.lesson, ends
        self.shown: list[int] = []

    def __enter__(self) -> OpenLesson:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, attributes: str) -> None:
        """Add attributes, such as "glasses" or "hair=black|brown, age=0..1".

        Raises:
            VocabularyError: the text describes no attribute, or a name is taken.
        """
        self._lesson.add(attributes)

    def look(self, attribute: str, n: int = SCREEN) -> Image.Image:
        """Show the pictures whose labels teach most, with their numbers and what is read.

        Raises:
            DataError: there is no such attribute, or all pictures are labelled.
        """
        readings = self._lesson.readings(attribute)
        self.shown = self._lesson.screen(attribute, n)
        return self._grid({number: readings.get(number, ("", 0.0))[0] for number in self.shown})

    def pictures(self) -> list[Image.Image]:
        """The pictures that were shown last."""
        return [open_picture(self._lesson.wall.folder.file(number)) for number in self.shown]

    def say(self, attribute: str, labels: Mapping[int, Any] | Iterable[int]) -> Meter:
        """Label pictures, and let the readers learn.

        Args:
            labels: number of a picture -> label, `None` to take one back; or the numbers of those that have a yes/no
                attribute: then the others that are shown do not.

        Returns:
            How well the attribute is read now.

        Raises:
            DataError: there is no such attribute or picture, or a label is no value of the attribute.
        """
        if not isinstance(labels, Mapping):
            having = set(labels)
            if unknown := having - set(self.shown):
                raise DataError(f"picture {min(unknown)} is not one of those shown", hint="give a dict of labels")
            labels = {number: number in having for number in self.shown}
        self._lesson.say(attribute, labels)
        self._lesson.choose_layer()
        return self._lesson.meter(attribute)

    def undo(self) -> None:
        """Take the last labels back; an `ArgumentError` is raised if there are none."""
        self._lesson.undo()

    def ask(self, query: str, n: int = 16) -> Image.Image:
        """Show pictures that satisfy a query as far as is known by now, of the lesson or drawn for it.

        Raises:
            EnergyQLError: the query is wrong, or about an attribute of which two answers are not labelled yet.
        """
        rule = check_query(query, self._lesson).rule
        self._room.learn()
        *_, found = answer(self._lesson, rule, whole_number("n", n), self._room.outcome.guide)
        self.shown = list(found.numbers)
        return self._grid(dict.fromkeys(self.shown, ""), f"{query}: about {found.expected:.0%} right")

    def save(self) -> Path:
        """Write heads and verifier of what was taught into the model folder, as far as they are usable.

        For a judge too, run `train_attributes` with the table `pictures/labels.csv` in the folder.

        Raises:
            DataError: nothing was learned yet.
            EnergyQLError: the folder cannot be written.
        """
        self._room.learn()
        if not self._room.save():
            hint = "label pictures of two answers, in a lesson of 300 pictures or more"
            raise DataError("nothing was learned yet", hint=hint)
        return self._room.outcome.folder

    def close(self) -> None:
        """Let other programs teach in the folder."""
        self._ends.close()

    def _grid(self, words: Mapping[int, str], title: str = "") -> Image.Image:
        cells = [
            Cell(picture, f"{number} {word}".strip())
            for picture, (number, word) in zip(self.pictures(), words.items(), strict=True)
        ]
        if not cells:
            raise DataError("no picture is left to show", hint="open the lesson with a larger n")
        return label_grid(cells, title=title)
