"""The fit of linear readers: ridge regression on features of a frozen backbone, statistics, and small pictures.

Each attribute is fitted to three views of the pictures: a layer with the pixels, the pixels alone, and statistics. The
fits are averaged with weights by their errors. Classes are fitted as indicators, 0 and 1, which wrong labels disturb
less than the logistic loss, and then turned into log-odds (docs/decisions/features.md). What a fit reads off a picture
without its label has a closed form, so nothing is fitted twice to choose a layer, a penalty or weights.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from energyql.attributes.backbones import Backbone
from energyql.attributes.judge import Features, Judge
from energyql.attributes.predictions import output_count
from energyql.attributes.statistics import SIZES
from energyql.errors import DataError
from energyql.kinds import KINDS
from energyql.numerics.pool import one_thread
from energyql.numerics.shapes import Bool, Float
from energyql.training.heads import check_spread
from energyql.training.label_noise import (
    LEAST_NUMBER_RATE,
    LEAST_RATE,
    Calibration,
    calibration,
    true_classes,
    wrong_labels,
)
from energyql.training.labelled import Labelled, Seen
from energyql.training.steps import Course
from energyql.vocabulary import AttributeSpec

SMALL = 32
"""Side, in pixels, of the small pictures whose pixels are features beside those of a layer."""
SIMPLE = 3 * SMALL**2 + sum(SIZES)
"""Number of features that need no backbone; they come last."""
RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths of the ridge penalty of which each attribute has its own, weakest first: the loss is half the sum of
squared errors over labels, and features have a mean square of 1 together."""
DIRECTIONS = 1_024
"""Largest number of principal components of the features that a fit uses; all, if there are fewer labels."""
SHARPNESS = 0.25
"""Power of the likelihood by whose product views are weighted: pseudo-Bayesian model averaging has 1, equal weights are
0 (Yao, Vehtari, Simpson, Gelman 2018). Errors of the same pictures are alike, so they tell less than their number."""
FEW = 3_000
"""Largest number of pictures of which the matrix of all products is faster than a random projection."""
LEAST_SPREAD = 1e-3
"""Standard deviation below which a feature counts as constant and is left out."""
CORRECTIONS = 2
"""Number of further fits in which each label is replaced by the probabilities of the true classes, or by the expected
number, where some labels seem wrong: expectation maximisation, with readings that leave out the label of the
picture."""
LEAST_VARIANCE = 0.01
"""Least variance of the readings of a class, as a share of the squared difference of the means of classes: with few
labels a smaller one is chance."""


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """What a linear reader reads: a layer of a backbone, statistics, and small pictures.

    Attributes:
        backbone: its name, see `open_backbone`.
        mark: SHA-256 of its weights.
        layer: name of the layer.
        side: side, in pixels, of the pictures from which it learns.
    """

    backbone: str
    mark: str
    layer: str
    side: int


class LinearFit(NamedTuple):
    """A linear reader, in evaluation mode, rounded as it is saved.

    Attributes:
        unseen: attribute -> its outputs for the labelled pictures, each as if its label were not there, (labelled,
            outputs); NaN where a picture has no label.
        evening: what was added to each output so that it is right if all classes are equally frequent, (outputs,).
            Without it, logits are right for pictures like the labelled ones; and for all, if pictures to label were
            chosen by what they look like, whatever their class.
    """

    judge: Judge
    unseen: Mapping[str, Tensor]
    evening: Tensor


@one_thread()  # its operations are small
def fit_linear(labelled: Labelled[Seen], settings: FeatureSettings) -> LinearFit:
    """Fit a linear reader. Its outputs are right if all classes are equally frequent.

    Args:
        labelled: pictures with features (`Seen`) of the layer, and their labels.

    Raises:
        DataError: an attribute has no label, or labels that are too large.
    """
    x, mean, scale = _standardised(labelled.inputs.features[settings.layer])
    body = Features(settings.backbone, settings.mark, (settings.layer,), settings.side, SMALL, len(mean))
    body.mean.copy_(mean)
    body.scale.copy_(scale)
    judge, views = Judge(labelled.vocabulary, body), _views(x)
    begun, weights, biases, evening, unseen = [], [], [], [], {}
    for (present, labels), spec in zip(_problems(labelled), labelled.vocabulary.values(), strict=True):
        targets = _targets(labels, spec)
        fit = _fit(views, present, targets)
        begun.append((present, labels, spec, targets, fit, _as_logits(fit, targets, labels, spec, labelled.exact)))
    rates = [logits.rates.mean() for *_, logits in begun if len(logits.rates)]
    usual = torch.stack(rates).mean() if rates else torch.zeros(())
    for present, labels, spec, targets, fit, logits in begun:
        for _ in range(CORRECTIONS if _some_wrong(fit, logits, usual, labels, spec, labelled.exact) else 0):
            logits = logits._replace(rates=logits.rates.clamp(min=usual))
            targets = _corrected(fit, logits, labels, spec)
            fit = _fit(views, present, targets)
            logits = _as_logits(fit, targets, labels, spec, labelled.exact)
        weights.append(fit.weight * logits.scale)
        evening.append(_evening(targets.mean(0), spec))
        shift = logits.shift + evening[-1]
        biases.append(fit.bias * logits.scale + shift)
        unseen[spec.name] = torch.full((len(labelled), len(shift)), torch.nan)
        unseen[spec.name][present] = fit.unseen * logits.scale + shift
    with torch.no_grad():
        judge.head.weight.zero_()
        sizes = [view.columns.stop - view.columns.start for view in views]
        for view, part in zip(views, torch.cat(weights, 1).split(sizes), strict=True):
            judge.head.weight[:, view.columns].add_(part.T)
        judge.head.bias.copy_(torch.cat(biases))
    judge.round()
    return LinearFit(judge.eval().requires_grad_(False), unseen, torch.cat(evening))


def _some_wrong(
    fit: _Fit, logits: Calibration, usual: Tensor, labels: Tensor, spec: AttributeSpec, exact: bool
) -> bool:
    """Whether labels are to be corrected; people err about as often, `usual`, in one attribute as in others."""
    if exact:
        return False
    if KINDS[spec.kind].numeric:
        return bool(wrong_labels(fit.unseen, labels, spec, logits.rates).mean() > LEAST_NUMBER_RATE)
    return bool(torch.maximum(logits.rates.max(), usual) > LEAST_RATE)


def _corrected(
    fit: _Fit, logits: Calibration, labels: Float[Tensor, " labels"], spec: AttributeSpec
) -> Float[Tensor, "labels outputs"]:
    """Targets by readings that leave out the label: probabilities of the true classes, or the expected number."""
    if KINDS[spec.kind].numeric:
        return torch.lerp(labels, fit.unseen[:, 0], wrong_labels(fit.unseen, labels, spec, logits.rates))[:, None]
    true = true_classes(fit.unseen, labels, logits)
    return true[:, 1:] if output_count(spec) == 1 else true


def _evening(shares: Float[Tensor, " outputs"], spec: AttributeSpec) -> Float[Tensor, " outputs"]:
    """What is added to logits that are right where yes, or each class, has these shares, so that all count equally."""
    if KINDS[spec.kind].numeric:
        return torch.zeros_like(shares)
    seen = torch.where(shares > 0, shares.clamp(min=1e-3), 1.0)  # a class without labels is left as it is
    return -torch.logit(shares, 1e-3) if output_count(spec) == 1 else -seen.log()


def _standardised(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Standardised features, and the mean and scale of each, (features,), in half precision.

    A part of the features then has a mean square of 1 together.
    """
    x = features.to(torch.float32, copy=True)  # the only copy, because it may be large
    mean, std = x.mean(0).half().float(), x.std(0)
    kept, scale = std > LEAST_SPREAD, torch.zeros_like(std)
    for part in _parts(len(mean)):
        counted = kept[part]
        scale[part][counted] = 1 / (std[part][counted] * math.sqrt(max(1, int(counted.sum()))))
    scale = scale.half().float()
    return x.sub_(mean).mul_(scale), mean, scale


def _parts(size: int) -> list[slice]:
    """The parts of features: a layer, pixels, and each kind of statistics."""
    sizes = (size - SIMPLE, SIMPLE - sum(SIZES), *SIZES)
    return [slice(end - own, end) for own, end in zip(sizes, itertools.accumulate(sizes), strict=True)]


class _View:
    """Some of the features, as a regression reads them.

    Attributes:
        columns: which features.
    """

    def __init__(self, x: Float[Tensor, "n features"], parts: Sequence[slice]) -> None:
        self.columns = slice(parts[0].start, parts[-1].stop)
        self._own, self._factor = x[:, self.columns], 1 / math.sqrt(len(parts))  # a mean square of 1 together
        self._directions = _directions(self._own) if len(x) > DIRECTIONS else None
        self._inputs = self._own if self._directions is None else self._own @ self._directions
        few = len(x) <= self._inputs.shape[1]
        self._products = self._inputs @ self._inputs.T if few else None  # of pictures, for all attributes
        self._axes: dict[bytes, _Axes] = {}

    def fit(self, present: Bool[Tensor, " n"], targets: Float[Tensor, "labels outputs"]) -> _Fit:
        """The regression of the present pictures; its weights are those of the features, (columns, outputs)."""
        key = present.numpy().tobytes()
        if key not in self._axes:
            self._axes[key] = self._axes_of(present)
        ridged = self._axes[key].fit(targets)
        shares = torch.zeros(len(present), targets.shape[1])
        shares[present] = ridged.shares
        inward = self._factor * (self._inputs.T @ shares)
        bias = ridged.middle - self._factor * self._inputs[present].mean(0) @ inward
        weight = inward if self._directions is None else self._directions @ inward
        return _Fit(self._factor * weight, bias, ridged.unseen, ridged.error)

    def _axes_of(self, present: Bool[Tensor, " n"]) -> _Axes:
        """The axes of the present pictures, by the smaller of two symmetric matrices."""
        if self._products is not None:
            square = self._products[present][:, present].double()
            square = square - square.mean(0) - square.mean(1, keepdim=True) + square.mean()
            squares, left = torch.linalg.eigh(square)
            return _Axes.of(squares, left, self._factor)
        centred = self._inputs[present].double()
        centred = centred - centred.mean(0)
        squares, right = torch.linalg.eigh(centred.T @ centred)
        return _Axes.of(squares, centred @ right / squares.clamp(min=1e-12).sqrt(), self._factor)


def _views(x: Float[Tensor, "n features"], simple: Sequence[_View] = ()) -> list[_View]:
    """The three views of standardised features: a layer with the pixels, and two without the layer, maybe `simple`."""
    layer, pixels, *statistics = _parts(x.shape[1])
    return [_View(x, [layer, pixels]), *(simple or (_View(x, [pixels]), _View(x, statistics)))]


def _directions(x: Float[Tensor, "n features"]) -> Float[Tensor, "features inputs"]:
    """The `DIRECTIONS` largest principal components of x, orthonormal."""
    if len(x) <= FEW:
        squares, left = torch.linalg.eigh(x @ x.T)  # weakest first
        squares = squares[-DIRECTIONS:].clamp(min=1e-6 * squares[-1])
        left = left[:, -DIRECTIONS:] / squares.sqrt()
        directions: Tensor = x.T @ left
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            directions = torch.svd_lowrank(x, q=min(DIRECTIONS, x.shape[1]), niter=2)[2]
    return directions


class _Fit(NamedTuple):
    """A ridge regression of an attribute: the number, or an indicator of yes or of each class.

    Attributes:
        weight, bias: of the readings, (features, outputs) and (outputs,); the features of all views side by side.
        unseen: readings of the labelled pictures, each as if its label were not there, (labels, outputs).
        error: mean squared error of `unseen`, over all outputs.
    """

    weight: Tensor
    bias: Tensor
    unseen: Tensor
    error: float


def _problems(labelled: Labelled[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """For each attribute, which pictures have a label, and these labels."""
    for name, spec in labelled.vocabulary.items():
        labels = labelled.labels[name].float()
        present = ~labels.isnan()
        if not present.any():
            raise DataError(f"{name!r}: none of the pictures to learn from has a label")
        if KINDS[spec.kind].numeric:
            check_spread(labels[present], spec)
        yield present, labels[present]


def _fit(views: Sequence[_View], present: Tensor, targets: Float[Tensor, "labels outputs"]) -> _Fit:
    """The mean of the regressions on several views, weighted by how likely their errors make the targets."""
    fits = [view.fit(present, targets) for view in views]
    errors = torch.tensor([fit.error for fit in fits]).clamp(min=1e-9)
    shares = (-SHARPNESS / 2 * len(targets) * errors.log()).softmax(0).tolist()
    weight = torch.cat([share * fit.weight for share, fit in zip(shares, fits, strict=True)])
    bias, unseen = (
        torch.stack([share * each for share, each in zip(shares, column, strict=True)]).sum(0)
        for column in ([fit.bias for fit in fits], [fit.unseen for fit in fits])
    )
    return _Fit(weight, bias, unseen, float((unseen - targets).square().mean()))


class _Ridged(NamedTuple):
    """A regression by products with the labelled pictures: reading = middle + centred inputs @ their.T @ shares."""

    middle: Float[Tensor, " outputs"]
    shares: Float[Tensor, "labels outputs"]
    unseen: Float[Tensor, "labels outputs"]
    error: float


class _Axes(NamedTuple):
    """Left singular vectors of centred inputs, (labels, rank), and squares of their singular values, (rank,)."""

    left: Tensor
    squares: Tensor

    @classmethod
    def of(cls, squares: Tensor, left: Tensor, factor: float) -> _Axes:
        large = squares > 1e-7 * squares[-1].clamp(min=1e-12)
        return cls(left[:, large].float(), (factor**2 * squares[large]).float())

    def fit(self, targets: Float[Tensor, "labels outputs"]) -> _Ridged:
        """The regression with the best penalty, by readings that leave out the label of the picture."""
        middle = targets.mean(0)
        parts, best = self.left.T @ (targets - middle), None
        for ridge in RIDGES:
            kept = self.squares / (self.squares + ridge)
            own = (self.left.square() @ kept + 1 / len(targets))[:, None].clamp(max=1 - 1e-4)  # weight of its own label
            unseen = (middle + self.left @ (kept[:, None] * parts) - own * targets) / (1 - own)
            error = float((unseen - targets).square().mean())
            if best is None or error < best.error:
                shares = self.left @ (parts / (self.squares + ridge)[:, None])
                best = _Ridged(middle, shares, unseen, error)
        assert best is not None
        return best


def _targets(labels: Float[Tensor, " labels"], spec: AttributeSpec) -> Float[Tensor, "labels outputs"]:
    if KINDS[spec.kind].numeric:
        return labels[:, None]
    classes = one_hot(labels.long(), len(KINDS[spec.kind].classes(spec))).float()
    return classes if output_count(spec) > 1 else classes[:, 1:]


def _as_logits(
    fit: _Fit, targets: Float[Tensor, "labels outputs"], labels: Float[Tensor, " labels"], spec: AttributeSpec,
    exact: bool,
) -> Calibration:  # fmt: skip
    """What turns readings into logits, by unseen readings; those of numbers stay as they are.

    The first slope is that of classes with normal readings of equal variance (Fisher's discriminant), to which each
    picture belongs by its `targets`.
    """
    if KINDS[spec.kind].numeric:
        return calibration(fit.unseen, labels, spec)
    slopes = []
    for readings, inside in zip(fit.unseen.unbind(1), targets.unbind(1), strict=True):
        shares = torch.stack([inside, 1 - inside])
        counts = shares.sum(1)
        if (counts > 0).all():
            means = shares @ readings / counts
            within = (shares * (readings - means[:, None]).square()).sum() / len(readings)
            apart = (means[0] - means[1]).clamp(min=1e-3)
            slopes.append(apart / torch.maximum(within, LEAST_VARIANCE * apart.square()))
    slope = torch.stack(slopes).mean() if slopes else torch.ones(())
    if len(slopes) > 1:  # between two classes, readings of both change
        slope = slope / 2
    fitted = calibration(fit.unseen * slope, labels, spec, exact)
    return fitted._replace(scale=slope * fitted.scale)


@one_thread()  # its operations are small
def choose_features(backbone: Backbone, labelled: Labelled[Seen], course: Course) -> list[FeatureSettings]:
    """The three layers whose readings of pictures without their labels err least, best first.

    Args:
        labelled: pictures with the features of all layers (`see`).
    """
    features = labelled.inputs.features
    rows, simple, views = [], list[_View](), list[_View]()
    for done, layer in enumerate(features):
        views.clear()  # only one layer is in memory
        views = _views(_standardised(features[layer])[0], simple)
        simple = views[1:]
        problems = zip(_problems(labelled), labelled.vocabulary.values(), strict=True)
        rows.append([_fit(views, present, _targets(labels, spec)).error for (present, labels), spec in problems])
        course.progress((done + 1) / len(features))
    table = torch.tensor(rows)  # (layers, attributes), of which each counts as much
    total = dict(zip(features, (table / table.mean(0).clamp(min=1e-9)).sum(1).tolist(), strict=True))
    best = sorted(features, key=total.__getitem__)[:3]
    side = labelled.inputs.pictures.shape[-1]
    return [FeatureSettings(backbone.name, backbone.mark, layer, side) for layer in best]
