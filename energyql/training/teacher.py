"""A teacher: networks that learn to read attributes off labelled pictures, and label further pictures for the heads.

A network reads pictures far better than heads read latents after the same few labels. So heads that are fitted to its
labels of thousands of pictures, besides the labels by hand, learn more (self-training, or distillation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.predictions import Prediction, output_count, split_outputs
from energyql.attributes.quality import HeadReport
from energyql.kinds import KINDS
from energyql.numerics.shapes import Float, Int
from energyql.progress import Report
from energyql.training.heads import attribute_loss, residuals
from energyql.training.labels import POOL_SIZE, POOL_START, LabelTable
from energyql.training.picture_fit import PictureFit, PictureSettings, read_outputs
from energyql.training.report import report_quality
from energyql.training.samples import PICTURES, Prior, draw_thumbnails, kept_thumbnails
from energyql.training.target import TEACHER, Target
from energyql.vocabulary import AttributeSpec, Vocabulary

FURTHER, LARGEST = 8_000, 128
"""Further pictures that are labelled, unless a call says otherwise, and the largest side of such pictures, in pixels:
drawing larger ones takes longer than labelling more by hand."""
FOLDS = 3
"""Networks, each of which learns from all folds of the labels but one."""
DRAWS = 4
"""Labels that are drawn from the probabilities of a picture. Together they stand for the probabilities."""
SCALE_PENALTY = 15.0
"""Loss, in nats over all labels, of a log scale of 1 or -1 in a calibration. Without it, a hundred labels that by
chance are all read right make a network much too certain."""


@dataclass(frozen=True)
class Taught:
    """Further latents, and the labels of their pictures by the teacher.

    Attributes:
        latents: (n, latent_dim), each `DRAWS` times.
        labels: attribute that was taught -> (n,): 0/1, class index or number.
        report: of every attribute: `score`, `interval` and `samples` of the teacher on labels by hand that it did not
            learn from, as `HeadReport` has them; and `pictures`, the number of further pictures, 0 if it does not read
            clearly better than chance.
        networks: those of the teacher, for the attributes that it reads clearly better than chance.
    """

    latents: Float[Tensor, "n latent_dim"]
    labels: Mapping[str, Tensor]
    report: Mapping[str, Mapping[str, Any]]
    networks: Sequence[Judge] = ()


@torch.no_grad()
def further_pictures(prior: Prior) -> int:
    """Return the number of further pictures that are worth drawing with this generator."""
    picture = prior.generator.synthesize(prior.w(torch.arange(1)).to(prior.device))
    return FURTHER if max(picture.shape[-2:]) <= LARGEST else 0


def teach(
    target: Target,
    prior: Prior,
    table: LabelTable,
    labels: Mapping[str, Tensor],
    rows: Int[Tensor, " rows"],
    vocabulary: Vocabulary,
    *,
    count: int,
    settings: PictureSettings | None = None,
    report: Report,
) -> Taught:
    """Fit a teacher to labelled pictures, and let it label further pictures of the prior.

    The teacher is the mean of `FOLDS` networks. Each learns without one fold of the rows, on which it is measured and
    calibrated, so that its probabilities fit pictures that it has never seen. The intermediate results are in the
    folder of the target, for a resumption.

    Args:
        target: the model folder.
        prior: of the labelled pictures, with what heads are fitted under; further ones have another seed.
        table: the numbers of the pictures.
        labels: attribute -> (len(table),): 0/1, class index or number; NaN where missing.
        rows: of the table, from which the teacher may learn.
        vocabulary: the attributes.
        count: number of further pictures, at least 1. If the table has pictures that were chosen, as many of the pool
            from which they were chosen are labelled besides, at most all.
        settings: of the networks.
        report: told the progress.
    """
    settings, work = settings or PictureSettings(), target.work
    assert table.index is not None
    with work.step(PICTURES) as folder:
        pictures, _ = draw_thumbnails(prior, table.index, settings.side, folder, report=report)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(prior.seed % 2**63))]
    folds = rows.chunk(FOLDS)
    parts = [torch.cat([*folds[:k], *folds[k + 1 :]]) for k in range(len(folds))]
    specs = [spec for name, spec in vocabulary.items() if all((~labels[name][part].isnan()).any() for part in parts)]
    if not specs:
        return Taught(prior.read(torch.arange(0), prior.fitted.space), {}, {})
    networks, unseen = [], []
    with work.step(TEACHER) as folder:
        for k, (part, fold) in enumerate(zip(parts, folds, strict=True)):
            seed = (prior.seed + 2 + k) % 2**63
            fit = PictureFit(pictures, labels, Vocabulary(specs), settings, rows=part, seed=seed, device=prior.device)
            fit.run(folder / str(k), partial(_progress, report, k))
            networks.append(fit.finish())
            unseen.append(read_outputs(networks[k], pictures[fold]))
    # Of another seed, and so none of those that are labelled by hand, which the report of the heads uses.
    more, index = replace(prior, seed=prior.seed + 2), torch.arange(count)
    with work.step("further pictures") as folder:
        further, _ = draw_thumbnails(more, index, settings.side, folder, report=report)
    latents = more.read(index, prior.fitted.space)
    if table.learned:
        index, pool = _pool(target, prior, table, networks[0].side, most=count, report=report)
        # First, because heads are stopped on the last pictures, which nobody has chosen from.
        if len(index):
            further, latents = torch.cat([pool, further]), torch.cat([prior.read(index, prior.fitted.space), latents])
    outputs = torch.stack([read_outputs(network, further) for network in networks])
    counts = [output_count(spec) for spec in specs]
    random = torch.Generator().manual_seed((prior.seed + 1) % 2**63)
    # Pictures that heads chose are harder than random ones, and of other classes.
    at_random = rows >= table.learned
    known = {spec.name: torch.where(at_random, labels[spec.name][rows].float(), torch.nan) for spec in specs}
    reports = _quality(torch.cat(unseen), known, Vocabulary(specs))
    found: dict[str, Tensor] = {}
    quality: dict[str, dict[str, Any]] = {name: {"pictures": 0} for name in vocabulary}
    for spec, own, new in zip(specs, torch.cat(unseen).split(counts, 1), outputs.split(counts, 2), strict=True):
        measured = reports[spec.name]
        quality[spec.name] |= {
            "score": measured.score, "interval": measured.interval, "samples": measured.held_out
        }  # fmt: skip
        if measured.above_chance:
            quality[spec.name]["pictures"] = len(further)
            found[spec.name] = _drawn_labels(own, known[spec.name], new, spec, random)
    kept = [network.only(found) for network in networks] if found else []
    return Taught(latents.repeat(DRAWS, 1), found, quality, kept)


def _pool(
    target: Target, prior: Prior, table: LabelTable, side: int, *, most: int, report: Report
) -> tuple[Int[Tensor, " n"], Tensor]:
    """Return numbers and thumbnails of the pool from which pictures were chosen for the table, without the latter.

    A teacher that chose has drawn them, and they are read from where `sample_pictures` keeps them.
    """
    assert table.index is not None
    index = POOL_START + torch.arange(min(most, POOL_SIZE))
    pictures = None
    if table.pool is not None:
        pictures = kept_thumbnails(table.pool, prior, index, side)
    if pictures is None:
        with target.work.step("pool") as folder:
            pictures, _ = draw_thumbnails(prior, index, side, folder, report=report)
    left = ~torch.isin(index, table.index)
    return index[left], pictures[left]


def store_teacher(folder: Path, networks: Sequence[Judge]) -> None:
    """Keep the networks of the last training in a model folder, in place of those of an earlier one."""
    for path in folder.glob(f"{TEACHER}-*"):
        path.unlink()
    for k, network in enumerate(networks):
        network.save(folder, f"{TEACHER}-{k}")


def load_teacher(folder: Path) -> list[Judge]:
    """Read the networks that `store_teacher` wrote; none if there are none.

    Raises:
        ModelError: a file is damaged.
    """
    return [Judge.load(folder, path.stem) for path in sorted(folder.glob(f"{TEACHER}-*.json"))]


def teacher_reads(networks: Sequence[Judge], pictures: Tensor) -> dict[str, Prediction]:
    """Return the mean predictions of a teacher for pictures, (n, 3, side, side) uint8; classes count equally."""
    outputs = torch.stack([read_outputs(network, pictures) for network in networks]).mean(0)
    return split_outputs(outputs, networks[0].vocabulary.values(), dict.fromkeys(networks[0].vocabulary, 1.0))


def _quality(
    outputs: Float[Tensor, "rows outputs"], labels: Mapping[str, Tensor], vocabulary: Vocabulary
) -> dict[str, HeadReport]:
    """Measure outputs on labels that the networks did not learn from."""
    predictions = split_outputs(outputs, vocabulary.values(), residuals(outputs, labels, vocabulary))
    return report_quality(predictions, labels, vocabulary, {name: torch.empty(0) for name in vocabulary})


def _progress(report: Report, networks: int, done: float) -> None:
    report("teacher", (networks + done) / FOLDS)


def _drawn_labels(
    own: Float[Tensor, "rows outputs"],
    known: Float[Tensor, " rows"],
    new: Float[Tensor, "networks count outputs"],
    spec: AttributeSpec,
    random: torch.Generator,
) -> Float[Tensor, " n"]:
    """Draw `DRAWS` labels of each new picture from the probabilities that fit the labelled ones; or repeat the number.

    Labelled pictures are read by the one network that did not learn from them, new ones by all. The mean of all errs
    less, and may be more certain than one network alone. By how much is seen on the new pictures: the logits of the
    mean are raised once, by the factor by which one network, calibrated to labels drawn from the mean, is less certain
    than on labels by hand.

    Args:
        own: outputs for labelled pictures, each of one network.
        known: their labels, NaN where missing.
        new: outputs for new pictures.
        spec: the attribute.
        random: source of random numbers.
    """
    mean = new.mean(0)
    if KINDS[spec.kind].numeric:
        return mean[:, 0].repeat(DRAWS)
    scale, shift = _calibration(own, known, spec)
    guess = _draw(mean * scale + shift, random)
    found, _ = _calibration(new.repeat(1, DRAWS, 1).flatten(0, 1), guess.repeat(len(new)), spec)
    # The shift is not corrected: few labels may lack a class.
    return _draw(mean * scale * (scale / found) + shift, random)


def _draw(logits: Float[Tensor, "count outputs"], random: torch.Generator) -> Float[Tensor, " n"]:
    """Draw `DRAWS` labels for each row, 0/1 from one logit, else class indices."""
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    below = logits.softmax(1).cumsum(1)[:, :-1]
    # Evenly spread numbers, so that the shares of the drawn labels differ little from the probabilities.
    start = torch.rand(len(logits), 1, generator=random)
    return torch.cat([((start + k / DRAWS) % 1 > below).sum(1) for k in range(DRAWS)]).float()


@torch.enable_grad()
def _calibration(
    outputs: Float[Tensor, "rows outputs"], labels: Float[Tensor, " rows"], spec: AttributeSpec
) -> tuple[Tensor, Tensor]:
    """Return scale and shift of the logits with the lowest loss (Platt 1999; Guo et al. 2017, arXiv 1706.04599).

    A scale alone is not enough: the networks count all classes equally, and find rare ones too often.
    """
    log_scale, shift = torch.zeros(()).requires_grad_(), torch.zeros(outputs.shape[1]).requires_grad_()
    optimizer = torch.optim.LBFGS([log_scale, shift], max_iter=100, line_search_fn="strong_wolfe")
    count = int((~labels.isnan()).sum())

    def loss() -> float:
        optimizer.zero_grad()
        value = attribute_loss(outputs * log_scale.exp() + shift, labels, spec)
        value = value + SCALE_PENALTY * log_scale.square() / count
        value.backward()
        return value.item()

    optimizer.step(loss)
    return log_scale.exp().detach(), shift.detach()
