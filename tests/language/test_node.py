from __future__ import annotations

import copy
import pickle
from unittest.mock import Mock

import pytest
from hypothesis import given, settings

from energyql.errors import LimitError
from energyql.language import Attribute, E, Expr, Not, parse
from energyql.language.expr import MAX_DEPTH, MAX_NODES, Kernel
from language.strategies import trees


def chain(levels: int) -> Expr:
    expr: Expr = E.a
    for _ in range(levels - 1):
        expr = ~expr
    return expr


def test_depth_and_size() -> None:
    expr = parse("a AND NOT (b OR c)")
    assert (expr.depth, expr.size) == (4, 6)
    assert (E.a.depth, E.a.size) == (1, 1)


def test_the_deepest_tree_works_everywhere() -> None:
    deep = chain(MAX_DEPTH)
    assert deep == chain(MAX_DEPTH)
    assert deep != chain(MAX_DEPTH - 2)
    assert hash(deep) == hash(chain(MAX_DEPTH))
    assert parse(str(deep)) == deep
    assert pickle.loads(pickle.dumps(deep)) == deep
    assert copy.deepcopy(deep) == deep
    assert len(repr(deep)) > MAX_DEPTH


def test_a_deeper_tree_is_refused_when_it_is_built() -> None:
    with pytest.raises(LimitError, match="nested more than 200 levels deep"):
        chain(MAX_DEPTH + 1)


def test_shared_subtrees_do_not_blow_up() -> None:
    expr: Expr = E.a
    with pytest.raises(LimitError, match=f"the query has more than {MAX_NODES} parts"):
        for _ in range(100):
            expr = expr.implies(expr)


def test_spans_take_no_part_in_comparison() -> None:
    assert parse("a AND b") == parse("  (a)   &   b") == E.a & E.b
    assert {parse("a"), parse(" a"), E.a} == {E.a}


@settings(max_examples=100, deadline=None)
@given(trees)
def test_copies_are_equal(expr: Expr) -> None:
    text = parse(str(expr))
    again = pickle.loads(pickle.dumps(text))
    assert again == expr
    assert [node.span for node in again.walk()] == [node.span for node in text.walk()]


def test_walk_goes_in_the_order_of_the_text() -> None:
    expr = parse("a AND (b OR c) IMPLIES AT LEAST 1 OF (d, NOT e)")
    assert [node.name for node in expr.walk() if isinstance(node, Attribute)] == list("abcde")


def test_map_rebuilds_only_what_changes() -> None:
    expr = parse("a AND (b OR c)")
    assert expr.map(lambda node: node) is expr
    changed = expr.map(lambda node: Not(node) if node == E.c else node)
    assert changed == parse("a AND (b OR NOT c)")
    assert changed.children[0] is expr.children[0]
    assert changed.span == expr.span


def test_fold_goes_from_the_leaves_up() -> None:
    def shown(node: Expr, operands: list[str]) -> str:
        return getattr(node, "name", node.word) + (f"({' '.join(operands)})" if operands else "")

    assert parse("(a OR b) AND NOT c AND a").fold(shown) == "AND(OR(a b) NOT(c) a)"
    leaves: list[str] = []
    parse("(a OR b) AND NOT c").fold(lambda node, _: leaves.extend(getattr(node, "name", "")))
    assert leaves == ["a", "b", "c"]  # the order of the variables of a diagram depends on it


@pytest.mark.parametrize("size", range(1, 9))
def test_a_chain_keeps_the_order(size: int) -> None:
    assert Kernel.chain(Mock(), str.__add__, [str(i) for i in range(size)]) == "01234567"[:size]


def test_nodes_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        E.a.name = "b"  # type: ignore[misc]
