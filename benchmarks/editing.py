"""Edits in sequence, their success and their side effects: `python -m benchmarks.editing --help`."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from benchmarks.common import DeviceOption, JudgedModelOption, SmokeOption, page, run_command, show, split_names
from energyql import __version__
from energyql.editing.edit import edit
from energyql.editing.settings import PRESETS
from energyql.errors import ModelError
from energyql.evaluation.measure import machine
from energyql.files import fingerprint, read_json, write_json, write_text
from energyql.language import bind, parse
from energyql.logic.satisfiability import satisfied
from energyql.models import DEFAULT_MODEL, model_folder
from energyql.pipeline.model import Model, choose_device, load_model
from energyql.render.markup import markdown_table

SEQUENCES = {
    "one": ["smile", "glasses AND NOT hat", "hair = red", "beard", "background > 0.6"],
    "two": ["frown", "sunglasses", "long_hair", "skin_tone < 0.4", "hat"],
    "three": ["NOT glasses", "bald", "moustache AND NOT beard", "eyes = happy OR brows = raised", "background = 0.3"],
    "four": [
        "AT LEAST 2 OF (beard, moustache, glasses)",
        "hair IN {black, brown}",
        "NOT smile",
        "0.4 < skin_tone < 0.6",
        "brows = angry",
    ],
}
"""Five edits each, of all kinds of attribute; chosen before any was measured."""
COLUMNS = ("asked %", "all asked %", "leaked %", "worst attribute", "moved", "evaluations", "seconds")
SUMMARY_COLUMNS = (
    "preset", "asked %, mean / least", "all asked %, mean / least", "leaked %, mean / most", "moved", "evaluations",
)  # fmt: skip
NOTE = (
    "Asked: pictures that satisfy the step's query by the image judge, which never guides an edit; all asked: "
    "together with the earlier queries that it does not make impossible. Leaked: of all pairs of a picture and an "
    "attribute that the step does not name, the fraction that changed in this step, continuous attributes by more than "
    "their tolerance; attributes whose old value the query makes impossible are left out (frown: another mouth). "
    "Moved: distance in z from the start of the step. Seconds: of all pictures together, without drawing them. "
    "All presets start from the same latents, and run on the same model; `lace` is the paper's energy and settings in "
    "this library's solver, at the model's own truncation (published: 0.5)."
)
SMOKE_N = 4


def measure(model: Model, queries: list[str], preset: str, mode: str, n: int, seed: int) -> list[dict[str, Any]]:
    """Edit one sequence and return a record for each step."""
    began = time.perf_counter()
    edited = edit(seed, queries, n=n, model=model, mode=mode, preset=preset, progress=False)
    records, before, scaled = [], edited.start, edited.space.scaled
    for query, after, leaks in zip(queries, edited.steps, edited.leaks, strict=True):
        alone = satisfied(bind(parse(query), model.vocabulary), after.judged, model.vocabulary)
        worst = next(iter(leaks.by_attribute.items()), ("", 0.0))
        records.append(
            {
                "query": query,
                "asked": float(alone.mean()),
                "all_asked": float(after.satisfied.mean()),
                "leaked": leaks.rate,
                "by_attribute": leaks.by_attribute,
                "worst_attribute": list(worst),
                "implied": sorted(leaks.implied),
                "superseded": list(leaks.superseded),
                "moved": float((scaled(after.z) - scaled(before.z)).norm(dim=1).mean()),
                "evaluations": after.statistics["evaluations_mean"],
                "seconds": after.statistics["seconds_sampling"],
                "failures": int(sum(status != 0 for status in after.status)),
            }
        )
        before = after
    records[0]["total_seconds"] = time.perf_counter() - began
    return records


def summarize(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, dict[str, float]]:
    """Return preset -> means and worst cases over all steps of all sequences."""
    found = {}
    for preset, sequences in runs.items():
        steps = [record for records in sequences.values() for record in records]
        found[preset] = {
            "asked": float(np.mean([step["asked"] for step in steps])),
            "least_asked": min(step["asked"] for step in steps),
            "all_asked": float(np.mean([step["all_asked"] for step in steps])),
            "least_all_asked": min(step["all_asked"] for step in steps),
            "leaked": float(np.mean([step["leaked"] for step in steps])),
            "most_leaked": max(step["leaked"] for step in steps),
            "moved": float(np.mean([step["moved"] for step in steps])),
            "evaluations": float(np.mean([step["evaluations"] for step in steps])),
            "steps": len(steps),
        }
    return found


def summary_rows(data: dict[str, Any]) -> list[list[str]]:
    """Return the lines of the table over all sequences, a preset each."""
    lines = []
    for preset, total in data["summary"].items():
        pairs = [
            f"{100 * total[mean]:.{digits}f} / {100 * total[worst]:.{digits}f}"
            for mean, worst, digits in (
                ("asked", "least_asked", 1), ("all_asked", "least_all_asked", 1), ("leaked", "most_leaked", 2)
            )
        ]  # fmt: skip
        lines.append([preset, *pairs, f"{total['moved']:.2f}", f"{total['evaluations']:.0f}"])
    return lines


def step_row(step: dict[str, Any]) -> list[str]:
    """Return the line of the table for one step."""
    name, share = step["worst_attribute"]
    return [
        f"`{step['query']}`",
        f"{100 * step['asked']:.1f}",
        f"{100 * step['all_asked']:.1f}",
        f"{100 * step['leaked']:.2f}",
        f"{name} {100 * share:.1f}" if name else "",
        f"{step['moved']:.2f}",
        f"{step['evaluations']:.0f}",
        f"{step['seconds']:.1f}",
    ]


def markdown(data: dict[str, Any]) -> str:
    """Return the results as a page."""
    lines: list[str] = []
    for preset, sequences in data["runs"].items():
        steps = [step_row(record) for records in sequences.values() for record in records]
        lines += ["", f"## {preset}", "", *markdown_table(["query", *COLUMNS], steps)]
    return page("Five edits in sequence", NOTE, SUMMARY_COLUMNS, summary_rows(data), data, *lines)


def run(
    model: str, *, presets: list[str], sequences: list[str], mode: str, n: int, seed: int, device: str, out: Path
) -> dict[str, Any]:
    """Measure every preset on every sequence, and write `results.json` and `results.md` after each.

    Sequences that an earlier run with the same settings and model finished are taken from `results.json`.
    """
    folder = model_folder(model)
    loaded = load_model(folder, choose_device(device))
    if loaded.judge is None:
        raise ModelError(f"model {loaded.name!r} has no judge, and heads cannot judge themselves")
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
    digest = hashlib.sha256("".join(f"{path.name} {fingerprint(path)}\n" for path in files).encode()).hexdigest()
    settings: dict[str, Any] = {
        "model": loaded.name,
        "model_files": digest,
        "n": n,
        "seed": seed,
        "mode": mode,
        "presets": {name: repr(PRESETS[name]) for name in presets},
        "sequences": {name: SEQUENCES[name] for name in sequences},
        "energyql": __version__,
    }
    path = out / "results.json"
    earlier = read_json(path) if path.is_file() else {}
    kept = earlier.get("runs", {}) if _comparable(earlier.get("settings", {}), settings) else {}
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    data = {"settings": settings, "machine": machine(), "runs": runs, "summary": {}}
    for preset in presets:
        unchanged = earlier.get("settings", {}).get("presets", {}).get(preset) == settings["presets"][preset]
        known = kept.get(preset, {}) if unchanged else {}
        for name in sequences:
            records = known.get(name) or measure(loaded, SEQUENCES[name], preset, mode, n, seed)
            runs.setdefault(preset, {})[name] = records
            data["summary"] = summarize(runs)
            later = {
                p: {s: r for s, r in found.items() if s not in runs.get(p, {})} | runs.get(p, {})
                for p, found in (kept | runs).items()
            }
            write_json(path, data | {"runs": later})
            typer.echo(f"{preset}, {name}: done", err=True)
    write_json(path, data)
    write_text(out / "results.md", markdown(data))
    return data


def _comparable(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return all(old.get(key) == new[key] for key in ("model_files", "n", "seed", "mode", "energyql"))


def main(
    model: JudgedModelOption = DEFAULT_MODEL,
    presets: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(PRESETS),
    sequences: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(SEQUENCES),
    mode: Annotated[str, typer.Option(help="cumulative or alone.")] = "cumulative",
    n: Annotated[int, typer.Option("-n", min=1, help="Starts of each sequence.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the starts.")] = 2026,
    device: DeviceOption = "auto",
    out: Annotated[Path, typer.Option(help="Folder of results.json and results.md.")] = Path("runs/editing"),
    smoke: SmokeOption = False,
) -> None:
    """Edit in sequence and count successes and leaks. After an interruption the same command continues."""
    chosen = {
        "presets": split_names("presets", presets, PRESETS),
        "sequences": split_names("sequences", sequences, SEQUENCES),
    }
    data = run(model, **chosen, mode=mode, n=SMOKE_N if smoke else n, seed=seed, device=device, out=out)
    table = Table(*SUMMARY_COLUMNS, box=None)
    for line in summary_rows(data):
        table.add_row(*line)
    show(table, f"Saved {out / 'results.json'} and results.md")


if __name__ == "__main__":
    run_command(main, resumes=True)
