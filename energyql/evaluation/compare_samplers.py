"""Comparing samplers in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from energyql.evaluation.compare import ORACLE, PRIOR, Size, compare
from energyql.evaluation.contenders import DEFAULT_CONTENDERS, Contender, read_contenders
from energyql.evaluation.subject import Subject
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.arguments import whole_number
from energyql.pipeline.model import Model
from energyql.pipeline.queries import check_arguments
from energyql.progress import Report, reporting


def compare_samplers(
    queries: str | Expr | Sequence[str | Expr],
    samplers: str | Iterable[str | Contender] = DEFAULT_CONTENDERS,
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
    """Hold samplers against exact samples, on a model and queries of one's own.

    Exact samples are those of the prior that satisfy a query by the model's judge; see `energyql.evaluation.oracle` for
    queries that the prior hardly ever satisfies. Interrupt at will: the same call goes on where it stopped.

    Args:
        queries: one or more; a path that ends in .txt, or that exists, is a file with a query a line.
        samplers: names out of `energyql.sampling.SAMPLERS`, "semantics:sampler", "sampler@strength", "paper" for the
            paper's algorithm at its own cost, or `Contender`s with samplers of one's own.
        folder: for `results.json`, `results.md`, two plots, and what is kept for the next run.
        model: name of a packaged model, a model folder, or a `Model` in memory; it needs a judge.
        n: samples of each sampler for each query, at least 2.
        prior: pictures of the prior that all queries share, judged once for a model.
        oracle: exact samples that are looked for, for each query.
        truncation, label, device, progress: as for `energyql.generate`.
        seed: of all samples.

    Returns:
        What `results.json` holds: `settings`, `machine`, `contenders`, `queries` (see
        `energyql.evaluation.measure.describe`), and `summary`, the mean and worst over queries.

    Raises:
        EnergyQLError: a query, a name or a setting is wrong, or the model has no judge.
    """
    size = Size(
        n=whole_number("n", n, least=2),
        prior=whole_number("prior", prior, least=100),
        oracle=whole_number("oracle", oracle, least=30),
        seed=whole_number("seed", seed, least=0, most=2**64 - 1),
    )
    contenders = read_contenders(samplers)
    subject = Subject(model, device=device, truncation=truncation, label=label)
    asked = [queries] if isinstance(queries, str | Expr) else list(queries)
    checked = check_arguments(asked, subject.vocabulary, {one.semantics for one in contenders})
    with reporting(progress) as report:
        return compare(subject, checked, contenders, size=size, folder=Path(folder), report=report)
