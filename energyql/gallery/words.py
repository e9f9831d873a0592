"""What is said about queries and pictures, in words and numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from energyql.language import Expr
from energyql.language.lexical import keywords
from energyql.pipeline.result import Result
from energyql.render.markup import Markup, element, escape, join

_WORDS = "|".join(sorted(keywords()))
_TOKEN = re.compile(rf'("(?:[^"\\]|\\.)*")|(\b(?:{_WORDS})\b)|((?<![\w.])[+-]?\d[\d.]*(?:e[+-]?\d+)?)')
_CLASSES = ("name", "word", "number")


def query_code(text: str) -> Markup:
    """A canonical query as code, with its keywords and numbers marked."""
    parts: list[Markup] = []
    end = 0
    for match in _TOKEN.finditer(text):
        kind = next(number for number, group in enumerate(match.groups()) if group is not None)
        parts += [escape(text[end : match.start()]), element("span", match[0], class_=_CLASSES[kind])]
        end = match.end()
    return element("code", *parts, escape(text[end:]), class_="query")


def attribute_names(*exprs: Expr) -> list[str]:
    """The attributes that queries speak of, in the order of their texts."""
    names = (getattr(node, "name", None) for expr in exprs for node in expr.walk())
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def verdict(verdicts: Sequence[tuple[str, bool]]) -> str:
    """What the judge says of one query, or of two that are called A and B."""
    if len(verdicts) == 1:
        return "the query holds" if verdicts[0][1] else "the query does not hold"
    true = [letter for letter, (_, holds) in zip("AB", verdicts, strict=True) if holds]
    return {0: "neither A nor B holds", 1: f"{''.join(true)} holds", 2: "A and B hold"}[len(true)]


def share(results: Sequence[Result]) -> tuple[int, int]:
    """How many pictures satisfy their query, and how many there are."""
    return sum(int(result.satisfied.sum()) for result in results), sum(len(result) for result in results)


def percent(part: int, whole: int) -> str:
    """A share that is 100 % only if it is all of it."""
    rounded = round(100 * part / whole) if whole else 0
    return f"{min(rounded, 99) if part < whole else rounded} %"


def value(result: Result, index: int) -> str:
    """The probability of the query in one picture, or its energy where that is no log-probability."""
    energy = float(result.energy[index])
    return f"P {math.exp(-energy):.3f}" if result.provenance["semantics"] == "exact" else f"E {energy:.3f}"


def plural(count: int, noun: str, several: str = "") -> str:
    """`3 pictures`."""
    return f"{count:,} {noun if count == 1 else several or f'{noun}s'}"


def facts(result: Result) -> list[tuple[str, str]]:
    """What replays a result, as pairs for a list."""
    known = result.provenance
    versions = known.get("versions", {})
    statistics = result.statistics
    rows = [
        ("model", known["model"]),
        ("weights", ", ".join(f"{part} {digest[:12]}" for part, digest in known.get("fingerprints", {}).items())),
        ("semantics", known["semantics"]),
        ("sampler", known.get("sampler", "")),
        ("truncation", f"{known['truncation']:g}" if "truncation" in known else ""),
        ("label", "" if known.get("label") is None else str(known["label"])),
        ("seed", str(known["seed"])),
        ("judge", known["judge"]),
        ("device", known.get("device", "")),
        ("evaluations", f"{statistics['evaluations_mean']:.0f} a picture" if "evaluations_mean" in statistics else ""),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return [(name, text) for name, text in rows if text]


def sampler_name(described: str) -> str:
    """A sampler in a word or two: the classes in the `repr` that the provenance holds."""
    names = [
        name for name in re.findall(r"\b([A-Z]\w+)\(", described) if name.endswith(("Sampler", "Solver", "Corrector"))
    ]
    return " + ".join(names) or described.partition("(")[0]


def joined(parts: Iterable[str]) -> Markup:
    """Facts in one line, with dots between them."""
    return join([part for part in parts if part], " · ")
