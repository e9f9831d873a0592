from pathlib import Path
from xml.etree import ElementTree

import pytest

from energyql import parse
from energyql.language import bind
from energyql.logic.circuit import compile_query
from energyql.render.graph import MOST_BOXES
from energyql.vocabulary import AttributeSpec, Vocabulary

GOLDEN = Path(__file__).parents[1] / "golden" / "circuit.svg"
VOCABULARY = Vocabulary(
    [
        *(AttributeSpec(name, "yes/no") for name in ["smile", "glasses", "beard", "hat"]),
        AttributeSpec("hair", "categorical", values=("black", "dark brown", "red", "gray")),
        AttributeSpec("age", "continuous"),
        *(AttributeSpec(f"a{i}", "yes/no") for i in range(40)),
    ]
)


def circuit(text):
    return compile_query(bind(parse(text), VOCABULARY), VOCABULARY)


def texts(text):
    root = ElementTree.fromstring(circuit(text)._repr_html_())
    return [element.text for element in root.iter("text")]


def test_the_headline_query_looks_as_it_always_did():
    """If it should look different, look at it, and write `circuit(...).svg()` to the file."""
    assert circuit("smile AND NOT (glasses OR beard)").svg() + "\n" == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("smile", ["P(query)", "smile"]),
        ("smile AND hat", ["P(query)", "AND", "energies add", "smile", "hat"]),
        ("NOT hair = red", ["P(query)", "hair != red"]),
        ("2 * smile", ["P(query)", "2 *", "energy times 2", "smile"]),
        ("NOT (2 * smile)", ["P(query)", "NOT 2 *", "1 - P to the 2", "smile"]),
        ("smile XOR hat", ["P(query)", "OR", "probabilities add", *["AND", "energies add"] * 2]),
    ],
)
def test_words(query, expected):
    found = texts(query)
    assert sorted(found[: len(expected)]) == sorted(expected) or set(expected) <= set(found)


def test_a_query_that_is_always_true():
    with pytest.warns(UserWarning, match="always true"):
        assert texts("smile OR NOT smile") == ["P(query)", "TRUE", "always"]


def test_shared_nodes_are_drawn_once_and_leaves_for_each_reader():
    found = texts("EXACTLY 2 OF (smile, glasses, beard, hat)")
    assert found.count("smile") == 1
    assert found.count("hat") > 1
    assert found.count("OR") + found.count("AND") < len(circuit("EXACTLY 2 OF (smile, glasses, beard, hat)").nodes)


def test_a_large_circuit_is_not_drawn():
    query = f"EXACTLY 20 OF ({', '.join(f'a{i}' for i in range(40))})"
    nodes = len(circuit(query).nodes)
    assert nodes > MOST_BOXES
    assert texts(query) == [f"too large to draw: {nodes:,} nodes"]


def test_both_forms_for_notebooks():
    drawn = circuit("smile AND age > 0.5")
    assert drawn._repr_svg_() == drawn.svg()
    assert "xmlns" in drawn.svg()
    assert "xmlns" not in drawn._repr_html_()
