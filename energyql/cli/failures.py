"""End of a command that fails: one message on standard error, and an exit code.

Messages about wrong arguments of a command are written here, so that they do not depend on the version of typer.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args, get_origin

import typer
from rich.markup import escape

from energyql.cli.options import MORE, err
from energyql.errors import ArgumentError, CheckpointWarning, EnergyQLError, LabelWarning, QueryWarning, abridge
from energyql.plugins import blame
from energyql.vocabulary import closest

_NO_MEMORY = ("bad_alloc", "can't allocate memory", "out of memory", "annot allocate memory", "failed to map segment")
"""Parts of the messages of torch and of the system about a lack of memory."""
_NUMBERS = {int: "a whole number", float: "a number"}
"""Type of an option -> words for its value in an error message."""
_USAGE: Any = typer.BadParameter.__base__
"""Class of all errors of typer about arguments; its module differs between versions."""


def open_closed() -> None:
    """Open the null device in place of standard input, output or error, where the caller has closed the stream.

    Else the next file that is opened would get the number of the closed stream, and output would go into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


@contextmanager
def reporting_failures() -> Iterator[None]:
    """End the process with a message and an exit code if the block fails for a reason that is no bug of energyql.

    Such failures are an `EnergyQLError`, an error in a plugin, an `OSError`, wrong arguments of the command, and a lack
    of memory.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, so that a full disk is reported below
    except Exception as error:
        failure = _explain(error)
        if failure is None:
            raise
        if isinstance(error, OSError) and not blame(error):
            # Standard output cannot be written. At its end Python writes what is left of it, which would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # else the reader has ended, such as `head`
            err.print(f"[bold red]{type(failure).__name__}[/]: {escape(failure.for_command_line())}")
        sys.exit(failure.exit_code)


def _explain(error: Exception) -> EnergyQLError | None:
    """Convert the failures of `reporting_failures` to an `EnergyQLError`; `None` for any other error."""
    if isinstance(error, EnergyQLError):
        return error
    if isinstance(error, _USAGE):
        return explain_usage(error)
    if isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY):
        hint = "free some, or raise the limit of the process; fewer pictures and a smaller --batch-size take less"
        return EnergyQLError("there is not enough memory", hint=hint)
    if plugin_error := blame(error):
        return plugin_error
    if isinstance(error, OSError):  # of standard output or of a plugin: this package raises an EnergyQLError for a file
        what = f"open {error.filename}" if error.filename else "write standard output"
        return EnergyQLError(f"cannot {what}: {error.strerror or error}")
    return None


def explain_usage(error: Any) -> ArgumentError:
    """Convert an error of typer about the arguments of a command to an `ArgumentError`.

    Possible values are read from the declaration of the option, because the messages of typer differ by version.
    """
    message, _, hint = error.format_message().rstrip(".").partition(". ")
    parameter, ctx = getattr(error, "param", None), error.ctx
    if near := getattr(error, "possibilities", None):
        message, hint = error.message, f"did you mean {near[0]}?"  # the nearest comes first
    elif "extra argument" in message:
        takes_words = any(each.param_type_name == "argument" for each in ctx.command.params)
        hint = 'a text with blanks stands in quotes: "smile AND hat"' if takes_words else "a model stands after --model"
    elif message.startswith("Missing"):
        hint = getattr(parameter, "help", None) or ""
    elif parameter is not None:
        signature, name = inspect.signature(ctx.command.callback, eval_str=True), parameter.opts[0]
        inner, option = get_args(signature.parameters[parameter.name].annotation)
        kinds = (inner, *get_args(inner))  # of `int | None`, also its parts
        number = next((words for kind, words in _NUMBERS.items() if kind in kinds), "")
        low, high = option.min, option.max
        if choices := next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ()):
            quoted = re.search("'(.*)' is not one of", error.message)
            near_choice = closest(quoted[1], choices) if quoted else None
            message = f"{name} cannot be {quoted[1]!r}" if quoted else f"{name} has no such value"
            hint = f"{f'did you mean {near_choice}? ' if near_choice else ''}choose {', '.join(choices)}"
        elif number:
            limits = "" if low is None else f" of at least {low:,}" if high is None else f" from {low:,} to {high:,}"
            message = f"{name} must be {number}{limits}"
    flag = "--help-all" if getattr(parameter, "rich_help_panel", None) == MORE else "--help"
    advice = f"{ctx.command_path} {flag} describes the command" if ctx else ""
    message, hint = (text[:1].lower() + text[1:] for text in (message, hint.rstrip(".")))
    return ArgumentError(message, hint="\n".join(filter(None, (hint, advice))))


def show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Print a warning, of at most 2000 characters, on standard error; replaces `warnings.showwarning`.

    Warnings about queries and labels are printed as "note".
    """
    kind = "note" if issubclass(category, QueryWarning | LabelWarning) else category.__name__
    own = (QueryWarning, LabelWarning, CheckpointWarning)
    text = message.for_command_line() if isinstance(message, own) else str(message)
    err.print(f"[yellow]{kind}[/]: {escape(abridge(text, 2000))}")
