"""Training and measuring of judges: networks or functions that read attributes off pictures, to check samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from energyql.attributes.bank import Bank, Described
from energyql.attributes.heads import AttributeBank
from energyql.attributes.held_out import HeldOut
from energyql.attributes.judge import (
    Judge,
    joined,
    load_judge,
    networks_of,
    open_labeller,
    replace_networks,
)
from energyql.attributes.labels import (
    Column,
    ImageLabeller,
    call_labeller,
    encode_column,
    known_cells,
    label_images,
    labeller_name,
    read_images,
)
from energyql.attributes.pictures import PictureBank
from energyql.attributes.predictions import HEAD_KINDS, Prediction, at_rows, of_columns
from energyql.attributes.quality import FIRST, READER, VERIFIER, HeadReport, JudgeReport, replace_given
from energyql.errors import ArgumentError, DataError, ModelError, either
from energyql.files import read_json
from energyql.generators.base import RANDOM
from energyql.generators.families import CONFIG
from energyql.language.lexical import shorten
from energyql.numerics.shapes import Float
from energyql.pipeline.model import choose_device, judge_mark, record_judge
from energyql.progress import Report, reporting
from energyql.training.doubts import store_doubts
from energyql.training.heads import MORE
from energyql.training.labelled import Labelled
from energyql.training.labels import LabelTable, read_label_table, warn
from energyql.training.picture_fit import (
    Family,
    PictureSettings,
    Split,
    fit_judge,
    fit_verifier,
    judge_settings,
    leave_out,
)
from energyql.training.proposals import propose
from energyql.training.report import report_quality
from energyql.training.samples import LABEL_SEED, PICTURES, Prior, label_prior
from energyql.training.settings import TRAIN, JudgeOptions, JudgeSettings
from energyql.training.target import AnyModel, Target, Task, backbone_name, call_text, opening_target
from energyql.training.teacher import FEATURES, FEW, draw_further, feature_settings, further_pictures
from energyql.vocabulary import AttributeSpec, Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Unpack

MOST_TESTS = 1_000
"""Most pictures on which a given judge is measured: a 95 % interval of a balanced accuracy is then about 0.05 wide."""
VALUE = "energyql/value/"
"""Prefix of columns with values in the stored readings of a judge; the attribute's name follows."""
OUTPUTS = "energyql/outputs/"
"""Prefix of columns with predictions in the same readings: numbers such as logits, written as text."""
MOST_HELD_OUT = 5_000
"""Most labelled samples that are stored with a verifier."""
PROPOSED = 0.2
"""If a function labels, a sampler draws this share of the pictures, for random queries, as it draws those to judge."""
NETWORKS = 4
"""Number of networks of a verifier that learns from a table of labels."""
BY_FUNCTION = 2
"""Number of networks of a verifier if a function labels pictures: more labels then help more than more networks."""
VERIFIER_FOLDS = 2
"""Number of folds of the labelled pictures for a verifier; each of its networks learns from all folds but one."""
FRESH = 256
"""Fewest pictures without labels that a verifier reads after its training."""
VERIFIER_SEED = 16
"""Offset of the seed of the verifier's fit from that of the judge's; no other fit has this offset."""


@dataclass(frozen=True)
class TrainedJudge:
    """The result of the training of a judge, or of the measuring of a given judge.

    Attributes:
        judge: the network, or the given judge; `None` if the network learned no attribute.
        report: attribute -> quality on labels that the judge did not learn from, also for attributes that it could not
            learn; empty if it was not measured.
        unmeasured: why a given judge was not measured, such as "it gave the labels itself"; else "".
        verifier: decides which pictures are kept: networks, or the given judge if it is code that reads values; `None`
            if the networks learned no attribute, or the given judge is a network.
        verifier_report: attribute -> quality of the verifier, as in `report`; empty if the judge was given.
        held_out: random pictures, some with labels, and what networks that did not learn from them read; if a verifier
            learned.
    """

    judge: ImageLabeller | None
    report: Mapping[str, HeadReport]
    unmeasured: str = ""
    verifier: ImageLabeller | None = None
    verifier_report: Mapping[str, HeadReport] = field(default_factory=dict)
    held_out: HeldOut | None = None


def train_judge(
    model: AnyModel,
    labels: LabelTable | str | Path | ImageLabeller,
    out: str | Path | None = None,
    *,
    device: torch.device | str = "auto",
    progress: bool | Report = True,
    command: Sequence[str] | str | None = None,
    **options: Unpack[JudgeOptions],
) -> TrainedJudge:
    """Train a judge and a verifier, or only measure the given `judge`, and store them in the model folder.

    Both read pictures, so they are independent of the heads, which read latents. The verifier decides which drawn
    pictures are kept; the judge says whether these satisfy the query. The judge learns from half of the labels and is
    measured on the other half. Each network of the verifier learns from all folds but one, on which it is measured.

    They replace earlier ones of the same attributes. After an interruption, the same call continues the training.

    Args:
        model: a packaged model, a model folder, or a generator of your own: the object, or the name of its code; or a
            `ModelSource`.
        labels: a labeller (a function or torch module that labels pictures), a table with numbers of pictures, or its
            path.
        out: the model folder; by default the folder of `model`.
        device: where pictures are drawn and the judge is trained.
        command: the command that messages propose to continue an interrupted training; by default this call.
        progress: see `train_attributes`.
        options: fields of `JudgeSettings` by name, such as `n`, `only` or `judge`.

    Raises:
        EnergyQLError: files, labels and model do not fit together; the message says what to do.
        KeyboardInterrupt: by Ctrl-C; the message lists the finished steps, and says how to continue.
    """
    asked, device = JudgeSettings(**options), choose_device(device)
    only = asked.only
    if isinstance(labels, str | Path):
        labels = read_label_table(Path(labels))
    given, features = given_judge(asked.judge), backbone_name(asked.features, labels)  # before any picture is drawn
    command = command or call_text("train_judge", model, out)
    with opening_target(model, out, command=command) as target:
        bank = target.bank
        if bank is None:
            raise ModelError(f"{target.folder} has no attributes to judge", hint="energyql train makes some")
        if only is not None and (not only or (unknown := [name for name in only if name not in bank.vocabulary])):
            wrong = f"there is no attribute {unknown[0]!r} to judge" if only else "only names no attribute"
            raise DataError(wrong, hint=f"the model has {', '.join(bank.vocabulary)}")
        prior = _prior(target, bank, labels, asked.seed, device)
        with reporting(progress) as report:
            task = Task(target, prior, labels, report, features)
            if given is None:
                trained = fit_both(task, bank, asked.n, only, asked.settings)
            else:
                trained = take_judge(given, task, bank, asked.n, only)
        names = trained.verifier_report if given is None else only or bank.vocabulary
        with target.changing() as changed:
            store_judge(changed.folder, asked.judge, names, trained)
    return trained


def _prior(
    target: Target, bank: Bank, labels: LabelTable | ImageLabeller, seed: int | None, device: torch.device | str
) -> Prior:
    """Prior samples of the labelled pictures; raise an error if the heads are not valid for them."""
    fitted = replace(bank.fitted, generator=target.fingerprint)
    if not isinstance(labels, LabelTable):
        return target.prior(LABEL_SEED if seed is None else seed, fitted, device)
    drawn = labels.drawn or labels.beside
    if drawn is None:
        prior = target.prior(seed or 0, fitted, device)
        prior.check_single()
        return prior
    drawn.check(labels.source, seed=seed, truncation=None, condition=None)
    drawn.check_generator(target.generator, labels.source)
    psi, condition, (low, high) = drawn.truncation, fitted.condition, fitted.truncation
    if not fitted.holds_at(psi) or condition not in (RANDOM, drawn.condition):
        raise ArgumentError(
            f"{labels.source} is about pictures of truncation {psi:g} and condition {drawn.condition}; the heads of "
            f"{target.folder} were fitted at truncation {low:g} to {high:g} under condition {condition}"
        )
    return target.prior(drawn.seed, replace(fitted, truncation=(psi, psi), condition=drawn.condition), device)


def default_judge(labels: object, name: str | None = None) -> Any:
    """A function that labels, or its `name`, because it defines the attributes; for other labels, `TRAIN`."""
    return (name or labels) if inspect.isfunction(labels) else TRAIN


def given_judge(judge: ImageLabeller | str | None) -> ImageLabeller | None:
    """Open the judge that a user named; `None` if there is to be none, or a new one is to be trained.

    Raises:
        ArgumentError: there is no judge of that name, or it cannot be called.
    """
    if judge is None or (isinstance(judge, str) and judge == TRAIN):
        return None
    if not isinstance(judge, str) and not callable(judge):
        raise ArgumentError(f"a judge is a function, a network or a name, not {shorten(repr(judge))}")
    return open_labeller(judge) if isinstance(judge, str) else judge


def take_judge(
    given: ImageLabeller, task: Task, bank: Bank, count: int, only: Sequence[str] | None = None
) -> TrainedJudge:
    """Measure a judge that a user gave, on at most `count` pictures.

    Raises:
        DataError: the judge returns something that is no value of an attribute.
    """
    specs = Vocabulary(spec for name, spec in bank.vocabulary.items() if only is None or name in only)
    reports = measure_judge(given, task, specs, count)
    if isinstance(given, Judge):
        given = given.only(specs)
        given.report = reports
    decides = None if isinstance(given, torch.nn.Module) else given
    return TrainedJudge(given, reports, unmeasured(given, task.labels) or "", decides)


def fit_both(
    task: Task,
    bank: Bank,
    count: int,
    only: Sequence[str] | None = None,
    settings: PictureSettings | None = None,
    further: int | None = None,
) -> TrainedJudge:
    """Fit a judge to a half of the labelled pictures, and the networks of a verifier to all of them.

    With a backbone, both also read features, each of another layer (`feature_settings`).

    Args:
        count: number of pictures to label, if the labels are a function.
        further: number of pictures without labels that the verifier reads after its fit, see `further_pictures`; at
            least `FRESH` are read, and only these if the attributes are read off pictures.

    Raises:
        DataError: the labels are not about pictures, or about no attribute of the model.
    """
    settings = settings or PictureSettings()
    learnable = partial(_learnable, bank.vocabulary, only)
    # A sampler draws under one truncation and one class, so its draws are no pictures of a prior with several.
    propose_some = task.table is None and isinstance(bank, AttributeBank) and task.prior.is_single
    proposed = int(PROPOSED * count) if propose_some else 0
    side = task.side(settings.side)
    table, prior, index = labelled_pictures("judge", task, learnable, count - proposed, side, apart=1)
    pictures, labels, specs = table.inputs, table.labels, table.vocabulary
    chosen = 0 if task.table is None else task.table.learned
    proposals = propose(task, bank, specs, labels, proposed) if proposed else None
    if proposals is not None and len(proposals.latents):
        every, step = torch.arange(len(proposals.latents)), f"{PICTURES} of proposals"
        proposed_pictures, columns = task.draw(step, proposals, every, side, task.labeller)
        chosen, pictures = len(proposed_pictures), torch.cat([proposed_pictures, pictures])
        labels = {name: torch.cat([numbers, labels[name]]) for name, numbers in _encode(columns, specs).items()}
    seed = (prior.seed + 1) % 2**63
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    parts = order[::2], order[1::2]
    # Only random pictures: those that were chosen or proposed are harder, and of other classes.
    tests = [part[part >= chosen] for part in parts]
    enough = [name for name in specs if all((~labels[name][rows].isnan()).any() for rows in (*parts, *tests))]
    if few := [name for name in specs if name not in enough]:
        warn(f"too few labels of {', '.join(few)} for two networks that read pictures, so nothing checks it")
    if not enough:
        return TrainedJudge(None, {})
    labelled = Labelled(
        task.look(FEATURES, pictures), labels, Vocabulary(specs[name] for name in enough), task.table is None
    )
    own, networks = judge_settings(settings)
    layers = feature_settings(task, labelled, order)
    by_pixels = not layers or len(pictures) >= FEW
    halves = Split(parts[0], tests[1]), Split(parts[1], tests[0])
    count = NETWORKS if task.table is not None else BY_FUNCTION
    size = count if len(pictures) < FEW else VERIFIER_FOLDS
    families = [Family(networks, count), *([Family(layers[:1], size)] if layers else [])]
    splits = leave_out([order[k::size] for k in range(size)], chosen)
    unlabelled = FRESH if bank.reads_pictures else max(further_pictures(task, further, previews=False), FRESH)
    fresh, others = draw_further(task, task.prior, unlabelled, side)
    seen_fresh = task.look(f"{FEATURES} of further pictures", fresh, [each.layer for each in layers[:1]])
    with task.target.work.step(VERIFIER) as checkpoint:
        course = task.course(VERIFIER, checkpoint, seed + VERIFIER_SEED)
        verifier = fit_verifier(labelled, splits, families, course, fresh=seen_fresh)
    store_doubts(task.table, verifier.wrong)
    corrected = {name: numbers.float().clone() for name, numbers in labels.items() if name in verifier.labels}
    for name, numbers in corrected.items():
        numbers[verifier.rows] = verifier.labels[name].float()
    with task.target.work.step("judge") as checkpoint:
        course = task.course("judge", checkpoint, seed)
        tried = [fit_judge(labelled, own, course, splits=halves[:1], corrected=corrected)] if by_pixels else []
        if layers:  # another layer than the verifier's, and half of the labels, so that it is a second opinion
            second = layers[min(1, len(layers) - 1)]
            tried.append(fit_judge(labelled, second, course, splits=halves, corrected=corrected))
    judge, report = max(tried, key=lambda each: sum(report.score or 0.0 for report in each[1].values()))
    held_out = None
    if verifier.networks:
        rows = verifier.rows[:MOST_HELD_OUT]
        with torch.no_grad():
            if bank.reads_pictures:
                inputs = torch.cat([pictures[rows], fresh]).float() / 127.5 - 1
            else:
                latents = prior.read(index[rows - (len(pictures) - len(index))], bank.space)
                inputs = torch.cat([latents, others.read(torch.arange(unlabelled), bank.space)])
            heads = bank.predict(inputs, tuple(verifier.readings))
        unknown = torch.full((unlabelled,), torch.nan)
        stored = torch.cat([torch.arange(len(verifier.rows)) < MOST_HELD_OUT, unknown.isnan()])
        held_out = HeldOut(
            {name: torch.cat([verifier.labels[name][:MOST_HELD_OUT], unknown]) for name in verifier.readings}, heads,
            {name: at_rows(prediction, stored) for name, prediction in verifier.readings.items()},
        )  # fmt: skip
    return TrainedJudge(judge, report, "", joined(verifier.networks), verifier.report, held_out)


def store_judge(folder: Path, name: ImageLabeller | str | None, names: Iterable[str], trained: TrainedJudge) -> None:
    """Write a judge, its verifier and their reports to a model folder.

    A network replaces earlier ones of the attributes `names`; those of other attributes stay. Code is recorded by its
    name, if the folder is a model. It is then the only judge, until networks judge all attributes, or a training of all
    attributes is told to have no judge.

    Args:
        name: the argument `judge` of the training.

    Warns:
        LabelWarning: earlier code stays the judge, because of other attributes; or other attributes lose their judge.
    """
    judge, names = trained.judge, list(names)
    networks = [network for network in networks_of(trained.verifier) if isinstance(network, Judge)]
    replace_networks(folder, VERIFIER, names, networks, trained.held_out)
    replace_networks(folder, FIRST, names, [judge] if isinstance(judge, Judge) else [])
    report = None
    if judge is not None and not isinstance(judge, Judge):
        title = name if isinstance(name, str) else labeller_name(judge).partition("\n")[0]
        report = JudgeReport(title, trained.report, judge_mark(judge))
    replace_given(folder, names, report)
    if not (folder / CONFIG).is_file():
        return
    attributes = list(Described.read(folder).vocabulary)
    if isinstance(judge, Judge):
        _networks_take_over(folder, attributes)
    elif judge is not None and isinstance(name, str):
        _code_takes_over(folder, name, attributes, {*names, *getattr(judge, "vocabulary", ())})
    elif name is None and set(attributes) <= set(names) and _code(folder) is not None:
        record_judge(folder, None)


def _code(folder: Path) -> str | None:
    """Name of the code that judges the model in `folder`, such as "module:function"; `None` if no code does."""
    name: str | None = read_json(folder / CONFIG).get("judge")
    return name


def _by_network(folder: Path) -> Vocabulary | tuple[()]:
    """Attributes that networks of a model folder judge."""
    judge = load_judge(folder)
    return () if judge is None else judge.vocabulary


def _networks_take_over(folder: Path, attributes: Sequence[str]) -> None:
    """Drop code as the model's judge if networks now judge all of `attributes`; else warn that the code stays judge."""
    if (code := _code(folder)) is None:
        return
    if others := [each for each in attributes if each not in _by_network(folder)]:
        removed = either("remove the name: record_judge(folder, None)", "remove its name from config.json")
        warn(
            f"the judge of the model is still the code {code}, and not the new network, because no network judges "
            f"{', '.join(others)}; train a judge of these too, or {removed}"
        )
    else:
        record_judge(folder, None)


def _code_takes_over(folder: Path, name: str, attributes: Sequence[str], read: Container[str]) -> None:
    """Make the code called `name` the only judge; warn of attributes that lose their judge: those not in `read`."""
    before = _by_network(folder) if _code(folder) in (None, name) else attributes
    record_judge(folder, name)
    if lost := [each for each in before if each not in read]:
        warn(f"{name} is now the only judge of the model; nothing checks {', '.join(lost)}, unless it does")


def unmeasured(judge: ImageLabeller, labels: LabelTable | ImageLabeller) -> str | None:
    """Reason why a judge cannot be measured on labels: it gave them, or they are about latents; else `None`."""
    if isinstance(labels, LabelTable):
        return "it is not known which pictures the labels are about" if labels.index is None else None
    return "it gave the labels itself" if judge_mark(judge) == judge_mark(labels) else None


def measure_judge(judge: ImageLabeller, task: Task, vocabulary: Vocabulary, count: int) -> dict[str, HeadReport]:
    """Measure a judge: draw labelled pictures, and compare what the judge reads off them with the labels.

    The judge must have learned from none of the labels. Of a table, the random pictures are used, also those from which
    heads have learned. A function labels new pictures, of another seed than those for the heads.

    Args:
        judge: a function or a network that reads pictures.
        task: generator, samples and labels.
        count: largest number of pictures; at most 1,000 are used.

    Returns:
        Attribute -> report, for the attributes that the judge reads and that have labels; empty if the judge gave the
            labels itself, or if it is not known which pictures they are about.

    Raises:
        DataError: the judge returns no value of an attribute for a picture, or a value that the attribute cannot have.
    """
    if unmeasured(judge, task.labels) is not None:
        return {}
    count, table = min(count, MOST_TESTS), task.table
    if table is not None:
        rows = slice(max(table.learned, len(table.pictures) - count), None)
        prior, index = task.prior, table.pictures[rows]
    else:
        prior, index = task.prior.apart(1), torch.arange(count)
    with task.target.work.step("readings of the judge") as folder:
        reader = _Reader(task.labeller, judge, vocabulary, index)
        readings = label_prior(prior, index, reader, folder, progress=task.progress("judge"))
    columns = readings if table is None else {name: cells[rows] for name, cells in table.columns.items()}
    specs = Vocabulary(
        spec for name, spec in vocabulary.items() if name in columns and {VALUE + name, OUTPUTS + name} & set(readings)
    )
    predictions = {name: _prediction(readings, spec) for name, spec in specs.items()}
    return report_quality(predictions, _encode(columns, specs), specs, {name: torch.empty(0) for name in specs})


class _Reader:
    """A function from pictures to columns in one file: labels, and readings by a judge (`VALUE`, `OUTPUTS`).

    Columns on disk are used again only with an equal `identity`, which includes `index`, the numbers of the pictures.
    """

    def __init__(self, labeller: ImageLabeller | None, judge: ImageLabeller, vocabulary: Vocabulary, index: Tensor):
        self.labeller, self.judge, self.vocabulary = labeller, judge, vocabulary
        labels = "" if labeller is None else judge_mark(labeller)
        self.identity = f"judge {judge_mark(judge)} {index.tolist()} {vocabulary.to_dict()} {labels}"

    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, list[Any]]:
        """Label and read pictures in [-1, 1]."""
        columns = {} if self.labeller is None else label_images(self.labeller, images)
        readings = call_labeller(self.judge, images, "the judge")
        for name, values in read_images(lambda _: readings, images, self.vocabulary).items():
            prediction, spec = readings[name], self.vocabulary[name]
            if isinstance(prediction, Prediction) and HEAD_KINDS[spec.kind].fits(prediction, spec):
                rows = prediction.columns().double().cpu().tolist()
                columns[OUTPUTS + name] = [" ".join(map(str, row)) for row in rows]
            else:  # values without probabilities
                columns[VALUE + name] = values.tolist()
        return columns


def _prediction(columns: Mapping[str, Column], spec: AttributeSpec) -> Prediction | Tensor:
    """What a judge read off pictures about an attribute, from stored columns: values as numbers, or a prediction."""
    if VALUE + spec.name in columns:
        return encode_column(columns[VALUE + spec.name], spec, "the judge")
    cells = columns[OUTPUTS + spec.name]
    return of_columns(torch.tensor([[float(number) for number in cell.split()] for cell in cells]), spec)


def _encode(columns: Mapping[str, Column], specs: Vocabulary) -> dict[str, Tensor]:
    """Labels as numbers, (rows,); one that is no class of its attribute counts as missing (NaN)."""
    return {name: encode_column(known_cells(columns[name], spec), spec) for name, spec in specs.items()}


def fit_reader(task: Task, learnable: Callable[[Mapping[str, Column]], Vocabulary], count: int) -> PictureBank:
    """Fit a network that reads attributes off pictures to guide a sampler, for a model without heads.

    It is measured on a fifth of the labelled pictures, from which it does not learn.

    Args:
        learnable: function from attribute -> labels to the attributes to learn.
        count: number of pictures to label, if the labels are a function.

    Raises:
        DataError: the network learns no attribute well enough, or there are no such labels.
        ModelError: the folder has attributes already.
    """
    if task.target.bank is not None:
        wrong = f"{task.target.folder} has attributes already, and a network of pictures is trained as a whole"
        raise ModelError(wrong)
    settings = PictureSettings()
    # Another seed than those of judges and heads, so that they share neither pictures nor random numbers.
    labelled, prior, _ = labelled_pictures(READER, task, learnable, count, settings.side, apart=2)
    with task.target.work.step(READER) as checkpoint:
        reader, reports = fit_judge(labelled, settings, task.course(READER, checkpoint, prior.seed + 2))
    if reader is None:
        heads = either('space="w"', "--space w")
        raise DataError(f"a network could learn none of {', '.join(reports)}", hint=f"{MORE}, for heads ({heads})")
    reader.report = {name: reports[name] for name in reader.vocabulary}
    return PictureBank(reader, fitted=task.prior.fitted)


def labelled_pictures(
    name: str, task: Task, learnable: Callable[[Mapping[str, Column]], Vocabulary], count: int, side: int, *, apart: int
) -> tuple[Labelled[Tensor], Prior, Tensor]:
    """Labelled pictures: those of a table of labels, or new ones that a function labels.

    Args:
        name: name of the network that learns from them, for files of intermediate results.
        learnable: function from attribute -> labels to the attributes to learn.
        count: number of pictures to label, if the labels are a function.
        side: largest side of the returned pictures, in pixels.
        apart: number that is added to the seed of new pictures.

    Returns:
        The pictures, (n, 3, size, size) uint8, with their labels; and their prior samples, with their indices, (n,).

    Raises:
        DataError: it is not known which pictures the labels are about.
    """
    prior, table = task.prior, task.table
    if table is not None:
        index, specs = table.pictures, learnable(table.columns)  # raises before any picture is drawn
        pictures, _ = task.draw(PICTURES, prior, index, side)
        return Labelled(pictures, _encode(table.columns, specs), specs), prior, index
    prior, index = prior.apart(apart), torch.arange(count)
    pictures, columns = task.draw(f"{PICTURES} for the {name}", prior, index, side, task.labeller)
    specs = learnable(columns)
    return Labelled(pictures, _encode(columns, specs), specs), prior, index


def _learnable(vocabulary: Vocabulary, only: Sequence[str] | None, columns: Iterable[str]) -> Vocabulary:
    """Attributes of a model that have labels, or those of them in `only`, which must all have some."""
    names = [name for name in vocabulary if name in columns and (only is None or name in only)]
    if not names or (only is not None and not set(only) <= set(names)):
        raise DataError(f"the labels are about {', '.join(columns)}; the model has {', '.join(vocabulary)}")
    return Vocabulary(vocabulary[name] for name in names)
