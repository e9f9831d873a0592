"""`train_attributes`: label latents of a generator, fit and calibrate heads, report on them, save them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from energyql.attributes.bank import PICTURE, SPACES, Bank
from energyql.attributes.heads import Head
from energyql.attributes.judge import Judge
from energyql.attributes.labels import Column, ImageLabeller
from energyql.attributes.pictures import PictureBank
from energyql.attributes.quality import READER, HeadReport
from energyql.errors import ArgumentError, DataError, ModelError, VocabularyError
from energyql.files import real_path
from energyql.generators.base import RANDOM, Generator, head_reader
from energyql.numerics.pullback import Identity
from energyql.pipeline.settings import whole_number
from energyql.progress import Report, reporting
from energyql.training.bank_fit import fit_bank
from energyql.training.heads import HeadSettings
from energyql.training.judge import (
    MOST_PICTURES,
    TRAIN,
    JudgeTask,
    TrainedJudge,
    fit_on_pictures,
    given_judge,
    have_pictures,
    own_judge,
    store_judge,
)
from energyql.training.labels import LabelTable, infer, read_label_table
from energyql.training.samples import LABEL_SEED, Prior, estimate_truncation, label_prior
from energyql.training.target import Target, call_text, opening_target
from energyql.training.teacher import store_teacher
from energyql.vocabulary import Kind, Vocabulary

PICTURES = 10_000
"""Pictures for a labeller, unless a call says otherwise."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The outcome of a training.

    Attributes:
        folder: the model folder.
        bank: all its heads, new and old.
        report: quality of the new heads on held-out latents, by attribute.
        judge: of the attributes of the new heads, for `Model(..., judge=)`; `None` if there is none.
        judge_report: its quality on labels of pictures that it did not learn from, by attribute; of a judge that was
            trained, also of what it could not learn.
        judge_unmeasured: why a judge that was given has no report; "" if it was measured.
    """

    folder: Path
    bank: Bank
    report: Mapping[str, HeadReport]
    judge: ImageLabeller | None = None
    judge_report: Mapping[str, HeadReport] = dataclasses.field(default_factory=dict)
    judge_unmeasured: str = ""


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
    label: int | Sequence[float] | str | None = None,
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

    After an interruption, the same call continues the training, with the same result as without the interruption.
    Until all is finished, the folder is no model, or stays the model that it was. Heads that the folder already has
    stay exactly as they are.

    Args:
        model: a packaged model, a model folder, a checkpoint of any supported kind, or a generator of your own: the
            object, or the name of its code, which the folder then records: `module:factory`, where the factory is a
            class or a function without arguments, or the name of an installed plugin.
        labels: a `LabelTable`, the path of a CSV or Parquet file (see `read_label_table`), or a function or torch
            module that labels pictures (see `ImageLabeller`).
        out: the model folder to make or to add to; by default that of `model`.
        vocabulary: the attributes; inferred from the labels by default.
        kinds: kinds of single attributes, which are then not inferred.
        only: attributes to train, all by default.
        count: pictures for a labeller, 10,000 by default. For a table of picture numbers, further pictures, which a
            teacher, networks that learn from the table, labels for the heads, see `teach`: by default 8,000 if pictures
            have at most 128 pixels a side, and none if they are larger, because drawing them takes long; 0 for no
            teacher.
        space: the latent that heads read: "w"; "z"; "direction", z scaled to unit second moment, on which the pictures
            of a StyleGAN depend; or "features", a view of z that the generator offers (see `features` of
            `ViewedGenerator`). By default that of the model's other heads, else "features" if there are any, else "w".
            Latents in a table are w for "w", else z. With "picture" a network that reads pictures is fitted in place of
            heads, to at most 5,000 pictures; see `PictureBank`.
        truncation: psi of the latents, or a range (low, high) from which each sample draws its own. By default that of
            the model's other heads, else that of the latents of a table, else that of the model.
        label: of a conditional generator: the class of all pictures, or as many numbers as it has classes; or "random"
            for a random class of each, and heads that are valid for every class. By default that of the model's other
            heads.
        seed: of the samples; picture i of `sample_pictures(seed=...)` is sample i. By default that of the table, if it
            says so, else 0.
        replace: whether new attributes may replace old ones of the same name.
        generator: name of the generator's code, for a model folder that only names it.
        allow_plugins: whether to import the generator that the model folder names.
        judge: reads the new attributes off pictures, and decides whether samples satisfy a query. By default it is
            trained on the same labels, if these are about pictures: on other pictures for a labeller, and in another
            order for a table. Or a given judge, whose quality is measured on labels of pictures: a `Judge` from
            another folder, which is stored; the name of code, `module:function` or a plugin, which is recorded; or a
            function or torch module, which cannot be stored and is given to `load_model` again. `None` for no judge.
        settings: of the fit.
        device: where pictures are drawn and heads are fitted.
        progress: show progress bars, or a function that is told the progress.
        command: words of the command line after `energyql`, or a text, for messages on how to continue; by default this
            call.

    Returns:
        The folder, all heads of the model, and a report of the new ones.

    Raises:
        EnergyQLError: files, labels and model do not fit together; the message says what to do.
        KeyboardInterrupt: by Ctrl-C; the message says what is kept, and how to continue.
    """
    by_hand = not callable(labels) and space != PICTURE
    count = None if count is None else whole_number("count", count, least=0 if by_hand else 1)
    if space not in (None, PICTURE, *SPACES):
        raise ArgumentError(f"heads read one of {', '.join(SPACES)}, not {space!r}; {PICTURE} is for a network")
    if isinstance(labels, str | Path):
        labels = read_label_table(Path(labels))
    given = None if judge is None or judge == TRAIN else given_judge(judge)  # before any work is done
    known = getattr(labels, "vocabulary", None)
    known = known if isinstance(known, Vocabulary) else None
    names = list(labels.columns if isinstance(labels, LabelTable) else known or ()) if only is None else list(only)
    psi, drawn = _range(truncation), labels.drawn or labels.beside if isinstance(labels, LabelTable) else None
    if isinstance(labels, LabelTable) and drawn is not None:
        same = None if psi is None else psi[0] if psi[0] == psi[1] else psi
        drawn.check(labels.source, seed=seed, truncation=same, label=label)
        seed, psi, label = drawn.seed, (drawn.truncation, drawn.truncation), drawn.label
    with opening_target(
        model, out, None if psi is None else psi[1], generator=generator, allow_plugins=allow_plugins,
        command=command or call_text("train_attributes", model, out),
    ) as target:  # fmt: skip
        target.check_names(names, replace)
        if isinstance(labels, LabelTable) and drawn is not None:
            drawn.check_generator(target.generator, labels.source)
            if labels.test == 0:
                raise DataError(
                    f"{labels.source} has too few random pictures to measure heads on",
                    hint="label some hundreds that energyql sample draws without --unsure",
                )
        device = torch.device(device)
        if isinstance(target.generator, torch.nn.Module):
            target.generator.to(device).eval()
        space = space or target.space
        head_reader(target.generator, space, Identity())  # raises before any picture is labelled
        seed = seed if seed is not None else 0 if isinstance(labels, LabelTable) else LABEL_SEED
        prior = Prior(target.generator, seed, target.fitted(space, psi or (1.0, 1.0), label), device)
        if psi is None:
            prior = prior.under(truncation=_default_truncation(target, labels, prior))
        target.check_latents(prior.fitted)
        with reporting(progress) as report:
            bank: Bank
            second: Mapping[str, Head] = {}
            networks: Sequence[Judge] = ()
            most = MOST_PICTURES if count is None else min(count, MOST_PICTURES)
            if space == PICTURE:
                kind = partial(_infer, only=only, kinds=kinds, known=vocabulary or known)
                bank = _fit_reader(JudgeTask(target, prior, labels, Vocabulary([]), most), kind, report)
            else:
                if isinstance(labels, LabelTable):
                    columns = labels.columns
                else:
                    index = torch.arange(PICTURES if count is None else count)
                    with target.work.step("labels") as folder:
                        columns = label_prior(
                            prior, index, labels, folder,
                            check=lambda found: target.check_names(found if only is None else names, replace),
                            progress=lambda done: report("labelling", done),
                        )  # fmt: skip
                latents = _latents(prior, labels, len(next(iter(columns.values()))))
                specs = _infer(columns, only=only, kinds=kinds, known=vocabulary or known)
                bank, second, networks = fit_bank(
                    target, prior, labels, latents, {name: columns[name] for name in only or columns}, specs,
                    further=count, settings=settings or HeadSettings(), report=report,
                )  # fmt: skip
                most = min(len(latents), MOST_PICTURES)
            judged = TrainedJudge(None, {})
            if given is not None or (judge == TRAIN and have_pictures(labels)):
                judged = own_judge(given, JudgeTask(target, prior, labels, bank.vocabulary, most), report=report)
        with target.changing() as changed:
            merged = changed.save(bank, real_path(target.folder).name, replace=replace, second=second)
            store_judge(changed.folder, judge, bank.vocabulary, judged)
            store_teacher(changed.folder, networks)
        return Trained(target.folder, merged, bank.reports, judged.judge, judged.report, judged.unmeasured)


def _fit_reader(
    task: JudgeTask, learnable: Callable[[Mapping[str, Column]], Vocabulary], report: Report
) -> PictureBank:
    """Fit a network that guides samplers by reading pictures. Its seeds are neither those of heads nor of a judge.

    Raises:
        DataError: as for `fit_on_pictures`, or it learns no attribute.
        ModelError: the folder has attributes already.
    """
    target, prior = task.target, task.prior
    if target.bank is not None:
        raise ModelError(
            f"{target.folder} has attributes already, and a network that reads pictures is trained as a whole",
            hint="choose another folder",
        )
    if isinstance(task.labels, LabelTable):
        learnable(task.labels.columns)  # before any picture is drawn
    reader, found = fit_on_pictures(READER, task, learnable, apart=2, report=report)
    if reader is None:
        raise DataError(
            f"a network that reads pictures could learn none of {', '.join(found)}", hint="label more pictures"
        )
    reader.report = {name: found[name] for name in reader.vocabulary}
    fitted = prior.fitted
    return PictureBank(reader, truncation=fitted.truncation, label=fitted.label, generator=fitted.generator)


def _infer(
    columns: Mapping[str, Column],
    *,
    only: Sequence[str] | None,
    kinds: Mapping[str, Kind] | None,
    known: Vocabulary | None,
) -> Vocabulary:
    """Return the attributes to train, `only` some or all, with their kinds; see `infer`."""
    if unknown := [name for name in only or () if name not in columns]:
        raise VocabularyError(f"there are no labels for {unknown[0]!r}", hint=f"labels: {', '.join(columns)}")
    return infer({name: columns[name] for name in only or columns}, kinds, known)


def _range(truncation: float | tuple[float, float] | None) -> tuple[float, float] | None:
    if truncation is None:
        return None
    low, high = truncation if isinstance(truncation, tuple) else (truncation, truncation)
    if not 0 <= low <= high <= 2:
        raise ArgumentError(f"truncation is a number or a range (low, high) in 0 to 2, not {truncation!r}")
    return float(low), float(high)


def _default_truncation(target: Target, labels: LabelTable | ImageLabeller, prior: Prior) -> tuple[float, float]:
    if target.bank is not None:
        return target.bank.truncation
    if isinstance(labels, LabelTable) and labels.latents is not None and prior.fitted.space == "w":
        psi = estimate_truncation(prior, labels.latents, labels.source)
    else:
        psi = 1.0 if target.truncation is None else target.truncation
    return psi, psi


def _latents(prior: Prior, labels: LabelTable | ImageLabeller, count: int) -> Tensor:
    """Return the labelled latents in the space that heads read."""
    index, space = torch.arange(count), prior.fitted.space
    if isinstance(labels, LabelTable):
        if labels.latents is not None:
            first = torch.arange(1)
            given = "w" if space == "w" else "z"
            own = (prior.w(first) if space == "w" else prior.z(first)).shape[1]
            if labels.latents.shape[1] != own:
                raise DataError(
                    f"{labels.source}: latents of {labels.latents.shape[1]} numbers, but {given} has {own}",
                    hint="give the latents of this generator: w if heads read w, else z",
                )
            return labels.latents if space == "w" else prior.view(labels.latents, space)
        if len(set(prior.fitted.truncation)) > 1:
            raise ArgumentError(
                "pictures that were labelled by hand have one truncation", hint="give that, not a range"
            )
        if prior.fitted.label == RANDOM:
            raise ArgumentError(
                "pictures that were labelled by hand have one class label", hint='give that, not "random"'
            )
        index = torch.arange(0) if labels.index is None else labels.index
    return prior.read(index, space)
