"""The command line. Commands import what they need when they run, so that help and `explain` answer at once."""

from __future__ import annotations

import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.markup import escape

from energyql.cli.edit import animate, edit, invert
from energyql.cli.gallery import gallery
from energyql.cli.measure import bench, evaluate
from energyql.cli.studio import studio
from energyql.cli.train import LabelOption, import_heads, read_label, train
from energyql.errors import ArgumentError, EnergyQLError, TautologyWarning
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DEFAULT_PRECISION, DEFAULT_SAMPLER, DEFAULT_SEMANTICS
from energyql.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Logical queries over the attributes of a pretrained generator, sampled as one latent energy.",
)
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

Query = Annotated[str, typer.Argument(help='A query, such as "smile AND NOT (glasses OR beard)".')]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="A packaged model, or a model folder.")]
SemanticsOption = Annotated[str, typer.Option(help="exact, product or lace.")]


def _version(show: bool) -> None:
    if show:
        out.print(f"energyql {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def generate(
    query: Query,
    n: Annotated[int, typer.Option("-n", min=1, help="Number of pictures.")] = 16,
    save_to: Annotated[
        Path, typer.Option("--out", "-o", help="A labelled grid (.png, .jpg, .webp), or a folder for everything.")
    ] = Path("energyql.png"),
    model: ModelOption = DEFAULT_MODEL,
    semantics: SemanticsOption = DEFAULT_SEMANTICS,
    sampler: Annotated[
        str, typer.Option(help="slice+descent, slice, ode, langevin, predictor-corrector, published-ode ...")
    ] = DEFAULT_SAMPLER,
    strength: Annotated[
        float | None, typer.Option(help="Multiplies the energy: more is more certain, less varied.")
    ] = None,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 while it samples.")] = DEFAULT_PRECISION,
    truncation: Annotated[float | None, typer.Option(help="psi in 0..1: less varied, safer.")] = None,
    label: LabelOption = None,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    first: Annotated[int, typer.Option(min=0, help="Number of the first picture: go on where a run ended.")] = 0,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Keep drawing until all of N satisfy the query, at most this many.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Samples computed together.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no report.")] = False,
) -> None:
    """Draw pictures that satisfy a query."""
    from energyql.files import check_destination
    from energyql.pipeline import generate as pipeline

    check_destination(save_to)
    if budget is not None and first:
        raise ArgumentError("a run with a budget starts at its first sample", hint="leave out --first or --budget")
    run = (
        partial(pipeline.generate, first=first) if budget is None else partial(pipeline.until_satisfied, budget=budget)
    )
    result = run(
        query, n, model=model, semantics=semantics, sampler=sampler, strength=strength, precision=precision,
        truncation=truncation, label=read_label(label), seed=seed, device=device, batch_size=batch_size,
        progress=not quiet,
    )  # fmt: skip
    result.save(save_to)
    if not quiet:
        seconds = result.statistics["seconds_sampling"] + result.statistics["seconds_drawing"]
        out.print(f"{escape(result.summary())} ({seconds:.1f} s). Saved {escape(str(save_to))}")


@app.command()
def explain(query: Query, model: ModelOption = DEFAULT_MODEL, semantics: SemanticsOption = DEFAULT_SEMANTICS) -> None:
    """Show what a query means: canonical text, circuit, or why nothing can satisfy it."""
    from energyql.language import as_query, bind
    from energyql.models import read_vocabulary

    vocabulary = read_vocabulary(model)
    expr, text = as_query(query)
    bound = bind(expr, vocabulary, query=text)
    if semantics != DEFAULT_SEMANTICS:
        from energyql.energy.rule import compile_energy_rule

        rule = compile_energy_rule(bound, vocabulary, semantics, query=text)
        out.print(escape(f"query  {expr}\n{rule.explain()}"))
        return
    from energyql.logic.circuit import compile_query
    from energyql.logic.relations import relations_for

    out.print(f"query  {escape(str(expr))}")
    for relation in relations_for(bound, vocabulary):
        out.print(f"always {escape(str(relation))}")
    out.print(escape(compile_query(bound, vocabulary, query=text).explain()))


@app.command()
def attributes(model: ModelOption = DEFAULT_MODEL) -> None:
    """List what queries can name."""
    from rich.table import Table

    from energyql.models import read_vocabulary

    table = Table("attribute", "kind", "values", "meaning", box=None, pad_edge=False)
    for spec in read_vocabulary(model).values():
        values = ", ".join(spec.values) or (f"{spec.low:g} to {spec.high:g}" if spec.kind == "continuous" else "")
        table.add_row(escape(spec.name), spec.kind, escape(values), escape(spec.description))
    out.print(table)


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="StyleGAN2, StyleGAN2-ADA or StyleGAN3 .pkl, rosinality .pt.")],
    save_to: Annotated[Path, typer.Option("--out", "-o", help="The model folder to write.")],
    name: Annotated[str, typer.Option(help="What to call the model; by default like the file.")] = "",
    truncation: Annotated[float, typer.Option(min=0, max=1, help="psi used unless a call says otherwise.")] = 1.0,
) -> None:
    """Turn someone else's checkpoint into a model folder. Nothing in the checkpoint is run."""
    import torch

    from energyql.generators.load import describe, load_generator
    from energyql.pipeline.model import save_model

    generator = load_generator(checkpoint)
    try:
        save_model(save_to, name or checkpoint.stem, generator, truncation=truncation, dtype=torch.float32)
    except OSError as error:
        raise ArgumentError(f"cannot write {save_to}: {error.strerror or error}") from error
    facts = ", ".join(f"{fact} {value}" for fact, value in describe(generator).items())
    out.print(escape(f"Saved {save_to}: {facts}"))


@app.command()
def score(
    query: Query,
    table: Annotated[Path, typer.Argument(help="A CSV file of predictions, a row a sample.")],
    save_to: Annotated[Path | None, typer.Option("--out", "-o", help="Write a CSV instead of printing.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only the best rows.")] = None,
    semantics: SemanticsOption = DEFAULT_SEMANTICS,
) -> None:
    """Rank the rows of a table of predictions by a query, best first.

    Columns: `smile` holds the probability of yes; `hair=black`, `hair=brown`, ... the probability of each class;
    `age` and `age_std` (or `age.mean` and `age.std`) a mean and a standard deviation. Other columns are kept.
    """
    from energyql.pipeline.tables import rank_table

    ranked = rank_table(query, table, semantics=semantics, top=top)
    if save_to is None:
        sys.stdout.write(ranked)
        return
    from energyql.files import write_text

    try:
        write_text(save_to, ranked)
    except OSError as error:
        raise ArgumentError(f"cannot write {save_to}: {error.strerror or error}") from error
    err.print(f"Saved {escape(str(save_to))}")


app.command()(bench)
app.command()(animate)
app.command()(edit)
app.command()(evaluate)
app.command()(gallery)
app.command()(invert)
app.command()(studio)
app.command()(train)
app.command("import-heads")(import_heads)


def main() -> None:
    """Entry point: errors of energyql are messages, not stack traces."""
    warnings.showwarning = _show_warning
    try:
        app()
    except EnergyQLError as error:
        err.print(f"[bold red]{type(error).__name__}[/]: {escape(str(error))}")
        sys.exit(2 if isinstance(error, ArgumentError) else 1)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, TautologyWarning):
        err.print(f"[yellow]note[/]: {escape(str(message))}")
    else:
        err.print(f"[yellow]{category.__name__}[/]: {escape(str(message))}")
