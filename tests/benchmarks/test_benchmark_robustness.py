"""The benchmark of the samplers' settings: its grids, its numbers, and a run in miniature that resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commanding import command
from evaluation.lively import lively_model
from PIL import Image

from benchmarks import robustness
from benchmarks.robustness import HEADER, HEAT, MARK, MEASURES, OWN_NOISE, HeatMap, draw, grids, heat, summary_rows
from energyql.evaluation.settings import SampleCounts
from energyql.render.charts import GRID, Canvas
from energyql.sampling import make_sampler

ACCURACY, ERROR, COST = MEASURES
GRIDS = ["flow", "langevin-noise"]
"""Those of the run in miniature: one of each sampler, of which the quick one for Langevin dynamics."""


def test_every_grid_holds_the_published_setting() -> None:
    for grid in grids():
        published = "published-langevin" if grid.name.startswith("langevin") else "published-ode"
        i, j = grid.marked
        (found,) = [method for a, b, method in grid.cells() if (a, b) == (i, j)]
        if grid.name == "flow-to-t1":
            assert not found.sampler.overshoot  # type: ignore[attr-defined]
        else:
            assert found.sampler == make_sampler(published)
        assert found.semantics == "lace"
        assert grid.near(i, j)
        assert next(method.sampler for *_, method in grid.corners().cells()) == found.sampler


def test_names_and_samplers_of_a_grid_are_all_different() -> None:
    methods = [method for grid in grids() for *_, method in grid.cells()]
    assert len({method.name for method in methods}) == len(methods)
    for grid in grids():
        samplers = [repr(method.sampler) for *_, method in grid.cells()]
        assert len(set(samplers)) == len(samplers)


def test_near_is_a_factor_of_ten_both_ways() -> None:
    flow, _, rates, steps, noise = grids()
    assert [c for j, c in enumerate(flow.columns) if flow.near(0, j)] == [1e-4, 1e-3, 1e-2]
    assert all(flow.near(i, flow.marked[1]) for i in range(len(flow.rows)))
    assert [r for i, r in enumerate(rates.rows) if rates.near(i, 3)] == [0.01, 0.1, 1.0]
    assert [r for i, r in enumerate(steps.rows) if steps.near(i, 2)] == [10, 30, 100, 300, 1000]
    assert [c for j, c in enumerate(steps.columns) if steps.near(2, j)] == [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    assert [r for i, r in enumerate(noise.rows) if noise.near(i, 2)] == [1e-3, 1e-2, 3e-2, 1e-1]
    assert not noise.near(noise.rows.index(OWN_NOISE), 2)


def test_a_mean_is_over_conditions_and_queries() -> None:
    def outcome(*accuracy: float, error: float | None = 0.1) -> dict[str, Any]:
        parts = {str(k): value for k, value in enumerate(accuracy)}
        return {"accuracy": parts, "frequency_error": error and {"largest": error}, "work": 10}

    data = {"queries": [{"samplers": {"a": outcome(1.0)}}, {"samplers": {"a": outcome(0.5, 0.7, error=0.3)}}]}
    assert ACCURACY.mean(data, "a") == pytest.approx(0.8)
    assert ERROR.mean(data, "a") == pytest.approx(0.2)
    data["queries"].append({"samplers": {"a": outcome(1.0, error=None)}})
    assert ERROR.mean(data, "a") is None
    assert [one.text(0.5) for one in MEASURES] == ["50.0", "0.50", "0"]
    assert COST.text(None) == "-"


def test_rows_and_pictures_are_of_their_grids() -> None:
    chosen = [grid.corners() for grid in grids()]
    values = {
        "accuracy": [[0.9, 0.8], [0.7, 0.6]],
        "frequency-error": [[0.1, 0.2], [None, 0.4]],
        "cost": [[8, 9], [9, 7]],
    }
    found = [{"values": values} for _ in chosen]
    lines = summary_rows(chosen, found)
    assert [len(line) for line in lines] == [len(HEADER)] * len(chosen)
    assert lines[0][1:] == ["4", "90.0", "60.0", "75.0", "90.0", "70.0", "1 of 2", "0.10", "-", "8", "7", "9"]
    assert lines[2][6] == "60.0"
    assert draw(ACCURACY, chosen, found, "99").size[0] > 400


@pytest.mark.slow
@pytest.mark.parametrize("names", [GRIDS, [grid.name for grid in grids()]], ids=["few", "all"])
def test_command_line_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    folder, out = lively_model(tmp_path / "model"), tmp_path / "out"
    chosen = [grid for grid in grids() if grid.name in names]
    monkeypatch.setattr(robustness, "grids", lambda: chosen)
    monkeypatch.setattr(robustness, "SMOKE", SampleCounts(n=2, prior=200, oracle=30))
    arguments = ["smile AND NOT beard", "--model", str(folder), "--smoke", "--out", str(out)]
    results = []
    for _ in range(2):
        done = command(robustness, *arguments)
        assert done.returncode == 0, done.stderr
        results.append(json.loads((out / "results.json").read_text(encoding="utf-8")))
    assert results[0] == results[1]
    assert [grid["name"] for grid in results[0]["grids"]] == names
    assert all(len(line) == 2 for grid in results[0]["grids"] for line in grid["values"]["accuracy"])
    assert "ODE as published" in done.stdout
    page = (out / "results.md").read_text(encoding="utf-8")
    for one in MEASURES:
        assert f"]({one.name}.png)" in page
        with Image.open(out / f"{one.name}.png") as picture:
            assert picture.size[0] > 400


def test_heat_is_ever_lighter_and_stays_on_its_scale() -> None:
    assert [heat(share) for share in (-1, 0, 0.25, 0.5, 0.75, 1, 9)] == [HEAT[0], *HEAT, HEAT[-1]]
    light = [sum(int(heat(k / 20)[i : i + 2], 16) * part for i, part in ((1, 3), (3, 6), (5, 1))) for k in range(21)]
    assert light == sorted(light)
    assert len(set(light)) == 21


def test_cells_lie_in_their_rows_and_columns_and_the_marked_one_has_a_frame() -> None:
    canvas = Canvas(100, 80)
    heat_map = HeatMap(
        ["a", "b"], ["1", "2", "3"], [[0.0, 1.0, None], [1.0, 0.0, 1.0]], float, lambda value: "", (1, 0)
    )
    heat_map.draw(canvas, (20, 10), (20, 20), "below")
    picture = canvas.picture()

    def at(i: int, j: int) -> str:
        return "#" + "".join(f"{part:02x}" for part in picture.getpixel((20 * j + 30, 20 * i + 20)))

    assert [[at(i, j) for j in range(3)] for i in range(2)] == [
        [HEAT[0], HEAT[-1], GRID],
        [HEAT[-1], HEAT[0], HEAT[-1]],
    ]
    red = np.abs(np.asarray(picture, int) - [int(MARK[i : i + 2], 16) for i in (1, 3, 5)]).max(2) < 40
    rows, columns = np.nonzero(red)
    box = [rows.min(), rows.max(), columns.min(), columns.max()]
    assert np.abs(np.subtract(box, [30, 49, 20, 39])).max() <= 1
