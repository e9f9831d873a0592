"""`sample_pictures`: draw pictures of a generator to label, random ones or those with the least certain predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import Judge
from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import Prediction, YesNo
from energyql.errors import ArgumentError, DataError, either
from energyql.files import as_path, sole_writer, write_picture
from energyql.generators.base import check_condition, show_pictures
from energyql.kinds import KINDS
from energyql.labelling.folder import LABELS, RECORD, PictureFolder
from energyql.labelling.settings import SampleOptions, SampleSettings
from energyql.pipeline.model import Model, choose_device
from energyql.pipeline.settings import whole_number
from energyql.progress import Report, reporting
from energyql.training.clip_labels import ClipLabeller
from energyql.training.labels import POOL, Drawn, read_label_table
from energyql.training.samples import Prior, draw_thumbnails
from energyql.training.settings import POOL_START
from energyql.training.target import AnyModel, Target, open_source, source_of
from energyql.training.teacher import load_teacher, teacher_reads

if TYPE_CHECKING:
    from typing_extensions import Unpack

BINS = 5
"""Number of equal parts of the range of predictions of a continuous attribute."""
PICTURES_AT_ONCE = 16
READER_SIDE = 128
"""Side, in pixels, of the thumbnails for a reader of words (a network that compares pictures with texts)."""


def sample_pictures(
    model: AnyModel | Model,
    out: str | Path,
    n: int = 300,
    *,
    device: torch.device | str = "auto",
    progress: bool | Report = False,
    **options: Unpack[SampleOptions],
) -> PictureFolder:
    """Draw pictures of a generator to label, without a query; the generator needs no attributes.

    All pictures in a folder have the same generator, seed, truncation and condition. After an interruption, the same
    call draws the pictures that are missing. A later call with `unsure` adds pictures, as a round of active learning.

    Args:
        model: as for `train_attributes`; or a `Model`.
        out: the folder of the pictures. Picture i, such as `0000012.png`, is drawn from prior sample i of the seed, its
            i-th random latent, as for `train_attributes`.
        n: number of random pictures that the folder is to have, numbered 0 to `n - 1`; or, with `unsure`, the number of
            pictures to add. At least 1.
        device, progress: see `train_attributes`.
        options: fields of `SampleSettings` by name, such as `unsure`, `only` or `seed`.

    Returns:
        The folder, with all its pictures.

    Raises:
        ArgumentError: an argument is out of range, or does not fit the pictures that the folder has; or the model lacks
            the heads, the teacher or the reader whose predictions are to count.
        DataError: the folder or a table is damaged, or a table is about other pictures.
        ModelError: the model cannot be read.
    """
    # All arguments are checked before `pictures.json` is written, because it would refuse the corrected call.
    asked = SampleSettings(**options)
    n = whole_number("n", n, most=asked.pool if asked.unsure else POOL_START)
    path, where = as_path(out), choose_device(device)
    source = open_source(model)
    chooser = _Chooser.of(source, asked, source_of(model).model) if asked.unsure else None
    with sole_writer(path, "pictures to label"):
        is_new = not (path / RECORD).exists()
        folder = open_pictures(source, path, asked)
        prior = source.prior_of(folder.drawn, where)
        tables = [path / LABELS] * (path / LABELS).exists() + ([] if asked.labels is None else [Path(asked.labels)])
        excluded = set(folder.unsure).union(*(_labelled(table, folder.drawn) for table in tables if asked.unsure))
        with reporting(progress) as report:
            if is_new:  # first, so that pictures of an interrupted call are not taken for those of another seed
                folder = folder.having(0, ())
            if chooser is None:
                _draw(prior, folder, range(n), report)
                return folder.having(max(n, folder.random), folder.unsure)
            pool = torch.arange(POOL_START, POOL_START + asked.pool)
            draw = partial(draw_thumbnails, prior, pool, folder=path / POOL, report=report)
            chosen = chooser.choose(prior, pool, excluded, n, draw)
            _draw(prior, folder, chosen, report)
            return folder.having(folder.random, (*folder.unsure, *chosen))


def open_pictures(source: Target, path: Path, asked: SampleSettings) -> PictureFolder:
    """The folder of pictures of a generator; a new one, whose record is not written yet, if there is none.

    Raises:
        ArgumentError: the settings do not fit the pictures that the folder has.
        DataError: the folder is damaged, or has pictures of another generator.
    """
    network, bank, own = source.generator, source.bank, source.truncation
    if (path / RECORD).exists():
        folder = PictureFolder.read(path)
        drawn: dict[str, Any] = {"seed": asked.seed, "truncation": asked.truncation, "condition": asked.condition}
        folder.drawn.check(str(path), **drawn)
        folder.drawn.check_generator(network, str(path))
        return folder
    condition = asked.condition
    if bank is not None:
        condition = bank.fitted.default_condition if condition is None else condition
        own = own if own is not None and bank.fitted.holds_at(own) else bank.truncation[1]
    psi, seed = (1.0 if own is None else own) if asked.truncation is None else asked.truncation, asked.seed or 0
    return PictureFolder(path, Drawn.by(network, seed, float(psi), check_condition(condition, network)))


def _labelled(table: Path, drawn: Drawn) -> list[int]:
    """Numbers of the pictures in a table; raise a `DataError` if they were not drawn as `drawn` says."""
    labels = read_label_table(table)
    if labels.drawn != drawn:
        message = f"{table} is not about these pictures: {labels.drawn} is not {drawn}"
        raise DataError(message, hint="name the table of this folder")
    return [int(number) for number in labels.pictures]


@dataclass(frozen=True)
class _Chooser:
    """Networks whose predictions of the attributes `names` say of which pictures the model is least sure.

    These are the heads; or the judges of a teacher, in place of the heads where they read an attribute; or the mean of
    a head's log-odds and those of a reader of words.
    """

    names: tuple[str, ...]
    heads: AttributeBank
    teacher: Sequence[Judge]
    reader: ClipLabeller | None

    @classmethod
    def of(cls, source: Target, asked: SampleSettings, folder: object) -> _Chooser:
        """The networks that the settings name; `folder` is the model, whose teacher is read if it is a folder."""
        if source.bank is None:
            hint = "label random pictures, and train"
            raise ArgumentError("the model has no heads yet that could be unsure", hint=hint)
        heads, reader = heads_of(source.bank, "a choice of unsure pictures"), asked.reader
        names = tuple(source.bank.vocabulary if asked.only is None else asked.only)
        heads.raw_outputs(names)  # refuses unknown names before anything is written
        teacher = load_teacher(source.folder) if isinstance(folder, str | Path) and Path(folder).is_dir() else []
        if asked.by == "reader":
            teacher, names = [], tuple(name for name in names if reader is not None and name in reader.vocabulary)
            if not names:
                given = either("reader=...", "--by reader --reader R --prompts P")
                hint = f"give prompts of attributes that the model has: {given}"
                raise ArgumentError("there is no reader of words for the attributes of the model", hint=hint)
        elif asked.by == "heads" or not any(name in judge.vocabulary for judge in teacher for name in names):
            teacher = []
        if asked.by == "teacher" and not teacher:
            message = "the model has no teacher that reads these attributes"
            raise ArgumentError(message, hint="train it on a table of labelled pictures, or choose by the heads")
        return cls(names, heads, teacher, reader if asked.by == "reader" else None)

    @torch.no_grad()
    def choose(
        self, prior: Prior, pool: Tensor, excluded: set[int], n: int, draw: Callable[[int], tuple[Tensor, Any]]
    ) -> list[int]:
        """Choose n pictures of the pool by `choose_unsure`; with a reader, by the mean of its log-odds and the head's.

        Args:
            excluded: numbers of pictures that are not chosen.
            draw: draws thumbnails of the whole pool, also of what is excluded, so that later rounds find all; its
                argument is their side in pixels.
        """
        rows = [row for row, number in enumerate(pool.tolist()) if number not in excluded]
        if n > len(rows):
            hint = f"give a larger {either('pool', '--pool')}"
            raise ArgumentError(f"only {len(rows)} pictures are left to choose from", hint=hint)
        index, names = pool[rows], self.names
        predictions = self.heads.to("cpu").predict(prior.read(index, self.heads.space), names)
        if self.teacher:
            pictures, _ = draw(self.teacher[0].side)
            read = teacher_reads(self.teacher, pictures[rows])
            predictions |= {name: prediction for name, prediction in read.items() if name in names}
        if self.reader is not None:
            pictures, _ = draw(READER_SIDE)
            parts = [self.reader.predict(part.float() / 127.5 - 1) for part in pictures[rows].split(64)]
            both = [name for name in parts[0] if isinstance(predictions.get(name), YesNo)]
            logits = {name: torch.cat([part[name].logit for part in parts]).cpu() for name in both}
            predictions = {name: YesNo((predictions[name].columns()[:, 0] + logits[name]) / 2) for name in both}
        return [int(index[row]) for row in choose_unsure(predictions, n)]


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
    queue of a class begins with the pictures predicted to be of it, the least certain first. The others follow, those
    that come closest to being of this class first.

    All predictions of a continuous attribute are equally certain. So the range of its predictions is cut into five
    parts of equal width. The queue of a part has the pictures of this part, then all others.

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
