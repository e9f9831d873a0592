from __future__ import annotations

import copy
import pickle

import pytest

from energyql.errors import ArgumentError
from energyql.language import E, all_of, any_of, at_least, at_most, exactly, none_of, parse


def test_attributes_by_name() -> None:
    assert E.smile == parse("smile")
    assert E["5 o'clock shadow"] == parse('"5 o\'clock shadow"')
    assert E["_x"] == parse("_x")


@pytest.mark.parametrize("name", ["_x", "__len__", "_repr_html_", "_ipython_canary_method_should_not_exist_"])
def test_names_that_python_probes_are_no_attributes(name: str) -> None:
    with pytest.raises(AttributeError, match="write E"):
        getattr(E, name)


def test_there_is_one_namespace() -> None:
    assert copy.copy(E) is E
    assert copy.deepcopy(E) is E
    assert pickle.loads(pickle.dumps(E)) is E
    assert repr(E) == "E"


def test_the_namespace_is_no_container() -> None:
    with pytest.raises(TypeError):
        list(E)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        "smile" in E  # type: ignore[operator]  # noqa: B015
    with pytest.raises(AttributeError):
        E.smile = 3  # type: ignore[misc, assignment]
    with pytest.raises(ArgumentError, match="takes the name of an attribute, not 3"):
        E[3]  # type: ignore[index]


def test_cardinalities() -> None:
    assert at_least(2, E.a, E.b, E.c) == parse("AT LEAST 2 OF (a, b, c)")
    assert at_least(2, [E.a, E.b]) == parse("AT LEAST 2 OF (a, b)")
    assert at_most(1, (E[name] for name in "abc")) == parse("AT MOST 1 OF (a, b, c)")
    assert exactly(1, E.a & E.b, [E.c]) == parse("EXACTLY 1 OF (a AND b, c)")
    assert all_of(E.a, E.b) == parse("ALL OF (a, b)")
    assert any_of([E.a]) == parse("ANY OF (a)")
    assert none_of(E.a, E.b) == parse("NONE OF (a, b)")


def test_cardinality_mistakes() -> None:
    with pytest.raises(ArgumentError, match="AT LEAST 3 can never be true: only 2 are given"):
        at_least(3, E.a, E.b)
    with pytest.raises(ArgumentError, match="'smile' is not an expression"):
        at_least(1, "smile")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="needs at least 1 operand"):
        all_of()
    with pytest.raises(ArgumentError, match="AT MOST needs a whole number that is not negative, not -1"):
        at_most(-1, E.a)
