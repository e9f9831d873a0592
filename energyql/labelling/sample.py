"""`sample_pictures`: draw pictures of a generator to label, random ones or those with the least certain predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import Judge
from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import Prediction, YesNo
from energyql.errors import ArgumentError, DataError, either
from energyql.files import as_path, sole_writer, write_picture
from energyql.generators.base import Generator, check_condition, show_pictures
from energyql.kinds import KINDS
from energyql.labelling.folder import LABELS, MOST_NUMBER, RECORD, PictureFolder
from energyql.pipeline.model import Model, choose_device
from energyql.pipeline.settings import finite_number, whole_number
from energyql.progress import Report, reporting
from energyql.training.clip_labels import ClipLabeller
from energyql.training.labels import POOL, POOL_SIZE, POOL_START, Drawn, read_label_table
from energyql.training.samples import Prior, draw_thumbnails
from energyql.training.target import Source, open_source
from energyql.training.teacher import load_teacher, teacher_reads

BINS = 5
"""Number of equal parts of the range of predictions of a continuous attribute."""
PICTURES_AT_ONCE = 16
Chooser = Literal["heads", "teacher", "reader"]
"""Whose predictions choose pictures to label: see `sample_pictures`."""


READER_SIDE = 128
"""Side, in pixels, of the thumbnails for a reader of words (a network that compares pictures with texts)."""


def sample_pictures(
    model: str | Path | Generator | Model, out: str | Path, count: int = 300, *, unsure: bool = False,
    by: Chooser | None = None, only: Sequence[str] | None = None, labelled: str | Path | None = None,
    reader: ClipLabeller | None = None, pool: int = POOL_SIZE, seed: int | None = None, truncation: float | None = None,
    condition: int | str | Sequence[float] | None = None, generator: str | None = None, allow_plugins: bool = False,
    device: torch.device | str = "cpu", progress: bool | Report = False,
) -> PictureFolder:  # fmt: skip
    """Draw pictures of a generator to label, without a query; the generator needs no attributes.

    All pictures in a folder have the same generator, seed, truncation and condition. After an interruption, the same
    call draws the pictures that are missing. A later call with `unsure` adds pictures, as a round of active learning.

    Args:
        model: as for `train_attributes`; or a `Model`.
        out: the folder of the pictures. Picture i, such as `0000012.png`, is drawn from prior sample i of the seed, its
            i-th random latent, as for `train_attributes`.
        count: number of random pictures that the folder is to have, numbered 0 to `count - 1`; or, with `unsure`, the
            number of pictures to add. At least 1.
        unsure: whether to choose pictures with the least certain predictions, about as many for each value of an
            attribute, so that rare classes are labelled too. Pictures that are labelled or already in the folder are
            not chosen.
        by: whose predictions count: "heads", which read latents; "teacher", networks that read pictures, which
            `train_attributes` fits to a table of labels; or "reader", the network `reader` and the heads, where
            pictures come first for which both are unsure or disagree. By default the more accurate teacher if there is
            one, and the heads for attributes that it does not read. For a teacher, the whole pool is drawn, once for
            all rounds.
        only: attributes whose predictions count, all by default.
        labelled: further table of labels. Pictures in it, or in `labels.csv` of the folder, are not chosen.
        reader: labels pictures by prompts of yes/no attributes, for `by="reader"`.
        pool: number of prior samples to choose from. They begin at sample 1,000,000, so that none is a random picture.
        seed: seed of the samples; by default that of the pictures in the folder, or 0 for a new folder.
        truncation: psi, 0 to 2. By default that of the pictures in the folder; for a new folder that of the model, or
            the largest at which its heads are valid. Checkpoints have that of their family, such as 0.7; your own
            generators 1.
        condition: a class, or as many numbers as the generator has classes. By default that of the pictures in the
            folder; for a new folder, the one for which the heads are valid.
        generator, allow_plugins, device, progress: see `train_attributes`.

    Returns:
        The folder, with all its pictures.

    Raises:
        ArgumentError: an argument is out of range, or does not fit the pictures that the folder has; or the model lacks
            the heads, the teacher or the reader whose predictions are to count.
        DataError: the folder or a table is damaged, or a table is about other pictures.
        ModelError: the model cannot be read.
    """
    # All arguments are checked before `pictures.json` is written, because it would refuse the corrected call.
    pool = whole_number("pool", pool, most=MOST_NUMBER - POOL_START)
    count = whole_number("the number of pictures", count, most=pool if unsure else POOL_START)
    seed = None if seed is None else whole_number("seed", seed, least=0, most=2**64 - 1)
    if truncation is not None and not 0 <= (truncation := finite_number("truncation", truncation)) <= 2:
        raise ArgumentError(f"truncation is a number from 0 to 2, not {truncation:g}")
    if by not in (None, *get_args(Chooser)):
        *choosers, last = get_args(Chooser)
        raise ArgumentError(f"pictures are chosen by {', '.join(choosers)} or {last}, not {by!r}")
    if not unsure and (only, labelled, by, reader) != (None, None, None, None):
        hint = f"add {either('unsure=True', '--unsure')}"
        raise ArgumentError("random pictures are not chosen by attributes, labels or a teacher", hint=hint)
    path, where = as_path(out), choose_device(device)
    source = open_source(Source(model, generator, allow_plugins))
    network, bank, own = source.generator, source.bank, source.truncation
    heads, names, teacher = None, tuple(only or ()), []
    if unsure:
        if bank is None:
            hint = "label random pictures, and train"
            raise ArgumentError("the model has no heads yet that could be unsure", hint=hint)
        heads, names = heads_of(bank, "a choice of unsure pictures"), tuple(bank.vocabulary if only is None else only)
        heads.raw_outputs(names)  # refuses unknown names before anything is written
        teacher = load_teacher(source.folder) if isinstance(model, str | Path) and Path(model).is_dir() else []
        if by == "reader":
            teacher, names = [], tuple(name for name in names if reader is not None and name in reader.vocabulary)
            if not names:
                given = either("reader=...", "--by reader --reader R --prompts P")
                hint = f"give prompts of attributes that the model has: {given}"
                raise ArgumentError("there is no reader of words for the attributes of the model", hint=hint)
        elif by == "heads" or not any(name in judge.vocabulary for judge in teacher for name in names):
            teacher = []
        if by == "teacher" and not teacher:
            message = "the model has no teacher that reads these attributes"
            raise ArgumentError(message, hint="train it on a table of labelled pictures, or choose by the heads")
    with sole_writer(path, "pictures to label"):
        is_new = not (path / RECORD).exists()
        if is_new:
            if bank is not None:
                condition = bank.fitted.default_condition if condition is None else condition
                own = own if own is not None and bank.fitted.holds_at(own) else bank.truncation[1]
            psi = (1.0 if own is None else own) if truncation is None else truncation
            folder = PictureFolder(path, Drawn.by(network, seed or 0, float(psi), check_condition(condition, network)))
        else:
            folder = PictureFolder.read(path)
            folder.drawn.check(str(path), seed=seed, truncation=truncation, condition=condition)
            folder.drawn.check_generator(network, str(path))
        prior = source.prior_of(folder.drawn, where)
        tables = [path / LABELS] * (path / LABELS).exists() + ([] if labelled is None else [Path(labelled)])
        excluded = set(folder.unsure).union(*(_labelled(table, folder.drawn) for table in tables if unsure))
        with reporting(progress) as report:
            if is_new:  # first, so that pictures of an interrupted call are not taken for those of another seed
                folder = folder.having(0, ())
            if heads is None:
                _draw(prior, folder, range(count), report)
                return folder.having(max(count, folder.random), folder.unsure)
            read = reader if by == "reader" else None
            chosen = _choose(prior, heads, teacher, names, excluded, count, pool, path, report, read)
            _draw(prior, folder, chosen, report)
            return folder.having(folder.random, (*folder.unsure, *chosen))


def _labelled(table: Path, drawn: Drawn) -> list[int]:
    """Numbers of the pictures in a table; raise a `DataError` if they were not drawn as `drawn` says."""
    labels = read_label_table(table)
    if labels.drawn != drawn:
        message = f"{table} is not about these pictures: {labels.drawn} is not {drawn}"
        raise DataError(message, hint="name the table of this folder")
    return [int(number) for number in labels.pictures]


@torch.no_grad()
def _choose(
    prior: Prior, bank: AttributeBank, teacher: Sequence[Judge], names: Sequence[str], excluded: set[int],
    count: int, pool: int, folder: Path, report: Report, reader: ClipLabeller | None,
) -> list[int]:  # fmt: skip
    """Choose pictures from the pool by `choose_unsure`; with a reader, by the mean of its log-odds and the head's."""
    whole = torch.arange(POOL_START, POOL_START + pool)
    rows = [row for row, number in enumerate(whole.tolist()) if number not in excluded]
    if count > len(rows):
        hint = f"give a larger {either('pool', '--pool')}"
        raise ArgumentError(f"only {len(rows)} pictures are left to choose from", hint=hint)
    index = whole[rows]
    predictions = bank.to("cpu").predict(prior.read(index, bank.space), names)
    if teacher:
        # The whole pool is drawn, also pictures that are excluded, so that later rounds find all thumbnails.
        pictures, _ = draw_thumbnails(prior, whole, teacher[0].side, folder / POOL, report=report)
        read = teacher_reads(teacher, pictures[rows])
        predictions |= {name: prediction for name, prediction in read.items() if name in names}
    if reader is not None:
        pictures, _ = draw_thumbnails(prior, whole, READER_SIDE, folder / POOL, report=report)
        parts = [reader.predict(part.float() / 127.5 - 1) for part in pictures[rows].split(64)]
        both = [name for name in parts[0] if isinstance(predictions.get(name), YesNo)]
        predictions = {
            name: YesNo((predictions[name].columns()[:, 0] + torch.cat([part[name].logit for part in parts]).cpu()) / 2)
            for name in both
        }
    return [int(index[row]) for row in choose_unsure(predictions, count)]


@torch.no_grad()
def _draw(prior: Prior, folder: PictureFolder, indices: Sequence[int], report: Report) -> None:
    """Write the pictures of prior samples to a folder, except those that it has."""
    missing = [index for index in indices if not folder.file(index).exists()]
    for start in range(0, len(missing), PICTURES_AT_ONCE):
        part = missing[start : start + PICTURES_AT_ONCE]
        images = prior.generator.synthesize(prior.w(torch.tensor(part)).to(prior.device))
        for index, picture in zip(part, show_pictures(prior.generator, images), strict=True):
            write_picture(folder.file(index), picture)
        report("drawing", (start + len(part)) / len(missing))


def choose_unsure(predictions: Mapping[str, Prediction], count: int) -> list[int]:
    """Choose the pictures with the least certain predictions, about as many for each value of each attribute.

    One picture is taken in turn from a queue for each value, so that a rare class gets as many as a common one. The
    queue of a class begins with the pictures predicted to be of it, the least certain first; then follow the others,
    first those whose logit of the class is nearest to that of their predicted class.

    A continuous attribute is predicted with equal certainty for all pictures. It has five queues, for five parts of
    equal width of its predictions, each with the pictures of the part first.

    Args:
        count: number of pictures to choose, at most the number of all pictures.

    Returns:
        Different indices of pictures in the predictions, in the order in which they were chosen.
    """
    queues = [iter(queue.tolist()) for prediction in predictions.values() for queue in _queues(prediction)]
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        for queue in queues:
            row = next((row for row in queue if row not in chosen), None)
            if row is not None and len(chosen) < count:
                chosen[row] = None
    return list(chosen)


def _queues(prediction: Prediction) -> Iterator[Tensor]:
    """Yield a queue for each value of an attribute, the indices of all pictures, see `choose_unsure`."""
    if KINDS[prediction.kind].numeric:
        mean = prediction.number().contiguous()
        edges = torch.linspace(float(mean.min()), float(mean.max()), BINS + 1, device=mean.device)
        part = torch.bucketize(mean, edges[1:-1])
        for k in range(BINS):
            yield (part != k).long().argsort(stable=True)
    for lead in prediction.leads():
        size = lead.abs()
        # Rows of the class have values in [0, 1), other rows in [1, 2); the smallest come first.
        yield torch.where(lead >= 0, size / (1 + size), 1 + size / (1 + size)).argsort(stable=True)
