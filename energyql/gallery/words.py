"""Queries and results in words and numbers, for pages; parts of queries and their probability in each picture."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.errors import Contradiction, LimitError
from energyql.language import And, Expr, Not, Or, Weight, draw_tree
from energyql.language.lexical import keywords
from energyql.logic.satisfiability import conjuncts, noting_tautologies
from energyql.pipeline.queries import CheckedQuery
from energyql.pipeline.result import HOLDS, Result
from energyql.pipeline.score import score
from energyql.pipeline.settings import DEFAULTS, settings_of
from energyql.render.graph import graph_width
from energyql.render.markup import Markup
from energyql.sampling.registry import sampler_text, sampler_words
from energyql.vocabulary import Vocabulary

HALF = 430
"""Width of the widest drawing that stands beside the clauses, in pixels."""

_WORDS = "|".join(sorted(keywords()))
_TOKEN = re.compile(
    rf'(?P<name>"(?:[^"\\]|\\.)*")|(?P<word>\b(?:{_WORDS})\b)|(?P<number>(?<![\w.])[+-]?\d[\d.]*(?:e[+-]?\d+)?)'
)


def query_parts(text: str) -> list[tuple[str, str]]:
    """Split a canonical query into pairs (kind, text), for highlighting.

    Kinds are `name` (a name in quotes), `word` (a keyword), `number`, and the empty text for all else.
    """
    parts, end = [], 0
    for match in _TOKEN.finditer(text):
        parts += [("", text[end : match.start()]), (match.lastgroup or "", match[0])]
        end = match.end()
    return [part for part in (*parts, ("", text[end:])) if part[1]]


def attribute_names(*exprs: Expr) -> list[str]:
    """Return the attributes of some queries, each once, in the order of their texts."""
    names = (getattr(node, "name", None) for expr in exprs for node in expr.walk())
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def draw_query(query: CheckedQuery) -> tuple[str, Markup, bool]:
    """Return a caption, a drawing, and whether the drawing is too wide to stand beside the clauses.

    The drawing shows the compiled circuit of the query, or its tree if the semantics has no circuit.
    """
    caption, drawing = "Compiled circuit", query.rule.draw()
    if drawing is None:
        caption, drawing = "Tree, which this semantics scores as written", draw_tree(query.expr)
    return caption, drawing, graph_width(drawing) > HALF


def verdict(verdicts: Sequence[tuple[str, bool | None]]) -> str:
    """Return the judge's verdict in words, on one query or on two, which are called A and B.

    Args:
        verdicts: pairs (query, whether it holds, `None` if not judged).
    """
    if any(holds is None for _, holds in verdicts):
        return "not judged"
    if len(verdicts) == 1:
        return f"the query {HOLDS[verdicts[0][1]]}"
    true = [letter for letter, (_, holds) in zip("AB", verdicts, strict=True) if holds]
    return {0: "neither A nor B holds", 1: f"{''.join(true)} holds", 2: "A and B hold"}[len(true)]


def yes_no(holds: bool | None) -> str:
    """Return the CSS class of an element that shows this verdict."""
    return "unjudged" if holds is None else "yes" if holds else "no"


def share(results: Sequence[Result]) -> tuple[int, int] | None:
    """Return the number of pictures that satisfy their query, and the number judged; `None` if none was judged."""
    judged = [result.satisfied for result in results if result.satisfied is not None]
    return (int(sum(holds.sum() for holds in judged)), sum(map(len, judged))) if judged else None


def doubtful(results: Sequence[Result]) -> int:
    """Return the number of doubtful pictures; see `Result`."""
    return sum(int(result.doubtful.sum()) for result in results)


def percent(part: int, whole: int) -> str:
    """Return a share in percent, rounded; 100 % only for the whole."""
    rounded = round(100 * part / whole) if whole else 0
    return f"{min(rounded, 99) if part < whole else rounded} %"


def value(result: Result, index: int) -> str:
    """Return the probability of the query in picture `index` (`P 0.950`), or its energy if it has none (`E 0.051`)."""
    probability = result.probability
    return f"E {result.energy[index]:.3f}" if probability is None else f"P {probability[index]:.3f}"


def energy_text(result: Result, index: int) -> str:
    """Return the energy of picture `index` in nats, with the probability of the query if it has one."""
    probability = result.probability
    return f"{result.energy[index]:.4g}" + ("" if probability is None else f" (P {probability[index]:.4f})")


def sort_key(energy: float) -> str:
    """Return an energy as a number of JavaScript; NaN becomes infinity."""
    return "Infinity" if math.isnan(energy) else str(energy).replace("inf", "Infinity")


def plural(count: int, noun: str, several: str = "") -> str:
    """Return a count with its noun, such as `3 pictures`; `several` is an irregular plural."""
    return f"{count:,} {noun if count == 1 else several or f'{noun}s'}"


def settings(results: Sequence[Result]) -> list[str]:
    """Return texts for one line: the mean energy of some results, and the settings that they share."""
    if not results:
        return []
    provenance = results[0].provenance
    energy = np.concatenate([result.energy for result in results]).mean()
    parts = [
        f"mean energy {energy:.3g} nats",
        f"{provenance['semantics']} semantics",
        sampler_words(provenance.get("sampler")),
        f"seed {provenance['seed']}",
        f"judged by the {provenance['judge']}"
        if results[0].satisfied is not None
        else f"not judged: {provenance['unjudged']}",
    ]
    return [part for part in parts if part]


def facts(result: Result) -> list[tuple[str, str]]:
    """Return the settings that replay a result, as pairs (name, text)."""
    provenance = result.provenance
    versions = provenance.get("versions", {})
    statistics = result.statistics
    rows = [
        ("model", provenance["model"]),
        ("weights", ", ".join(f"{part} {digest[:12]}" for part, digest in provenance.get("fingerprints", {}).items())),
        *((name, _setting(name, provenance.get(name))) for name in settings_of("provenance")),
        ("judge", provenance["judge"] or "none"),
        ("heads", quality(provenance)),
        ("device", provenance.get("device", "")),
        ("evaluations", f"{statistics['evaluations_mean']:.0f} a picture" if "evaluations_mean" in statistics else ""),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return [(name, text) for name, text in rows if text]


def _setting(name: str, value: Any) -> str:
    """Return the value of a setting in words; empty for the default, except of the semantics and the seed."""
    if name == "sampler":
        return sampler_text(value or "")
    if value is None or (value == DEFAULTS[name] and name not in ("semantics", "seed")):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def quality(provenance: Mapping[str, Any]) -> str:
    """Return the quality of the heads of a query on held-out labels, in words."""
    heads = provenance.get("heads", {})
    return ", ".join(f"{name}: {score or 'quality not measured'}" for name, score in heads.items())


ALL = "all must hold"
MOST_CLAUSES = 24
"""Largest number of parts of a query that are shown; a query of more parts is shown as one."""


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """One part of a query.

    Attributes:
        text: the part.
        probability: probability that it holds in each picture, by the heads, (n,); `None` if it is too large to
            compute.
    """

    text: str
    probability: npt.NDArray[np.float64] | None

    def describe(self, index: int) -> str:
        """Return the probability in picture `index`, in words."""
        return "too large to compute" if self.probability is None else f"{self.probability[index]:.3f}"


def split_clauses(expr: Expr) -> tuple[str, list[Expr]]:
    """Return how the parts of a query are joined, in words, and the parts.

    The operands of AND, also of one under NOT, must all hold. Any other query is split once, at its root.
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
    """Return how the parts of a query are joined, in words, and the parts with their probabilities.

    A weight multiplies the energy of a part and does not change whether it holds, so it is left out.

    Args:
        expr: the query, bound.
        result: the pictures.
        vocabulary: attributes of the model.
    """
    joined, parts = split_clauses(expr)
    return joined, [Clause(str(part), probability(part, result, vocabulary)) for part in parts]


def probability(expr: Expr, result: Result, vocabulary: Vocabulary) -> npt.NDArray[np.float64] | None:
    """Return P(expr) in each picture of a result, (n,), by the attribute heads; `None` if it is too large to compute.

    Args:
        expr: a query, bound.
        result: the pictures.
        vocabulary: attributes of the model.
    """
    while isinstance(expr, Weight):
        expr = expr.operand
    with noting_tautologies():
        try:
            energy = score(expr, result.probabilities, vocabulary=vocabulary)
        except LimitError:
            return None
        except Contradiction:  # a part may be impossible although the query is not
            return np.zeros(len(result))
    return np.asarray(np.exp(-energy))
