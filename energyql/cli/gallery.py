"""The command that draws many queries on one page: `energyql gallery`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from energyql.cli.train import LabelOption, read_label
from energyql.errors import ArgumentError
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DEFAULT_SAMPLER, DEFAULT_SEMANTICS

out = Console(highlight=False, soft_wrap=True, emoji=False)


def gallery(
    queries: Annotated[
        Path | None,
        typer.Argument(metavar="QUERIES.txt", help="A query a line, or title: query; # begins a comment."),
    ] = None,
    save_to: Annotated[
        Path, typer.Option("--out", "-o", help="A folder for index.html, or a path that ends in .html.")
    ] = Path("gallery"),
    truth_table: Annotated[
        list[str] | None, typer.Option(help="All combinations of up to four attributes: smile,glasses,hair=red.")
    ] = None,
    traverse: Annotated[
        tuple[str, str] | None, typer.Option(help="Two queries: from a sample of one to a sample of the other.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Pictures from one query to the other.")] = 8,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="Pictures a query; by default 8, 4 in tables, 3 ways across.")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="A packaged model, or a model folder.")] = DEFAULT_MODEL,
    semantics: Annotated[str, typer.Option(help="exact, product or lace.")] = DEFAULT_SEMANTICS,
    sampler: Annotated[str, typer.Option(help="How to sample; as for generate.")] = DEFAULT_SAMPLER,
    strength: Annotated[
        float | None, typer.Option(help="Multiplies the energy: more is more certain, less varied.")
    ] = None,
    truncation: Annotated[float | None, typer.Option(help="psi in 0..1: less varied, safer.")] = None,
    label: LabelOption = None,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Samples computed together.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no report.")] = False,
) -> None:
    """Draw many queries on one web page that needs nothing beside it: pictures, verdicts, clauses, circuits.

    All queries are checked before the first is sampled. The page is written when all are drawn, or not at all.
    """
    from energyql.gallery.gallery import Gallery
    from energyql.gallery.page import page_path
    from energyql.gallery.truth_table import check_literals, split_literals
    from energyql.pipeline.queries import read_queries

    target = page_path(save_to)
    if queries is None and not truth_table and traverse is None:
        raise ArgumentError("there is nothing to draw", hint="name a file of queries, or --truth-table or --traverse")
    questions = [] if queries is None else read_queries(queries)
    page = Gallery(
        n=8 if n is None else n, title=title, model=model, semantics=semantics,
        sampler=sampler, strength=strength, truncation=truncation,
        label=read_label(label), seed=seed, device=device, batch_size=batch_size, progress=not quiet,
    )  # fmt: skip
    tables = [split_literals(text) for text in truth_table or ()]
    for literals in tables:
        check_literals(literals, page.vocabulary)
    if traverse is not None:
        page.check_traversal(*traverse, steps)
    page.add_all(questions, source=str(queries))
    for literals in tables:
        page.add_truth_table(*literals, n=n)
    if traverse is not None:
        page.add_traversal(*traverse, steps, n=n)
    page.save(target)
    if not quiet:
        for note in page.notes():
            out.print(f"[yellow]note[/]: {escape(note)}")
        size = target.stat().st_size
        shown = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
        out.print(f"{escape(page.summary())}. Saved {escape(str(target))} ({shown})")
