"""The flow and Langevin dynamics over a range of their settings: `python -m benchmarks.robustness --help`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from PIL import Image

from benchmarks.common import (
    ChoicesOption,
    DeviceOption,
    JudgedModelOption,
    SmokeOption,
    judged_model,
    page,
    run_command,
    show,
)
from energyql.evaluation.bench import Bench
from energyql.evaluation.compare import compare
from energyql.evaluation.methods import Method, read_methods
from energyql.evaluation.report import terminal_table
from energyql.evaluation.settings import PRIOR, SampleCounts
from energyql.files import write_json, write_picture, write_text
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DEFAULT_SAMPLER
from energyql.progress import reporting
from energyql.render.charts import GRID, Axes, Canvas, Place, blend
from energyql.render.pictures import FAINT, INK, PAPER
from energyql.sampling import LangevinSampler, ODESolver, Sampler, VPSchedule
from energyql.sampling.ode import adaptive_methods

HEAT = ("#3b1f5b", "#31688e", "#21918c", "#5ec962", "#fde725")
"""Colours of a heat map from the lowest to the highest share, ever lighter, so that they differ in grey too."""
MARK = "#dc2626"
"""Colour of the frame around a marked cell."""
QUERIES = ("glasses", "hair = red AND mouth = laugh", "smile AND NOT glasses AND skin_tone = 0.7")
TOLERANCES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
STEPS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
OWN_NOISE = "sqrt(2h)"
POINT = 0.01
"""Settings that lose at most this much of the published accuracy count as equal to it."""
SMOKE = SampleCounts(n=8, prior=400, oracle=30)
Value = float | str


def heat(share: float) -> str:
    """Return the colour of a heat map for a share, which is clipped to the range from 0 to 1."""
    at = min(max(share, 0.0), 1.0) * (len(HEAT) - 1)
    low = min(int(at), len(HEAT) - 2)
    return blend(HEAT[low], HEAT[low + 1], at - low)


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A table of coloured cells with a number in each.

    Args:
        rows: texts at the left of the cells, from top to bottom.
        columns: texts below the cells, from left to right.
        values: a sequence for each row; a cell with `None` is empty.
        share: function from a value to its place on the scale of colours, from 0 to 1; see `heat`.
        text: function from a value to the text in its cell.
        marked: row and column of a cell with a frame; `None` for no such cell.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    share: Callable[[float], float]
    text: Callable[[float], str]
    marked: tuple[int, int] | None = None

    def draw(self, canvas: Canvas, corner: Place, cell: tuple[float, float], below: str, above: str = "") -> None:
        """Draw the table on a canvas.

        Args:
            canvas: the canvas.
            corner: upper left corner of the table.
            cell: width and height of each cell.
            below: text below the table, the name of its columns.
            above: text above the table, the name of its rows.
        """
        (left, top), (width, height) = corner, cell
        axes = Axes(
            canvas, corner, (width * len(self.columns), height * len(self.rows)),
            (0, len(self.columns)), (len(self.rows), 0),
        )  # fmt: skip
        axes.captions(below, above)
        axes.ticks(
            {i + 0.5: text for i, text in enumerate(self.columns)},
            {i + 0.5: text for i, text in enumerate(self.rows)},
            grid=False,
        )
        for i, line in enumerate(self.values):
            for j, value in enumerate(line):
                x, y = left + j * width, top + i * height
                if value is None:
                    canvas.rectangle((x, y), (x + width - 1, y + height - 1), GRID)
                    continue
                share = self.share(value)
                canvas.rectangle((x, y), (x + width - 1, y + height - 1), heat(share))
                canvas.text((x + width / 2, y + height / 2), self.text(value), PAPER if share < 0.5 else INK, 11, "mm")
        if self.marked is not None:
            x, y = left + self.marked[1] * width, top + self.marked[0] * height
            box = [(x, y), (x + width - 1, y), (x + width - 1, y + height - 1), (x, y + height - 1), (x, y)]
            canvas.line(box, MARK, 3)


@dataclass(frozen=True)
class Grid:
    """Two settings of a sampler, each with its values; `published` are those of Nie et al. 2021.

    `sampler` makes the sampler of a row and a column.
    """

    name: str
    title: str
    row: str
    rows: Sequence[Any]
    column: str
    columns: Sequence[Any]
    published: tuple[Any, Any]
    sampler: Callable[[Any, Any], Sampler]

    def corners(self) -> Grid:
        """Return the grid of the published values and the last ones."""
        row, column = self.published
        return replace(self, rows=(row, self.rows[-1]), columns=(column, self.columns[-1]))

    def cells(self) -> Iterator[tuple[int, int, Method]]:
        """Yield each row, column and method, whose name is unique; two grids may hold the same sampler."""
        for i, row in enumerate(self.rows):
            for j, column in enumerate(self.columns):
                name = f"{self.name} {label(row)} {label(column)}"
                yield i, j, Method(name, "lace", self.sampler(row, column))

    @property
    def marked(self) -> tuple[int, int]:
        """Row and column of the published setting."""
        return self.rows.index(self.published[0]), self.columns.index(self.published[1])

    def near(self, i: int, j: int) -> bool:
        """Whether both settings are within a factor of ten of the published ones; all methods of the flow are."""
        return all(map(_near, (self.rows[i], self.columns[j]), self.published))


def _near(value: Value, published: Value) -> bool:
    if isinstance(published, str):
        return True
    return not isinstance(value, str) and 0.099 < value / published < 10.1


def label(value: Value) -> str:
    """Return a setting as text."""
    return value if isinstance(value, str) else f"{value:g}"


def _flow(method: str, tolerance: float, *, overshoot: bool = True, **settings: Any) -> Sampler:
    return ODESolver(method, rtol=tolerance, atol=tolerance, overshoot=overshoot, **settings)


def grids() -> tuple[Grid, ...]:
    """Return the grids; each holds the published setting."""
    methods, published, noises = adaptive_methods(), ("dopri5", 1e-3), (0.0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, OWN_NOISE)
    return (
        Grid("flow", "ODE as published (odeint)", "method", methods, "rtol = atol", TOLERANCES, published, _flow),
        Grid(
            "flow-to-t1", "ODE, last step cut at t = 0.001", "method", methods, "rtol = atol", TOLERANCES, published,
            partial(_flow, overshoot=False),
        ),
        Grid(
            "rates", "ODE as published", "beta(0)", (0.01, 0.1, 1.0), "beta(1)",
            (2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 200.0), (0.1, 20.0),
            lambda low, high: _flow(*published, schedule=VPSchedule(low, high)),
        ),
        Grid(
            "langevin", "Langevin, noise 0.01", "steps", (10, 30, 100, 300, 1000), "step size h", STEPS, (100, 1e-2),
            lambda steps, step: LangevinSampler(step=step, steps=steps, noise=1e-2),
        ),
        Grid(
            "langevin-noise", "Langevin, 100 steps", "noise", noises, "step size h", STEPS, (1e-2, 1e-2),
            lambda noise, step: LangevinSampler(step=step, steps=100, noise=None if noise == OWN_NOISE else noise),
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """A number of each cell: how it is read from an outcome, placed on the scale of colours, and written."""

    name: str
    title: str
    read: Callable[[dict[str, Any]], float | None]
    share: Callable[[float], float]
    form: str
    factor: float = 1.0

    def text(self, value: float | None) -> str:
        """Return a value as it is written into a cell."""
        return "-" if value is None else format(self.factor * value, self.form)

    def mean(self, data: dict[str, Any], method: str) -> float | None:
        """Return the mean over the queries of what `compare` returned; `None` if one was not measured."""
        values = [self.read(record["samplers"][method]) for record in data["queries"]]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if len(known) == len(values) else None


def _accuracy(outcome: dict[str, Any]) -> float | None:
    parts = outcome["accuracy"]
    return sum(parts.values()) / len(parts) if parts else None


def _error(outcome: dict[str, Any], key: str = "largest") -> float | None:
    return outcome["frequency_error"][key] if outcome["frequency_error"] else None


MEASURES = (
    Measure("accuracy", "Conditional accuracy, %, higher is better", _accuracy, lambda x: 2 * x - 1, ".1f", 100),
    Measure("frequency-error", "Largest frequency error, lower is better", _error, lambda x: 1 - 2 * x, ".2f"),
    Measure(
        "cost", "Evaluations of the energy a sample (2 with gradient), lower is better", lambda one: one["work"],
        lambda x: 1 - (math.log10(max(x, 1)) - 1) / 2.4, ".0f",
    ),
)  # fmt: skip
FLOOR = Measure("frequency error of exact samples", "", partial(_error, key="floor"), float, ".2f")
NOTE = (
    "Means over the queries, from the same start latents in every cell. Accuracy: share of samples that meet a "
    "condition of the query by the judge, over all conditions. Frequency error: the largest difference of the "
    "frequency of any attribute from that among exact samples. Near: settings within a factor of ten of the published "
    "one, both ways, by all methods. Every cell has the energy of the paper (`lace`); the default sampler has its own."
)
HEADER = (
    "grid", "settings", "accuracy %, published", "lowest", "median", "highest", "lowest near", "near, within a point",
    "frequency error, published", "highest near", "evaluations, published", "least", "most",
)  # fmt: skip


def draw(measure: Measure, chosen: Sequence[Grid], found: Sequence[dict[str, Any]], told: str) -> Image.Image:
    """Draw one measure of all grids, two beside each other, with the published settings framed, and a line of text."""
    cell, left, top, gap = (58, 26), 100, 96, 84
    width = left + max(len(grid.columns) for grid in chosen) * cell[0]
    heights = [gap + cell[1] * max(len(one.rows) for one in chosen[k : k + 2]) for k in range(0, len(chosen), 2)]
    canvas = Canvas(max(2 * width + 24, 640), top + sum(heights))
    canvas.text((16, 14), measure.title, INK, 17)
    canvas.text((16, 40), f"Framed: the published setting. {told}", FAINT, 12)
    for k, grid in enumerate(chosen):
        rows, columns = ([label(value) for value in values] for values in (grid.rows, grid.columns))
        heat = HeatMap(rows, columns, found[k]["values"][measure.name], measure.share, measure.text, grid.marked)
        at = left + k % 2 * width, top + sum(heights[: k // 2])
        heat.draw(canvas, at, cell, grid.column, f"{grid.title}; rows: {grid.row}")
    return canvas.picture()


def summary_rows(chosen: Sequence[Grid], found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a line for each grid, in the order of `HEADER`."""
    accuracy, error, cost = MEASURES

    def told(measure: Measure, values: list[float | None], *folds: Callable[[Any], float]) -> list[str]:
        return [measure.text(None if None in values else fold(values)) for fold in folds]

    lines = []
    for grid, one in zip(chosen, found, strict=True):
        at = [(i, j) for i in range(len(grid.rows)) for j in range(len(grid.columns))]
        rates, errors, costs = ({cell: one["values"][m.name][cell[0]][cell[1]] for cell in at} for m in MEASURES)
        near, here = [cell for cell in at if grid.near(*cell)], grid.marked
        close = sum((rates[cell] or 0.0) >= (rates[here] or 0.0) - POINT for cell in near)
        lines.append([
            f"{grid.title}: {grid.row}, {grid.column}", str(len(at)), accuracy.text(rates[here]),
            *told(accuracy, [*rates.values()], min, median, max), *told(accuracy, [rates[cell] for cell in near], min),
            f"{close} of {len(near)}", error.text(errors[here]), *told(error, [errors[cell] for cell in near], max),
            cost.text(costs[here]), *told(cost, [*costs.values()], min, max),
        ])  # fmt: skip
    return lines


def main(
    queries: Annotated[
        list[str] | None, typer.Argument(help="Conjunctions or single conditions; three by default.")
    ] = None,
    model: JudgedModelOption = DEFAULT_MODEL,
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Samples for each query and cell.")] = 200,
    prior: Annotated[int, typer.Option(min=100, help="Pictures of the prior that all queries share.")] = PRIOR,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    device: DeviceOption = "auto",
    out: Annotated[Path, typer.Option(help="Folder of results, maps and the state.")] = Path("runs/robustness"),
    smoke: SmokeOption = False,
    choices: ChoicesOption = False,
) -> None:
    """Draw heat maps of accuracy, frequency error and cost over the settings. Interrupt at will: it resumes."""
    counts = SMOKE if smoke else SampleCounts(n=n, prior=prior, seed=seed)
    evaluated, find = judged_model(model, device, choices)
    chosen = [grid.corners() if smoke else grid for grid in grids()]
    (default,) = read_methods(DEFAULT_SAMPLER)
    methods: dict[str, Method] = {}
    for grid in chosen:
        for _, _, method in grid.cells():
            methods.setdefault(repr(method.sampler), method)
    with reporting(True) as report:
        bench, every = Bench(evaluated, counts, out / "cells", report), [default, *methods.values()]
        data = compare(bench, queries or QUERIES, every, title="Every setting", find=find)
    found = []
    for grid in chosen:
        values: dict[str, list[list[float | None]]] = {one.name: [[] for _ in grid.rows] for one in MEASURES}
        for i, _, method in grid.cells():
            for one in MEASURES:
                values[one.name][i].append(one.mean(data, methods[repr(method.sampler)].name))
        found.append({"name": grid.name, "rows": grid.rows, "columns": grid.columns, "values": values})
    reference = {one.name: one.mean(data, default.name) for one in (*MEASURES, FLOOR)}
    exact = f"Exact samples in the same number: {FLOOR.text(reference[FLOOR.name])}."
    for one in MEASURES:
        told = f"The default sampler of energyql, with its own energy: {one.text(reference[one.name])}."
        picture = draw(one, chosen, found, f"{told} {exact}" if one.name == "frequency-error" else told)
        write_picture(out / f"{one.name}.png", picture)
    named = [record["query"] for record in data["queries"]]
    results = {"settings": {**data["settings"], "queries": named}, "machine": data["machine"]}
    write_json(out / "results.json", {**results, "reference": reference, "grids": found})
    standing = ", ".join(f"{one.name} {one.text(reference[one.name])}" for one in (*MEASURES, FLOOR))
    rows = summary_rows(chosen, found)
    about = f"Queries: {', '.join(f'`{query}`' for query in named)}. `{default.name}`: {standing}."
    shown = [line for one in MEASURES for line in ("", f"## {one.title}", "", f"![{one.title}]({one.name}.png)")]
    write_text(out / "results.md", page("Robustness", f"{NOTE}\n\n{about}", HEADER, rows, results, *shown))
    table = terminal_table(HEADER[0], [(name, "", 1.0, 0) for name in HEADER[1:]], 36)
    for row in rows:
        table.add_row(*row)
    show(table, NOTE, about, f"Saved {out}: results.json, results.md and a heat map of each measure", width=150)


if __name__ == "__main__":
    run_command(main, resumes=True)
