"""Named set-ups: the queries, truncation and temperature of a published experiment, for a model with its attributes.

Each is a JSON file in the folder `setups`; it holds no weights, labels or code. docs/lace.md describes its fields.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, get_args

from energyql.errors import ArgumentError, DataError, EnergyQLError, ModelError
from energyql.evaluation.methods import PAPER
from energyql.evaluation.protocols import EvaluationProtocol, RandomConditions
from energyql.files import read_json
from energyql.language import And, Expr, bind, parse, predicates
from energyql.pipeline.settings import DEFAULT_SAMPLER
from energyql.vocabulary import Kind, Vocabulary

FOLDER = Path(__file__).with_name("setups")
FORMAT = 1


def known_setups() -> list[str]:
    """Return the names of the set-ups that come with energyql."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Needed:
    """An attribute that a model must have: continuous from 0 to 1, or categorical with at least these classes."""

    name: str
    kind: str
    values: tuple[str, ...] = ()
    description: str = ""

    def __str__(self) -> str:
        what = {"continuous": "continuous from 0 to 1", "categorical": "categorical"}.get(self.kind, self.kind)
        classes = f", with {', '.join(map(repr, self.values))}" if self.values else ""
        about = f" ({self.description})" if self.description else ""
        return f"{self.name!r}, {what}{classes}{about}"

    def lack(self, vocabulary: Vocabulary) -> str:
        """Return what the vocabulary lacks; empty if the attribute is there as needed."""
        if self.name not in vocabulary:
            return f"attribute {self}"
        spec = vocabulary[self.name]
        missing = [value for value in self.values if value not in spec.values]
        if spec.kind != self.kind:
            return f"attribute {self}: yours is {spec.kind}"
        if self.kind == "continuous" and (spec.low, spec.high) != (0.0, 1.0):
            return f"attribute {self}: yours is from {spec.low:g} to {spec.high:g}"
        return f"classes of {self.name!r}: {', '.join(map(repr, missing))}" if missing else ""


@dataclass(frozen=True)
class Setup:
    """One published experiment.

    Attributes:
        name: of a set-up that comes with energyql, or the stem of a file.
        title: of the data.
        checkpoint: of which generator it is, and what its heads read.
        labels: how the heads' labels were made, with thresholds.
        temperature: T, by which the logits of the classes asked for are divided as published.
        needed: the attributes that its queries name.
        protocols: by name, in order; each has its own truncation.
    """

    name: str
    title: str
    checkpoint: str
    labels: str
    temperature: float
    needed: tuple[Needed, ...]
    protocols: Mapping[str, EvaluationProtocol]

    @property
    def samplers(self) -> tuple[str, ...]:
        """The default sampler and the paper's, with 1 / T as strength, the nearest thing to a temperature here."""
        strength = "" if self.temperature == 1 else f"@{1 / self.temperature:.4g}"
        return DEFAULT_SAMPLER + strength, PAPER + strength

    def check(self, vocabulary: Vocabulary, protocols: Sequence[str]) -> None:
        """Check that a model has what some of the protocols need, and that it takes their queries.

        Raises:
            EnergyQLError: it lacks attributes, all of which are listed, or does not take a query that is given.
        """
        asked = {name for protocol in protocols for name in self.protocols[protocol].attributes}
        lacks = [lack for one in self.needed if one.name in asked and (lack := one.lack(vocabulary))]
        if not lacks:
            self._check_queries(vocabulary, protocols)
            return
        able = [name for name, one in self.protocols.items() if not self._lacking(one, vocabulary)]
        hint = f"it can run --protocols {','.join(able)}; for the others" if able else "it can run none of them;"
        raise ModelError(
            f"{vocabulary.of_model} lacks what set-up {self.name!r} needs: {'; '.join(lacks)}",
            hint=f"{hint} train heads of these names with `energyql train`, on labels such as these: {self.labels}",
        )

    def _check_queries(self, vocabulary: Vocabulary, protocols: Sequence[str]) -> None:
        for name in protocols:
            for query in self.protocols[name].given:
                try:
                    bind(query, vocabulary)
                except EnergyQLError as error:
                    error.message = f"set-up {self.name!r}, protocol {name!r}, {str(query)!r}: {error.message}"
                    raise

    def _lacking(self, protocol: EvaluationProtocol, vocabulary: Vocabulary) -> list[str]:
        return [one.name for one in self.needed if one.name in protocol.attributes and one.lack(vocabulary)]


def read_setup(name: str | Path) -> Setup:
    """Read a set-up by its name, or from a JSON file of one's own.

    Raises:
        EnergyQLError: there is no such set-up, or the file is wrong.
    """
    path = FOLDER / f"{name}.json" if name in known_setups() else Path(name)
    if path.suffix != ".json":
        raise ArgumentError(
            f"there is no set-up {str(name)!r}", hint=f"set-ups: {', '.join(known_setups())}, or a JSON file"
        )
    data = read_json(path)
    try:
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r} is not {FORMAT}")
        needed = tuple(
            Needed(one["name"], one["kind"], tuple(one.get("values", ())), one.get("description", ""))
            for one in data["attributes"]
        )
        listed = [_read_protocol(one, float(data["truncation"]), str(data["labels"])) for one in data["protocols"]]
        if wrong := [one.kind for one in needed if one.kind not in get_args(Kind)]:
            raise ValueError(f"there is no kind {wrong[0]!r}")
        if wrong := [one.name for one in listed if not re.fullmatch("[A-Za-z0-9-]+", one.name)]:  # names of folders
            raise ValueError(f"protocol {wrong[0]!r} is not named by letters, digits and hyphens")
        if twice := [name for name, count in Counter(one.name for one in listed).items() if count > 1]:
            raise ValueError(f"there are two protocols {twice[0]!r}")
        if unknown := {name for one in listed for name in one.attributes} - {one.name for one in needed}:
            raise ValueError(f"{', '.join(sorted(unknown))} not among its attributes")
        temperature = float(data["temperature"])
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature {temperature} is not a number above 0")
        title, checkpoint, labels = (str(data[key]) for key in ("title", "checkpoint", "labels"))
        return Setup(path.stem, title, checkpoint, labels, temperature, needed, {one.name: one for one in listed})
    except EnergyQLError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is no set-up: {error!r}", hint="docs/lace.md describes its fields") from error


def _read_protocol(entry: Mapping[str, Any], truncation: float, labels: str) -> EvaluationProtocol:
    """Read one protocol, which has one of the fields `queries`, `every`, `steps` and `drawn`."""
    (field,) = {"queries", "every", "steps", "drawn"} & set(entry)
    if not entry[field] or (field == "every" and not all(entry[field])):
        raise ValueError(f"{field!r} of protocol {entry['name']!r} is empty")
    choose: Callable[[RandomConditions], list[Expr]]
    given: tuple[Expr, ...] = ()
    if field in ("queries", "steps"):
        given = tuple(parse(text) for text in entry[field])
        names = {leaf.name for query in given for leaf in predicates(query)}
        choose = partial(_fixed, given)
    elif field == "every":
        groups = [tuple(map(str, group)) for group in entry[field]]
        names = {name for group in groups for name in group}
        choose = partial(_every, groups)
    else:
        drawn = tuple(map(str, entry[field]))
        names, choose = set(drawn), partial(_drawn, drawn)
    about = f"{entry['about']} Labels: {labels}."
    psi = float(entry.get("truncation", truncation))
    sequential = field in ("steps", "drawn")
    return EvaluationProtocol(
        entry["name"], entry["title"], about, choose, sequential, psi, tuple(sorted(names)), given
    )


def _fixed(queries: Sequence[Expr], draw: RandomConditions) -> list[Expr]:
    return list(queries)


def _every(groups: Sequence[Sequence[str]], draw: RandomConditions) -> list[Expr]:
    """Return every combination of values of the attributes of each group."""
    parts = [product(*(draw.values(draw.vocabulary[name]) for name in group)) for group in groups]
    return [choice[0] if len(choice) == 1 else And(choice) for group in parts for choice in group]


def _drawn(names: Sequence[str], draw: RandomConditions) -> list[Expr]:
    return [draw.condition(draw.vocabulary[name]) for name in names]
