"""Training and measuring of judges: networks that read pictures and decide what holds in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from energyql.attributes.bank import Bank
from energyql.attributes.judge import Judge, replace_judge
from energyql.attributes.labels import (
    Column,
    ImageLabeller,
    call_labeller,
    encode_column,
    import_labeller,
    known_cells,
    label_images,
    labeller_name,
    read_images,
)
from energyql.attributes.predictions import PREDICTIONS, Prediction, output_count
from energyql.attributes.quality import HeadReport, JudgeReport, replace_given
from energyql.errors import ArgumentError, DataError, ModelError
from energyql.generators.base import RANDOM, Generator
from energyql.generators.families import CONFIG
from energyql.numerics.shapes import Float
from energyql.pipeline.model import judge_mark, record_judge
from energyql.progress import Report, reporting
from energyql.training.labels import LabelTable, read_label_table
from energyql.training.picture_fit import PictureSettings, fit_judge
from energyql.training.report import report_quality
from energyql.training.samples import LABEL_SEED, PICTURES, Prior, draw_thumbnails, label_prior
from energyql.training.target import Target, call_text, opening_target
from energyql.vocabulary import AttributeSpec, Vocabulary

MOST_TESTS = 1_000
"""Most pictures that a judge is measured on: an interval of balanced accuracy is then about 0.05 wide."""
VALUE, OUTPUTS = "energyql/value/", "energyql/outputs/"
"""Beginnings of the columns of what a judge reads, which no attribute can be called."""


def unmeasured(judge: ImageLabeller, labels: LabelTable | ImageLabeller) -> str | None:
    """Return why a judge cannot be measured by these labels, or `None` if it can."""
    if isinstance(labels, LabelTable):
        return "it is not known which pictures the labels are about" if labels.index is None else None
    return "it gave the labels itself" if labeller_name(judge) == labeller_name(labels) else None


def measure_judge(
    judge: ImageLabeller,
    target: Target,
    prior: Prior,
    labels: LabelTable | ImageLabeller,
    vocabulary: Vocabulary,
    *,
    count: int = MOST_TESTS,
    report: Report,
) -> dict[str, HeadReport]:
    """Draw pictures whose labels are known, let a judge read them, and report on its quality.

    A judge that is given has learnt from none of these labels, so all random pictures of a table measure it. Pictures
    for a labeller have another seed than those of the heads. The intermediate results are in the folder of the target,
    for a resumption.

    Args:
        judge: a function or a network that reads pictures.
        target: the model folder.
        prior: of the labelled pictures.
        labels: their numbers and labels, or a labeller.
        vocabulary: the attributes.
        count: most pictures.
        report: told the progress.

    Returns:
        By attribute, for those that the judge reads and that have labels; nothing if `unmeasured`.

    Raises:
        DataError: the judge returns no value of an attribute for some picture, or one that the attribute cannot have.
    """
    if unmeasured(judge, labels) is not None:
        return {}
    count, columns, labeller = min(count, MOST_TESTS), {}, None
    if isinstance(labels, LabelTable):
        assert labels.index is not None
        rows = slice(max(labels.learned, len(labels.index) - count), None)
        index = labels.index[rows]
        columns = {name: cells[rows] for name, cells in labels.columns.items()}
    else:
        prior, index, labeller = replace(prior, seed=prior.seed + 1), torch.arange(count), labels
    with target.work.step("readings of the judge") as folder:
        read = label_prior(
            prior, index, _Reader(labeller, judge, vocabulary, index), folder,
            progress=lambda done: report("judge", done),
        )  # fmt: skip
    columns = columns or read
    specs = Vocabulary(
        spec for name, spec in vocabulary.items() if name in columns and {VALUE + name, OUTPUTS + name} & set(read)
    )
    answers = {name: encode_column(known_cells(columns[name], spec), spec) for name, spec in specs.items()}
    predictions = {name: _prediction(read, spec) for name, spec in specs.items()}
    return report_quality(predictions, answers, specs, {name: torch.empty(0) for name in specs})


class _Reader:
    """A labeller that adds what a judge reads off each picture to the labels of another labeller.

    Values are cells. Predictions are kept whole, as texts of numbers, so that their probabilities can be measured.

    Args:
        labeller: the other one; `None` where the labels are known.
        judge: the judge.
        vocabulary: the attributes.
        index: the pictures, which identify what is read, for the resumption.
    """

    def __init__(self, labeller: ImageLabeller | None, judge: ImageLabeller, vocabulary: Vocabulary, index: Tensor):
        self.labeller, self.judge, self.vocabulary = labeller, judge, vocabulary
        names = "" if labeller is None else labeller_name(labeller)
        self.identity = f"judge {judge_mark(judge)} {index.tolist()} {vocabulary.to_dict()} {names}"

    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, list[Any]]:
        """Return labels and readings of pictures in [-1, 1]."""
        found = {} if self.labeller is None else label_images(self.labeller, images)
        read = call_labeller(self.judge, images, "the judge")
        values = read_images(lambda _: read, images, self.vocabulary)
        for name, decided in values.items():
            prediction, spec = read[name], self.vocabulary[name]
            if isinstance(prediction, Prediction) and PREDICTIONS[spec.kind].fits(prediction, spec):
                rows = prediction.columns().double().cpu().tolist()
                found[OUTPUTS + name] = [" ".join(map(str, row)) for row in rows]
            else:  # values without probabilities
                found[VALUE + name] = decided.tolist()
        return found


def _prediction(read: Mapping[str, Column], spec: AttributeSpec) -> Prediction | Tensor:
    """Return what a judge read of an attribute, from the columns of `_Reader`."""
    if VALUE + spec.name in read:
        return encode_column(read[VALUE + spec.name], spec, "the judge")
    cells = read[OUTPUTS + spec.name]
    outputs = torch.tensor([[float(number) for number in cell.split()] for cell in cells])
    return PREDICTIONS[spec.kind].of_outputs(outputs[:, : output_count(spec)], spec, outputs[:, -1])


def given_judge(judge: ImageLabeller | str) -> ImageLabeller:
    """Return a judge that is given as itself or by its name."""
    return import_labeller(judge) if isinstance(judge, str) else judge


def code_report(name: str | None, judge: ImageLabeller, reports: Mapping[str, HeadReport]) -> JudgeReport:
    """Return the report on a judge that is code, for its model folder."""
    shown = name or labeller_name(judge).partition("\n")[0]
    return JudgeReport(shown, reports, judge_mark(judge))


MOST_PICTURES = 5_000
"""Most pictures that a judge is trained on, unless a call says otherwise."""
TRAIN: Final = "train"
"""The judge of a training that makes one of its own."""


@dataclass(frozen=True)
class TrainedJudge:
    """The outcome of the training of a judge.

    Attributes:
        judge: reads the attributes that it learnt, or the judge that was given; `None` if it learnt none.
        report: its quality on labels of pictures that it did not learn from, by attribute; of a judge that was trained,
            also of what it could not learn.
        unmeasured: why a judge that was given has no report; "" if it was measured.
    """

    judge: ImageLabeller | None
    report: Mapping[str, HeadReport]
    unmeasured: str = ""


@dataclass(frozen=True)
class JudgeTask:
    """What a judge learns from, or is measured on.

    Attributes:
        target: the model folder, which also holds intermediate results for a resumption.
        prior: of the labelled pictures.
        labels: their numbers and labels, or a labeller.
        vocabulary: attributes of the model.
        count: pictures for a labeller.
        only: attributes to judge, all by default.
    """

    target: Target
    prior: Prior
    labels: LabelTable | ImageLabeller
    vocabulary: Vocabulary
    count: int
    only: Sequence[str] | None = None


def train_judge(
    model: str | Path | Generator,
    labels: LabelTable | str | Path | ImageLabeller,
    out: str | Path | None = None,
    *,
    only: Sequence[str] | None = None,
    count: int = MOST_PICTURES,
    seed: int | None = None,
    generator: str | None = None,
    allow_plugins: bool = False,
    judge: ImageLabeller | str = TRAIN,
    settings: PictureSettings | None = None,
    device: torch.device | str = "cpu",
    progress: bool | Report = True,
    command: Sequence[str] | str | None = None,
) -> TrainedJudge:
    """Train a judge of a model that has heads, and store it in the folder, where `load_model` finds it.

    The judge reads pictures, so it is independent of the heads, which read latents. It replaces the judge of the
    attributes that are labelled; judges of other attributes stay. After an interruption, the same call continues.

    Args:
        model: as for `train_attributes`.
        labels: as for `train_attributes`: a function or torch module, or a table with the numbers of pictures.
        out: the model folder; by default that of `model`.
        only: attributes to judge; by default those of the labels that the model has.
        count: pictures for a labeller; they are not those that heads are fitted to.
        seed: of the samples. By default that of the table, if it says so, else 0 for a table; it must be that of the
            pictures that were labelled.
        generator: name of the generator's code, for a model folder that only names it.
        allow_plugins: whether to import the generator that the model folder names.
        judge: a judge that is given, as for `train_attributes`, is not trained but measured on the labels.
        settings: of the fit.
        device: where pictures are drawn and the judge is trained.
        progress: show progress bars, or a function that is told the progress.
        command: as for `train_attributes`.

    Returns:
        The judge and a report on it.

    Raises:
        EnergyQLError: files, labels and model do not fit together; the message says what to do.
        KeyboardInterrupt: as for `train_attributes`.
    """
    if isinstance(labels, str | Path):
        labels = read_label_table(Path(labels))
    given = None if judge == TRAIN else given_judge(judge)  # before any picture is drawn
    with opening_target(
        model, out, generator=generator, allow_plugins=allow_plugins,
        command=command or call_text("train_judge", model, out),
    ) as target:  # fmt: skip
        if target.bank is None:
            raise ModelError(
                f"{target.folder} has no attributes to judge", hint="train some first, with energyql train"
            )
        bank = target.bank
        if only is not None and (not only or (unknown := [name for name in only if name not in bank.vocabulary])):
            raise DataError(
                f"there is no attribute {unknown[0]!r} to judge" if only else "only names no attribute",
                hint=f"the model has {', '.join(bank.vocabulary)}",
            )
        if isinstance(target.generator, torch.nn.Module):
            target.generator.to(device).eval()
        prior = _prior(target, bank, labels, seed, torch.device(device))
        with reporting(progress) as report:
            task = JudgeTask(target, prior, labels, bank.vocabulary, count, only)
            trained = own_judge(given, task, settings, report=report)
        names = trained.report if given is None else [name for name in bank.vocabulary if only is None or name in only]
        with target.changing() as changed:
            store_judge(changed.folder, judge, names, trained)
    return trained


def _prior(
    target: Target, bank: Bank, labels: LabelTable | ImageLabeller, seed: int | None, device: torch.device
) -> Prior:
    """Return the samples that labels of a model with heads are about.

    Raises:
        EnergyQLError: a table is about other pictures than those for which the heads are valid.
    """
    fitted = replace(bank.fitted, generator=target.fingerprint)
    if not isinstance(labels, LabelTable):
        return Prior(target.generator, LABEL_SEED if seed is None else seed, fitted, device)
    label, (low, high) = fitted.label, fitted.truncation
    if (drawn := labels.drawn or labels.beside) is not None:
        drawn.check(labels.source, seed=seed, truncation=None, label=None)
        drawn.check_generator(target.generator, labels.source)
        seed, psi = drawn.seed, drawn.truncation
        if not fitted.holds_at(psi) or label not in (RANDOM, drawn.label):
            raise ArgumentError(
                f"{labels.source} is about pictures of truncation {psi:g} and label {drawn.label}; the heads "
                f"of {target.folder} were fitted at truncation {low:g} to {high:g} under label {label}",
                hint="label pictures of the model that is to be judged",
            )
        fitted = replace(fitted, truncation=(psi, psi), label=drawn.label)
    elif low != high or label == RANDOM:
        raise ArgumentError(
            "pictures that were labelled by hand have one truncation and one class label, and the heads were fitted to "
            "pictures of several",
            hint="label pictures that energyql sample draws, whose table says how they were drawn",
        )
    return Prior(target.generator, seed or 0, fitted, device)


def store_judge(folder: Path, name: ImageLabeller | str | None, names: Iterable[str], trained: TrainedJudge) -> None:
    """Let a judge that was trained or given read the attributes `names` of a model folder.

    A network is stored. Of code, the folder holds the report, and the name if `name` is one and the folder is a model.
    """
    if isinstance(trained.judge, Judge) or trained.judge is None:
        replace_judge(folder, names, trained.judge)
        replace_given(folder, names, None)
        return
    known = name if isinstance(name, str) else None
    replace_given(folder, names, code_report(known, trained.judge, trained.report))
    if known is not None and (folder / CONFIG).is_file():
        record_judge(folder, known)


def own_judge(
    given: ImageLabeller | None, task: JudgeTask, settings: PictureSettings | None = None, *, report: Report
) -> TrainedJudge:
    """Measure the judge that is given, or fit one; see `measure_judge` and `fit_own_judge`."""
    if given is None:
        return fit_own_judge(task, settings or PictureSettings(), report=report)
    specs = Vocabulary(spec for name, spec in task.vocabulary.items() if task.only is None or name in task.only)
    found = measure_judge(given, task.target, task.prior, task.labels, specs, count=task.count, report=report)
    if isinstance(given, Judge):
        given = given.only(specs)
        given.report = found
    return TrainedJudge(given, found, unmeasured(given, task.labels) or "")


def have_pictures(labels: LabelTable | ImageLabeller) -> bool:
    """Whether it is known which pictures the labels are about: those of a labeller, or of a table of their numbers."""
    return not isinstance(labels, LabelTable) or labels.index is not None


def fit_own_judge(task: JudgeTask, settings: PictureSettings, *, report: Report) -> TrainedJudge:
    """Fit a judge of attributes of the model; see `fit_on_pictures`.

    Raises:
        DataError: as there, or the labels are about no attribute of the model.
    """
    labels = task.labels
    if isinstance(labels, LabelTable) and have_pictures(labels):
        _learnable(task, labels.columns)  # before any picture is drawn
    fitted = fit_on_pictures("judge", task, partial(_learnable, task), settings, apart=1, report=report)
    return TrainedJudge(*fitted)


def fit_on_pictures(
    name: str,
    task: JudgeTask,
    learnable: Callable[[Mapping[str, Column]], Vocabulary],
    settings: PictureSettings | None = None,
    *,
    apart: int,
    report: Report,
) -> tuple[Judge | None, Mapping[str, HeadReport]]:
    """Draw pictures of the prior, label them if they are not, and fit a network that reads attributes off them.

    Args:
        name: of the network, for the progress and the files of a resumption.
        task: what to learn from; its vocabulary is not used.
        learnable: from the labels by name to the attributes to learn.
        settings: of the fit; the defaults if None.
        apart: how far the seeds of the network, and of pictures for a labeller, are from that of the heads.
        report: told the progress.

    Returns:
        As for `fit_judge`.

    Raises:
        DataError: it is not known which pictures the labels are about, or they are of no use.
    """
    settings, prior, labels, work = settings or PictureSettings(), task.prior, task.labels, task.target.work
    if not have_pictures(labels):
        raise DataError(
            "the labels are about latents, and a judge learns from pictures",
            hint="label pictures by their number (the column index), or with a function",
        )
    index, labeller, drawn = torch.arange(task.count), None, PICTURES
    if isinstance(labels, LabelTable):
        assert labels.index is not None
        index = labels.index
    else:
        prior, labeller = replace(prior, seed=prior.seed + apart), labels
        drawn = f"{PICTURES} for the {name}"
    with work.step(drawn) as folder:
        pictures, columns = draw_thumbnails(prior, index, settings.side, folder, labeller=labeller, report=report)
    columns = dict(labels.columns) if isinstance(labels, LabelTable) else columns
    specs = learnable(columns)
    answers = {
        attribute: encode_column(known_cells(columns[attribute], spec), spec) for attribute, spec in specs.items()
    }
    with work.step(name) as checkpoint:
        return fit_judge(
            pictures, answers, specs, settings, seed=(prior.seed + apart) % 2**63, device=prior.device,
            checkpoint=checkpoint, progress=lambda done: report(name, done),
        )  # fmt: skip


def _learnable(task: JudgeTask, columns: Iterable[str]) -> Vocabulary:
    """Return the attributes that a judge learns from labels with these names."""
    known = task.vocabulary
    names = [name for name in known if name in columns and (task.only is None or name in task.only)]
    if not names or (task.only is not None and not set(task.only) <= set(names)):
        raise DataError(
            f"the labels are about {', '.join(columns)}; the model has {', '.join(known)}",
            hint="a judge needs labels of attributes that the model has",
        )
    return Vocabulary(known[name] for name in names)
