"""The posterior itself: a sampler against exact draws, `python -m benchmarks.posterior --help`.

Exact draws are latents of the prior, weighted by P(query | z) of the heads. Heads read both sides, so nothing is drawn
and no judge takes part: what is measured is the sampler alone.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from benchmarks.common import (
    DeviceOption,
    JudgedModelOption,
    SmokeOption,
    earlier_results,
    page,
    run_command,
    show,
)
from benchmarks.sampling import COMMON, FORMULA_SEED, RARE, SMOKE_COMMON, UNCOMMON, choose_formulas
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.measure import machine
from energyql.evaluation.methods import read_methods
from energyql.evaluation.metrics import AttributeBins, Indicators, effective_size, frequency_error
from energyql.evaluation.reference import prior_samples
from energyql.evaluation.settings import PRIOR
from energyql.files import write_json, write_text
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.progress import Report, reporting
from energyql.sampling import normals, summarize, uniforms

SAMPLER = "slice"
AT_ONCE, ENOUGH, MOST = 1 << 16, 20_000, 1 << 24
"""Latents of the prior evaluated together, effective exact draws that are enough, and latents at most."""
CERTAIN = 0.02
"""P from which every latent is kept; of the others a share, with this weight, so that few need to be read."""
N, SMOKE_N, SMOKE_MOST, SMOKE_PRIOR = 32_000, 40, 1 << 16, 500
HEADER = ["formula", "P", "estimate", "error", "floor", "where", "effective", "exact draws", "evals"]
NOTE = (
    "Error: largest difference between the frequencies of one attribute's value among samples and among exact draws, "
    "by the heads; floor: the same for exact samples in the same numbers. P: share of the prior that satisfies the "
    "formula, by the heads; estimate: what the sampler says. Effective: of the samples, by their weights. Evals: "
    "evaluations of the energy a sample."
)


def exact_draws(model: EvaluatedModel, energy: Any, most: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Return latents of the prior, their weights, and the share of the prior that satisfies the query."""
    kept, weights, mass, count = list[Tensor](), list[Tensor](), 0.0, 0
    while count < most:
        z = normals(seed, count, AT_ONCE, model.z_dim, stream="bench/posterior").to(model.device)
        with torch.inference_mode():
            p = torch.exp(-energy(z)).double().cpu()
        lucky = uniforms(seed, count, AT_ONCE, 1, stream="bench/keep")[:, 0] * CERTAIN < p
        mass, count = mass + p.sum().item(), count + AT_ONCE
        kept.append(z.cpu()[lucky])
        weights.append(p[lucky].clamp(min=CERTAIN))
        if effective_size(torch.cat(weights).numpy()) >= ENOUGH:
            break
    return torch.cat(kept), torch.cat(weights), mass / count


def measure(
    model: EvaluatedModel,
    formula: Expr,
    bins: AttributeBins,
    sampler: str,
    n: int,
    most: int,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """Sample one bound formula and compare it with exact draws."""
    (method,) = read_methods(sampler)
    energy = method.energy(model, formula)
    sampled = method.sample(energy, model, n, seed, report)
    z, weights, share = exact_draws(model, energy, most, seed)

    def indicators(z: Tensor) -> Indicators:
        return bins.indicators(model.read_heads(z.to(model.device)))

    found, told = weights.numpy(), summarize(sampled)
    error, where, floor = frequency_error(indicators(sampled.z), indicators(z), found)
    return {
        "formula": str(formula),
        "share": share,
        "estimate": math.exp(told["log_probability"]),
        "error": error,
        "floor": floor,
        "where": bins.names[where],
        "effective": told["effective_samples"],
        "exact_draws": effective_size(found),
        "evaluations": told["evaluations_mean"],
    }


def cells_of(row: dict[str, Any]) -> list[str]:
    """Return the line of the table for one formula."""
    numbers = [f"{row['share']:.2g}", f"{row['estimate']:.2g}", f"{row['error']:.3f}", f"{row['floor']:.3f}"]
    counts = [f"{row['effective']:.0f}", f"{row['exact_draws']:.0f}", f"{row['evaluations']:.1f}"]
    return [row["formula"], *numbers, row["where"], *counts]


def main(
    model: JudgedModelOption = DEFAULT_MODEL,
    sampler: Annotated[str, typer.Option(help="A sampler that begins with rejection.")] = SAMPLER,
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Samples for each formula.")] = N,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    formula_seed: Annotated[int, typer.Option(min=0, help="Of the formulas; use one folder for each.")] = FORMULA_SEED,
    device: DeviceOption = "auto",
    out: Annotated[Path, typer.Option(help="Folder for posterior.json, posterior.md and the judged prior.")] = Path(
        "runs/posterior"
    ),
    smoke: SmokeOption = False,
) -> None:
    """Compare the samples of 24 formulas with exact draws from the posterior. Interrupt at will: it resumes."""
    evaluated = EvaluatedModel(model, device=device)
    n, most, count = (SMOKE_N, SMOKE_MOST, SMOKE_PRIOR) if smoke else (n, MOST, PRIOR)
    settings = {"identity": evaluated.identity, "n": n, "most": most, "seed": seed, "formula_seed": formula_seed}
    settings |= {} if sampler == SAMPLER else {"sampler": sampler}
    path = out / "posterior.json"
    rows = earlier_results(path, settings).get("rows", [])
    data: dict[str, Any] = {"settings": settings, "machine": machine(), "rows": rows}
    with reporting(True) as report:
        prior = prior_samples(evaluated, count, out / "prior", report, seed=seed)
        sorts = (SMOKE_COMMON, 0, 0) if smoke else (COMMON, UNCOMMON, RARE)
        bins = AttributeBins(evaluated.vocabulary, prior.values)
        formulas = choose_formulas(evaluated, prior, *sorts, formula_seed)
        for number, formula in enumerate(formulas):
            if number >= len(rows):
                rows.append(measure(evaluated, formula, bins, sampler, n, most, seed, report))
                write_json(path, data)
            report("formulas", (number + 1) / len(formulas))
    lines = [cells_of(row) for row in rows]
    excess = [row["error"] - row["floor"] for row in rows]
    told = f"Error above the floor: {sum(excess) / len(excess):.4f} on average, {max(excess):.3f} at most."
    markdown = [[f"`{line[0]}`".replace("|", "\\|"), *line[1:]] for line in lines]
    write_text(out / "posterior.md", page("The posterior", f"{NOTE} {told}", HEADER, markdown, data))
    table = Table(*HEADER)
    for line in lines:
        table.add_row(*map(escape, line))
    show(table, NOTE, told, width=160)


if __name__ == "__main__":
    run_command(main, resumes=True)
