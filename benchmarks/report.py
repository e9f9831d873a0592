"""Results of the satisfaction benchmark as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

COLUMNS = ("judge %", "heads %", "evals", "failed")
NOTE = (
    "Judge and heads: samples that satisfy the formula, by the word of the image judge (which never guides a sampler) "
    "and of the attribute heads (which do). Prior: the same for samples of the prior, by the judge. "
    "Evals: evaluations of the energy's gradient, mean. Failed: samples that the solver could not finish; "
    "they are judged like all others. "
    "All semantics run on the same model, start latents and solver, so `lace` is the paper's energy in this library's "
    "sampler, not a rerun of the published program."
)


def summarize(records: Sequence[dict[str, Any]], semantics: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """`mean` and `worst` over formulas, by semantics."""
    summary: dict[str, dict[str, dict[str, float]]] = {"mean": {}, "worst": {}}
    for name in semantics:
        outcomes = [record["semantics"][name] for record in records]
        for key in ("judge", "heads", "evaluations", "failures"):
            values = [outcome[key] for outcome in outcomes]
            worst = min(values) if key in ("judge", "heads") else max(values)
            summary["mean"].setdefault(name, {})[key] = sum(values) / len(values)
            summary["worst"].setdefault(name, {})[key] = worst
    return summary


def rows(records: Sequence[dict[str, Any]], semantics: Sequence[str]) -> list[list[str]]:
    """Formula, prior, then four cells a semantics; the last two rows are mean and worst."""
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
    for name in semantics:
        outcome = outcomes[name]
        failures = f"{outcome['failures']:.1f}".removesuffix(".0")
        cells += [f"{100 * outcome['judge']:.1f}", f"{100 * outcome['heads']:.1f}"]
        cells += [f"{outcome['evaluations']:.0f}", failures]
    return cells


def rich_table(records: Sequence[dict[str, Any]], semantics: Sequence[str]) -> Table:
    """For the terminal."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("formula", overflow="fold", min_width=30)
    table.add_column("prior %", justify="right")
    for name in semantics:
        for i, column in enumerate(COLUMNS):
            table.add_column(f"{name}\n{column}" if i == 0 else f"\n{column}", justify="right", no_wrap=True)
    lines = rows(records, semantics)
    for i, line in enumerate(lines):
        table.add_row(*map(escape, line), end_section=i == len(lines) - 3, style="bold" if i > len(lines) - 3 else "")
    return table


def markdown(data: dict[str, Any]) -> str:
    """The whole of `results.json` as a page."""
    settings = data["settings"]
    semantics = settings["semantics"]
    header = ["formula", "prior %", *(f"{name}: {column}" for name in semantics for column in COLUMNS)]
    lines = ["# Satisfaction of random formulas", "", NOTE, ""]
    lines.append(f"| {' | '.join(header)} |")
    lines.append(f"|---|{'---:|' * (len(header) - 1)}")
    for formula, *cells in rows(data["formulas"], semantics):
        shown = formula if formula in ("mean", "worst") else f"`{formula}`".replace("|", "\\|")
        lines.append(f"| {' | '.join([shown, *cells])} |")
    for title, facts in (("Settings", settings), ("Machine", data["machine"])):
        lines += ["", f"## {title}", "", *(f"- {key}: {_fact(value)}" for key, value in facts.items())]
    return "\n".join(lines) + "\n"


def _fact(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else f"`{value}`"
