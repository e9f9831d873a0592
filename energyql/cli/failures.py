"""How the command line ends where something fails: one message on standard error, and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO

from rich.markup import escape

from energyql.cli.options import err
from energyql.errors import EnergyQLError, LabelWarning, TautologyWarning
from energyql.numerics.memory import nearly_ended

_SPARE = 2 << 20
"""Bytes that are held until something fails: a message takes memory, too."""
_NO_MEMORY = ("bad_alloc", "can't allocate memory", "out of memory", "annot allocate memory", "failed to map segment")
"""Parts of the messages of torch and of the system where memory ends."""


@contextmanager
def reporting_failures() -> Iterator[None]:
    """End the process with a message where the block raises an error of energyql, or disk or memory end."""
    spare = [bytearray(_SPARE)]
    try:
        try:
            yield
        except BaseException:
            spare.clear()
            raise
        finally:
            sys.stdout.flush()  # here, where a full disk is an error that can be reported
    except EnergyQLError as error:
        _fail(type(error).__name__, str(error), error.exit_code)
    except OSError as error:  # of standard output: an error about a file is an EnergyQLError
        if _memory_ended(error):
            _fail_for_want_of_memory()
        # Else Python tries to write the rest once more when it ends, and fails once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader has gone, as `head` does
            sys.exit(1)
        place = error.filename or "standard output"
        _fail(EnergyQLError.__name__, f"cannot write {place}: {error.strerror or error}", EnergyQLError.exit_code)
    except Exception as error:
        if not _memory_ended(error):
            raise
        error.__traceback__ = None  # what its frames hold is free again for the message
        _fail_for_want_of_memory()


def _memory_ended(error: Exception) -> bool:
    """Whether an error comes from the end of memory: it says so, or the process reached its limit.

    At the limit anything fails, in words of its own: oneDNN "could not create a primitive", and Python finds errors in
    the syntax of modules that it cannot hold.
    """
    try:
        return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY) or nearly_ended()
    except MemoryError:  # not even enough to find out
        return True


def _fail_for_want_of_memory() -> NoReturn:
    hint = "free some, or raise the limit of the process; fewer pictures and a smaller --batch-size take less"
    _fail(EnergyQLError.__name__, f"there is not enough memory\n{hint}", EnergyQLError.exit_code)


def _fail(kind: str, message: str, code: int) -> NoReturn:
    try:
        err.print(f"[bold red]{kind}[/]: {escape(message)}")
    except Exception:  # there is not even enough memory for a message in colours
        with suppress(OSError):
            os.write(2, f"{kind}: {message}\n".encode())
        os._exit(code)
    sys.exit(code)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line on standard error; the arguments are those of `warnings.showwarning`."""
    kind = "note" if issubclass(category, TautologyWarning | LabelWarning) else category.__name__
    err.print(f"[yellow]{kind}[/]: {escape(str(message))}")
