"""Provenance, the record from which a result can be drawn again: its keys, who writes them, and how they are joined.

Read by:

- pipeline.result, pipeline.result_folder, pipeline.result_tables, pipeline.stream: to join, select, save and load
  results, and to check that a folder holds the same run
- pipeline.result_words, gallery.page, gallery.words, studio.results: to say it in words
- pipeline.plan, pipeline.read, pipeline.keep, pipeline.run, pipeline.checks, pipeline.export: to hand it on with a
  plan
- pipeline.energy_module: to write it into an exported energy
- editing.edit, editing.filmstrip, editing.folder, editing.invert, studio.studio, studio.tasks: to repeat the settings
  of a result in an edit, and to record the edit
- gallery.gallery: to see whether there is a judge
- auditing.publish, auditing.subject: to find the model and query that an audit is about
- cli.main: to check that a folder holds the same run
- dataset.manifest, dataset.shard: to copy it into data sets
- studio.downloads: to send it as a file

`studio.restoring` reads it as JSON from a picture that someone sends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product, takewhile
from typing import Annotated, Any, Literal, TypedDict, cast, get_type_hints

from energyql.errors import ArgumentError
from energyql.language.lexical import shorten
from energyql.pipeline.settings import DEFAULTS, RecordedSettings, several
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


_PLAN, _READ, _RUN, _HERE = "pipeline.plan", "pipeline.read", "pipeline.run", "pipeline.provenance"
_EQUAL = ("semantics", "truncation", "condition", "verify", "purity", "attempts")
"""Settings on which energies and verdicts depend."""


class Mixture(TypedDict):
    """Estimated shares of several prompts, and their standard errors, in the order of the prompts."""

    shares: list[float]
    errors: list[float]


class Verified(TypedDict, total=False):
    """Who decided which pictures are kept, and whether by stated values; else by which threshold, and the clip."""

    by: str
    stated: bool
    threshold: dict[str, Any]
    clip: dict[str, Any]


class _Subject(TypedDict, total=False):
    canonical: Annotated[str, Entry(_PLAN, "the query in its canonical form", "equal", of_run=True)]
    model: Annotated[str, Entry(_PLAN, "name of the model", "equal", of_run=True)]
    judge: Annotated[
        str | None,
        Entry(_PLAN, "who reads the attributes off the pictures; null without a judge", "equal", of_run=True),
    ]
    fingerprints: Annotated[
        dict[str, str], Entry(_PLAN, "part of the model -> SHA-256 of its weights", "equal", of_run=True)
    ]


class Provenance(_Subject, RecordedSettings, total=False):
    """The record from which a result can be drawn again; the annotation of a key has its `Entry`.

    A result has the keys that concern it, and settings only where they differ from their default. Where results of
    several values were joined by the rule "list", the value is the list of them.
    """

    discriminator: Annotated[str, Entry(_PLAN, "mark of the discriminator, with realism", of_run=True)]
    z_shape: Annotated[
        list[list[int]], Entry(_PLAN, "shapes of the noise of a diffusion model, of which z consists", "equal")
    ]
    query: Annotated[str, Entry(_PLAN, "the query as it was written", "first")]
    device: Annotated[str, Entry(_PLAN, "device of the computations")]
    heads: Annotated[
        dict[str, str | None],
        Entry(_PLAN, "attribute -> quality of its head as text; null if it was not measured", "first"),
    ]
    reader: Annotated[
        dict[str, str | None], Entry(_PLAN, "the same for attributes that are read off pictures", "first")
    ]
    versions: Annotated[dict[str, str], Entry(_PLAN, "versions of energyql and torch")]
    generator: Annotated[dict[str, Any], Entry(_PLAN, "how a pipeline of another library is called", "first")]
    unverified: Annotated[str, Entry(_PLAN, "why no verifier decided, although the model has one")]
    words: Annotated[
        dict[str, Any], Entry(_PLAN, "reader of the texts in quotes, calibration of each text, and doubts", "first")
    ]
    n: Annotated[int, Entry(_HERE, "number of samples", "count")]
    unjudged: Annotated[str | None, Entry(_READ, "why there are no verdicts; null if there are")]
    mixture: Annotated[
        Mixture, Entry(_READ, "shares of the prompts in `condition`, and their standard errors", "first")
    ]
    verified: Annotated[
        Verified, Entry("pipeline.keep", "who decided which pictures are kept, with threshold and clip", "first")
    ]
    wanted: Annotated[
        int, Entry(_RUN, "number of samples that a run with a budget, or until satisfied, was asked for", "sum")
    ]
    budget: Annotated[int, Entry(_RUN, "most calls of the generator", "sum")]
    first: Annotated[int, Entry(_RUN, "number of the first sample of a run with a budget; 0 is left out")]
    index: Annotated[int, Entry("pipeline.result_folder", "in the file of one picture: its number in the run")]
    audited: Annotated[str, Entry("auditing.publish", "in the pictures of an audited result: the share that is true")]
    edit: Annotated[
        dict[str, Any], Entry("editing.edit", "steps and settings of an edit, and the provenance of its start")
    ]
    inverted: Annotated[
        dict[str, Any], Entry("editing.invert", "settings of the search for the latents of photographs")
    ]
    variations: Annotated[dict[str, Any], Entry("studio.tasks", "pictures that were varied, by how much, and the seed")]


def _entry(name: str, hint: Any) -> Entry:
    """The entry in the annotation of a key; settings have none of their own."""
    if metadata := getattr(hint, "__metadata__", ()):
        return cast("Entry", metadata[0])
    return Entry(_PLAN, "a setting; see `DrawSettings`", "equal" if name in _EQUAL else "list", of_run=True)


ENTRIES: Mapping[str, Entry] = {
    name: _entry(name, hint) for name, hint in get_type_hints(Provenance, include_extras=True).items()
}
"""Key -> entry, read off the annotations of `Provenance`."""
OF_RUN = tuple(name for name, entry in ENTRIES.items() if entry.of_run)
"""Keys that must be the same for all samples of a run: on them its pictures depend."""


def of_samples(provenance: Provenance, count: int) -> Provenance:
    """Return the provenance of `count` samples of a run."""
    return provenance | {"n": count}


def join_provenance(parts: Sequence[Provenance], count: int) -> Provenance:
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
    records: list[dict[str, Any]] = [dict(part) for part in parts]
    joined = {name: value for name, value in records[0].items() if all(name in part for part in parts)}
    rules = {name: ENTRIES[name].join if name in ENTRIES else "list" for name in joined}
    for name in (name for name, rule in rules.items() if rule == "list"):
        values = different(value for part in records for value in several(part[name], (str, Mapping)))
        joined[name] = values if len(values) > 1 else joined[name]
    runs = different({**part, "n": count} for part in records)
    joined |= {name: sum(run[name] for run in runs) for name in joined if rules[name] == "sum"}
    return of_samples(cast("Provenance", joined), count)


def of_run(provenance: Provenance) -> dict[str, Any]:
    """Return the entries that are the same for all samples of a run."""
    values: Mapping[str, Any] = provenance
    return {name: values[name] for name in OF_RUN if name in values}


def difference_of_runs(old: Provenance, new: Provenance) -> tuple[str, Any, Any, str] | None:
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
