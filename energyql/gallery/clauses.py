"""The parts of a query, and the probability of each of them in each picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energyql.errors import Contradiction, LimitError
from energyql.language import And, Expr, Not, Or, Weight
from energyql.logic.satisfiability import conjuncts, noting_tautologies
from energyql.pipeline.result import Result
from energyql.pipeline.scoring import score
from energyql.vocabulary import Vocabulary

ALL = "all must hold"
MOST_CLAUSES = 24
"""A query of more parts is shown as one."""


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """One part of a query, and the probability by the heads that it holds, (n,); `None` if it is too large."""

    text: str
    probability: npt.NDArray[np.float64] | None

    def shown(self, index: int) -> str:
        """Return the probability in one picture, as text."""
        return "too large to compute" if self.probability is None else f"{self.probability[index]:.3f}"


def split_clauses(expr: Expr) -> tuple[str, list[Expr]]:
    """Return how the parts of a query are joined, in words, and the parts.

    Operands of AND, openly or under a NOT, must all hold. Any other query is split once, at its root.
    """
    parts = conjuncts(expr)
    if 1 < len(parts) <= MOST_CLAUSES:
        return ALL, parts
    root = parts[0] if len(parts) == 1 else expr
    while isinstance(root, Weight):
        root = root.operand
    if not root.children or isinstance(root, (Not, And)) or len(root.children) > MOST_CLAUSES:
        return "", [root]
    return "at least one must hold" if isinstance(root, Or) else "its parts", list(root.children)


def score_clauses(expr: Expr, result: Result, vocabulary: Vocabulary) -> tuple[str, list[Clause]]:
    """Return how the parts of a bound query are joined, and the exact probability of every part in every picture.

    A weight multiplies the energy of a part and does not change whether it holds, so it is left out.
    """
    joined, parts = split_clauses(expr)
    return joined, [Clause(str(part), probability(part, result, vocabulary)) for part in parts]


def probability(expr: Expr, result: Result, vocabulary: Vocabulary) -> npt.NDArray[np.float64] | None:
    """Return P(expr) in every picture of a result, (n,), from the predictions of the attribute heads.

    The expression is bound. `None` is returned if it is too large.
    """
    while isinstance(expr, Weight):
        expr = expr.operand
    with noting_tautologies():
        try:
            energy = score(expr, result.probabilities, vocabulary=vocabulary)
        except LimitError:
            return None
        except Contradiction:  # one way of many to satisfy a query may be impossible
            return np.zeros(len(result))
    return np.asarray(np.exp(-energy))
