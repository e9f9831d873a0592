"""End of a command that fails: one message on standard error, and an exit code.

Messages about wrong arguments of a command are the same for every version of typer.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NoReturn, TextIO, get_args, get_origin

import typer
from rich.markup import escape

from energyql.cli.options import err
from energyql.errors import ArgumentError, EnergyQLError, LabelWarning, QueryWarning, abridge
from energyql.plugins import blame
from energyql.vocabulary import closest

_NO_MEMORY = ("bad_alloc", "can't allocate memory", "out of memory", "annot allocate memory", "failed to map segment")
"""Parts of the messages of torch and of the system about a lack of memory."""
_USAGE: Any = typer.BadParameter.__base__
"""Class of all errors of typer about the arguments of a command; its module differs between versions."""


def open_closed() -> None:
    """Open the null device in place of standard input, output and error if the caller has closed them.

    Without this Python has no object for them, and the next file that is opened would take their place.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


@contextmanager
def reporting_failures() -> Iterator[None]:
    """End the process with a message if the block raises an error of energyql or of a plugin, or lacks disk or memory.

    Any other error is a bug, and is raised again.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, so that a full disk is reported below
    except EnergyQLError as error:
        _fail(type(error).__name__, str(error), error.exit_code)
    except OSError as error:  # of standard output or of a plugin: this package raises an EnergyQLError for a file
        if _memory_ended(error):
            _fail_for_want_of_memory()
        _fail_in_named_code(error)
        # Python writes the rest of the output when it ends, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader has ended, such as `head`
            sys.exit(1)
        what = f"open {error.filename}" if error.filename else "write standard output"
        _fail(EnergyQLError.__name__, f"cannot {what}: {error.strerror or error}", EnergyQLError.exit_code)
    except Exception as error:
        if isinstance(error, _USAGE):
            wrong = explain_usage(error)
            _fail(type(wrong).__name__, str(wrong), wrong.exit_code)
        if not _memory_ended(error):
            _fail_in_named_code(error)
            raise
        _fail_for_want_of_memory()


def explain_usage(error: Any) -> ArgumentError:
    """Return an `ArgumentError` for an error of typer about the arguments of a command.

    The values that an option may have are read from its declaration, because typer's messages depend on its version.
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
        declared = inspect.signature(ctx.command.callback, eval_str=True).parameters[parameter.name].annotation
        option = parameter.opts[0]
        if choices := _choices(declared):
            quoted = re.search("'(.*)' is not one of", error.message)
            near_choice = closest(quoted[1], choices) if quoted else None
            message = f"{option} cannot be {quoted[1]!r}" if quoted else f"{option} has no such value"
            hint = f"{f'did you mean {near_choice}? ' if near_choice else ''}choose {', '.join(choices)}"
        elif number := _number(declared):
            message = f"{option} must be {number}"
    advice = f"{ctx.command_path} --help describes the command" if ctx else ""
    message, hint = (text[:1].lower() + text[1:] for text in (message, hint.rstrip(".")))
    return ArgumentError(message, hint="\n".join(filter(None, (hint, advice))))


def _choices(declared: Any) -> tuple[str, ...]:
    """Return the values of the `Literal` in the annotation of an option; none without a `Literal`."""
    if get_origin(declared) is Literal:
        return get_args(declared)
    return next((values for part in get_args(declared) if (values := _choices(part))), ())


def _number(declared: Any) -> str:
    """Return which numbers an option may be, in words; "" if it is no number."""
    inner, option = get_args(declared)
    kinds = {int: "a whole number", float: "a number"}
    kind = next((words for kind, words in kinds.items() if kind in (inner, *get_args(inner))), "")
    low, high = option.min, option.max
    if not kind or low is high is None:
        return kind
    return f"{kind} from {low:,} to {high:,}" if low is not None and high is not None else f"{kind} of at least {low:,}"


def _memory_ended(error: Exception) -> bool:
    """Return whether an error comes from a lack of memory."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)


def _fail_for_want_of_memory() -> NoReturn:
    hint = "free some, or raise the limit of the process; fewer pictures and a smaller --batch-size take less"
    _fail(EnergyQLError.__name__, f"there is not enough memory\n{hint}", EnergyQLError.exit_code)


def _fail_in_named_code(error: Exception) -> None:
    """End the process with a message if an error comes from code of a plugin."""
    if (plugin_error := blame(error)) is not None:
        _fail(type(plugin_error).__name__, str(plugin_error), plugin_error.exit_code)


def _fail(kind: str, message: str, code: int) -> NoReturn:
    err.print(f"[bold red]{kind}[/]: {escape(message)}")
    sys.exit(code)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning on standard error; the arguments are those of `warnings.showwarning`."""
    kind = "note" if issubclass(category, QueryWarning | LabelWarning) else category.__name__
    err.print(f"[yellow]{kind}[/]: {escape(abridge(str(message), 2000))}")
