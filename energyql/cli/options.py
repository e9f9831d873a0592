"""Arguments, options and consoles that several commands share. Imports no torch, so that help is printed at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from energyql.errors import ArgumentError

if TYPE_CHECKING:
    from energyql.pipeline.model import Model as Loaded

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

Generator = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The generator, where the folder only names it: module:factory, or a plugin."),
]
Judge = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A judge in place of the folder's: module:function, or a plugin; or none."),
]
AllowPlugins = Annotated[
    bool, typer.Option("--allow-plugins", help="Import the generator and the judge that the model folder names.")
]
Query = Annotated[str, typer.Argument(help='A query, such as "smile AND NOT (glasses OR beard)".')]
Model = Annotated[str, typer.Option("--model", "-m", help="A packaged model, or a model folder.")]
Semantics = Annotated[str, typer.Option(help="exact, product or lace.")]
Sampler = Annotated[
    str, typer.Option(help="slice+descent, slice, ode, langevin, predictor-corrector, published-ode ...")
]
Strength = Annotated[
    float | None, typer.Option(help="Multiplies the energy: larger values are more certain and less varied.")
]
Truncation = Annotated[
    float | None,
    typer.Option(help="psi in 0..1: smaller values are less varied and safer; by default the model's own."),
]
Label = Annotated[
    str | None, typer.Option(help="Label of a conditional generator: a class, or numbers separated by commas.")
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same pictures.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Samples computed together.")]
AllowWeak = Annotated[
    str, typer.Option(metavar="NAMES", help="Attributes, separated by commas, to use although their heads are weak.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress bar and no report.")]


def open_model(model: str, generator: str | None, judge: str | None, allow_plugins: bool, device: str) -> str | Loaded:
    """Return a model for `model=`: loaded where code is named or allowed, else its name, which is loaded later."""
    if generator is None and judge is None and not allow_plugins:
        return model
    from energyql.pipeline.model import choose_device, load_model

    return load_model(model, choose_device(device), generator=generator, judge=judge, allow_plugins=allow_plugins)


def out_option(help_text: str) -> Any:
    """Return the option --out of a command."""
    return typer.Option("--out", "-o", help=help_text)


def read_label(text: str | None) -> int | list[float] | None:
    """Parse a label: a class, or a list of numbers.

    Raises:
        ArgumentError: the text is neither.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",") if part.strip()] if "," in text or "." in text else int(text)
    except ValueError:
        raise ArgumentError(f"a label is a class, such as 3, or numbers such as 0.5,0.5, not {text!r}") from None


def read_names(text: str) -> tuple[str, ...]:
    """Parse names that are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
