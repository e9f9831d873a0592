"""Evaluation protocols, which are experiments with random queries, and set-ups, which are published experiments.

A protocol draws random conditions on the attributes of a model as queries, within limits for their prevalence, which is
the share of prior pictures that satisfy a query. Model and seed determine them. A new protocol is one entry of
`PROTOCOLS`. A set-up is a JSON file with the queries of a publication, and without weights, labels or code;
docs/lace.md describes it, and the folder `setups` has some.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from energyql.errors import ArgumentError, DataError, EnergyQLError, ModelError, either
from energyql.evaluation.judged import JudgedSamples
from energyql.evaluation.methods import PAPER
from energyql.files import read_json
from energyql.kinds import BARE, KINDS
from energyql.language import And, Attribute, Expr, Not, Or, bind, parse, predicates
from energyql.logic.satisfiability import satisfied
from energyql.pipeline.settings import DEFAULT_SAMPLER
from energyql.vocabulary import AttributeSpec, Vocabulary

Join = Callable[[Sequence[Expr]], Expr]
"""A function from a list of conditions to one query, such as their conjunction."""

TRIES = 20_000
"""Most random queries that are tried until one has a prevalence within the limits of the protocol."""
LEAST = 0.001
"""Smallest prevalence of the queries of most protocols."""
MOST = 0.9
"""Largest prevalence of the queries of most protocols."""
OCCURRING = 1e-9
"""Smallest prevalence of queries that at least one picture of the prior must satisfy: above 0, below one picture's
share."""
RARE = 0.001
"""Largest prevalence of the queries of the protocol "zero-shot"."""
TARGETS = (0.25, 0.5, 0.75)
"""Targets of conditions on a continuous attribute, such as `age = 0.5`, as positions in its range: 0 is the lower
end."""
PUBLISHED = "Nie et al. 2021, arXiv 2110.10873"


class RandomConditions:
    """Random conditions and queries on attributes, with numbers that are the same in all versions of Python.

    Args:
        prior: judged samples of the prior, on which the prevalence of a query is measured.
        seed: a text with the seed of the run and the name of the protocol, such as "0/logic".
    """

    def __init__(self, vocabulary: Vocabulary, prior: JudgedSamples, seed: str) -> None:
        self.vocabulary, self._prior = vocabulary, prior
        self._uniform = random.Random(seed).random

    def values(self, spec: AttributeSpec) -> list[Expr]:
        """All conditions on an attribute that protocols use: `a` and `NOT a`, each class, or each of `TARGETS`."""
        return KINDS[spec.kind].queries.conditions(Attribute(spec.name), spec, TARGETS)

    def condition(self, spec: AttributeSpec) -> Expr:
        """Random condition on one attribute; for a yes/no attribute `a` it is always `a`."""
        if BARE in KINDS[spec.kind].queries.forms:
            return Attribute(spec.name)
        values = self.values(spec)
        return values[int(self._uniform() * len(values))]

    def prevalence(self, query: Expr) -> float:
        """Share of pictures of the prior that satisfy a query by the judge, 0 to 1."""
        return float(satisfied(bind(query, self.vocabulary), self._prior.values, self.vocabulary).mean())

    def compose(self, count: int, join: Join, least: float, most: float) -> Expr:
        """Random query on `count` attributes with a prevalence from `least` to `most`; raises if `TRIES` have none."""
        for _ in range(TRIES if len(self.vocabulary) >= count else 0):
            pool = list(self.vocabulary)
            names = [pool.pop(int(self._uniform() * len(pool))) for _ in range(count)]
            query = join([self.condition(self.vocabulary[name]) for name in names])
            if least <= self.prevalence(query) <= most:
                return query
        option = either("prior", "--prior")
        hint = f"the model has few attributes, or they hardly vary, or the prior is too small: raise {option}"
        raise EnergyQLError(f"no query of {count} attributes has a prevalence from {least:g} to {most:g}", hint=hint)


@dataclass(frozen=True)
class EvaluationProtocol:
    """One experiment: queries, and whether samplers or edits are measured on them.

    Attributes:
        name: name of the protocol for the option `--protocols`.
        title: heading of the results.
        about: text about the queries, and the publication that the experiment follows.
        queries: function from the `RandomConditions` of a model to the queries.
        sequential: true if the queries are the steps of one edit; false if samples of each query are drawn.
        truncation: psi; `None` for the psi of the model.
        attributes: names of the attributes in the queries, for a protocol of a set-up; else empty.
        given: the queries, if a set-up states them as texts; else empty.
    """

    name: str
    title: str
    about: str
    queries: Callable[[RandomConditions], list[Expr]]
    sequential: bool = False
    truncation: float | None = None
    attributes: frozenset[str] = frozenset()
    given: tuple[Expr, ...] = ()

    def choose_queries(self, vocabulary: Vocabulary, prior: JudgedSamples, seed: int) -> list[Expr]:
        """Queries of this protocol for a model; raises if too few attributes or no prevalence within the limits."""
        return self.queries(RandomConditions(vocabulary, prior, f"{seed}/{self.name}"))


def _and(parts: Sequence[Expr]) -> Expr:
    return And(tuple(parts))


def _single(draw: RandomConditions) -> list[Expr]:
    """For each attribute, the first of eight random conditions whose prevalence is from `LEAST` to `MOST`, if any."""
    queries: list[Expr] = []
    for spec in draw.vocabulary.values():
        conditions = [draw.condition(spec) for _ in range(8)]
        queries += [one for one in conditions if LEAST <= draw.prevalence(one) <= MOST][:1]
    return queries


def _classes(draw: RandomConditions) -> list[Expr]:
    """For the attribute with most classes, a condition for each class whose prevalence is from `LEAST` to `MOST`."""
    classes = [spec for spec in draw.vocabulary.values() if spec.values]
    if not classes:
        raise EnergyQLError("the model has no categorical attribute")
    conditions = draw.values(max(classes, key=lambda spec: len(spec.values)))
    return [one for one in conditions if LEAST <= draw.prevalence(one) <= MOST]


def conjunctions(count: int, size: int, least: float, most: float) -> Callable[[RandomConditions], list[Expr]]:
    """Function that draws different conjunctions of `size` conditions, of a prevalence from `least` to `most`."""

    def choose(draw: RandomConditions) -> list[Expr]:
        queries: list[Expr] = []
        while len(queries) < count:
            query = draw.compose(size, _and, least, most)
            if query not in queries:
                queries.append(query)
        return queries

    return choose


def _logic(draw: RandomConditions) -> list[Expr]:
    """Five queries of fixed forms, such as `a AND NOT b` and `a OR b`, on random attributes."""
    shapes: list[tuple[int, Join]] = [
        (2, _and),
        (2, lambda p: Or((p[0], p[1]))),
        (2, lambda p: And((p[0], Not(p[1])))),
        (4, lambda p: Or((And((p[0], p[1])), And((p[2], Not(p[3])))))),
        (3, lambda p: And((p[0], Not(Or((p[1], p[2])))))),
    ]
    return [draw.compose(size, join, LEAST, MOST) for size, join in shapes]


def _sequence(draw: RandomConditions) -> list[Expr]:
    """Random conditions on five attributes, which at least one picture of the prior satisfies together."""
    return list(draw.compose(5, _and, OCCURRING, 1.0).children)


PROTOCOLS: dict[str, EvaluationProtocol] = {
    protocol.name: protocol
    for protocol in (
        EvaluationProtocol(
            "conditional-1", "Conditional sampling on one attribute",
            f"Every attribute with one of its values, after {PUBLISHED}.", _single,
        ),
        EvaluationProtocol(
            "classes", "Conditional sampling on classes",
            f"Every class of the attribute with the most classes, after {PUBLISHED}, on CIFAR-10.", _classes,
        ),
        EvaluationProtocol(
            "conditional-2", "Conditional sampling on two attributes",
            f"Six random pairs with a prevalence of at least 0.1 %, after {PUBLISHED}.",
            conjunctions(6, 2, LEAST, MOST),
        ),
        EvaluationProtocol(
            "conditional-3", "Conditional sampling on three attributes",
            f"Six random triples with a prevalence of at least 0.1 %, after {PUBLISHED}.",
            conjunctions(6, 3, LEAST, MOST),
        ),
        EvaluationProtocol(
            "sequential-5", "Sequential editing of five attributes",
            "Pictures of the prior, edited by one attribute after the other; all earlier edits are to hold. After "
            f"{PUBLISHED}, and StyleFlow (Abdal et al. 2021, arXiv 2008.02401).",
            _sequence, sequential=True,
        ),
        EvaluationProtocol(
            "zero-shot", "Combinations that hardly ever occur",
            "Three conjunctions of four attributes that at most one picture of the prior in 1,000 shows, after the "
            f"zero-shot generation of {PUBLISHED}.",
            conjunctions(3, 4, OCCURRING, RARE),
        ),
        EvaluationProtocol(
            "logic", "Logical compositions",
            "a AND b; a OR b; a AND NOT b; (a AND b) OR (c AND NOT d); and a AND NOT (b OR c). All but the last after "
            f"{PUBLISHED}.",
            _logic,
        ),
    )
}  # fmt: skip
"""Name of each protocol, such as "conditional-1" -> the protocol."""


FOLDER = Path(__file__).with_name("setups")
"""Folder of the set-ups that come with energyql."""
FORMAT = 1
"""Version of the format of set-ups."""


def known_setups() -> list[str]:
    """Names of the set-ups that come with energyql."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Needed:
    """An attribute that a model must have to run protocols of a set-up.

    A categorical attribute must have the classes `values`, maybe with others; a continuous one the range from 0 to 1.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()
    description: str = ""

    def __str__(self) -> str:
        what = f"{self.kind} from 0 to 1" if "low" in KINDS[self.kind].fields else self.kind
        classes = f", with {', '.join(map(repr, self.values))}" if self.values else ""
        return f"{self.name!r}, {what}{classes}" + (f" ({self.description})" if self.description else "")

    def lack(self, vocabulary: Vocabulary) -> str:
        """What a vocabulary lacks, as text for an error message; "" if attribute, kind, range and classes fit."""
        if self.name not in vocabulary:
            return f"attribute {self}"
        spec = vocabulary[self.name]
        in_range = "low" not in KINDS[self.kind].fields or (spec.low, spec.high) == (0.0, 1.0)
        fits = spec.kind == self.kind and in_range and set(self.values) <= set(spec.values)
        return "" if fits else f"attribute {self}: yours is {spec.kind}, {KINDS[spec.kind].detail(spec)}"


@dataclass(frozen=True)
class Setup:
    """The experiments of a publication on one data set, as read from a JSON file.

    Attributes:
        name: name of a set-up that comes with energyql, or the name of the file without `.json`.
        title: name of the data, such as "CIFAR-10, ten classes of 32 x 32".
        checkpoint: text about the generator, and about the latents that the heads take as input.
        labels: text about the labels that the heads were trained on, with thresholds.
        temperature: T > 0; the experiments of the publication divide the logits of the classes in a query by T.
        needed: the attributes in the queries.
        protocols: name -> protocol, in the order of the file; each protocol has a truncation.
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
        """Names of the methods to compare: this library's default sampler, and the paper's algorithm ("paper").

        If the temperature T is not 1, both end with the strength 1 / T, which has a similar effect, as in "paper@10".
        """
        strength = "" if self.temperature == 1 else f"@{1 / self.temperature:.4g}"
        return DEFAULT_SAMPLER + strength, PAPER + strength

    def check(self, vocabulary: Vocabulary, protocols: Sequence[str]) -> None:
        """Raise unless a model has the attributes that the named protocols need, and all their queries fit it."""
        names = {name for protocol in protocols for name in self.protocols[protocol].attributes}
        lacks = {one.name: lack for one in self.needed if (lack := one.lack(vocabulary))}
        if names & lacks.keys():
            able = [name for name, one in self.protocols.items() if not lacks.keys() & one.attributes]
            own = either(f"protocols={able}", f"--protocols {','.join(able)}")
            hint = f"it can run {own}; for the others" if able else "it can run none of them;"
            hint += f" train heads of these names with `energyql train`, on labels such as these: {self.labels}"
            listed = "; ".join(lack for name, lack in lacks.items() if name in names)
            raise ModelError(f"{vocabulary.of_model} lacks what set-up {self.name!r} needs: {listed}", hint=hint)
        for name in protocols:
            for query in self.protocols[name].given:
                try:
                    bind(query, vocabulary)
                except EnergyQLError as error:
                    error.message = f"set-up {self.name!r}, protocol {name!r}, {str(query)!r}: {error.message}"
                    raise


def read_setup(name: str | Path) -> Setup:
    """Read a set-up, the experiments of a publication, from its JSON file.

    Args:
        name: name of a set-up that comes with energyql, such as "ffhq", or the name of a JSON file.

    Raises:
        EnergyQLError: there is no such set-up, or the file is missing or wrong.
    """
    path = FOLDER / f"{name}.json" if name in known_setups() else Path(name)
    if path.suffix != ".json":
        raise ArgumentError(f"there is no set-up {str(name)!r}", hint=f"{', '.join(known_setups())}, or a JSON file")
    data = read_json(path)
    try:
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r} is not {FORMAT}")
        needed = tuple(
            Needed(one["name"], KINDS[one["kind"]].name, tuple(one.get("values", ())), one.get("description", ""))
            for one in data["attributes"]
        )
        listed = [_read_protocol(one, float(data["truncation"]), str(data["labels"])) for one in data["protocols"]]
        protocols = {one.name: one for one in listed if re.fullmatch("[A-Za-z0-9-]+", one.name)}  # names of folders
        if len(protocols) < len(listed):
            raise ValueError("names of protocols must be of letters, digits and hyphens, and different")
        if unknown := {name for one in listed for name in one.attributes} - {one.name for one in needed}:
            raise ValueError(f"{', '.join(sorted(unknown))} not among its attributes")
        temperature = float(data["temperature"])
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature {temperature} is not a number above 0")
        title, checkpoint, labels = (str(data[key]) for key in ("title", "checkpoint", "labels"))
        return Setup(path.stem, title, checkpoint, labels, temperature, needed, protocols)
    except EnergyQLError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is no set-up: {error!r}", hint="docs/lace.md describes its fields") from error


def _read_protocol(entry: Mapping[str, Any], truncation: float, labels: str) -> EvaluationProtocol:
    """Protocol that an entry of a set-up's file describes by one of `queries`, `every`, `steps` and `drawn`."""
    (field,) = {"queries", "every", "steps", "drawn"} & set(entry)
    if not entry[field] or (field == "every" and not all(entry[field])):
        raise ValueError(f"{field!r} of protocol {entry['name']!r} is empty")
    queries = tuple(parse(text) for text in entry[field]) if field in ("queries", "steps") else ()
    groups = [tuple(map(str, group)) for group in entry[field]] if field == "every" else []
    attributes = tuple(map(str, entry[field])) if field == "drawn" else ()
    names = {leaf.name for query in queries for leaf in predicates(query)}.union(attributes, *groups)

    def choose(draw: RandomConditions) -> list[Expr]:
        """Return the stated queries, every combination of values in the groups of `every`, and `drawn` conditions."""
        parts = [product(*(draw.values(draw.vocabulary[name]) for name in group)) for group in groups]
        combined = [choice[0] if len(choice) == 1 else And(choice) for group in parts for choice in group]
        return [*queries, *combined, *(draw.condition(draw.vocabulary[name]) for name in attributes)]

    about = f"{entry['about']} Labels: {labels}."
    psi = float(entry.get("truncation", truncation))
    sequential = field in ("steps", "drawn")
    return EvaluationProtocol(entry["name"], entry["title"], about, choose, sequential, psi, frozenset(names), queries)
