"""Measures of samples against exact samples of a query, its *oracle*; and the feature networks that some need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.labels import ImageLabeller
from energyql.errors import ModelError
from energyql.files import fingerprint, refuse_special
from energyql.kinds import KINDS
from energyql.language import And, Expr, Near, Not, Predicate, Weight
from energyql.logic.satisfiability import satisfied
from energyql.plugins import import_optional
from energyql.vocabulary import AttributeSpec

INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""Name of the file from which torch-fidelity loads the weights of Inception."""


@dataclass(frozen=True)
class Features:
    """An image feature extractor: pictures in [-1, 1], (batch, 1 or 3, height, width), to features (batch, ...).

    Cached features are used again only under the same `name`.
    """

    name: str
    function: Callable[[Tensor], Tensor]

    @torch.inference_mode()
    def read(self, images: Tensor) -> Tensor:
        """Features of pictures in [-1, 1], (batch, dim) float32 on the CPU."""
        return self.function(images).flatten(1).float().cpu()


def judge_features(judge: ImageLabeller | None) -> Features | None:
    """Image features by the judge's method `features`, or `None` if it has none; those of a `Judge` are mean-pooled."""
    if isinstance(judge, Judge):
        width = judge.body.width
        return Features("judge", lambda images: judge.features(images).unflatten(1, (width, -1)).mean(2))
    method = getattr(judge, "features", None)
    return Features("judge", method) if callable(method) else None


def inception_features(weights: Path | None = None) -> Features:
    """The network Inception of torch-fidelity, whose 2,048 features give the Fréchet inception distance.

    Args:
        weights: file with the weights; by default `INCEPTION_WEIGHTS` in the folder `checkpoints` of
            `torch.hub.get_dir()`. Nothing is downloaded.

    Raises:
        ArgumentError: torch-fidelity is not installed.
        ModelError: the file is missing or damaged, or contains other objects than tensors.
    """
    module = import_optional(
        "torch_fidelity.feature_extractor_inceptionv3", "Inception's features need torch-fidelity",
        'pip install "torch-fidelity>=0.3"',
    )  # fmt: skip
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_WEIGHTS if weights is None else weights
    refuse_special(path)
    try:
        # torch-fidelity unpickles any object, so the file must hold nothing but tensors.
        torch.load(path, weights_only=True, map_location="meta")
        mark = fingerprint(path)
        network = module.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing", hint=f"download it: {module.URL_INCEPTION_V3}") from None
    except Exception as error:  # torch names no errors of its own for damaged files
        raise ModelError(f"{path} does not hold the weights of Inception: {error}") from error

    def function(images: Tensor) -> Tensor:
        network.to(images.device)
        pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return cast(Tensor, network(pixels.expand(-1, 3, -1, -1))[0])

    return Features(f"inception {mark[:12]}", function)


FRECHET_REPETITIONS = 4
"""Number of times that `frechet_floor` draws samples."""
Array = npt.NDArray[np.float64]
Indicators = npt.NDArray[np.float32]
"""For n samples and several bins of attribute values, (n, bins): 1 if the sample is in the bin, else 0."""
Columns = Mapping[str, npt.NDArray[Any]]
"""Attribute -> its values in n samples, (n,)."""
QUARTERS = 4
"""Number of bins of a continuous attribute, equally frequent in the prior."""
REPETITIONS = 200
"""Number of times that `noise_floor` draws samples."""
CROWDED = 0.01
"""Near-duplicates are nearer to another sample than all but this share of exact samples are."""


def conditional_accuracy(
    query: Expr, values: Columns, vocabulary: Mapping[str, AttributeSpec]
) -> dict[str, float] | None:
    """Accuracy of samples for each condition of a query, the measure ACC of Nie et al. 2021 (arXiv 2110.10873).

    Args:
        query: a bound query.
        values: attribute -> values of the samples by an independent judge, (n,).

    Returns:
        Condition as text -> share of samples that satisfy it; for a target such as `age = 0.7` one minus the mean
        distance to the target as a fraction of the attribute's range, at least 0. `None` if the query is neither a
        condition on one attribute nor a conjunction of such conditions.
    """
    conditions = query.operands if isinstance(query, And) else (query,)
    accuracies: dict[str, float] = {}
    for condition in conditions:
        plain = condition.operand if isinstance(condition, Weight) else condition
        literal = plain.operand if isinstance(plain, Not) else plain
        if not isinstance(literal, Predicate):
            return None
        if isinstance(plain, Near):
            spec = vocabulary[plain.name]
            distance = np.abs(values[plain.name] - plain.value).mean() / (spec.high - spec.low)
            accuracies[str(plain)] = max(0.0, 1.0 - float(distance))
        else:
            accuracies[str(plain)] = float(satisfied(plain, values, vocabulary).mean())
    return accuracies


class AttributeBins:
    """Bins of attribute values, whose frequencies are compared.

    A yes/no attribute has one bin, for yes; a categorical attribute one for each class; a continuous attribute four,
    each with a quarter of the prior samples, whose values are `prior`.

    Attributes:
        names: name of each bin, such as "smile", "hair = black", "age in quarter 2 of 4".
    """

    def __init__(self, vocabulary: Mapping[str, AttributeSpec], prior: Columns) -> None:
        self._vocabulary = vocabulary
        steps = np.arange(1, QUARTERS) / QUARTERS
        numbers = [name for name, spec in vocabulary.items() if KINDS[spec.kind].numeric]
        self._edges = {name: np.quantile(prior[name], steps) for name in numbers}
        self.names: list[str] = []
        for name, spec in vocabulary.items():
            self.names += [name + end for end, _ in KINDS[spec.kind].bins(spec)]
            if name in self._edges:
                self.names += [f"{name} in quarter {k} of {QUARTERS}" for k in range(1, QUARTERS + 1)]

    def indicators(self, values: Columns) -> Indicators:
        """Array (n, bins) with 1 where a sample is in a bin, else 0."""
        columns: list[npt.NDArray[np.bool_]] = []
        for name, spec in self._vocabulary.items():
            columns += [np.equal(values[name], value) for _, value in KINDS[spec.kind].bins(spec)]
            if name in self._edges:
                quarters = np.searchsorted(self._edges[name], values[name], side="right")
                columns += [np.equal(quarters, k) for k in range(QUARTERS)]
        return np.stack(columns, axis=1).astype(np.float32)


def frequencies(indicators: Indicators, weights: Array | None = None) -> Array:
    """Share of samples, or of their weight (n,), in each bin, (bins,)."""
    return np.average(indicators, axis=0, weights=weights).astype(np.float64)


def frequency_error(sampled: Indicators, oracle: Indicators, weights: Array) -> tuple[float, int, float]:
    """Largest error of a bin's frequency among n samples, compared with m exact samples of `weights` above 0, (m,).

    Returns:
        The largest absolute difference of the two frequencies, in [0, 1]; the index of its bin; and the mean of the
        largest difference if the samples were exact too (`noise_floor`), which is not subtracted from the first number.
    """
    difference = np.abs(frequencies(sampled) - frequencies(oracle, weights))
    return float(difference.max()), int(difference.argmax()), noise_floor(oracle, weights, len(sampled))


def noise_floor(oracle: Indicators, weights: Array, n: int) -> float:
    """Mean of the largest difference in `frequency_error` if n samples were exact too, above 0 by chance.

    By the bootstrap (Efron 1979): each repetition draws n samples and another oracle of m samples from the oracle.
    """
    random = np.random.default_rng(0)
    share = weights / weights.sum()
    exact = random.multinomial(n, share, size=REPETITIONS) @ oracle / n
    again = random.multinomial(len(share), np.full(len(share), 1 / len(share)), size=REPETITIONS) * share
    other = (again / again.sum(axis=1, keepdims=True)) @ oracle
    return float(np.abs(exact - other).max(axis=1).mean())


def effective_size(weights: Array) -> float:
    """Effective number of samples with weights w, (Σw)² / Σw² (Kish 1965); 0 without samples."""
    return float(weights.sum() ** 2 / np.square(weights).sum()) if len(weights) else 0.0


def diversity(sampled: Tensor, oracle: Tensor) -> dict[str, float]:
    """Distances between samples, divided by distances between equally many exact samples.

    Distances to the nearest neighbour decrease with the number of samples, so only the first `min(n, m)` are used.

    Args:
        sampled: vectors of the samples, (n, dim), n at least 2.
        oracle: vectors of exact samples with equal weights, (m, dim), m at least 2.

    Returns:
        - `pairwise`: mean distance of two samples, relative to exact samples; below 1 samples are less varied;
        - `nearest`: median distance from a sample to the nearest other sample, relative to exact samples;
        - `duplicates`: share of samples that are nearer to another than 99 % of exact samples are (`CROWDED`); for
          exact samples about 0.01.
    """
    count = min(len(sampled), len(oracle))
    mean, nearest = _distances(sampled[:count])
    true_mean, true_nearest = _distances(oracle[:count])
    duplicates = (nearest < true_nearest.quantile(CROWDED)).double().mean()
    numbers = {"pairwise": mean / true_mean, "nearest": nearest.median() / true_nearest.median()}
    return {name: number.item() for name, number in (numbers | {"duplicates": duplicates}).items()}


def _distances(points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean distance of two different points, and the distance of each point to the nearest other, (n,)."""
    # By differences, because the faster way by products has large errors for small distances.
    flat = points.flatten(1).double()
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / (len(flat) * (len(flat) - 1))
    return mean, distances.fill_diagonal_(torch.inf).amin(1)


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution of features: mean (dim,) and covariance (dim, dim), float64."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor, weights: Array | None = None) -> Gaussian:
        """Normal distribution with the mean and covariance of n features, (n, dim), at least 2, with weights (n,)."""
        x = features.detach().double().cpu()
        weights = np.ones(len(x)) if weights is None else weights
        share = torch.from_numpy(weights / weights.sum())
        mean = share @ x
        centred = x - mean
        # Unbiased for any weights that do not depend on the features; 1 / (n - 1) where they are equal.
        return cls(mean, (centred.T * share) @ centred / (1 - share.square().sum()))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet distance of two normal distributions, at least 0.

    It is `‖μa - μb‖² + tr(Σa + Σb - 2 (Σa Σb)^½)`, with means μ and covariances Σ (Dowson and Landau 1982). Heusel et
    al. 2017 (arXiv 1706.08500) apply it to features of Inception.
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    # Σa Σb has the eigenvalues of the symmetric Σa^½ Σb Σa^½, whose root needs no complex numbers.
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return max(0.0, float(distance))


def frechet_floor(oracle: Tensor, weights: Array, n: int) -> float:
    """Mean `frechet_distance` of n exact samples from all, by chance alone, by the bootstrap (Efron 1979)."""
    random = np.random.default_rng(0)
    target, share = Gaussian.of(oracle, weights), weights / weights.sum()
    rows = [random.choice(len(share), n, p=share) for _ in range(FRECHET_REPETITIONS)]
    distances = [frechet_distance(Gaussian.of(oracle[torch.from_numpy(row)]), target) for row in rows]
    return sum(distances) / len(distances)
