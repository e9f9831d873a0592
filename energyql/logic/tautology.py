"""Saying that a query is always true: as a warning, or to whoever in this thread wants to hear it instead."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from energyql.errors import TautologyWarning

# Not `warnings.catch_warnings`: it changes the filters of the whole process, so threads would have to take turns.
_NOTES: ContextVar[list[str] | None] = ContextVar("tautologies", default=None)


@contextmanager
def noting_tautologies() -> Iterator[list[str]]:
    """Collect what would be warned of in this thread; no `TautologyWarning` leaves the block."""
    notes: list[str] = []
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def warn_tautology(message: str) -> None:
    """Warn, in the name of the caller's caller, or add to the notes of `noting_tautologies`."""
    notes = _NOTES.get()
    if notes is None:
        warnings.warn(TautologyWarning(message), stacklevel=3)
    else:
        notes.append(message)
