"""The commands that lead from a generator to labels: `energyql sample` and `energyql label`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import out, out_option, read_label, read_names
from energyql.errors import ArgumentError

if TYPE_CHECKING:
    from energyql.studio.serving import Listening


def sample(
    model: options.ModelArgument,
    save_to: Annotated[Path, out_option("The folder of pictures to make or to add to.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Random pictures in all, or unsure ones to add.")] = 300,
    unsure: Annotated[bool, typer.Option("--unsure", help="Add pictures about which the model is least sure.")] = False,
    by: Annotated[
        Literal["heads", "teacher"] | None,
        typer.Option(
            help="Who must be unsure: by default the teacher of the last training, for which all is drawn, or without "
            "one the heads."
        ),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Attributes whose heads choose, separated by commas.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV: pictures in it are not chosen.")] = None,
    pool: Annotated[int, typer.Option(min=1, help="Prior samples that --unsure chooses from.")] = 5000,
    truncation: Annotated[
        float | None,
        typer.Option(help="psi of the pictures; by default that of train."),
    ] = None,
    label: options.Label = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the pictures; by default that of the folder, or 0.")] = None,
    generator: options.Generator = None,
    allow_plugins: options.AllowPlugins = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Draw pictures to label: random ones without a query, or those about which heads are least sure.

    The generator needs no attributes. A file has the number of its picture as its name. The folder knows seed and
    truncation, and so does the table that `energyql label` writes.
    """
    from energyql.labelling.sample import sample_pictures
    from energyql.pipeline.model import choose_device

    chosen = None if only is None else read_names(only)
    folder = sample_pictures(
        model, save_to, n, unsure=unsure, by=by, only=chosen, labelled=labels, pool=pool,
        seed=seed, truncation=truncation, label=read_label(label), generator=generator, allow_plugins=allow_plugins,
        device=choose_device(device), progress=not quiet,
    )  # fmt: skip
    if not quiet:
        drawn = folder.drawn
        out.print(
            f"{escape(str(save_to))} has {folder.random} random pictures and {len(folder.unsure)} unsure ones, "
            f"of seed {drawn.seed} at truncation {drawn.truncation:g}. Next: energyql label {escape(str(save_to))}"
        )


def label(
    folder: Annotated[Path, typer.Argument(help="A folder of pictures that energyql sample drew.")],
    attributes: Annotated[
        str | None,
        typer.Option(help='Such as "glasses, hair=black|brown|blond, age=0..1"; by default those of the table.'),
    ] = None,
    from_folders: Annotated[
        bool, typer.Option("--from-folders", help="Read the labels off sub-folders: glasses, no-glasses, hair=black.")
    ] = False,
    save_to: Annotated[Path | None, out_option("The CSV with the labels; by default labels.csv in the folder.")] = None,
    host: options.Host = "127.0.0.1",
    port: options.Port = 8421,
    allow_host: options.AllowHost = None,
    token: options.Token = None,
    open_page: options.OpenPage = False,
) -> None:
    """Label pictures by keyboard on a local page, or read labels off sub-folders.

    The table is written after each picture; the same command continues it.
    """
    from energyql.labelling.folder import LABELS, PictureFolder
    from energyql.labelling.sheet import LabelSheet, labels_from_folders

    pictures, table = PictureFolder.read(folder), save_to or folder / LABELS
    if from_folders:
        if attributes is not None:
            raise ArgumentError("the names of sub-folders are the attributes", hint="leave out --attributes")
        sheet = labels_from_folders(pictures, table)
        out.print(f"{len(sheet.rows())} pictures are labelled in {escape(str(table))}")
        return
    with options.needing_studio("the page for labels"):
        from energyql.labelling.app import serve

    def ready(listening: Listening) -> None:
        after = f"Ctrl+C ends it; {table} has the labels."
        options.announce(listening, open_page, before="Label the pictures at", after=after)

    sheet = LabelSheet.open(table, pictures, attributes)
    serve(sheet, host=host, port=port, allowed=allow_host or [], token=token, ready=ready)
