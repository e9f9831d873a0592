"""The public calls that measure: `compare_samplers` and `evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from energyql.evaluation import evaluate as evaluation
from energyql.evaluation.compare import ORACLE, PRIOR, SampleCounts, compare
from energyql.evaluation.features import Features
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.methods import DEFAULT_METHODS, Method, read_methods
from energyql.evaluation.protocols import PROTOCOLS
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.model import Model
from energyql.pipeline.queries import check_arguments
from energyql.pipeline.settings import whole_number
from energyql.progress import Report, reporting


def compare_samplers(
    queries: str | Expr | Sequence[str | Expr],
    samplers: str | Iterable[str | Method] = DEFAULT_METHODS,
    *,
    folder: str | Path = "bench",
    model: str | Path | Model = DEFAULT_MODEL,
    n: int = 500,
    prior: int = PRIOR,
    oracle: int = ORACLE,
    truncation: float | None = None,
    label: int | Sequence[float] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | Report = True,
) -> dict[str, Any]:
    """Compare samplers with exact samples, on a model and queries of one's own.

    Exact samples are those of the prior that satisfy a query by the model's judge; for queries that the prior hardly
    ever satisfies see `energyql.evaluation.reference`. An interrupted run goes on if it is called again.

    Args:
        queries: one or more; a path that ends in .txt, or that exists, is a file with a query a line.
        samplers: names out of `energyql.sampling.SAMPLERS`, "semantics:sampler", "sampler@strength", "paper" for the
            paper's algorithm at its own cost, or `energyql.evaluation.methods.Method` with a sampler of one's own.
        folder: for `results.json`, `results.md`, two plots, and the state for the next run.
        model: name of a packaged model, a model folder, or a `Model` in memory; it needs a judge.
        n: samples of each sampler for each query, at least 2.
        prior: pictures of the prior that all queries share, judged once for a model.
        oracle: wanted effective number of exact samples of each query.
        truncation, label, device, progress: as for `energyql.generate`.
        seed: of all samples.

    Returns:
        The contents of `results.json`: `settings`, `machine`, `contenders`, `queries` (see
        `energyql.evaluation.measure.describe`), and `summary`, the mean and worst over queries.

    Raises:
        EnergyQLError: a query, a name or a setting is wrong, or the model has no judge.
    """
    counts = _sample_counts(n, prior, oracle, seed)
    methods = read_methods(samplers)
    evaluated = EvaluatedModel(model, device=device, truncation=truncation, label=label)
    listed = [queries] if isinstance(queries, str | Expr) else list(queries)
    checked = check_arguments(listed, evaluated.vocabulary, {method.semantics for method in methods})
    with reporting(progress) as report:
        return compare(evaluated, checked, methods, counts=counts, folder=Path(folder), report=report)


def evaluate(
    protocols: Sequence[str] = tuple(PROTOCOLS),
    *,
    folder: str | Path = "evaluation",
    model: str | Path | Model = DEFAULT_MODEL,
    samplers: str | Sequence[str | Method] = evaluation.DEFAULT_METHODS,
    presets: Sequence[str] = evaluation.DEFAULT_PRESETS,
    n: int = 200,
    edits: int = 64,
    prior: int = PRIOR,
    oracle: int = 500,
    features: Features | None = None,
    truncation: float | None = None,
    label: int | Sequence[float] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | Report = True,
) -> dict[str, Any]:
    """Run the experiments of the field on a model, with this library's settings and the paper's side by side.

    An interrupted run goes on if it is called again.

    Args:
        protocols: names out of `energyql.evaluation.protocols.PROTOCOLS`; all by default.
        folder: for `evaluation.json`, `evaluation.md`, pictures, and the state for the next run.
        model: name of a packaged model, a model folder, or a `Model` in memory; it needs a judge.
        samplers: sample the queries; see `energyql.compare_samplers`.
        presets: make the edits: names out of `energyql.editing.settings.PRESETS`.
        n: samples for each query and sampler, at least 2.
        edits: pictures that are edited.
        prior, oracle: as for `energyql.compare_samplers`.
        features: in which distances between pictures are measured, such as
            `energyql.evaluation.features.inception_features()`; by default the judge's.
        truncation, label, device, progress: as for `energyql.generate`.
        seed: of queries and samples.

    Returns:
        The contents of `evaluation.json`; see `energyql.evaluation.evaluate.evaluate`.

    Raises:
        EnergyQLError: a name or a setting is wrong, or the model has no judge.
    """
    counts = _sample_counts(n, prior, oracle, seed)
    plan = evaluation.make_plan(protocols, samplers, presets, counts=counts, edits=whole_number("edits", edits))
    evaluated = EvaluatedModel(model, device=device, truncation=truncation, label=label, features=features)
    with reporting(progress) as report:
        return evaluation.evaluate(evaluated, plan, Path(folder), report)


def _sample_counts(n: int, prior: int, oracle: int, seed: int) -> SampleCounts:
    return SampleCounts(
        n=whole_number("n", n, least=2),
        prior=whole_number("prior", prior, least=100),
        oracle=whole_number("oracle", oracle, least=30),
        seed=whole_number("seed", seed, least=0, most=2**64 - 1),
    )
