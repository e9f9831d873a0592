"""Arguments, options and consoles that several commands share. Imports no torch, so that help is printed at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from energyql.errors import ArgumentError

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

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
Host = Annotated[str, typer.Option(help="Address to listen on. By default only this machine can reach it.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
AllowHost = Annotated[list[str] | None, typer.Option(help="Another allowed host name; repeat for more.")]
OpenPage = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]
AllowWeak = Annotated[
    str, typer.Option(metavar="NAMES", help="Attributes, separated by commas, to use although their heads are weak.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress bar and no report.")]


def out_option(help_text: str) -> Any:
    """Return the option --out of a command."""
    return typer.Option("--out", "-o", help=help_text)


@contextmanager
def needing_studio(what: str) -> Iterator[None]:
    """Raise an `ArgumentError` that says how to install it where the block imports a library of the studio in vain."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("energyql"):
            raise
        raise ArgumentError(
            f"{what} needs {error.name}, which is not installed", hint='pip install "energyql[studio]"'
        ) from None


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
