import pytest

from energyql.errors import LimitError
from energyql.logic.circuit import CircuitBuilder, Leaf, LogSumExp, Scaled, Sum


def test_equal_nodes_are_one():
    builder = CircuitBuilder()
    assert builder.leaf("a", (True,)) == builder.leaf("a", (True,))
    assert builder.leaf("a", (True,)) != builder.leaf("a", (False,))


def test_constants_fold():
    builder = CircuitBuilder()
    a = builder.leaf("a", (True,))
    assert builder.leaf("a", ()) is False
    assert builder.sum([True, a]) == a
    assert builder.sum([False, a]) is False
    assert builder.sum([]) is True
    assert builder.log_sum_exp([False, a]) == a
    assert builder.log_sum_exp([True, a]) is True
    assert builder.log_sum_exp([]) is False
    assert builder.scaled(2.0, True) is True
    assert builder.scaled(1.0, a) == a
    assert builder.scaled_complement(2.0, True, False) is False
    assert builder.scaled_complement(2.0, False, True) is True


def test_finish_keeps_what_the_root_needs():
    builder = CircuitBuilder()
    a, _, b = (builder.leaf(name, (True,)) for name in "axb")
    root = builder.log_sum_exp([builder.sum([a, b]), builder.scaled(2.0, b)])
    assert builder.finish(root) == (
        Leaf("a", (True,)),
        Leaf("b", (True,)),
        Sum((0, 1)),
        Scaled((1,), 2.0),
        LogSumExp((2, 3)),
    )
    assert builder.finish(True) == (Sum(()),)


def test_the_size_is_bounded():
    builder = CircuitBuilder(max_nodes=2)
    builder.leaf("a", (True,))
    builder.leaf("b", (True,))
    with pytest.raises(LimitError, match="more than 2 nodes"):
        builder.leaf("c", (True,))
