"""The command that draws many queries on one page: `energyql gallery`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import out, out_option, read_label, read_names
from energyql.errors import ArgumentError
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DEFAULT_NOISE, DEFAULT_SAMPLER, DEFAULT_SEMANTICS


def gallery(
    queries: Annotated[
        Path | None,
        typer.Argument(metavar="QUERIES.txt", help="A query a line, or title: query; # begins a comment."),
    ] = None,
    save_to: Annotated[Path, out_option("A folder for index.html, or a path that ends in .html.")] = Path("gallery"),
    n: Annotated[
        int | None,
        typer.Option("-n", min=1, help="Pictures a query; by default 8, 4 in truth tables, 3 in traversals."),
    ] = None,
    truth_table: Annotated[
        list[str] | None, typer.Option(help="All combinations of up to four attributes: smile,glasses,hair=red.")
    ] = None,
    traverse: Annotated[
        tuple[str, str] | None, typer.Option(help="Two queries: from a sample of one to a sample of the other.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Pictures from one query to the other.")] = 8,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "",
    model: options.Model = DEFAULT_MODEL,
    generator: options.Generator = None,
    judge: options.Judge = None,
    allow_plugins: options.AllowPlugins = False,
    semantics: options.Semantics = DEFAULT_SEMANTICS,
    sampler: options.Sampler = DEFAULT_SAMPLER,
    strength: options.Strength = None,
    truncation: options.Truncation = None,
    label: options.Label = None,
    noise: options.Noise = DEFAULT_NOISE,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    allow_weak: options.AllowWeak = "",
    quiet: options.Quiet = False,
) -> None:
    """Draw many queries on one self-contained web page: pictures, verdicts, clauses, circuits.

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
    opened = options.open_model(model, generator, judge, allow_plugins, device)
    page = Gallery(
        n=8 if n is None else n, title=title, model=opened, semantics=semantics,
        sampler=sampler, strength=strength, truncation=truncation,
        label=read_label(label), noise=noise, seed=seed, device=device, batch_size=batch_size,
        allow_weak=read_names(allow_weak), progress=not quiet,
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
