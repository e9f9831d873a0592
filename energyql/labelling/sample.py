"""`sample_pictures`: pictures of a generator to label, random ones or those about which its heads are least sure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from energyql.attributes.bank import Bank, FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import Judge
from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import Prediction
from energyql.errors import ArgumentError, DataError
from energyql.files import as_path, naming_target, read_json, sole_writer, write_picture
from energyql.generators.base import Generator, check_label
from energyql.generators.families import CONFIG, default_truncation, module_fingerprint, named_generator, open_generator
from energyql.generators.load import load_generator
from energyql.kinds import KINDS
from energyql.labelling.folder import LABELS, RECORD, PictureFolder
from energyql.models import model_folder
from energyql.pipeline.model import Model, load_model
from energyql.progress import Report, reporting
from energyql.render.pictures import to_pictures
from energyql.training.labels import POOL, POOL_SIZE, POOL_START, Drawn, read_label_table
from energyql.training.samples import Prior, draw_thumbnails
from energyql.training.target import is_generator_name
from energyql.training.teacher import load_teacher, teacher_reads

BINS = 5
"""Parts of equal width into which the predicted range of a continuous attribute is cut."""
PICTURES_AT_ONCE = 16
Chooser = Literal["heads", "teacher"]
"""Who chooses the pictures to label."""


def sample_pictures(
    model: str | Path | Generator | Model,
    out: str | Path,
    count: int = 300,
    *,
    unsure: bool = False,
    by: Chooser | None = None,
    only: Sequence[str] | None = None,
    labelled: str | Path | None = None,
    pool: int = POOL_SIZE,
    seed: int | None = None,
    truncation: float | None = None,
    label: int | Sequence[float] | None = None,
    generator: str | None = None,
    allow_plugins: bool = False,
    device: torch.device | str = "cpu",
    progress: bool | Report = False,
) -> PictureFolder:
    """Draw pictures of a generator to label, without a query; the generator needs no attributes.

    A folder holds pictures of one generator, seed and truncation. The same call after an interruption continues it. A
    later call with `unsure` adds pictures to it, which is a round of active learning.

    Args:
        model: a checkpoint, a model folder, a packaged model, a generator of your own, its name, or a `Model`. A name
            is `module:factory`, or that of an installed package; see `energyql.plugins`.
        out: the folder of the pictures. The name of a file is the number of its picture: picture i is prior sample i of
            the seed, as for `train_attributes`.
        count: random pictures in all, 0 to `count - 1`; or pictures to add, with `unsure`. At least 1.
        unsure: choose pictures with the least certain predictions, for each predicted value of an attribute in turn,
            and none that the folder has already; see `choose_unsure`.
        by: whose predictions count: "teacher", those of the teacher of the last training, see `train_attributes`, or
            "heads". By default those of the teacher, if it reads an attribute, because it is more accurate. It reads
            pictures, so the whole pool is drawn, once for all rounds; for attributes that it does not read the heads
            choose.
        only: attributes whose heads choose, all by default.
        labelled: a table of labels; pictures in it are not chosen.
        pool: number of prior samples to choose from, which begin at `POOL_START`.
        seed: of the samples. By default that of the folder, else 0.
        truncation: psi. By default that of the folder, else that of the heads, else that of the model; 0.7 for a
            checkpoint, as for `train_attributes`.
        label: of a conditional generator: a class, or as many numbers as it has classes.
        generator: name of the generator of a folder that only names one.
        allow_plugins: whether to import the generator that the model folder names.
        device: where to draw.
        progress: whether to show a progress bar, or a function that is told the progress.

    Returns:
        The folder, with all its pictures.

    Raises:
        ArgumentError: an argument is out of range, or does not fit the pictures that the folder has.
        DataError: the folder or the table is damaged, or is about other pictures.
        ModelError: the model cannot be read, or has no heads that could be unsure.
    """
    limit = pool if unsure else POOL_START
    if not 1 <= count <= limit:
        raise ArgumentError(f"the number of pictures is 1 to {limit}, not {count}")
    if by is not None and by not in get_args(Chooser):
        raise ArgumentError(f"pictures are chosen by {' or '.join(get_args(Chooser))}, not {by!r}")
    if not unsure and (only is not None or labelled is not None or by is not None):
        raise ArgumentError(
            "random pictures are not chosen by attributes, labels or a teacher", hint="add unsure=True, or --unsure"
        )
    path = as_path(out)
    network, bank, own, teacher = _opened(model, generator, allow_plugins)
    names = tuple(bank.vocabulary if only is None else only) if bank is not None else ()
    heads = heads_of(bank, "a choice of unsure pictures") if unsure and bank is not None else None
    if heads is not None:
        heads.raw_outputs(names)  # refuses unknown names before anything is written
        if by == "heads" or not any(name in each.vocabulary for each in teacher for name in names):
            teacher = []
        if by == "teacher" and not teacher:
            raise ArgumentError(
                "the model has no teacher that reads these attributes",
                hint="train it on a table of labelled pictures, or choose by the heads",
            )
    elif unsure:
        raise ArgumentError("the model has no heads yet that could be unsure", hint="label random pictures, and train")
    with sole_writer(path, "pictures to label"):
        found = PictureFolder.read(path) if (path / RECORD).exists() else None
        if found is not None:
            found.drawn.check(str(path), seed=seed, truncation=truncation, label=label)
            found.drawn.check_generator(network, str(path))
            folder = found
        else:
            if bank is not None:
                label = bank.fitted.default_label if label is None else label
                own = own if bank.fitted.holds_at(own) else bank.truncation[1]
            condition = check_label(label, network)
            psi_ = own if truncation is None else truncation
            if not 0 <= psi_ <= 2:
                raise ArgumentError(f"truncation is a number from 0 to 2, not {psi_}")
            folder = PictureFolder(path, Drawn.by(network, seed or 0, float(psi_), condition))
        drawn, where = folder.drawn, torch.device(device)
        if isinstance(network, torch.nn.Module):
            network.to(where).eval()
        psi = (drawn.truncation, drawn.truncation)
        prior = Prior(network, drawn.seed, FittedUnder("w", psi, drawn.label, module_fingerprint(network)), where)
        tables = [path / LABELS] if (path / LABELS).exists() else []
        tables += [] if labelled is None else [Path(labelled)]
        taken = {*folder.unsure, *(index for table in tables for index in _labelled(table, drawn))} if unsure else set()
        with reporting(progress) as report, naming_target(path):
            if found is None:  # first, so that pictures of an interrupted call are not taken for those of another seed
                folder = folder.having(0, ())
            if not unsure:
                _draw(prior, folder, range(count), report)
                return folder.having(max(count, folder.random), folder.unsure)
            assert heads is not None
            chosen = _choose(prior, heads, teacher, names, taken, count, pool, path, report)
            _draw(prior, folder, chosen, report)
            return folder.having(folder.random, (*folder.unsure, *chosen))


def _opened(
    model: str | Path | Generator | Model, name: str | None, allow_plugins: bool
) -> tuple[Generator, Bank | None, float, list[Judge]]:
    """Return the generator, its heads if it has any, the truncation of the model, and the teacher in its folder."""
    teacher: list[Judge] = []
    if isinstance(model, str | Path) and not Path(model).is_file() and not is_generator_name(str(model)):
        folder = model_folder(model)
        if not (folder / "vocabulary.json").is_file():
            generator, _ = open_generator(folder, name, allow_plugins=allow_plugins)
            return generator, None, float(read_json(folder / CONFIG).get("truncation", 1.0)), []
        model, teacher = load_model(folder, generator=name, allow_plugins=allow_plugins), load_teacher(folder)
    elif name is not None:
        raise ArgumentError(f"the generator {name} is for a model folder that names one", hint="leave it out")
    if isinstance(model, str | Path):
        model = load_generator(model) if Path(model).is_file() else named_generator(str(model))
    if isinstance(model, Model):
        return model.generator, model.bank, model.truncation, teacher
    return model, None, default_truncation(model), []


def _labelled(table: Path, drawn: Drawn) -> list[int]:
    """Return the numbers of the pictures in a table."""
    found = read_label_table(table)
    if found.drawn != drawn:
        raise DataError(
            f"{table} is not about these pictures: {found.drawn} is not {drawn}", hint="name the table of this folder"
        )
    assert found.index is not None
    return [int(number) for number in found.index]


@torch.no_grad()
def _choose(
    prior: Prior, bank: AttributeBank, teacher: Sequence[Judge], names: Sequence[str], taken: set[int],
    count: int, pool: int, folder: Path, report: Report,
) -> list[int]:  # fmt: skip
    """Choose pictures of the pool by what a teacher reads off them, and heads off latents where no teacher does."""
    whole = torch.arange(POOL_START, POOL_START + pool)
    rows = [row for row, number in enumerate(whole.tolist()) if number not in taken]
    if count > len(rows):
        raise ArgumentError(f"only {len(rows)} pictures are left to choose from", hint="give a larger pool=, or --pool")
    index = whole[rows]
    predictions = bank.to("cpu").predict(prior.read(index, bank.space), names)
    if teacher:
        # The whole pool is drawn once for all rounds.
        pictures, _ = draw_thumbnails(prior, whole, teacher[0].side, folder / POOL, report=report)
        read = teacher_reads(teacher, pictures[rows])
        predictions |= {name: prediction for name, prediction in read.items() if name in names}
    return [int(index[row]) for row in choose_unsure(predictions, count)]


@torch.no_grad()
def _draw(prior: Prior, folder: PictureFolder, indices: Sequence[int], report: Report) -> None:
    """Write the pictures that are not there yet."""
    missing = [index for index in indices if not folder.file(index).exists()]
    for start in range(0, len(missing), PICTURES_AT_ONCE):
        part = missing[start : start + PICTURES_AT_ONCE]
        images = prior.generator.synthesize(prior.w(torch.tensor(part)).to(prior.device))
        for index, picture in zip(part, to_pictures(images), strict=True):
            write_picture(folder.file(index), picture)
        report("drawing", (start + len(part)) / len(missing))


def choose_unsure(predictions: Mapping[str, Prediction], count: int) -> list[int]:
    """Choose the rows about which the heads are least sure, as many for one value of an attribute as for another.

    Each value of each attribute has a queue of all rows, and the queues take turns. In the queue of a class come first
    the rows that are predicted to be of this class, the least certain in front; then the others, the most probable in
    front. So a rare class gets as many turns as a common one, though many rows of its queue turn out to be of another.
    The head of a continuous attribute does not say where it is less sure; its queues are `BINS` parts of the predicted
    range, in the order of the rows.

    Args:
        predictions: of the heads, by attribute, for all rows.
        count: number of rows to choose, at most as many as there are.

    Returns:
        Different rows, the most informative first.
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
    """Yield an order of all rows for each value of an attribute."""
    if KINDS[prediction.kind].numeric:
        mean = prediction.number().contiguous()
        edges = torch.linspace(float(mean.min()), float(mean.max()), BINS + 1, device=mean.device)
        part = torch.bucketize(mean, edges[1:-1])
        for k in range(BINS):
            yield (part != k).long().argsort(stable=True)
    for lead in prediction.leads():
        size = lead.abs()
        # Rows of the class lie in [0, 1), the others in [1, 2).
        yield torch.where(lead >= 0, size / (1 + size), 1 + size / (1 + size)).argsort(stable=True)
