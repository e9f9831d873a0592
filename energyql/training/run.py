"""`train_attributes`: label samples of a generator, fit and measure heads (which read latents), and save them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.bank import PICTURE, SPACES, Bank
from energyql.attributes.heads import Head
from energyql.attributes.held_out import HeldOut
from energyql.attributes.judge import Judge
from energyql.attributes.labels import Column, ImageLabeller, encode_column
from energyql.attributes.pictures import load_bank
from energyql.attributes.predictions import output_count
from energyql.attributes.quality import HeadReport
from energyql.errors import ArgumentError, DataError, VocabularyError
from energyql.files import real_path
from energyql.generators.base import Generator, head_reader
from energyql.language.lexical import shorten
from energyql.numerics.pullback import Identity
from energyql.pipeline.model import choose_device, judge_mark
from energyql.pipeline.settings import whole_number
from energyql.progress import Report, reporting
from energyql.renamed import takes_label
from energyql.training.bank_fit import HELD_OUT_SHARE, fit_bank, fit_heads, with_labels
from energyql.training.heads import HeadSettings, attribute_loss
from energyql.training.judge import (
    MOST_PICTURES,
    TRAIN,
    TrainedJudge,
    fit_reader,
    given_judge,
    own_judge,
    store_judge,
)
from energyql.training.labels import LabelTable, infer, read_label_table
from energyql.training.samples import LABEL_SEED, Prior, estimate_truncation, extend, label_prior
from energyql.training.steps import StepFile, digest
from energyql.training.target import Source, Target, Task, call_text, opening_target
from energyql.training.teacher import further_pictures, store_teacher
from energyql.vocabulary import Kind, Vocabulary

FIRST_ROUND, ROUNDS = 5_000, 4
"""By default, a labeller (a function or network) labels pictures for heads in at most `ROUNDS` rounds. After the first
round there are `FIRST_ROUND` labelled pictures. Each further round doubles their number, up to 40,000. The rounds end
earlier if the heads gain little by the last round."""
LEAST_GAIN = 0.01
"""Another round of labelling follows only if the last round has lowered the held-out loss of the heads by more than
this share, on average."""
MEASURED = 1_000
"""Number of labelled pictures on which the loss of heads is measured after each round. No heads of a round learn from
them, so the losses of two rounds can be compared."""

FINISHED = ".heads"
"""File of an interrupted training, in its folder of intermediate results. It names the heads that the training has
already saved in the model folder."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        folder: the model folder.
        bank: all heads of the folder, new and old; or, if the space is "picture", the network that reads pictures.
        report: attribute -> quality of the new head on held-out samples.
        judge: network or function that reads the new attributes off pictures, to decide whether samples satisfy a
            query; `None` if there is none. `Model` takes it as an argument.
        judge_report: attribute -> quality of the judge on labels of pictures that it did not learn from. The report of
            a trained judge has also attributes that the judge could not learn. Without a measured judge, the report is
            empty.
        judge_unmeasured: the reason why a given judge was not measured, such as "it gave the labels itself"; else "".
        verifier: network that decides which pictures are kept; `None` if none was trained. `Model` takes it as an
            argument.
        verifier_report: attribute -> quality of the verifier, as in `judge_report`.
        held_out: random samples with predictions of heads and verifier; the last ones have no labels. `Model` takes
            them as an argument.
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


@takes_label
def train_attributes(
    model: str | Path | Generator,
    labels: LabelTable | str | Path | ImageLabeller,
    out: str | Path | None = None,
    *,
    vocabulary: Vocabulary | None = None,
    kinds: Mapping[str, Kind] | None = None,
    only: Sequence[str] | None = None,
    count: int | None = None,
    space: str | None = None,
    truncation: float | tuple[float, float] | None = None,
    condition: int | Sequence[float] | str | None = None,
    seed: int | None = None,
    replace: bool = False,
    generator: str | None = None,
    allow_plugins: bool = False,
    judge: ImageLabeller | str | None = TRAIN,
    settings: HeadSettings | None = None,
    device: torch.device | str = "cpu",
    progress: bool | Report = True,
    command: Sequence[str] | str | None = None,
) -> Trained:
    """Fit attribute heads to a generator, and save them into a model folder with a report.

    After an interruption, the same call continues the training, with the same result as without the interruption. The
    heads are written to the folder as soon as they are finished, so that the folder is a model without a judge while
    judge and verifier are trained. Until the heads are finished, a new folder is no model, and an old folder is still
    the old model. Heads that the folder already has stay exactly as they are.

    Args:
        model: a packaged model, a model folder, a checkpoint of any supported kind, or a generator of your own, as an
            object or by name. A name is `module:factory`, where the factory is a class or a function without arguments,
            or the name of an installed plugin; the folder then records the name.
        labels: a `LabelTable`, the file name of a CSV or Parquet table (see `read_label_table`), or a labeller: a
            function or torch module that labels pictures (see `ImageLabeller`).
        out: the model folder to make or to add to; by default the folder of `model`.
        vocabulary: the attributes; inferred from the labels by default.
        kinds: attribute -> kind, for attributes whose kind is not inferred.
        only: attributes to train; all by default.
        count: with a labeller, the number of pictures that it labels. By default, the labeller labels 5,000 pictures in
            a first round, and each further round doubles the number of labelled pictures, up to 40,000. The rounds end
            earlier if a round lowers the held-out loss of the heads by at most 1 %, or if there are too few labels to
            measure this loss for any head. With a table that has numbers of pictures, `count` is the number of further
            pictures that a teacher labels. A teacher is a set of networks that learn from the table and label further
            pictures, so that heads have more labels. By default, the teacher labels 8,000 pictures if pictures have at
            most 128 pixels a side, and none if pictures are larger, because drawing takes long then. 0 is for no
            teacher.
        space: the latent that heads read: "w"; "z"; "direction", which is z scaled to unit second moment, on which the
            pictures of a StyleGAN depend; or "features", numbers that the generator computes from z for heads (see
            `ViewedGenerator.features`). By default the space of the model's other heads; without heads, "features" if
            the generator has features, else "w". If a table contains latents, they must be w for "w", and z for the
            other spaces. With "picture", a network that reads pictures is fitted in place of heads (see `PictureBank`);
            a labeller labels at most 5,000 pictures for the network.
        truncation: truncation psi of the samples, or a range (low, high) from which a psi is drawn for each sample. By
            default the first of these that exists: the psi of the pictures, if the table or its folder states how they
            were drawn; the range of the model's other heads; the psi that is estimated from w in a table; the psi of
            the model.
        condition: for a conditional generator: the class of all pictures, or as many numbers as there are classes; or
            "random" for a random class of each picture, and heads that are valid for every class. By default the
            condition of the pictures, if the table or its folder states it, else the condition of the model's other
            heads.
        seed: seed of the samples; picture i of `sample_pictures(seed=...)` is drawn from sample i. By default the seed
            that the table or its folder states, else 0. For a labeller, by default 2**32, so that it labels no pictures
            that users draw with small seeds.
        replace: whether new heads may replace old heads of the same attributes.
        generator: name of the generator's code, for a model folder that only names it.
        allow_plugins: whether to import the generator that the model folder names.
        judge: a judge reads the new attributes off pictures, and decides whether samples satisfy a query. By default a
            judge is trained, if the labels are about pictures. The judge learns from the labels of the table, or from
            labels of other pictures by the labeller. A judge that you give is not trained, but measured on labels of
            pictures. It is a `Judge` from another folder, which is stored; the name of code, `module:function` or a
            plugin, which is recorded; or a function or torch module, which cannot be stored and must be given to
            `load_model` again. `None` is for no judge.
        settings: settings of the fit of the heads.
        device: where pictures are drawn and heads are fitted.
        progress: whether to show progress bars, or a function that is called with the stage and the fraction done.
        command: the command that messages propose to continue an interrupted training: words of the command line after
            `energyql`, or a text; by default this call.

    Returns:
        The folder, all heads of the model, a report on the new heads, and the judge.

    Raises:
        EnergyQLError: files, labels and model do not fit together; the message says what to do.
        KeyboardInterrupt: by Ctrl-C; the message lists the finished steps, and says how to continue.
    """
    by_hand = not callable(labels) and space != PICTURE
    count = None if count is None else whole_number("count", count, least=0 if by_hand else 1)
    if space not in (None, PICTURE, *SPACES):
        raise ArgumentError(f"heads read one of {', '.join(SPACES)}, not {space!r}; {PICTURE} is for a network")
    if isinstance(labels, str | Path):
        labels = read_label_table(Path(labels))
    table = labels if isinstance(labels, LabelTable) else None
    given = given_judge(judge)  # before any work is done
    own = getattr(labels, "vocabulary", None)
    own = own if isinstance(own, Vocabulary) else None
    names = list((own or ()) if table is None else table.columns) if only is None else list(only)
    choose = partial(_infer, only=only, kinds=kinds, vocabulary=vocabulary or own)
    psi, drawn = _range(truncation), None if table is None else table.drawn or table.beside
    if table is not None and drawn is not None:
        same = None if psi is None else psi[0] if psi[0] == psi[1] else psi
        drawn.check(table.source, seed=seed, truncation=same, condition=condition)
        seed, psi, condition = drawn.seed, (drawn.truncation, drawn.truncation), drawn.condition
    source, command = Source(model, generator, allow_plugins), command or call_text("train_attributes", model, out)
    with opening_target(source, out, None if psi is None else psi[1], command) as target:
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
        most = MOST_PICTURES if count is None else min(count, MOST_PICTURES)
        described = None if vocabulary is None else vocabulary.to_dict()
        how = (_identity(labels), seed, prior.fitted, prior.device.type, only, kinds, described, count, settings)
        finished = StepFile(target.work.folder / FINISHED, digest(how))
        new = _finished(target.bank, finished)
        if new is None:
            target.check_names(names, replace)
        trained = TrainedJudge(None, {})
        with reporting(progress) as report:
            task = Task(target, prior, labels, report)
            later = judge == TRAIN and task.has_pictures  # when the heads are in the folder
            if new is None:
                second: Mapping[str, Head] = {}
                networks: Sequence[Judge] = ()
                bank: Bank
                if space == PICTURE:
                    bank = fit_reader(task, choose, most)
                else:
                    settings = settings or HeadSettings()
                    columns = table.columns if table is not None else _label(
                        task, count, choose, settings,
                        lambda attributes: target.check_names(names if only is not None else attributes, replace),
                    )  # fmt: skip
                    latents, specs = _latents(prior, table, len(next(iter(columns.values())))), choose(columns)
                    bank, second, networks = fit_bank(
                        task, latents, columns, specs, further=further_pictures(task, count), settings=settings
                    )
                    most = min(len(latents), MOST_PICTURES)
                if notes := getattr(labels, "calibrations", None):
                    bank.reports = {
                        name: dataclasses.replace(each, details={**each.details, "reader": notes[name]})
                        for name, each in bank.reports.items()
                    }
                new = list(bank.vocabulary)
                if given is not None:
                    trained = own_judge(given, task, bank, most)
                with target.changing() as changed:
                    changed.save(bank, real_path(target.folder).name, replace=replace, second=second)
                    store_judge(changed.folder, judge, new, trained)
                    store_teacher(changed.folder, networks)
                    finished.write_json({"names": new, "weights": _weights(load_bank(changed.folder), new)})
            merged = load_bank(target.folder)
            if later:
                trained = own_judge(None, task, merged, most, new, further=count)
                with target.changing() as changed:
                    store_judge(changed.folder, judge, new, trained)
        return Trained(
            target.folder, merged, {name: merged.reports[name] for name in new}, trained.judge, trained.report,
            trained.unmeasured, trained.verifier, trained.verifier_report,
            () if trained.held_out is None else (trained.held_out,),
        )  # fmt: skip


def _finished(bank: Bank | None, file: StepFile) -> list[str] | None:
    """Return the attributes whose heads an interrupted training has already saved in the model folder.

    The result is `None` if the training has saved no heads, or if the heads in the folder have changed since.

    Args:
        bank: the attributes of the folder; `None` if it has none.
        file: the file in which the training recorded its attributes, and a digest of what predicts them.
    """
    record = file.read_json()
    if record is None or bank is None or not set(record["names"]) <= set(bank.vocabulary):
        return None
    names: list[str] = record["names"]
    return names if _weights(bank, names) == record["weights"] else None


def _weights(bank: Bank, names: Sequence[str]) -> str:
    """Return a digest of the weights of the heads of the attributes `names`, or of the network that reads pictures."""
    if (heads := bank.as_heads) is not None:
        return digest(names, *(tensor for name in names for tensor in heads.heads[name].tensors().values()))
    return digest(names, *bank.reader.state_dict().values())


def _identity(labels: LabelTable | ImageLabeller) -> str:
    """Return a text that differs for different labels: a digest of a table, or of a labeller."""
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
    """Label the pictures of the first prior samples, and return attribute -> a label for each picture.

    Args:
        task: the prior samples, and the function that labels pictures.
        count: number of pictures; `None` to label in rounds for as long as heads gain by it.
        choose: function from attribute -> labels to the attributes to train.
        settings: settings of the fit of the heads.
        check: function that is called with the names of the attributes, as soon as the first pictures are labelled. It
            may raise an error, so that a wrong training stops early.
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
    """Fit heads to all labelled samples except the first 1,000 (`MEASURED`), and return their losses on these 1,000.

    The loss of a head is the mean negative log-likelihood of the labels, in nats. Labelling of further pictures ends
    when the losses hardly fall.

    Args:
        task: the model folder and the prior samples.
        columns: attribute -> a label for each of the labelled samples, the first ones of the prior.
        specs: the attributes.
        settings: settings of the fit.

    Returns:
        Attribute -> loss. Attributes with too few labels are left out.
    """
    labels = {name: encode_column(columns[name], spec, "the labeller") for name, spec in specs.items()}
    fitted, count = {name: numbers[MEASURED:] for name, numbers in labels.items()}, len(next(iter(columns.values())))
    specs = with_labels(with_labels(specs, labels, MEASURED), fitted, int((count - MEASURED) * (1 - HELD_OUT_SHARE)))
    if not specs:
        return {}
    latents = _latents(task.prior, None, count)
    stage = "enough labels?"
    bank, _ = fit_heads(task, latents[MEASURED:], fitted, specs, settings, held_out=HELD_OUT_SHARE, stage=stage)
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
    """Return the attributes to train, with their kinds.

    Args:
        columns: attribute -> labels.
        only: names of the attributes to train; `None` for all.
        kinds: attribute -> kind, for attributes whose kind is not inferred from their labels.
        vocabulary: attributes that are taken as they are, unless they are in `kinds`.

    Raises:
        VocabularyError: `only` names an attribute without labels, or `kinds` one that is not trained.
        DataError: no kind can be inferred from the labels of an attribute.
    """
    if only is not None and not only:
        raise DataError("only names no attribute", hint="name one, or leave only out for all")
    if unknown := [name for name in only or () if name not in columns]:
        raise VocabularyError(f"there are no labels for {unknown[0]!r}", hint=f"labels: {', '.join(columns)}")
    return infer({name: columns[name] for name in only or columns}, kinds, vocabulary)


def _range(truncation: float | tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the range (low, high) of a truncation: a number psi becomes (psi, psi), and `None` stays `None`.

    Raises:
        ArgumentError: low or high is not in 0 to 2, or low is above high.
    """
    if truncation is None:
        return None
    ends = truncation if isinstance(truncation, tuple) else (truncation, truncation)
    with suppress(TypeError, ValueError):
        low, high = map(float, ends)
        if not isinstance(truncation, str) and 0 <= low <= high <= 2:
            return low, high
    raise ArgumentError(f"truncation is a number or a range (low, high) in 0 to 2, not {truncation!r}")


def _default_truncation(target: Target, table: LabelTable | None, prior: Prior) -> tuple[float, float]:
    """Return the range (low, high) of truncation psi for a training whose caller states none.

    If the model has heads, the result is the range for which they are valid. Without heads, low and high are equal: a
    psi that is estimated from the latents w of the table, or the psi of the model if the table has no such latents.

    Args:
        target: the model folder with its heads.
        table: the table of labels; `None` if a function labels pictures.
        prior: prior samples of the generator, with which latents of the table are compared.
    """
    if target.bank is None and table is not None and table.latents is not None and prior.fitted.space == "w":
        psi = estimate_truncation(prior, table.latents, table.source)
        return psi, psi
    return target.psi


def _latents(prior: Prior, table: LabelTable | None, count: int) -> Tensor:
    """Return the latents of the labelled samples as input of heads, (n, latent_dim).

    Args:
        prior: prior samples; `prior.fitted.space` is the latent that heads read.
        table: the table of labels, with latents or with numbers of samples. With `None`, a function has labelled the
            first `count` samples.
        count: number of labelled samples.

    Raises:
        DataError: latents of the table have another size than latents of the generator.
        ArgumentError: a table has numbers of samples, but the samples have several truncations or classes.
    """
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
