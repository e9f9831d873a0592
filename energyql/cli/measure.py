"""The commands that measure: `energyql bench` and `energyql evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.interruption import resumable
from energyql.cli.options import WRITTEN, Terminal, Written, out, out_option, read_names
from energyql.errors import ArgumentError
from energyql.evaluation.settings import CompareOptions, CompareSettings, EvaluateSettings
from energyql.pipeline.settings import DEFAULT_SAMPLER, setting_types

if TYPE_CHECKING:
    from rich.table import Table

_WRITTEN = {
    **WRITTEN,
    "n": Written(Annotated[int, typer.Option("-n", min=2)]),
    "prior": Written(Annotated[int, typer.Option(min=100)]),
    "oracle": Written(Annotated[int, typer.Option(min=30)]),
    "edits": Written(Annotated[int, typer.Option(min=1)]),
    "setup": Written(str | None),
    "presets": Written(str, read_names, ",".join(EvaluateSettings.presets)),
    "samplers": Written(str | None),
}


@options.with_options(*CompareOptions.__annotations__, record=CompareSettings, written=_WRITTEN)
def bench(
    queries: Annotated[list[str], typer.Argument(metavar="QUERIES")],
    save_to: Annotated[Path, out_option()] = Path("bench"),
    *,
    source: options.Source,
    samplers: str = f"{DEFAULT_SAMPLER},slice,ode,paper",
    device: str = "auto",
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Compare samplers on a model: satisfaction, distance to exact samples, diversity, cost.

    Exact samples are those of the prior that satisfy the query by the judge. After an interruption the
    same command continues. Writes results.json, results.md and two plots.

    Args:
        queries: Queries, or files with one query per line (# is a comment).
        save_to: Folder for results, plots and the state of the run.
        model: A packaged model, or a model folder, with a judge.
        samplers: Names, separated by commas; also semantics:sampler, sampler@strength, paper.
    """
    from energyql.evaluation.compare import compare_samplers
    from energyql.evaluation.report import NOTE, TABLE_WIDTH, query_table, summary_table

    with resumable():
        model = source.open(device)
        data = compare_samplers(
            queries, samplers, out=save_to, model=model, device=device, progress=not quiet, **settings
        )  # fmt: skip
    if quiet:
        return
    _print_tables([query_table(data), *([summary_table(data)] if len(data["queries"]) > 1 else [])], TABLE_WIDTH)
    out.print(NOTE)
    out.print(f"Saved {escape(str(save_to))}: results.json, results.md, satisfied.png, frequency-error.png")


_OF_EVALUATIONS = [name for name in setting_types(EvaluateSettings) if name != "features"]


@options.with_options(*_OF_EVALUATIONS, record=EvaluateSettings, written=_WRITTEN)
def evaluate(
    save_to: Annotated[Path, out_option()] = Path("evaluation"),
    features: str = "judge",
    inception_weights: Path | None = None,
    protocols: str = "all",
    *,
    source: options.Source,
    device: str = "auto",
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Run published experiments on a model, with our settings and the paper's side by side.

    Conditional sampling, sequential editing, zero-shot combinations, logical compositions; accuracy by an independent
    judge, Fréchet distance, distance to exact samples, diversity, identity, disentangled edit strength. After an
    interruption the same command continues. Writes evaluation.json and evaluation.md with pictures.

    Args:
        save_to: Folder for reports, pictures and the state of the run.
        features: Features of pictures for distances: judge or inception.
        inception_weights: Weights of Inception on disk; by default in torch-fidelity's own folder.
        protocols: Names such as conditional-1,sequential-5, or all; an unknown name lists all names.
        model: A packaged model, or a model folder, with a judge.
    """
    from energyql.evaluation.evaluate import evaluate as run
    from energyql.evaluation.metrics import inception_features
    from energyql.evaluation.report import TABLE_WIDTH, evaluation_notes, evaluation_tables

    if features not in ("judge", "inception"):
        raise ArgumentError(f"there are no features {features!r}", hint="choose judge or inception")
    if inception_weights is not None and features != "inception":
        hint = "add it, or leave out --inception-weights"
        raise ArgumentError("--inception-weights needs --features inception", hint=hint)
    with resumable():
        data = run(
            None if protocols == "all" else read_names(protocols), out=save_to, model=source.open(device),
            features=inception_features(inception_weights) if features == "inception" else None,
            device=device, progress=not quiet, **settings,
        )  # fmt: skip
    if quiet:
        return
    _print_tables(evaluation_tables(data), TABLE_WIDTH)
    for name, protocol in data["setups"].items():
        if "missing" in protocol:
            out.print(f"[yellow]note[/]: {name} was not run: {escape(protocol['missing'])}")
    for text in evaluation_notes(data):
        out.print(text)
    out.print(f"Saved {escape(str(save_to))}: evaluation.json, evaluation.md")


def _print_tables(tables: list[Table], width: int) -> None:
    """Print tables at least `width` characters wide, and wider where a number would be cut."""
    wide = Terminal(highlight=False, emoji=False)
    wide.width = max(wide.width, width)
    for table in tables:
        needed = wide.measure(table, options=wide.options.update(max_width=1000)).minimum
        wide.width = max(wide.width, needed)
        wide.print(table)
