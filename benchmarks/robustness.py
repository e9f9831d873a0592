"""The flow and Langevin dynamics over a range of their settings: `python -m benchmarks.robustness --help`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from PIL import Image

from benchmarks.common import DeviceOption, JudgedModelOption, SmokeOption, page, run_command, show
from energyql.evaluation.compare import PRIOR, SampleCounts, compare
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.methods import Method, read_methods
from energyql.evaluation.report import terminal_table
from energyql.files import write_json, write_picture, write_text
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DEFAULT_SAMPLER
from energyql.progress import reporting
from energyql.render.charts import Canvas, HeatMap
from energyql.render.pictures import FAINT, INK
from energyql.sampling import LangevinSampler, ODESolver, Sampler, VPSchedule
from energyql.sampling.runge_kutta import adaptive_methods

QUERIES = ("glasses", "hair = red AND mouth = laugh", "smile AND NOT glasses AND skin_tone = 0.7")
Value = float | str
Rows = list[list[float | None]]


def flow(method: Value, tolerance: Value, *, overshoot: bool = True) -> Sampler:
    """Return the paper's flow by one of torchdiffeq's methods."""
    return ODESolver(str(method), rtol=float(tolerance), atol=float(tolerance), overshoot=overshoot)


def other_rates(low: Value, high: Value) -> Sampler:
    """Return the paper's flow with other rates β(0) and β(1)."""
    schedule = VPSchedule(float(low), float(high))
    return ODESolver("dopri5", rtol=1e-3, atol=1e-3, overshoot=True, schedule=schedule)


def langevin(steps: Value, step: Value) -> Sampler:
    """Return the paper's Langevin dynamics with another number and size of steps."""
    return LangevinSampler(step=float(step), steps=int(steps), noise=1e-2)


def noisy(noise: Value, step: Value) -> Sampler:
    """Return the paper's Langevin dynamics with another noise, a number or that of the posterior, and size of steps."""
    return LangevinSampler(step=float(step), steps=100, noise=None if isinstance(noise, str) else noise)


@dataclass(frozen=True)
class Grid:
    """Two settings of a sampler, each with its values; `published` are those of Nie et al. 2021."""

    name: str
    title: str
    row: str
    rows: tuple[Value, ...]
    column: str
    columns: tuple[Value, ...]
    published: tuple[Value, Value]
    sampler: Callable[[Value, Value], Sampler]

    def corners(self) -> Grid:
        """Return the grid of the published values and the last ones."""
        rows, columns = ((p, last) for p, last in zip(self.published, (self.rows[-1], self.columns[-1]), strict=True))
        return Grid(self.name, self.title, self.row, rows, self.column, columns, self.published, self.sampler)

    def cells(self) -> Iterator[tuple[int, int, Method]]:
        """Yield every row, column and method; its name is unique, but two grids may hold the same sampler."""
        for i, row in enumerate(self.rows):
            for j, column in enumerate(self.columns):
                name = f"{self.name} {label(row)} {label(column)}"
                yield i, j, Method(name, "lace", self.sampler(row, column))

    def near(self, i: int, j: int) -> bool:
        """Return whether both settings are within a factor of ten of the published ones, or have no size."""
        return all(
            a == b or (isinstance(a, str) and isinstance(b, str)) or (_number(a) and 0.099 < float(a) / float(b) < 10.1)
            for a, b in zip((self.rows[i], self.columns[j]), self.published, strict=True)
        )


def _number(value: Value) -> bool:
    return not isinstance(value, str)


STEPS: tuple[Value, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
TOLERANCES: tuple[Value, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
OWN_NOISE = "sqrt(2h)"


def grids() -> tuple[Grid, ...]:
    """Return the grids; each holds the published setting."""
    methods = adaptive_methods()
    return (
        Grid(
            "flow", "ODE as published (odeint)", "method", methods, "rtol = atol", TOLERANCES, ("dopri5", 1e-3), flow
        ),
        Grid(
            "flow-to-t1", "ODE, its last step cut at t = 0.001", "method", methods, "rtol = atol", TOLERANCES,
            ("dopri5", 1e-3), lambda method, tolerance: flow(method, tolerance, overshoot=False),
        ),
        Grid(
            "rates", "ODE as published, noise rates", "beta(0)", (0.01, 0.1, 1.0), "beta(1)",
            (2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 200.0), (0.1, 20.0), other_rates,
        ),
        Grid(
            "langevin", "Langevin, noise 0.01", "steps", (10, 30, 100, 300, 1000), "step size h", STEPS, (100, 1e-2),
            langevin,
        ),
        Grid(
            "langevin-noise", "Langevin, 100 steps", "noise", (0.0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, OWN_NOISE),
            "step size h", STEPS, (1e-2, 1e-2), noisy,
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """A number of each cell: its heading, how it is read from an outcome, coloured and written."""

    name: str
    title: str
    read: Callable[[dict[str, Any]], float | None]
    share: Callable[[float], float]
    text: Callable[[float], str]
    worst: Callable[[Sequence[float]], float]


def _accuracy(outcome: dict[str, Any]) -> float | None:
    parts = outcome["accuracy"]
    return sum(parts.values()) / len(parts) if parts else None


MEASURES = (
    Measure(
        "accuracy", "Conditional accuracy, %, higher is better", _accuracy,
        lambda x: (x - 0.5) / 0.5, lambda x: f"{100 * x:.1f}", min,
    ),
    Measure(
        "frequency-error", "Largest frequency error against exact samples, lower is better",
        lambda outcome: outcome["frequency_error"] and outcome["frequency_error"]["largest"],
        lambda x: 1 - x / 0.5, lambda x: f"{x:.2f}", max,
    ),
    Measure(
        "cost", "Gradients of the energy a sample, lower is better", lambda outcome: outcome["gradients"],
        lambda x: 1 - math.log10(max(x, 1)) / 3, lambda x: f"{x:.0f}", max,
    ),
)  # fmt: skip
NOTE = (
    "Means over the queries, from the same start latents in every cell. Accuracy: share of samples that meet a "
    "condition of the query by the judge, over all conditions. Frequency error: the largest difference of the "
    "frequency of any attribute from that among exact samples. Gradients: of the energy, a sample. Near: settings "
    "within a factor of ten of the published one, both ways, by every method. All of them take the energy of the "
    "paper (`lace`); the default sampler takes its own."
)
SMOKE = SampleCounts(n=8, prior=400, oracle=30)
HEADER = (
    "grid", "settings", "accuracy %, published", "lowest", "median", "highest", "lowest near",
    "frequency error, published", "highest near", "gradients", "to",
)  # fmt: skip


def label(value: Value) -> str:
    """Return a setting as text."""
    return value if isinstance(value, str) else f"{value:g}"


def read_grids(data: dict[str, Any], chosen: Sequence[Grid], methods: dict[str, Method]) -> list[dict[str, Any]]:
    """Return every grid with the values of every measure, means over queries, from what `compare` returns."""
    found = []
    for grid in chosen:
        values: dict[str, Rows] = {one.name: [[None] * len(grid.columns) for _ in grid.rows] for one in MEASURES}
        for i, j, method in grid.cells():
            for one in MEASURES:
                values[one.name][i][j] = average(data, methods[repr(method.sampler)].name, one)
        settings = {"rows": list(grid.rows), "columns": list(grid.columns), "published": list(grid.published)}
        found.append({"name": grid.name, "title": grid.title, **settings, "values": values})
    return found


def average(data: dict[str, Any], name: str, measure: Measure) -> float | None:
    """Return the mean of a measure of one method over the queries; `None` if it is missing for one of them."""
    values = [measure.read(record["samplers"][name]) for record in data["queries"]]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def draw(measure: Measure, chosen: Sequence[Grid], found: Sequence[dict[str, Any]], reference: float) -> Image.Image:
    """Draw one measure of all grids, two beside each other, with the published settings framed."""
    cell, left, top, gap = (58, 26), 96, 84, 92
    width = left + max(len(grid.columns) for grid in chosen) * cell[0]
    lines = [chosen[k : k + 2] for k in range(0, len(chosen), 2)]
    canvas = Canvas(2 * width + 24, top + sum(gap + cell[1] * max(len(g.rows) for g in line) for line in lines))
    canvas.text((16, 14), measure.title, INK, 17)
    told = f"Framed: the published setting. Default sampler of energyql: {measure.text(reference)}."
    canvas.text((16, 40), told, FAINT, 12)
    for k, grid in enumerate(chosen):
        values = found[k]["values"][measure.name]
        marked = grid.rows.index(grid.published[0]), grid.columns.index(grid.published[1])
        rows, columns = [label(row) for row in grid.rows], [label(column) for column in grid.columns]
        at = left + (k % 2) * width, top + 20
        heat = HeatMap(rows, columns, values, measure.share, measure.text, marked)
        heat.draw(canvas, at, cell, grid.column, f"{grid.title};  rows: {grid.row}")
        if k % 2:
            top += gap + cell[1] * max(len(one.rows) for one in lines[k // 2])
    return canvas.picture()


def summary_rows(chosen: Sequence[Grid], found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a line for each grid, in the order of `HEADER`."""
    lines = []
    for grid, told in zip(chosen, found, strict=True):
        cells = [(i, j) for i in range(len(grid.rows)) for j in range(len(grid.columns))]
        at = grid.rows.index(grid.published[0]), grid.columns.index(grid.published[1])

        def pick(name: str, cells: list[tuple[int, int]], values: dict[str, Rows] = told["values"]) -> list[float]:
            return [value for i, j in cells if (value := values[name][i][j]) is not None] or [math.nan]

        near = [one for one in cells if grid.near(*one)]
        accuracy, error, cost = MEASURES
        rates, costs = pick("accuracy", cells), pick("cost", cells)
        lines.append(
            [grid.title, str(len(cells))]
            + [
                accuracy.text(x)
                for x in (pick("accuracy", [at])[0], min(rates), median(rates), max(rates), min(pick("accuracy", near)))
            ]
            + [error.text(x) for x in (pick("frequency-error", [at])[0], max(pick("frequency-error", near)))]
            + [cost.text(x) for x in (min(costs), max(costs))]
        )
    return lines


def main(
    queries: Annotated[list[str], typer.Argument(help="Conjunctions, or single conditions.")] = QUERIES,  # type: ignore[assignment]
    model: JudgedModelOption = DEFAULT_MODEL,
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Samples for each query and cell.")] = 200,
    prior: Annotated[int, typer.Option(min=100, help="Pictures of the prior that all queries share.")] = PRIOR,
    oracle: Annotated[int, typer.Option(min=30, help="Exact samples that an oracle should be worth.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    device: DeviceOption = "auto",
    out: Annotated[Path, typer.Option(help="Folder of results, heat maps and the state of the run.")] = Path(
        "runs/robustness"
    ),
    smoke: SmokeOption = False,
    choices: Annotated[
        bool,
        typer.Option("--choices", help="Judge by the choices of latents, without pictures; needs the recipe extra."),
    ] = False,
) -> None:
    """Draw heat maps of accuracy, frequency error and cost over the settings. Interrupt at will: it resumes."""
    counts = SMOKE if smoke else SampleCounts(n=n, prior=prior, oracle=oracle, seed=seed)
    if choices:
        from benchmarks.choices import ChoiceModel  # imports the libraries that draw

        evaluated: EvaluatedModel = ChoiceModel(model, device=device)
    else:
        evaluated = EvaluatedModel(model, device=device)
    chosen = [grid.corners() if smoke else grid for grid in grids()]
    (reference,) = read_methods(DEFAULT_SAMPLER)
    methods: dict[str, Method] = {}
    for grid in chosen:
        for _, _, method in grid.cells():
            methods.setdefault(repr(method.sampler), method)
    with reporting(True) as report:
        data = compare(
            evaluated, queries, [reference, *methods.values()], counts=counts, folder=out / "cells", report=report,
            title="Every setting",
        )  # fmt: skip
    found = read_grids(data, chosen, methods)
    standing = {one.name: average(data, reference.name, one) for one in MEASURES}
    named = {"queries": [record["query"] for record in data["queries"]], "reference": standing}
    results = {"settings": data["settings"] | {"choices": choices}, "machine": data["machine"], **named, "grids": found}
    for one in MEASURES:
        value = standing[one.name]
        write_picture(out / f"{one.name}.png", draw(one, chosen, found, math.nan if value is None else value))
    rows = summary_rows(chosen, found)
    told = ", ".join(f"{one.name} {'-' if (x := standing[one.name]) is None else one.text(x)}" for one in MEASURES)
    about = f"Queries: {', '.join(f'`{query}`' for query in named['queries'])}. `{reference.name}`: {told}."
    more: list[str] = []
    for one in MEASURES:
        more += ["", f"## {one.title}", "", f"![{one.title}]({one.name}.png)"]
    write_json(out / "results.json", results)
    write_text(out / "results.md", page("Robustness", f"{NOTE}\n\n{about}", HEADER, rows, results, *more))
    columns = [(name, "", 1.0, 0) for name in HEADER[1:]]
    table = terminal_table(HEADER[0], columns, 36)
    for row in rows:
        table.add_row(*row)
    show(
        table,
        NOTE,
        about,
        f"Saved {out}: results.json, results.md, {', '.join(f'{m.name}.png' for m in MEASURES)}",
        width=150,
    )


if __name__ == "__main__":
    run_command(main, resumes=True)
