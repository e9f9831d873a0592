"""The commands `gallery`, `label`, `audit` and `studio`, which make web pages; and `sample`, for `label`."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.filesize import decimal
from rich.markup import escape

from energyql.cli import options
from energyql.cli.interruption import resumable
from energyql.cli.options import out, out_option, print_json, read_condition, read_names
from energyql.errors import ArgumentError
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import settings_of


@options.with_options(*settings_of("gallery"))
def gallery(
    queries: Annotated[Path | None, typer.Argument(metavar="QUERIES.txt")] = None,
    save_to: Annotated[Path, out_option()] = Path("gallery"),
    n: Annotated[int | None, typer.Option("-n", min=1)] = None,
    truth_table: list[str] | None = None,
    traverse: tuple[str, str] | None = None,
    steps: Annotated[int, typer.Option(min=2)] = 8,
    title: str = "",
    about: str = "",
    *,
    source: options.Source,
    device: str = "auto",
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Draw many queries on one self-contained web page: pictures, verdicts, clauses, circuits.

    All queries are checked before the first is sampled. The page is written when all are drawn, or not at all.

    Args:
        queries: A file with a query, or a title, a colon and a query, on each line; # begins a comment.
        save_to: A folder for index.html, or a path that ends in .html.
        n: Pictures per query; by default 8, 4 in truth tables, 3 in traversals.
        truth_table: All combinations of up to four attributes: smile,glasses,hair=red.
        traverse: Two queries: pictures between a sample of the first and a sample of the second.
        steps: Pictures from one query to the other.
        title: Title of the page.
        about: Text under the title; a blank line begins a new paragraph.
    """
    from energyql.files import sole_writer
    from energyql.gallery.gallery import Gallery, check_literals, check_traversal, split_literals
    from energyql.gallery.page import page_path, same_queries
    from energyql.pipeline.queries import SUFFIXES, read_queries

    if any(re.match("--?[a-z]", query) for query in traverse or ()):
        texts = " and ".join(map(shlex.quote, traverse or ()))
        hint = 'such as --traverse smile "hat AND NOT smile"'
        raise ArgumentError(f"--traverse takes two queries, not {texts}", hint=hint)
    target = page_path(save_to)
    if queries is None and not truth_table and traverse is None:
        raise ArgumentError("there is nothing to draw", hint="name a file of queries, or --truth-table or --traverse")
    if queries is not None and queries.suffix == ".toml":
        hint = f"energyql dataset {queries} --out FOLDER draws a plan"
        raise ArgumentError(f"{queries} is no list of queries", hint=hint)
    if queries is not None and queries.suffix not in SUFFIXES and not os.path.exists(queries):
        wrong = f"there is no file {str(queries)!r}, and a gallery takes a file with a query on each line"
        raise ArgumentError(wrong, hint=f"energyql generate {shlex.quote(str(queries))} draws one query")
    questions = [] if queries is None else read_queries(queries)
    page = Gallery(
        n=8 if n is None else n, title=title, about=about, model=source.open(device), device=device,
        progress=not quiet, **settings,
    )  # fmt: skip
    tables = [split_literals(text) for text in truth_table or ()]
    for literals in tables:
        check_literals(literals, page.vocabulary)
    if traverse is not None:
        check_traversal(*traverse, steps, page.settings, page.vocabulary)
    with nullcontext() if target == save_to else sole_writer(save_to, "a gallery"):
        page.add_all(questions, source=str(queries))
        for literals in tables:
            page.add_truth_table(*literals, n=n)
        if traverse is not None:
            page.add_traversal(*traverse, steps, n=n)
        page.save(target)
    if not quiet:
        for note in same_queries(page.sections):
            out.print(f"[yellow]note[/]: {escape(note)}")
        out.print(f"{escape(page.summary())}. Saved {escape(str(target))} ({decimal(target.stat().st_size)})")


@options.with_options()
def sample(
    model: options.ModelArgument,
    save_to: Annotated[Path, out_option()],
    n: Annotated[int, typer.Option("-n", min=1)] = 300,
    unsure: bool = False,
    by: Literal["heads", "teacher", "reader"] | None = None,
    reader: options.Name = None,
    prompts: Path | None = None,
    only: str | None = None,
    labels: Path | None = None,
    pool: Annotated[int, typer.Option(min=1)] = 5000,
    truncation: float | None = None,
    condition: str | None = None,
    seed: int | None = None,
    generator: options.Code = None,
    allow_plugins: options.AllowPlugins = False,
    device: str = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Draw pictures to label: random ones, or those about which the model is least certain.

    The generator needs no attributes. The name of a file is the number of its picture. The folder and the table of
    `energyql label` record seed and truncation.

    Args:
        save_to: The folder of pictures to make or to add to.
        n: All random pictures; or, with --unsure, pictures to add.
        unsure: Add pictures with the least certain predictions.
        by: Networks whose certainty counts: by default the teacher of the last training, for which the pool is drawn;
            without a teacher, the heads. With reader, pictures on which --reader and heads differ.
        only: Attributes whose heads choose, separated by commas.
        labels: CSV: pictures in it are not chosen.
        pool: Prior samples that --unsure chooses from.
        truncation: psi of the pictures; by default that of train.
        seed: Seed of the pictures; by default that of the folder, or 0.
    """
    from energyql.labelling.sample import sample_pictures
    from energyql.pipeline.model import choose_device

    names = None if only is None else read_names(only)
    if (reader is None) != (prompts is None) or (reader is not None and by != "reader"):
        raise ArgumentError("--by reader, --reader and --prompts belong together")
    words: Any = None
    if prompts is not None:
        words = options.LabelSource(prompts=prompts, reader=reader).open(choose_device(device), model=model)
    with resumable():
        folder = sample_pictures(
            model, save_to, n, unsure=unsure, by=by, reader=words, only=names, labelled=labels, pool=pool,
            seed=seed, truncation=truncation, condition=read_condition(condition), generator=generator,
            allow_plugins=allow_plugins, device=choose_device(device), progress=not quiet,
        )  # fmt: skip
    if not quiet:
        drawn, following = folder.drawn, f"energyql label {shlex.quote(str(save_to))}"
        out.print(
            f"{escape(str(save_to))} has {folder.random} random pictures and {len(folder.unsure)} unsure ones, "
            f"of seed {drawn.seed} at truncation {drawn.truncation:g}. Next: {escape(following)}"
        )


@options.with_options()
def label(
    folder: Path,
    attributes: str | None = None,
    from_folders: bool = False,
    save_to: Annotated[Path | None, out_option()] = None,
    port: options.Port = 8421,
    *,
    page: options.Page,
) -> None:
    """Label pictures by keyboard on a local page, or take labels from sub-folders.

    The table is written after each picture; the same command continues it.

    Args:
        folder: A folder of pictures that energyql sample drew.
        attributes: Such as "glasses, hair=black|brown|blond, age=0..1"; by default those of the table.
        from_folders: Take labels from sub-folders: glasses, no-glasses, hair=black.
        save_to: The CSV with the labels; by default labels.csv in the folder.
    """
    from energyql.files import check_writable, real_path, sole_writer
    from energyql.labelling.folder import LABELS, PictureFolder
    from energyql.labelling.sheet import LabelSheet, labels_from_folders

    table = save_to or folder / LABELS
    check_writable(table, table.parent)
    if from_folders and attributes is not None:
        raise ArgumentError("the names of sub-folders are the attributes", hint="leave out --attributes")
    pictures = PictureFolder.read(folder)

    @contextmanager
    def alone(work: str) -> Iterator[None]:
        """Hold the table; and the folder, unless the table is elsewhere, as one of several by different people."""
        inside = real_path(table.parent) == real_path(folder)
        with sole_writer(folder, work) if inside else nullcontext(), sole_writer(table.parent, work, table.name):
            yield

    if from_folders:
        with alone("a table of labels"):
            sheet = labels_from_folders(pictures, table)
        out.print(f"{len(sheet.rows())} pictures are labelled in {escape(str(table))}")
        return
    options.check_studio("the page for labels")
    from energyql.labelling.app import create_app
    from energyql.studio.web import serve_app

    serving = page.serving(port, "Label the pictures at", f"Ctrl+C ends it; {table} has the labels.")
    with alone("a page for labels"):
        serve_app(partial(create_app, LabelSheet.open(table, pictures, attributes)), **serving)


@options.with_options()
def audit(
    result: Path,
    clicks: Annotated[int | None, typer.Option(min=1)] = None,
    width: float | None = None,
    attributes: bool = False,
    by: str | None = None,
    simulate: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    port: options.Port = 8422,
    *,
    page: options.Page,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Look at some 60 pictures, and learn which share of all truly satisfies the query.

    A local page shows pictures one by one, without the judge's verdict. Each answer is written at once; the same
    command continues the audit, and prints the share with a 95 % interval when it is finished.

    Args:
        result: A folder that generate, edit or dataset wrote, or the page of a gallery.
        clicks: Pictures to say yes or no about; by default 60.
        width: In place of --clicks, go on until the interval is at most this wide: 0.05 for 5 %.
        attributes: Ask about each condition of the query, so that its frequency is estimated too.
        by: Name of the person who answers, if there are several; by default "me".
        simulate: Let module:function answer, which labels pictures, in place of a person.
    """
    from energyql.attributes.labels import import_labeller
    from energyql.auditing.answers import CLICKS, AnswerBook, AuditPlan
    from energyql.auditing.publish import publish
    from energyql.auditing.session import Session
    from energyql.auditing.subject import open_subject
    from energyql.files import sole_writer
    from energyql.progress import reporting

    if clicks is not None and width is not None:
        raise ArgumentError("an audit ends after --clicks, or at a --width, not both", hint="leave out one of them")
    chosen = (clicks, width, attributes) != (None, None, False)
    plan = AuditPlan(CLICKS if clicks is None else clicks, width, attributes) if chosen else None
    labeller = None if simulate is None else import_labeller(simulate)
    if labeller is None:
        options.check_studio("the page of an audit")
    subject = open_subject(result)
    assert subject.folder is not None  # only a `Result` in memory has none
    _ = subject.questions  # refuses queries that cannot be asked
    with sole_writer(subject.folder, "an audit"):
        session = Session(subject, AnswerBook.open(subject, plan), by or simulate or "me")
        if labeller is not None:
            with reporting(not quiet) as report, resumable():
                session.simulate(labeller, partial(report, "audit"))
        elif session.next(1):
            from energyql.labelling.audit_app import create_audit_app
            from energyql.studio.web import serve_app

            serving = page.serving(
                port, "Look at the pictures at", "Ctrl+C ends it, and the same command continues it."
            )
            serve_app(partial(create_audit_app, session), **serving)
        audited = session.evidence.report()
        if as_json:
            print_json(audited.to_dict())
        elif not quiet:
            out.print(escape(audited.summary()))
        publish(subject, audited)


@options.with_options()
def studio(
    model: Annotated[list[str] | None, typer.Option("--model", "-m")] = None,
    generator: options.Code = None,
    judge: options.Code = None,
    reader: options.Name = None,
    allow_plugins: options.AllowPlugins = False,
    port: options.Port = 8420,
    *,
    page: options.Page,
    most: Annotated[int, typer.Option("--max-n", min=1, max=512)] = 64,
    seconds: Annotated[float, typer.Option("--timeout", min=1)] = 120,
    waiting: Annotated[int, typer.Option("--queue", min=1)] = 8,
    device: str = "auto",
) -> None:
    """Serve a web page for queries: pictures, edits step by step, links that restore everything.

    The page loads nothing from other servers. Only this machine can reach it, unless --host says otherwise. See
    docs/studio.md.

    Args:
        model: A packaged model, or a model folder; repeat for more.
        most: Most pictures of one request.
        seconds: Seconds that one request may run.
        waiting: Requests that may wait.
    """
    options.check_studio("the studio")
    from energyql.pipeline.model import load_model
    from energyql.studio.limits import Limits
    from energyql.studio.serving import serve

    models = model or [DEFAULT_MODEL]
    if len(models) > 1 and (generator, judge) != (None, None):
        raise ArgumentError("--generator and --judge are for one model", hint="for several, --allow-plugins")
    out.print(f"Loading {escape(', '.join(models))}...")
    load = partial(load_model, generator=generator, judge=judge, reader=reader, allow_plugins=allow_plugins)
    limits = Limits(pictures=most, seconds=seconds, waiting=waiting)
    serve(models, device=device, load=load, limits=limits, **page.serving(port, "The studio is at", "Ctrl+C ends it."))
