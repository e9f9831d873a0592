"""What a page has sections for, as data. `energyql.gallery.cards` makes markup of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energyql.gallery.clauses import Clause
from energyql.pipeline.queries import CheckedQuery
from energyql.pipeline.result import Result

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One query with its pictures.

    Args:
        query: what was asked.
        result: what was drawn.
        joined: how the clauses belong together, such as "all must hold".
        clauses: the parts of the query and how sure they are.
        same_as: the number of an earlier query on the page that means the same.
    """

    query: CheckedQuery
    result: Result
    joined: str
    clauses: list[Clause]
    same_as: int | None = None

    @property
    def results(self) -> list[Result]:
        return [self.result]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One combination of a truth table.

    Args:
        values: whether each literal is true.
        query: the combination as a query, canonical.
        result: its pictures; `None` for a contradiction.
        reason: why nothing can satisfy the combination.
    """

    values: tuple[bool, ...]
    query: str
    result: Result | None
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class TruthTable:
    """Every combination of some literals. Pictures in one column start from one latent.

    Args:
        literals: their canonical texts.
        rows: the combinations, all true first, the last literal changing fastest.
    """

    literals: tuple[str, ...]
    rows: list[Row]

    @property
    def results(self) -> list[Result]:
        return [row.result for row in self.rows if row.result is not None]


@dataclass(frozen=True, slots=True, eq=False)
class Traversal:
    """Ways through the latent space, from samples of one query to samples of another.

    Args:
        start, end: the two queries.
        times: how far along each step is, from 0 to 1.
        result: the pictures: all steps from the first start latent, then all from the second, and so on.
        probability: of both queries in every picture.
        holds: whether the judge says that each of them holds.
    """

    start: CheckedQuery
    end: CheckedQuery
    times: list[float]
    result: Result
    probability: tuple[Numbers | None, Numbers | None]
    holds: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]

    @property
    def paths(self) -> int:
        """How many ways there are."""
        return len(self.result) // len(self.times)

    @property
    def results(self) -> list[Result]:
        return [self.result]


def answers(section: Section) -> list[Result]:
    """The results that are meant to satisfy their query; on a way from one query to another most pictures are not."""
    return [] if isinstance(section, Traversal) else section.results


Section = Answer | TruthTable | Traversal
