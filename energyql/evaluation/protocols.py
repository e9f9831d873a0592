"""Evaluation protocols, which are experiments with random queries, and set-ups, which are published experiments.

The queries of a protocol are random conditions on the attributes of a model, with a prevalence in the prior within
limits of the protocol. They follow from the model and a seed. A new protocol is one entry of `PROTOCOLS`.

A set-up is a JSON file in the folder `setups` without weights, labels or code. docs/lace.md describes its fields.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from energyql.errors import ArgumentError, DataError, EnergyQLError, ModelError
from energyql.evaluation.judged import JudgedSamples
from energyql.evaluation.methods import PAPER
from energyql.files import read_json
from energyql.kinds import BARE, KINDS
from energyql.language import And, E, Expr, Not, Or, bind, parse, predicates
from energyql.logic.truth import satisfied
from energyql.pipeline.settings import DEFAULT_SAMPLER
from energyql.vocabulary import AttributeSpec, Vocabulary

T = TypeVar("T")
Join = Callable[[Sequence[Expr]], Expr]
"""A function from conditions to one query."""

TRIES = 20_000
"""Most random queries that are tried for one with the right prevalence."""
LEAST = 0.001
"""Smallest prevalence of the queries of most protocols."""
MOST = 0.9
"""Largest prevalence of the queries of most protocols."""
OCCURRING = 1e-9
"""Smallest prevalence of queries that need only occur in the prior."""
RARE = 0.001
"""Largest prevalence of rare queries."""
TARGETS = (0.25, 0.5, 0.75)
"""Targets for a continuous attribute, as shares of its range."""
PUBLISHED = "Nie et al. 2021, arXiv 2110.10873"


class RandomConditions:
    """Random conditions on the attributes of a model, by `Random.random`, which is the same in all versions of Python.

    Args:
        vocabulary: the attributes.
        prior: judged samples of the prior.
        seed: a text with the name of the protocol and the seed of the run.
    """

    def __init__(self, vocabulary: Vocabulary, prior: JudgedSamples, seed: str) -> None:
        self.vocabulary, self._prior = vocabulary, prior
        self._uniform = random.Random(seed).random

    def values(self, spec: AttributeSpec) -> list[Expr]:
        """Return a condition for every value of an attribute: yes and no, each class, or each of `TARGETS`."""
        return KINDS[spec.kind].conditions(E[spec.name], spec, TARGETS)

    def condition(self, spec: AttributeSpec) -> Expr:
        """Return a random condition on an attribute: yes, a class, or a target with the tolerance of the attribute."""
        return E[spec.name] if BARE in KINDS[spec.kind].forms else self._choice(self.values(spec))

    def prevalence(self, query: Expr) -> float:
        """Return the share of prior pictures that satisfy a query, by the judge."""
        bound = bind(query, self.vocabulary)
        return float(satisfied(bound, self._prior.values, self.vocabulary).mean())

    def compose(self, count: int, join: Join, least: float, most: float) -> Expr:
        """Return a random query with a prevalence from `least` to `most`.

        Args:
            count: number of different attributes in the query.
            join: function from their conditions to the query.
            least: smallest prevalence.
            most: largest prevalence.

        Raises:
            EnergyQLError: none of `TRIES` random queries has such a prevalence.
        """
        for _ in range(TRIES if len(self.vocabulary) >= count else 0):
            pool = list(self.vocabulary)
            names = [pool.pop(int(self._uniform() * len(pool))) for _ in range(count)]
            query = join([self.condition(self.vocabulary[name]) for name in names])
            if least <= self.prevalence(query) <= most:
                return query
        raise EnergyQLError(
            f"no query of {count} attributes has a prevalence from {least:g} to {most:g}",
            hint="the model has few attributes, or they hardly vary, or the prior is too small: raise --prior",
        )

    def _choice(self, values: Sequence[T]) -> T:
        """Return one of the values at random."""
        return values[int(self._uniform() * len(values))]


@dataclass(frozen=True)
class EvaluationProtocol:
    """One experiment.

    Attributes:
        name: name for `--protocols`.
        title: heading of its results.
        about: text about its queries, and the publication that it follows.
        queries: function that returns the queries.
        sequential: whether the queries are the steps of one edit, rather than sampled one by one.
        truncation: psi; `None` for that of the evaluation.
        attributes: names of the attributes in its queries, for a protocol of a set-up.
        given: its queries, if a set-up states them as texts.
    """

    name: str
    title: str
    about: str
    queries: Callable[[RandomConditions], list[Expr]]
    sequential: bool = False
    truncation: float | None = None
    attributes: tuple[str, ...] = ()
    given: tuple[Expr, ...] = ()

    def choose_queries(self, vocabulary: Vocabulary, prior: JudgedSamples, seed: int) -> list[Expr]:
        """Return the queries for a model.

        Args:
            vocabulary: vocabulary of the model.
            prior: judged samples of the prior.
            seed: seed of the run.

        Raises:
            EnergyQLError: the model has too few attributes for such queries.
        """
        return self.queries(RandomConditions(vocabulary, prior, f"{seed}/{self.name}"))


def _and(parts: Sequence[Expr]) -> Expr:
    return And(tuple(parts))


def _single(draw: RandomConditions) -> list[Expr]:
    """Return a random condition on each attribute that has one with the right prevalence."""
    queries: list[Expr] = []
    for spec in draw.vocabulary.values():
        conditions = [draw.condition(spec) for _ in range(8)]
        queries += [one for one in conditions if LEAST <= draw.prevalence(one) <= MOST][:1]
    return queries


def _classes(draw: RandomConditions) -> list[Expr]:
    """Return a condition for each class of the categorical attribute with the most classes."""
    classes = [spec for spec in draw.vocabulary.values() if spec.values]
    if not classes:
        raise EnergyQLError("the model has no categorical attribute", hint="choose other protocols")
    conditions = draw.values(max(classes, key=lambda spec: len(spec.values)))
    return [one for one in conditions if LEAST <= draw.prevalence(one) <= MOST]


def conjunctions(count: int, size: int, least: float, most: float) -> Callable[[RandomConditions], list[Expr]]:
    """Return a function that returns `count` different random conjunctions of `size` conditions.

    Their prevalences are from `least` to `most`.
    """

    def choose(draw: RandomConditions) -> list[Expr]:
        queries: list[Expr] = []
        while len(queries) < count:
            query = draw.compose(size, _and, least, most)
            if query not in queries:
                queries.append(query)
        return queries

    return choose


def _logic(draw: RandomConditions) -> list[Expr]:
    """Return a random query of each of five shapes."""
    shapes: list[tuple[int, Join]] = [
        (2, _and),
        (2, lambda p: Or((p[0], p[1]))),
        (2, lambda p: And((p[0], Not(p[1])))),
        (4, lambda p: Or((And((p[0], p[1])), And((p[2], Not(p[3])))))),
        (3, lambda p: And((p[0], Not(Or((p[1], p[2])))))),
    ]
    return [draw.compose(size, join, LEAST, MOST) for size, join in shapes]


def _sequence(draw: RandomConditions) -> list[Expr]:
    """Return five random conditions that occur together in the prior."""
    return list(draw.compose(5, _and, OCCURRING, 1.0).children)


PROTOCOLS: dict[str, EvaluationProtocol] = {
    protocol.name: protocol
    for protocol in (
        EvaluationProtocol(
            "conditional-1",
            "Conditional sampling on one attribute",
            f"Every attribute with one of its values. After the single-attribute experiments of {PUBLISHED}.",
            _single,
        ),
        EvaluationProtocol(
            "classes",
            "Conditional sampling on classes",
            "Every class of the attribute with the most classes. After the experiment of "
            f"{PUBLISHED}, on the ten classes of CIFAR-10.",
            _classes,
        ),
        EvaluationProtocol(
            "conditional-2",
            "Conditional sampling on two attributes",
            f"Six random pairs with a prevalence of at least 0.1 %. After the experiments of {PUBLISHED}.",
            conjunctions(6, 2, LEAST, MOST),
        ),
        EvaluationProtocol(
            "conditional-3",
            "Conditional sampling on three attributes",
            f"Six random triples with a prevalence of at least 0.1 %. After the experiments of {PUBLISHED}, which "
            "condition FFHQ on glasses, gender, smile and age together.",
            conjunctions(6, 3, LEAST, MOST),
        ),
        EvaluationProtocol(
            "sequential-5",
            "Sequential editing of five attributes",
            "Pictures of the prior, edited by one attribute after the other; all earlier edits are to hold. After the "
            f"sequential editing of {PUBLISHED}, and of StyleFlow (Abdal et al. 2021, arXiv 2008.02401).",
            _sequence,
            sequential=True,
        ),
        EvaluationProtocol(
            "zero-shot",
            "Combinations that hardly ever occur",
            f"Three conjunctions of four attributes that at most one picture of the prior in 1,000 shows. After the "
            f"zero-shot generation of {PUBLISHED}.",
            conjunctions(3, 4, OCCURRING, RARE),
        ),
        EvaluationProtocol(
            "logic",
            "Logical compositions",
            f"a AND b; a OR b; a AND NOT b; (a AND b) OR (c AND NOT d), as in the experiments of {PUBLISHED}; and a "
            "AND NOT (b OR c).",
            _logic,
        ),
    )
}
"""Every protocol by its name."""


FOLDER = Path(__file__).with_name("setups")
"""Folder of the set-ups that come with energyql."""
FORMAT = 1
"""Version of the format of set-ups."""


def known_setups() -> list[str]:
    """Return the names of the set-ups that come with energyql."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Needed:
    """An attribute that a model must have for a set-up.

    Attributes:
        name: its name.
        kind: its kind; a continuous attribute must have the range from 0 to 1.
        values: classes that it must have.
        description: text for messages.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()
    description: str = ""

    def __str__(self) -> str:
        what = f"{self.kind} from 0 to 1" if "low" in KINDS[self.kind].fields else self.kind
        classes = f", with {', '.join(map(repr, self.values))}" if self.values else ""
        about = f" ({self.description})" if self.description else ""
        return f"{self.name!r}, {what}{classes}{about}"

    def lack(self, vocabulary: Vocabulary) -> str:
        """Return what a vocabulary lacks, as a text for a message; "" if it has the attribute."""
        if self.name not in vocabulary:
            return f"attribute {self}"
        spec = vocabulary[self.name]
        missing = [value for value in self.values if value not in spec.values]
        if spec.kind != self.kind:
            return f"attribute {self}: yours is {spec.kind}"
        if "low" in KINDS[self.kind].fields and (spec.low, spec.high) != (0.0, 1.0):
            return f"attribute {self}: yours is from {spec.low:g} to {spec.high:g}"
        return f"classes of {self.name!r}: {', '.join(map(repr, missing))}" if missing else ""


@dataclass(frozen=True)
class Setup:
    """One published experiment.

    Attributes:
        name: name of a set-up that comes with energyql, or the stem of a file.
        title: name of the data.
        checkpoint: text about the generator, and the latents that the heads read.
        labels: text about the labels of the heads, with thresholds.
        temperature: T, which divides the logits of the classes in a query in the published experiment.
        needed: the attributes in the queries.
        protocols: name -> protocol, in order; each has its own truncation.
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
        """Names of the default sampler and the paper's, with strength 1 / T, which is similar to a temperature T."""
        strength = "" if self.temperature == 1 else f"@{1 / self.temperature:.4g}"
        return DEFAULT_SAMPLER + strength, PAPER + strength

    def check(self, vocabulary: Vocabulary, protocols: Sequence[str]) -> None:
        """Check that a model has all attributes that some protocols need, and that their queries fit the model.

        Args:
            vocabulary: vocabulary of the model.
            protocols: names of the protocols.

        Raises:
            EnergyQLError: the model lacks attributes, all of which the message lists, or a query does not fit it.
        """
        names = {name for protocol in protocols for name in self.protocols[protocol].attributes}
        lacks = [lack for one in self.needed if one.name in names and (lack := one.lack(vocabulary))]
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
        """Raise an EnergyQLError if a query of one of the protocols does not fit the vocabulary."""
        for name in protocols:
            for query in self.protocols[name].given:
                try:
                    bind(query, vocabulary)
                except EnergyQLError as error:
                    error.message = f"set-up {self.name!r}, protocol {name!r}, {str(query)!r}: {error.message}"
                    raise

    def _lacking(self, protocol: EvaluationProtocol, vocabulary: Vocabulary) -> list[str]:
        """Return the names of the attributes of a protocol that the vocabulary lacks."""
        return [one.name for one in self.needed if one.name in protocol.attributes and one.lack(vocabulary)]


def read_setup(name: str | Path) -> Setup:
    """Return the set-up of this name, or the one in a JSON file.

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
        if wrong := [one.kind for one in needed if one.kind not in KINDS]:
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
    """Return a protocol of a set-up.

    Args:
        entry: its JSON object, with one of the fields `queries`, `every`, `steps` and `drawn`.
        truncation: psi, unless the entry has its own.
        labels: text about the labels of the heads.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the entry has a wrong form.
        EnergyQLError: a query is wrong.
    """
    (field,) = {"queries", "every", "steps", "drawn"} & set(entry)
    if not entry[field] or (field == "every" and not all(entry[field])):
        raise ValueError(f"{field!r} of protocol {entry['name']!r} is empty")
    choose: Callable[[RandomConditions], list[Expr]]
    queries: tuple[Expr, ...] = ()
    if field in ("queries", "steps"):
        queries = tuple(parse(text) for text in entry[field])
        names = {leaf.name for query in queries for leaf in predicates(query)}
        choose = partial(_fixed, queries)
    elif field == "every":
        groups = [tuple(map(str, group)) for group in entry[field]]
        names = {name for group in groups for name in group}
        choose = partial(_every, groups)
    else:
        attributes = tuple(map(str, entry[field]))
        names, choose = set(attributes), partial(_random, attributes)
    about = f"{entry['about']} Labels: {labels}."
    psi = float(entry.get("truncation", truncation))
    sequential = field in ("steps", "drawn")
    return EvaluationProtocol(
        entry["name"], entry["title"], about, choose, sequential, psi, tuple(sorted(names)), queries
    )


def _fixed(queries: Sequence[Expr], draw: RandomConditions) -> list[Expr]:
    """Return these queries; `draw` is not used."""
    return list(queries)


def _every(groups: Sequence[Sequence[str]], draw: RandomConditions) -> list[Expr]:
    """Return for each group of attributes every combination of their values, as a conjunction."""
    parts = [product(*(draw.values(draw.vocabulary[name]) for name in group)) for group in groups]
    return [choice[0] if len(choice) == 1 else And(choice) for group in parts for choice in group]


def _random(names: Sequence[str], draw: RandomConditions) -> list[Expr]:
    """Return a random condition on each of the attributes."""
    return [draw.condition(draw.vocabulary[name]) for name in names]
