"""What one run has used so far: calls of the generator, against a budget, and pictures that a verifier saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from energyql.errors import BudgetError, either


@dataclass
class Ledger:
    """Counts of one run, which is made with it and ends with it.

    Attributes:
        budget: most calls of the generator; infinity for no limit.
        calls: calls so far, one for each picture; a picture that autograd differentiates counts as two.
        pilot_calls: those of pilot runs.
        ended: whether pictures were refused because the budget does not suffice.
        drawn: pictures that the verifier decided on.
        kept: those that it accepted.
    """

    budget: float = math.inf
    calls: int = 0
    pilot_calls: int = 0
    ended: bool = False
    drawn: int = 0
    kept: int = 0
    _told: int = 0
    _piloting: bool = False

    @property
    def left(self) -> float:
        """Number of calls that may still be made."""
        return self.budget - self.calls

    def untold(self) -> int:
        """Return the number of calls since this method was last called."""
        before, self._told = self._told, self.calls
        return self.calls - before

    @contextmanager
    def pilot(self) -> Iterator[None]:
        """Context for a pilot run, whose calls an error about the budget states."""
        self._piloting = True
        try:
            yield
        finally:
            self._piloting = False

    def counted(self, draw: Callable[..., Tensor], cost: Callable[[Tensor], int] = len) -> Callable[..., Tensor]:
        """Return `draw`, a function from w to pictures, with its pictures counted.

        `cost` maps w to the number of pictures that go through the generator's network. The returned function raises a
        `BudgetError`, and draws nothing, if too few calls are left.
        """

        def counting(w: Tensor, *arguments: object, **options: object) -> Tensor:
            calls = cost(w) * (2 if w.requires_grad else 1)
            if calls > self.left:
                self.ended = True
                pilot = self.pilot_calls and f"; a pilot run took {self.pilot_calls:,} of {self.budget:,.0f} calls"
                raise BudgetError(
                    f"the budget of calls of the generator ended before a sample was complete{pilot or ''}",
                    hint=f"raise {either('budget', '--budget')}, or ask for less; "
                    f"{either('explain(query, pilot=True)', 'energyql explain QUERY --pilot')} estimates the calls",
                )
            self.calls += calls
            self.pilot_calls += calls if self._piloting else 0
            return draw(w, *arguments, **options)

        return counting
