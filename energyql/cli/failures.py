"""How the command line ends where something fails: one message on standard error, and an exit code.

Wrong words of a command are explained here as well, in one way for every option and every version of typer.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NoReturn, TextIO, get_args, get_origin, get_type_hints

import typer
from rich.markup import escape

from energyql.cli.options import err
from energyql.errors import ArgumentError, EnergyQLError, LabelWarning, QueryWarning, abridge
from energyql.plugins import blame
from energyql.vocabulary import closest

_NO_MEMORY = ("bad_alloc", "can't allocate memory", "out of memory", "annot allocate memory", "failed to map segment")
"""Parts of the messages of torch and of the system where memory ends."""
_USAGE: Any = typer.BadParameter.__base__
"""Class of all errors of typer about the words of a command; its module differs between versions."""


def open_closed() -> None:
    """Open the null device in place of standard input, output and error that the caller has closed.

    Without this Python has no object for them, and the next file that is opened would take their place.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


@contextmanager
def reporting_failures() -> Iterator[None]:
    """End the process with a message where the block raises an error of energyql, or disk or memory end."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, where a full disk is an error that can be reported
    except EnergyQLError as error:
        _fail(type(error).__name__, str(error), error.exit_code)
    except OSError as error:  # of standard output, or of somebody's code: ours about a file is an EnergyQLError
        if _memory_ended(error):
            _fail_for_want_of_memory()
        _fail_in_named_code(error)
        # Else Python tries to write the rest once more when it ends, and fails once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader has gone, as `head` does
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
    """Return an error of typer about the words of a command in the words of this package.

    Values that an option takes are read from its declaration, because the words of typer change with its version.
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
        declared = get_type_hints(ctx.command.callback, include_extras=True)[parameter.name]
        option = parameter.opts[0]
        if choices := _choices(declared):
            quoted = re.search("'(.*)' is not one of", error.message)
            found = closest(quoted[1], choices) if quoted else None
            message = f"{option} cannot be {quoted[1]!r}" if quoted else f"{option} has no such value"
            hint = f"{f'did you mean {found}? ' if found else ''}choose {', '.join(choices)}"
        elif number := _number(declared):
            message = f"{option} must be {number}"
    shown = f"{ctx.command_path} --help describes the command" if ctx else ""
    message, hint = (text[:1].lower() + text[1:] for text in (message, hint.rstrip(".")))
    return ArgumentError(message, hint="\n".join(filter(None, (hint, shown))))


def _choices(declared: Any) -> tuple[str, ...]:
    """The names of a `Literal` in the type of an option."""
    if get_origin(declared) is Literal:
        return get_args(declared)
    return next((found for part in get_args(declared) if (found := _choices(part))), ())


def _number(declared: Any) -> str:
    """Which numbers an option takes, in words; "" if it takes none."""
    inner, option = get_args(declared)
    kinds = {int: "a whole number", float: "a number"}
    kind = next((words for kind, words in kinds.items() if kind in (inner, *get_args(inner))), "")
    low, high = option.min, option.max
    if not kind or low is high is None:
        return kind
    return f"{kind} from {low:,} to {high:,}" if low is not None and high is not None else f"{kind} of at least {low:,}"


def _memory_ended(error: Exception) -> bool:
    """Whether an error comes from the end of memory."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)


def _fail_for_want_of_memory() -> NoReturn:
    hint = "free some, or raise the limit of the process; fewer pictures and a smaller --batch-size take less"
    _fail(EnergyQLError.__name__, f"there is not enough memory\n{hint}", EnergyQLError.exit_code)


def _fail_in_named_code(error: Exception) -> None:
    """End the process if an exception was raised by code that the user named."""
    if (told := blame(error)) is not None:
        _fail(type(told).__name__, str(told), told.exit_code)


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
