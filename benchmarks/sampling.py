"""Samplers against exact samples on random formulas, half of them rare: `python -m benchmarks.sampling --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.common import (
    ChoicesOption,
    DeviceOption,
    JudgedModelOption,
    SmokeOption,
    judged_model,
    run_command,
    show,
)
from benchmarks.formulas import all_relations, random_formulas, rare_formulas
from energyql.evaluation.bench import Bench
from energyql.evaluation.compare import compare
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.methods import PAPER, read_methods
from energyql.evaluation.reference import prior_samples
from energyql.evaluation.report import NOTE, TABLE_WIDTH, summary_table
from energyql.evaluation.settings import ORACLE, PRIOR, SampleCounts
from energyql.language import Expr
from energyql.logic.satisfiability import satisfied
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DEFAULT_SAMPLER
from energyql.progress import reporting
from energyql.sampling import SAMPLERS

FORMULA_SEED = 2026
COMMON, UNCOMMON, RARE = 12, 6, 6
LEAST_COMMON, LEAST_UNCOMMON, LEAST_RARE, MOST_RARE = 1e-2, 1e-3, 1e-4, 7e-4
"""Limits of the prevalence of each sort, by the shared pictures of the prior; uncommon ones end where common ones
begin. The oracle, which draws more, may find that a rare one is a little more frequent; the prevalence should still be
under 0.1 %."""
SMOKE = SampleCounts(n=8, prior=500, oracle=30)
SMOKE_COMMON = 2
MAIN = (DEFAULT_SAMPLER, "slice", "ode", PAPER)


def choose_formulas(
    model: EvaluatedModel, prior: JudgedSamples, common: int, uncommon: int, rare: int, seed: int = FORMULA_SEED
) -> list[Expr]:
    """Return seeded formulas over the model's attributes; see `random_formulas` for those left out.

    Args:
        model: the evaluated model.
        prior: judged samples of the prior.
        common: formulas of depth 1 to 3 with a prevalence from 1 to 60 %.
        uncommon: formulas of depth 1 to 3 with a prevalence from 0.1 to 1 %.
        rare: conjunctions with a prevalence from `LEAST_RARE` to `MOST_RARE`.
        seed: of the formulas.
    """
    relations = all_relations(model.vocabulary)
    known = np.broadcast_to(satisfied(relations, prior.values, model.vocabulary), (len(prior),))

    def prevalence(formula: Expr) -> float:
        return float((satisfied(formula, prior.values, model.vocabulary) & known).mean())

    formulas = random_formulas(model.vocabulary, prevalence, common, seed, least=LEAST_COMMON)
    if uncommon:
        formulas += random_formulas(
            model.vocabulary, prevalence, uncommon, seed, least=LEAST_UNCOMMON, most=LEAST_COMMON
        )
    if rare:
        formulas += rare_formulas(model.vocabulary, prevalence, rare, seed, least=LEAST_RARE, most=MOST_RARE)
    return formulas


def main(
    model: JudgedModelOption = DEFAULT_MODEL,
    samplers: Annotated[str, typer.Option(help="As for energyql bench; or all.")] = ",".join(MAIN),
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Samples for each formula and sampler.")] = 1000,
    prior: Annotated[int, typer.Option(min=100, help="Pictures of the prior that all formulas share.")] = PRIOR,
    oracle: Annotated[int, typer.Option(min=30, help="Exact samples that an oracle should be worth.")] = ORACLE,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    formula_seed: Annotated[int, typer.Option(min=0, help="Of the formulas; use one folder for each.")] = FORMULA_SEED,
    device: DeviceOption = "auto",
    out: Annotated[Path, typer.Option(help="Folder of results, plots and the state of the run.")] = Path(
        "runs/sampling"
    ),
    smoke: SmokeOption = False,
    choices: ChoicesOption = False,
) -> None:
    """Sample 24 seeded formulas and hold the samples against exact ones. Interrupt at will: it resumes."""
    methods = read_methods((*SAMPLERS, PAPER) if samplers == "all" else samplers)
    counts = SMOKE if smoke else SampleCounts(n=n, prior=prior, oracle=oracle, seed=seed)
    evaluated, find = judged_model(model, device, choices)
    with reporting(True) as report:
        samples = prior_samples(evaluated, counts.prior, out / "prior", report, seed=counts.seed)
        sorts = (SMOKE_COMMON, 0, 0) if smoke else (COMMON, UNCOMMON, RARE)
        formulas = choose_formulas(evaluated, samples, *sorts, formula_seed)
        title = "Samplers on random formulas"
        data = compare(Bench(evaluated, counts, out, report), formulas, methods, title=title, find=find)
    saved = f"Saved {out}: results.json, results.md (formula by formula) and two plots"
    judged = ("By the choices of latents, in place of an image judge.",) if choices else ()
    show(summary_table(data), NOTE, *judged, saved, width=TABLE_WIDTH)


if __name__ == "__main__":
    run_command(main, resumes=True)
