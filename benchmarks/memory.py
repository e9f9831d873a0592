"""Memory of `sample_latents`, for few and for many latents: `python -m benchmarks.memory --help`.

Each size runs in a process of its own, whose peak resident memory is read at the end.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.common import SmokeOption, ThreadsOption, run_command, show
from energyql.errors import EnergyQLError
from energyql.evaluation.measure import machine
from energyql.files import write_json
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DEFAULT_SAMPLER
from energyql.progress import reporting

QUERY = "smile AND NOT (glasses OR beard)"
SIZES, SMOKE_SIZES = (10_000, 100_000), (64, 256)
PROGRAM = """
import resource, sys, time
import torch
from energyql import sample_latents

query, n, sampler, threads, model = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
torch.set_num_threads(threads)
started = time.perf_counter()
count = sum(len(batch.z) for batch in sample_latents(query, n, model=model, sampler=sampler, progress=False))
assert count == n
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(peak, time.perf_counter() - started)
"""
NOTE = "Peak: resident memory of a process that loads the model and draws so many latents, batch by batch."


def measure(query: str, n: int, *, sampler: str, threads: int, model: str) -> dict[str, float]:
    """Return the peak memory in bytes and the seconds of a process of its own.

    Raises:
        EnergyQLError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, query, str(n), sampler, str(threads), model], capture_output=True, text=True
    )
    if done.returncode:
        raise EnergyQLError(f"the run of {n} latents failed", hint=done.stderr.strip()[-300:])
    peak, seconds = done.stdout.split()
    return {"n": n, "peak": int(peak), "seconds": float(seconds)}


def main(
    query: Annotated[str, typer.Option(help="To sample.")] = QUERY,
    sampler: Annotated[str, typer.Option(help="As for energyql generate.")] = DEFAULT_SAMPLER,
    model: Annotated[str, typer.Option(help="A packaged model, or a model folder.")] = DEFAULT_MODEL,
    threads: ThreadsOption = 2,
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("runs/memory"),
    smoke: SmokeOption = False,
) -> None:
    """Draw 10,000 and 100,000 latents and compare the peaks of memory."""
    rows: list[dict[str, Any]] = []
    sizes = SMOKE_SIZES if smoke else SIZES
    with reporting(True) as report:
        for i, n in enumerate(sizes):
            rows.append(measure(query, n, sampler=sampler, threads=threads, model=model))
            report("memory", (i + 1) / len(sizes))
    growth = rows[-1]["peak"] / rows[0]["peak"]
    write_json(out / "results.json", {"query": query, "sampler": sampler, "growth": growth, "rows": rows, **machine()})
    table = Table("latents", "peak, MB", "seconds")
    for row in rows:
        table.add_row(f"{row['n']:,}", f"{row['peak'] / 1e6:.0f}", f"{row['seconds']:.1f}")
    grown = f"{growth:.3f} times the memory for {sizes[-1] // sizes[0]} times as many. {NOTE}"
    show(table, grown, f"Saved {out / 'results.json'}")


if __name__ == "__main__":
    run_command(main)
