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
from energyql.pipeline.result import HOLDS, Result, describe_qualities
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
    """Split a query into pieces, so that a page can show keywords and numbers in colour; return pairs (kind, piece).

    The pieces, joined in their order, are the query. The kind is "name" for a name in double quotes, "word" for a
    keyword such as AND, "number" for a number, and "" for all else.

    Args:
        text: the query, written by `str` of an expression: keywords in capitals, and no comments.
    """
    return [(kind, part) for kind, part in zip(cycle(("", "name", "word", "number")), _TOKEN.split(text)) if part]


def draw_query(query: CheckedQuery) -> tuple[str, Markup, bool]:
    """Return three values: a caption, a drawing of the query as SVG, and whether the drawing is wide.

    The drawing shows the compiled circuit of the query, or the tree of the query if the semantics has no circuit. A
    wide drawing (wider than `HALF` pixels) is placed below the list of the parts of the query, any other beside it.
    """
    caption, drawing = "Compiled circuit", query.rule.draw()
    if drawing is None:
        caption, drawing = "Tree, which this semantics scores as written", draw_tree(query.expr)
    return caption, drawing, graph_width(drawing) > HALF


def verdict(verdicts: Sequence[tuple[str, bool | None]]) -> str:
    """Return the judge's verdict on a picture in words, or "not judged".

    Examples are "the query holds" for one query, and for two queries, called A and B, "A holds" or "A and B hold".

    Args:
        verdicts: one pair (query, whether the query holds, `None` if not judged), or two pairs, for A and for B.
    """
    if any(holds is None for _, holds in verdicts):
        return "not judged"
    if len(verdicts) == 1:
        return f"the query {HOLDS[verdicts[0][1]]}"
    true = [letter for letter, (_, holds) in zip("AB", verdicts, strict=True) if holds]
    return {0: "neither A nor B holds", 1: f"{''.join(true)} holds", 2: "A and B hold"}[len(true)]


def yes_no(holds: bool | None) -> str:
    """Return "yes" or "no", or "unjudged" for `None`. It is the text of a table cell, or the CSS class of a verdict."""
    return "unjudged" if holds is None else "yes" if holds else "no"


def share(results: Sequence[Result]) -> tuple[int, int] | None:
    """Return the number of pictures that satisfy their query, and the number of judged pictures.

    Return `None` if no picture was judged.
    """
    judged = [result.satisfied for result in results if result.satisfied is not None]
    return (int(sum(holds.sum() for holds in judged)), sum(map(len, judged))) if judged else None


def doubtful(results: Sequence[Result]) -> int:
    """Return the number of pictures about which the attribute heads may be wrong: True in `Result.doubtful`."""
    return sum(int(result.doubtful.sum()) for result in results)


def percent(part: int, whole: int) -> str:
    """Return `part` / `whole` in percent as text, rounded to a whole number, such as "94 %".

    If `part` is below `whole`, the text is at most "99 %". If `whole` is 0, it is "0 %".
    """
    rounded = round(100 * part / whole) if whole else 0
    return f"{min(rounded, 99) if part < whole else rounded} %"


def value(result: Result, index: int) -> str:
    """Return a text with the probability of the query for picture `index` of a result, such as "P 0.950".

    If the semantics has no probability, the text has the energy in nats instead, such as "E 0.051".
    """
    probability = result.probability
    return f"E {result.energy[index]:.3f}" if probability is None else f"P {probability[index]:.3f}"


def energy_text(result: Result, index: int) -> str:
    """Return the energy of a picture in nats as text, with the probability of the query if the semantics has one.

    An example is "0.05129 (P 0.9500)".

    Args:
        result: the result that contains the picture.
        index: position of the picture in `result`.
    """
    probability = result.probability
    return f"{result.energy[index]:.4g}" + ("" if probability is None else f" (P {probability[index]:.4f})")


def odds_text(probability: float | None) -> str:
    """Return a probability as text with two decimals; "?" for `None`: the query is too large to compute."""
    return "?" if probability is None else f"{probability:.2f}"


def sort_key(energy: float) -> str:
    """Return an energy as a number in JavaScript, by which a page sorts pictures; infinity and NaN are "Infinity"."""
    return "Infinity" if math.isnan(energy) else str(energy).replace("inf", "Infinity")


def settings(results: Sequence[Result]) -> list[str]:
    """Return short texts about results, such as "mean energy 0.05 nats" and "seed 7", which a page joins to a line.

    Args:
        results: at least one result; the settings of the first are taken for all.
    """
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
    """Return how the pictures of a result were made: pairs (name, text) such as ("seed", "7").

    From these pairs a reader of the page can draw the same pictures again. Settings with default values are left out,
    except the semantics and the seed.
    """
    provenance, evaluations = result.provenance, result.statistics.get("evaluations_mean")
    versions = provenance.get("versions", {})
    rows = [
        ("model", provenance["model"]),
        ("weights", ", ".join(f"{part} {digest[:12]}" for part, digest in provenance.get("fingerprints", {}).items())),
        *((name, _setting(name, provenance.get(name))) for name in settings_of("provenance")),
        ("judge", provenance["judge"] or "none"),
        *((guide, describe_qualities(provenance.get(guide, {}))) for guide in ("heads", "reader")),
        ("device", provenance.get("device", "")),
        ("evaluations", "" if evaluations is None else f"{evaluations:.0f} a picture"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return [(name, text) for name, text in rows if text]


def _setting(name: str, value: Any) -> str:
    """Return the value of a setting as text; empty for a default value, unless `name` is "semantics" or "seed"."""
    if name == "sampler":
        return sampler_text(value or "")
    if value is None or (value == DEFAULTS[name] and name not in ("semantics", "seed")):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


ALL = "all must hold"
MOST_CLAUSES = 24
"""Largest number of parts into which a query is split. A query with more parts is shown as a whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """One part of a query, such as `smile` in `smile AND hat`, with its probability in each picture.

    Attributes:
        text: the part, written as a query.
        probability: probability that the part is true in each picture, by the attribute heads, (n,); `None` if the part
            is too large to compute.
    """

    text: str
    probability: npt.NDArray[np.float64] | None

    def describe(self, index: int) -> str:
        """Return the probability that picture `index` satisfies the clause, by the heads, as text such as "0.950".

        If the circuit of the clause is too large to compute its probability, the text is "too large to compute".
        """
        return "too large to compute" if self.probability is None else f"{self.probability[index]:.3f}"


def split_clauses(expr: Expr) -> tuple[str, list[Expr]]:
    """Split a query into parts, and return two values: a text that says how the parts are joined, and their list.

    - For an AND, the text is "all must hold". A query such as NOT (a OR b) is taken as the AND of NOT a and NOT b.
    - For an OR, the text is "at least one must hold".
    - For any other query with parts, the text is "its parts".
    - For a query without parts, with more than `MOST_CLAUSES` parts, or such as NOT (a AND b), the text is "", and the
      list has only the query.

    A weight at the root, as in 2 * (a OR b), is left out: it does not change whether a query is true.
    """
    parts = conjuncts(expr)
    if 1 < len(parts) <= MOST_CLAUSES:
        return ALL, parts
    root = _unweighted(parts[0] if len(parts) == 1 else expr)
    if not root.children or isinstance(root, (Not, And)) or len(root.children) > MOST_CLAUSES:
        return "", [root]
    return "at least one must hold" if isinstance(root, Or) else "its parts", list(root.children)


def score_clauses(expr: Expr, result: Result, vocabulary: Vocabulary) -> tuple[str, list[Clause]]:
    """Split a query into parts; return how they are joined, such as "all must hold", and the parts with probabilities.

    Args:
        expr: the query, with names and values looked up in `vocabulary` (by `bind`).
        result: the pictures.
        vocabulary: attributes of the model.
    """
    joined, parts = split_clauses(expr)
    return joined, [Clause(str(part), probability(part, result, vocabulary)) for part in parts]


def _unweighted(expr: Expr) -> Expr:
    """Return a query without the weights at its root: for 2 * a, return a."""
    while isinstance(expr, Weight):
        expr = expr.operand
    return expr


def probability(expr: Expr, result: Result, vocabulary: Vocabulary) -> npt.NDArray[np.float64] | None:
    """Return the probability, by the attribute heads, that each picture of a result satisfies a query, (n,).

    The probabilities are 0 if the query is a contradiction. `None` is returned if the query is too large to compute.

    Args:
        expr: a query, with names and values looked up in `vocabulary` (by `bind`). Weights around the whole query are
            ignored: 2 * a counts as a.
        result: the pictures.
        vocabulary: attributes of the model.
    """
    with noting_tautologies():
        try:
            energy = score(_unweighted(expr), result.probabilities, vocabulary=vocabulary)
        except LimitError:
            return None
        except Contradiction:  # a part may be impossible although the query is not
            return np.zeros(len(result))
    return np.asarray(np.exp(-energy))
