"""The commands that edit pictures: `energyql edit`, `invert` and `animate`."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import out, out_option, read_label, read_names, refuse_files
from energyql.errors import ArgumentError
from energyql.files import read_whole
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import Noise, Semantics

if TYPE_CHECKING:
    from energyql.editing.settings import Preset


def edit(
    queries: Annotated[
        list[str],
        typer.Argument(metavar="QUERY...", help="One query per step, in this order.", callback=refuse_files),
    ],
    start: Annotated[
        list[str] | None,
        typer.Option(
            "--start",
            "-s",
            help="A seed or the path of a photograph, repeated for several; or a folder written by generate, edit or "
            "invert. By default seed 0.",
        ),
    ] = None,
    save_to: Annotated[
        Path, out_option("A filmstrip (.png, .jpg), an animation (.gif, .webp), or a folder for everything.")
    ] = Path("edit.png"),
    n: Annotated[int | None, typer.Option("-n", min=1, help="Number of pictures of one seed.")] = None,
    mode: Annotated[
        str, typer.Option(help="cumulative: keep earlier queries satisfied; alone: use only the query of the step.")
    ] = "cumulative",
    keep: Annotated[str, typer.Option(help="Attributes to keep, separated by commas, or everything.")] = "everything",
    preset: Annotated[str, typer.Option(help="default, lace, lace-reweighted or query-only.")] = "default",
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="A weight of the preset, repeated for several: near_z=0.01."),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(help="Layers of W+ that may change: 4-9 or 0,1,7; or those of an attribute, repeated: hair=6-8."),
    ] = None,
    model: options.Model = DEFAULT_MODEL,
    generator: options.Generator = None,
    judge: options.Judge = None,
    allow_plugins: options.AllowPlugins = False,
    semantics: Annotated[Semantics | None, typer.Option(help="By default that of the preset.")] = None,
    strength: Annotated[float | None, typer.Option(help="Multiplies the energy of the query.")] = None,
    truncation: options.Truncation = None,
    label: options.Label = None,
    noise: Annotated[Noise | None, typer.Option(help="const, random or none; by default that of the start.")] = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    allow_weak: options.AllowWeak = "",
    anyway: options.Anyway = False,
    quiet: options.Quiet = False,
) -> None:
    """Edit pictures step by step, keep all other attributes, and report those that changed nevertheless."""
    from energyql.editing.edit import edit as run
    from energyql.editing.filmstrip import ANIMATION_SUFFIXES
    from energyql.editing.folder import check_place
    from energyql.files import PICTURE_SUFFIXES, check_destination, sole_writer

    check_destination(save_to, sorted({*PICTURE_SUFFIXES, *ANIMATION_SUFFIXES}))
    folder = save_to.is_dir() or not save_to.suffix
    with sole_writer(save_to, "an edit") if folder else nullcontext():
        if folder:
            check_place(save_to)
        opened = options.open_model(model, generator, judge, allow_plugins, device)
        edited = run(
            read_start(start or ["0"]), queries, n=n, model=opened, mode=mode,
            keep=keep if keep == "everything" else read_names(keep),
            preset=read_preset(preset, weight or []), layers=read_layers(layers or []), semantics=semantics,
            strength=strength, truncation=truncation, label=read_label(label), noise=noise, device=device,
            batch_size=batch_size, allow_weak=read_names(allow_weak), anyway=anyway, progress=not quiet,
        )  # fmt: skip
        if folder:
            edited.save(save_to)
        elif save_to.suffix.lower() in ANIMATION_SUFFIXES:
            edited.animate(save_to, progress=not quiet)
        else:
            edited.save_filmstrip(save_to)
    if not quiet:
        out.print(f"{escape(edited.summary())}\nSaved {escape(str(save_to))}")


def invert(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Cropped square around the centre.")],
    save_to: Annotated[
        Path, out_option("A folder, for edit --start; or a picture of the comparison (.png, .jpg, .webp).")
    ] = Path("inverted"),
    space: Annotated[
        str, typer.Option(help="z; w: z and an offset of w; or w+: z and an offset for each layer.")
    ] = "w",
    model: options.Model = DEFAULT_MODEL,
    generator: options.Generator = None,
    judge: options.Judge = None,
    allow_plugins: options.AllowPlugins = False,
    truncation: options.Truncation = None,
    label: options.Label = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    anyway: options.Anyway = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the latents that reproduce given pictures."""
    from energyql.editing.folder import check_place
    from energyql.editing.invert import invert as run
    from energyql.files import check_destination, sole_writer

    check_destination(save_to)
    folder = save_to.is_dir() or not save_to.suffix
    with sole_writer(save_to, "an inversion") if folder else nullcontext():
        if folder:
            check_place(save_to)
        opened = options.open_model(model, generator, judge, allow_plugins, device)
        inverted = run(
            list(pictures), model=opened, space=space, truncation=truncation, label=read_label(label), device=device,
            batch_size=batch_size, anyway=anyway, progress=not quiet,
        )  # fmt: skip
        inverted.save(save_to)
    if not quiet:
        for path, error, drawable in zip(pictures, inverted.pixel_error, inverted.drawable, strict=True):
            other = "" if drawable else "; it is another picture, this generator cannot draw it"
            out.print(f"{escape(str(path))}: mean absolute pixel error {error:.3f} of the range{other}")
        out.print(f"Saved {escape(str(save_to))}")


def animate(
    queries: Annotated[
        list[str], typer.Argument(metavar="QUERY QUERY...", help="At least two, in order.", callback=refuse_files)
    ],
    save_to: Annotated[Path, out_option("Ends in .gif or .webp.")] = Path("traversal.webp"),
    n: Annotated[int, typer.Option("-n", min=1, max=64, help="Paths, side by side.")] = 4,
    frames: Annotated[int, typer.Option(min=1, max=200, help="Frames from one query to the next.")] = 16,
    model: options.Model = DEFAULT_MODEL,
    generator: options.Generator = None,
    judge: options.Judge = None,
    allow_plugins: options.AllowPlugins = False,
    truncation: options.Truncation = None,
    label: options.Label = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    allow_weak: options.AllowWeak = "",
    quiet: options.Quiet = False,
) -> None:
    """Write an animation from samples of one query to samples of the next."""
    from energyql.editing.filmstrip import animate as run
    from energyql.editing.filmstrip import check_animation
    from energyql.pipeline.draw import pipeline_for

    check_animation(save_to)
    if len(queries) < 2:
        raise ArgumentError(
            "an animation needs at least two queries", hint='name two or more: energyql animate "smile" "frown"'
        )
    opened = options.open_model(model, generator, judge, allow_plugins, device)
    pipeline, allowed = pipeline_for(opened, device), read_names(allow_weak)
    prepared = [
        pipeline.prepare(query, truncation=truncation, label=read_label(label), seed=seed, allow_weak=allowed)
        for query in queries
    ]
    stops = [each.run(n, progress=not quiet) for each in prepared]
    run(stops, save_to, model=opened, rows=range(n), frames=frames, device=device, progress=not quiet)
    if not quiet:
        out.print(f"Saved {escape(str(save_to))}")


def read_start(texts: list[str]) -> int | list[int] | Path | list[Path]:
    """Return the start of an edit in the texts of an option: a seed, seeds, a folder, or paths of pictures.

    Raises:
        ArgumentError: seeds and pictures are mixed, or a number is no seed.
    """
    if len(texts) == 1 and os.path.isdir(texts[0]):
        return Path(texts[0])
    seeds = [seed for text in texts if (seed := read_whole(text)) is not None]
    for text in texts:
        number = re.fullmatch(r"[-+]?(?:\d+|\d*\.\d+)", text)
        if number and read_whole(text) is None and not os.path.exists(text):
            raise ArgumentError(f"{text} is not a seed", hint="a seed is a whole number that is not negative")
    if len(seeds) == len(texts):
        return seeds[0] if len(seeds) == 1 else seeds
    if seeds:
        raise ArgumentError(
            "an edit starts from seeds or from photographs, not from both",
            hint="give --start with seeds, or with paths of photographs",
        )
    return [Path(text) for text in texts]


def read_preset(name: str, weights: list[str]) -> Preset:
    """Return a preset with some of its weights replaced.

    Args:
        name: name of the preset.
        weights: texts such as near_z=0.01.

    Raises:
        ArgumentError: there is no such preset or weight, or a weight is not a number or is out of range.
    """
    from dataclasses import replace

    from energyql.editing.settings import WEIGHTS, choose_preset

    chosen: dict[str, Any] = {}
    for text in weights:
        weight, _, number = text.partition("=")
        if weight not in WEIGHTS:
            raise ArgumentError(f"there is no weight {weight!r}", hint=f"weights: {', '.join(WEIGHTS)}")
        try:
            chosen[weight] = float(number)
        except ValueError:
            raise ArgumentError(f"a weight is written {weight}=0.5, not {text!r}") from None
    return replace(choose_preset(name), **chosen)


def read_layers(texts: list[str]) -> list[int] | dict[str, list[int]] | None:
    """Return the layers in the texts of an option: of every edit, or attribute -> layers; `None` without a text.

    Args:
        texts: one such as 4-9 or 0,1,7; or several such as hair=6-8.

    Raises:
        ArgumentError: a text has another form, or both forms are given.
    """
    if len(texts) == 1 and "=" not in texts[0]:
        return read_rows(texts[0])
    pairs = [text.partition("=") for text in texts]
    if not all(sign for _, sign, _ in pairs):
        raise ArgumentError("layers are given once, or for attributes", hint="--layers hair=6-8 --layers smile=2,3")
    return {name.strip(): read_rows(text) for name, _, text in pairs} or None


def read_rows(text: str) -> list[int]:
    """Return the numbers of layers in a text such as 4-9 or 0,1,7.

    Raises:
        ArgumentError: the text has another form.
    """
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            rows = range(int(first), int(last) + 1) if dash else [int(first)]
            if not rows:
                raise ValueError
            numbers += rows
    except ValueError:
        raise ArgumentError(f"layers are written 4-9 or 0,1,7, not {text!r}") from None
    return numbers
