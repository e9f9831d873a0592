"""Kernels, transfers and waits of calls on an emulated accelerator: `python -m benchmarks.accelerator --help`.

The device is that of `benchmarks.emulated`. docs/performance.md says how to read the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import energyql
from benchmarks.common import SmokeOption, page, run_command, show, split_names, table
from benchmarks.emulated import DEVICE, MISSING, Log, emulated
from energyql.errors import EnergyQLError
from energyql.evaluation.measure import machine
from energyql.files import write_json, write_text
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.model import Model, load_model
from energyql.progress import reporting
from energyql.training.directions import find_directions
from energyql.training.goals import STEPS
from energyql.training.heads import HeadSettings, train_heads
from energyql.training.judge import train_judge
from energyql.training.labelled import Labelled
from energyql.training.picture_fit import PictureSettings, fit_network
from energyql.training.run import train_attributes
from energyql.training.steps import Course
from energyql.vocabulary import AttributeSpec, Vocabulary

COMMON, RARE = "smile AND NOT glasses", "bald AND beard AND glasses"
SIZES = (4, 64)
LINES = 5
NOTE = (
    "Launches: operations that run at least one kernel; operations: with those that run none, such as views. Waits: "
    "transfers to the CPU, and other times when Python waits until the device has finished. Blocking: transfers to the "
    "device that are not non_blocking, for which CUDA waits too. Estimate: how long Python is busy with launches and "
    "waits if they take as long as stated; a device may take longer. Of a fit, n is the number of steps."
)
HEADER = ["call", "n", "operations", "launches", "to the device", "blocking", "waits", "estimate, ms"]
Call = Callable[[Model, int], Any]


def _latents(query: str, **settings: Any) -> Call:
    def call(model: Model, n: int) -> Any:
        return list(energyql.sample_latents(query, n, model=model, device=DEVICE, progress=False, **settings))

    return call


def _edit(model: Model, n: int) -> Any:
    return energyql.edit(7, ["smile", "glasses AND NOT hat"], n=n, model=model, device=DEVICE, progress=False)


def _invert(model: Model, n: int) -> Any:
    pictures = energyql.generate(COMMON, n, model=model, seed=9, device=DEVICE, progress=False).images
    with emulated() as log:
        energyql.invert(pictures, model=model, device=DEVICE, progress=False)
    return log


def _warm(images: Tensor) -> dict[str, Any]:
    """Label pictures by their colours."""
    red, blue = images[:, 0].mean((1, 2)), images[:, 2].mean((1, 2))
    return {"warm": red > blue, "light": images.mean((1, 2, 3)) > 0}


def _train(model: Model, n: int) -> Any:
    with TemporaryDirectory() as folder:
        settings = HeadSettings(steps=100)
        train_attributes(
            model.generator, _warm, Path(folder) / "model", n=100 * n, settings=settings, judge=None,
            device=DEVICE, progress=False,
        )  # fmt: skip


def _train_judge(model: Model, n: int) -> Any:
    with TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        settings = HeadSettings(steps=2)
        options: dict[str, Any] = {"device": DEVICE, "progress": False}
        train_attributes(model.generator, _warm, out, n=200, settings=settings, judge=None, **options)
        with emulated() as log:
            train_judge(out, _warm, n=100 * n, **options)
    return log


ATTRIBUTES = Vocabulary(
    [
        AttributeSpec("warm", "yes/no"),
        AttributeSpec("shade", "categorical", values=("dark", "medium", "light")),
        AttributeSpec("light", "continuous", low=0, high=1),
    ]
)


def _labels(count: int) -> dict[str, Tensor]:
    """Return labels of `ATTRIBUTES`."""
    rows = torch.arange(count)
    return {"warm": rows % 2.0, "shade": rows % 3.0, "light": rows / count}


def _fit_heads(model: Model, n: int) -> Any:
    settings = HeadSettings(steps=n, patience=n)  # all steps are done
    with TemporaryDirectory() as folder:
        labelled = Labelled(torch.randn(600, model.generator.z_dim), _labels(600), ATTRIBUTES)
        train_heads(labelled, settings, Course(device=DEVICE, checkpoint=Path(folder) / "fit"))


def _fit_judge(model: Model, n: int) -> Any:
    pictures = torch.randint(0, 256, (128, 3, 48, 48), dtype=torch.uint8)
    settings = PictureSettings(least=64 * n, most=64 * n)
    with TemporaryDirectory() as folder:
        course = Course(device=DEVICE, checkpoint=Path(folder) / "fit")
        fit_network(Labelled(pictures, _labels(128), ATTRIBUTES), settings, course)


def _steer(model: Model, n: int) -> Any:
    assert n == STEPS
    find_directions(model, "steerability", goals=["zoom"], device=DEVICE)


CALLS: dict[str, tuple[Call, tuple[int, ...]]] = {
    "latents of a common query": (_latents(COMMON), SIZES),
    "latents of a rare query": (_latents(RARE), SIZES),
    "latents by ode": (_latents(COMMON, sampler="ode"), SIZES),
    "latents by langevin": (_latents(COMMON, sampler="langevin"), (4,)),
    "pictures of a common query": (
        lambda model, n: energyql.generate(COMMON, n, model=model, device=DEVICE, progress=False),
        SIZES,
    ),
    "truth table of two": (
        lambda model, n: energyql.truth_table("smile", "glasses", n=n, model=model, device=DEVICE, progress=False),
        (4,),
    ),
    "traversal": (
        lambda model, n: energyql.traverse("smile", "beard", 3, n=n, model=model, device=DEVICE, progress=False),
        (4,),
    ),
    "edit of two steps": (_edit, (2,)),
    "inversion": (_invert, (1,)),
    "fit of heads": (_fit_heads, (300,)),
    "fit of a judge": (_fit_judge, (96,)),
    "a direction by steerability": (_steer, (STEPS,)),
    "training of heads from 100 n labels": (_train, (4,)),
    "training of a judge from 100 n labels": (_train_judge, (4,)),
}
"""The calls by name, and for which numbers of samples each is counted."""
SMOKE = ("latents of a common query", "pictures of a common query")


def count(call: Call, model: Model, n: int) -> Log:
    """Return what happens on the device in one call; a call that returns a `Log` has counted a part of itself."""
    torch.manual_seed(0)
    model = replace(model)  # a copy, without what earlier calls have kept in it
    with emulated() as log:
        result = call(model, n)
    return result if isinstance(result, Log) else log


def row_of(name: str, n: int, log: Log) -> dict[str, Any]:
    """Return the counts of a call as JSON values."""
    lines = {kind: log.lines(kind, LINES) for kind in ("launch", "wait")}
    names = ("operations", "launches", "transfers", "blocking", "waits")
    return {"call": name, "n": n, **{name: getattr(log, name) for name in names}, "lines": lines}


def estimate(row: dict[str, Any], launch: float, wait: float) -> float:
    """Return how long Python is busy, in ms, for `launch` and `wait` in microseconds."""
    return float(((row["launches"] + row["transfers"]) * launch + row["waits"] * wait) / 1000)


def cells(row: dict[str, Any], launch: float, wait: float) -> list[str]:
    """Return a row of the table."""
    counts = [f"{row[name]:,}" for name in ("operations", "launches", "transfers", "blocking", "waits")]
    return [row["call"], str(row["n"]), *counts, f"{estimate(row, launch, wait):,.1f}"]


def line_texts(row: dict[str, Any]) -> list[str]:
    """Return for one call the lines of the package that cost most, as items of a list."""
    texts = []
    for kind, title in (("launch", "launches"), ("wait", "waits")):
        lines = ", ".join(f"`{line}` {number:,}" for line, number in row["lines"][kind])
        texts.append(f"- {row['call']}, n = {row['n']}, {title}: {lines}")
    return texts


def markdown(data: dict[str, Any]) -> str:
    """Return the results as a page."""
    launch, wait = data["settings"]["launch"], data["settings"]["wait"]
    rows = [cells(row, launch, wait) for row in data["rows"]]
    lines = [text for row in data["rows"] for text in line_texts(row)]
    note = f"{NOTE} Here a launch takes {launch:g} and a wait {wait:g} microseconds."
    return page("Calls on an accelerator", note, HEADER, rows, data, "", "## Lines that cost most", "", *lines)


def main(
    calls: Annotated[str, typer.Option(help="Names of calls, separated by commas; all by default.")] = "",
    launch: Annotated[float, typer.Option(min=0, help="Length of a launch, in microseconds.")] = 5.0,
    wait: Annotated[float, typer.Option(min=0, help="Length of a wait, in microseconds.")] = 15.0,
    model: Annotated[str, typer.Option(help="A packaged model, or a model folder.")] = DEFAULT_MODEL,
    out: Annotated[Path, typer.Option(help="Folder for results.json and results.md.")] = Path("runs/accelerator"),
    smoke: SmokeOption = False,
) -> None:
    """Count kernels, transfers and waits of calls on a device that is emulated on the CPU."""
    if MISSING is not None:
        raise EnergyQLError(MISSING, hint='pip install "torch>=2.10"')
    names = split_names("--calls", calls, CALLS) if calls else [*CALLS]
    rows: list[dict[str, Any]] = []
    settings = {"launch": launch, "wait": wait, "model": model}
    data: dict[str, Any] = {"settings": settings, "machine": machine(), "rows": rows}
    with emulated():
        loaded = load_model(model, device=DEVICE)
    with reporting(True) as report:
        for done, name in enumerate(SMOKE if smoke else names):
            call, sizes = CALLS[name]
            for n in (2,) if smoke else sizes:
                rows.append(row_of(name, n, count(call, loaded, n)))
                write_json(out / "results.json", data)
            report("counting", (done + 1) / len(names))
    write_text(out / "results.md", markdown(data))
    lines = "\n".join(text for row in rows for text in line_texts(row))
    show(
        table(HEADER, (cells(row, launch, wait) for row in rows)), NOTE, lines, f"Saved {out / 'results.md'}", width=110
    )


if __name__ == "__main__":
    run_command(main)
