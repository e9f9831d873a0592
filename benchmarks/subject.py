"""A model under test, and samplers run on it under each semantics."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from energyql.evaluation.judged import EvaluatedModel as Judged
from energyql.evaluation.methods import Method
from energyql.evaluation.reference import prior_samples
from energyql.language import Expr
from energyql.logic.truth import satisfied
from energyql.pipeline.prepared import Values
from energyql.progress import Report
from energyql.sampling import Sampler


def silent(stage: str, fraction: float) -> None:
    """Tells nobody."""


class Subject(Judged):
    """A model, with all that a measurement of semantics asks of it."""

    def prior(self, count: int, seed: int, folder: Path, report: Report) -> Values:
        """Judged samples of the prior, kept in `folder` so that they are judged once for a model."""
        return prior_samples(self, count, folder / "prior", report, seed=seed).values

    def measure(self, formula: Expr, semantics: str, sampler: Sampler, n: int, seed: int) -> dict[str, Any]:
        """Sample a bound formula and count.

        Returns:
            Fractions satisfied by the word of the judge and of the heads (`judge`, `heads`), mean `evaluations` of the
            gradient, number of `failures` of the solver, how they ended (`statuses`), and `seconds` of sampling.
            Samples that the solver could not finish are judged like all others.
        """
        contender = Method(semantics, semantics, sampler)
        energy = contender.energy(self, formula)
        started = time.perf_counter()
        sampled = contender.sample(energy, self, n, seed, silent)
        seconds = time.perf_counter() - started
        return {
            "judge": self.fraction(formula, self.judge(sampled.z).values),
            "heads": self.fraction(formula, self.read_heads(sampled.z)),
            "evaluations": sampled.evaluations.double().mean().item(),
            "failures": int((~sampled.ok).sum()),
            "statuses": {status.name: count for status, count in sampled.counts().items()},
            "seconds": round(seconds, 3),
        }

    def fraction(self, formula: Expr, values: Values) -> float:
        """How many rows of `values` satisfy a bound formula, in [0, 1]."""
        return float(satisfied(formula, values, self.vocabulary).mean())
