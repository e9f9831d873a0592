"""The fit of networks that read attributes off pictures: judges, verifiers, and teachers (which label for heads)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.judge import Convolutions, Features, Judge, thumbnails
from energyql.attributes.predictions import Predictions, output_count, split_outputs
from energyql.attributes.quality import HeadReport
from energyql.errors import DataError
from energyql.kinds import KINDS
from energyql.numerics.pool import to_cpu, to_device
from energyql.numerics.shapes import Float, Int
from energyql.training.feature_fit import FeatureSettings, fit_linear
from energyql.training.heads import attribute_loss, balancing_weights, base_outputs, check_spread, residuals
from energyql.training.label_noise import (
    CLEAR_GAIN,
    calibration,
    corrected_labels,
    gain,
    label_loss,
    wrong_labels,
)
from energyql.training.labelled import Inputs, Labelled, Seen
from energyql.training.report import report_quality
from energyql.training.steps import Course, Optimization, StepFile, digest
from energyql.vocabulary import AttributeSpec, Vocabulary

WRITES = 24
"""How often a fit writes its state to a file, from which it continues after an interruption."""
AT_ONCE = 256
"""Number of pictures that a network reads in one call."""
CALM = 0.15
"""Strength of random distortions at the end of a fit: it must be precise on undistorted pictures too."""
JUDGE_TEST_SHARE = 0.2
"""Share of the labelled pictures on which a judge is only measured, unless a `Split` says which."""
LEAST_SIDE = 16
"""Smallest side, in pixels, to which a network of a verifier reduces pictures."""
DEEP_PASSES, LEAST_PICTURES = 10, 3_000
"""Upper bounds of `passes` and `least` of `PictureSettings` in `judge_settings`."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the first of two families of readers that are tried."""


@dataclasses.dataclass(frozen=True)
class PictureSettings:
    """Settings of the fit of a judge or a teacher.

    Attributes:
        side: largest side of the pictures that the network reads, in pixels; larger pictures are reduced.
        channels: number of channels at each level (a pair of convolutions) of the network.
        passes: number of times that the network learns from each picture, on average.
        least: smallest number of pictures in all steps together; if there are few, each is used more often.
        most: largest number of pictures in all steps together; if there are many, each is used less often.
        batch: number of pictures in a step.
        lr: highest learning rate of AdamW.
    """

    side: int = 48
    channels: tuple[int, ...] = (16, 32, 64)
    passes: int = 18
    least: int = 6_000
    most: int = 50_000
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.05


def judge_settings(settings: PictureSettings) -> tuple[PictureSettings, Sequence[PictureSettings]]:
    """Settings of a judge, and of the two kinds of networks of a verifier, which make different mistakes.

    The first kind reads smaller pictures. The second kind and the judge have one level more than `settings`, and so
    need fewer passes (see docs/decisions/verified.md).
    """
    own = dataclasses.replace(settings, least=min(settings.least, LEAST_PICTURES))
    deep = dataclasses.replace(
        own, channels=(*settings.channels, settings.channels[-1]), passes=min(settings.passes, DEEP_PASSES)
    )
    side = min(settings.side, max(LEAST_SIDE, 2 * settings.side // 3))
    return deep, [dataclasses.replace(own, side=side), deep]


def distort(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Augmentation: random zoom, shift, blur, contrast and noise of pictures in [-1, 1], the same on all devices.

    `strength`, from 0 (unchanged) to 1, is a factor of all changes.
    """
    batch, size = len(images), images[0].numel()
    rand, randn = (partial(draw, generator=generator) for draw in (torch.rand, torch.randn))
    draws = [rand(batch, 2), rand(batch, 2), rand(batch, 1), randn(batch, 1), rand(batch, 1), randn(batch, size)]
    numbers = to_device(torch.cat(draws, 1), images.device)
    zoom, shift, blur, contrast, deviation, noise = numbers.split([part.shape[1] for part in draws], 1)
    zoom, shift = 1 + strength * 0.06 * (zoom * 2 - 1), strength * 0.06 * (shift * 2 - 1)
    blur, contrast, deviation = (part[:, :, None, None] for part in (blur, contrast, deviation))
    side = images.shape[-1]
    centres = (torch.arange(side, device=images.device) + 0.5) * (2 / side) - 1
    across, down = (centres * zoom[:, :, None] + shift[:, :, None]).unbind(1)
    grid = torch.stack(torch.broadcast_tensors(across[:, None], down[:, :, None]), 3)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")  # sums of parts take an eighth of the time of `avg_pool2d`
    columns = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
    softened = (columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:]) / 9
    images = torch.lerp(images, softened, strength * blur)
    noise = strength * 0.06 * deviation * noise.view(images.shape)
    return cast(Tensor, images * (1 + strength * 0.05 * contrast) + noise)


def distortion_strength(done: float) -> float:
    """Strength of distortions after a fraction of a fit: 1 in the first half, then it falls linearly to `CALM`."""
    return 1 - (1 - CALM) * min(1.0, max(0.0, 2 * done - 1))


def fit_network(labelled: Labelled[Inputs], settings: PictureSettings, course: Course = Course()) -> Judge:  # noqa: B008
    """Fit a network that reads attributes off pictures. All classes count equally, however rare.

    Args:
        labelled: the pictures to learn from, which are reduced to `settings.side`.

    Returns:
        The network in evaluation mode, on the CPU, rounded as it is saved (`Judge.round`).

    Raises:
        DataError: an attribute has no label, or labels that are too large.
    """
    vocabulary, seed, device = labelled.vocabulary, course.seed, torch.device(course.device)
    specs = list(vocabulary.values())
    random = torch.Generator().manual_seed(seed)
    pictures, targets = _reduced(pictures_of(labelled.inputs), settings.side), labelled.targets
    with torch.random.fork_rng(devices=[]):  # layers are made with global random numbers
        torch.manual_seed(seed)
        judge = Judge(vocabulary, Convolutions(pictures.shape[-1], settings.channels))
    judge = judge.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    counts = list(map(output_count, specs))
    base, weights = [], []
    for numbers, spec in zip(targets.unbind(1), specs, strict=True):
        if numbers.isnan().all():
            raise DataError(f"{spec.name!r}: none of the pictures to learn from has a label")
        if KINDS[spec.kind].numeric:
            check_spread(numbers[~numbers.isnan()], spec)
        base.append(base_outputs(numbers, spec, balanced=True))
        weights.append(None if KINDS[spec.kind].numeric else balancing_weights(numbers, spec).to(device))
    scale, offset = (torch.cat(parts).to(device) for parts in zip(*base, strict=True))
    steps = max(WRITES, min(max(settings.passes * len(labelled), settings.least), settings.most) // settings.batch)
    identity = digest((settings, seed, vocabulary.to_dict(), device.type), pictures, targets)
    file = StepFile(course.checkpoint, identity)
    pictures, targets = to_device(pictures, device), to_device(targets, device)
    optimization = Optimization(judge, random, file, steps=steps, lr=settings.lr, weight_decay=settings.weight_decay)
    optimization.resume()
    judge.train()
    while (step := optimization.step) < steps:
        index = to_device(torch.randint(len(labelled), (settings.batch,), generator=random), device)
        images = distort(pictures[index].float() / 127.5 - 1, random, distortion_strength(step / steps))
        outputs = judge.head(judge.features(images)) * scale + offset
        columns = zip(outputs.split(counts, 1), targets[index].unbind(1), specs, weights, strict=True)
        optimization.descend(torch.stack([attribute_loss(*column) for column in columns]).sum())
        if optimization.step % (steps // WRITES) == 0 or optimization.step == steps:
            optimization.write()
        course.progress(optimization.step / steps)
    course.progress(1.0)
    judge.adjust(scale, offset)
    state = judge.state_dict()
    judge.load_state_dict(dict(zip(state, to_cpu([*state.values()]), strict=True)), assign=True)
    network: Judge = judge.to(memory_format=torch.contiguous_format)
    network.round()
    return network.eval()


def _reduced(pictures: Tensor, side: int) -> Tensor:
    if pictures.shape[-1] <= side:
        return pictures
    parts = (thumbnails(part.float(), side).round().to(torch.uint8) for part in pictures.split(AT_ONCE))
    return torch.cat(list(parts))


def pictures_of(inputs: Inputs) -> Tensor:
    """Pictures without their features, (n, 3, side, side) uint8."""
    return inputs.pictures if isinstance(inputs, Seen) else inputs


@torch.no_grad()
def read_outputs(network: Judge, inputs: Inputs) -> Float[Tensor, "n outputs"]:
    """Outputs of a network for pictures, (n, 3, side, side) uint8, side by side in the order of its vocabulary.

    An attribute has one logit for yes/no, one for each class, or the mean of a number. Features that are there already
    are not computed again.
    """
    body = network.body
    if isinstance(inputs, Seen) and isinstance(body, Features) and body.layers[0] in inputs.features:
        raw = inputs.features[body.layers[0]]
        parts = ((part - body.mean).mul_(body.scale) for part in raw.split(AT_ONCE))
    else:
        parts = (network.features(part.float() / 127.5 - 1) for part in pictures_of(inputs).split(AT_ONCE))
    return torch.cat([network.head(features) for features in parts])


class Split(NamedTuple):
    """Rows of labelled pictures from which a reader learns, and others on which it is measured."""

    learn: Int[Tensor, " rows"]
    test: Int[Tensor, " rows"]


def leave_out(folds: Sequence[Tensor], first: int = 0) -> list[Split]:
    """Cross-fitting: for each fold, learn from all others, and test on the rows of it that are not before `first`."""
    return [Split(torch.cat([*folds[:k], *folds[k + 1 :]]), fold[fold >= first]) for k, fold in enumerate(folds)]


class Family(NamedTuple):
    """Readers of one kind: those of the same split differ in settings, in turn. `size` is a multiple of the splits."""

    settings: Sequence[PictureSettings | FeatureSettings]
    size: int


def fit_readers(
    labelled: Labelled[Inputs], splits: Sequence[Split], families: Sequence[Family], course: Course
) -> tuple[list[Judge], Float[Tensor, "n outputs"]]:
    """Labelled pictures in; readers, and what they read off pictures from which they did not learn, out.

    Every judge, verifier and teacher is fitted here, whatever is then made of its readings. Several families are
    weighted, for each attribute, by the loss of their readings (`_blend`).

    Args:
        splits: reader k of a family learns and is tested by split `k % len(splits)`.
        families: readers of the same split and family differ in settings, in turn.

    Returns:
        The readers; and their outputs for the test pictures of all splits, one split after the other (`read_unseen`).
    """
    fitted, total = [list[Judge]() for _ in families], sum(family.size for family in families)
    turns = [(f, k) for f, family in enumerate(families) for k in range(family.size)]
    for done, (f, k) in enumerate(turns):
        settings = families[f].settings[(k + k // len(splits)) % len(families[f].settings)]
        learned = labelled.take(splits[k % len(splits)].learn)
        if isinstance(settings, FeatureSettings):
            fitted[f].append(fit_linear(cast(Labelled[Seen], learned), settings).judge)
            course.part(done, total).progress(1.0)
        else:
            fitted[f].append(fit_network(learned, settings, course.part(done, total)))
    readers = fitted[0] if len(families) == 1 else _blend(fitted, labelled, splits)
    return readers, read_unseen(readers, labelled.inputs, splits)


def _blend(families: Sequence[list[Judge]], labelled: Labelled[Inputs], splits: Sequence[Split]) -> list[Judge]:
    """Weight two families so that, for each attribute, the mean of all readers has the least loss on unseen pictures.

    A family whose weight is 0 for all attributes is left out.
    """
    rows = torch.cat([split.test for split in splits])
    labels, specs = labelled.labels_at(rows), list(labelled.vocabulary.values())
    counts = list(map(output_count, specs))
    outputs = [read_unseen(readers, labelled.inputs, splits).split(counts, 1) for readers in families]
    factors, shifts = [list[Tensor]() for _ in families], [list[Tensor]() for _ in families]
    shares = []
    for position, spec in enumerate(specs):
        own = [each[position] for each in outputs]
        fits = [calibration(each, labels[spec.name], spec, labelled.exact) for each in own]
        one, other = (each * fit.scale + fit.shift for each, fit in zip(own, fits, strict=True))
        rates = torch.stack([fit.rates for fit in fits]).mean(0)
        losses = [_loss(share * one + (1 - share) * other, labels[spec.name], spec, rates) for share in SHARES]
        share = SHARES[losses.index(min(losses))]
        shares.append(share)
        for f, (part, (scale, shift, _)) in enumerate(zip((share, 1 - share), fits, strict=True)):
            factors[f].append((part * scale).expand(counts[position]))
            shifts[f].append(part * shift)
    used = [f for f, unused in enumerate((0.0, 1.0)) if any(share != unused for share in shares)]
    total = sum(len(families[f]) for f in used)
    for f in used:
        times = total / len(families[f])
        for reader in families[f]:
            reader.adjust(torch.cat(factors[f]) * times, torch.cat(shifts[f]) * times)
            reader.round()
    return [reader for f in used for reader in families[f]]


def _loss(outputs: Tensor, labels: Tensor, spec: AttributeSpec, rates: Tensor) -> float:
    if KINDS[spec.kind].numeric:
        return float(attribute_loss(outputs, labels, spec))
    known = ~labels.isnan()
    return float(label_loss(outputs[known], labels[known].long(), rates))


def read_unseen(readers: Sequence[Judge], pictures: Inputs, splits: Sequence[Split]) -> Float[Tensor, "n outputs"]:
    """Outputs for the test pictures of each split: the mean of the readers that did not learn from them."""
    return torch.cat([mean_outputs(readers[k :: len(splits)], pictures[split.test]) for k, split in enumerate(splits)])


def measure(
    outputs: Float[Tensor, "n outputs"],
    unseen: Mapping[str, Tensor],
    vocabulary: Vocabulary,
    learnt: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, HeadReport]]:
    """Compare outputs with labels `unseen` by the readers: attribute -> standard deviation of errors, and report."""
    std = residuals(outputs, unseen, vocabulary)
    return std, report_quality(split_outputs(outputs, vocabulary.values(), std), unseen, vocabulary, learnt)


def fit_judge(
    labelled: Labelled[Inputs],
    settings: PictureSettings | FeatureSettings | None = None,
    course: Course = Course(),  # noqa: B008 (frozen)
    *,
    splits: Sequence[Split] = (),
    corrected: Mapping[str, Tensor] | None = None,
) -> tuple[Judge | None, dict[str, HeadReport]]:
    """Train and measure a judge, a network that reads attributes off pictures to check samples.

    All classes count equally in the fit, because queries ask for rare classes too.

    Args:
        splits: which pictures to learn from, and which to measure on; by default a random fifth, drawn with the seed of
            `course`, is for measuring. Several splits are cross-validation: a network is fitted for each, the report
            covers the test pictures of all, and the judge is the network of the first.
        corrected: attribute -> labels for the report in place of those in `labelled`, (labelled,); all by default.

    Returns:
        The judge, and attribute -> report for all attributes. The judge has only those that it reads well enough in the
            report, and is `None` if there are none. The standard deviation that it predicts for a number is the root
            mean square error on the report's pictures.

    Raises:
        DataError: an attribute has no label of a picture to learn from, or labels that are too large.
    """
    if not splits:
        order = torch.randperm(len(labelled), generator=torch.Generator().manual_seed(course.seed))
        tested = max(1, round(JUDGE_TEST_SHARE * len(order)))
        splits = [Split(order[tested:], order[:tested])]
    family = Family([settings or PictureSettings()], len(splits))
    (judge, *_), outputs = fit_readers(labelled, splits, [family], course)
    tests = torch.cat([split.test for split in splits])
    learnt = splits[0].learn[~torch.isin(splits[0].learn, tests)]
    truth = labelled if corrected is None else dataclasses.replace(labelled, labels={**labelled.labels, **corrected})
    std, judge.report = measure(outputs, truth.labels_at(tests), labelled.vocabulary, labelled.labels_at(learnt))
    judge.std.copy_(torch.stack(list(std.values())))
    chosen = [name for name, report in judge.report.items() if report.judges]
    return judge.only(chosen) if chosen else None, judge.report


@dataclasses.dataclass(frozen=True)
class FittedVerifier:
    """The networks of a verifier, whose mean output is a calibrated prediction for a random picture.

    Attributes:
        networks: all of the same attributes; empty if they learned none.
        report: attribute -> quality on labels that the networks did not learn from, with errors corrected; also for
            attributes that they do not read. Scores are from before the calibration, the error of calibration from
            after it.
        rows: indices of the random pictures by which the networks were calibrated and measured.
        labels: attribute -> labels of these pictures, with errors corrected by their probability (`corrected_labels`).
        readings: attribute -> predictions for these pictures by networks that did not learn from them, then for the
            pictures `fresh` of `fit_verifier` by all networks.
        wrong: attribute -> probability that a label is wrong, by networks that did not learn from it, (labelled,); NaN
            where there is none. Of labels that are exact, nothing is said.
    """

    networks: Sequence[Judge]
    report: Mapping[str, HeadReport]
    rows: Int[Tensor, " rows"]
    labels: Mapping[str, Tensor]
    readings: Predictions
    wrong: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


def fit_verifier(
    labelled: Labelled[Inputs],
    splits: Sequence[Split],
    families: Sequence[Family],
    course: Course,
    *,
    fresh: Inputs,
) -> FittedVerifier:
    """Train the networks of a verifier, which decides which pictures are kept, by cross-fitting, and calibrate them.

    Each network learns from all folds of the pictures but one, and is measured on that one, so that every label serves
    to learn and to measure. Networks that leave out the same fold are measured and calibrated by their mean output.

    They learn as if all classes were equally frequent, so they predict rare classes too often. A factor and a shift of
    the outputs, fitted to the labels of random pictures in the left-out folds, correct this. The mean of all networks
    is less certain than that of those that left out the same fold, which a second factor, by the pictures `fresh`,
    corrects.

    The verifier reads all attributes that it predicts better than chance: a poor prediction is better than none.

    Args:
        splits: at least two, by `leave_out`; only random pictures calibrate and measure the networks.
        families: the kinds of networks, see `fit_readers`.
        fresh: further random pictures without labels, (m, 3, side, side) uint8, with the features of the labelled ones.

    Raises:
        DataError: an attribute has no label of a picture to learn from, or labels that are too large.
    """
    vocabulary, pictures = labelled.vocabulary, labelled.inputs
    networks, outputs = fit_readers(labelled, splits, families, course)
    rows, every = torch.cat([split.test for split in splits]), torch.cat([split.learn for split in splits]).unique()
    # A label counts once, although it serves to learn and to measure.
    unseen, learnt = labelled.labels_at(rows), labelled.labels_at(every[~torch.isin(every, rows)])
    _, reports = measure(outputs, unseen, vocabulary, learnt)
    columns = zip(outputs.split(list(map(output_count, vocabulary.values())), 1), reports.items(), strict=True)
    chosen = [
        name
        for own, (name, report) in columns
        if report.above_chance or gain(own, unseen[name], vocabulary[name], labelled.exact) >= CLEAR_GAIN
    ]
    if not chosen:
        return FittedVerifier([], reports, rows, {}, {})
    networks, specs = [network.only(chosen) for network in networks], Vocabulary(vocabulary[name] for name in chosen)
    outputs = uncalibrated = read_unseen(networks, pictures, splits)
    counts = list(map(output_count, specs.values()))
    scales, shifts, rates = [], [], {}
    for part, (name, spec) in zip(outputs.split(counts, 1), specs.items(), strict=True):
        scale, shift, rates[name] = calibration(part, unseen[name], spec, labelled.exact)
        scales.append(scale.expand(part.shape[1]))
        shifts.append(shift)
    scale, shift = torch.cat(scales), torch.cat(shifts)
    for network in networks:
        network.adjust(scale, shift)
        network.round()
    wrong = {} if labelled.exact else _wrong(networks, labelled, splits, rates)
    outputs = read_unseen(networks, pictures, splits)
    random, corrected = torch.Generator().manual_seed(course.seed), unseen
    if not labelled.exact:
        corrected = {
            name: corrected_labels(part, unseen[name], spec, rates[name], random)
            for part, (name, spec) in zip(outputs.split(counts, 1), specs.items(), strict=True)
        }
    std, better = measure(uncalibrated, corrected, specs, learnt)
    reports |= better
    calibrated = report_quality(split_outputs(outputs, specs.values(), std), corrected, specs, learnt)
    for name, report in calibrated.items():
        details = {**reports[name].details, "reliability": report.details["reliability"]}
        reports[name] = dataclasses.replace(reports[name], calibration_error=report.calibration_error, details=details)
    parts = [mean_outputs(networks[k :: len(splits)], fresh) for k in range(len(splits))]
    joint = mean_outputs(networks, fresh)
    factor, offset = _same_spread(joint, parts, specs)
    for network in networks:
        network.adjust(factor, offset)
        network.std.copy_(torch.stack([std[name] for name in specs]))
        network.round()
        network.report = {name: reports[name] for name in specs}
    outputs = torch.cat([outputs, joint * factor + offset])
    return FittedVerifier(networks, reports, rows, corrected, split_outputs(outputs, specs.values(), std), wrong)


def _wrong(
    networks: Sequence[Judge], labelled: Labelled[Inputs], splits: Sequence[Split], rates: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Probability that each label is wrong, by calibrated networks that did not learn from it, chosen pictures too."""
    every = torch.arange(len(labelled))
    left_out = [Split(split.learn, every[~torch.isin(every, split.learn)]) for split in splits]
    rows, specs = torch.cat([split.test for split in left_out]), networks[0].vocabulary
    parts = read_unseen(networks, labelled.inputs, left_out).split(list(map(output_count, specs.values())), 1)
    usual, wrong = torch.cat(list(rates.values())).sum() / max(1, sum(map(len, rates.values()))), {}
    for part, (name, spec) in zip(parts, specs.items(), strict=True):
        wrong[name] = torch.full((len(labelled),), torch.nan)
        # Where readings are poor, errors cannot be told from them: people err as often as elsewhere.
        wrong[name][rows] = wrong_labels(part, labelled.labels[name][rows].float(), spec, rates[name].clamp(min=usual))
    return wrong


def _same_spread(joint: Tensor, parts: Sequence[Tensor], specs: Vocabulary) -> tuple[Tensor, Tensor]:
    """Factor and offset, (outputs,), that give the mean of all networks (`joint`) the spread of the means of `parts`.

    The mean of all varies less between pictures, because errors of networks that learned from other labels cancel out.
    """
    counts, factors = list(map(output_count, specs.values())), list[Tensor]()
    columns = zip(joint.split(counts, 1), *(part.split(counts, 1) for part in parts), strict=True)
    for spec, (mean, *each) in zip(specs.values(), columns, strict=True):
        spreads = [(own - own.mean(0)).square().sum().sqrt() for own in (mean, *each)]
        same = KINDS[spec.kind].numeric or not spreads[0] > 0
        factors.append((torch.ones(()) if same else torch.stack(spreads[1:]).mean() / spreads[0]).expand(mean.shape[1]))
    factor = torch.cat(factors)
    return factor, (1 - factor) * joint.mean(0)


def mean_outputs(networks: Sequence[Judge], pictures: Inputs) -> Float[Tensor, "n outputs"]:
    """Mean of the outputs of networks of the same attributes, for pictures (n, 3, side, side) uint8."""
    return torch.stack([read_outputs(network, pictures) for network in networks]).mean(0)
