"""`train_judge`: a judge of one's own, from labels of pictures; and what `train_attributes` needs to make one."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.judge import Judge, replace_judge, thumbnails
from energyql.attributes.labels import (
    Column,
    ImageLabeller,
    as_text,
    encode_column,
    is_missing,
    label_images,
    labeller_name,
)
from energyql.errors import DataError, ModelError
from energyql.generators.base import Generator
from energyql.numerics.shapes import Float, Int
from energyql.progress import Report, reporting
from energyql.training.judge_fit import fit_judge
from energyql.training.labels import LabelTable, read_label_table
from energyql.training.picture_fit import PictureSettings
from energyql.training.samples import LABEL_SEED, Prior, label_prior
from energyql.training.target import WORK, Target, open_target
from energyql.vocabulary import AttributeSpec, Vocabulary

MOST_PICTURES = 5_000
"""Most pictures that a judge is trained on, unless a call says otherwise."""
PICTURES = "pictures"
"""Subfolder for the pictures with labels, which judge and teacher read."""
PICTURE = "energyql/picture"
"""The column of the thumbnails, which no attribute can be called."""


@dataclass(frozen=True)
class TrainedJudge:
    """The outcome of the training of a judge.

    Attributes:
        judge: reads the attributes that it learnt; `None` if it learnt none.
        report: its quality by attribute, of all that it was to learn; see `fit_judge`.
    """

    judge: ImageLabeller | None
    report: Mapping[str, Mapping[str, Any]]


def train_judge(
    model: str | Path | Generator,
    labels: LabelTable | str | Path | ImageLabeller,
    out: str | Path | None = None,
    *,
    only: Sequence[str] | None = None,
    count: int = MOST_PICTURES,
    seed: int | None = None,
    settings: PictureSettings | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> TrainedJudge:
    """Train a judge of a model that has heads, and store it in the folder, where `load_model` finds it.

    The judge reads pictures, so it is independent of the heads, which read latents. It reads the attributes of the
    labels from now on, and other judges in the folder read the others. After an interruption, the same call continues.

    Args:
        model: as for `train_attributes`.
        labels: as for `train_attributes`: a function or torch module, or a table with the numbers of pictures.
        out: the model folder; by default that of `model`.
        only: attributes to judge; by default those of the labels that the model has.
        count: pictures for a labeller; they are not those that heads are fitted to.
        seed: of the samples; 0 by default for a table, where it must be that of the pictures that were labelled.
        settings: of the fit.
        device: where pictures are drawn and the judge is trained.
        progress: show progress bars.

    Returns:
        The judge and a report on it.

    Raises:
        EnergyQLError: files, labels and model do not fit together; the message says what to do.
    """
    if isinstance(labels, str | Path):
        labels = read_label_table(Path(labels))
    target = open_target(model, out)
    if target.bank is None:
        raise ModelError(f"{target.folder} has no attributes to judge", hint="train some first, with energyql train")
    bank, device = target.bank, torch.device(device)
    if isinstance(target.generator, torch.nn.Module):
        target.generator.to(device).eval()
    seed = seed if seed is not None else 0 if isinstance(labels, LabelTable) else LABEL_SEED
    prior = Prior(target.generator, seed, bank.truncation, device, bank.label)
    with reporting(progress) as report:
        trained = fit_own_judge(
            target, prior, labels, bank.vocabulary, only=only, count=count, settings=settings, report=report
        )
    replace_judge(target.folder, trained.report, trained.judge if isinstance(trained.judge, Judge) else None)
    shutil.rmtree(target.folder / WORK, ignore_errors=True)
    return trained


def have_pictures(labels: LabelTable | ImageLabeller) -> bool:
    """Whether it is known which pictures the labels are about: those of a labeller, or of a table of their numbers."""
    return not isinstance(labels, LabelTable) or labels.index is not None


def fit_own_judge(
    target: Target,
    prior: Prior,
    labels: LabelTable | ImageLabeller,
    vocabulary: Vocabulary,
    *,
    only: Sequence[str] | None = None,
    count: int,
    settings: PictureSettings | None = None,
    report: Report,
) -> TrainedJudge:
    """Draw pictures of the prior, label them if they are not, and fit a judge of attributes of `vocabulary`.

    Pictures for a labeller have another seed than those of the heads. The intermediate results are in the folder of the
    target, for a resumption.

    Raises:
        DataError: it is not known which pictures the labels are about, or they are about no attribute of the model.
    """
    settings, work = settings or PictureSettings(), target.folder / WORK
    if not have_pictures(labels):
        raise DataError(
            "the labels are about latents, and a judge learns from pictures",
            hint="label pictures by their number (the column index), or with a function",
        )
    if isinstance(labels, LabelTable):
        assert labels.index is not None
        columns, index, labeller = dict(labels.columns), labels.index, None
    else:
        prior, index, labeller = replace(prior, seed=prior.seed + 1), torch.arange(count), labels
    pictures, labelled = draw_thumbnails(
        prior, index, settings.side, work / PICTURES, labeller=labeller, generator=target.fingerprint, report=report
    )
    columns = labelled if labeller is not None else columns
    names = [name for name in vocabulary if name in columns and (only is None or name in only)]
    if not names or (only is not None and len(names) < len(only)):
        raise DataError(
            f"the labels are about {', '.join(columns)}; the model has {', '.join(vocabulary)}",
            hint="a judge needs labels of attributes that the model has",
        )
    specs = Vocabulary(vocabulary[name] for name in names)
    judge, found = fit_judge(
        pictures,
        {name: encode_column(_known_cells(columns[name], spec), spec) for name, spec in specs.items()},
        specs,
        settings,
        seed=(prior.seed + 1) % 2**63,
        device=prior.device,
        checkpoint=work / "judge.safetensors",
        progress=lambda done: report("judge", done),
    )
    return TrainedJudge(judge, found)


def _known_cells(cells: Column, spec: AttributeSpec) -> Column:
    """Return the cells, without classes that the heads do not have."""
    if spec.kind != "categorical":
        return cells
    return [cell if not is_missing(cell) and as_text(cell) in spec.values else None for cell in cells]


def draw_thumbnails(
    prior: Prior,
    index: Int[Tensor, " n"],
    side: int,
    folder: Path,
    *,
    labeller: ImageLabeller | None = None,
    generator: str,
    report: Report,
) -> tuple[Tensor, dict[str, Column]]:
    """Draw the pictures of these samples as a network reads them, and label them.

    Pictures that are in `folder` are not drawn again, as for `label_prior`.

    Returns:
        The pictures, (n, 3, side, side) uint8, and the labels, which are empty without a labeller.
    """
    columns = label_prior(
        prior, index, Thumbnails(labeller, side, "" if labeller is not None else str(index.tolist())), folder,
        generator=generator, progress=lambda done: report("drawing", done),
    )  # fmt: skip
    return read_thumbnails(columns.pop(PICTURE)), columns


class Thumbnails:
    """A labeller that adds a thumbnail of each picture to the labels of another one, as the text of a PNG.

    So thumbnails are drawn, kept and continued together with the labels.

    Args:
        labeller: the other one; `None` where the labels are known.
        side: largest side of a thumbnail, in pixels.
        about: what else identifies the thumbnails, for the resumption.
    """

    def __init__(self, labeller: ImageLabeller | None, side: int, about: str = "") -> None:
        self.labeller, self.side = labeller, side
        self.identity = f"thumbnails {side} {about} {'' if labeller is None else labeller_name(labeller)}"

    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, list[Any]]:
        """Return labels and thumbnails of pictures in [-1, 1]."""
        labels = {} if self.labeller is None else label_images(self.labeller, images)
        small = thumbnails(images.float(), min(self.side, max(images.shape[-2:])))
        pixels = ((small.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return {**labels, PICTURE: [_as_text(picture) for picture in pixels]}


def _as_text(pixels: np.ndarray[Any, Any]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def read_thumbnails(cells: Sequence[str]) -> Tensor:
    """Return thumbnails from their texts, (n, 3, side, side) uint8."""
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(cell))).convert("RGB")) for cell in cells]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
