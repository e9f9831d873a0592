"""`train_attributes`: label samples of a generator, fit and measure heads (which read latents), and save them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from energyql.attributes.bank import PICTURE, SPACES, Bank
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.held_out import HeldOut
from energyql.attributes.judge import Judge
from energyql.attributes.labels import Column, ImageLabeller, encode_column
from energyql.attributes.pictures import load_bank
from energyql.attributes.predictions import output_count
from energyql.attributes.quality import VERIFIER, HeadReport, JudgeReport, verdicts
from energyql.errors import ArgumentError, DataError, VocabularyError
from energyql.files import real_path
from energyql.generators.base import head_reader
from energyql.language.lexical import shorten
from energyql.numerics.pullback import Identity
from energyql.pipeline.model import choose_device, judge_mark
from energyql.pipeline.settings import whole_number
from energyql.progress import Report, reporting
from energyql.training.bank_fit import HELD_OUT_SHARE, fit_bank, with_labels
from energyql.training.heads import HeadSettings, attribute_loss, train_heads
from energyql.training.judge import (
    TrainedJudge,
    default_judge,
    fit_both,
    fit_reader,
    given_judge,
    store_judge,
    take_judge,
)
from energyql.training.labelled import Labelled
from energyql.training.labels import LabelTable, infer, read_label_table
from energyql.training.samples import LABEL_SEED, Prior, estimate_truncation, extend, label_prior
from energyql.training.settings import AUTO, MOST_PICTURES, TRAIN, TrainOptions, TrainSettings
from energyql.training.steps import StepFile, digest
from energyql.training.target import AnyModel, Target, Task, backbone_name, call_text, opening_target
from energyql.training.teacher import further_pictures, store_teacher
from energyql.vocabulary import Kind, Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Unpack

FIRST_ROUND, ROUNDS = 5_000, 4
"""Pictures that a labeller labels by default in a first round, and most rounds, each of which doubles the number."""
LEAST_GAIN = 0.01
"""Another round follows if the last one lowered the heads' held-out loss by more than this share on average."""
MEASURED = 1_000
"""Number of pictures on which losses are measured after each round: no heads of a round learn from them."""

FINISHED = ".heads"
"""File of intermediate results that names the heads which an interrupted training has already saved."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The result of a training. `Model` takes judge, verifier and `held_out` as arguments.

    Attributes:
        folder: the model folder.
        bank: all heads of the folder, new and old; or, if the space is "picture", the network that reads pictures.
        report: attribute -> quality of the new head on held-out samples.
        judge: reads the new attributes off pictures, to decide whether samples satisfy a query.
        judge_report: attribute -> quality of the judge, see `TrainedJudge.report`.
        judge_unmeasured: why a given judge was not measured, such as "it gave the labels itself"; else "".
        verifier: decides which pictures are kept: networks, or a given judge that is code; `None` for nobody.
        verifier_report: attribute -> quality of the verifier, as in `judge_report`.
        held_out: random samples with predictions of heads and verifier; the last ones have no labels.
    """

    folder: Path
    bank: Bank
    report: Mapping[str, HeadReport]
    judge: ImageLabeller | None = None
    judge_report: Mapping[str, HeadReport] = dataclasses.field(default_factory=dict)
    judge_unmeasured: str = ""
    verifier: ImageLabeller | None = None
    verifier_report: Mapping[str, HeadReport] = dataclasses.field(default_factory=dict)
    held_out: Sequence[HeldOut] = ()

    @property
    def verdicts(self) -> dict[str, str]:
        """Attribute -> what queries may expect of it, such as "ready"; see `verdict_on`."""
        reads = dict.fromkeys(getattr(self.verifier, "vocabulary", self.judge_report))
        decider = None if self.verifier is None else JudgeReport(VERIFIER, reads)
        return verdicts(self.report, self.report, decider)


def train_attributes(
    model: AnyModel,
    labels: LabelTable | str | Path | ImageLabeller,
    out: str | Path | None = None,
    *,
    device: torch.device | str = "auto",
    progress: bool | Report = True,
    command: Sequence[str] | str | None = None,
    **options: Unpack[TrainOptions],
) -> Trained:
    """Fit attribute heads to a generator, and save them into a model folder with a report.

    After an interruption, the same call continues the training, with the same result. The heads are written as soon as
    they are finished, so that the folder is a model while judge and verifier are still trained; until then a new folder
    is no model, and an old one is unchanged. Heads that the folder already has stay exactly as they are.

    Args:
        model: a packaged model, a model folder, a checkpoint of any supported kind, or a generator of your own, as an
            object or by name. A name is `module:factory`, where the factory is a class or a function without arguments,
            or the name of an installed plugin; the folder then records the name. For a folder that names code, a
            `ModelSource` says which generator to use, or that the code may be imported.
        labels: a `LabelTable`, the file name of a CSV or Parquet table (see `read_label_table`), or a labeller: a
            function or torch module that labels pictures (see `ImageLabeller`).
        out: the model folder to make or to add to; by default the folder of `model`.
        device: where pictures are drawn and heads are fitted: "cpu", "cuda" or "mps"; "auto" is a GPU if there is one.
        progress: whether to show progress bars, or a function that is called with the stage and the fraction done.
        command: the command that messages propose to continue an interrupted training: words of the command line after
            `energyql`, or a text; by default this call.
        options: fields of `TrainSettings` by name, such as `n`, `only` or `judge`.

    Raises:
        EnergyQLError: files, labels and model do not fit together; the message says what to do.
        KeyboardInterrupt: by Ctrl-C; the message lists the finished steps, and says how to continue.
    """
    asked = TrainSettings(**options)
    only, space, condition, judge = asked.only, asked.space, asked.condition, asked.judge
    by_hand = not callable(labels) and space != PICTURE
    n = None if asked.n is None else whole_number("n", asked.n, least=0 if by_hand else 1)
    if space not in (None, PICTURE, *SPACES):
        raise ArgumentError(f"heads read one of {', '.join(SPACES)}, not {space!r}; {PICTURE} is for a network")
    if isinstance(labels, str | Path):
        labels = read_label_table(Path(labels))
    table = labels if isinstance(labels, LabelTable) else None
    features = backbone_name(asked.features, labels)
    if isinstance(judge, str) and judge == AUTO:
        judge = default_judge(labels)
    given = given_judge(judge)  # before any work is done
    own = getattr(labels, "vocabulary", None)
    own = own if isinstance(own, Vocabulary) else None
    names = list((own or ()) if table is None else table.columns) if only is None else list(only)
    choose = partial(_infer, only=only, kinds=asked.kinds, vocabulary=asked.vocabulary or own)
    psi, seed, drawn = _range(asked.truncation), asked.seed, None if table is None else table.drawn or table.beside
    if table is not None and drawn is not None:
        same = None if psi is None else psi[0] if psi[0] == psi[1] else psi
        drawn.check(table.source, seed=asked.seed, truncation=same, condition=condition)
        seed, psi, condition = drawn.seed, (drawn.truncation, drawn.truncation), drawn.condition
    command = command or call_text("train_attributes", model, out)
    with opening_target(model, out, None if psi is None else psi[1], command) as target:
        if table is None and not callable(labels):
            raise ArgumentError(f"labels are a table, its file name, or a labeller, not {shorten(repr(labels))}")
        if table is not None and drawn is not None:
            drawn.check_generator(target.generator, table.source)
            if table.test == 0:
                raise DataError(f"{table.source} has too few random pictures to measure heads on")
        space = space or target.space
        head_reader(target.generator, space, Identity())  # raises before any picture is labelled
        seed = seed if seed is not None else LABEL_SEED if table is None else 0
        prior = target.prior(seed, target.fitted(space, psi or (1.0, 1.0), condition), choose_device(device))
        if psi is None:
            prior = prior.under(truncation=_default_truncation(target, table, prior))
        target.check_latents(prior.fitted)
        most = MOST_PICTURES if n is None else min(n, MOST_PICTURES)
        described = None if asked.vocabulary is None else asked.vocabulary.to_dict()
        how = (
            _identity(labels),
            seed,
            prior.fitted,
            prior.device.type,
            only,
            asked.kinds,
            described,
            n,
            asked.settings,
            features,
        )
        finished = StepFile(target.work.folder / FINISHED, digest(how))
        new = _finished(target.bank, finished)
        if new is None:
            target.check_names(names, asked.replace)
        trained = TrainedJudge(None, {})
        with reporting(progress) as report:
            task = Task(target, prior, labels, report, features)
            later = judge == TRAIN and task.has_pictures  # when the heads are in the folder
            if new is None:
                second: Mapping[str, Head] = {}
                networks: Sequence[Judge] = ()
                bank: Bank
                if space == PICTURE:
                    bank = fit_reader(task, choose, most)
                else:
                    settings = asked.settings or HeadSettings()
                    columns = table.columns if table is not None else _label(
                        task, n, choose, settings,
                        lambda attributes: target.check_names(names if only is not None else attributes, asked.replace),
                    )  # fmt: skip
                    latents, specs = _latents(prior, table, len(next(iter(columns.values())))), choose(columns)
                    bank, second, networks = fit_bank(
                        task,
                        latents,
                        columns,
                        specs,
                        further=further_pictures(task, n, previews=True),
                        settings=settings,
                    )
                    most = min(len(latents), MOST_PICTURES)
                if notes := getattr(labels, "calibrations", None):
                    bank.reports = {
                        name: dataclasses.replace(each, details={**each.details, "reader": notes[name]})
                        for name, each in bank.reports.items()
                    }
                new = list(bank.vocabulary)
                if given is not None:
                    trained = take_judge(given, task, bank, most)
                with target.changing() as changed:
                    changed.save(bank, real_path(target.folder).name, replace=asked.replace, second=second)
                    store_judge(changed.folder, judge, new, trained)
                    store_teacher(changed.folder, networks)
                    finished.write_json({"names": new, "weights": _weights(load_bank(changed.folder), new)})
            merged = load_bank(target.folder)
            if later:
                trained = fit_both(task, merged, most, new, further=n)
                with target.changing() as changed:
                    store_judge(changed.folder, judge, new, trained)
        return Trained(
            target.folder, merged, {name: merged.reports[name] for name in new}, trained.judge, trained.report,
            trained.unmeasured, trained.verifier, trained.verifier_report,
            () if trained.held_out is None else (trained.held_out,),
        )  # fmt: skip


def _finished(bank: Bank | None, file: StepFile) -> list[str] | None:
    """Attributes whose heads an interrupted training has saved; `None` if none, or if they have changed since."""
    record = file.read_json()
    if record is None or bank is None or not set(record["names"]) <= set(bank.vocabulary):
        return None
    names: list[str] = record["names"]
    return names if _weights(bank, names) == record["weights"] else None


def _weights(bank: Bank, names: Sequence[str]) -> str:
    """Digest of the heads of some attributes, or of the network that reads pictures."""
    if isinstance(bank, AttributeBank):
        return digest(names, *(tensor for name in names for tensor in bank.heads[name].tensors().values()))
    return digest(names, *bank.reader.state_dict().values())


def _identity(labels: LabelTable | ImageLabeller) -> str:
    """Text that differs for different labels."""
    if not isinstance(labels, LabelTable):
        return judge_mark(labels)
    tensors = [tensor for tensor in (labels.index, labels.latents) if tensor is not None]
    return digest({name: list(cells) for name, cells in labels.columns.items()}, *tensors)


def _label(
    task: Task,
    count: int | None,
    choose: Callable[[Mapping[str, Column]], Vocabulary],
    settings: HeadSettings,
    check: Callable[[list[str]], None],
) -> dict[str, Column]:
    """Label the first prior samples, in rounds for as long as heads gain by it if `count` is `None`.

    `check` gets the names of the attributes after the first pictures, and may raise an error to stop a wrong training.
    """
    columns: dict[str, list[Any]] = {}
    before: dict[str, float] = {}
    ends = [count] if count is not None else [FIRST_ROUND << k for k in range(ROUNDS)]
    for start, end in zip([0, *ends], ends, strict=False):
        index = torch.arange(start, end)
        with task.target.work.step("labels") as folder:
            part = label_prior(
                task.prior, index, task.labels, folder if count is not None else folder / str(end),  # type: ignore[arg-type]
                check=check, progress=task.progress("labelling"),
            )  # fmt: skip
        extend(columns, part)
        if end == ends[-1]:
            break
        now = _held_out_losses(task, columns, choose(columns), settings)
        gains = [1 - loss / before[name] for name, loss in now.items() if before.get(name)]
        # More labels gain nothing that can be measured if no head can be, or if the losses were 0 already.
        if not now or (start and sum(gains) <= LEAST_GAIN * len(gains)):
            break
        before = now
    return dict(columns)


def _held_out_losses(
    task: Task, columns: Mapping[str, Column], specs: Vocabulary, settings: HeadSettings
) -> dict[str, float]:
    """Losses (nats) on the first `MEASURED` samples of heads fitted to the others, if they have enough labels."""
    labels = {name: encode_column(columns[name], spec, "the labeller") for name, spec in specs.items()}
    fitted, count = {name: numbers[MEASURED:] for name, numbers in labels.items()}, len(next(iter(columns.values())))
    specs = with_labels(with_labels(specs, labels, MEASURED), fitted, int((count - MEASURED) * (1 - HELD_OUT_SHARE)))
    if not specs:
        return {}
    latents = _latents(task.prior, None, count)
    labelled, course = Labelled(latents[MEASURED:], fitted, specs), task.course("enough labels?", None, task.prior.seed)
    bank, _ = train_heads(labelled, settings, course, held_out=HELD_OUT_SHARE, fitted=task.prior.fitted)
    with torch.no_grad():
        predictions = bank.predict(latents[:MEASURED])
    return {
        name: attribute_loss(predictions[name].columns()[:, : output_count(spec)], labels[name][:MEASURED], spec).item()
        for name, spec in specs.items()
    }


def _infer(
    columns: Mapping[str, Column],
    *,
    only: Sequence[str] | None,
    kinds: Mapping[str, Kind] | None,
    vocabulary: Vocabulary | None,
) -> Vocabulary:
    """Infer the attributes to train; raise an error for names in `only` without labels."""
    if only is not None and not only:
        raise DataError("only names no attribute", hint="name one, or leave only out for all")
    if unknown := [name for name in only or () if name not in columns]:
        raise VocabularyError(f"there are no labels for {unknown[0]!r}", hint=f"labels: {', '.join(columns)}")
    return infer({name: columns[name] for name in only or columns}, kinds, vocabulary)


def _range(truncation: float | tuple[float, float] | None) -> tuple[float, float] | None:
    """Range (low, high) of a truncation psi: a number is both; raise an `ArgumentError` outside 0 to 2."""
    if truncation is None:
        return None
    ends = truncation if isinstance(truncation, tuple) else (truncation, truncation)
    with suppress(TypeError, ValueError):
        low, high = map(float, ends)
        if not isinstance(truncation, str) and 0 <= low <= high <= 2:
            return low, high
    raise ArgumentError(f"truncation is a number or a range (low, high) in 0 to 2, not {truncation!r}")


def _default_truncation(target: Target, table: LabelTable | None, prior: Prior) -> tuple[float, float]:
    """Default range of psi: estimated from the table's w if there are no heads yet, else `Target.psi`."""
    if target.bank is None and table is not None and table.latents is not None and prior.fitted.space == "w":
        psi = estimate_truncation(prior, table.latents, table.source)
        return psi, psi
    return target.psi


def _latents(prior: Prior, table: LabelTable | None, count: int) -> Tensor:
    """Latents of the labelled samples as input of heads, (n, latent_dim): the table's, or those of prior samples."""
    index, space = torch.arange(count), prior.fitted.space
    if table is None:
        return prior.read(index, space)
    if table.latents is not None:
        name, first = "w" if space == "w" else "z", index[:1]
        own = (prior.w(first) if space == "w" else prior.z(first)).shape[1]
        if table.latents.shape[1] != own:
            raise DataError(f"{table.source}: latents of {table.latents.shape[1]} numbers, but {name} has {own}")
        return table.latents if space == "w" else prior.view(table.latents, space)
    prior.check_single()
    return prior.read(table.pictures, space)
