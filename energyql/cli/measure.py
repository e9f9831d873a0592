"""The commands that measure: `energyql bench` and `energyql evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.interruption import resumable
from energyql.cli.options import Terminal, out, out_option, read_names
from energyql.errors import ArgumentError
from energyql.pipeline.settings import DEFAULT_SAMPLER

if TYPE_CHECKING:
    from rich.table import Table

CountOption = Annotated[int, typer.Option("-n", min=2)]
PriorOption = Annotated[int, typer.Option(min=100)]
OracleOption = Annotated[int, typer.Option(min=30)]


@options.with_options("truncation", "condition", "seed")
def bench(
    queries: Annotated[list[str], typer.Argument(metavar="QUERIES")],
    save_to: Annotated[Path, out_option()] = Path("bench"),
    n: CountOption = 500,
    prior: PriorOption = 20_000,
    oracle: OracleOption = 1_000,
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
        n: Samples for each query and sampler.
        model: A packaged model, or a model folder, with a judge.
        samplers: Names, separated by commas; also semantics:sampler, sampler@strength, paper.
    """
    from energyql.evaluation.compare import compare_samplers
    from energyql.evaluation.report import NOTE, TABLE_WIDTH, query_table, summary_table

    with resumable():
        data = compare_samplers(
            queries, samplers, folder=save_to, model=source.open(device), n=n, prior=prior, oracle=oracle,
            device=device, progress=not quiet, **settings,
        )  # fmt: skip
    if quiet:
        return
    _print_tables([query_table(data), *([summary_table(data)] if len(data["queries"]) > 1 else [])], TABLE_WIDTH)
    out.print(NOTE)
    out.print(f"Saved {escape(str(save_to))}: results.json, results.md, satisfied.png, frequency-error.png")


@options.with_options("truncation", "condition", "seed")
def evaluate(
    save_to: Annotated[Path, out_option()] = Path("evaluation"),
    n: CountOption = 200,
    edits: Annotated[int, typer.Option(min=1)] = 64,
    prior: PriorOption = 20_000,
    oracle: OracleOption = 500,
    features: str = "judge",
    inception_weights: Path | None = None,
    protocols: str = "all",
    setup: str | None = None,
    presets: str = "default,lace",
    *,
    source: options.Source,
    samplers: str | None = None,
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
        n: Samples for each query and sampler.
        edits: Pictures that are edited.
        features: Features of pictures for distances: judge or inception.
        inception_weights: Weights of Inception on disk; by default in torch-fidelity's own folder.
        protocols: Names such as conditional-1,sequential-5, or all; an unknown name lists all names.
        setup: A published experiment for your own model, such as ffhq; an unknown name lists all names.
        presets: Presets of edits to compare.
        model: A packaged model, or a model folder, with a judge.
        samplers: Samplers to compare; by default slice+descent,paper, or those of --setup.
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
            None if protocols == "all" else read_names(protocols), setup=setup, folder=save_to,
            model=source.open(device), samplers=samplers, presets=read_names(presets), n=n, edits=edits, prior=prior,
            oracle=oracle, features=inception_features(inception_weights) if features == "inception" else None,
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
