"""What a lesson makes: a model folder with heads and readers, or the judge that a lesson about photographs teaches."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from energyql.attributes.heads import AttributeBank
from energyql.attributes.held_out import HeldOut
from energyql.attributes.judge import Judge, replace_networks
from energyql.attributes.predictions import split_outputs
from energyql.attributes.quality import FIRST, HeadReport
from energyql.files import changing, real_path
from energyql.generators.families import CONFIG
from energyql.language import quote
from energyql.numerics.shapes import Float
from energyql.pipeline.source import ModelSource
from energyql.progress import Report
from energyql.teaching.guide import Guide, Latents, fit_guide
from energyql.teaching.reading import Reading
from energyql.training.judge import TrainedJudge, store_judge
from energyql.training.report import report_quality
from energyql.training.run import train_attributes
from energyql.training.settings import TRAIN
from energyql.training.target import opening_target
from energyql.vocabulary import Vocabulary

LESSON = "lesson"
"""Key in the details of a report: the heads are quick ones, of a lesson."""


class Outcome(Protocol):
    """What a lesson writes to its folder, again and again while it goes on.

    Attributes:
        folder: the folder.
        guide: the newest heads; `None` before there are any, and for photographs.
        finished: attributes of the lesson that a complete training has learnt, which quick heads never replace.
        trains: whether there is a complete training.
    """

    folder: Path
    guide: Guide | None
    finished: Sequence[str]
    trains: bool

    def learn(self, reading: Reading, numbers: Sequence[int], progress: Callable[[float], None]) -> None:
        """Fit what `save` writes to what the readers say of the pictures with these numbers."""

    def save(self, reading: Reading, numbers: Sequence[int]) -> bool:
        """Write it; whether there was something to write."""

    def train(self, table: Path, names: Sequence[str], report: Report) -> Mapping[str, str]:
        """Train completely, by all labels; attribute -> what the training said of it."""

    def use(self, attribute: str) -> str:
        """A command that uses what was written."""


@dataclass
class TaughtModel:
    """A model folder that gets heads, verifier and judge.

    Attributes:
        source: the model, as a user named it.
        latents: what heads read of the pictures of the lesson.
    """

    source: ModelSource
    folder: Path
    latents: Latents
    guide: Guide | None = None
    finished: Sequence[str] = ()
    trains: bool = True

    def learn(self, reading: Reading, numbers: Sequence[int], progress: Callable[[float], None]) -> None:
        """Fit heads, if there are pictures enough."""
        self.guide = fit_guide(reading, numbers, self.latents, progress) or self.guide

    def save(self, reading: Reading, numbers: Sequence[int]) -> bool:
        """Write heads and readers, as a training does, without a judge.

        Attributes whose heads a training has written stay as they are: those are better.
        """
        if self.guide is None or not set(self.guide.heads.vocabulary) <= set(reading.vocabulary):
            return False
        heads = self.guide.heads
        with opening_target(self._model(), self.folder) as target:
            kept = {} if target.bank is None else target.bank.reports
            present = () if target.bank is None else target.bank.vocabulary
            trained = {name for name in present if name not in kept or LESSON not in kept[name].details}
            self.finished = [name for name in reading.vocabulary if name in trained]
            names = [name for name in heads.vocabulary if name not in self.finished]
            if names:
                own = heads.fitted
                fitted = target.fitted(own.space, own.truncation, own.condition)  # the folder has a mark of its own
                target.check_latents(fitted)
                specs = Vocabulary(heads.vocabulary[name] for name in names)
                bank = AttributeBank(specs, {name: heads.heads[name] for name in names}, fitted=fitted)
                latents = self.latents.of_wall(numbers)[reading.rows[reading.random]]
                reports, networks = _as_trained(reading, bank, latents)
                with target.changing() as changed:
                    changed.save(bank.with_reports(reports), real_path(self.folder).name, replace=True)
                    store_judge(changed.folder, TRAIN, names, networks)
        return True

    def train(self, table: Path, names: Sequence[str], report: Report) -> Mapping[str, str]:
        """Run `train_attributes`."""
        trained = train_attributes(self._model(), table, self.folder, progress=report, only=names, replace=True)
        self.finished = names
        return trained.verdicts

    def use(self, attribute: str) -> str:
        """Draw pictures with an attribute."""
        return f"energyql generate {shlex.quote(quote(attribute))} --model {shlex.quote(str(self.folder))}"

    def _model(self) -> ModelSource:
        """The model folder, if it is there; else the model that the user named."""
        return replace(self.source, model=self.folder) if (self.folder / CONFIG).is_file() else self.source


@dataclass
class TaughtJudge:
    """A folder that gets a judge, which reads the attributes off the pictures of any model."""

    folder: Path
    guide: Guide | None = None
    finished: Sequence[str] = ()
    trains: bool = False

    def learn(self, reading: Reading, numbers: Sequence[int], progress: Callable[[float], None]) -> None:
        """Nothing: readers have learnt."""

    def save(self, reading: Reading, numbers: Sequence[int]) -> bool:
        """Write the judge."""
        with changing(self.folder) as folder:
            replace_networks(folder, FIRST, reading.vocabulary, [_measured(reading, list(reading.vocabulary))])
        return True

    def train(self, table: Path, names: Sequence[str], report: Report) -> Mapping[str, str]:
        """There is none (`trains`): no generator draws pictures to learn from."""
        raise NotImplementedError

    def use(self, attribute: str) -> str:
        """Let the judge teach a model of pictures like these."""
        return f"energyql train MODEL --labeller {shlex.quote(str(self.folder))} --out FOLDER"


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
    verifier = _measured(reading, names)
    held_out = HeldOut(labels, heads, {name: read[name] for name in names})
    return reports, TrainedJudge(None, {}, "", verifier, verifier.report, held_out)


def _measured(reading: Reading, names: Sequence[str]) -> Judge:
    """The reader of some attributes with the errors that it makes."""
    judge = reading.judge.only(names)
    judge.std.copy_(torch.stack([torch.as_tensor(reading.std[name]) for name in judge.vocabulary]))
    judge.report = {name: reading.reports[name] for name in judge.vocabulary}
    return judge
