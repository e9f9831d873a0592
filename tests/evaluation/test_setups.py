"""Named set-ups of published experiments: their files, what they ask of a model, and a run of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from energyql.errors import ArgumentError, DataError, EnergyQLError, ModelError
from energyql.evaluation.evaluate import evaluate
from energyql.evaluation.judged import JudgedSamples
from energyql.evaluation.methods import PublishedODE, read_methods
from energyql.evaluation.protocols import Setup, known_setups, read_setup
from energyql.language import bind, parse
from energyql.vocabulary import AttributeSpec, Vocabulary
from evaluation.lively import lively_model, silent

COUNTS = {
    "afhq": [1, 1, 1, 1],
    "cifar10": [10],
    "ffhq": [2, 12, 5, 2, 4],
    "metfaces": [3 + 2, 6, 3],
}
NOTHING = JudgedSamples(torch.zeros(0, 1), torch.zeros(0, 1), {}, None)
OWN: dict[str, Any] = {
    "format": 1,
    "title": "Lively",
    "checkpoint": "random",
    "labels": "by hand",
    "truncation": 0.8,
    "temperature": 0.5,
    "attributes": [{"name": "smile", "kind": "yes/no"}, {"name": "age", "kind": "continuous"}],
    "protocols": [
        {"name": "both", "title": "Both", "about": "Two.", "every": [["smile"]]},
        {"name": "edit", "title": "Edit", "about": "One.", "truncation": 0.6, "steps": ["smile"]},
    ],
}


def fitting(setup: Setup) -> Vocabulary:
    """Return a vocabulary that has just what a set-up needs."""
    return Vocabulary(
        AttributeSpec(one.name, one.kind, (one.values or ("a", "b")) if one.kind == "categorical" else ())  # type: ignore[arg-type]
        if len(one.values) != 1
        else AttributeSpec(one.name, "categorical", (*one.values, "other"))
        for one in setup.needed
    )


def own(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(OWN | changes), encoding="utf-8")
    return path


def protocol(**field: Any) -> dict[str, Any]:
    return {"name": "one", "title": "One", "about": "One.", **field}


def test_set_ups_are_listed_by_name() -> None:
    assert known_setups() == list(COUNTS)


@pytest.mark.parametrize("name", list(COUNTS))
def test_queries_of_a_fitting_model(name: str) -> None:
    setup = read_setup(name)
    vocabulary = fitting(setup)
    setup.check(vocabulary, tuple(setup.protocols))
    result = [one.choose_queries(vocabulary, NOTHING, 0) for one in setup.protocols.values()]
    assert list(map(len, result)) == COUNTS[name]
    for queries in result:
        assert len(set(queries)) == len(queries)
        for query in queries:
            bind(query, vocabulary)
    assert {one.name for one in setup.needed} == {name for one in setup.protocols.values() for name in one.attributes}


def test_the_published_queries() -> None:
    setup = read_setup("ffhq")
    vocabulary = fitting(setup)
    steps = setup.protocols["sequential-5"]
    assert steps.sequential
    assert steps.truncation == 0.5
    assert list(map(str, steps.choose_queries(vocabulary, NOTHING, 0))) == [
        "yaw = 0.75", "smile", "gender", "age = 0.75", "glasses",
    ]  # fmt: skip
    assert setup.protocols["zero-shot"].truncation == 0.7
    first, *_, last = map(str, setup.protocols["conditional-3"].choose_queries(vocabulary, NOTHING, 0))
    assert first == "gender AND smile AND age = 0.25"
    assert last == "NOT gender AND NOT smile AND age = 0.75"


def test_the_message_lists_all_attributes_that_a_model_lacks() -> None:
    setup = read_setup("ffhq")
    vocabulary = Vocabulary(
        [
            AttributeSpec("glasses", "yes/no"),
            AttributeSpec("smile", "categorical", ("wide", "none")),
            AttributeSpec("age", "continuous", low=0, high=100),
        ],
        model="mine",
    )
    with pytest.raises(ModelError) as caught:
        setup.check(vocabulary, tuple(setup.protocols))
    said = caught.value.message
    assert "model 'mine' lacks what set-up 'ffhq' needs" in said
    for part in (
        "'gender', yes/no (class 1 of the labels)", "'beard', yes/no", "'yaw', continuous from 0 to 1",
        "'smile', yes/no: yours is categorical, wide, none", "yours is continuous, 0 to 100",
    ):  # fmt: skip
        assert part in said
    assert "protocols=['conditional-1'];" in caught.value.hint
    setup.check(vocabulary, ["conditional-1"])


def test_missing_classes_are_listed() -> None:
    vocabulary = Vocabulary([AttributeSpec("class", "categorical", ("cat", "dog"))])
    with pytest.raises(ModelError, match="'airplane', 'automobile'.*: yours is categorical, cat, dog") as caught:
        read_setup("cifar10").check(vocabulary, ["classes"])
    assert "none of them" in str(caught.value.hint)


def test_a_temperature_is_a_strength_of_both_samplers() -> None:
    assert read_setup("ffhq").samplers == ("slice+descent", "paper")
    ours, paper = read_methods(read_setup("afhq").samplers)
    assert (ours.name, paper.name) == ("slice+descent@1.429", "paper@1.429")
    assert isinstance(paper.sampler, PublishedODE)
    assert paper.sampler.strength == 1.429
    assert paper.semantics == "lace"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2 is not 1"),
        ({"temperature": 0}, "temperature 0.0"),
        ({"attributes": [{"name": "smile"}]}, "kind"),
        ({"attributes": []}, "smile not among its attributes"),
        ({"protocols": [{"name": "a", "title": "", "about": ""}]}, "is no set-up"),
        ({"protocols": [OWN["protocols"][0] | {"steps": []}]}, "is no set-up"),
        ({"protocols": ["conditional-1"]}, "is no set-up"),
        ({"protocols": [protocol(queries=[])]}, "'queries' of protocol 'one' is empty"),
        ({"protocols": [protocol(every=[])]}, "'every' of protocol 'one' is empty"),
        ({"protocols": [protocol(every=[["smile"], []])]}, "'every' of protocol 'one' is empty"),
        ({"protocols": [protocol(steps=[])]}, "'steps' of protocol 'one' is empty"),
        ({"protocols": [protocol(drawn=[])]}, "'drawn' of protocol 'one' is empty"),
        ({"protocols": [protocol(steps=["smile"]), protocol(drawn=["smile"])]}, "names of protocols .* different"),
        ({"truncation": "much"}, "much"),
        ({"attributes": [{"name": "smile", "kind": "binary"}]}, "is no set-up: KeyError.'binary'"),
        ({"protocols": [OWN["protocols"][0] | {"name": "../up"}]}, "names of protocols must be of letters"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_setup(own(tmp_path, **changes))


def test_wrong_queries_and_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EnergyQLError, match="AND"):
        read_setup(own(tmp_path, protocols=[OWN["protocols"][1] | {"steps": ["smile AND"]}]))
    with pytest.raises(ArgumentError, match="there is no set-up 'celeba'") as caught:
        read_setup("celeba")
    assert "afhq, cifar10, ffhq, metfaces" in str(caught.value.hint)
    with pytest.raises(ModelError, match=r"nowhere\.json"):
        read_setup(tmp_path / "nowhere.json")


def test_heads_must_hold_at_every_truncation(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="do not hold at truncation 5"):
        evaluate(setup=own(tmp_path, truncation=5), model=str(lively_model(tmp_path / "model")), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("field", ["queries", "steps"])
def test_queries_are_checked_before_anything_is_drawn(tmp_path: Path, field: str) -> None:
    protocols = [OWN["protocols"][0], protocol(**{field: ["smile", "smile = 3"]})]
    with pytest.raises(EnergyQLError, match="set-up 'own', protocol 'one', 'smile = 3': ") as caught:
        evaluate(
            setup=own(tmp_path, protocols=protocols), model=str(lively_model(tmp_path / "model")),
            out=tmp_path / "out", progress=silent,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    with pytest.raises(type(caught.value)):
        bind(parse("smile = 3"), Vocabulary([AttributeSpec("smile", "yes/no")]))


@pytest.mark.slow
def test_an_experiment_of_ones_own(tmp_path: Path) -> None:
    data = evaluate(
        setup=own(tmp_path), model=str(lively_model(tmp_path / "model")), out=tmp_path / "out", n=4, prior=100,
        oracle=30, edits=2, progress=silent,
    )  # fmt: skip
    assert list(data["setups"]) == ["both", "edit"]
    assert [one["truncation"] for one in data["setups"].values()] == [0.8, 0.6]
    assert data["contenders"] == ["slice+descent@2", "paper@2"]
    assert data["settings"]["setup"] == str(tmp_path / "own.json")
    queries = [record["query"] for record in data["setups"]["both"]["comparison"]["queries"]]
    assert queries == ["smile", "NOT smile"]
    assert [step["query"] for step in data["setups"]["edit"]["sequence"]["lace"]["steps"]] == ["smile"]
    assert "Labels: by hand." in (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
