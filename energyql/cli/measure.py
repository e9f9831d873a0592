"""The commands that measure: `energyql bench` and `energyql evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import Terminal, out, out_option, read_label, read_names, resumable
from energyql.errors import ArgumentError
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DEFAULT_SAMPLER

if TYPE_CHECKING:
    from rich.table import Table


JudgedModelOption = Annotated[
    str, typer.Option("--model", "-m", help="A packaged model, or a model folder, with a judge.")
]
CountOption = Annotated[int, typer.Option("-n", min=2, help="Samples for each query and sampler.")]
PriorOption = Annotated[int, typer.Option(min=100, help="Random pictures (of the prior), judged once for all queries.")]
OracleOption = Annotated[int, typer.Option(min=30, help="Exact samples to compare with, for each query.")]


def bench(
    queries: Annotated[
        list[str], typer.Argument(metavar="QUERIES", help="Queries, or files with one query per line (# is a comment).")
    ],
    save_to: Annotated[Path, out_option("Folder for results, plots and the state of the run.")] = Path("bench"),
    n: CountOption = 500,
    prior: PriorOption = 20_000,
    oracle: OracleOption = 1_000,
    model: JudgedModelOption = DEFAULT_MODEL,
    generator: options.Generator = None,
    judge: options.Judge = None,
    allow_plugins: options.AllowPlugins = False,
    samplers: Annotated[
        str, typer.Option(help="Names, separated by commas; also semantics:sampler, sampler@strength, paper.")
    ] = f"{DEFAULT_SAMPLER},slice,ode,paper",
    truncation: options.Truncation = None,
    label: options.Label = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Compare samplers on a model: satisfaction, distance to exact samples, diversity, cost.

    Exact samples are those of the prior that satisfy the query by the judge. After an interruption the
    same command continues. Writes results.json, results.md and two plots.
    """
    from energyql.evaluation.compare import compare_samplers
    from energyql.evaluation.report import NOTE, TABLE_WIDTH, query_table, summary_table

    with resumable():
        opened = options.open_model(model, generator, judge, allow_plugins, device)
        data = compare_samplers(
            queries, samplers, folder=save_to, model=opened, n=n, prior=prior, oracle=oracle, truncation=truncation,
            label=read_label(label), seed=seed, device=device, progress=not quiet,
        )  # fmt: skip
    if quiet:
        return
    _print_tables([query_table(data), *([summary_table(data)] if len(data["queries"]) > 1 else [])], TABLE_WIDTH)
    out.print(NOTE)
    out.print(f"Saved {escape(str(save_to))}: results.json, results.md, satisfied.png, frequency-error.png")


def evaluate(
    save_to: Annotated[Path, out_option("Folder for reports, pictures and the state of the run.")] = Path("evaluation"),
    n: CountOption = 200,
    edits: Annotated[int, typer.Option(min=1, help="Pictures that are edited.")] = 64,
    prior: PriorOption = 20_000,
    oracle: OracleOption = 500,
    features: Annotated[str, typer.Option(help="Features of pictures for distances: judge or inception.")] = "judge",
    inception_weights: Annotated[
        Path | None, typer.Option(help="Weights of Inception on disk; by default in torch-fidelity's own folder.")
    ] = None,
    protocols: Annotated[
        str, typer.Option(help="Names such as conditional-1,sequential-5, or all; an unknown name lists all names.")
    ] = "all",
    setup: Annotated[
        str | None,
        typer.Option(help="A published experiment for your own model, such as ffhq; an unknown name lists all names."),
    ] = None,
    presets: Annotated[str, typer.Option(help="Presets of edits to compare.")] = "default,lace",
    model: JudgedModelOption = DEFAULT_MODEL,
    generator: options.Generator = None,
    judge: options.Judge = None,
    allow_plugins: options.AllowPlugins = False,
    samplers: Annotated[
        str | None,
        typer.Option(help=f"Samplers to compare; by default {DEFAULT_SAMPLER},paper, or those of --setup."),
    ] = None,
    truncation: options.Truncation = None,
    label: options.Label = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Run published experiments on a model, with our settings and the paper's side by side.

    Conditional sampling, sequential editing, zero-shot combinations, logical compositions; accuracy by an independent
    judge, Fréchet distance, distance to exact samples, diversity, identity, disentangled edit strength. After an
    interruption the same command continues. Writes evaluation.json and evaluation.md with pictures.
    """
    from energyql.evaluation.evaluate import evaluate as run
    from energyql.evaluation.metrics import inception_features
    from energyql.evaluation.report import TABLE_WIDTH, evaluation_notes, evaluation_tables

    if features not in ("judge", "inception"):
        raise ArgumentError(f"there are no features {features!r}", hint="choose judge or inception")
    if inception_weights is not None and features != "inception":
        raise ArgumentError(
            "--inception-weights needs --features inception", hint="add it, or leave out --inception-weights"
        )
    with resumable():
        opened = options.open_model(model, generator, judge, allow_plugins, device)
        data = run(
            None if protocols == "all" else read_names(protocols), setup=setup, folder=save_to, model=opened,
            samplers=samplers, presets=read_names(presets), n=n, edits=edits, prior=prior, oracle=oracle,
            features=inception_features(inception_weights) if features == "inception" else None,
            truncation=truncation, label=read_label(label), seed=seed, device=device, progress=not quiet,
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
    """Print tables at least `width` columns wide, and wider if a number would be cut."""
    wide = Terminal(highlight=False, emoji=False)
    wide.width = max(wide.width, width)
    for table in tables:
        needed = wide.measure(table, options=wide.options.update(max_width=1000)).minimum
        wide.width = max(wide.width, needed)
        wide.print(table)
