"""Measures of samples: accuracy, frequencies, diversity, Fréchet distance; and the feature networks for distances."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.labels import ImageLabeller
from energyql.errors import ModelError
from energyql.files import refuse_special
from energyql.kinds import KINDS
from energyql.language import And, Expr, Near, Not, Predicate, Weight
from energyql.logic.truth import satisfied
from energyql.plugins import import_optional
from energyql.vocabulary import AttributeSpec

INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""Name of the file of torch-fidelity with the weights of Inception."""


@dataclass(frozen=True)
class Features:
    """A feature network.

    Attributes:
        name: unique name, for the identity of results.
        function: function from pictures in [-1, 1], (batch, 1 or 3, height, width), to features, (batch, ...).
    """

    name: str
    function: Callable[[Tensor], Tensor]

    @torch.inference_mode()
    def read(self, images: Tensor) -> Tensor:
        """Return the features of pictures, (batch, dim) float32 on the CPU."""
        return self.function(images).flatten(1).float().cpu()


def judge_features(judge: ImageLabeller | None) -> Features | None:
    """Return the feature network of a judge: its method `features`; `None` for a judge without that method.

    Features of a `Judge` are averaged over the positions in the picture, so that there is one for each channel, as in
    the Fréchet inception distance.
    """
    if isinstance(judge, Judge):
        channels = judge.channels[-1]
        return Features("judge", lambda images: judge.features(images).unflatten(1, (channels, -1)).mean(2))
    method = getattr(judge, "features", None)
    return Features("judge", method) if callable(method) else None


def inception_features(weights: Path | None = None) -> Features:
    """Return the feature network of the Fréchet inception distance, with 2,048 features, by torch-fidelity.

    Args:
        weights: the file of torch-fidelity with the weights; by default the one in the folder of torch's downloads.
            Nothing is downloaded.

    Raises:
        ArgumentError: torch-fidelity is not installed.
        ModelError: the weights are missing, or hold more than tensors.
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
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        network = module.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing", hint=f"download it: {module.URL_INCEPTION_V3}") from None
    except Exception as error:  # torch names no errors of its own for damaged files
        raise ModelError(
            f"{path} does not hold the weights of Inception: {error}", hint="download the file again"
        ) from error

    def function(images: Tensor) -> Tensor:
        network.to(images.device)
        pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        features: Tensor = network(pixels.expand(-1, 3, -1, -1))[0]
        return features

    return Features(f"inception {digest[:12]}", function)


FRECHET_REPETITIONS = 4
"""Repetitions of the bootstrap of `frechet_floor`."""
Array = npt.NDArray[np.float64]
Indicators = npt.NDArray[np.float32]
"""(n, bins): 1 where a sample falls into a bin, else 0."""
Columns = Mapping[str, npt.NDArray[Any]]
"""Attribute -> values of samples, (n,)."""
QUARTERS = 4
"""Number of bins of a continuous attribute, equally frequent in the prior."""
REPETITIONS = 200
"""Repetitions of the bootstrap of `noise_floor`."""
CROWDED = 0.01
"""Samples are near-duplicates if their distance is below this quantile of the oracle's nearest-neighbour distances."""


def conditional_accuracy(
    query: Expr, values: Columns, vocabulary: Mapping[str, AttributeSpec]
) -> dict[str, float] | None:
    """Return the accuracy of samples for each condition of a query: the ACC of Nie et al. 2021 (arXiv 2110.10873).

    Args:
        query: a bound query.
        values: attribute -> values of the samples by an independent judge, (n,).
        vocabulary: vocabulary of the model.

    Returns:
        Condition -> share of samples that satisfy it; for a target such as `age = 0.7`, one minus the mean distance to
        the target, divided by the range of the attribute. `None` if the query is neither a condition on one attribute
        nor a conjunction of such conditions.
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
    """Bins of attribute values: one for yes of a yes/no attribute, one for each class, four for a continuous attribute.

    Args:
        vocabulary: the attributes.
        prior: attribute -> values of samples of the prior, (n,), whose quartiles bound the four bins.

    Attributes:
        names: name of each bin, such as "smile", "hair = black", "age in quarter 2 of 4".
    """

    def __init__(self, vocabulary: Mapping[str, AttributeSpec], prior: Columns) -> None:
        tests: dict[str, tuple[str, Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]]]] = {}
        for name, spec in vocabulary.items():
            kind = KINDS[spec.kind]
            tests |= {name + end: (name, partial(operator.eq, value)) for end, value in kind.bins(spec)}
            if kind.numeric:
                edges = np.quantile(prior[name], np.arange(1, QUARTERS) / QUARTERS)
                for k in range(QUARTERS):
                    tests[f"{name} in quarter {k + 1} of {QUARTERS}"] = name, partial(_in_quarter, edges, k)
        self._tests, self.names = tuple(tests.values()), tuple(tests)

    def indicators(self, values: Columns) -> Indicators:
        """Return for each sample and bin 1 if the sample falls into the bin, else 0, (n, bins)."""
        return np.stack([test(values[name]) for name, test in self._tests], axis=1).astype(np.float32)


def _in_quarter(edges: Array, quarter: int, column: Array) -> npt.NDArray[np.bool_]:
    return np.equal(np.searchsorted(edges, column, side="right"), quarter)


def frequencies(indicators: Indicators, weights: Array | None = None) -> Array:
    """Return the share of (weighted) samples in each bin, (bins,)."""
    return np.average(indicators, axis=0, weights=weights).astype(np.float64)


def frequency_error(sampled: Indicators, oracle: Indicators, weights: Array) -> tuple[float, int, float]:
    """Return the largest difference, over all bins, of the frequency among samples from that among exact samples.

    Args:
        sampled: indicators of the samples, (n, bins).
        oracle: indicators of exact samples, (m, bins).
        weights: weights of the exact samples, (m,), above 0.

    Returns:
        The difference, in [0, 1]; the index of its bin; and the `noise_floor`, the mean of such a difference for exact
        samples, which is not subtracted.
    """
    difference = np.abs(frequencies(sampled) - frequencies(oracle, weights))
    return float(difference.max()), int(difference.argmax()), noise_floor(oracle, weights, len(sampled))


def noise_floor(oracle: Indicators, weights: Array, n: int) -> float:
    """Return the mean of the difference of `frequency_error` for n exact samples, by the bootstrap (Efron 1979).

    It is above 0, because samples and oracle are finite. In each repetition n samples and another oracle are drawn from
    the oracle.

    Args:
        oracle: indicators of exact samples, (m, bins).
        weights: weights of the exact samples, (m,), above 0.
        n: number of samples.
    """
    random = np.random.default_rng(0)
    share = weights / weights.sum()
    exact = random.multinomial(n, share, size=REPETITIONS) @ oracle / n
    again = random.multinomial(len(share), np.full(len(share), 1 / len(share)), size=REPETITIONS) * share
    other = (again / again.sum(axis=1, keepdims=True)) @ oracle
    return float(np.abs(exact - other).max(axis=1).mean())


def effective_size(weights: Array) -> float:
    """Return the effective number of weighted samples, (Σw)² / Σw² (Kish 1965); 0 without samples."""
    return float(weights.sum() ** 2 / np.square(weights).sum()) if len(weights) else 0.0


def diversity(sampled: Tensor, oracle: Tensor) -> dict[str, float]:
    """Return distances among samples, relative to those among equally many exact samples.

    Distances to the nearest neighbour decrease with the number of samples, so the longer of the two sets is cut.

    Args:
        sampled: vectors of the samples, (n, dim), n at least 2.
        oracle: vectors of exact and equally weighted samples, (m, dim), m at least 2.

    Returns:
        - `pairwise`: mean distance of two samples, divided by that of exact samples; below 1 they are less varied;
        - `nearest`: median distance to the nearest other sample, divided by that of exact samples;
        - `duplicates`: share of samples that are nearer to another one than 99 % of exact samples are; 0.01 for exact
          samples.
    """
    count = min(len(sampled), len(oracle))
    mean, nearest = _distances(sampled[:count])
    true_mean, true_nearest = _distances(oracle[:count])
    return {
        "pairwise": (mean / true_mean).item(),
        "nearest": (nearest.median() / true_nearest.median()).item(),
        "duplicates": (nearest < true_nearest.quantile(CROWDED)).double().mean().item(),
    }


def _distances(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean distance of two points, and the distance of each to its nearest neighbour, (n,), float64."""
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
        """Return the distribution with mean and covariance of features (n, dim), n at least 2, and weights (n,)."""
        x = features.detach().double().cpu()
        share = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
        if weights is not None:
            share = torch.from_numpy(weights / weights.sum())
        mean = share @ x
        centred = x - mean
        # Unbiased for any weights that do not depend on the features; 1 / (n - 1) where they are equal.
        covariance = (centred.T * share) @ centred / (1 - share.square().sum())
        return cls(mean, covariance)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return the squared Fréchet distance `‖μa - μb‖² + tr(Σa + Σb - 2 (Σa Σb)^½)`, at least 0.

    The distance of normal distributions is from Dowson and Landau 1982. Heusel et al. 2017, "GANs trained by a two
    time-scale update rule converge to a local Nash equilibrium" (arXiv 1706.08500), apply it to features of Inception.
    """
    root = _root(a.covariance)
    # Σa Σb has the eigenvalues of the symmetric Σa^½ Σb Σa^½, whose root needs no complex numbers.
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return max(0.0, float(distance))


def frechet_floor(oracle: Tensor, weights: Array, n: int) -> float:
    """Return the mean `frechet_distance` of n exact samples from their oracle, by the bootstrap (Efron 1979).

    Args:
        oracle: features of the exact samples of the oracle, (m, dim).
        weights: their weights, (m,).
        n: number of samples that are drawn from the oracle.
    """
    random = np.random.default_rng(0)
    target, share = Gaussian.of(oracle, weights), weights / weights.sum()
    rows = [random.choice(len(share), n, p=share) for _ in range(FRECHET_REPETITIONS)]
    distances = [frechet_distance(Gaussian.of(oracle[torch.from_numpy(row)]), target) for row in rows]
    return sum(distances) / len(distances)


def _root(matrix: Tensor) -> Tensor:
    """Return the square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
