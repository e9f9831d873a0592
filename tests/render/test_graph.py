from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energyql.render.graph import MOST_BOXES, Box, arrange, cut_label, draw_graph, graph_width


def drawn(boxes, edges=(), **settings):
    return ElementTree.fromstring(draw_graph(boxes, edges, title="A graph", **settings))


def test_what_is_in_a_drawing():
    root = drawn([Box("AND", "energies add", "and"), Box('"<script>" & more', role="leaf")], [(0, 1)])
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "A graph"
    assert [text.text for text in root.iter("text")] == ["AND", "energies add", '"<script>" & more']
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


def test_a_long_label_is_cut_and_kept_as_a_tooltip():
    label = "hair IN {" + "x" * 100 + "}"
    root = drawn([Box(label, role="leaf")])
    assert next(root.iter("text")).text == cut_label(label)
    assert next(root.iter("title")).text == label


def test_too_many_boxes():
    root = drawn([Box("a")] * (MOST_BOXES + 1))
    assert next(root.iter("text")).text == f"too large to draw: {MOST_BOXES + 1} boxes"


def test_the_width_of_a_drawing():
    drawing = draw_graph([Box("smile")], [], title=' width="7" height=')
    assert graph_width(drawing) == float(ElementTree.fromstring(drawing).attrib["width"])


SIZES = st.tuples(st.floats(20, 90), st.floats(10, 40))


@st.composite
def graphs(draw):
    """Boxes of which each but the first has at least one parent before it."""
    sizes = draw(st.lists(SIZES, min_size=1, max_size=14))
    edges = set()
    for child in range(1, len(sizes)):
        parents = draw(st.sets(st.integers(0, child - 1), min_size=1, max_size=3))
        edges |= {(parent, child) for parent in parents}
    return sizes, sorted(edges)


def boxes(corners, sizes):
    return [(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)]


@settings(deadline=None)
@given(graphs())
def test_boxes_do_not_overlap_and_routes_run_from_the_parent_to_the_child(graph):
    sizes, edges = graph
    corners, routes = arrange(sizes, edges)
    placed = boxes(corners, sizes)
    for i, a in enumerate(placed):
        assert a[0] >= -1e-6
        assert a[1] >= -1e-6
        for b in placed[i + 1 :]:
            assert a[2] <= b[0] + 1e-6 or b[2] <= a[0] + 1e-6 or a[3] <= b[1] + 1e-6 or b[3] <= a[1] + 1e-6
    for (parent, child), route in zip(edges, routes, strict=True):
        assert placed[parent][2] < placed[child][0]
        assert route[0][0] == pytest.approx(placed[parent][2])
        assert route[-1][0] == pytest.approx(placed[child][0])
        for left, right in zip(route[:-1:2], route[1:-1:2], strict=True):
            assert left[1] == right[1]
            assert not any(b[0] < right[0] and left[0] < b[2] and b[1] + 1e-6 < left[1] < b[3] - 1e-6 for b in placed)


def test_a_tree_has_no_crossings_and_parents_stand_in_the_middle():
    assert arrange([(40, 20)], []) == ([(0, 0)], [])
    corners, _ = arrange([(40, 20)] * 7, [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6)])
    centres = [y + 10 for _, y in corners]
    assert centres[3] < centres[4] < centres[5] < centres[6]
    assert centres[1] == pytest.approx((centres[3] + centres[4]) / 2)
    assert centres[0] == pytest.approx((centres[1] + centres[2]) / 2)


def test_crossings_are_removed_where_they_can_be():
    # Two parents whose children are listed crosswise: a perfect order exists.
    corners, _ = arrange([(40, 20)] * 5, [(0, 1), (0, 2), (1, 4), (2, 3)])
    above = corners[1][1] < corners[2][1]
    assert (corners[4][1] < corners[3][1]) == above
