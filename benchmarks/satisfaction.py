"""Share of samples that satisfy random formulas, under each semantics: `python -m benchmarks.satisfaction --help`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from benchmarks.common import (
    DeviceOption,
    JudgedModelOption,
    SmokeOption,
    earlier_results,
    page,
    run_command,
    show,
    split_names,
)
from benchmarks.formulas import LEAST_PREVALENCE, MOST_PREVALENCE, all_relations, depth_of, random_formulas
from energyql import __version__
from energyql.energy.rule import SEMANTICS
from energyql.errors import ArgumentError
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.measure import machine
from energyql.evaluation.methods import Method
from energyql.evaluation.reference import prior_samples
from energyql.files import write_json, write_text
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.progress import Report, reporting
from energyql.sampling import ODESolver, Sampler

SOLVERS = {
    "default": ODESolver(),
    "paper": ODESolver("dopri5", rtol=1e-3, atol=1e-3, overshoot=True),  # Nie et al. 2021
}
FORMULA_SEED = 2026
PRIOR_SAMPLES, SMOKE_PRIOR_SAMPLES = 8000, 400
SMOKE_COUNT, SMOKE_N = 3, 8
COLUMNS = ("judge %", "heads %", "evals", "failed")
NOTE = (
    "Judge and heads: samples that satisfy the formula, by the image judge (which never guides a sampler) "
    "and by the attribute heads (which do). Prior: the same for samples of the prior, by the judge. "
    "Evals: evaluations of the energy's gradient, mean. Failed: samples that the solver could not finish; "
    "they are judged like all others. "
    "All semantics run on the same model, start latents and solver, so `lace` is the paper's energy in this library's "
    "sampler, not a rerun of the published program."
)


def measure(
    model: EvaluatedModel, formula: Expr, semantics: str, sampler: Sampler, n: int, seed: int
) -> dict[str, Any]:
    """Sample a bound formula and count.

    Returns:
        Shares of samples that satisfy it by the judge and by the heads (`judge`, `heads`), mean `evaluations` of the
        gradient, number of `failures` of the solver, number of samples with each status (`statuses`), and `seconds` of
        sampling. Samples that the solver could not finish are judged like all others.
    """
    method = Method(semantics, semantics, sampler)
    energy = method.energy(model, formula)
    started = time.perf_counter()
    sampled = method.sample(energy, model, n, seed, lambda stage, fraction: None)
    seconds = time.perf_counter() - started
    return {
        "judge": float(model.satisfied(formula, model.judge(sampled.z).values).mean()),
        "heads": float(model.satisfied(formula, model.read_heads(sampled.z)).mean()),
        "evaluations": sampled.evaluations.double().mean().item(),
        "failures": int((~sampled.ok).sum()),
        "statuses": {status.name: count for status, count in sampled.counts().items()},
        "seconds": round(seconds, 3),
    }


def run(
    model: EvaluatedModel, *, count: int, n: int, semantics: list[str], solver: str, seed: int, prior: int, out: Path,
    report: Report,
) -> dict[str, Any]:  # fmt: skip
    """Measure every formula under every semantics, and write `results.json` and `results.md` after each formula.

    Formulas that an earlier run with the same settings and model finished are taken from `results.json`.

    Returns:
        The contents of `results.json`.
    """
    settings = {
        "model": model.model.name,
        "model_files": model.identity,
        "generator": model.model.fingerprints["generator"],
        "truncation": model.model.truncation,
        "count": count,
        "n": n,
        "semantics": semantics,
        "solver": repr(SOLVERS[solver]),
        "seed": seed,
        "formula_seed": FORMULA_SEED,
        "prior_samples": prior,
        "prevalence_limits": [LEAST_PREVALENCE, MOST_PREVALENCE],
        "device": str(model.device),
        "energyql": __version__,
    }
    values = prior_samples(model, prior, out / "prior", report, seed=FORMULA_SEED).values
    relations = all_relations(model.vocabulary)

    def prevalence(formula: Expr) -> float:
        return float(model.satisfied(formula, values).mean())

    formulas = random_formulas(model.vocabulary, lambda formula: prevalence(formula & relations), count, FORMULA_SEED)
    earlier = earlier_results(out / "results.json", settings).get("formulas", [])
    finished = {record["formula"]: record for record in earlier}
    data: dict[str, Any] = {"settings": settings, "machine": machine(), "formulas": []}
    for i, formula in enumerate(formulas):
        record = finished.get(str(formula))
        if record is None:
            record = {
                "formula": str(formula),
                "depth": depth_of(formula),
                "prevalence": prevalence(formula),
                "semantics": {},
            }
            for j, name in enumerate(semantics):
                report("formulas", (i + j / len(semantics)) / count)
                record["semantics"][name] = measure(model, formula, name, SOLVERS[solver], n, seed)
        data["formulas"].append(record)
        later = [finished[str(other)] for other in formulas[i + 1 :] if str(other) in finished]
        _write(out, data | {"formulas": data["formulas"] + later})  # a second interruption must not lose them
        report("formulas", (i + 1) / count)
    data["summary"] = summarize(data["formulas"], semantics)
    _write(out, data)
    return data


def _write(out: Path, data: dict[str, Any]) -> None:
    write_json(out / "results.json", data)
    write_text(out / "results.md", markdown(data))


def summarize(records: Sequence[dict[str, Any]], semantics: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Return `mean` and `worst` over formulas, by semantics."""
    summary: dict[str, dict[str, dict[str, float]]] = {"mean": {}, "worst": {}}
    for name in semantics:
        outcomes = [record["semantics"][name] for record in records]
        for key in ("judge", "heads", "evaluations", "failures"):
            values = [outcome[key] for outcome in outcomes]
            worst = min(values) if key in ("judge", "heads") else max(values)
            summary["mean"].setdefault(name, {})[key] = sum(values) / len(values)
            summary["worst"].setdefault(name, {})[key] = worst
    return summary


def table_rows(records: Sequence[dict[str, Any]], semantics: Sequence[str]) -> list[list[str]]:
    """Return formula, prior, then four cells a semantics; the last two rows are mean and worst."""
    lines = [
        [record["formula"], f"{100 * record['prevalence']:.1f}", *_cells(record["semantics"], semantics)]
        for record in records
    ]
    summary = summarize(records, semantics)
    prior = [record["prevalence"] for record in records]
    lines.append(["mean", f"{100 * sum(prior) / len(prior):.1f}", *_cells(summary["mean"], semantics)])
    lines.append(["worst", f"{100 * min(prior):.1f}", *_cells(summary["worst"], semantics)])
    return lines


def _cells(outcomes: dict[str, dict[str, Any]], semantics: Sequence[str]) -> list[str]:
    cells = []
    for outcome in (outcomes[name] for name in semantics):
        cells += [f"{100 * outcome['judge']:.1f}", f"{100 * outcome['heads']:.1f}"]
        cells += [f"{outcome['evaluations']:.0f}", f"{outcome['failures']:.1f}".removesuffix(".0")]
    return cells


def terminal_table(records: Sequence[dict[str, Any]], semantics: Sequence[str]) -> Table:
    """Return the rows as a table for the terminal."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("formula", overflow="fold", min_width=30)
    table.add_column("prior %", justify="right")
    for name in semantics:
        for i, column in enumerate(COLUMNS):
            table.add_column(f"{name}\n{column}" if i == 0 else f"\n{column}", justify="right", no_wrap=True)
    lines = table_rows(records, semantics)
    for i, line in enumerate(lines):
        table.add_row(*map(escape, line), end_section=i == len(lines) - 3, style="bold" if i > len(lines) - 3 else "")
    return table


def markdown(data: dict[str, Any]) -> str:
    """Return the results as a page."""
    semantics = data["settings"]["semantics"]
    header = ["formula", "prior %", *(f"{name}: {column}" for name in semantics for column in COLUMNS)]
    rows = [
        [formula if formula in ("mean", "worst") else f"`{formula}`".replace("|", "\\|"), *cells]
        for formula, *cells in table_rows(data["formulas"], semantics)
    ]
    return page("Satisfaction of random formulas", NOTE, header, rows, data)


def main(
    model: JudgedModelOption = DEFAULT_MODEL,
    count: Annotated[int, typer.Option(min=1, help="Formulas, a third of each depth.")] = 24,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Samples for each formula and semantics.")] = 200,
    semantics: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(SEMANTICS),
    solver: Annotated[str, typer.Option(help=f"{' or '.join(SOLVERS)}; for all semantics alike.")] = "default",
    seed: Annotated[int, typer.Option(help="Of the start latents.")] = 0,
    device: DeviceOption = "auto",
    out: Annotated[Path, typer.Option(help="Folder of results.json, results.md and the judged prior.")] = Path(
        "runs/satisfaction"
    ),
    smoke: SmokeOption = False,
) -> None:
    """Sample random formulas and count satisfied samples. After an interruption the same command continues."""
    names = split_names("semantics", semantics, SEMANTICS)
    if solver not in SOLVERS:
        raise ArgumentError(f"there is no solver {solver!r}", hint=f"choose from {', '.join(SOLVERS)}")
    evaluated = EvaluatedModel(model, device=device)
    if smoke:
        count, n = SMOKE_COUNT, SMOKE_N
    with reporting(True) as report:
        data = run(
            evaluated, count=count, n=n, semantics=names, solver=solver, seed=seed,
            prior=SMOKE_PRIOR_SAMPLES if smoke else PRIOR_SAMPLES, out=out, report=report,
        )  # fmt: skip
    table, saved = terminal_table(data["formulas"], names), f"Saved {out / 'results.json'} and results.md"
    show(table, NOTE, saved, width=60 + 34 * len(names))


if __name__ == "__main__":
    run_command(main, resumes=True)
