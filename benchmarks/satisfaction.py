"""How many samples satisfy random formulas, under each semantics: `python -m benchmarks.satisfaction --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.formulas import LEAST_PREVALENCE, MOST_PREVALENCE, all_relations, depth_of, random_formulas
from benchmarks.report import NOTE, markdown, rich_table, summarize
from benchmarks.subject import Subject
from energyql.energy.rule import SEMANTICS
from energyql.errors import ArgumentError, EnergyQLError
from energyql.evaluation.measure import machine
from energyql.files import read_json, write_json, write_text
from energyql.progress import Report, reporting
from energyql.sampling import ODESolver
from energyql.version import __version__

SOLVERS = {
    "default": ODESolver(),
    "paper": ODESolver("dopri5", rtol=1e-3, atol=1e-3, overshoot=True),  # Nie et al. 2021
}
FORMULA_SEED = 2026
PRIOR_SAMPLES, SMOKE_PRIOR_SAMPLES = 8000, 400
SMOKE_COUNT, SMOKE_N = 3, 8

err = Console(stderr=True, highlight=False, soft_wrap=True)


def run(
    subject: Subject, *, count: int, n: int, semantics: list[str], solver: str, seed: int, prior: int, out: Path,
    report: Report,
) -> dict[str, Any]:  # fmt: skip
    """Measure every formula under every semantics, and write `results.json` and `results.md` after each formula.

    Formulas that an earlier run with the same settings and model finished are taken from `results.json`.

    Returns:
        What `results.json` holds.
    """
    settings = {
        "model": subject.model.name,
        "model_files": subject.identity,
        "generator": subject.model.fingerprints["generator"],
        "truncation": subject.model.truncation,
        "count": count,
        "n": n,
        "semantics": semantics,
        "solver": repr(SOLVERS[solver]),
        "seed": seed,
        "formula_seed": FORMULA_SEED,
        "prior_samples": prior,
        "prevalence_limits": [LEAST_PREVALENCE, MOST_PREVALENCE],
        "device": str(subject.device),
        "energyql": __version__,
    }
    judged = subject.prior(prior, FORMULA_SEED, out, report)
    relations = all_relations(subject.vocabulary)
    formulas = random_formulas(
        subject.vocabulary, lambda formula: subject.fraction(formula & relations, judged), count, FORMULA_SEED
    )
    finished = _finished(out / "results.json", settings)
    data: dict[str, Any] = {"settings": settings, "machine": machine(), "formulas": []}
    for i, formula in enumerate(formulas):
        record = finished.get(str(formula))
        if record is None:
            record = {
                "formula": str(formula),
                "depth": depth_of(formula),
                "prevalence": subject.fraction(formula, judged),
                "semantics": {},
            }
            for j, name in enumerate(semantics):
                report("formulas", (i + j / len(semantics)) / count)
                record["semantics"][name] = subject.measure(formula, name, SOLVERS[solver], n, seed)
        data["formulas"].append(record)
        _write(out, data | {"formulas": data["formulas"] + _later(formulas[i + 1 :], finished)})
        report("formulas", (i + 1) / count)
    data["summary"] = summarize(data["formulas"], semantics)
    _write(out, data)
    return data


def _finished(path: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Formula -> record of the earlier run, if it had the same settings."""
    if not path.is_file():
        return {}
    data = read_json(path)
    if data.get("settings") != settings:
        return {}
    return {record["formula"]: record for record in data["formulas"]}


def _later(formulas: list[Any], finished: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Finished records of formulas still to come, so that a second interruption does not lose them."""
    return [finished[str(formula)] for formula in formulas if str(formula) in finished]


def _write(out: Path, data: dict[str, Any]) -> None:
    write_json(out / "results.json", data)
    write_text(out / "results.md", markdown(data))


def main(
    model: Annotated[str, typer.Option(help="A packaged model, or a model folder with a judge.")] = "avatars",
    count: Annotated[int, typer.Option(min=1, help="Formulas, a third of each depth.")] = 24,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Samples for each formula and semantics.")] = 200,
    semantics: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(SEMANTICS),
    solver: Annotated[str, typer.Option(help=f"{' or '.join(SOLVERS)}; for all semantics alike.")] = "default",
    seed: Annotated[int, typer.Option(help="Of the start latents.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder of results.json, results.md and the judged prior.")] = Path(
        "runs/satisfaction"
    ),
    smoke: Annotated[bool, typer.Option("--smoke", help="Three formulas, few samples: only that it runs.")] = False,
) -> None:
    """Sample random formulas and count what satisfies them. Interrupt at will: the same command goes on."""
    names = [name.strip() for name in semantics.split(",") if name.strip()]
    unknown = [name for name in names if name not in SEMANTICS]
    if unknown or not names:
        raise ArgumentError(f"semantics {semantics!r} are unknown", hint=f"choose from {', '.join(SEMANTICS)}")
    if solver not in SOLVERS:
        raise ArgumentError(f"there is no solver {solver!r}", hint=f"choose from {', '.join(SOLVERS)}")
    subject = Subject(model, device=device)
    if smoke:
        count, n = SMOKE_COUNT, SMOKE_N
    try:
        with reporting(True) as report:
            data = run(
                subject, count=count, n=n, semantics=names, solver=solver, seed=seed,
                prior=SMOKE_PRIOR_SAMPLES if smoke else PRIOR_SAMPLES, out=out, report=report,
            )  # fmt: skip
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on from here")
        raise typer.Exit(130) from None
    console = Console(highlight=False)
    console.width = max(console.width, 60 + 34 * len(names))  # narrow pipes would break the numbers
    console.print(rich_table(data["formulas"], names))
    console.print(NOTE)
    console.print(f"Saved {out / 'results.json'} and results.md")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except EnergyQLError as error:
        err.print(f"{type(error).__name__}: {error}", markup=False)
        sys.exit(2 if isinstance(error, ArgumentError) else 1)
