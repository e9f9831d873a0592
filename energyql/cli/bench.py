"""The command that compares samplers: `energyql bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from energyql.cli.train import LabelOption, read_label

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def bench(
    queries: Annotated[
        list[str], typer.Argument(metavar="QUERIES", help="Queries, or files with a query a line (# begins a comment).")
    ],
    save_to: Annotated[Path, typer.Option("--out", "-o", help="Folder for results, plots and what is kept.")] = Path(
        "bench"
    ),
    model: Annotated[str, typer.Option("--model", "-m", help="A packaged model, or a model folder, with a judge.")] = (
        "avatars"
    ),
    samplers: Annotated[
        str, typer.Option(help="Names, separated by commas; also semantics:sampler, sampler@strength, and paper.")
    ] = "slice+descent,slice,ode,paper",
    n: Annotated[int, typer.Option("-n", min=2, help="Samples for each query and sampler.")] = 500,
    prior: Annotated[int, typer.Option(min=100, help="Pictures of the prior, judged once for all queries.")] = 20_000,
    oracle: Annotated[int, typer.Option(min=30, help="Exact samples to compare with, for each query.")] = 1_000,
    truncation: Annotated[float | None, typer.Option(help="psi in 0..1; by default the model's own.")] = None,
    label: LabelOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same samples.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no report.")] = False,
) -> None:
    """Compare samplers on a model: satisfied or not, true to the distribution, varied, and at what cost.

    Everything is held against exact samples: the prior, of which the judge keeps what satisfies the query. Interrupt
    at will: the same command goes on. Writes results.json, results.md and two plots.
    """
    from energyql.evaluation.calls import compare_samplers
    from energyql.evaluation.report import NOTE, TABLE_WIDTH, query_table, summary_table

    try:
        data = compare_samplers(
            queries, samplers, folder=save_to, model=model, n=n, prior=prior, oracle=oracle, truncation=truncation,
            label=read_label(label), seed=seed, device=device, progress=not quiet,
        )  # fmt: skip
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on from here")
        raise typer.Exit(130) from None
    if quiet:
        return
    wide = Console(highlight=False, emoji=False)
    wide.width = max(wide.width, TABLE_WIDTH)  # narrow pipes would break the numbers
    wide.print(query_table(data))
    if len(data["queries"]) > 1:
        wide.print(summary_table(data))
    out.print(NOTE)
    out.print(f"Saved {escape(str(save_to))}: results.json, results.md, satisfied.png, frequency-error.png")
