from pathlib import Path
from xml.etree import ElementTree

import pytest
from faces import BEARD, GLASSES, HAT, SMILE, VOCABULARY, A

from energyql.errors import TautologyWarning
from energyql.language import And, Cardinality, Constant, Interval, Near, Not, OneOf, Or, Weight, bind, parse
from energyql.logic.circuit import MAX_LINES, compile_query, describe
from energyql.render.graph import MOST_BOXES

GOLDEN = Path(__file__).parents[1] / "golden" / "circuit.svg"


def explained(query):
    return compile_query(query, VOCABULARY).explain()


def test_the_headline_query():
    assert explained(And((SMILE, Not(Or((GLASSES, BEARD)))))) == (
        "log P(query) = sum\n"
        "├─ log P(smile)\n"
        "├─ log P(NOT glasses)\n"
        "└─ log P(NOT beard)\n"
        "\n"
        "3 leaves, 1 sum\n"
        "energy = -log P(query), in nats: lower is better\n"
        "\n"
        "cells that the query tells apart\n"
        "  smile    no | yes\n"
        "  glasses  no | yes\n"
        "  beard    no | yes"
    )


def test_branches_weights_and_cells():
    old = And((OneOf("hair", ("gray", "dark brown")), Interval("age", 0.6, None)))
    assert explained(And((Weight(2.0, Or((old, Near("age", 0.2, 0.1)))), HAT))) == (
        "log P(query) = sum\n"
        "├─ log P(hat)\n"
        "└─ 2 times\n"
        "   └─ log-sum-exp\n"
        "      ├─ sum\n"
        "      │  ├─ log P(hair IN {black, red})\n"
        "      │  └─ log P(0.1 < age < 0.3)\n"
        "      └─ sum\n"
        '         ├─ log P(hair IN {"dark brown", gray})\n'
        "         └─ log P(0.1 < age < 0.3 OR age > 0.6)\n"
        "\n"
        "5 leaves, 3 sums, 1 log-sum-exp, 1 weighted\n"
        "energy = -log P(query), in nats: lower is better\n"
        "\n"
        "cells that the query tells apart\n"
        "  hat   no | yes\n"
        '  hair  black, red | "dark brown", gray\n'
        "  age   age < 0.1 | 0.1 < age < 0.3 | 0.3 < age < 0.6 | age > 0.6"
    )


def test_shared_parts_are_drawn_once():
    lines = explained(Cardinality("EXACTLY", 2, (SMILE, GLASSES, BEARD, HAT))).splitlines()
    assert sum("[1] log-sum-exp" in line for line in lines) == 1
    assert sum("[1] as above" in line for line in lines) == 1


def test_one_leaf_and_no_leaf():
    assert explained(SMILE).splitlines()[:3] == ["log P(query) = log P(smile)", "", "1 leaf"]
    with pytest.warns(TautologyWarning):
        assert explained(Constant(True)).startswith("log P(query) = 0, the query is always true")


def test_a_large_circuit_is_cut():
    lines = explained(Cardinality("AT LEAST", 20, tuple(A[:40]))).splitlines()
    assert len(lines) < MAX_LINES + 60
    assert "lines more" in lines[MAX_LINES]


def test_a_circuit_of_the_most_lines_is_not_cut(monkeypatch):
    query = And((SMILE, GLASSES, BEARD))  # four lines
    whole = explained(query)
    monkeypatch.setattr("energyql.logic.circuit.MAX_LINES", 4)
    assert explained(query) == whole
    monkeypatch.setattr("energyql.logic.circuit.MAX_LINES", 2)
    assert explained(query).splitlines()[2] == "... and 2 lines more"


def test_descriptions_use_the_query_language():
    atoms = (("black", "dark brown"), ("red",), ("gray",))
    assert describe("hair", ("red",), atoms) == "hair = red"
    assert describe("hair", ("black", "dark brown", "gray"), atoms) == "hair != red"
    assert describe("hair", ("red", "gray"), atoms) == "hair IN {red, gray}"
    assert describe("5 o'clock shadow", (False,), ((False,), (True,))) == 'NOT "5 o\'clock shadow"'


def circuit(text):
    return compile_query(bind(parse(text), VOCABULARY), VOCABULARY)


def texts(text):
    root = ElementTree.fromstring(circuit(text)._repr_html_())
    return [element.text for element in root.iter("text")]


def test_the_headline_query_looks_as_it_always_did():
    """If it should look different, look at it, and write `circuit(...).svg()` to the file."""
    assert circuit("smile AND NOT (glasses OR beard)").svg() + "\n" == GOLDEN.read_text(encoding="utf-8")


def test_weighted_parts_are_drawn_without_their_complements():
    assert texts("2 * smile") == ["P(query)", "2 *", "energy times 2", "smile"]
    assert texts("NOT (2 * smile)") == ["P(query)", "NOT 2 *", "1 - P to the 2", "smile"]
    assert "log(1 - exp(2 times the first)), given the second" in circuit("NOT (2 * smile)").explain()


def test_a_query_that_is_always_true():
    with pytest.warns(UserWarning, match="always true"):
        assert texts("smile OR NOT smile") == ["P(query)", "TRUE", "always"]


def test_shared_nodes_are_drawn_once_and_leaves_for_each_reader():
    found = texts("EXACTLY 2 OF (smile, glasses, beard, hat)")
    assert found.count("smile") == 1
    assert found.count("hat") > 1
    assert found.count("OR") + found.count("AND") < len(circuit("EXACTLY 2 OF (smile, glasses, beard, hat)").nodes)


def test_a_larger_circuit_is_not_drawn():
    query = f"EXACTLY 20 OF ({', '.join(f'a{i}' for i in range(40))})"
    nodes = len(circuit(query).nodes)
    assert nodes > MOST_BOXES
    assert texts(query) == [f"too large to draw: {nodes:,} nodes"]


def test_both_forms_for_notebooks():
    drawn = circuit("smile AND age > 0.5")
    assert drawn._repr_svg_() == drawn.svg()
    assert "xmlns" in drawn.svg()
    assert "xmlns" not in drawn._repr_html_()
