"""Provenance, the record from which a result can be drawn again: its keys, who writes them, and how they are joined."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product, takewhile
from typing import Any, Literal

from energyql.errors import ArgumentError
from energyql.language.lexical import shorten
from energyql.pipeline.settings import DEFAULTS, settings_of, several
from energyql.sampling.registry import sampler_text

Join = Literal["equal", "list", "first", "sum", "count"]
"""What becomes of an entry when results are joined: it must be equal; the different values are listed, such as seeds;
that of the first result counts; it is summed over runs; or it is the number of samples."""


@dataclass(frozen=True)
class Entry:
    """An entry of provenance.

    Attributes:
        writer: the module that writes it, such as "pipeline.plan".
        meaning: what it holds.
        join: what becomes of it when results are joined.
        of_run: whether it must be the same for all samples that one folder holds.
    """

    writer: str
    meaning: str
    join: Join = "list"
    of_run: bool = False


_PLAN, _READ, _RUN = "pipeline.plan", "pipeline.read", "pipeline.run"
_EQUAL = ("semantics", "truncation", "condition", "verify", "purity", "attempts")
"""Settings on which energies and verdicts depend."""
ENTRIES: Mapping[str, Entry] = {
    "canonical": Entry(_PLAN, "the query in its canonical form", "equal", of_run=True),
    "model": Entry(_PLAN, "name of the model", "equal", of_run=True),
    "judge": Entry(_PLAN, "who reads the attributes off the pictures; null without a judge", "equal", of_run=True),
    "fingerprints": Entry(_PLAN, "part of the model -> SHA-256 of its weights", "equal", of_run=True),
    **{
        name: Entry(_PLAN, "a setting; see `DrawSettings`", "equal" if name in _EQUAL else "list", of_run=True)
        for name in settings_of("provenance")
    },
    "discriminator": Entry(_PLAN, "mark of the discriminator, with realism", of_run=True),
    "z_shape": Entry(_PLAN, "shapes of the noise of a diffusion model, of which z consists", "equal"),
    "query": Entry(_PLAN, "the query as it was written", "first"),
    "device": Entry(_PLAN, "device of the computations"),
    "heads": Entry(_PLAN, "attribute -> quality of its head as text; null if it was not measured", "first"),
    "reader": Entry(_PLAN, "the same for attributes that are read off pictures", "first"),
    "versions": Entry(_PLAN, "versions of energyql and torch"),
    "generator": Entry(_PLAN, "how a pipeline of another library is called", "first"),
    "unverified": Entry(_PLAN, "why no verifier decided, although the model has one"),
    "words": Entry(_PLAN, "reader of the texts in quotes, calibration of each text, and doubts", "first"),
    "n": Entry(_READ, "number of samples", "count"),
    "unjudged": Entry(_READ, "why there are no verdicts; null if there are"),
    "mixture": Entry(_READ, "shares of the prompts in `condition`, and their standard errors", "first"),
    "verified": Entry("pipeline.keep", "who decided which pictures are kept, with threshold and clip", "first"),
    "wanted": Entry(_RUN, "number of samples that a run with a budget, or until satisfied, was asked for", "sum"),
    "budget": Entry(_RUN, "most calls of the generator", "sum"),
    "first": Entry(_RUN, "number of the first sample of a run with a budget; 0 is left out"),
    "index": Entry("pipeline.result_folder", "in the file of one picture: its number in the run"),
    "audited": Entry("auditing.publish", "in the pictures of an audited result: the share that is true"),
    "edit": Entry("editing.edit", "steps and settings of an edit, and the provenance of its start"),
    "inverted": Entry("editing.invert", "settings of the search for the latents of photographs"),
    "variations": Entry("studio.tasks", "pictures that were varied, by how much, and the seed"),
}
"""Key -> entry. A result has those that concern it, and settings only where they differ from their default."""
OF_RUN = tuple(name for name, entry in ENTRIES.items() if entry.of_run)
"""Keys that must be the same for all samples of a run: on them its pictures depend."""


def join_provenance(parts: Sequence[Mapping[str, Any]], count: int) -> dict[str, Any]:
    """Return the provenance of joined results; only entries that every result has are kept.

    Results with equal provenance are parts of one run, whose sums count once.

    Args:
        parts: provenance of each result, at least one.
        count: number of samples of all results together.

    Raises:
        ArgumentError: the results differ in an entry that must be equal.
    """
    first = parts[0]
    equal = [name for name, entry in ENTRIES.items() if entry.join == "equal"]
    for part, name in product(parts[1:], equal):
        if (mine := first.get(name)) != (theirs := part.get(name)):
            difference = "" if name == "fingerprints" else f": {shorten(str(mine))} and {shorten(str(theirs))}"
            raise ArgumentError(f"these results differ in their {_title(name)}{difference}")
    joined = {name: value for name, value in first.items() if all(name in part for part in parts)}
    rules = {name: ENTRIES[name].join if name in ENTRIES else "list" for name in joined}
    for name in (name for name, rule in rules.items() if rule == "list"):
        values = different(value for part in parts for value in several(part[name], (str, Mapping)))
        joined[name] = values if len(values) > 1 else joined[name]
    runs = different({**part, "n": count} for part in parts)
    return joined | {name: sum(run[name] for run in runs) for name in joined if rules[name] == "sum"} | {"n": count}


def difference_of_runs(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, Any, Any, str] | None:
    """Return the first entry in which two runs differ, so that one folder cannot hold both; `None` if there is none.

    Returns:
        The key, both values, and the difference in words, such as "query: smile, not hat".
    """
    for name in OF_RUN:
        default = DEFAULTS.get(name)  # of a setting that is not recorded
        theirs, ours = (json.loads(json.dumps(facts.get(name, default))) for facts in (old, new))
        if theirs == ours:
            continue
        start, as_text = 0, sampler_text if name == "sampler" else str
        one, other = as_text(theirs), as_text(ours)
        if name == "sampler":  # its many settings, from the first one that differs
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
            start = 1 + max(one.rfind("(", 0, same), one.rfind(" ", 0, same))
        return name, theirs, ours, f"{_title(name)}: {shorten(one[start:])}, not {shorten(other[start:])}"
    return None


def different(values: Iterable[Any]) -> list[Any]:
    """Return the values that are equal to no earlier value, in their order. The values need not be hashable."""
    listed = list(values)
    return [value for i, value in enumerate(listed) if value not in listed[:i]]


def _title(name: str) -> str:
    return "query" if name == "canonical" else name
