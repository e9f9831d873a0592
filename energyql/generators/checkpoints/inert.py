"""What an unpickled file is made of, and how much of it there may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from energyql.generators.checkpoints.refusal import Refused

MAX_OPERATIONS = 300_000
"""Most pickle operations in one file, some tenths of a second; the largest official pickles take a fifth of it."""
MAX_KEY = 2**53

Names = Mapping[tuple[str, str], Callable[..., Any]]
"""(module, name) in the file -> the function of ours that stands for it."""


class Inert:
    """A value that a pickle may give a state to."""

    def set_state(self, state: Any) -> None:
        raise Refused(f"it gives a state to a {type(self).__name__}, which has none")


@dataclass(frozen=True, eq=False)
class Stand:
    """A name in the file that stands for a function of ours."""

    name: str
    build: Callable[..., Any]


@dataclass
class Budget:
    """Operations that a file, with the pickles nested in it, may still take."""

    file_size: int
    most: int = MAX_OPERATIONS
    spent: int = 0
    copied: int = 0

    def spend(self, operations: int = 1) -> None:
        """Count operations, one for each item where a container is copied."""
        self.spent += operations
        if self.spent > self.most:
            raise Refused(f"it takes more than {self.most} operations to read, far more than any known checkpoint")

    def copy(self, size: int) -> None:
        """Count bytes that are copied out of the file while it is read, so that nothing is copied again and again."""
        self.copied += size
        if self.copied > 2 * self.file_size:
            raise Refused("it copies its own content again and again")


def checked_key(key: Any) -> Any:
    """The key of a dict or member of a set, if it is one whose hash is quick."""
    if key is None or isinstance(key, str) or (isinstance(key, int) and -MAX_KEY < key < MAX_KEY):
        return key
    raise Refused(f"it uses a {type(key).__name__} as a key")
