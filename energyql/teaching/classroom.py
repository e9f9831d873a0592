"""A lesson with all that goes on beside it: drawing, answers, heads, and the model folder that becomes better."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.backbones import INSTALL, default_backbone, open_backbone
from energyql.attributes.heads import AttributeBank
from energyql.attributes.held_out import HeldOut
from energyql.attributes.predictions import split_outputs
from energyql.attributes.quality import HeadReport
from energyql.errors import ArgumentError, DataError, EnergyQLError
from energyql.files import real_path
from energyql.generators.base import preview_side
from energyql.generators.families import CONFIG
from energyql.labelling.folder import LABELS
from energyql.labelling.sample import open_pictures
from energyql.labelling.settings import SampleSettings
from energyql.numerics.shapes import Float
from energyql.pipeline.source import ModelSource
from energyql.teaching.asking import Answer, answer, check_query
from energyql.teaching.guide import fit_guide
from energyql.teaching.lesson import Lesson
from energyql.teaching.reading import Reading
from energyql.teaching.wall import AT_ONCE, LARGEST, Wall
from energyql.training.judge import TrainedJudge, store_judge
from energyql.training.report import report_quality
from energyql.training.run import train_attributes
from energyql.training.settings import TRAIN
from energyql.training.target import open_source, opening_target
from energyql.vocabulary import Vocabulary

PICTURES = "pictures"
"""Subfolder of the model folder for the pictures of a lesson."""
WANTED = 2_000
"""Number of pictures that are drawn for the wall without being asked for."""
FIRST = 8
"""Number of the very first pictures, so that a page is not empty for long."""
QUIET = 1.0
"""Seconds without a click after which heads are fitted."""
SAVED_AFTER = 5.0
"""Seconds without a click after which heads are written to the model folder."""
LESSON = "lesson"
"""Key in the details of a report: the heads are quick ones, of a lesson."""
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
    """A lesson, and one thread that draws pictures, answers queries, fits heads and saves the model.

    Methods that change the lesson may be called by several threads; they follow one another.

    Args:
        lesson: the lesson.
        source: the model, as a user named it.
        folder: the model folder that is made or added to.
        taken: names of attributes that the model had before the lesson.
        wanted: number of pictures of the wall.

    Attributes:
        guide: the newest heads; `None` before there are any.
        saved: version of the lesson whose heads are in the model folder; -1 before.
        unsaved: why the newest heads could not be written to it.
        finished: attributes whose heads in the folder are of a complete training, which quick ones never replace.
        problem: why no more pictures are drawn, if the generator fails.
        query: the last query.
        asked: the attributes in it.
        answered: the newest answer to it.
        finish: the complete training, if one was started.
    """

    def __init__(
        self, lesson: Lesson, source: ModelSource, folder: Path, taken: set[str], wanted: int = WANTED
    ) -> None:
        self.lesson, self.source, self.folder, self.taken, self.wanted = lesson, source, folder, taken, wanted
        self.guide: AttributeBank | None = None
        self.saved = self._tried = -1
        self.unsaved: EnergyQLError | None = None
        self.finished: Sequence[str] = ()
        self.problem: EnergyQLError | None = None
        self.query = ""
        self.answered: Answer | None = None
        self.asked: list[str] = []
        self.finish: Finish | None = None
        self._answers: Iterator[Answer] | None = None
        self._guided = -1
        self._clicked = time.monotonic()
        self._latents = torch.zeros(0)
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
        name = default_backbone()
        if name is None:
            raise ArgumentError("readers learn by a network that already knows pictures", hint=f"install it: {INSTALL}")
        target = open_source(source)
        own = target.bank
        if (folder / CONFIG).is_file():
            with opening_target(source, folder) as present:  # refuses that of another generator
                own = present.bank
        pictures = open_pictures(target, folder / PICTURES, SampleSettings())
        fitted = target.fitted(target.space, (pictures.drawn.truncation,) * 2, pictures.drawn.condition)
        target.check_latents(fitted)
        prior, backbone = target.prior(pictures.drawn.seed, fitted, device), open_backbone(name, device)
        with torch.no_grad():
            side = max(prior.generator.synthesize(prior.w_there(torch.tensor([0]))).shape[-2:])
        if side > LARGEST:
            prior = replace(prior, preview=preview_side(prior.generator, backbone.side))
        lesson = Lesson.open(Wall(pictures, prior, backbone))
        taken = set() if own is None else set(own.vocabulary)
        return cls(lesson, source, folder, taken - set(lesson.vocabulary), wanted)

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
            answers = answer(self.lesson, rule, n, self.guide, keep)
            first = next(answers)  # what the wall has
        with self._awake:
            self.query, self.asked, self.answered = query, list(rule.attributes), first
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
            ArgumentError: one runs already.
            DataError: there are no labels.
        """
        if self.finish is not None and self.finish.running:
            raise ArgumentError("the training runs already")
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
                trained = train_attributes(self._model(), table, self.folder, progress=report, only=names, replace=True)
            finish.gained, self.saved, self.finished = trained.verdicts, version, names
        except _Stopped:
            pass
        except EnergyQLError as error:
            finish.error = error
        except Exception:
            log.exception("the training failed")
            finish.error = DataError("the training failed", hint="the log of energyql teach says where")
        finally:
            finish.running = False

    def _model(self) -> ModelSource:
        """The model folder, if it is there; else the model that the user named."""
        return replace(self.source, model=self.folder) if (self.folder / CONFIG).is_file() else self.source

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
            if not done:
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
            self._fit_guide()
            return True
        if quiet >= SAVED_AFTER and self.guide is not None and self._tried != lesson.version == self._guided:
            if not self._writing.acquire(blocking=False):
                return False
            self._tried = lesson.version
            try:
                self._save()
                self.unsaved = None
            except EnergyQLError as error:  # such as that another program writes there; tried again after a click
                self.unsaved = error
            finally:
                self._writing.release()
            return True
        if self.problem is None and len(lesson.wall) < self.wanted:
            count = AT_ONCE if len(lesson.wall) else FIRST
            lesson.wall.draw(lesson.wall.next_numbers(count))
            with lesson.wall.lock:
                lesson.read_new()
            return True
        return False

    def _read_latents(self, numbers: list[int]) -> Tensor:
        """Input of heads for pictures of the wall; of those that were read before it is kept."""
        prior = self.lesson.wall.prior
        known = len(self._latents)
        if known < len(numbers):
            new = prior.read(torch.tensor(numbers[known:]), prior.fitted.space)
            self._latents = torch.cat([self._latents, new]) if known else new
        return self._latents[: len(numbers)]

    def _fit_guide(self) -> None:
        lesson = self.lesson
        with lesson.wall.lock:
            reading, version = lesson.reading, lesson.version
            numbers = lesson.wall.numbers[: 0 if reading is None else len(reading.outputs)]
        self._guided = version
        if reading is not None:
            guide = fit_guide(reading, lesson.wall.prior, self._read_latents(numbers))
            if guide is not None:
                self.guide = guide

    def _save(self) -> None:
        """Write heads and readers to the model folder, as a training does, without a judge.

        Attributes whose heads a training has written stay as they are: those are better.
        """
        lesson, guide = self.lesson, self.guide
        with lesson.wall.lock:
            reading, version, numbers = lesson.reading, lesson.version, list(lesson.wall.numbers)
        if guide is None or reading is None or not set(guide.vocabulary) <= set(reading.vocabulary):
            return
        with opening_target(self._model(), self.folder) as target:
            kept = {} if target.bank is None else target.bank.reports
            present = () if target.bank is None else target.bank.vocabulary
            self.finished = [name for name in present if name not in kept or LESSON not in kept[name].details]
            names = [name for name in guide.vocabulary if name not in self.finished]
            if names:
                own = guide.fitted
                fitted = target.fitted(own.space, own.truncation, own.condition)  # the folder has a mark of its own
                target.check_latents(fitted)
                specs = Vocabulary(guide.vocabulary[name] for name in names)
                bank = AttributeBank(specs, {name: guide.heads[name] for name in names}, fitted=fitted)
                latents = self._read_latents(numbers)[reading.rows[reading.random]]
                reports, trained = _as_trained(reading, bank, latents)
                with target.changing() as changed:
                    changed.save(bank.with_reports(reports), real_path(self.folder).name, replace=True)
                    store_judge(changed.folder, TRAIN, names, trained)
        self.saved = version


def _as_trained(
    reading: Reading, bank: AttributeBank, latents: Float[Tensor, "random latent_dim"]
) -> tuple[dict[str, HeadReport], TrainedJudge]:
    """Reports on heads, and the readers as a verifier, both by the random pictures with labels."""
    names, random = list(bank.vocabulary), reading.random
    with torch.no_grad():
        heads = bank.predict(latents)
    labels = {name: reading.labels[name][random] for name in names}
    learnt = {name: reading.labels[name][~random] for name in names}
    reports = report_quality(heads, labels, bank.vocabulary, learnt)
    reports = {name: replace(each, details={**each.details, LESSON: True}) for name, each in reports.items()}
    unseen = torch.cat([reading.unseen[name].nan_to_num() for name in reading.vocabulary], 1)
    read = split_outputs(unseen[random], reading.vocabulary.values(), reading.std)
    verifier = reading.judge.only(names)
    verifier.std.copy_(torch.stack([torch.as_tensor(reading.std[name]) for name in names]))
    verifier.report = {name: reading.reports[name] for name in names}
    held_out = HeldOut(labels, heads, {name: read[name] for name in names})
    return reports, TrainedJudge(None, {}, "", verifier, verifier.report, held_out)
