"""A lesson with all that goes on beside it: drawing, answers, heads, and the folder of what is learnt."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from energyql.attributes.backbones import INSTALL, Backbone, default_backbone, open_backbone
from energyql.attributes.pictures import heads_of
from energyql.errors import ArgumentError, DataError, EnergyQLError
from energyql.generators.base import preview_side
from energyql.generators.families import CONFIG
from energyql.labelling.folder import LABELS, RECORD, PictureFolder
from energyql.labelling.sample import open_pictures
from energyql.labelling.settings import SampleSettings
from energyql.pipeline.source import ModelSource
from energyql.studio.memory import trim
from energyql.teaching.asking import Answer, answer, check_query
from energyql.teaching.guide import Guide, Latents
from energyql.teaching.lesson import Lesson
from energyql.teaching.outcome import Outcome, TaughtJudge, TaughtModel
from energyql.teaching.pictures import LARGEST, Drawings, Photographs
from energyql.teaching.reading import Reading
from energyql.teaching.wall import AT_ONCE, Wall
from energyql.training.labels import Drawn
from energyql.training.target import open_source, opening_target

PICTURES = "pictures"
"""Subfolder for the pictures of a lesson, in the folder of what is learnt."""
WANTED = 2_000
"""Number of pictures that are drawn for the wall without being asked for."""
FIRST = 8
"""Number of the very first pictures, so that a page is not empty for long."""
QUIET = 1.0
"""Seconds without a click after which heads are fitted."""
SAVED_AFTER = 5.0
"""Seconds without a click after which what was learnt is written to the folder."""
NOT_DRAWN = Drawn(0, 1.0, "photographs")
"""How photographs were drawn: by no generator, so that no training of one takes their labels."""
log = logging.getLogger("energyql.teach")


@dataclass
class Finish:
    """The complete training that *Finish* starts.

    Attributes:
        gained: attribute -> what it said, such as "ready"; empty until the training is over.
        error: why it failed; `None` while it runs, and if it did not.
    """

    stage: str = ""
    fraction: float = 0.0
    running: bool = True
    stopped: bool = False
    gained: Mapping[str, str] | None = None
    error: EnergyQLError | None = None


class _Stopped(Exception):
    """Ends a training that was cancelled."""


class Classroom:
    """A lesson, and one thread that draws pictures, answers queries, fits heads and saves what was learnt.

    Methods that change the lesson may be called by several threads; they follow one another.

    Args:
        lesson: the lesson.
        outcome: what it makes.
        wanted: number of pictures of the wall.

    Attributes:
        saved: version of the lesson that is in the folder; -1 before.
        unsaved: why the newest could not be written to it.
        problem: why no more pictures are drawn, if the generator fails.
        query: the last query.
        asked: the taught attributes in it.
        answered: the newest answer to it.
        finish: the complete training, if one was started.
        written: called after each change of the folder.
    """

    def __init__(self, lesson: Lesson, outcome: Outcome, wanted: int = WANTED) -> None:
        self.lesson, self.outcome, self.wanted = lesson, outcome, wanted
        self.saved = self._tried = -1
        self.unsaved: EnergyQLError | None = None
        self.problem: EnergyQLError | None = None
        self.query = ""
        self.answered: Answer | None = None
        self.asked: list[str] = []
        self.finish: Finish | None = None
        self.written: Callable[[], None] = lambda: None
        self._answers: Iterator[Answer] | None = None
        self._guided = -1
        self._clicked = time.monotonic()
        self._awake = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="energyql-teach", daemon=True)
        self._trainer: threading.Thread | None = None
        self._writing = threading.Lock()  # held while the model folder changes

    @classmethod
    def open(cls, source: ModelSource, folder: Path, device: torch.device, wanted: int = WANTED) -> Classroom:
        """Open a lesson, a new one or that in the subfolder `pictures` of a model folder.

        Args:
            source: the model whose pictures are looked at.
            folder: the model folder to make or to add to.

        Raises:
            EnergyQLError: the model or the folder is damaged, or there is no backbone that reads pictures.
        """
        backbone = _backbone(device)
        target = open_source(source)
        own = target.bank
        if (folder / CONFIG).is_file():
            with opening_target(source, folder) as present:  # refuses that of another generator
                own = present.bank
        heads = None if own is None else heads_of(own, "a lesson")
        pictures = open_pictures(target, folder / PICTURES, SampleSettings())
        fitted = target.fitted(target.space, (pictures.drawn.truncation,) * 2, pictures.drawn.condition)
        target.check_latents(fitted)
        prior = target.prior(pictures.drawn.seed, fitted, device)
        with torch.no_grad():
            first = prior.w_there(torch.tensor([0]))
            if max(prior.generator.synthesize(first).shape[-2:]) > LARGEST:
                prior = replace(prior, preview=preview_side(prior.generator, backbone.side))
            side = max(prior.draw(first).shape[-2:])
        latents = Latents(prior)
        before = None if heads is None else Guide(heads, latents)
        lesson = Lesson.open(Wall(pictures, Drawings(prior, side), backbone), before)
        return cls(lesson, TaughtModel(source, folder, latents), wanted)

    @classmethod
    def of_photographs(cls, photographs: Path, folder: Path, device: torch.device, wanted: int = WANTED) -> Classroom:
        """Open a lesson about the photographs of a folder, a new one or that in the subfolder `pictures` of `folder`.

        Args:
            folder: the folder of the judge to make or to add to.

        Raises:
            EnergyQLError: there are too few photographs, a file is damaged, the folder is that of a model, or there is
                no backbone that reads pictures.
        """
        backbone, path = _backbone(device), folder / PICTURES
        if (folder / CONFIG).is_file():
            hint = f"energyql teach {folder} teaches it; or name another folder for the judge"
            raise ArgumentError(f"{folder} is a model, and photographs teach a judge", hint=hint)
        shown = Photographs.open(photographs, path, device)
        pictures = PictureFolder.read(path) if (path / RECORD).is_file() else PictureFolder(path, NOT_DRAWN)
        lesson = Lesson.open(Wall(pictures, shown, backbone))
        return cls(lesson, TaughtJudge(folder), min(wanted, len(shown.names)))

    def start(self) -> None:
        """Begin to draw."""
        self._worker.start()

    def close(self) -> None:
        """End the threads; what was said is written already."""
        with self._awake:
            self._closed = True
            self._awake.notify_all()
        self.stop_finish()
        for thread in (self._worker, self._trainer):
            if thread is not None and thread.is_alive():
                thread.join(timeout=30)

    def change(self, action: Callable[[Lesson], Any]) -> Any:
        """Do something with the lesson, alone, and let what depends on it be done anew."""
        with self.lesson.wall.lock:
            done = action(self.lesson)
        with self._awake:
            self._clicked = time.monotonic()
            self._awake.notify_all()
        return done

    def ask(self, query: str, n: int, keep: Sequence[int] = ()) -> None:
        """Begin to answer a query, in place of the last one.

        Args:
            keep: pictures of the last answer, of which the right ones stay.

        Raises:
            EnergyQLError: the query is wrong, or about an attribute that nothing is known of yet; or there is no such
                picture.
        """
        with self.lesson.wall.lock:
            self.lesson.check_pictures(keep)
            rule = check_query(query, self.lesson).rule
            answers = answer(self.lesson, rule, n, self.outcome.guide, keep)
            first = next(answers)  # what the wall has
        with self._awake:
            self.query, self.answered = query, first
            self.asked = [name for name in rule.attributes if name in self.lesson.vocabulary]
            self._answers = None if first.finished else answers
            self._awake.notify_all()

    def stop_asking(self) -> None:
        """Draw no more for the last query."""
        with self._awake:
            self._answers = None
            if self.answered is not None:
                self.answered = replace(self.answered, finished=True)

    def start_finish(self) -> None:
        """Begin the complete training of all attributes, by all labels.

        Raises:
            ArgumentError: one runs already; or there is none, for photographs.
            DataError: there are no labels.
        """
        if self.finish is not None and self.finish.running:
            raise ArgumentError("the training runs already")
        if not self.outcome.trains:
            raise ArgumentError("what photographs teach is written after each click, and needs no further training")
        if self.lesson.reading is None:
            raise DataError("there is nothing to learn from yet", hint="label some pictures")
        self.finish = Finish()
        self._trainer = threading.Thread(target=self._train, args=(self.finish,), name="energyql-finish", daemon=True)
        self._trainer.start()

    def stop_finish(self) -> None:
        """Cancel the training; its finished steps are kept for the next one."""
        if self.finish is not None:
            self.finish.stopped = True

    def _train(self, finish: Finish) -> None:
        def report(stage: str, fraction: float) -> None:
            finish.stage, finish.fraction = stage, fraction
            if finish.stopped:
                raise _Stopped

        lesson = self.lesson
        with lesson.wall.lock:
            version, names = lesson.version, list(lesson.reading.vocabulary if lesson.reading else ())
        table = lesson.wall.folder.path / LABELS
        try:
            with self._writing:
                finish.gained = self.outcome.train(table, names, report)
            self.saved = version
            self.written()
        except _Stopped:
            pass
        except EnergyQLError as error:
            finish.error = error
        except Exception:
            log.exception("the training failed")
            finish.error = DataError("the training failed", hint="the log of energyql teach says where")
        finally:
            finish.running = False

    def _work(self) -> None:
        """What the thread does until the end, the most urgent first."""
        torch.optim.LBFGS([torch.zeros(1)])  # its first use imports for a second, which no click should wait for
        while True:
            with self._awake:
                if self._closed:
                    return
                answers, quiet = self._answers, time.monotonic() - self._clicked
            try:
                done = self._step(answers, quiet)
            except EnergyQLError as error:
                self.problem, done = error, False
            except Exception as error:  # of the user's generator
                log.exception("drawing failed")
                hint = "mend it, and start energyql teach again: nothing that was said is lost"
                self.problem, done = DataError(f"the generator failed: {error}", hint=hint), False
            if done:
                trim()
            else:
                with self._awake:
                    self._awake.wait(0.2)

    def _step(self, answers: Iterator[Answer] | None, quiet: float) -> bool:
        """Do one thing; return whether there may be more to do at once."""
        lesson = self.lesson
        if self.finish is not None and self.finish.running and answers is None:
            return False  # all cores are for it
        if answers is not None:
            found = next(answers, None)
            with self._awake:
                if self._answers is answers:
                    if found is not None:
                        self.answered = found
                    if found is None or found.finished:
                        self._answers = None
            return True
        if lesson.choose_layer():
            return True
        if quiet >= QUIET and self._guided != lesson.version and lesson.reading is not None:
            self.learn()
            return True
        if quiet >= SAVED_AFTER and lesson.reading is not None and self._tried != lesson.version == self._guided:
            if not self._writing.acquire(blocking=False):
                return False
            self._tried = lesson.version
            try:
                self.save()
                self.unsaved = None
            except EnergyQLError as error:  # such as that another program writes there; tried again after a click
                self.unsaved = error
            finally:
                self._writing.release()
            return True
        if self.problem is None and len(lesson.wall) < self.wanted:
            numbers = lesson.wall.next_numbers(AT_ONCE if len(lesson.wall) else FIRST)
            lesson.wall.draw(numbers)
            with lesson.wall.lock:
                lesson.read_new()
            return bool(numbers)
        return False

    def learn(self) -> None:
        """Fit heads to what the readers say now."""
        reading, numbers, self._guided = self._now()
        if reading is not None:
            self.outcome.learn(reading, numbers, self.lesson.wall.give_way)

    def save(self) -> bool:
        """Write what was learnt to the folder; whether there was anything."""
        reading, numbers, version = self._now()
        if reading is None or not self.outcome.save(reading, numbers):
            return False
        self.saved = version
        self.written()
        return True

    def _now(self) -> tuple[Reading | None, list[int], int]:
        """What readers say, the numbers of the pictures that they have read, and the version of the lesson."""
        lesson = self.lesson
        with lesson.wall.lock:
            reading = lesson.reading
            return reading, lesson.wall.numbers[: 0 if reading is None else len(reading.outputs)], lesson.version


def _backbone(device: torch.device) -> Backbone:
    name = default_backbone()
    if name is None:
        raise ArgumentError("readers learn by a network that already knows pictures", hint=f"install it: {INSTALL}")
    return open_backbone(name, device)
