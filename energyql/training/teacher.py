"""A teacher: networks that learn to read attributes off labelled pictures, and label further pictures for heads.

From the same few labels, networks that read pictures become far more accurate than heads, which read latents. So heads
gain by labels of thousands of pictures by networks (self-training, distillation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.predictions import Prediction, output_count, split_outputs
from energyql.generators.base import preview_side
from energyql.kinds import KINDS
from energyql.numerics.shapes import Float, Int
from energyql.training.feature_fit import FeatureSettings, choose_features
from energyql.training.label_noise import CLEAR_GAIN, as_logits, calibration, gain
from energyql.training.labelled import Inputs, Labelled, Seen
from energyql.training.labels import LabelTable
from energyql.training.picture_fit import (
    Family,
    PictureSettings,
    fit_readers,
    leave_out,
    mean_outputs,
    measure,
)
from energyql.training.samples import PICTURES, Prior, kept_thumbnails
from energyql.training.settings import POOL_SIZE, POOL_START
from energyql.training.target import TEACHER, Task
from energyql.vocabulary import AttributeSpec, Vocabulary

FURTHER, LARGEST = 8_000, 128
"""Number of pictures that a teacher labels by default: none of more than `LARGEST` pixels a side, without previews,
because labelling more by hand is faster than drawing so many."""
FURTHER_SEEN, LARGEST_SEEN = 3_000, 256
"""Number of pictures that a teacher labels by default if it reads features; of pictures of more than `LARGEST_SEEN`
pixels a side it labels as many fewer as they are larger."""
FURTHER_PREVIEWS = 2_000
"""Number of further pictures that are large, if the generator draws previews, which a teacher reads in their place."""
FURTHER_SEED, FURTHER_SEED_BY_FUNCTION = 2, 18
"""Offset of the seed of further pictures, for labels in a table or by a function (whose pictures have offsets 0 to
2)."""
TEACHER_FOLDS = 3
"""Number of folds of the labelled pictures, and of networks: each learns from all folds but one."""
FEW = 1_000
"""With fewer labelled pictures and a backbone, teacher and judge are linear on features; with more, networks that learn
from pixels take part, as they always do in a verifier."""
FEATURES = "features"
"""Name of the stages in which a backbone reads pictures."""
DRAWS = 4
"""Number of labels that are drawn at random for each picture: with P(yes) 0.75, about three yes and one no."""


@dataclass(frozen=True)
class Taught:
    """The further pictures that a teacher labelled, as latents with labels.

    Attributes:
        latents: (n, latent_dim). That of each picture occurs `DRAWS` times, each time with another random label.
        labels: attribute -> (n,): 0/1, class index or number; only attributes that are read clearly better than chance.
        report: attribute -> `pictures`, the number of further pictures with labels; and, if the teacher learned it,
            `score` and `interval` as in `HeadReport`, on `samples` labels by hand that the teacher did not learn from.
        networks: the teacher, for the attributes in `labels`; empty if there are none, and if it looks at previews.
    """

    latents: Float[Tensor, "n latent_dim"]
    labels: Mapping[str, Tensor]
    report: Mapping[str, Mapping[str, Any]]
    networks: Sequence[Judge] = ()


def further_pictures(task: Task, count: int | None, *, previews: bool) -> int:
    """Number of further pictures for teacher or verifier; 0 if the labels are not a table about pictures.

    `count` is the user's wish; by default it is 8,000, or 0 for pictures of more than 128 pixels a side; with features
    and few labels 3,000, and fewer if they have more than 256.

    Args:
        previews: whether previews will do (`previewed`), of which the default is 2,000 where these numbers are smaller.
            If a teacher looks at previews, the wish is about these alone.
    """
    if task.table is None or task.table.index is None:
        return 0
    has_previews = previewed(task).preview is not None
    if count is not None and (previews or not has_previews):
        return count
    number = FURTHER if task.picture_side <= LARGEST else 0
    if _by_features(task):
        number = FURTHER_SEEN * LARGEST_SEEN**2 // max(task.picture_side, LARGEST_SEEN) ** 2
    return max(number, FURTHER_PREVIEWS) if previews and has_previews else number


def _by_features(task: Task) -> bool:
    """Whether a teacher reads features alone: with many labels, networks that learn from pixels take part."""
    return task.backbone is not None and task.table is not None and len(task.table.pictures) < FEW


def previewed(task: Task) -> Prior:
    """Prior samples as a teacher sees them: of large pictures, previews, if the generator draws some."""
    side = preview_side(task.prior.generator, task.side(PictureSettings().side))
    enough = LARGEST_SEEN if _by_features(task) else LARGEST
    return task.prior if side is None or task.picture_side <= enough else replace(task.prior, preview=side)


def feature_settings(task: Task, labelled: Labelled[Inputs], rows: Int[Tensor, " rows"]) -> list[FeatureSettings]:
    """The three best layers of the backbone for some labelled pictures (`choose_features`); [] without a backbone."""
    if task.backbone is None or not isinstance(labelled.inputs, Seen):
        return []
    own = Labelled(labelled.inputs[rows], labelled.labels_at(rows), labelled.vocabulary)
    return choose_features(task.backbone, own, task.course(FEATURES, None, task.prior.seed))


def draw_further(task: Task, prior: Prior, count: int, side: int) -> tuple[Tensor, Prior]:
    """Draw further random pictures without labels, or previews, of a seed that no labelled pictures have.

    Returns:
        The pictures, (n, 3, size, size) uint8, reduced to `side`; and the prior whose first samples they are.
    """
    prior = prior.apart(FURTHER_SEED if task.table is not None else FURTHER_SEED_BY_FUNCTION)
    pictures, _ = task.draw(f"further {_kind(prior)}", prior, torch.arange(count), side)
    return pictures, prior


def _kind(prior: Prior) -> str:
    """What is drawn, as a part of the names of steps."""
    return PICTURES if prior.preview is None else "previews"


def teach(
    task: Task,
    table: LabelTable,
    labels: Mapping[str, Tensor],
    rows: Int[Tensor, " rows"],
    vocabulary: Vocabulary,
    *,
    count: int,
) -> Taught:
    """Fit a teacher to labelled pictures of a generator, and let it label further pictures.

    Each of its three networks learns from two folds of the labelled pictures, and is measured and calibrated on the
    third, so that its probabilities are right for new pictures. The teacher predicts their mean.

    Args:
        labels: attribute -> (rows of the table,): 0/1, class index or number; NaN where missing.
        rows: rows of the table from which the teacher may learn.
        count: number of further pictures, at least 1. If some of the table were chosen from a pool as uncertain, up to
            `count` others of the pool are labelled as well.

    Returns:
        The labelled pictures; none if no attribute has enough labels.
    """
    prior, settings, seed = previewed(task), PictureSettings(), task.prior.seed
    side = task.side(settings.side)
    pictures, _ = task.draw(_kind(prior), prior, table.pictures, side)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed % 2**63))]
    splits = leave_out(rows.chunk(TEACHER_FOLDS))
    specs = Vocabulary(
        spec for name, spec in vocabulary.items() if all((~labels[name][split.learn].isnan()).any() for split in splits)
    )
    if not specs:
        return Taught(prior.read(torch.arange(0), prior.fitted.space), {}, {})
    labelled = Labelled(task.look(FEATURES, pictures), labels, specs)
    best = feature_settings(task, labelled, rows)
    layers = best[-1:]  # another layer than verifier and judge, so other errors
    families = [Family(layers, len(splits))] if layers else []
    if not layers or len(rows) >= FEW:
        families = [Family([settings], len(splits)), *families]
    with task.target.work.step(TEACHER) as folder:
        networks, unseen = fit_readers(labelled, splits, families, task.course(TEACHER, folder, seed + 2))
    further, more = draw_further(task, prior, count, side)
    latents = more.read(torch.arange(count), prior.fitted.space)
    if table.learned:
        index, pool = _pool(task, prior, table, side, count)
        # The pool comes first, because heads are stopped on the last pictures, which must not be chosen ones.
        if len(index):
            further, latents = torch.cat([pool, further]), torch.cat([prior.read(index, prior.fitted.space), latents])
    # The verifier usually reads another of these layers of the same pictures.
    seen = task.look(f"{FEATURES} of further {_kind(prior)}", further, [each.layer for each in best])
    outputs = torch.stack([mean_outputs(networks[k :: len(splits)], seen) for k in range(len(splits))])
    counts = [output_count(spec) for spec in specs.values()]
    random = torch.Generator().manual_seed((seed + 1) % 2**63)
    # Only random pictures: those that were chosen are harder, and of other classes.
    at_random = rows >= table.learned
    by_hand = {name: torch.where(at_random, labels[name][rows].float(), torch.nan) for name in specs}
    _, reports = measure(unseen, by_hand, specs, {name: torch.empty(0) for name in specs})
    taught: dict[str, Tensor] = {}
    quality: dict[str, dict[str, Any]] = {name: {"pictures": 0} for name in vocabulary}
    for (name, spec), own, new in zip(specs.items(), unseen.split(counts, 1), outputs.split(counts, 2), strict=True):
        report = reports[name]
        quality[name] |= {"score": report.score, "interval": report.interval, "samples": report.held_out}
        if report.above_chance or gain(own, by_hand[name], spec) >= CLEAR_GAIN:
            quality[name]["pictures"] = len(further)
            taught[name] = _drawn_labels(own, by_hand[name], new, spec, random)
    # Unsure pictures are chosen among pictures in full size, which networks of previews have not seen.
    networks = [network.only(taught) for network in networks] if taught and prior.preview is None else []
    return Taught(latents.repeat(DRAWS, 1), taught, quality, networks)


def _pool(task: Task, prior: Prior, table: LabelTable, side: int, most: int) -> tuple[Int[Tensor, " n"], Tensor]:
    """Numbers and thumbnails of the first `most` pictures of the pool, without those in the table."""
    index = POOL_START + torch.arange(min(most, POOL_SIZE))
    pictures = None if table.pool is None else kept_thumbnails(table.pool, prior, index, side)
    if pictures is None:
        pictures, _ = task.draw("pool" if prior.preview is None else "pool of previews", prior, index, side)
    others = ~torch.isin(index, table.pictures)
    return index[others], pictures[others]


def store_teacher(folder: Path, networks: Sequence[Judge]) -> None:
    """Write the networks of a teacher to a model folder, in place of an earlier teacher."""
    for path in folder.glob(f"{TEACHER}-*"):
        path.unlink()
    for k, network in enumerate(networks):
        network.save(folder, f"{TEACHER}-{k}")


def load_teacher(folder: Path) -> list[Judge]:
    """Read the networks that `store_teacher` wrote; [] if there are none.

    Raises:
        ModelError: a file is damaged.
    """
    return [Judge.load(folder, path.stem) for path in sorted(folder.glob(f"{TEACHER}-*.json"))]


def teacher_reads(networks: Sequence[Judge], pictures: Tensor) -> dict[str, Prediction]:
    """Predictions of a teacher, the mean of its networks, for pictures (n, 3, side, side) uint8.

    They are right if all classes are equally frequent. The standard deviation of a number means nothing.
    """
    outputs = mean_outputs(networks, pictures)
    return split_outputs(outputs, networks[0].vocabulary.values(), dict.fromkeys(networks[0].vocabulary, 1.0))


def _drawn_labels(
    own: Float[Tensor, "rows outputs"],
    labels: Float[Tensor, " rows"],
    new: Float[Tensor, "networks count outputs"],
    spec: AttributeSpec,
    random: torch.Generator,
) -> Float[Tensor, " n"]:
    """Draw `DRAWS` labels of each new picture from calibrated probabilities; for a number, repeat its prediction.

    Only one network did not learn from a picture that is labelled by hand. So these labels calibrate single networks,
    by a factor s of the logits. The mean of all networks errs less, so s is too small for it. If single networks are
    calibrated to labels drawn from the mean with s, their factor is t. The mean then gets s * s / t.
    """
    mean = new.mean(0)
    if KINDS[spec.kind].numeric:
        return mean[:, 0].repeat(DRAWS)
    scale, shift, _ = calibration(own, labels, spec)
    guess = draw_labels(mean * scale + shift, random)
    single = calibration(new.repeat(1, DRAWS, 1).flatten(0, 1), guess.repeat(len(new)), spec, exact=True).scale
    # The shift is not corrected: a class may be missing among few labels.
    return draw_labels(mean * scale * (scale / single) + shift, random)


def draw_labels(logits: Float[Tensor, "count outputs"], random: torch.Generator) -> Float[Tensor, " n"]:
    """Draw `DRAWS` labels for each row of logits (of yes, or of classes); row i has those at `i + k * count`."""
    below = as_logits(logits).softmax(1).cumsum(1)[:, :-1]
    # Evenly spread numbers, so that the shares of the drawn labels differ little from the probabilities.
    start = torch.rand(len(logits), 1, generator=random)
    return torch.cat([((start + k / DRAWS) % 1 > below).sum(1) for k in range(DRAWS)]).float()
