"""Evaluation protocols and named set-ups: for each the queries, and the publication that it follows.

Queries are drawn by a seed from the model's vocabulary and kept if their prevalence in the prior is as the protocol
asks, so the same model gets the same queries. A new protocol is one entry of `PROTOCOLS`.

Each is a JSON file in the folder `setups`; it holds no weights, labels or code. docs/lace.md describes its fields.
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

TRIES = 20_000
LEAST, MOST = 0.001, 0.9
"""Prevalence of the queries of a protocol, unless it says otherwise."""
SEEN, RARE = 1e-9, 0.001
"""Prevalence of a query that occurs in the prior at all, and the largest of a rare one."""
TARGETS = (0.25, 0.5, 0.75)
"""Of a continuous attribute, as shares of its range."""
PUBLISHED = "Nie et al. 2021, arXiv 2110.10873"


class RandomConditions:
    """Random conditions on a model's attributes, by `Random.random` alone, whose numbers Python promises to keep.

    The seed is a text that names the protocol and its seed.
    """

    def __init__(self, vocabulary: Vocabulary, prior: JudgedSamples, seed: str) -> None:
        self.vocabulary, self._prior = vocabulary, prior
        self._uniform = random.Random(seed).random

    def values(self, spec: AttributeSpec) -> list[Expr]:
        """Return every value of an attribute: yes and no, each class, or each of the targets."""
        return KINDS[spec.kind].conditions(E[spec.name], spec, TARGETS)

    def condition(self, spec: AttributeSpec) -> Expr:
        """Draw one value of an attribute: yes, a class, or a target with the attribute's own tolerance."""
        return E[spec.name] if BARE in KINDS[spec.kind].forms else self._choice(self.values(spec))

    def prevalence(self, query: Expr) -> float:
        """Return the share of prior pictures that satisfy a query, by the judge."""
        bound = bind(query, self.vocabulary)
        return float(satisfied(bound, self._prior.values, self.vocabulary).mean())

    def compose(self, count: int, join: Join, least: float, most: float) -> Expr:
        """Draw a query with a prevalence from `least` to `most`: joined conditions on `count` different attributes.

        Raises:
            EnergyQLError: none was found in `TRIES` attempts.
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
        return values[int(self._uniform() * len(values))]


@dataclass(frozen=True)
class EvaluationProtocol:
    """One experiment.

    Attributes:
        name: for `--protocols`.
        title: heading of its results.
        about: its queries, and the publication that it follows.
        queries: draws the queries.
        sequential: the queries are the steps of one edit, rather than sampled one by one.
        truncation: under which it is run; by default that of the evaluation.
        attributes: that its queries name, where these are given rather than drawn.
        given: its queries, where they are given as texts.
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

        Raises:
            EnergyQLError: the model has no such queries.
        """
        return self.queries(RandomConditions(vocabulary, prior, f"{seed}/{self.name}"))


def _and(parts: Sequence[Expr]) -> Expr:
    return And(tuple(parts))


def _single(draw: RandomConditions) -> list[Expr]:
    found: list[Expr] = []
    for spec in draw.vocabulary.values():
        conditions = [draw.condition(spec) for _ in range(8)]
        found += [one for one in conditions if LEAST <= draw.prevalence(one) <= MOST][:1]
    return found


def _classes(draw: RandomConditions) -> list[Expr]:
    classes = [spec for spec in draw.vocabulary.values() if spec.values]
    if not classes:
        raise EnergyQLError("the model has no categorical attribute", hint="choose other protocols")
    conditions = draw.values(max(classes, key=lambda spec: len(spec.values)))
    return [one for one in conditions if LEAST <= draw.prevalence(one) <= MOST]


def conjunctions(count: int, size: int, least: float, most: float) -> Callable[[RandomConditions], list[Expr]]:
    """Return a function that draws `count` different conjunctions of `size` attributes."""

    def choose(draw: RandomConditions) -> list[Expr]:
        found: list[Expr] = []
        while len(found) < count:
            query = draw.compose(size, _and, least, most)
            if query not in found:
                found.append(query)
        return found

    return choose


def _logic(draw: RandomConditions) -> list[Expr]:
    shapes: list[tuple[int, Join]] = [
        (2, _and),
        (2, lambda p: Or((p[0], p[1]))),
        (2, lambda p: And((p[0], Not(p[1])))),
        (4, lambda p: Or((And((p[0], p[1])), And((p[2], Not(p[3])))))),
        (3, lambda p: And((p[0], Not(Or((p[1], p[2])))))),
    ]
    return [draw.compose(size, join, LEAST, MOST) for size, join in shapes]


def _sequence(draw: RandomConditions) -> list[Expr]:
    return list(draw.compose(5, _and, SEEN, 1.0).children)


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
            conjunctions(3, 4, SEEN, RARE),
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
        what = f"{self.kind} from 0 to 1" if "low" in KINDS[self.kind].fields else self.kind
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
        if "low" in KINDS[self.kind].fields and (spec.low, spec.high) != (0.0, 1.0):
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
