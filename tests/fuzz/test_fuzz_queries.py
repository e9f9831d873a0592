"""Any text is refused, or printed and read again as the same tree; formulas mean what listing all worlds says."""

import itertools
import math

import pytest
from toys import VOCABULARY

from energyql.errors import Contradiction
from energyql.language import bind, parse
from energyql.pipeline.score import score
from fuzz.cases import fuzz

SEEDS = [
    "smile AND NOT (glasses OR beard)", 'hair = "dark red" OR hair IN (black, brown)', "age > 0.5 AND age <= 0.75",
    "AT LEAST 2 OF (smile, glasses, beard)", "EXACTLY 1 OF (smile, NOT glasses)", "smile -> glasses <-> beard",
    "2 * smile XOR 0.5 * (glasses)", "age = 0.5 +- 0.1", "0.2 < age < 0.7", "NONE OF (smile, beard) # nothing",
    "true OR false AND smile", "hair != black",
]  # fmt: skip
WORDS = [
    "smile", "glasses", "beard", "hair", "age", "black", '"dark red"', "AND", "OR", "NOT", "XOR", "IMPLIES", "IFF",
    "->", "<->", "&", "|", "~", "!", "(", ")", ",", "=", "!=", "<", "<=", ">", ">=", "+-", "±", "*", "IN", "AT LEAST",
    "AT MOST", "EXACTLY", "OF", "ALL OF", "ANY OF", "NONE OF", "0.5", "2", "-1", "1e9", "1e999", "true", "false", '"',
    "\\", "#", "\n", "\0", "\ud800", "ﬁ", "İ", "\u202e", "[", "]", "{", "}", ";", ":", "BETWEEN", "é", "e\u0301",
]  # fmt: skip
PLANES = (128, 0x3000, 0x110000)


def text(random):
    """A query with some damage, a soup of words, or any characters."""
    kind = random.randrange(3)
    if kind == 0:
        words = random.choice(SEEDS).split(" ")
        for _ in range(random.randrange(1, 5)):
            at = random.randrange(len(words) + 1)
            words[at : at + random.randrange(3)] = random.choices([*WORDS, *words], k=random.randrange(3))
        return random.choice((" ", " ", "")).join(words)
    if kind == 1:
        return " ".join(random.choices(WORDS, k=random.randrange(30)))
    return "".join(chr(random.randrange(random.choice(PLANES))) for _ in range(random.randrange(60)))


def test_any_text():
    def work(random):
        query = text(random)
        tree = parse(query)
        assert parse(str(tree)) == tree, query
        bound = bind(tree, VOCABULARY, query=query)
        assert bind(parse(str(tree)), VOCABULARY, query=str(tree)) == bound, query

    fuzz(work, 1500, 10)


YES_NO, HAIR = ("smile", "glasses", "beard"), ("black", "brown", "dark red")


def formula(random, depth):
    """Return the text of a formula and a function from a world to its truth, written without the library."""
    if depth == 0 or random.random() < 0.2:
        kind = random.randrange(4)
        if kind < 2:
            name = random.choice(YES_NO)
            return name, lambda world: world[name]
        chosen = random.sample(HAIR, random.choice((1, 2)))
        inside = ", ".join(f'"{value}"' for value in chosen)
        if kind == 2:
            return f"hair IN ({inside})", lambda world: world["hair"] in chosen
        return f'hair != "{chosen[0]}"', lambda world: world["hair"] != chosen[0]
    parts = [formula(random, depth - 1) for _ in range(random.choice((2, 2, 3)))]
    (one, first), (two, second) = parts[:2]
    texts, holds = [f"({part})" for part, _ in parts], [hold for _, hold in parts]
    count = random.randrange(len(parts) + 1)
    return random.choice(
        [
            (f"NOT ({one})", lambda world: not first(world)),
            (" AND ".join(texts), lambda world: all(hold(world) for hold in holds)),
            (" OR ".join(texts), lambda world: any(hold(world) for hold in holds)),
            (f"({one}) XOR ({two})", lambda world: first(world) != second(world)),
            (f"({one}) IMPLIES ({two})", lambda world: not first(world) or second(world)),
            (f"({one}) IFF ({two})", lambda world: first(world) == second(world)),
            (f"AT LEAST {count} OF ({', '.join(texts)})", lambda world: sum(hold(world) for hold in holds) >= count),
            (f"EXACTLY {count} OF ({', '.join(texts)})", lambda world: sum(hold(world) for hold in holds) == count),
        ]
    )


def test_formulas_against_listing_all_worlds():
    names, values = (*YES_NO, "hair"), (*[(True, False)] * 3, HAIR)
    worlds = [dict(zip(names, world, strict=True)) for world in itertools.product(*values)]

    def work(random):
        query, holds = formula(random, 4)
        yes = {name: random.choice((0.0, 0.5, 1.0, random.random())) for name in YES_NO}
        weights = [random.random() + 0.01 for _ in HAIR]
        hair = {value: weight / sum(weights) for value, weight in zip(HAIR, weights, strict=True)}
        probability = math.fsum(
            math.prod(yes[name] if world[name] else 1 - yes[name] for name in YES_NO) * hair[world["hair"]]
            for world in worlds
            if holds(world)
        )
        possible = {holds(world) for world in worlds}
        if possible == {False}:
            with pytest.raises(Contradiction):
                score(query, {**yes, "hair": hair})
            return
        energy = float(score(query, {**yes, "hair": hair})[0])
        assert math.exp(-energy) == pytest.approx(probability, abs=1e-9), query

    fuzz(work, 250, 1)
