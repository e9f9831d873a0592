"""Time of pictures, latents, edits and training steps beside other programs: `python -m benchmarks.beside --help`.

Every combination of threads and settings has a process of its own, since a setting holds from the import of torch on.
The processes take turns, while as many other processes as a column says are in an endless loop.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.common import SmokeOption, page, run_command, show, split_names, table
from energyql import edit
from energyql.errors import EnergyQLError
from energyql.evaluation.measure import machine
from energyql.files import write_json, write_text
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from energyql.models import DEFAULT_MODEL
from energyql.numerics import pool
from energyql.pipeline.plan import plan_query
from energyql.pipeline.run import run_latents
from energyql.pipeline.session import Session, open_session
from energyql.progress import reporting
from energyql.sampling import prior_latents
from energyql.training.heads import HeadSettings, train_heads
from energyql.training.labelled import Labelled

COMMON, RARE = "smile AND NOT (glasses OR beard)", "bald AND beard AND glasses"
STEPS = 20
"""Steps of a training that are timed together."""
CALLS = 4
"""Calls for rare latents that are timed together.

One takes 50 ms, and in so short a time the shares of the operating system are not even: beside two loops on two cores,
40 ms of plain Python take twice as long.
"""
OLD = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
"""What OpenMP does where these variables are not set."""
SETTINGS: dict[str, dict[str, str]] = {"before": OLD, "now": {}}
"""Setting -> variables of the environment."""
HEADER = ("what", "threads", "setting", "beside", "ms", "times idle", "times before")
NOTE = (
    "Medians over turns. Before: threads of OpenMP spin as by default, and every operation is computed by all threads, "
    "piece after piece. Times idle and before: medians of the ratios of a turn."
)


def _pictures(n: int, pipeline: Session) -> Callable[[], Any]:
    query = plan_query(pipeline, COMMON)
    sampled = next(run_latents(query, n, progress=False))
    return lambda: query.show(sampled, np.arange(n), lambda stage, fraction: None)


def _latents(n: int, pipeline: Session) -> Callable[[], Any]:
    query = plan_query(pipeline, RARE)
    return lambda: [list(run_latents(query, n, progress=False)) for _ in range(CALLS)]


def _edit(pipeline: Session) -> Callable[[], Any]:
    return lambda: edit(7, "glasses", model=pipeline.model, progress=False)


def _training(pipeline: Session) -> Callable[[], Any]:
    vocabulary, latents = pipeline.model.vocabulary, prior_latents(0, 0, 2000, pipeline.model.generator.z_dim)
    labels = {name: (latents[:, i] > 0).float() for i, name in enumerate(vocabulary)}
    settings = HeadSettings(steps=STEPS, patience=None)
    return lambda: train_heads(Labelled(latents, labels, vocabulary), settings)


def _stylegan2(n: int, pipeline: Session) -> Callable[[], Any]:
    torch.manual_seed(0)
    generator = StyleGAN2(StyleGAN2Config(256, channel_base=16384)).eval().requires_grad_(False)
    w = prior_latents(0, 0, n, generator.z_dim)

    def draw() -> None:
        with torch.inference_mode():
            for part in w.split(16):
                generator.synthesize(part)

    return draw


def _products(size: int, pipeline: Session) -> Callable[[], Any]:
    """What a single thread of PyTorch loses by itself: products of a few rows with matrices, `size` numbers in all."""
    matrices = [torch.randn(64, 64) for _ in range(size // 4096)]

    def multiply() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        x = torch.ones(64, 64)
        for i in range(3_000):
            x = torch.tanh(x @ matrices[i % len(matrices)])
        torch.set_num_threads(threads)

    return multiply


WORK: dict[str, Callable[[Session], Callable[[], Any]]] = {
    "control of 256 KB": partial(_products, 1 << 16),
    "control of 8 MB": partial(_products, 1 << 21),
    "16 pictures": partial(_pictures, 16),
    f"{CALLS} x 64 rare latents": partial(_latents, 64),
    "edit": _edit,
    f"{STEPS} training steps": _training,
    "64 pictures": partial(_pictures, 64),
    "64 of StyleGAN2 256": partial(_stylegan2, 64),
}
SMOKE_WORK: dict[str, Callable[[Session], Callable[[], Any]]] = {"2 pictures": partial(_pictures, 2)}


def serve(threads: int, before: bool) -> None:
    """Do what the standard input names, line by line, and print the seconds. The first time is not counted."""
    torch.set_num_threads(threads)
    if before:
        pool.in_autocast = lambda: True  # under autocast there is no pool
        pool.LARGE = 0  # and no operation is too small for several threads
    pipeline, ready = open_session(DEFAULT_MODEL, "cpu"), dict[str, Callable[[], Any]]()
    for line in sys.stdin:
        name = line.strip()
        if name not in ready:
            ready[name] = (WORK | SMOKE_WORK)[name](pipeline)
            ready[name]()
        started = time.perf_counter()
        ready[name]()
        print(time.perf_counter() - started, flush=True)


class Server:
    """A process that runs `serve`.

    Args:
        threads: of torch.
        setting: a key of `SETTINGS`.
    """

    def __init__(self, threads: int, setting: str) -> None:
        code = f"from benchmarks.beside import serve; serve({threads}, {setting == 'before'})"
        environment = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", *OLD)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment | SETTINGS[setting], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def seconds(self, name: str) -> float:
        """Return the seconds that the work `name` took.

        Raises:
            EnergyQLError: the process failed.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise EnergyQLError(f"the process that does {name!r} ended")
        return float(line)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many processes busy in endless loops."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main(
    work: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(WORK)}.")] = ",".join(WORK),
    threads: Annotated[str, typer.Option(help="Of torch, separated by commas.")] = "",
    loops: Annotated[
        str, typer.Option(help="Numbers of busy loops, separated by commas; 0 is always one.")
    ] = "0,1,2,8",
    setting: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(SETTINGS)}.")] = ",".join(SETTINGS),
    turns: Annotated[int, typer.Option(min=1, help="Of which medians are taken.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for results.json and results.md.")] = Path("runs/beside"),
    smoke: SmokeOption = False,
) -> None:
    """Time pictures, latents, edits and training steps, idle and beside busy loops."""
    cores = os.cpu_count() or 1
    numbers = sorted(int(one) for one in split_names("--threads", threads, map(str, range(1, 1025)))) if threads else []
    numbers = [min(2, cores)] if smoke else numbers or sorted({1, 2, cores})
    loads = [0, 1] if smoke else [int(one) for one in split_names("--loops", loops, map(str, range(1025)))]
    loads = sorted({0, *loads})
    settings = split_names("--setting", setting, SETTINGS)
    names, turns = (list(SMOKE_WORK), 1) if smoke else (split_names("--work", work, WORK), turns)
    servers = {(count, setting): Server(count, setting) for count in numbers for setting in settings}
    rows: list[dict[str, Any]] = []
    try:
        with reporting(True) as report:
            for i, name in enumerate(names):
                for server in servers.values():
                    server.seconds(name)  # models are loaded, and layers made ready
                taken: list[dict[tuple[int, int, str], float]] = []
                for turn in range(turns):  # idle and beside loops alternate: both meet the same states of the machine
                    taken.append({})
                    for j, load in enumerate(loads):
                        with busy(load):
                            taken[-1] |= {(load, *key): server.seconds(name) for key, server in servers.items()}
                        report("beside", (i + (turn + (j + 1) / len(loads)) / turns) / len(names))
                rows += [_row(name, key, loads[0], taken) for key in taken[0]]
    finally:
        for server in servers.values():
            server.process.kill()
            server.process.wait()
    data = {"machine": machine(), "settings": {"turns": turns, "threads": numbers, "loops": loads}, "rows": rows}
    cells = _cells(rows)
    write_json(out / "results.json", data)
    write_text(out / "results.md", page("Beside other programs", NOTE, HEADER, cells, data))
    show(table(HEADER, cells), NOTE, f"Saved {out / 'results.json'} and results.md", width=110)


def _row(
    name: str, key: tuple[int, int, str], least: int, turns: list[dict[tuple[int, int, str], float]]
) -> dict[str, Any]:
    load, threads, setting = key
    before = load, threads, "before"
    return {
        "what": name, "threads": threads, "setting": setting, "loops": load, "seconds": [turn[key] for turn in turns],
        "times idle": median(turn[key] / turn[least, threads, setting] for turn in turns),
        "times before": median(turn[key] / turn[before] for turn in turns) if before in turns[0] else None,
    }  # fmt: skip


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            row["what"], str(row["threads"]), row["setting"], str(row["loops"]), f"{1000 * median(row['seconds']):.0f}",
            f"{row['times idle']:.2f}", "" if row["times before"] is None else f"{row['times before']:.2f}",
        ]
        for row in rows
    ]  # fmt: skip


if __name__ == "__main__":
    run_command(main)
