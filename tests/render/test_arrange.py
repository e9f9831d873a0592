import pytest
from hypothesis import given
from hypothesis import strategies as st

from energyql.render.graph import arrange

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


@given(graphs())
def test_boxes_do_not_overlap_and_children_stand_right_of_parents(graph):
    sizes, edges = graph
    corners, _ = arrange(sizes, edges)
    placed = boxes(corners, sizes)
    for i, a in enumerate(placed):
        assert a[0] >= -1e-6
        assert a[1] >= -1e-6
        for b in placed[i + 1 :]:
            assert a[2] <= b[0] + 1e-6 or b[2] <= a[0] + 1e-6 or a[3] <= b[1] + 1e-6 or b[3] <= a[1] + 1e-6
    for parent, child in edges:
        assert placed[parent][2] < placed[child][0]


@given(graphs())
def test_routes_run_from_the_parent_to_the_child_and_cut_no_box(graph):
    sizes, edges = graph
    corners, routes = arrange(sizes, edges)
    placed = boxes(corners, sizes)
    for (parent, child), route in zip(edges, routes, strict=True):
        assert route[0][0] == pytest.approx(placed[parent][2])
        assert route[-1][0] == pytest.approx(placed[child][0])
        for left, right in zip(route[:-1:2], route[1:-1:2], strict=True):
            assert left[1] == right[1]
            assert not any(b[0] < right[0] and left[0] < b[2] and b[1] + 1e-6 < left[1] < b[3] - 1e-6 for b in placed)


def test_one_box():
    assert arrange([(40, 20)], []) == ([(0, 0)], [])


def test_a_tree_has_no_crossings_and_parents_stand_in_the_middle():
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
