"""The command line. Commands import their modules when they run, so that `--help` and `explain` start at once."""

from __future__ import annotations

import math
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.edit import animate, edit, invert
from energyql.cli.gallery import gallery
from energyql.cli.label import label, sample
from energyql.cli.measure import bench, evaluate
from energyql.cli.options import err, out, out_option, read_label, read_names
from energyql.cli.studio import studio
from energyql.cli.train import import_heads, report, train
from energyql.errors import ArgumentError, EnergyQLError, LabelWarning, TautologyWarning
from energyql.files import naming_target, write_text
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
    query: options.Query,
    n: Annotated[int, typer.Option("-n", min=1, help="Number of pictures.")] = 16,
    save_to: Annotated[Path, out_option("A labelled grid (.png, .jpg, .webp), or a folder for everything.")] = Path(
        "energyql.png"
    ),
    model: options.Model = DEFAULT_MODEL,
    semantics: options.Semantics = DEFAULT_SEMANTICS,
    sampler: options.Sampler = DEFAULT_SAMPLER,
    strength: options.Strength = None,
    precision: Annotated[str, typer.Option(help="float32; or bfloat16, faster and less exact.")] = DEFAULT_PRECISION,
    truncation: options.Truncation = None,
    label: options.Label = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    first: Annotated[int, typer.Option(min=0, help="Number of the first picture, to continue an earlier run.")] = 0,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Draw until the judge accepts N pictures, at most this many.")
    ] = None,
    batch_size: options.BatchSize = None,
    allow_weak: options.AllowWeak = "",
    quiet: options.Quiet = False,
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
        allow_weak=read_names(allow_weak), progress=not quiet,
    )  # fmt: skip
    result.save(save_to)
    if not quiet:
        seconds = result.statistics["seconds_sampling"] + result.statistics["seconds_drawing"]
        out.print(f"{escape(result.summary())} ({seconds:.1f} s). Saved {escape(str(save_to))}")


@app.command()
def explain(
    query: options.Query, model: options.Model = DEFAULT_MODEL, semantics: options.Semantics = DEFAULT_SEMANTICS
) -> None:
    """Explain a query: canonical text, compiled circuit, or why nothing can satisfy it."""
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
    circuit = compile_query(bound, vocabulary, query=text)
    out.print(escape(circuit.explain()))
    if circuit.has_intervals:
        from energyql.attributes.bank import AttributeBank
        from energyql.energy.exact import CircuitRule
        from energyql.energy.reachable import SURE, least_energy
        from energyql.models import model_folder

        spread = AttributeBank.load(model_folder(model)).raw_outputs(circuit.attributes).std
        best = math.exp(-least_energy(CircuitRule(circuit), spread))
        if best < SURE:
            out.print(f"at best P = {best:.2g} with these heads, whose errors are not small beside the intervals")


@app.command()
def attributes(model: options.Model = DEFAULT_MODEL) -> None:
    """List the attributes that queries can name, and how well their heads did on held-out labels."""
    from rich.table import Table

    from energyql.attributes.quality import read_reports
    from energyql.models import model_folder, read_vocabulary

    reports = read_reports(model_folder(model))
    table = Table("attribute", "kind", "values", "quality", "meaning", box=None, pad_edge=False)
    for name, spec in read_vocabulary(model).items():
        values = ", ".join(spec.values) or (f"{spec.low:g} to {spec.high:g}" if spec.kind == "continuous" else "")
        quality = f"{reports[name]}{', weak' if reports[name].weak else ''}" if name in reports else "not measured"
        table.add_row(escape(name), spec.kind, escape(values), quality, escape(spec.description))
    out.print(table)


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="StyleGAN2, StyleGAN2-ADA or StyleGAN3 .pkl, rosinality .pt.")],
    save_to: Annotated[Path, out_option("The model folder to write.")],
    name: Annotated[str, typer.Option(help="Name of the model; by default that of the file.")] = "",
    truncation: Annotated[float, typer.Option(min=0, max=1, help="Default psi of the model.")] = 1.0,
) -> None:
    """Convert a published checkpoint to a model folder. No code in the checkpoint is executed."""
    import torch

    from energyql.generators.load import load_generator
    from energyql.pipeline.model import save_model

    generator: Any = load_generator(checkpoint)
    with naming_target(save_to):
        save_model(save_to, name or checkpoint.stem, generator, truncation=truncation, dtype=torch.float32)
    sizes = ", ".join(f"{size} {getattr(generator.config, size)}" for size in ("resolution", "z_dim", "w_dim", "c_dim"))
    parameters = sum(parameter.numel() for parameter in generator.parameters())
    out.print(escape(f"Saved {save_to}: kind {type(generator).__name__}, {sizes}, parameters {parameters}"))


@app.command()
def score(
    query: options.Query,
    table: Annotated[Path, typer.Argument(help="A CSV file of predictions, a row a sample.")],
    save_to: Annotated[Path | None, out_option("Write a CSV instead of printing.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Write only the best rows.")] = None,
    semantics: options.Semantics = DEFAULT_SEMANTICS,
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
    with naming_target(save_to):
        write_text(save_to, ranked)
    err.print(f"Saved {escape(str(save_to))}")


for command in (bench, animate, edit, evaluate, gallery, invert, label, report, sample, studio, train):
    app.command()(command)
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
    kind = "note" if issubclass(category, TautologyWarning | LabelWarning) else category.__name__
    err.print(f"[yellow]{kind}[/]: {escape(str(message))}")
