from __future__ import annotations

import pytest

from energyql.errors import KindError, UnknownAttribute
from energyql.language import E, Near, at_least, bind, parse
from energyql.vocabulary import AttributeSpec, Vocabulary
from language.test_golden import VOCABULARY


def test_a_good_query_comes_back_as_it_is() -> None:
    expr = parse('smile AND hair IN {black, "dark brown"} AND age > 0.6 OR TRUE')
    assert bind(expr, VOCABULARY) is expr


def test_tolerances_are_filled_in() -> None:
    expr = bind(parse("age = 0.5 AND age != 0.7 AND age = 0.2 +- 0.05"), VOCABULARY)
    assert str(expr) == "age = 0.5 +- 0.1 AND age != 0.7 +- 0.1 AND age = 0.2 +- 0.05"
    near = [node for node in expr.walk() if isinstance(node, Near)]
    assert [node.span for node in near] == [(0, 9), (14, 24), (29, 46)]


def test_an_expression_is_drawn_as_it_prints() -> None:
    with pytest.raises(UnknownAttribute) as caught:
        bind(E.smile & ~(E.glases | E.beerd), VOCABULARY)
    assert caught.value.render() == (
        "UnknownAttribute: 'glases' is not an attribute of model 'avatars'\n"
        "  smile AND NOT (glases OR beerd)\n"
        "                 ^^^^^^    ^^^^^\n"
        "did you mean glasses, beard?"
    )
    assert caught.value.names == ("glases", "beerd")


def test_spans_of_other_texts_do_no_harm() -> None:
    mixed = parse("     hair") & E.smile
    with pytest.raises(KindError) as caught:
        bind(mixed, VOCABULARY)
    assert caught.value.span == (0, 4)
    with pytest.raises(KindError):
        bind(mixed, VOCABULARY, query="x")


@pytest.mark.parametrize("query", ["tree", "NOT tree"])
def test_the_name_of_a_thing_asks_for_its_presence(query: str) -> None:
    vocabulary = Vocabulary([AttributeSpec("tree", "categorical", values=("absent", "pine", "oak"))])
    with pytest.raises(KindError, match="tree has 3 values: write `tree != absent`") as caught:
        bind(parse(query), vocabulary, query=query)
    assert caught.value.suggestions[0].text == "tree != absent"
    with pytest.raises(KindError, match="write `tree = absent`"):
        bind(parse("tree > 0.5"), vocabulary)


def test_a_query_too_long_to_print_still_says_what_is_wrong() -> None:
    query = at_least(1, [E["x" * 90 + str(number)] for number in range(1000)])
    with pytest.raises(UnknownAttribute, match="is not an attribute of model 'avatars'"):
        bind(query, VOCABULARY)


def test_a_model_without_a_name() -> None:
    with pytest.raises(UnknownAttribute, match="'smyle' is not an attribute of this model"):
        bind(E.smyle, Vocabulary([AttributeSpec("smile", "yes/no")]))


def test_names_in_another_normal_form_are_found() -> None:
    vocabulary = Vocabulary([AttributeSpec("e\u0301", "yes/no")])
    assert bind(parse("é"), vocabulary) == E["é"]
    with pytest.raises(UnknownAttribute) as caught:
        bind(parse("e\u0301 AND u\u0301"), vocabulary, query="e\u0301 AND u\u0301")
    assert caught.value.span == (7, 9)


def test_ranges_are_those_of_the_attribute() -> None:
    vocabulary = Vocabulary([AttributeSpec("yaw", "continuous", low=-30, high=30, tolerance=2)])
    assert str(bind(E.yaw.near(-20), vocabulary)) == "yaw = -20 +- 2"
    with pytest.raises(KindError, match="45 is out of range: yaw runs from -30 to 30"):
        bind(E.yaw < 45, vocabulary)
    tight = Vocabulary([AttributeSpec("b", "continuous", low=-0.9922927618026733, high=1)])
    with pytest.raises(KindError, match="b runs from -0.992293 to 1"):
        bind(E.b < 2, tight)
    with pytest.raises(KindError, match="yaw is a number from -30 to 30: write `yaw > 0`"):
        bind(E.yaw, vocabulary)
