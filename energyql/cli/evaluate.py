"""The command that runs the field's experiments on a model: `energyql evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from energyql.cli.train import LabelOption, read_label
from energyql.errors import ArgumentError

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def evaluate(
    save_to: Annotated[Path, typer.Option("--out", "-o", help="Folder for reports, pictures and what is kept.")] = Path(
        "evaluation"
    ),
    model: Annotated[str, typer.Option("--model", "-m", help="A packaged model, or a model folder, with a judge.")] = (
        "avatars"
    ),
    protocols: Annotated[
        str, typer.Option(help="conditional-1, conditional-3, sequential-5, zero-shot, logic; with commas, or all.")
    ] = "all",
    samplers: Annotated[str, typer.Option(help="Side by side; as for bench.")] = "slice+descent,paper",
    presets: Annotated[str, typer.Option(help="Of editing, side by side; as for edit.")] = "default,lace",
    n: Annotated[int, typer.Option("-n", min=2, help="Samples for each query and sampler.")] = 200,
    edits: Annotated[int, typer.Option(min=1, help="Pictures that are edited.")] = 64,
    prior: Annotated[int, typer.Option(min=100, help="Pictures of the prior, judged once for all.")] = 20_000,
    oracle: Annotated[int, typer.Option(min=30, help="Exact samples to compare with, for each query.")] = 500,
    features: Annotated[str, typer.Option(help="Of pictures: judge or inception.")] = "judge",
    inception_weights: Annotated[
        Path | None, typer.Option(help="torch-fidelity's file; by default where it keeps it. Nothing is downloaded.")
    ] = None,
    truncation: Annotated[float | None, typer.Option(help="psi in 0..1; by default the model's own.")] = None,
    label: LabelOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of queries and samples.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no report.")] = False,
) -> None:
    """Run the experiments of the field on a model, our settings and the paper's side by side.

    Conditional sampling, sequential editing, zero-shot combinations, logical compositions; accuracy by an independent
    judge, Fréchet distance, fidelity to exact samples, diversity, identity, disentangled edit strength. Interrupt at
    will: the same command goes on. Writes evaluation.json and evaluation.md with pictures.
    """
    from energyql.evaluation.calls import evaluate as run
    from energyql.evaluation.features import inception_features
    from energyql.evaluation.protocols import PROTOCOLS
    from energyql.evaluation.report import EDIT_NOTE, EVALUATION_NOTE, evaluation_tables

    if features not in ("judge", "inception"):
        raise ArgumentError(f"there are no features {features!r}", hint="choose judge or inception")
    if inception_weights is not None and features != "inception":
        raise ArgumentError("--inception-weights needs --features inception")
    try:
        data = run(
            tuple(PROTOCOLS) if protocols == "all" else read_names(protocols), folder=save_to, model=model,
            samplers=samplers, presets=read_names(presets), n=n, edits=edits, prior=prior, oracle=oracle,
            features=inception_features(inception_weights) if features == "inception" else None,
            truncation=truncation, label=read_label(label), seed=seed, device=device, progress=not quiet,
        )  # fmt: skip
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on from here")
        raise typer.Exit(130) from None
    if quiet:
        return
    wide = Console(highlight=False, emoji=False)
    wide.width = max(wide.width, 130)  # narrow pipes would break the numbers
    for table in evaluation_tables(data):
        wide.print(table)
    for name, setup in data["setups"].items():
        if "missing" in setup:
            out.print(f"[yellow]note[/]: {name} was not run: {escape(setup['missing'])}")
    out.print(EVALUATION_NOTE)
    out.print(EDIT_NOTE)
    out.print(f"Saved {escape(str(save_to))}: evaluation.json, evaluation.md")


def read_names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
