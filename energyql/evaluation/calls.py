"""Evaluating a model in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from energyql.evaluation.compare import PRIOR, Size
from energyql.evaluation.contenders import Contender
from energyql.evaluation.evaluate import DEFAULT_CONTENDERS, DEFAULT_PRESETS, make_plan
from energyql.evaluation.evaluate import evaluate as run
from energyql.evaluation.features import Features
from energyql.evaluation.setups import SETUPS
from energyql.evaluation.subject import Subject
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.arguments import whole_number
from energyql.pipeline.model import Model
from energyql.progress import Report, reporting


def evaluate(
    protocols: Sequence[str] = tuple(SETUPS),
    *,
    folder: str | Path = "evaluation",
    model: str | Path | Model = DEFAULT_MODEL,
    samplers: str | Sequence[str | Contender] = DEFAULT_CONTENDERS,
    presets: Sequence[str] = DEFAULT_PRESETS,
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
    """Run the experiments of the field on a model, this library's settings and the paper's side by side.

    Interrupt at will: the same call goes on where it stopped.

    Args:
        protocols: names out of `energyql.evaluation.setups.SETUPS`; all by default.
        folder: for `evaluation.json`, `evaluation.md`, pictures, and what is kept for the next run.
        model: name of a packaged model, a model folder, or a `Model` in memory; it needs a judge.
        samplers: who samples; see `energyql.compare_samplers`.
        presets: who edits: names out of `energyql.editing.settings.PRESETS`.
        n: samples for each query and sampler, at least 2.
        edits: pictures that are edited.
        prior, oracle: as for `energyql.compare_samplers`.
        features: that distances between pictures are measured in, such as
            `energyql.evaluation.features.inception_features()`; by default the judge's.
        truncation, label, device, progress: as for `energyql.generate`.
        seed: of queries and samples.

    Returns:
        What `evaluation.json` holds; see `energyql.evaluation.evaluate.evaluate`.

    Raises:
        EnergyQLError: a name or a setting is wrong, or the model has no judge.
    """
    size = Size(
        n=whole_number("n", n, least=2),
        prior=whole_number("prior", prior, least=100),
        oracle=whole_number("oracle", oracle, least=30),
        seed=whole_number("seed", seed, least=0, most=2**64 - 1),
    )
    plan = make_plan(protocols, samplers, presets, size=size, edits=whole_number("edits", edits))
    subject = Subject(model, device=device, truncation=truncation, label=label, features=features)
    with reporting(progress) as report:
        return run(subject, plan, Path(folder), report)
