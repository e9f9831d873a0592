"""The commands `energyql edit`, which changes pictures, `invert`, which finds their latents, and `animate`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import WRITTEN, Written, out, out_option, read_names, read_pairs, read_rows, refuse_files
from energyql.editing.arguments import EditOptions, EditSettings, InvertOptions, InvertSettings
from energyql.errors import ArgumentError
from energyql.files import PICTURE_SUFFIXES, check_destination, read_whole, sole_writer

if TYPE_CHECKING:
    from energyql.editing.settings import Preset


def read_keep(text: str) -> str | tuple[str, ...]:
    """Attributes to keep, in a text such as "smile, hair"; "everything" stays as it is."""
    return text if text == "everything" else read_names(text)


def read_layers(texts: list[str] | None) -> list[int] | dict[str, list[int]] | None:
    """Layers of the generator that edits may change, from values of --layers; `None` if there are none.

    One text such as "4-9" or "0,1,7" is for all attributes; texts such as "hair=6-8" give a dict, attribute -> layers.

    Raises:
        ArgumentError: a text has neither form, or there are texts of both forms.
    """
    texts = texts or []
    if len(texts) == 1 and "=" not in texts[0]:
        return read_rows(texts[0])
    if not all("=" in text for text in texts):
        raise ArgumentError("layers are given once, or for attributes", hint="--layers hair=6-8 --layers smile=2,3")
    pairs = read_pairs("--layers", texts, "ATTRIBUTE=LAYERS", "hair=6-8")
    return {name.strip(): read_rows(text) for name, text in pairs.items()} or None


_WRITTEN = {**WRITTEN, "keep": Written(str, read_keep), "layers": Written(list[str] | None, read_layers)}
_OF_EDITS = [name for name in EditOptions.__annotations__ if name != "identity"]
_OF_INVERSIONS = [name for name in InvertOptions.__annotations__ if name not in ("perceptual", "settings")]


@options.with_options(*_OF_EDITS, record=EditSettings, written=_WRITTEN)
def edit(
    queries: Annotated[list[str], typer.Argument(metavar="QUERY...", callback=refuse_files)],
    start: Annotated[list[str] | None, typer.Option("--start", "-s")] = None,
    save_to: Annotated[Path, out_option()] = Path("edit.png"),
    n: Annotated[int | None, typer.Option("-n", min=1)] = None,
    weight: Annotated[list[str] | None, options.more(metavar="NAME=NUMBER")] = None,
    *,
    source: options.Source,
    device: str = "auto",
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Edit pictures step by step, keep all other attributes, and report those that changed nevertheless.

    Args:
        queries: One query per step, in this order.
        start: A seed or the path of a photograph, repeated for several; or a folder written by generate, edit or
            invert. By default seed 0.
        save_to: A filmstrip (.png, .jpg), an animation (.gif, .webp), or a folder for everything.
        n: Number of pictures of one seed.
        weight: A weight of the preset, repeated for several: near_z=0.01.
    """
    from energyql.editing.edit import edit as run
    from energyql.editing.filmstrip import ANIMATION_SUFFIXES

    with _writing(save_to, "an edit", sorted({*PICTURE_SUFFIXES, *ANIMATION_SUFFIXES})) as is_folder:
        settings["preset"] = read_preset(settings["preset"], weight or [])
        begin, model = read_start(start or ["0"]), source.open(device)
        edited = run(begin, queries, n=n, model=model, device=device, progress=not quiet, **settings)
        if is_folder:
            edited.save(save_to)
        elif save_to.suffix.lower() in ANIMATION_SUFFIXES:
            edited.animate(save_to, progress=not quiet)
        else:
            edited.save_filmstrip(save_to)
    if not quiet:
        out.print(f"{escape(edited.summary())}\nSaved {escape(str(save_to))}")


@options.with_options(*_OF_INVERSIONS, record=InvertSettings)
def invert(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...")],
    save_to: Annotated[Path, out_option()] = Path("inverted"),
    *,
    source: options.Source,
    device: str = "auto",
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Find the latents that reproduce given pictures.

    Args:
        pictures: Cropped square around the centre.
        save_to: A folder, for edit --start; or a picture of the comparison (.png, .jpg, .webp).
    """
    from energyql.editing.invert import invert as run

    with _writing(save_to, "an inversion", PICTURE_SUFFIXES):
        inverted = run(
            list(pictures), model=source.open(device), device=device, progress=not quiet, **settings
        )  # fmt: skip
        inverted.save(save_to)
    if not quiet:
        for path, error, drawable in zip(pictures, inverted.pixel_error, inverted.drawable, strict=True):
            other = "" if drawable else "; it is another picture, this generator cannot draw it"
            out.print(f"{escape(str(path))}: mean absolute pixel error {error:.3f} of the range{other}")
        out.print(f"Saved {escape(str(save_to))}")


@options.with_options("truncation", "condition", "seed", "allow_weak")
def animate(
    queries: Annotated[list[str], typer.Argument(metavar="QUERY QUERY...", callback=refuse_files)],
    save_to: Annotated[Path, out_option()] = Path("traversal.webp"),
    n: Annotated[int, typer.Option("-n", min=1, max=64)] = 4,
    frames: Annotated[int, typer.Option(min=1, max=200)] = 16,
    *,
    source: options.Source,
    device: str = "auto",
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Write an animation from samples of one query to samples of the next.

    Args:
        queries: At least two, in order.
        save_to: Ends in .gif or .webp.
        n: Paths, side by side.
        frames: Frames from one query to the next.
    """
    from energyql.editing.filmstrip import animate as run
    from energyql.editing.filmstrip import check_animation
    from energyql.pipeline.plan import plan_query
    from energyql.pipeline.run import draw
    from energyql.pipeline.session import open_session

    check_animation(save_to)
    if len(queries) < 2:
        hint = 'name two or more: energyql animate "smile" "frown"'
        raise ArgumentError("an animation needs at least two queries", hint=hint)
    opened = source.open(device)
    plans = [plan_query(open_session(opened, device), query, **settings) for query in queries]
    stops = [draw(plan, n, progress=not quiet) for plan in plans]
    run(stops, save_to, model=opened, rows=range(n), frames=frames, device=device, progress=not quiet)
    if not quiet:
        out.print(f"Saved {escape(str(save_to))}")


@contextmanager
def _writing(save_to: Path, work: str, suffixes: Sequence[str]) -> Iterator[bool]:
    """Check that a result can be saved; lock `save_to` if it is a folder, and yield whether it is one."""
    from energyql.editing.folder import check_place

    check_destination(save_to, suffixes)
    is_folder = save_to.is_dir() or not save_to.suffix
    with sole_writer(save_to, work) if is_folder else nullcontext():
        if is_folder:
            check_place(save_to)
        yield is_folder


def read_start(texts: list[str]) -> int | list[int] | Path | list[Path]:
    """What an edit starts from: a seed, several seeds, a folder of saved results, or paths of pictures.

    A text is a seed if it is a whole number. A single text that is the path of a folder is a folder of results.

    Raises:
        ArgumentError: seeds and pictures are mixed, or a number is no seed.
    """
    if len(texts) == 1 and os.path.isdir(texts[0]):
        return Path(texts[0])
    seeds = [read_whole(text) for text in texts]
    for text, seed in zip(texts, seeds, strict=True):
        if seed is None and re.fullmatch(r"[-+]?(?:\d+|\d*\.\d+)", text) and not os.path.exists(text):
            raise ArgumentError(f"{text} is not a seed", hint="a seed is a whole number that is not negative")
    whole = [seed for seed in seeds if seed is not None]
    if len(whole) == len(texts):
        return whole if len(whole) > 1 else whole[0]
    if whole:
        hint = "give --start with seeds, or with paths of photographs"
        raise ArgumentError("an edit starts from seeds or from photographs, not from both", hint=hint)
    return [Path(text) for text in texts]


def read_preset(name: str, weights: list[str]) -> Preset:
    """Preset (settings of edits) called `name`, with the weights in texts such as "near_z=0.01" replaced.

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
