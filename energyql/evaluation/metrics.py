"""Numbers about samples: accuracy, frequencies, diversity, Fréchet distance; and the features that distances need."""

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
"""Name of torch-fidelity's file of Inception's weights."""


@dataclass(frozen=True)
class Features:
    """A feature network with a unique name: pictures in [-1, 1], (batch, 3, height, width), to (batch, dim)."""

    name: str
    function: Callable[[Tensor], Tensor]

    @torch.inference_mode()
    def read(self, images: Tensor) -> Tensor:
        """Return the features of pictures, (batch, dim) float32 on the CPU."""
        return self.function(images).flatten(1).float().cpu()


def judge_features(judge: ImageLabeller | None) -> Features | None:
    """Return the features of a judge; `None` for a judge without features, such as a function.

    Those of a `Judge` are averaged over the positions of its last level, one a channel, as those of Inception are for
    its distance. Any other object can have a method `features`.
    """
    if isinstance(judge, Judge):
        channels = judge.channels[-1]
        return Features("judge", lambda images: judge.features(images).unflatten(1, (channels, -1)).mean(2))
    found = getattr(judge, "features", None)
    return Features("judge", found) if callable(found) else None


def inception_features(weights: Path | None = None) -> Features:
    """Return the 2,048 features of Inception of the usual Fréchet inception distance, by torch-fidelity.

    Args:
        weights: torch-fidelity's file of weights; by default the one in its own folder. Nothing is downloaded.

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
        # torch-fidelity unpickles any object, so it is given only files that hold nothing but tensors.
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
        found: Tensor = network(pixels.expand(-1, 3, -1, -1))[0]
        return found

    return Features(f"inception {digest[:12]}", function)


FRECHET_REPETITIONS = 4
"""Of the bootstrap of the floor of Fréchet distances."""
Array = npt.NDArray[np.float64]
Indicators = npt.NDArray[np.float32]
"""(n, bins): 1 where a sample falls into a bin, else 0."""
Columns = Mapping[str, npt.NDArray[Any]]
"""Attribute -> decided values, (n,)."""
QUARTERS = 4
"""Bins of a continuous attribute, equally frequent in the prior."""
REPETITIONS = 200
"""Of the bootstrap of the noise floor."""
CROWDED = 0.01
"""Quantile of the oracle's nearest-neighbour distances below which two samples count as near-duplicates."""


def conditional_accuracy(
    query: Expr, values: Columns, vocabulary: Mapping[str, AttributeSpec]
) -> dict[str, float] | None:
    """Return the accuracy of samples for each condition of a query: the ACC of Nie et al. 2021 (arXiv 2110.10873).

    Args:
        query: bound; a conjunction of conditions on one attribute each, or a single one.
        values: attribute -> decided values of an independent judge, (n,).
        vocabulary: of the model.

    Returns:
        Condition -> share of samples that meet it; for `age = 0.7`, one minus the mean distance to the target over the
        attribute's range, as published. `None` for any other query, for which accuracy is not defined.
    """
    conditions = query.operands if isinstance(query, And) else (query,)
    found: dict[str, float] = {}
    for condition in conditions:
        plain = condition.operand if isinstance(condition, Weight) else condition
        literal = plain.operand if isinstance(plain, Not) else plain
        if not isinstance(literal, Predicate):
            return None
        if isinstance(plain, Near):
            spec = vocabulary[plain.name]
            missed = np.abs(values[plain.name] - plain.value).mean() / (spec.high - spec.low)
            found[str(plain)] = max(0.0, 1.0 - float(missed))
        else:
            found[str(plain)] = float(satisfied(plain, values, vocabulary).mean())
    return found


class AttributeBins:
    """Bins of all attributes: yes of a yes/no attribute, each class, each quarter of a continuous attribute.

    Quarters are bounded by the quartiles of values of the prior.

    Attributes:
        names: one a bin, such as "smile", "hair = black", "age in quarter 2 of 4".
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
        """Return which samples fall into which bins, (n, bins)."""
        return np.stack([test(values[name]) for name, test in self._tests], axis=1).astype(np.float32)


def _in_quarter(edges: Array, quarter: int, column: Array) -> npt.NDArray[np.bool_]:
    return np.equal(np.searchsorted(edges, column, side="right"), quarter)


def frequencies(indicators: Indicators, weights: Array | None = None) -> Array:
    """Return the share of (weighted) samples in each bin, (bins,)."""
    return np.average(indicators, axis=0, weights=weights).astype(np.float64)


def frequency_error(sampled: Indicators, oracle: Indicators, weights: Array) -> tuple[float, int, float]:
    """Return the largest difference between two frequencies of one bin. Nothing is subtracted for noise.

    Args:
        sampled: of the samples to judge, (n, bins).
        oracle: of exact samples, (m, bins).
        weights: of exact samples, (m,), above 0.

    Returns:
        The difference, in [0, 1]; the index of the bin; and its expected value for an exact sampler, which is above 0
        because samples and oracle are finite, see `noise_floor`.
    """
    difference = np.abs(frequencies(sampled) - frequencies(oracle, weights))
    return float(difference.max()), int(difference.argmax()), noise_floor(oracle, weights, len(sampled))


def noise_floor(oracle: Indicators, weights: Array, n: int) -> float:
    """Return the mean of the largest frequency error of n exact samples, by the bootstrap (Efron 1979).

    In each repetition n samples are drawn from the oracle, and the oracle is drawn anew as well.
    """
    random = np.random.default_rng(0)
    share = weights / weights.sum()
    exact = random.multinomial(n, share, size=REPETITIONS) @ oracle / n
    again = random.multinomial(len(share), np.full(len(share), 1 / len(share)), size=REPETITIONS) * share
    found = (again / again.sum(axis=1, keepdims=True)) @ oracle
    return float(np.abs(exact - found).max(axis=1).mean())


def effective_size(weights: Array) -> float:
    """Return the effective number of samples, (Σw)² / Σw² (Kish 1965); 0 if there are none."""
    return float(weights.sum() ** 2 / np.square(weights).sum()) if len(weights) else 0.0


def diversity(sampled: Tensor, oracle: Tensor) -> dict[str, float]:
    """Return distances among samples, relative to those among as many exact samples.

    The distance to the nearest neighbour falls as points are added, so both sets must be equally large; the longer one
    is cut.

    Args:
        sampled: (n, dim).
        oracle: exact and equally weighted samples, (m, dim); both n and m at least 2.

    Returns:
        - `pairwise`: mean distance of two samples, a ratio: below 1 they are less varied than the oracle;
        - `nearest`: median distance to the nearest other sample, a ratio;
        - `duplicates`: share of samples whose nearest neighbour is nearer than that of 99 % of the oracle's; so 0.01
          for exact samples.
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
    # By differences: the shorter way by products would lose the small distances, which are the ones in question.
    flat = points.flatten(1).double()
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / (len(flat) * (len(flat) - 1))
    return mean, distances.fill_diagonal_(torch.inf).amin(1)


@dataclass(frozen=True)
class Gaussian:
    """Mean (dim,) and covariance (dim, dim) of features, float64."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor, weights: Array | None = None) -> Gaussian:
        """Return the fit to features (n, dim), n at least 2, with optional weights (n,)."""
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
    """Return `‖μa - μb‖² + tr(Σa + Σb - 2 (Σa Σb)^½)`, at least 0: the square of a distance, as is usual.

    Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash equilibrium" (arXiv
    1706.08500), who take the features of Inception; the distance between normals is that of Dowson and Landau 1982.
    """
    root = _root(a.covariance)
    # Σa Σb has the eigenvalues of the symmetric Σa^½ Σb Σa^½, whose root needs no complex numbers.
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return max(0.0, float(distance))


def frechet_floor(oracle: Tensor, weights: Array, n: int) -> float:
    """Return the mean distance from n exact samples to the oracle that they come from (bootstrap: Efron 1979).

    The oracle is given by features (m, dim) and weights (m,).
    """
    random = np.random.default_rng(0)
    target, share = Gaussian.of(oracle, weights), weights / weights.sum()
    rows = [random.choice(len(share), n, p=share) for _ in range(FRECHET_REPETITIONS)]
    found = [frechet_distance(Gaussian.of(oracle[torch.from_numpy(row)]), target) for row in rows]
    return sum(found) / len(found)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
