"""The command that serves a web page for queries: `energyql studio`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import out
from energyql.errors import ArgumentError
from energyql.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from energyql.studio.serving import Listening


def studio(
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="A packaged model, or a model folder; repeat for more.")
    ] = None,
    generator: options.Generator = None,
    judge: options.Judge = None,
    allow_plugins: options.AllowPlugins = False,
    host: options.Host = "127.0.0.1",
    port: options.Port = 8420,
    allow_host: options.AllowHost = None,
    token: options.Token = None,
    open_page: options.OpenPage = False,
    most: Annotated[int, typer.Option("--max-n", min=1, max=512, help="Pictures of one request.")] = 64,
    seconds: Annotated[float, typer.Option("--timeout", min=1, help="Seconds that one request may run.")] = 120,
    waiting: Annotated[int, typer.Option("--queue", min=1, help="Requests that may wait.")] = 8,
    device: options.Device = "auto",
) -> None:
    """Serve a web page for queries: pictures, edits step by step, links that restore everything.

    The page loads nothing from other servers. Only this machine can reach it, unless --host says otherwise. See
    docs/studio.md.
    """
    with options.needing_studio("the studio"):
        from energyql.studio.limits import Limits
        from energyql.studio.serving import serve

    def ready(listening: Listening) -> None:
        options.announce(listening, open_page, before="The studio is at", after="Ctrl+C ends it.")

    from energyql.pipeline.model import load_model

    models = model or [DEFAULT_MODEL]
    if len(models) > 1 and (generator, judge) != (None, None):
        raise ArgumentError("--generator and --judge are for one model", hint="for several, --allow-plugins")
    out.print(f"Loading {escape(', '.join(models))}...")
    serve(
        models, host=host, port=port, device=device, allowed=allow_host or [], token=token, ready=ready,
        load=partial(load_model, generator=generator, judge=judge, allow_plugins=allow_plugins),
        limits=Limits(pictures=most, seconds=seconds, waiting=waiting),
    )  # fmt: skip
