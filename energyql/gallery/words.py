"""Texts about queries and results for the pages of a gallery, and the probabilities of the parts of a query."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.errors import Contradiction, LimitError
from energyql.language import And, Expr, Not, Or, Weight, draw_tree
from energyql.language.lexical import keywords
from energyql.logic.satisfiability import conjuncts, noting_tautologies
from energyql.pipeline.queries import CheckedQuery
from energyql.pipeline.result import Result
from energyql.pipeline.result_words import HOLDS, describe_qualities
from energyql.pipeline.score import score
from energyql.pipeline.settings import DEFAULTS, settings_of
from energyql.render.graph import graph_width
from energyql.render.markup import Markup
from energyql.sampling.registry import sampler_text, sampler_words
from energyql.vocabulary import Vocabulary

HALF = 430
"""Largest width, in pixels, at which the drawing of a query is placed beside the list of its parts, not below."""

_WORDS = "|".join(sorted(keywords()))
_TOKEN = re.compile(rf'("(?:[^"\\]|\\.)*")|(\b(?:{_WORDS})\b)|((?<![\w.])[+-]?\d[\d.]*(?:e[+-]?\d+)?)')


def query_parts(text: str) -> list[tuple[str, str]]:
    """Split a query into pairs (kind, piece), so that a page can show keywords and numbers in colour.

    The kind is "name" for a name in double quotes, "word" for a keyword such as AND, "number" for a number, and "" for
    all else. Pieces in order are the query, which must be `str` of an expression: keywords in capitals, no comments.
    """
    return [(kind, part) for kind, part in zip(cycle(("", "name", "word", "number")), _TOKEN.split(text)) if part]


def draw_query(query: CheckedQuery) -> tuple[str, Markup, bool]:
    """Caption and SVG drawing of a query's circuit or tree, and whether the drawing is wider than `HALF`."""
    caption, drawing = "Compiled circuit", query.rule.draw()
    if drawing is None:
        caption, drawing = "Tree, which this semantics scores as written", draw_tree(query.expr)
    return caption, drawing, graph_width(drawing) > HALF


def verdict_phrase(verdicts: Sequence[tuple[str, bool | None]]) -> str:
    """Verdict of the judge: "the query holds", for two queries "A holds" or "A and B hold", or "not judged"."""
    if any(holds is None for _, holds in verdicts):
        return "not judged"
    if len(verdicts) == 1:
        return f"the query {HOLDS[verdicts[0][1]]}"
    true = [letter for letter, (_, holds) in zip("AB", verdicts, strict=True) if holds]
    return {0: "neither A nor B holds", 1: f"{''.join(true)} holds", 2: "A and B hold"}[len(true)]


def yes_no(holds: bool | None) -> str:
    """Text of a table cell, or CSS class of a verdict: "yes", "no", or "unjudged" for `None`."""
    return "unjudged" if holds is None else "yes" if holds else "no"


def share(results: Sequence[Result]) -> tuple[int, int] | None:
    """Numbers of pictures that satisfy their query and of judged pictures; `None` if none was judged."""
    judged = [result.satisfied for result in results if result.satisfied is not None]
    return (int(sum(holds.sum() for holds in judged)), sum(map(len, judged))) if judged else None


def doubtful(results: Sequence[Result]) -> int:
    """Number of pictures about which the attribute heads may be wrong (`Result.doubtful`)."""
    return sum(int(result.doubtful.sum()) for result in results)


def percent(part: int, whole: int) -> str:
    """Per cent as text, rounded, such as "94 %"; at most "99 %" if `part` is below `whole`, "0 %" if that is 0."""
    rounded = round(100 * part / whole) if whole else 0
    return f"{min(rounded, 99) if part < whole else rounded} %"


def energy_text(result: Result, index: int) -> str:
    """Energy of a picture in nats, and the probability of the query if there is one: "0.05129 (P 0.9500)"."""
    probability = result.probability
    return f"{result.energy[index]:.4g}" + ("" if probability is None else f" (P {probability[index]:.4f})")


def odds_text(probability: float | None) -> str:
    """Probability with two decimals; "?" for a query that is too large to compute."""
    return "?" if probability is None else f"{probability:.2f}"


def sort_key(energy: float) -> str:
    """Energy as a number in JavaScript, by which a page sorts pictures; infinity and NaN are "Infinity"."""
    return "Infinity" if math.isnan(energy) else str(energy).replace("inf", "Infinity")


def settings(results: Sequence[Result]) -> list[str]:
    """Texts such as "mean energy 0.05 nats" and "seed 7", which make a line about results of equal settings."""
    provenance = results[0].provenance
    energy = np.concatenate([result.energy for result in results]).mean()
    judged = results[0].satisfied is not None
    parts = [
        f"mean energy {energy:.3g} nats",
        f"{provenance['semantics']} semantics",
        sampler_words(provenance.get("sampler")),
        f"seed {provenance['seed']}",
        f"judged by the {provenance['judge']}" if judged else f"not judged: {provenance['unjudged']}",
    ]
    return list(filter(None, parts))


def facts(result: Result) -> list[tuple[str, str]]:
    """How the pictures of a result were made, as pairs such as ("seed", "7"), so that a reader can draw them again.

    Settings with default values are left out, except the semantics and the seed.
    """
    provenance, evaluations = result.provenance, result.statistics.get("evaluations_mean")
    versions = provenance.get("versions", {})
    rows = [
        ("model", provenance["model"]),
        ("weights", ", ".join(f"{part} {digest[:12]}" for part, digest in provenance.get("fingerprints", {}).items())),
        *((name, _setting(name, provenance.get(name))) for name in settings_of("provenance")),
        ("judge", provenance["judge"] or "none"),
        ("heads", describe_qualities(provenance.get("heads", {}))),
        ("reader", describe_qualities(provenance.get("reader", {}))),
        ("device", provenance.get("device", "")),
        ("evaluations", "" if evaluations is None else f"{evaluations:.0f} a picture"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return [(name, text) for name, text in rows if text]


def _setting(name: str, value: Any) -> str:
    """Value of a setting as text; empty for a default, unless `name` is "semantics" or "seed"."""
    if name == "sampler":
        return sampler_text(value or "")
    if value is None or (value == DEFAULTS[name] and name not in ("semantics", "seed")):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


ALL = "all must hold"
MOST_CLAUSES = 24
"""Most parts into which a query is split; a query with more is shown as a whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """One part of a query, with its probability by the heads in each picture, (n,); `None` if too large to compute."""

    text: str
    probability: npt.NDArray[np.float64] | None

    def describe(self, index: int) -> str:
        """Probability for picture `index`, such as "0.950", or "too large to compute"."""
        return "too large to compute" if self.probability is None else f"{self.probability[index]:.3f}"


def split_clauses(expr: Expr) -> tuple[str, list[Expr]]:
    """How the parts of a query are joined, as text, and the parts.

    The text is "all must hold" for an AND, also in a form such as NOT (a OR b); "at least one must hold" for an OR; and
    "its parts" for others. It is "" for the query as a whole: without parts, with more than `MOST_CLAUSES`, or such as
    NOT (a AND b). A weight at the root, as in 2 * (a OR b), is left out: it does not change whether a query is true.
    """
    parts = conjuncts(expr)
    if 1 < len(parts) <= MOST_CLAUSES:
        return ALL, parts
    root = _unweighted(parts[0] if len(parts) == 1 else expr)
    if not root.children or isinstance(root, (Not, And)) or len(root.children) > MOST_CLAUSES:
        return "", [root]
    return "at least one must hold" if isinstance(root, Or) else "its parts", list(root.children)


def score_clauses(expr: Expr, result: Result, vocabulary: Vocabulary) -> tuple[str, list[Clause]]:
    """How the parts of a bound query are joined, as in `split_clauses`, and the parts with their probabilities."""
    joined, parts = split_clauses(expr)
    return joined, [Clause(str(part), probability(part, result, vocabulary)) for part in parts]


def _unweighted(expr: Expr) -> Expr:
    """The query without the weights at its root: a for 2 * a."""
    while isinstance(expr, Weight):
        expr = expr.operand
    return expr


def probability(expr: Expr, result: Result, vocabulary: Vocabulary) -> npt.NDArray[np.float64] | None:
    """Probability by the heads that pictures satisfy a bound query, (n,), ignoring weights around the whole query.

    It is 0 for a contradiction; `None` is returned if the query is too large to compute.
    """
    with noting_tautologies():
        try:
            energy = score(_unweighted(expr), result.probabilities, vocabulary=vocabulary)
        except LimitError:
            return None
        except Contradiction:  # a part may be impossible although the query is not
            return np.zeros(len(result))
    return np.asarray(np.exp(-energy))
