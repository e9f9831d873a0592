import threading
import warnings

import pytest
from faces import BEARD, HAT, SMILE, VOCABULARY, A

from energyql.errors import Contradiction, LimitError, Span, TautologyWarning
from energyql.language import And, Attribute, Cardinality, Constant, Interval, Near, Not, OneOf, Or, Weight, Xor, parse
from energyql.logic.circuit import Sum, compile_query
from energyql.logic.diagram import build_diagram
from energyql.logic.satisfiability import check_satisfiable, conjuncts, noting_tautologies, warn

CONTRADICTIONS = [
    (And((SMILE, Not(SMILE))), "smile and NOT smile cannot both hold"),
    (And((SMILE, HAT, Not(Or((BEARD, SMILE))))), "smile and NOT smile cannot both hold"),
    (And((Interval("age", 0.8, None), Interval("age", None, 0.3))), "age > 0.8 and age < 0.3 cannot both hold"),
    (
        And((Near("age", 0.2, 0.1), Interval("age", 0.5, 0.7))),
        "age = 0.2 +- 0.1 and 0.5 < age < 0.7 cannot both hold",
    ),
    (And((OneOf("hair", ("red",)), OneOf("hair", ("red",), True))), "hair = red and hair != red cannot both hold"),
    (Weight(2.0, And((SMILE, HAT, Not(SMILE)))), "smile and NOT smile cannot both hold"),
    (And((Or((SMILE, HAT)), Not(SMILE), BEARD, Not(HAT))), "smile OR hat, NOT smile and NOT hat cannot all hold"),
    (Cardinality("NONE", None, (SMILE, Not(SMILE))), "NOT smile and smile cannot both hold"),
    (Xor((SMILE, SMILE)), "smile XOR smile never holds"),
    (Interval("age", 1.0, None), "age > 1 holds nothing: age runs from 0 to 1 and a point has no width"),
    (Constant(False), "FALSE never holds"),
    (And((SMILE, Constant(False))), "FALSE never holds"),
    (Not(Constant(True)), "NOT TRUE never holds"),
    (And((Or(tuple(A[:40])), *(Not(a) for a in A[:40]))), "these 41 parts cannot all hold"),
]


@pytest.mark.parametrize("check", [compile_query, check_satisfiable])
@pytest.mark.parametrize(("query", "reason"), CONTRADICTIONS)
def test_a_contradiction_names_the_parts_that_clash(query, reason, check):
    with pytest.raises(Contradiction) as caught:
        check(query, VOCABULARY)
    assert caught.value.message == reason


def test_a_contradiction_points_at_the_parts_that_clash():
    text = "hat AND age > 0.8 AND age < 0.3"
    query = And(
        (
            Attribute("hat", span=Span(0, 3)),
            Interval("age", 0.8, None, span=Span(8, 17)),
            Interval("age", None, 0.3, span=Span(22, 31)),
        )
    )
    with pytest.raises(Contradiction) as caught:
        compile_query(query, VOCABULARY, query=text)
    assert caught.value.spans == (Span(8, 17), Span(22, 31))
    assert caught.value.render().splitlines()[1:] == [f"  {text}", "          ^^^^^^^^^     ^^^^^^^^^"]


def test_a_tautology_is_a_warning():
    with pytest.warns(TautologyWarning, match="smile OR NOT smile is always true"):
        circuit = compile_query(Or((SMILE, Not(SMILE))), VOCABULARY)
    assert circuit.nodes == (Sum(()),)
    assert circuit.attributes == ()
    with pytest.warns(TautologyWarning):
        assert compile_query(Interval("age", 0.0, None, True), VOCABULARY) == circuit
    with pytest.warns(TautologyWarning, match="smile OR NOT smile is always true"):
        check_satisfiable(Or((SMILE, Not(SMILE))), VOCABULARY)


def test_many_conjuncts_that_clash_are_told_apart():
    query = And((*A, Not(A[7])))
    with pytest.raises(Contradiction, match="a7 and NOT a7 cannot both hold"):
        compile_query(query, VOCABULARY)


def test_a_diagram_tries_the_order_of_the_text_too():
    query = Or(tuple(And((A[i], A[i + 50])) for i in range(20)))
    build_diagram(query, VOCABULARY, 2_000)
    with pytest.raises(LimitError):
        build_diagram(query, VOCABULARY, 20)
    check_satisfiable(query, VOCABULARY, max_nodes=20)  # too large to decide


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a AND 1 * (b AND c)", ["a", "b", "c"]),
        ("NOT NOT (a AND b)", ["a", "b"]),
        ("NOT (a IMPLIES b)", ["a", "NOT b"]),
        ("ALL OF (a, b AND c)", ["a", "b", "c"]),
        ("NONE OF (a, b OR c)", ["NOT a", "NOT b", "NOT c"]),
        ("NOT ANY OF (a, NOT b)", ["NOT a", "b"]),
        ("NOT (a XOR b) AND (c IFF d)", ["NOT (a XOR b)", "c IFF d"]),
        ("2 * (a AND b)", ["2 * (a AND b)"]),
    ],
)
def test_conjuncts(query, expected):
    parts = conjuncts(parse(query))
    assert [str(part) for part in parts] == expected
    assert all(part.span is not None for part in parts)


def test_notes_take_the_place_of_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with noting_tautologies() as notes:
            warn(TautologyWarning("a"))
            with noting_tautologies() as inner:
                warn(TautologyWarning("b"))
            warn(TautologyWarning("c"))
    assert ([str(note) for note in notes], [str(note) for note in inner]) == (["a", "c"], ["b"])
    with pytest.warns(TautologyWarning, match="d"):
        warn(TautologyWarning("d"))


def test_another_thread_keeps_its_own():
    found = []

    def other():
        with noting_tautologies() as notes:
            warn(TautologyWarning("theirs"))
        found.extend(notes)

    with noting_tautologies() as mine:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        warn(TautologyWarning("mine"))
    assert [str(note) for note in (*mine, *found)] == ["mine", "theirs"]
