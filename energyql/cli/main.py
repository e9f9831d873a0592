"""The command line. Commands import modules when they run, so that `--help` and `explain` start at once."""

from __future__ import annotations

import inspect
import shlex
import sys
import warnings
from collections.abc import Callable
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from typer.main import get_command_name

from energyql import __version__
from energyql.cli import options
from energyql.cli.dataset import dataset
from energyql.cli.directions import directions
from energyql.cli.edit import animate, edit, invert
from energyql.cli.failures import open_closed, reporting_failures, show_warning
from energyql.cli.interruption import interruptible, resumable
from energyql.cli.measure import bench, evaluate
from energyql.cli.options import STANDARD, err, out, out_option, print_json
from energyql.cli.pages import audit, gallery, label, sample, studio, teach
from energyql.cli.reports import report
from energyql.cli.share import convert, download, export, upload
from energyql.cli.train import calibrate, import_heads, train, train_judge
from energyql.errors import ArgumentError, EnergyQLError
from energyql.files import PICTURE_SUFFIXES, check_writable, write_text
from energyql.kinds import KINDS
from energyql.models import DEFAULT_MODEL, packaged_models
from energyql.pipeline.settings import DEFAULT_SEMANTICS, PICTURES, settings_of

if TYPE_CHECKING:
    from energyql.attributes.quality import HeadReport
    from energyql.pipeline.examination import Examination

_KINDS = sorted(EnergyQLError.__subclasses__(), key=lambda kind: kind.exit_code)
_CODES = ", ".join(f"{kind.exit_code} {kind.__name__}" for kind in _KINDS)

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Draw pictures of a pretrained generator that satisfy a logical query.",
    epilog=f"Exit codes: 0 success, 1 any other error, {_CODES}, 130 interrupted.",
)


def _version(show: bool) -> None:
    if show:
        out.print(f"energyql {__version__}")
        raise typer.Exit


_VERSION = typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")


@app.callback()
def _start(context: typer.Context, version: Annotated[bool, _VERSION] = False) -> None:
    """Draw pictures that have exactly the attributes you name.

    Begin with

      energyql generate "smile AND NOT (glasses OR beard)" -n 4

    and look at energyql.png. Then

      energyql attributes                         what queries can name
      energyql explain "glasses OR hat" --pilot   what a query means, how rare it is
      energyql edit smile "hat AND NOT glasses"   step by step; look at edit.png
      energyql studio --open                      all of it on a web page

    All commands:
    """
    if context.invoked_subcommand is None:
        out.print(escape(inspect.getdoc(_start) or ""), end="\n\n")
        for group, commands in GROUPS.items():
            names = ", ".join(get_command_name(command.__name__) for command in commands)
            out.print(f"  [bold]{group:15}[/] {names}")
        out.print("\nenergyql COMMAND --help describes a command, and energyql --help lists them.")


@options.with_options(*settings_of("generate"))
def generate(
    query: options.Query,
    save_to: Annotated[Path, out_option(standard=True)] = Path("energyql.png"),
    n: Annotated[int | None, typer.Option("-n", min=1)] = None,
    *,
    source: options.Source,
    first: Annotated[int, options.more(min=0)] = 0,
    only_satisfied: Annotated[bool, typer.Option("--only-satisfied")] = False,
    budget: Annotated[int | None, options.more(min=1)] = None,
    device: str = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Draw pictures that satisfy a query.

    A folder is written batch by batch, so that a run of any length can be interrupted and continued.

    Args:
        save_to: A labelled grid (.png, .jpg, .webp); a folder for everything, which the same command continues; or -
            for a PNG on standard output.
        n: Number of pictures; by default 16, or those that the folder holds.
        first: Number of the first picture, to continue an earlier run.
        only_satisfied: Draw until the judge accepts n pictures.
        budget: Most calls of the generator in all; with --only-satisfied by default those of 10 n samples.
    """
    from energyql.files import check_destination, sole_writer
    from energyql.pipeline.plan import plan_query
    from energyql.pipeline.result_folder import check_free, held_samples
    from energyql.pipeline.run import draw, draw_until_satisfied
    from energyql.pipeline.session import open_session
    from energyql.pipeline.stream import FolderRun, check_run
    from energyql.render.pictures import MOST_IN_GRID

    standard, grid = str(save_to) == STANDARD, save_to.suffix.lower() in PICTURE_SUFFIXES
    if standard and as_json:
        raise ArgumentError("--json and --out - both need standard output", hint="name a file or folder after --out")
    if not standard:
        check_destination(save_to)
    count = PICTURES if n is None else n
    if (standard or grid) and count > MOST_IN_GRID:
        hint = "name a folder after --out, such as --out pictures: it is written batch by batch"
        raise ArgumentError(f"a grid holds at most {MOST_IN_GRID:,} pictures, not {count:,}", hint=hint)
    if (limited := only_satisfied or budget is not None) and first:
        raise ArgumentError(
            "a run with a budget, or of --only-satisfied, starts at its first sample", hint="leave out --first"
        )
    plan, progress = plan_query(open_session(source.open(device), device), query, **settings), not quiet
    run = partial(draw_until_satisfied, plan) if only_satisfied else partial(draw, plan, first=first)
    if standard or grid:
        result = run(count, budget=budget, progress=progress)
        with TemporaryDirectory() as scratch:
            saved = result.save(Path(scratch) / "grid.png" if standard else save_to)
            if standard:
                sys.stdout.buffer.write(saved.read_bytes())
    elif not limited:
        folder = FolderRun(save_to, plan, n, first)
        if len(folder) and not quiet:
            removed = f"; {folder.removed:,} beyond were removed" if folder.removed else ""
            err.print(f"{escape(str(save_to))} holds {len(folder):,} samples of this run{removed}")
        with resumable():
            for _ in folder.draw(progress=progress):
                pass
        result = folder.verdicts
    else:
        with sole_writer(save_to, "a run"):
            check_run(save_to, plan.provenance, limited=True)
            held = held_samples(save_to)
            count = max(PICTURES, held) if n is None else n
            check_free(save_to, count, held)
            result = run(count, budget=budget, progress=progress)
            result.save(save_to)
    if as_json:
        data = {"saved": str(save_to), "summary": result.summary()} | result.to_dict()
        if not grid:
            del data["samples"]  # there may be any number of samples, and the folder has them
        print_json(data)
    elif not quiet:
        seconds = result.statistics["seconds_sampling"] + result.statistics["seconds_drawing"]
        place = "" if standard else f" Saved {escape(str(save_to))}"
        (err if standard else out).print(f"{escape(result.summary())} ({seconds:.1f} s).{place}")


@options.with_options("semantics")
def explain(
    query: options.Query,
    pilot: bool = False,
    *,
    source: options.Source,
    as_json: options.Json = False,
    **settings: Any,
) -> None:
    """Explain a query: canonical text, compiled circuit, or why nothing can satisfy it.

    Args:
        pilot: Estimate the share of pictures that satisfy it, and the cost of a sample.
    """
    from energyql.pipeline.explain import explain as run

    model = source.open("auto") if pilot or source.reader else source.model
    explanation = run(query, model=model, pilot=pilot, **settings)
    if as_json:
        print_json(explanation.to_dict())
    else:
        out.print(escape(str(explanation)))


@options.with_options()
def attributes(
    model: options.Model = DEFAULT_MODEL, reader: options.Name = None, as_json: options.Json = False
) -> None:
    """List the attributes that queries can name, with the quality of their heads on held-out labels.

    With a reader of texts in quotes, it is examined on random pictures of the model: the first time that takes a while.
    """
    from rich.table import Table

    from energyql.attributes.quality import read_guide_reports
    from energyql.models import model_folder
    from energyql.pipeline.explain import list_attributes

    vocabulary, reports = list_attributes(model), read_guide_reports(model_folder(model))
    examination = None if reader is None else _examined(model, reader)
    if as_json:
        heads = {name: {"quality": str(report), "weak": report.weak} for name, report in reports.items()}
        words = {} if examination is None else {"reader": vars(examination) | {"failure": examination.failure}}
        print_json(vocabulary.to_dict() | {"heads": heads} | words)
        return
    measured = [name for name in vocabulary if name in reports]
    table = Table(box=None, pad_edge=False, show_header=False)
    for kind in KINDS.values():
        rows = [spec for spec in vocabulary.values() if spec.kind == kind.name]
        if rows and table.rows:
            table.add_row()
        if rows:
            table.add_row(kind.name, *(["quality"] if measured else []), kind.heading, style="bold")
        for spec in rows:
            values = kind.listed(spec)
            text = f"{values} ({spec.description})" if values and spec.description else values or spec.description
            table.add_row(escape(spec.name), *([_quality(reports.get(spec.name))] if measured else []), escape(text))
    out.print(table)
    more = f"quality: balanced accuracy, or R2 of a range; more: energyql report {shlex.quote(model)} --full"
    out.print(escape(f"\n{more if measured else 'The model has no report on the quality of its heads'}"))
    if examination is not None:
        out.print(escape(f"reader of words {reader}: {examination}"))


def _examined(model: str, reader: str) -> Examination:
    from energyql.pipeline.model import load_model
    from energyql.pipeline.session import open_session
    from energyql.pipeline.settings import DrawSettings

    return open_session(load_model(model, reader=reader), "auto").examination(DrawSettings())


def _quality(report: HeadReport | None) -> str:
    if report is None:
        return "no report"
    return f"{'unknown' if report.score is None else f'{report.score:.2f}'}{' weak' if report.weak else ''}"


@options.with_options()
def score(
    query: options.Query,
    table: Path,
    save_to: Annotated[Path, out_option(standard=True, suffix=".csv")] = Path(STANDARD),
    top: Annotated[int | None, typer.Option(min=1)] = None,
    semantics: Literal["exact", "product", "lace"] = DEFAULT_SEMANTICS,
    as_json: options.Json = False,
) -> None:
    """Rank the rows of a table of predictions by a query, best first.

    Columns: `smile` holds the probability of yes; `hair=black`, `hair=brown`, ... the probability of each class;
    `age` and `age_std` (or `age.mean` and `age.std`) a mean and a standard deviation. Other columns are kept.

    Args:
        table: A CSV file of predictions, one row per sample; - for standard input.
        save_to: Where to write the ranked rows as CSV; - is standard output.
        top: Write only the best rows.
        semantics: Rules of the energy; see docs/semantics.md.
    """
    from energyql.pipeline.score import rank_table

    if str(table) in packaged_models() or table.is_dir():
        hint = "energyql generate draws pictures of a model, and to_pandas of a result makes such a table"
        raise ArgumentError(f"{table} is a model or a folder, and score ranks the rows of a CSV", hint=hint)
    if str(save_to) != STANDARD:
        check_writable(save_to, save_to.parent)
    # standard input is read like a file: a byte-order mark is skipped, and line breaks in cells are kept
    source = TextIOWrapper(sys.stdin.buffer, "utf-8-sig", newline="") if str(table) == STANDARD else table
    ranking = rank_table(query, source, semantics=semantics, top=top)
    if as_json:
        print_json(ranking.to_dict())
    if str(save_to) != STANDARD:
        write_text(save_to, ranking.to_csv())
        err.print(f"Saved {escape(str(save_to))}")
    elif not as_json:
        sys.stdout.write(ranking.to_csv())


GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Queries": (generate, explain, attributes, score),
    "Edits": (edit, invert, animate),
    "Many pictures": (gallery, dataset, studio),
    "Own attributes": (teach, sample, label, train, train_judge, report, directions),
    "Files": (convert, import_heads, export, download, upload),
    "Measuring": (audit, calibrate, bench, evaluate),
}
"""Heading in the help of the program -> the commands under it."""
for group, commands in GROUPS.items():
    for command in commands:
        serves = command in (studio, label, teach, audit)  # which end with Ctrl-C, so no message is printed
        register = app.command(cls=options.Command, rich_help_panel=group)
        register(command if serves else interruptible()(command))


def main() -> None:
    """Run the program; errors of energyql are printed as messages, not as stack traces."""
    open_closed()
    warnings.showwarning = show_warning
    with reporting_failures():
        sys.exit(app(standalone_mode=False) or 0)
