"""Data sets: throughput of one and two workers, and a run that is killed again and again.

    python -m benchmarks.dataset --smoke

Throughput: `generate` in a loop with its pictures saved as PNG, one worker in this process, one and two workers of
Ray, each with one thread; without Ray the last two are left out. Kills: a run of the tiny StyleGAN of the tests, whose
pictures are 16 x 16, in a process of its own, into an S3 server on the loopback or a folder, is killed at random
moments (SIGKILL of the driver, of a worker, of the server); the SHA-256 of every shard must then equal that of an
undisturbed run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import fsspec
import torch
import typer
from rich.progress import track

from benchmarks.common import JudgedModelOption, SmokeOption, page, run_command
from energyql import DatasetClass, DatasetPlan, generate, write_dataset
from energyql.errors import EnergyQLError
from energyql.files import write_json, write_text

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
QUERIES = ("glasses AND beard", "NOT (glasses OR beard)")


def make_plan(model: str, count: int, shard_size: int) -> DatasetPlan:
    """Return a plan of a class for each query with `count` pictures in all."""
    classes = [DatasetClass(name=query, query=query, count=count // len(QUERIES), model=model) for query in QUERIES]
    return DatasetPlan(classes=classes, shard_size=shard_size)


def small_plan(model: str, count: int) -> DatasetPlan:
    """Return the plan of the run that is killed: 200 shards, or fewer."""
    return make_plan(model, count, max(8, count // 200))


def throughput(model: str, count: int, folder: Path) -> dict[str, float]:
    """Return pictures a second of each way to draw `count` of them."""
    plan, found = make_plan(model, count, max(16, count // 16)), {}
    torch.set_num_threads(1)

    def loop() -> None:
        for one in plan.classes:
            for first in range(0, one.count, 64):
                number = min(64, one.count - first)
                result = generate(one.query, number, model=model, first=first, device="cpu", progress=False)
                for index, picture in zip(result.index, result.images, strict=True):
                    picture.save(folder / f"{plan.seed_of(one)}-{index}.png")

    def data_set(name: str, **settings: Any) -> None:
        write_dataset(plan, folder / name, device="cpu", progress=False, **settings)

    ways = {"generate in a loop": loop, "one worker, this process": lambda: data_set("one")}
    try:
        import ray
    except ImportError:
        ray = None
    if ray is not None:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        ways["one worker of Ray"] = lambda: data_set("ray-1", address="auto")
        ways["two workers of Ray"] = lambda: data_set("ray-2", workers=2)
    for one in plan.classes:
        generate(one.query, 2, model=model, device="cpu", progress=False)  # what is only done once
    for name, way in ways.items():
        started = time.perf_counter()
        way()
        found[name] = count / (time.perf_counter() - started)
    if ray is not None:
        ray.shutdown()
    return found


def digests(out: str) -> dict[str, str]:
    """Return the SHA-256 of every shard of a data set, by name."""
    system, root = fsspec.url_to_fs(out, use_listings_cache=False)
    found = {}
    for path in system.find(f"{root}/shards"):
        found[Path(path).name] = hashlib.sha256(system.cat(path)).hexdigest()
    return found


def worker_pids() -> list[int]:
    """Return the process ids of living workers."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(int(entry.name))
    return found


def kills(count: int, wanted: int, pause: float, workers: int, store: bool, folder: Path) -> dict[str, Any]:
    """Kill a run `wanted` times and compare what it wrote with an undisturbed run."""
    from toys import tiny_model  # of the tests

    torch.set_num_threads(1)
    whole, model = folder / "whole", str(tiny_model(folder / "model"))
    write_dataset(small_plan(model, count), whole, device="cpu", progress=False)
    with contextlib.ExitStack() as ends:
        server, out = None, str(folder / "killed")
        if store:
            from dataset.store import KEYS, served

            server, out = ends.enter_context(served(folder)), "s3://bucket/killed"
            os.environ |= KEYS | {"AWS_ENDPOINT_URL": server.address}
            fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")
        command = [sys.executable, "-m", "benchmarks.dataset", "--driver", out, "--model", model, "-n", str(count)]
        run = Run([*command, "--workers", str(workers)], out)
        ends.callback(run.kill)
        done, chance = Counter[str](), random.Random(0)
        for _ in track(range(wanted), "kills"):
            what = ""
            while not what:
                done["finished before"] += run.go_on()
                time.sleep(chance.uniform(0.1, 1) * pause)
                what = chance.choice(["driver", *["worker"] * (workers > 1), *["server"] * store])
                if what == "driver":
                    run.kill()
                elif what == "server" and server is not None:
                    server.kill()
                    time.sleep(chance.uniform(0, 1))
                    server.start()
                elif pids := worker_pids():
                    os.kill(chance.choice(pids), signal.SIGKILL)
                else:
                    what = ""  # no worker has begun
            done[what] += 1
        run.finish()
        expected = digests(str(whole))
        return {
            "model": "the tests' tiny one",
            "kills": dict(done),
            "shards": len(expected),
            "equal": digests(out) == expected,
        }


class Run:
    """A command that writes a data set, in a process of its own, and that is started again where it was killed."""

    def __init__(self, command: list[str], out: str) -> None:
        self._command, self._out = command, out
        self._process: subprocess.Popen[bytes] | None = None

    def go_on(self) -> bool:
        """Start the process if it does not run; return whether it was finished, and begins anew."""
        code = None if self._process is None else self._process.poll()
        if self._process is not None and code is None:
            return False
        if code == 0:
            system, root = fsspec.url_to_fs(self._out, use_listings_cache=False)
            system.rm(root, recursive=True)
        elif code is not None and code != -signal.SIGKILL:
            raise EnergyQLError(f"the run has ended with code {code}")
        self._process = subprocess.Popen(self._command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return code == 0

    def kill(self) -> None:
        """Kill the process, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def finish(self) -> None:
        """Let the process end, and start it once more if it was killed."""
        if self._process is None or self._process.wait() != 0:
            subprocess.run(self._command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)


def main(
    model: JudgedModelOption = "avatars",
    n: Annotated[int, typer.Option("-n", min=16, help="Pictures of the run that is killed.")] = 100_000,
    timed: Annotated[int, typer.Option(min=0, help="Pictures whose throughput is measured; 0 leaves it out.")] = 2048,
    wanted: Annotated[int, typer.Option("--kills", min=0, help="How often the run is killed.")] = 50,
    pause: Annotated[float, typer.Option(min=0, help="Longest pause between two kills, in seconds.")] = 15.0,
    workers: Annotated[int, typer.Option(min=1, help="Of the run that is killed.")] = 2,
    store: Annotated[bool, typer.Option("--store/--folder", help="Into an S3 server, or into a folder.")] = True,
    driver: Annotated[str, typer.Option(hidden=True, help="Only write the data set there.")] = "",
    smoke: SmokeOption = False,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/dataset"),
) -> None:
    """Measure data sets."""
    if driver:
        torch.set_num_threads(1)
        write_dataset(small_plan(model, n), driver, workers=workers, device="cpu", progress=False)
        return
    if smoke:
        n, timed, wanted, pause, workers, store = 64, 32, 2, 1.0, 1, False
    folder = Path(tempfile.mkdtemp(prefix="energyql-dataset-"))
    try:
        speeds = throughput(model, timed, folder) if timed else {}
        killed = kills(n, wanted, pause, workers, store, folder) if wanted else {}
    finally:
        shutil.rmtree(folder)
    if killed and not killed["equal"]:
        raise EnergyQLError("a run that was killed has other shards than an undisturbed one")
    settings = {"model": model, "n": n, "timed": timed, "kills": wanted, "workers": workers, "store": store}
    data = {"settings": settings, "machine": {"cores": os.cpu_count()}, "speeds": speeds, "killed": killed}
    write_json(out / "results.json", data)
    rows = [[name, f"{speed:.2f}"] for name, speed in speeds.items()]
    note = f"Killed: {killed}." if killed else "No run was killed."
    write_text(out / "results.md", page("Data sets", note, ["way", "pictures a second"], rows, data))
    typer.echo((out / "results.md").read_text())


if __name__ == "__main__":
    run_command(main)
