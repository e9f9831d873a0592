from xml.etree import ElementTree

from hypothesis import given, settings

from energyql import E, exactly, parse
from energyql.render.graph import MOST_BOXES
from language.strategies import trees


def texts(expr):
    return [text.text for text in ElementTree.fromstring(expr._repr_svg_()).iter("{http://www.w3.org/2000/svg}text")]


def test_operators_and_leaves_in_the_order_of_the_text():
    assert texts(parse("smile AND NOT (glasses OR age > 0.5)")) == [
        *("AND", "all hold", "smile", "NOT", "OR", "at least one holds", "glasses", "age > 0.5"),
    ]


def test_an_operator_of_many_operands_is_described_as_such():
    assert texts(parse("a XOR b"))[:2] == ["XOR", "exactly one holds"]
    assert texts(parse("a XOR b XOR c"))[:2] == ["XOR", "an odd number holds"]


def test_a_notebook_shows_text_and_tree():
    html = (E["<b>"] & ~E.hat)._repr_html_()
    assert html.startswith("<div><code>&quot;&lt;b&gt;&quot; AND NOT hat</code>")
    assert html.count("<svg") == 1
    assert "xmlns" not in html  # it has the colours of the page
    ElementTree.fromstring(html)


def test_a_large_query_is_not_drawn():
    query = exactly(3, [E[f"a{i}"] for i in range(MOST_BOXES)])
    assert texts(query) == ["too large to draw: 121 parts"]
    assert len(exactly(3, [E["x" * 99 + str(i)] for i in range(999)])._repr_html_()) < 10_000


@settings(max_examples=40, deadline=None)
@given(trees)
def test_every_tree_is_drawn(expr):
    ElementTree.fromstring(expr._repr_html_())
    assert texts(expr)
