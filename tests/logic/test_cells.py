import math
from itertools import pairwise

from energyql.language import And, Attribute, Interval, Near, OneOf
from energyql.logic.diagram import partition, predicate_cells, union
from energyql.vocabulary import AttributeSpec, Vocabulary

INF = math.inf
HAIR = AttributeSpec("hair", "categorical", values=("black", "brown", "red", "gray"))
AGE = AttributeSpec("age", "continuous")
VOCABULARY = Vocabulary([AttributeSpec("smile", "yes/no"), HAIR, AGE])


def test_yes_no_has_two_cells():
    assert partition(Attribute("smile"), VOCABULARY) == {"smile": ((False,), (True,))}


def test_classes_that_are_never_separated_share_a_cell():
    query = And((OneOf("hair", ("red", "gray")), OneOf("hair", ("red",), negated=True)))
    assert partition(query, VOCABULARY) == {"hair": (("black", "brown"), ("red",), ("gray",))}


def test_a_continuous_range_is_cut_at_the_thresholds():
    query = And((Interval("age", 0.6, None), Near("age", 0.3, 0.1)))
    cuts = [-INF, 0.2, 0.4, 0.6, INF]
    assert partition(query, VOCABULARY)["age"] == tuple(((a, b),) for a, b in pairwise(cuts))


def test_cells_come_in_the_vocabulary_order():
    assert list(partition(And((Interval("age", 0.6, None), Attribute("smile"))), VOCABULARY)) == ["smile", "age"]


def test_open_and_closed_bounds_are_the_same():
    assert predicate_cells(Interval("age", 0.2, 0.4), AGE) == predicate_cells(
        Interval("age", 0.2, 0.4, True, True), AGE
    )


def test_a_bound_at_the_end_of_the_range_is_no_bound():
    assert predicate_cells(Interval("age", 0.0, None, True), AGE) == ((-INF, INF),)
    assert predicate_cells(Interval("age", 0.0, 0.4, True, True), AGE) == ((-INF, 0.4),)
    assert predicate_cells(Near("age", 1.0, 0.05), AGE) == ((0.95, INF),)
    assert predicate_cells(Interval("age", 1.0, None, True), AGE) == ()
    assert predicate_cells(Interval("age", None, 0.0), AGE) == ()


def test_an_interval_without_width_is_empty():
    assert predicate_cells(Near("age", 0.4, 1e-15), AGE) == ()


def test_near_takes_the_tolerance_of_the_attribute():
    assert predicate_cells(Near("age", 0.5), AGE) == ((0.45, 0.55),)


def test_rounding_makes_no_cells():
    assert 0.7 + 0.05 != 0.75 or 0.7 - 0.05 != 0.65
    assert predicate_cells(Near("age", 0.7, 0.05), AGE) == ((0.65, 0.75),)


def test_union_is_canonical():
    assert union([("gray",), ("black", "brown")], HAIR) == ("black", "brown", "gray")
    assert union([((0.5, 1.0),), ((-INF, 0.1),), ((0.1, 0.5),)], AGE) == ((-INF, 1.0),)
    assert union([((0.5, 1.0),), ((-INF, 0.1),)], AGE) == ((-INF, 0.1), (0.5, 1.0))
    assert union([(True,), (False,)], VOCABULARY["smile"]) == (False, True)
    assert union([], AGE) == ()
