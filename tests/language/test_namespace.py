from __future__ import annotations

import copy
import pickle
from rlcompleter import Completer

import pytest

from energyql.errors import ArgumentError, UnknownAttribute
from energyql.language import E, ModelNamespace, all_of, any_of, at_least, at_most, exactly, none_of, parse
from energyql.vocabulary import AttributeSpec, Vocabulary


def test_attributes_by_name() -> None:
    assert E.smile == parse("smile")
    assert E["5 o'clock shadow"] == parse('"5 o\'clock shadow"')
    assert E["_x"] == parse("_x")


@pytest.mark.parametrize("name", ["_x", "__len__", "_repr_html_", "_ipython_canary_method_should_not_exist_"])
def test_names_that_python_probes_are_no_attributes(name: str) -> None:
    with pytest.raises(AttributeError, match="write E"):
        getattr(E, name)


def test_values_and_ranges_are_not_confused() -> None:
    for wrong in (E.hair.eq, E.hair.ne):
        with pytest.raises(ArgumentError, match="a value must be a finite number"):
            wrong(["red", "black"])  # type: ignore[arg-type]
    for several in (E.tone.is_in, E.tone.not_in):
        with pytest.raises(ArgumentError, match="a value must be a string, not 0.2"):
            several([0.2, 0.4])  # type: ignore[list-item]


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
        E.hair = "red"  # type: ignore[assignment]
    with pytest.raises(ArgumentError, match="an attribute name must be a string, not 3"):
        E[3]  # type: ignore[index]


@pytest.fixture
def e() -> ModelNamespace:
    specs = [AttributeSpec("smile", "yes/no"), AttributeSpec("5 o'clock", "yes/no"), AttributeSpec("age", "continuous")]
    return ModelNamespace(Vocabulary(specs, model="tiny"))


def test_attributes_of_a_model(e: ModelNamespace) -> None:
    assert (e.smile & (e.age > 0.5)) == parse("smile AND age > 0.5")
    assert e["5 o'clock"] == E["5 o'clock"]
    assert e["smi\u006ce"] == E.smile


def test_a_typo_is_refused_at_once(e: ModelNamespace) -> None:
    with pytest.raises(
        UnknownAttribute, match="'smil' is not an attribute of model 'tiny'\ndid you mean smile?"
    ) as caught:
        e.smil  # noqa: B018
    assert caught.value.names == ("smil",)
    with pytest.raises(UnknownAttribute, match="attributes: smile, 5 o'clock, age"):
        e["zebra"]
    with pytest.raises(ArgumentError, match="an attribute name must be a string, not 3"):
        e[3]  # type: ignore[index]
    assert hasattr(e, "smile")
    assert not hasattr(e, "smil")
    assert not hasattr(e, "_repr_html_")
    assert not hasattr(e, "__len__")


def test_names_are_completed(e: ModelNamespace) -> None:
    assert dir(e) == ["age", "smile"]
    assert e._ipython_key_completions_() == ["smile", "5 o'clock", "age"]
    assert Completer({"e": e}).attr_matches("e.sm") == ["e.smile"]


def test_a_namespace_can_be_copied_and_pickled(e: ModelNamespace) -> None:
    for twin in (copy.copy(e), copy.deepcopy(e), pickle.loads(pickle.dumps(e))):
        assert twin.smile == E.smile
        assert dir(twin) == dir(e)
    assert repr(e) == "E of model 'tiny'"


def test_a_model_without_a_name() -> None:
    e = ModelNamespace(Vocabulary([AttributeSpec("smile", "yes/no")]))
    assert repr(e) == "E of this model"
    with pytest.raises(UnknownAttribute, match="'smil' is not an attribute of this model\ndid you mean smile?"):
        _ = e.smil


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
