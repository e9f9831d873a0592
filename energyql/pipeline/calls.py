"""The calls of the generator in a run: their number, and a budget at which the run ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from energyql.errors import NotAcceptedError


@dataclass(slots=True)
class Calls:
    """A counter of the pictures that a generator draws for a query. Pictures beyond a budget are refused.

    Attributes:
        made: number of calls so far, one for each picture; a picture that autograd differentiates counts as two.
        start: value of `made` at the start of the run.
        most: value of `made` at which the run ends.
        refused: whether pictures were refused.
    """

    made: int = 0
    start: int = 0
    most: float = math.inf
    refused: bool = False
    _told: int = 0

    @property
    def left(self) -> float:
        """Number of calls that may still be made."""
        return self.most - self.made

    def untold(self) -> int:
        """Return the number of calls since the start of the run, or since the last call of this method.

        So each result of a run can state the calls that were made for it.
        """
        before, self._told = self._told, self.made
        return self.made - before

    @contextmanager
    def at_most(self, budget: int | None) -> Iterator[None]:
        """Context manager for a run: the block can make at most `budget` calls; `None` for any number."""
        self.start = self._told = self.made
        most = math.inf if budget is None else self.made + budget
        self.most, self.refused = most, False
        try:
            yield
        finally:
            if self.most == most:  # a stream that was abandoned may end during a later run, whose budget stays
                self.most = math.inf

    def counted(self, draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return a function that draws like `draw`, a function from w to pictures, and counts its pictures.

        The function raises a `NotAcceptedError`, and draws nothing, if fewer calls are left than it would make.
        """

        def counting(w: Tensor, *arguments: object, **options: object) -> Tensor:
            calls = len(w) * (2 if w.requires_grad else 1)
            if calls > self.left:
                self.refused = True
                raise NotAcceptedError(
                    "the budget of calls of the generator ended before a sample was complete",
                    hint="raise budget (--budget), or ask for less; energyql explain QUERY --pilot estimates the calls",
                )
            self.made += calls
            return draw(w, *arguments, **options)

        return counting
