"""Which relations concern a query, and what they make impossible or certain."""

import math

import pytest
import torch

from energyql.attributes.predictions import Categorical, YesNo
from energyql.energy.rule import compile_energy_rule
from energyql.errors import Contradiction, TautologyWarning, VocabularyError
from energyql.language import bind, parse
from energyql.logic.circuit import compile_query
from energyql.logic.diagram import relations_for
from energyql.vocabulary import AttributeSpec, Vocabulary

SPECS = [
    *(AttributeSpec(name, "yes/no") for name in ("smile", "frown", "glasses", "sunglasses", "hat")),
    AttributeSpec("mouth", "categorical", values=("laugh", "grin", "sad")),
]
RELATIONS = ("smile IFF mouth IN {laugh, grin}", "frown IFF mouth = sad", "sunglasses IMPLIES glasses")
KNOWING, PLAIN = Vocabulary(SPECS, relations=RELATIONS), Vocabulary(SPECS)


def bound(text, vocabulary=KNOWING):
    return bind(parse(text), vocabulary, query=text)


def compiled(text, vocabulary=KNOWING):
    return compile_query(bound(text, vocabulary), vocabulary, query=text)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("hat", []),
        ("smile AND hat", [RELATIONS[:2]]),  # by way of the mouth
        ("mouth = sad", [RELATIONS[:2]]),
        ("smile AND glasses", [RELATIONS[:2], RELATIONS[2:]]),
        ("glasses AND NOT sunglasses", [RELATIONS[2:]]),
    ],
)
def test_which_concern_a_query(query, expected):
    found = [tuple(map(str, group)) for group in relations_for(bound(query), KNOWING)]
    assert sorted(found) == sorted(tuple(sorted(group, key=RELATIONS.index)) for group in expected)


def test_a_query_is_compiled_given_them():
    both = "(smile OR frown) AND NOT mouth = laugh"
    assert compiled(both) == compiled("mouth IN {grin, sad}") == compiled("NOT mouth = laugh")
    assert compiled(both) != compiled(both, PLAIN)
    assert compile_query(bound(both), KNOWING, relations=False) == compiled(both, PLAIN)


def test_heads_that_contradict_one_another_are_not_believed():
    yes = YesNo(torch.tensor([9.0]))
    heads = {
        "smile": yes,
        "frown": yes,
        "mouth": Categorical(torch.tensor([[9.0, 0.0, 9.0]]), ("laugh", "grin", "sad")),
    }
    query = "smile AND (frown OR mouth = laugh)"
    knowing, plain = (
        compile_energy_rule(bound(query, vocabulary), vocabulary).log_value(heads).exp().item()
        for vocabulary in (KNOWING, PLAIN)
    )
    assert plain > 0.99  # of separate heads, each is sure
    assert knowing == pytest.approx(0.5, abs=0.01)  # it smiles or it frowns


def test_what_always_holds_by_them_is_a_tautology():
    with pytest.warns(TautologyWarning, match="sunglasses IMPLIES glasses OR hat is always true"):
        assert compiled("sunglasses IMPLIES glasses OR hat").attributes == ()
    with pytest.warns(TautologyWarning):
        compiled("NOT (smile AND frown)")


def test_what_cannot_be_is_a_contradiction():
    with pytest.raises(Contradiction) as caught:
        compiled("smile AND hat AND frown")
    assert str(caught.value).splitlines() == [
        "smile and frown cannot both hold",
        "  smile AND hat AND frown",
        "  ^^^^^             ^^^^^",
        'always: smile IFF mouth IN {laugh, grin}; frown IFF mouth = sad (semantics="product" ignores these relations)',
    ]
    for semantics in ("product", "lace"):
        assert compile_energy_rule(bound("smile AND frown"), KNOWING, semantics).attributes == ("smile", "frown")


def test_one_part_that_cannot_be():
    with pytest.raises(Contradiction, match="^smile IFF mouth = sad never holds\n") as caught:
        compiled("hat AND (smile IFF mouth = sad)")
    assert "always: smile IFF mouth" in str(caught.value)


def test_relations_that_contradict_one_another():
    torn = Vocabulary(SPECS, relations=["smile AND frown", "NOT (smile AND hat) AND hat"])
    with pytest.raises(Contradiction, match="the model's relations contradict one another") as caught:
        compiled("smile OR frown", torn)
    assert "mend them in its vocabulary.json: " in str(caught.value)


def test_a_relation_that_is_no_query():
    for relation in ("smile AND", "grin IMPLIES smile", "hat = red"):
        with pytest.raises(VocabularyError, match="a relation of model 'm' is wrong: "):
            relations_for(bound("smile"), Vocabulary(SPECS, model="m", relations=[relation]))
    for wrong in ("smile", 3, [3], [""]):
        with pytest.raises(VocabularyError, match="relation"):
            Vocabulary(SPECS, relations=wrong)


def test_they_are_kept_with_the_vocabulary():
    assert Vocabulary.from_dict(KNOWING.to_dict()) == KNOWING != PLAIN
    assert hash(KNOWING) != hash(PLAIN)
    assert "relations" not in PLAIN.to_dict()
    assert "always: sunglasses IMPLIES glasses" in repr(KNOWING)


def test_they_cost_little_where_they_hold():
    sure = {
        "smile": YesNo(torch.tensor([12.0])), "frown": YesNo(torch.tensor([-12.0])),
        "mouth": Categorical(torch.tensor([[14.0, 0.0, 0.0]]), ("laugh", "grin", "sad")),
    }  # fmt: skip
    query = "smile AND NOT frown"
    knowing, plain = (-compile_energy_rule(bound(query, v), v).log_value(sure).item() for v in (KNOWING, PLAIN))
    assert math.isclose(knowing, plain, abs_tol=1e-4)
