from xml.etree import ElementTree

import pytest

from energyql.render.graph import MOST_BOXES, Box, columns, cut_label, draw_graph, graph_width


def drawn(boxes, edges=(), **settings):
    return ElementTree.fromstring(draw_graph(boxes, edges, title="A graph", **settings))


def test_what_is_in_a_drawing():
    root = drawn([Box("AND", "energies add", "and"), Box("smile", role="leaf")], [(0, 1)])
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "A graph"
    assert [text.text for text in root.iter("text")] == ["AND", "energies add", "smile"]
    assert len(list(root.iter("path"))) == 1
    assert "style" not in root.attrib


def test_colours_come_from_the_surroundings_unless_it_stands_alone():
    inside = draw_graph([Box("smile")], [], title="")
    assert 'fill="currentColor"' in inside
    assert "xmlns" not in inside
    alone = draw_graph([Box("smile")], [], title="", standalone=True)
    assert alone.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert 'fill="#ffffff"' in alone
    assert 'color="#1d2433"' in alone


def test_labels_are_text():
    root = drawn([Box('"<script>" & more', role="leaf")])
    assert [text.text for text in root.iter("text")] == ['"<script>" & more']


def test_a_long_label_is_cut_and_kept_as_a_tooltip():
    label = "hair IN {" + "x" * 100 + "}"
    root = drawn([Box(label, role="leaf")])
    assert next(root.iter("text")).text == cut_label(label)
    assert next(root.iter("title")).text == label


def test_too_many_boxes():
    root = drawn([Box("a")] * (MOST_BOXES + 1))
    assert next(root.iter("text")).text == f"too large to draw: {MOST_BOXES + 1} boxes"


@pytest.mark.parametrize(("text", "width"), [("", 0), ("abc", 3), ("年齢", 4), ("e\u0301", 1)])
def test_widths(text, width):
    assert columns(text) == width


def test_the_width_of_a_drawing():
    drawing = draw_graph([Box("smile")], [], title=' width="7" height=')
    assert graph_width(drawing) == float(ElementTree.fromstring(drawing).attrib["width"])
