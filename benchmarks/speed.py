"""Time of sampling, ours against the paper's algorithm, on StyleGAN2-FFHQ's size: `python -m benchmarks.speed --help`.

Generator, heads and start latents are the same. Runs take turns in one process; each number is the median over turns
of the paper's time over ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any, get_args

import torch
import typer
from rich.table import Table
from torch import Tensor

from benchmarks.common import SmokeOption, ThreadsOption, earlier_results, page, run_command, show, take_turns
from benchmarks.large import large_model
from energyql.attributes.predictions import decide
from energyql.evaluation.measure import machine
from energyql.evaluation.methods import PublishedEnergy, PublishedODE
from energyql.files import write_json, write_text
from energyql.generators.base import encode_under
from energyql.language import Expr
from energyql.logic.satisfiability import satisfied
from energyql.pipeline.model import Model
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import Session
from energyql.pipeline.settings import DEFAULT_PRECISION, DEFAULT_SAMPLER, Precision
from energyql.progress import Report, reporting
from energyql.sampling import EnergyLike, RandomStreams, Sampler, SampleResult, prior_latents

QUERIES = {
    "3, a conjunction": "a1 AND a2 AND a3",
    "3, with NOT and OR": "a1 AND NOT (a2 OR a3)",
    "12, a conjunction": "a1 AND NOT a2 AND NOT a3 AND NOT a4 AND a5 AND a6 AND a7 AND NOT a8 AND c1 IN {x, y} "
    "AND c2 IN {y, z} AND n1 > 0.5 AND n2 < 0.7",
    "12, with OR and IMPLIES": "a1 AND NOT (a2 OR a3) AND (c1 IN {x, y} OR n1 > 0.6) AND NOT a4 AND (a5 OR a6) "
    "AND (a7 IMPLIES a8) AND c2 IN {y, z} AND 0.2 < n2 < 0.7",
    "12, seven at values": "a1 AND NOT a2 AND NOT a4 AND a5 AND c1 = x AND n1 = 0.6 AND n2 = 0.4 AND n3 = 0.5 "
    "AND n4 = 0.6 AND n5 = 0.4 AND n6 = 0.5 AND n7 = 0.6",
}
"""The queries, by number of attributes; the last is the way in which LACE asks."""
PAPER = "paper"
OURS = {
    name if precision == DEFAULT_PRECISION else f"{name}, {precision}": (name, precision)
    for name in ("ode", DEFAULT_SAMPLER)
    for precision in get_args(Precision)
}
"""Sampler and precision of each of our algorithms, by name."""
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
        The contents of `results.json`; times are in seconds.
    """
    settings = {"n": n, "turns": turns, "z_dim": model.generator.z_dim, "threads": torch.get_num_threads()}
    path = out / "results.json"
    rows = earlier_results(path, settings).get("rows", [])
    data: dict[str, Any] = {"settings": settings, "machine": machine(), "rows": rows}
    starts = [prior_latents(seed, 0, n, model.generator.z_dim) for seed in range(turns + 1)]
    for number, (title, query) in enumerate(QUERIES.items()):
        if any(row["title"] == title for row in rows):
            continue
        timed = take_turns(
            _samplers(model, query, starts),
            turns,
            lambda done, number=number: report("timing", (number + done) / len(QUERIES)),  # type: ignore[misc]
        )
        bound = plan_query(Session(model, torch.device("cpu")), query).expr
        rows.append({"title": title, "query": query, **_summary(model, bound, timed)})
        write_json(path, data)
    return data


def _samplers(model: Model, query: str, starts: Sequence[Tensor]) -> dict[str, Callable[[int], SampleResult]]:
    """Return a function for each algorithm that samples from the start latents of a seed."""
    pipeline = Session(model, torch.device("cpu"))

    def samples(sampler: Sampler, energy: EnergyLike) -> Callable[[int], SampleResult]:
        return lambda seed: sampler.sample(energy, starts[seed], noise=RandomStreams(seed))

    plain = partial(encode_under, model.generator, truncation=model.truncation)
    energy = PublishedEnergy(plan_query(pipeline, query, semantics="lace").rule, plain, model.bank)
    found = {PAPER: samples(PublishedODE(), energy)}
    for name, (sampler, precision) in OURS.items():
        prepared = plan_query(pipeline, query, sampler=sampler, precision=precision)
        found[name] = samples(prepared.sampler, prepared.energy)
    return found


def _summary(model: Model, query: Expr, timed: dict[str, list[tuple[float, SampleResult]]]) -> dict[str, Any]:
    """Return the numbers of each algorithm; satisfaction of the bound query is by the heads."""
    found = {}
    for name, runs in timed.items():
        values = []
        for _, result in runs:
            with torch.inference_mode():
                values.append(decide(model.bank.predict(model.generator.encode(result.z, model.truncation))))
        found[name] = {
            "seconds": median(seconds for seconds, _ in runs),
            "ratio": median(paper / ours for (paper, _), (ours, _) in zip(timed[PAPER], runs, strict=True)),
            "satisfied": fmean(float(satisfied(query, some, model.vocabulary).mean()) for some in values),
            "work": fmean(float((result.evaluations + result.gradients).double().mean()) for _, result in runs),
        }
    return found


HEADER = ["attributes", "algorithm", "ms", "satisfied %", "evals", "times as fast"]


def lines_of(row: dict[str, Any]) -> list[list[str]]:
    """Return the lines of the table for one query, an algorithm each."""
    lines = []
    for name in (PAPER, *OURS):
        one = row[name]
        numbers = [f"{1e3 * one['seconds']:.1f}", f"{100 * one['satisfied']:.1f}", f"{one['work']:.0f}"]
        lines.append([row["title"] if name == PAPER else "", name, *numbers, f"{one['ratio']:.1f}"])
    return lines


def markdown(data: dict[str, Any]) -> str:
    """Return the results as a page."""
    lines = [line for row in data["rows"] for line in lines_of(row)]
    queries = [f"- {row['title']}: `{row['query']}`" for row in data["rows"]]
    return page("Time of sampling", NOTE, HEADER, lines, data, "", "## Queries", "", *queries)


def main(
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Samples.")] = N,
    turns: Annotated[int, typer.Option(min=1, help="Of which medians are taken.")] = TURNS,
    threads: ThreadsOption = 2,
    out: Annotated[Path, typer.Option(help="Folder for results.json, results.md and trained heads.")] = Path(
        "runs/speed"
    ),
    smoke: SmokeOption = False,
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
    show(table, NOTE, f"Saved {out / 'results.json'} and results.md", width=100)


if __name__ == "__main__":
    run_command(main, resumes=True)
