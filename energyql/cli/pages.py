"""The commands `gallery`, `label`, `audit` and `studio`, which make web pages; and `sample`, for `label`."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal
from rich.markup import escape

from energyql.cli import options
from energyql.cli.interruption import resumable
from energyql.cli.options import out, out_option, print_json
from energyql.errors import ArgumentError
from energyql.labelling.settings import SampleSettings
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import settings_of


@dataclass(frozen=True)
class Contents:
    """Values of the argument and the options that say what a gallery shows."""

    queries: Annotated[Path | None, typer.Argument(metavar="QUERIES.txt")] = None
    n: Annotated[int | None, typer.Option("-n", min=1)] = None
    truth_table: list[str] | None = None
    traverse: tuple[str, str] | None = None
    steps: Annotated[int, typer.Option(min=2)] = 8


@dataclass(frozen=True)
class Heading:
    """Values of the options for the texts at the top of a gallery."""

    title: str = ""
    about: str = ""


@options.with_options(*settings_of("gallery"))
def gallery(
    save_to: Annotated[Path, out_option()] = Path("gallery"),
    *,
    contents: Contents,
    heading: Heading,
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

    queries, n, truth_table = contents.queries, contents.n, contents.truth_table
    traverse, steps = contents.traverse, contents.steps
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
        n=8 if n is None else n, title=heading.title, about=heading.about, model=source.open(device),
        device=device, progress=not quiet, **settings,
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


@dataclass(frozen=True)
class Words:
    """Values of the options for a reader of words that helps to choose pictures."""

    reader: options.Name = None
    prompts: Path | None = None


@options.with_options(
    "unsure", "by", "only", "labels", "pool", "truncation", "condition", "seed", record=SampleSettings
)  # fmt: skip
def sample(
    source: options.OwnSource,
    save_to: Annotated[Path, out_option()],
    n: Annotated[int, typer.Option("-n", min=1)] = 300,
    *,
    words: Words,
    device: str = "auto",
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Draw pictures to label: random ones, or those about which the model is least certain.

    The generator needs no attributes. The name of a file is the number of its picture. The folder and the table of
    `energyql label` record seed and truncation.

    Args:
        save_to: The folder of pictures to make or to add to.
        n: All random pictures; or, with --unsure, pictures to add.
    """
    from energyql.labelling.sample import sample_pictures
    from energyql.pipeline.model import choose_device

    reader, prompts, where = words.reader, words.prompts, choose_device(device)
    if (reader is None) != (prompts is None) or (reader is not None and settings["by"] != "reader"):
        raise ArgumentError("--by reader, --reader and --prompts belong together")
    if prompts is not None:
        settings["reader"] = options.LabelSource(prompts=prompts, reader=reader).open(where, model=source.model)
    with resumable():
        folder = sample_pictures(source, save_to, n, device=where, progress=not quiet, **settings)
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
    doubtful: bool = False,
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
        doubtful: Look again at labels that the last training doubts, most doubted first.
        save_to: The CSV with the labels; by default labels.csv in the folder.
    """
    from energyql.files import check_writable, real_path, sole_writer
    from energyql.labelling.folder import LABELS, PictureFolder
    from energyql.labelling.sheet import LabelSheet, labels_from_folders

    if doubtful and (from_folders or attributes is not None):
        raise ArgumentError("--doubtful shows labels of a table again", hint="leave out the other option")
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
    from energyql.labelling.looks import Looks
    from energyql.studio.web import serve_app

    serving = page.serving(port, "Label the pictures at", f"Ctrl+C ends it; {table} has the labels.")
    with alone("a page for labels"):
        sheet = LabelSheet.open(table, pictures, attributes)
        looks = Looks(sheet) if doubtful else None
        if looks is not None and not looks.left():
            out.print(f"No label in {escape(str(table))} is doubted any more")
            return
        serve_app(partial(create_app, sheet, looks=looks), **serving)


@options.with_options()
def teach(
    source: options.LessonSource,
    save_to: Annotated[Path | None, out_option()] = None,
    pictures: Annotated[Path | None, typer.Option(exists=True, file_okay=False)] = None,
    n: Annotated[int, typer.Option("-n", min=256)] = 2_000,
    *,
    port: options.Port = 8423,
    page: options.Page,
    device: str = "auto",
) -> None:
    """Teach attributes on a local page: click pictures that have them, and ask queries on the way.

    Everything lies in the model folder: generate, dataset and audit take it at any moment, and its subfolder pictures
    is one that label and train use. The same command continues a lesson. See docs/teach.md.

    Args:
        save_to: The model folder to make or add to. By default that of the model.
        pictures: In place of a model, a folder of photographs: they teach a judge, for --labeller and --judge.
        n: Pictures that the page has.
    """
    options.check_studio("the page of a lesson")
    from energyql.files import sole_writer
    from energyql.pipeline.model import choose_device
    from energyql.studio.memory import share_heap
    from energyql.studio.web import serve_app
    from energyql.teaching.app import create_app
    from energyql.teaching.classroom import PICTURES, Classroom
    from energyql.training.target import training_folder

    share_heap()
    serving = page.serving(port, "Teach at", "Ctrl+C ends it, and the same command continues it.")
    if (not source.model) == (pictures is None):
        wrong = "a lesson is about the pictures of a model, or about photographs"
        raise ArgumentError(wrong, hint="give one: energyql teach MODEL, or energyql teach --pictures FOLDER")
    if pictures is not None and save_to is None:
        raise ArgumentError("photographs teach a judge, which needs a folder", hint="give --out")
    folder = save_to if pictures is not None and save_to is not None else training_folder(source.model, save_to)
    with sole_writer(folder / PICTURES, "a lesson"):
        if pictures is not None:
            classroom = Classroom.of_photographs(pictures, folder, choose_device(device), n)
        else:
            classroom = Classroom.open(source, folder, choose_device(device), n)
        serve_app(partial(create_app, classroom), **serving)


@dataclass(frozen=True)
class Asked:
    """Values of the options that say what is asked in an audit, and who answers."""

    clicks: Annotated[int | None, typer.Option(min=1)] = None
    width: float | None = None
    attributes: bool = False
    by: str | None = None
    simulate: Annotated[str | None, typer.Option(metavar="NAME")] = None


@options.with_options()
def audit(
    result: Path,
    *,
    asked: Asked,
    port: options.Port = 8422,
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

    clicks, width, attributes, simulate = asked.clicks, asked.width, asked.attributes, asked.simulate
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
        session = Session(subject, AnswerBook.open(subject, plan), asked.by or simulate or "me")
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


@dataclass(frozen=True)
class Requests:
    """Values of the options that limit requests to the studio."""

    most: Annotated[int, typer.Option("--max-n", min=1, max=512)] = 64
    seconds: Annotated[float, typer.Option("--timeout", min=1)] = 120
    waiting: Annotated[int, typer.Option("--queue", min=1)] = 8


@options.with_options()
def studio(
    model: Annotated[list[str] | None, typer.Option("--model", "-m")] = None,
    *,
    source: options.CodeSource,
    port: options.Port = 8420,
    page: options.Page,
    requests: Requests,
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
    from energyql.studio.limits import Limits
    from energyql.studio.serving import serve
    from energyql.teaching.tab import Lessons

    models = model or [DEFAULT_MODEL]
    if len(models) > 1 and (source.generator, source.judge) != (None, None):
        raise ArgumentError("--generator and --judge are for one model", hint="for several, --allow-plugins")
    out.print(f"Loading {escape(', '.join(models))}...")
    limits = Limits(pictures=requests.most, seconds=requests.seconds, waiting=requests.waiting)
    sources = [replace(source, model=name) for name in models]
    serve(
        sources,
        device=device,
        limits=limits,
        lessons=Lessons,
        **page.serving(port, "The studio is at", "Ctrl+C ends it."),
    )
