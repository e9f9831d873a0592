"""The command that opens a web page for queries: `energyql studio`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from energyql.errors import ArgumentError
from energyql.models import DEFAULT_MODEL

out = Console(highlight=False, soft_wrap=True, emoji=False)


def studio(
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="A packaged model, or a model folder; again for more.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen. The default can be reached from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8420,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name under which browsers may ask for the studio; again for more.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    most: Annotated[int, typer.Option("--max-n", min=1, max=512, help="Pictures of one request.")] = 64,
    seconds: Annotated[float, typer.Option("--timeout", min=1, help="Seconds that one request may run.")] = 120,
    waiting: Annotated[int, typer.Option("--queue", min=1, help="Requests that may wait.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
) -> None:
    """Open a web page for queries: pictures as you ask, edits step by step, links that restore everything.

    The page and its HTTP API need nothing from elsewhere, and only this machine can reach them unless --host says
    otherwise. See docs/studio.md.
    """
    try:
        from energyql.studio.limits import Limits
        from energyql.studio.serving import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("energyql"):
            raise
        raise ArgumentError(
            f"the studio needs {error.name}, which is not installed", hint='pip install "energyql[studio]"'
        ) from None

    def ready(address: str) -> None:
        out.print(f"The studio is at [bold]{escape(address)}[/]. Ctrl+C ends it.")
        if open_page:
            typer.launch(address)

    models = model or [DEFAULT_MODEL]
    out.print(f"Loading {escape(', '.join(models))}...")
    serve(
        models, host=host, port=port, device=device, allowed=allow_host or [], ready=ready,
        limits=Limits(pictures=most, seconds=seconds, waiting=waiting),
    )  # fmt: skip
