"""The studio under mixed use by many clients at a time: `python -m benchmarks.soak --help`.

The studio runs in a process of its own. Clients on the loopback draw, edit, vary, cancel, load their page again, send
bad requests and are slow. Every result is compared with that of the library for the same seed.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from benchmarks.common import SmokeOption, run_command, show
from benchmarks.soak_client import Client, Outcome, expected_results
from benchmarks.soak_server import StudioProcess
from energyql.errors import EnergyQLError
from energyql.evaluation.measure import machine
from energyql.files import write_json
from energyql.models import DEFAULT_MODEL
from energyql.progress import reporting

SHARE = 6
"""Memory after the first of so many parts of the time is what later memory is compared with."""
MOST_GROWTH = 50e6
"""Bytes by which memory may grow after that part. Results are kept up to a limit, which is reached before."""
LEAST_SECONDS = 600.0
"""Memory is judged in runs of at least this length: before, the results that may be kept are not all there."""
PERCENTILE = 95
NOTE = (
    "Checks: seconds of POST /api/check, with everything else going on. Growth: median of resident memory in the last "
    "part of the time less that in the second."
)


def growth(samples: Sequence[float]) -> float:
    """Return by how much memory grew, in bytes: the median of the last part less that of the second."""
    part = max(1, len(samples) // SHARE)
    return float(np.median(samples[-part:]) - np.median(samples[part : 2 * part]))


def soak(model: str, seconds: float, clients: int, seed: int, report: Any) -> dict[str, Any]:
    """Run clients against a studio for a time, and return what they found.

    Args:
        model: name or folder.
        seconds: duration; clients end what they are at.
        clients: number of threads.
        seed: of what the clients do.
        report: called with the fraction of the time that is over.
    """
    sys.setswitchinterval(0.0005)  # clients are threads, and must not wait for one another when they take the time
    expected = expected_results(model, lambda done: report("expected", done))
    outcome, memory = Outcome(), list[float]()
    with StudioProcess(model) as studio:
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(
                target=Client(studio.port, expected, outcome, random.Random(f"{seed}/{i}")).run, args=[end]
            )
            for i in range(clients)
        ]
        for thread in threads:
            thread.start()
        while (left := end - time.monotonic()) > 0:
            report("soak", 1 - left / seconds)
            memory.append(studio.resident)
            time.sleep(min(1.0, max(left, 0)))
        for thread in threads:
            thread.join(60)
        report("soak", 1.0)
        alive = studio.alive
    checks = np.array(outcome.checks) if outcome.checks else np.zeros(1)
    return {
        "seconds": seconds,
        "clients": clients,
        "seed": seed,
        "statuses": dict(sorted(outcome.statuses.items())),
        "actions": dict(sorted(outcome.actions.items())),
        "compared": outcome.compared,
        "faults": outcome.faults,
        "check_seconds": {
            "median": float(np.median(checks)),
            f"p{PERCENTILE}": float(np.percentile(checks, PERCENTILE)),
            "count": len(outcome.checks),
        },
        "memory": {"growth": growth(memory), "peak": max(memory), "samples": memory},
        "alive": alive,
    }


def failures(found: dict[str, Any]) -> list[str]:
    """Return what must not be: faults, errors of the server, memory that grows, too few comparisons."""
    wrong = [f"{count} x {fault}" for fault, count in Counter(found["faults"]).items()]
    if errors := found["statuses"].get("500", 0):
        wrong.append(f"{errors} responses with status 500")
    if not found["alive"]:
        wrong.append("the studio ended")
    if found["seconds"] >= LEAST_SECONDS and found["memory"]["growth"] > MOST_GROWTH:
        wrong.append(f"memory grew by {found['memory']['growth'] / 1e6:.0f} MB after the first part of the time")
    if not found["compared"]:
        wrong.append("no result was compared")
    return wrong


def main(
    model: Annotated[str, typer.Option(help="A packaged model, or a model folder.")] = DEFAULT_MODEL,
    minutes: Annotated[float, typer.Option(help="Duration.")] = 60.0,
    clients: Annotated[int, typer.Option(min=1, help="Clients at a time.")] = 20,
    seed: Annotated[int, typer.Option(help="Of what the clients do.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("runs/soak"),
    smoke: SmokeOption = False,
) -> None:
    """Use a studio for an hour as 20 clients do: no error of the server, flat memory, right results."""
    with reporting(True) as report:
        found = soak(model, 60.0 if smoke else 60 * minutes, clients, seed, report)
    write_json(out / "results.json", {"model": model, **found, **machine()})
    table = Table("what", "found")
    for name, counts in (("responses", found["statuses"]), ("actions", found["actions"])):
        table.add_row(name, ", ".join(f"{what} {count:,}" for what, count in counts.items()))
    table.add_row("results compared", f"{found['compared']:,}")
    checks = found["check_seconds"]
    shown = f"median {1000 * checks['median']:.0f} ms, 95 % within {1000 * checks[f'p{PERCENTILE}']:.0f} ms"
    table.add_row("checks", f"{checks['count']:,}: {shown}")
    memory = found["memory"]
    table.add_row("memory", f"peak {memory['peak'] / 1e6:.0f} MB, growth {memory['growth'] / 1e6:.1f} MB")
    show(table, NOTE, f"Saved {out / 'results.json'}")
    if wrong := failures(found):
        raise EnergyQLError("; ".join(wrong[:5]), hint="results.json holds all of it")


if __name__ == "__main__":
    run_command(main)
