"""Time of sampling, ours against the paper's algorithm, on StyleGAN2-FFHQ's size: `python -m benchmarks.speed --help`.

Generator, heads and start latents are the same. Runs take turns in one process; each number is the median over turns
of the paper's time over ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.large import large_model
from energyql.attributes.predictions import decide
from energyql.evaluation.measure import machine
from energyql.evaluation.published import PublishedEnergy, PublishedODE
from energyql.files import read_json, write_json, write_text
from energyql.generators.base import encode_under
from energyql.logic.truth import satisfied
from energyql.pipeline.generate import Pipeline
from energyql.pipeline.model import Model
from energyql.pipeline.settings import DEFAULT_PRECISION, DEFAULT_SAMPLER, PRECISIONS
from energyql.progress import Report, reporting
from energyql.sampling import RandomStreams, SampleResult, prior_latents

QUERIES = {
    "3, a conjunction": "a1 AND a2 AND a3",
    "3, with NOT and OR": "a1 AND NOT (a2 OR a3)",
    "12, a conjunction": "a1 AND NOT a2 AND NOT a3 AND NOT a4 AND a5 AND a6 AND a7 AND NOT a8 AND c1 IN {x, y} "
    "AND c2 IN {y, z} AND n1 > 0.5 AND n2 < 0.7",
    "12, with OR and IMPLIES": "a1 AND NOT (a2 OR a3) AND (c1 IN {x, y} OR n1 > 0.6) AND NOT a4 AND (a5 OR a6) "
    "AND (a7 IMPLIES a8) AND c2 IN {y, z} AND 0.2 < n2 < 0.7",
}
"""What is sampled, by its number of attributes."""
PAPER = "paper"
OURS = {
    name if precision == DEFAULT_PRECISION else f"{name}, {precision}": (name, precision)
    for name in ("ode", DEFAULT_SAMPLER)
    for precision in PRECISIONS
}
"""Sampler and precision of what is timed, by its name."""
N, TURNS = 64, 7
SMOKE_N, SMOKE_TURNS = 4, 2
NOTE = (
    "Times as fast as the paper's algorithm (LACE: lace semantics, dopri5 at 1e-3 with the error norm of the whole "
    "batch, the mapping network once for every attribute, separate heads, autograd). Medians of ratios of runs that "
    "took turns; sampling only, without pictures. Satisfied: by the heads, in float32, which are the same for all. "
    "Evals: evaluations of the energy a sample, 2 where the gradient is computed too."
)


def run(model: Model, *, n: int, turns: int, out: Path, report: Report) -> dict[str, Any]:
    """Time every query, and write `results.json` after each; those of an earlier run with the same settings are kept.

    Returns:
        What `results.json` holds; times are in seconds.
    """
    settings = {"n": n, "turns": turns, "z_dim": model.generator.z_dim, "threads": torch.get_num_threads()}
    path = out / "results.json"
    earlier = read_json(path) if path.is_file() else {}
    rows = earlier["rows"] if earlier.get("settings") == settings else []
    data: dict[str, Any] = {"settings": settings, "machine": machine(), "rows": rows}
    for number, (title, query) in enumerate(QUERIES.items()):
        if any(row["title"] == title for row in rows):
            continue
        contenders = _contenders(model, query)
        bound = Pipeline(model, torch.device("cpu")).prepare(query).expr
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        hits: dict[str, list[float]] = {name: [] for name in contenders}
        evaluations: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(-1, turns):  # the first is not counted
            z0 = prior_latents(turn + 1, 0, n, model.generator.z_dim)
            for name, sample in contenders.items():
                started = time.perf_counter()
                found = sample(z0, RandomStreams(turn + 1))
                taken = time.perf_counter() - started
                if turn >= 0:
                    seconds[name].append(taken)
                    hits[name].append(float(satisfied(bound, _read(model, found), model.vocabulary).mean()))
                    evaluations[name].append(float((found.evaluations + found.gradients).double().mean()))
            report("timing", (number + (turn + 2) / (turns + 1)) / len(QUERIES))
        rows.append({"title": title, "query": query, **_summary(seconds, hits, evaluations)})
        write_json(path, data)
    return data


def _contenders(model: Model, query: str) -> dict[str, Callable[[torch.Tensor, RandomStreams], SampleResult]]:
    pipeline = Pipeline(model, torch.device("cpu"))
    found: dict[str, Callable[[torch.Tensor, RandomStreams], SampleResult]] = {}
    lace = pipeline.prepare(query, semantics="lace")
    plain = partial(encode_under, model.generator, truncation=model.truncation)
    energy = PublishedEnergy(lace.rule, plain, model.bank)
    found[PAPER] = lambda z0, noise: PublishedODE().sample(energy, z0)
    for name, (sampler, precision) in OURS.items():
        prepared = pipeline.prepare(query, sampler=sampler, precision=precision)
        found[name] = partial(_sample, prepared.sampler, prepared.energy)
    return found


def _sample(sampler: Any, energy: Any, z0: torch.Tensor, noise: RandomStreams) -> SampleResult:
    result: SampleResult = sampler.sample(energy, z0, noise=noise)
    return result


def _read(model: Model, found: SampleResult) -> dict[str, Any]:
    with torch.inference_mode():
        return decide(model.bank.predict(model.generator.encode(found.z, model.truncation)))


def _summary(
    seconds: dict[str, list[float]], hits: dict[str, list[float]], evaluations: dict[str, list[float]]
) -> dict[str, Any]:
    return {
        name: {
            "seconds": median(seconds[name]),
            "ratio": median(a / b for a, b in zip(seconds[PAPER], seconds[name], strict=True)),
            "satisfied": sum(hits[name]) / len(hits[name]),
            "work": sum(evaluations[name]) / len(evaluations[name]),
        }
        for name in seconds
    }


HEADER = ["attributes", "algorithm", "ms", "satisfied %", "evals", "times as fast"]


def lines_of(row: dict[str, Any]) -> list[list[str]]:
    """A query as lines of the table, an algorithm each."""
    lines = []
    for name in (PAPER, *OURS):
        one = row[name]
        numbers = [f"{1e3 * one['seconds']:.1f}", f"{100 * one['satisfied']:.1f}", f"{one['work']:.0f}"]
        lines.append([row["title"] if name == PAPER else "", name, *numbers, f"{one['ratio']:.1f}"])
    return lines


def markdown(data: dict[str, Any]) -> str:
    """The whole of `results.json` as a page."""
    lines = ["# Time of sampling", "", NOTE, "", f"| {' | '.join(HEADER)} |", f"|---|---|{'---:|' * (len(HEADER) - 2)}"]
    lines += [f"| {' | '.join(line)} |" for row in data["rows"] for line in lines_of(row)]
    lines += ["", "## Queries", "", *(f"- {row['title']}: `{row['query']}`" for row in data["rows"])]
    for title in ("settings", "machine"):
        lines += ["", f"## {title.capitalize()}", "", *(f"- {key}: `{value}`" for key, value in data[title].items())]
    return "\n".join(lines) + "\n"


def main(
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Samples.")] = N,
    turns: Annotated[int, typer.Option(min=1, help="Of which medians are taken.")] = TURNS,
    threads: Annotated[int, typer.Option(min=1, help="Of torch, on the CPU.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for results.json, results.md and trained heads.")] = Path(
        "runs/speed"
    ),
    smoke: Annotated[bool, typer.Option("--smoke", help="A small network, two turns: only that it runs.")] = False,
) -> None:
    """Time the ODE and the default sampler against the paper's algorithm, on three and on twelve attributes."""
    torch.set_num_threads(threads)
    with reporting(True) as report:
        model = large_model(8, out, report, smoke=smoke)
        n, turns = (SMOKE_N, SMOKE_TURNS) if smoke else (n, turns)
        data = run(model, n=n, turns=turns, out=out, report=report)
    write_text(out / "results.md", markdown(data))
    table = Table(*HEADER)
    for row in data["rows"]:
        for line in lines_of(row):
            table.add_row(*line, end_section=line[1] == list(OURS)[-1])
    console = Console(highlight=False)
    console.width = max(console.width, 100)
    console.print(table)
    console.print(NOTE)
    console.print(f"Saved {out / 'results.json'} and results.md")


if __name__ == "__main__":
    typer.run(main)
