"""The fit of linear readers: logistic and ridge regression on features of a frozen backbone and on small pictures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.backbones import Backbone
from energyql.attributes.judge import Features, Judge
from energyql.attributes.predictions import output_count
from energyql.errors import DataError
from energyql.kinds import KINDS
from energyql.numerics.pool import one_thread
from energyql.numerics.shapes import Float
from energyql.training.heads import attribute_loss, balancing_weights, base_outputs, check_spread
from energyql.training.labelled import Labelled, Seen
from energyql.training.steps import Course, minimise
from energyql.vocabulary import AttributeSpec, Vocabulary

SMALL = 32
"""Side, in pixels, of the small pictures whose pixels are features beside those of a layer."""
RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Strengths of the ridge penalty among which cross-validation chooses, weakest first: the loss is the sum over labels,
in nats, and features have a mean square of 1 together."""
FIRST_RIDGE = 0.03
"""Strength with which layers are compared."""
FOLDS = 5
"""Number of folds of the cross-validation that chooses layer and penalty."""
STEPS = 60
"""Largest number of steps of L-BFGS in a fit; the loss is convex."""
DIRECTIONS = 1_024
"""Largest number of principal components of the features that a fit uses; all, if there are fewer labels."""
LEAST_SPREAD = 1e-3
"""Standard deviation below which a feature counts as constant and is left out."""


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """What a linear reader reads: a layer of a backbone, and small pictures.

    Attributes:
        backbone: its name, see `open_backbone`.
        mark: SHA-256 of its weights.
        layer: name of the layer.
        side: side, in pixels, of the pictures that the backbone reads.
        ridges: attribute -> strength of its ridge penalty, as cross-validation chose it.
    """

    backbone: str
    mark: str
    layer: str
    side: int
    ridges: Mapping[str, float] = dataclasses.field(default_factory=dict)


def fit_linear(labelled: Labelled[Seen], settings: FeatureSettings) -> Judge:
    """Fit a linear reader by penalised maximum likelihood. Its outputs are right if all classes are equally frequent.

    Args:
        labelled: pictures with features (`Seen`) of the layer, and their labels.

    Returns:
        The reader in evaluation mode, rounded as it is saved.

    Raises:
        DataError: an attribute has no label, or labels that are too large.
    """
    features = labelled.inputs.features[settings.layer]
    standard = _Standard.of(features)
    body = Features(settings.backbone, settings.mark, (settings.layer,), settings.side, SMALL, len(standard.mean))
    body.mean.copy_(standard.mean)
    body.scale.copy_(standard.scale)
    judge = Judge(labelled.vocabulary, body)
    with torch.no_grad():
        inputs = Labelled(standard.inputs(features), labelled.labels, labelled.vocabulary)
        weight, bias = _Solver(inputs).solve(settings.ridges)
        judge.head.weight.copy_((standard.directions @ weight).T)
        judge.head.bias.copy_(bias + _evening(labelled))
    judge.round()
    return judge.eval().requires_grad_(False)


def _evening(labelled: Labelled[Any]) -> Float[Tensor, " outputs"]:
    """What is added to outputs that are right at the frequencies in the labels; see `balancing_weights`."""
    shifts = []
    for name, spec in labelled.vocabulary.items():
        count = output_count(spec)
        if KINDS[spec.kind].numeric:
            shifts.append(torch.zeros(count))
            continue
        weights = balancing_weights(labelled.labels[name], spec).log()
        shifts.append(weights[1:] - weights[:1] if count == 1 else weights)
    return torch.cat(shifts)


@dataclasses.dataclass(frozen=True)
class _Standard:
    """How features become the inputs of a fit.

    Attributes:
        mean, scale: of each feature, (features,), in half precision; together, features then have a mean square of 1.
        directions: orthonormal directions, (features, inputs), that hold all pictures of the fit, or their largest
            principal components.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor

    @classmethod
    def of(cls, features: Tensor) -> _Standard:
        """By the pictures of a fit."""
        features = features.float()
        mean, std = features.mean(0).half().float(), features.std(0)
        kept, pixels = std > LEAST_SPREAD, torch.arange(len(mean)) >= len(mean) - 3 * SMALL**2
        scale = torch.zeros_like(std)
        for part in (kept & pixels, kept & ~pixels):  # both parts count as much
            scale[part] = 1 / (std[part] * math.sqrt(2 * max(1, int(part.sum()))))
        scale = scale.half().float()
        return cls(mean, scale, _directions((features - mean) * scale))

    def inputs(self, features: Tensor) -> Float[Tensor, "n inputs"]:
        """The inputs of a fit, or of its test."""
        return ((features.float() - self.mean) * self.scale) @ self.directions


def _directions(x: Float[Tensor, "n features"]) -> Float[Tensor, "features inputs"]:
    """Orthonormal directions that hold all rows of x, or its `DIRECTIONS` largest principal components."""
    if len(x) <= DIRECTIONS:
        values, vectors = torch.linalg.eigh((x @ x.T).double())
        large = values > 1e-7 * values[-1]
        found: Tensor = (x.T.double() @ (vectors[:, large] / values[large].sqrt())).float()
        return found
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        directions: Tensor = torch.svd_lowrank(x, q=min(DIRECTIONS, x.shape[1]), niter=2)[2]
    return directions


class _Solver:
    """Penalised maximum likelihood for all attributes at once, by L-BFGS; the loss is convex."""

    def __init__(self, labelled: Labelled[Tensor]) -> None:
        self.inputs, self.specs = labelled.inputs, list(labelled.vocabulary.values())
        targets, base = labelled.targets, []
        for numbers, spec in zip(targets.unbind(1), self.specs, strict=True):
            if numbers.isnan().all():
                raise DataError(f"{spec.name!r}: none of the pictures to learn from has a label")
            if KINDS[spec.kind].numeric:
                check_spread(numbers[~numbers.isnan()], spec)
            base.append(base_outputs(numbers, spec))
        self.counts = list(map(output_count, self.specs))
        self.scale, self.offset = (torch.cat(parts) for parts in zip(*base, strict=True))
        self.groups = _alike(self.specs, targets)
        self.weight = torch.zeros(self.inputs.shape[1], sum(self.counts)).requires_grad_()
        self.bias = torch.zeros(sum(self.counts)).requires_grad_()

    @one_thread()  # its operations are small
    def solve(self, ridges: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """Weights (inputs, outputs) and biases, begun at those of the last call."""
        strengths = [
            torch.full((n,), ridges.get(spec.name, FIRST_RIDGE))
            for spec, n in zip(self.specs, self.counts, strict=True)
        ]
        penalty = torch.cat(strengths) / 2

        def loss() -> Tensor:
            parts = self.outputs(self.inputs, self.weight, self.bias).split(self.counts, 1)
            losses = [_sum_of(parts, rows, labels, spec) for spec, rows, labels in self.groups]
            return torch.stack(losses).sum() + (penalty * self.weight.square().sum(0)).sum()

        minimise(loss, [self.weight, self.bias], STEPS)
        return self.weight.detach() * self.scale, self.bias.detach() * self.scale + self.offset

    def outputs(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> Float[Tensor, "n outputs"]:
        """Outputs side by side."""
        return (inputs @ weight + bias) * self.scale + self.offset


_Group = tuple[AttributeSpec, list[int], Tensor]
"""The first of some attributes of equal kind and values, the positions of all, and their labels, (attributes, n)."""


def _alike(specs: Sequence[AttributeSpec], targets: Tensor) -> list[_Group]:
    """Attributes whose losses can be computed in one call: with many attributes, calls take most of the time."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for position, spec in enumerate(specs):
        groups.setdefault((spec.kind, spec.values, spec.low, spec.high), []).append(position)
    return [(specs[each[0]], each, targets[:, each].T) for each in groups.values()]


def _sum_of(parts: Sequence[Tensor], rows: Sequence[int], labels: Tensor, spec: AttributeSpec) -> Tensor:
    outputs, flat = torch.cat([parts[row] for row in rows]), labels.flatten()
    present = ~flat.isnan()
    return attribute_loss(outputs[present], flat[present], spec) * present.sum()


def choose_features(backbone: Backbone, labelled: Labelled[Seen], course: Course) -> list[FeatureSettings]:
    """Cross-validation: the three best layers, best first, each with the best ridge penalty of each attribute.

    Args:
        labelled: pictures with the features of all layers (`see`).
    """
    features = labelled.inputs.features
    random = torch.Generator().manual_seed(course.seed % 2**63)
    folds = torch.randperm(len(labelled), generator=random) % FOLDS
    rows = []
    for done, layer in enumerate(features):
        losses = _losses(features[layer], labelled, folds, range(2), (FIRST_RIDGE,))
        rows.append([each[0] for each in losses.values()])
        course.progress((done + 1) / len(features) / 2)
    table = torch.tensor(rows)  # (layers, attributes), of which each counts as much
    total = dict(zip(features, (table / table.mean(0).clamp(min=1e-9)).sum(1).tolist(), strict=True))
    best, found = sorted(features, key=total.__getitem__)[:3], []
    for done, layer in enumerate(best):
        losses = _losses(features[layer], labelled, folds, range(FOLDS), RIDGES)
        ridges = {name: RIDGES[min(range(len(RIDGES)), key=each.__getitem__)] for name, each in losses.items()}
        found.append(FeatureSettings(backbone.name, backbone.mark, layer, backbone.side, ridges))
        course.progress((1 + (done + 1) / len(best)) / 2)
    return found


def _losses(
    features: Tensor, labelled: Labelled[Seen], folds: Tensor, tested: Sequence[int], ridges: Sequence[float]
) -> dict[str, list[float]]:
    """Cross-validation: attribute -> held-out loss with each ridge penalty, summed over the labels of folds `tested`.

    A fold that has all labels of an attribute is skipped for it.
    """
    losses = {name: [0.0] * len(ridges) for name in labelled.vocabulary}
    for fold in tested:
        rows = folds != fold
        labels = labelled.labels_at(rows)
        specs = Vocabulary(spec for name, spec in labelled.vocabulary.items() if not labels[name].isnan().all())
        standard = _Standard.of(features[rows])
        solver = _Solver(Labelled(standard.inputs(features[rows]), labels, specs))
        unseen, test = standard.inputs(features[~rows]), labelled.labels_at(~rows)
        for k in reversed(range(len(ridges))):  # the strongest first: each fit begins near its end
            weight, bias = solver.solve(dict.fromkeys(specs, ridges[k]))
            for (name, spec), outputs in zip(
                specs.items(), (unseen @ weight + bias).split(solver.counts, 1), strict=True
            ):
                known = ~test[name].isnan()
                losses[name][k] += float(attribute_loss(outputs, test[name], spec) * known.sum())
    return losses
