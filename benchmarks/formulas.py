"""Random formulas that a model can satisfy and that are not trivial."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from energyql.errors import Contradiction, EnergyQLError, TautologyWarning
from energyql.language import (
    And,
    Attribute,
    Cardinality,
    Constant,
    Expr,
    Implies,
    Not,
    Or,
    Xor,
    bind,
    parse,
    predicates,
)
from energyql.logic.circuit import Circuit, compile_query
from energyql.vocabulary import AttributeSpec, Vocabulary

T = TypeVar("T")

LEAST_PREVALENCE, MOST_PREVALENCE = 0.001, 0.6
DEPTHS = (1, 2, 3)
TRIES = 5000
ROOTS = ("AND", "OR", "AND", "OR", "AND", "XOR", "IMPLIES", "AT LEAST")
"""Outermost connectives, in turn: with 24 formulas, each depth has all of them."""
CONNECTIVES = (("AND", 0.44), ("OR", 0.34), ("XOR", 0.08), ("IMPLIES", 0.07), ("AT LEAST", 0.07))
"""The connectives further in, and how often each is drawn."""


def all_relations(vocabulary: Vocabulary) -> Expr:
    """Return the conjunction of the vocabulary's relations, which holds in every picture.

    A judge that errs once in a hundred reads a few smiles with a sad mouth. Prevalence is therefore counted among
    pictures that satisfy the relations, or such formulas would pass as merely rare.
    """
    relations = [bind(parse(text), vocabulary) for text in vocabulary.relations]
    return Cardinality("ALL", None, tuple(relations)) if relations else Constant(True)


def random_formulas(
    vocabulary: Vocabulary,
    prevalence: Callable[[Expr], float],
    count: int = 24,
    seed: int = 2026,
    *,
    least: float = LEAST_PREVALENCE,
    most: float = MOST_PREVALENCE,
) -> list[Expr]:
    """Draw formulas of depth 1, 2 and 3, in equal numbers, shallow ones first.

    The depth is the number of connectives above the deepest literal, where a NOT is free: `smile AND NOT hat` has depth
    1, `smile AND NOT (glasses OR beard)` depth 2. A formula is kept if

    - by logic it is no contradiction and no tautology, every attribute in it matters (`(smile OR beard) AND beard` is
      just `beard`), and it is not equivalent to one drawn before;
    - its prevalence among samples of the prior is at least `least` and at most `most`.

    The second rule is a choice that makes the benchmark easier at one end and harder at the other: combinations that a
    generator never draws by chance (a bald head with long hair, in the packaged model) are left out, because no sampler
    could be blamed for missing them, and so are formulas that most samples satisfy anyway. At 0.001 and 8,000 samples,
    8 pictures must show a combination; `rare_formulas` draws rarer ones.

    Every formula has a random stream of its own, so the list is the same on every machine that judges the same pictures
    alike; where rounding moves a prevalence over a limit, only that formula changes (and perhaps one that was
    left out because it was equivalent to it).

    Args:
        vocabulary: the attributes to draw from.
        prevalence: the fraction of prior samples that satisfy a bound query (and `all_relations`).
        count: how many; a third of each depth.
        seed: same seed, same formulas.
        least: smallest prevalence.
        most: largest prevalence.

    Raises:
        EnergyQLError: nothing suitable was found in `TRIES` attempts; the attributes of the model hardly vary.
    """
    kept = _Kept(vocabulary, prevalence, least, most)
    for index, depth in enumerate(sorted(DEPTHS[i % len(DEPTHS)] for i in range(count))):
        draw = RandomFormulas(random.Random(f"{seed}/{index}"), vocabulary)  # text is hashed: the same in every Python

        def candidate(attempt: int, draw: RandomFormulas = draw, depth: int = depth, index: int = index) -> Expr:
            # Given, not drawn, or the limits of the prevalence would favour AND; drawn where the given one cannot fit.
            kind = ROOTS[index % len(ROOTS)] if attempt < TRIES // 2 else draw.connective()
            return draw.formula(depth, kind)

        hint = "look at the judge's readings of prior samples: most attributes seem to be constant"
        kept.add(candidate, f"formula of depth {depth}", hint)
    return kept.formulas


def rare_formulas(
    vocabulary: Vocabulary, prevalence: Callable[[Expr], float], count: int, seed: int, *, least: float, most: float
) -> list[Expr]:
    """Draw conjunctions of four to six parts, each a literal or an OR of two, that hardly any sample satisfies.

    Arguments and rules are those of `random_formulas`.

    Raises:
        EnergyQLError: nothing suitable was found in `TRIES` attempts.
    """
    kept = _Kept(vocabulary, prevalence, least, most)
    for index in range(count):
        draw = RandomFormulas(random.Random(f"{seed}/rare/{index}"), vocabulary)

        def candidate(attempt: int, draw: RandomFormulas = draw) -> Expr:
            return draw.conjunction(4 + int(3 * draw.uniform()))

        kept.add(candidate, "conjunction", "judge more samples of the prior: rare combinations hardly occur in few")
    return kept.formulas


class _Kept:
    """Formulas that keep the rules of `random_formulas`."""

    def __init__(self, vocabulary: Vocabulary, prevalence: Callable[[Expr], float], least: float, most: float) -> None:
        self.formulas: list[Expr] = []
        self._vocabulary, self._prevalence, self._limits = vocabulary, prevalence, (least, most)
        self._circuits: set[Circuit] = set()

    def add(self, candidate: Callable[[int], Expr], what: str, hint: str) -> None:
        """Keep the first suitable candidate.

        Args:
            candidate: makes a formula, given the number of the attempt.
            what: a name for it in the message.
            hint: for the message.

        Raises:
            EnergyQLError: there is none in `TRIES` attempts.
        """
        least, most = self._limits
        for attempt in range(TRIES):
            formula = bind(candidate(attempt), self._vocabulary)
            if not least <= self._prevalence(formula) <= most:
                continue
            circuit = _circuit(formula, self._vocabulary)
            if circuit is None:
                continue
            if circuit not in self._circuits and set(circuit.attributes) == attributes_of(formula):
                self._circuits.add(circuit)
                self.formulas.append(formula)
                return
        raise EnergyQLError(f"no {what} has a prevalence from {least:g} to {most:g} in {TRIES} attempts", hint=hint)


def depth_of(formula: Expr) -> int:
    """Return the number of connectives above the deepest literal; NOT does not count."""
    if isinstance(formula, Not):
        return depth_of(formula.operand)
    return 1 + max(map(depth_of, formula.children)) if formula.children else 0


def attributes_of(formula: Expr) -> set[str]:
    """Return the attributes that occur in a formula."""
    return {node.name for node in predicates(formula)}


def _circuit(formula: Expr, vocabulary: Mapping[str, AttributeSpec]) -> Circuit | None:
    """Return the compiled formula; `None` where it is always false or always true."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", TautologyWarning)
        try:
            return compile_query(formula, vocabulary, relations=False)
        except (Contradiction, TautologyWarning):
            return None


class RandomFormulas:
    """Random choices by `Random.random` alone, the only method whose numbers Python promises never to change."""

    def __init__(self, source: random.Random, vocabulary: Vocabulary) -> None:
        self.uniform = source.random
        self.specs = list(vocabulary.values())

    def formula(self, depth: int, kind: str) -> Expr:
        """Draw a formula of exactly this depth, whose outermost connective is `kind`."""
        least = {"XOR": 2, "IMPLIES": 2, "AT LEAST": 3}.get(kind)
        width = least or (2 if self.uniform() < 0.6 else 3)
        # One operand is as deep as it must be; the others are mostly literals, so that the formula stays readable.
        depths = [depth - 1, *(int(self.uniform() ** 2 * depth) for _ in range(width - 1))]
        specs = self.some(self.specs, min(width, len(self.specs)))  # literals side by side differ in attribute
        operands = []
        for i, inner in enumerate(self.some(depths, width)):
            if inner == 0:
                operands.append(self.literal(specs[i % len(specs)]))
            elif self.uniform() < 0.35:
                operands.append(Not(self.formula(inner, self.connective())))
            else:
                operands.append(self.formula(inner, self.connective(other_than=kind)))  # AND in AND would be one AND
        if kind == "AND":
            return And(tuple(operands))
        if kind == "OR":
            return Or(tuple(operands))
        if kind == "XOR":
            return Xor(tuple(operands))
        return Implies(*operands) if kind == "IMPLIES" else Cardinality("AT LEAST", 2, tuple(operands))

    def conjunction(self, parts: int) -> Expr:
        """Draw an AND of so many parts on different attributes, of which about a third are an OR of two literals."""
        specs = self.some(self.specs, min(2 * parts, len(self.specs)))
        parts = min(parts, len(specs))
        operands = []
        for i in range(parts):
            first = self.literal(specs[i])
            other = parts + i
            either = other < len(specs) and self.uniform() < 0.35
            operands.append(Or((first, self.literal(specs[other]))) if either else first)
        return And(tuple(operands))

    def literal(self, spec: AttributeSpec) -> Expr:
        """Draw a literal on one attribute, in one of the forms that its kind allows."""
        attribute = Attribute(spec.name)
        if spec.kind == "yes/no":
            return Not(attribute) if self.uniform() < 0.35 else attribute
        if spec.kind == "continuous":
            return self.interval(attribute, spec)
        if len(spec.values) < 4 or self.uniform() < 0.6:
            value = self.some(spec.values, 1)[0]
            return attribute.eq(value) if self.uniform() < 0.75 else attribute.ne(value)
        values = self.some(spec.values, 2)
        return attribute.is_in(values) if self.uniform() < 0.7 else attribute.not_in(values)

    def interval(self, attribute: Attribute, spec: AttributeSpec) -> Expr:
        """Draw an interval above, below or between tenths of the range, at least three tenths wide."""
        tenths = [round(spec.low + (spec.high - spec.low) * tenth / 10, 6) for tenth in range(11)]
        kind = self.uniform()
        if kind < 0.35:
            return attribute > self.some(tenths[3:8], 1)[0]
        if kind < 0.7:
            return attribute < self.some(tenths[3:8], 1)[0]
        low = int(self.uniform() * 5) + 1
        high = low + 3 + int(self.uniform() * (7 - low))
        return attribute.is_between(tenths[low], tenths[high], closed="none")

    def connective(self, other_than: str = "") -> str:
        """Draw the name of a connective by weight."""
        choices = [(name, weight) for name, weight in CONNECTIVES if name != other_than]
        left = self.uniform() * sum(weight for _, weight in choices)
        for name, weight in choices:
            left -= weight
            if left < 0:
                return name
        return choices[-1][0]

    def some(self, values: Sequence[T], count: int) -> list[T]:
        """Draw `count` of the values, without repetition, in random order."""
        pool = list(values)
        return [pool.pop(int(self.uniform() * len(pool))) for _ in range(count)]
