"""Samplers against exact samples on random formulas, three of them rare: `python -m benchmarks.sampling --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from benchmarks.formulas import all_relations, random_formulas, rare_formulas
from energyql.errors import ArgumentError, EnergyQLError
from energyql.evaluation.compare import ORACLE, PRIOR, SampleCounts, compare
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.methods import PAPER, read_methods
from energyql.evaluation.reference import prior_samples
from energyql.evaluation.report import NOTE, TABLE_WIDTH, summary_table
from energyql.language import Expr
from energyql.logic.truth import satisfied
from energyql.pipeline.queries import check_arguments
from energyql.pipeline.settings import DEFAULT_SAMPLER
from energyql.progress import reporting
from energyql.sampling import SAMPLERS

FORMULA_SEED = 2026
COMMON, RARE = 21, 3
LEAST_RARE, MOST_RARE = 1e-4, 7e-4
"""Prevalence of the rare formulas, by the shared pictures of the prior. The oracle, which looks further, may find that
one of them is a little more frequent; it should still be under 0.1 %."""
SMOKE = SampleCounts(n=8, prior=500, oracle=30)
SMOKE_COMMON, SMOKE_RARE = 2, 0
MAIN = (DEFAULT_SAMPLER, "slice", "ode", PAPER)

err = Console(stderr=True, highlight=False, soft_wrap=True)


def choose_formulas(
    subject: EvaluatedModel, prior: JudgedSamples, common: int, rare: int, seed: int = FORMULA_SEED
) -> list[Expr]:
    """Seeded formulas over the model's attributes; see `random_formulas` for what is left out.

    Args:
        subject: the model.
        prior: judged samples of the prior.
        common: formulas of depth 1 to 3 with a prevalence from 0.1 to 60 %.
        rare: conjunctions with a prevalence from `LEAST_RARE` to `MOST_RARE`.
        seed: of the formulas.
    """
    relations = all_relations(subject.vocabulary)
    known = np.broadcast_to(satisfied(relations, prior.values, subject.vocabulary), (len(prior),))

    def prevalence(formula: Expr) -> float:
        return float((satisfied(formula, prior.values, subject.vocabulary) & known).mean())

    formulas = random_formulas(subject.vocabulary, prevalence, common, seed)
    if rare:
        formulas += rare_formulas(subject.vocabulary, prevalence, rare, seed, least=LEAST_RARE, most=MOST_RARE)
    return formulas


def main(
    model: Annotated[str, typer.Option(help="A packaged model, or a model folder with a judge.")] = "avatars",
    samplers: Annotated[str, typer.Option(help="As for energyql bench; or all.")] = ",".join(MAIN),
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Samples for each formula and sampler.")] = 1000,
    prior: Annotated[int, typer.Option(min=100, help="Pictures of the prior that all formulas share.")] = PRIOR,
    oracle: Annotated[int, typer.Option(min=30, help="Exact samples that an oracle should be worth.")] = ORACLE,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    formula_seed: Annotated[
        int, typer.Option(min=0, help="Of the formulas; another wants another folder.")
    ] = FORMULA_SEED,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder of results, plots and what is kept.")] = Path("runs/sampling"),
    smoke: Annotated[bool, typer.Option("--smoke", help="Two formulas, few samples: only that it runs.")] = False,
) -> None:
    """Sample 24 seeded formulas and hold the samples against exact ones. Interrupt at will: it resumes."""
    contenders = read_methods((*SAMPLERS, PAPER) if samplers == "all" else samplers)
    size = SMOKE if smoke else SampleCounts(n=n, prior=prior, oracle=oracle, seed=seed)
    subject = EvaluatedModel(model, device=device)
    try:
        with reporting(True) as report:
            seen = prior_samples(subject, size.prior, out / "prior", report, seed=size.seed)
            counts = (SMOKE_COMMON, SMOKE_RARE) if smoke else (COMMON, RARE)
            formulas = choose_formulas(subject, seen, *counts, formula_seed)
            checked = check_arguments(formulas, subject.vocabulary, {one.semantics for one in contenders})
            data = compare(
                subject,
                checked,
                contenders,
                counts=size,
                folder=out,
                report=report,
                title="Samplers on random formulas",
            )
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on from here")
        raise typer.Exit(130) from None
    console = Console(highlight=False)
    console.width = max(console.width, TABLE_WIDTH)
    console.print(summary_table(data))
    console.print(NOTE)
    console.print(f"Saved {out}: results.json, results.md (formula by formula) and two plots")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except EnergyQLError as error:
        err.print(f"{type(error).__name__}: {error}", markup=False)
        sys.exit(2 if isinstance(error, ArgumentError) else 1)
