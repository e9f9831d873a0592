"""Parts of queries that are never or always true: which are told of, where, and why."""

import itertools
import random
import warnings

import pytest

from energyql.energy.rule import compile_energy_rule
from energyql.errors import ConstantPartWarning, Contradiction, TautologyWarning
from energyql.language import And, Attribute, Cardinality, Iff, Implies, Interval, Not, OneOf, Or, Xor, bind, parse
from energyql.logic import satisfiability
from energyql.logic.circuit import compile_query
from energyql.vocabulary import AttributeSpec, Vocabulary

SPECS = [
    *(AttributeSpec(name, "yes/no") for name in ("smile", "bald", "hat", "beard")),
    AttributeSpec("hair", "categorical", values=("black", "red", "absent")),
    AttributeSpec("age", "continuous"),
]
RELATIONS = ("bald IFF hair = absent", "hat IMPLIES NOT bald")
VOCABULARY = Vocabulary(SPECS, relations=RELATIONS)


def told(query, vocabulary=VOCABULARY, semantics="exact"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compile_energy_rule(bind(parse(query), vocabulary, query=query), vocabulary, semantics, query=query)
    return [warning.message for warning in caught]


def test_the_part_and_the_relation_are_shown():
    (warning,) = told("age > 0.8 AND hair = black AND bald XOR hat")
    assert isinstance(warning, ConstantPartWarning)
    whole = "`age > 0.8 AND hair = black AND bald`"
    assert str(warning).splitlines() == [
        f"hair = black and bald cannot both hold, so {whole} is never true and changes nothing",
        "  age > 0.8 AND hair = black AND bald XOR hat",
        "                ^^^^^^^^^^^^     ^^^^",
        'always: bald IFF hair = absent (semantics="product" ignores these relations)',
    ]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("hat OR smile AND NOT smile", "smile and NOT smile cannot both hold, so this part changes nothing"),
        ("hat OR age > 0.5 AND age < 0.3", "age > 0.5 and age < 0.3 cannot both hold, so this part changes nothing"),
        (
            "smile AND NOT (hat AND bald)",
            "hat and bald cannot both hold, so `NOT (hat AND bald)` is always true and changes nothing",
        ),
        (
            "smile AND (hat AND bald IMPLIES beard)",
            "hat and bald cannot both hold, so `hat AND bald IMPLIES beard` is always true and changes nothing",
        ),
        ("smile IMPLIES hat AND bald", "hat and bald cannot both hold"),
        ("hat AND (smile OR NOT smile)", "smile or NOT smile always holds, so this part changes nothing"),
        ("beard AND AT LEAST 1 OF (hat AND bald, smile)", "hat and bald cannot both hold"),
        ("hat AND AT MOST 1 OF (smile)", "AT MOST 1 OF (smile) always holds, so this part changes nothing"),
        (
            "2 * (smile OR 3 * (hat AND bald))",
            "hat and bald cannot both hold, so `3 * (hat AND bald)` is never true and changes nothing",
        ),
        ("smile AND (hat IMPLIES NOT bald)", "NOT hat or NOT bald always holds, so this part changes nothing"),
        ("hat IFF (smile XOR smile)", "smile XOR smile never holds"),
        ("hat AND age >= 0", "age >= 0 always holds, so this part changes nothing"),
    ],
)  # fmt: skip
def test_one_message_for_each_cause(query, message):
    (warning,) = told(query)
    assert warning.message == message
    assert warning.spans


@pytest.mark.parametrize(
    "query", ["smile OR smile", "bald AND NOT hair = black", "hat OR (smile AND FALSE)", "hat AND TRUE", "2 * hat"]
)
def test_what_is_no_cause(query):
    assert told(query) == []


def test_three_are_described_and_the_others_counted():
    found = told("hat OR " + " OR ".join(4 * ["(smile AND NOT smile)"]))
    assert len(found) == 3
    assert [warning.hint for warning in found] == [
        None, None, "parts of the query that are never or always true: 4, of which 3 are shown"
    ]  # fmt: skip
    assert len({warning.spans for warning in found}) == 3


def test_semantics_without_relations():
    assert told("smile OR hat AND bald", semantics="product") == []
    for semantics in ("product", "lace", "jem"):
        assert [type(each) for each in told("hat OR smile AND NOT smile", semantics=semantics)] == [ConstantPartWarning]


def test_a_constant_query_is_told_of_once():
    assert [type(warning) for warning in told("smile OR NOT smile OR (hat AND bald)")] == [TautologyWarning]
    with pytest.raises(Contradiction):
        told("beard AND bald AND hair = black")


def formula(rng, depth):
    if depth == 0 or rng.random() < 0.15:
        number = round(rng.choice([0.3, 0.6]), 1)
        return rng.choice([
            *map(Attribute, ("smile", "bald", "hat", "beard")), OneOf("hair", (rng.choice(SPECS[4].values),)),
            Interval("age", number, None), Interval("age", None, number),
        ])  # fmt: skip
    operands = tuple(formula(rng, depth - 1) for _ in range(rng.choice([2, 2, 3])))
    kind = rng.randrange(8)
    if kind == 0:
        return Not(operands[0])
    if kind == 1:
        return Implies(*operands[:2])
    if kind == 2:
        quantifier = rng.choice(["AT LEAST", "AT MOST", "EXACTLY"])
        return Cardinality(quantifier, rng.randint(0, len(operands)), operands)
    return (And, And, Or, Or, Xor, Iff)[kind - 3 if kind < 7 else 5](operands)


def holds(node, world):
    """The truth of a formula in one world, in plain Python."""
    if isinstance(node, Attribute):
        return world[node.name]
    if isinstance(node, OneOf):
        return (world["hair"] in node.values) != node.negated
    if isinstance(node, Interval):
        return world["age"] > node.low if node.high is None else world["age"] < node.high
    inner = [holds(child, world) for child in node.children]
    if isinstance(node, Not):
        return not inner[0]
    if isinstance(node, Implies):
        return not inner[0] or inner[1]
    if isinstance(node, Cardinality):
        count = sum(inner)
        return {"AT LEAST": count >= node.count, "AT MOST": count <= node.count, "EXACTLY": count == node.count}[
            node.quantifier
        ]
    if isinstance(node, Xor):
        return sum(inner) % 2 == 1
    if isinstance(node, Iff):  # from the left
        return (len(inner) - sum(inner)) % 2 == 0
    return all(inner) if isinstance(node, And) else any(inner)


def every_world(relations):
    yes_no = itertools.product([False, True], repeat=4)
    for (smile, bald, hat, beard), hair, age in itertools.product(yes_no, SPECS[4].values, (0.1, 0.45, 0.9)):
        world = {"smile": smile, "bald": bald, "hat": hat, "beard": beard, "hair": hair, "age": age}
        if all(holds(bind(parse(relation), VOCABULARY), world) for relation in relations):
            yield world


@pytest.mark.parametrize("relations", [(), RELATIONS], ids=["alone", "related"])
def test_truth_tables_agree(relations, monkeypatch):
    monkeypatch.setattr(satisfiability, "_MOST_PARTS", 1000)
    vocabulary, worlds, rng = Vocabulary(SPECS, relations=relations), list(every_world(relations)), random.Random(7)
    some, none = 0, 0
    for _ in range(600):
        text = str(formula(rng, rng.randint(1, 3)))
        expr = bind(parse(text), vocabulary, query=text)
        truths = {id(node): {holds(node, world) for world in worlds} for node in expr.walk()}
        if len(truths[id(expr)]) == 1:
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            compile_query(expr, vocabulary, query=text)
        found = [warning.message for warning in caught]
        constant = [node for node in expr.walk() if len(truths[id(node)]) == 1]
        for warning in found:
            cause = min(constant, key=lambda node: length(node) if within(warning, node) else float("inf"))
            assert within(warning, cause), (text, str(warning))
            assert truths[id(cause)] == {"always holds" in warning.message}, (text, str(warning))
        for node in constant:
            assert any(within(warning, node) for warning in found), (text, str(node))
        some, none = some + bool(constant), none + (not found)
    assert some > 30
    assert none > 30


def within(warning, node):
    """Whether all that a warning underlines lies in a part."""
    return all(node.span.start <= span.start and span.end <= node.span.end for span in warning.spans)


def length(node):
    return node.span.end - node.span.start
