"""Editing in sequence: what was asked, and what changed besides: `python -m benchmarks.editing --help`."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from energyql.editing.edit import edit
from energyql.editing.settings import PRESETS
from energyql.errors import ArgumentError, EnergyQLError, ModelError
from energyql.evaluation.measure import machine
from energyql.files import fingerprint, read_json, write_json, write_text
from energyql.language import bind, parse
from energyql.logic.truth import satisfied
from energyql.models import model_folder
from energyql.pipeline.model import Model, choose_device, load_model
from energyql.version import __version__

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
"""Five edits each, of all kinds of attribute; written down before any was measured."""
COLUMNS = ("asked %", "all asked %", "leaked %", "worst attribute", "moved", "evaluations", "seconds")
NOTE = (
    "Asked: pictures that satisfy the step's query by the word of the image judge, which never guides; all asked: "
    "together with the earlier queries that it does not make impossible. Leaked: of all pairs of a picture and an "
    "attribute that the step does not name, the fraction that changed in this step, continuous attributes by more than "
    "their tolerance; attributes whose old value the query makes impossible are left out (frown: another mouth). "
    "Moved: distance in z from the start of the step. Seconds: of all pictures together, without drawing them. "
    "All presets start from the same latents, and run on the same model; `lace` is the paper's energy and settings in "
    "this library's solver, at the model's own truncation (published: 0.5)."
)
SMOKE_N = 4
err = Console(stderr=True, highlight=False, soft_wrap=True)


def measure(model: Model, queries: list[str], preset: str, mode: str, n: int, seed: int) -> list[dict[str, Any]]:
    """A record for each step of one sequence."""
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
    """Preset -> means and worst cases over all steps of all sequences."""
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


def _cells(step: dict[str, Any]) -> list[str]:
    name, share = step["worst_attribute"]
    return [
        f"{100 * step['asked']:.1f}",
        f"{100 * step['all_asked']:.1f}",
        f"{100 * step['leaked']:.2f}",
        f"{name} {100 * share:.1f}" if name else "",
        f"{step['moved']:.2f}",
        f"{step['evaluations']:.0f}",
        f"{step['seconds']:.1f}",
    ]


def markdown(data: dict[str, Any]) -> str:
    """The whole of `results.json` as a page."""
    lines = ["# Five edits in sequence", "", NOTE, ""]
    lines += [
        "| preset | asked %, mean / least | all asked %, mean / least | leaked %, mean / most | moved | evaluations |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for preset, total in data["summary"].items():
        pairs = [
            f"{100 * total[a]:.1f} / {100 * total[b]:.1f}"
            for a, b in (("asked", "least_asked"), ("all_asked", "least_all_asked"))
        ]
        leaks = f"{100 * total['leaked']:.2f} / {100 * total['most_leaked']:.2f}"
        lines.append(
            f"| {preset} | {pairs[0]} | {pairs[1]} | {leaks} | {total['moved']:.2f} | {total['evaluations']:.0f} |"
        )
    for preset, sequences in data["runs"].items():
        lines += ["", f"## {preset}", "", f"| query | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
        for records in sequences.values():
            lines += [f"| `{record['query']}` | {' | '.join(_cells(record))} |" for record in records]
    for title, facts in (("Settings", data["settings"]), ("Machine", data["machine"])):
        lines += ["", f"## {title}", "", *(f"- {key}: `{value}`" for key, value in facts.items())]
    return "\n".join(lines) + "\n"


def run(
    model: str, *, presets: list[str], sequences: list[str], mode: str, n: int, seed: int, device: str, out: Path
) -> dict[str, Any]:
    """Measure every preset on every sequence, and write `results.json` and `results.md` after each.

    What an earlier run with the same settings and model finished is taken from `results.json`.
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
        known = (
            kept.get(preset, {})
            if earlier.get("settings", {}).get("presets", {}).get(preset) == settings["presets"][preset]
            else {}
        )
        for name in sequences:
            records = known.get(name) or measure(loaded, SEQUENCES[name], preset, mode, n, seed)
            runs.setdefault(preset, {})[name] = records
            data["summary"] = summarize(runs)
            later = {
                p: {s: r for s, r in found.items() if s not in runs.get(p, {})} | runs.get(p, {})
                for p, found in (kept | runs).items()
            }
            write_json(path, data | {"runs": later})
            err.print(f"{preset}, {name}: done")
    write_json(path, data)
    write_text(out / "results.md", markdown(data))
    return data


def _comparable(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return all(old.get(key) == new[key] for key in ("model_files", "n", "seed", "mode", "energyql"))


def main(
    model: Annotated[str, typer.Option(help="A packaged model, or a model folder with a judge.")] = "avatars",
    presets: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(PRESETS),
    sequences: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(SEQUENCES),
    mode: Annotated[str, typer.Option(help="cumulative or alone.")] = "cumulative",
    n: Annotated[int, typer.Option("-n", min=1, help="Starts of each sequence.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the starts.")] = 2026,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder of results.json and results.md.")] = Path("runs/editing"),
    smoke: Annotated[bool, typer.Option("--smoke", help="Few starts: only that it runs.")] = False,
) -> None:
    """Edit in sequence and count. Interrupt at will: the same command goes on."""
    chosen = {}
    for what, text, known in (("presets", presets, PRESETS), ("sequences", sequences, SEQUENCES)):
        chosen[what] = [name.strip() for name in text.split(",") if name.strip()]
        if not chosen[what] or any(name not in known for name in chosen[what]):
            raise ArgumentError(f"{what} {text!r} are unknown", hint=f"choose from {', '.join(known)}")
    data = run(model, **chosen, mode=mode, n=SMOKE_N if smoke else n, seed=seed, device=device, out=out)
    table = Table("preset", "asked %", "all asked %", "leaked %", "moved", "evaluations", box=None)
    for preset, total in data["summary"].items():
        shares = [f"{100 * total[key]:.1f}" for key in ("asked", "all_asked")]
        table.add_row(
            preset, *shares, f"{100 * total['leaked']:.2f}", f"{total['moved']:.2f}", f"{total['evaluations']:.0f}"
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Saved {out / 'results.json'} and results.md")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on from here")
        sys.exit(130)
    except EnergyQLError as error:
        err.print(f"{type(error).__name__}: {error}", markup=False)
        sys.exit(2 if isinstance(error, ArgumentError) else 1)
