"""Cost of a query relative to the pictures alone: `python -m benchmarks.tax --help`.

`generate(query, n)` against n unconditional pictures of the same model: encode, synthesize, convert. They take turns in
one process; the tax is the median of ratios.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from benchmarks.common import SmokeOption, ThreadsOption, run_command, show, take_turns
from benchmarks.large import large_model
from energyql.evaluation.measure import machine
from energyql.files import write_json
from energyql.generators.base import draw_batches, encode_under
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.generate import generate
from energyql.pipeline.model import Model, load_model
from energyql.progress import Report, reporting
from energyql.render.pictures import to_pictures
from energyql.sampling import prior_latents

QUERY, LARGE_QUERY = "smile AND NOT (glasses OR beard)", "a1 AND NOT (a2 OR a3)"
N, LARGE_N, SMOKE_N = 64, 8, 2
TURNS, LARGE_TURNS, SMOKE_TURNS = 9, 3, 1
RESOLUTION = 1024
NOTE = (
    "Query: generate(query, n) with the default sampler, verdicts of heads and judge included. Unconditional: n "
    "pictures of prior samples, by the same generator in the same batches. Tax: median of ratios of runs that took "
    "turns."
)


def measure(model: Model, query: str, n: int, turns: int, report: Report, **options: Any) -> dict[str, Any]:
    """Time both; seconds are medians. `options` are those of `generate`."""
    timed = take_turns(
        {
            "unconditional": partial(_unconditional, model, n),
            "query": lambda turn: len(generate(query, n, model=model, seed=turn, progress=False, **options)),
        },
        turns,
        partial(report, model.name),
    )
    seconds = {name: [taken for taken, _ in runs] for name, runs in timed.items()}
    tax = median(a / b for a, b in zip(seconds["query"], seconds["unconditional"], strict=True))
    medians = {name: median(taken) for name, taken in seconds.items()}
    return {"model": model.name, "query": query, "n": n, "turns": turns, "tax": tax} | medians


def _unconditional(model: Model, n: int, seed: int) -> int:
    encode = partial(encode_under, model.generator, truncation=model.truncation)
    z = prior_latents(seed, 0, n, model.generator.z_dim)
    return sum(len(to_pictures(images)) for _, images in draw_batches(model.generator.synthesize, encode, z))


def main(
    threads: ThreadsOption = 2,
    out: Annotated[Path, typer.Option(help="Folder for results.json and trained heads.")] = Path("runs/tax"),
    large: Annotated[bool, typer.Option(help="Time a StyleGAN2 of 1024 x 1024 too, with random weights.")] = True,
    smoke: SmokeOption = False,
) -> None:
    """Time queries against unconditional pictures, on the packaged model and on a StyleGAN2 of 1024 x 1024."""
    torch.set_num_threads(threads)
    n, turns = (SMOKE_N, SMOKE_TURNS) if smoke else (N, TURNS)
    with reporting(True) as report:
        rows = [measure(load_model(DEFAULT_MODEL), QUERY, n, turns, report)]
        if large:
            n, turns = (SMOKE_N, SMOKE_TURNS) if smoke else (LARGE_N, LARGE_TURNS)
            model = large_model(16 if smoke else RESOLUTION, out, report, smoke=smoke)
            rows.append(measure(model, LARGE_QUERY, n, turns, report))
    write_json(out / "results.json", {"machine": machine(), "rows": rows})
    table = Table("model", "n", "unconditional, s", "query, s", "tax")
    for row in rows:
        table.add_row(row["model"], str(row["n"]), *(f"{row[key]:.2f}" for key in ("unconditional", "query", "tax")))
    show(table, NOTE, f"Saved {out / 'results.json'}")


if __name__ == "__main__":
    run_command(main)
