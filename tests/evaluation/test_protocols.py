from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from energyql.errors import EnergyQLError
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.protocols import LEAST, MOST, PROTOCOLS, RARE
from energyql.language import And, Expr, bind
from energyql.logic.satisfiability import satisfied
from energyql.vocabulary import AttributeSpec, Vocabulary
from evaluation.lively import known_model

NAMES = ("smile", "hat", "beard", "glasses", "bald")
VOCABULARY = Vocabulary(
    [
        *(AttributeSpec(name, "yes/no") for name in NAMES),
        AttributeSpec("hair", "categorical", ("black", "brown", "red", "gray")),
        AttributeSpec("age", "continuous", low=0, high=100),
    ]
)


@pytest.fixture(scope="module")
def prior() -> JudgedSamples:
    random = np.random.default_rng(0)
    values = {name: random.random(5000) < 0.2 for name in NAMES}
    values["hair"] = random.choice(["black", "brown", "red", "gray"], 5000)
    values["age"] = 100 * random.random(5000)
    return JudgedSamples(torch.zeros(5000, 1), torch.zeros(5000, 1), values, None)


def prevalence(query: Expr, prior: JudgedSamples) -> float:
    return float(satisfied(bind(query, VOCABULARY), prior.values, VOCABULARY).mean())


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "classes"])
def test_queries_are_the_same_each_time_and_differ_by_seed(name: str, prior: JudgedSamples) -> None:
    first = PROTOCOLS[name].choose_queries(VOCABULARY, prior, 0)
    assert first == PROTOCOLS[name].choose_queries(VOCABULARY, prior, 0)
    assert first != PROTOCOLS[name].choose_queries(VOCABULARY, prior, 1)
    assert len(set(first)) == len(first)


def test_single_attributes_are_all_there(prior: JudgedSamples) -> None:
    result = PROTOCOLS["conditional-1"].choose_queries(VOCABULARY, prior, 0)
    assert [str(query).split()[0] for query in result] == [*NAMES, "hair", "age"]


def test_every_class_of_the_attribute_with_the_most(prior: JudgedSamples) -> None:
    more = Vocabulary([AttributeSpec("eyes", "categorical", ("open", "shut")), *VOCABULARY.values()])
    result = PROTOCOLS["classes"].choose_queries(more, prior, 0)
    assert list(map(str, result)) == [f"hair = {value}" for value in VOCABULARY["hair"].values]
    assert result == PROTOCOLS["classes"].choose_queries(more, prior, 1)
    with pytest.raises(EnergyQLError, match="no categorical attribute"):
        PROTOCOLS["classes"].choose_queries(Vocabulary([VOCABULARY["smile"]]), prior, 0)


def test_conditional_2_has_six_pairs(prior: JudgedSamples) -> None:
    result = PROTOCOLS["conditional-2"].choose_queries(VOCABULARY, prior, 0)
    assert [len(query.children) for query in result] == [2] * 6
    assert all(LEAST <= prevalence(query, prior) <= MOST for query in result)


def test_conditional_3_has_six_triples(prior: JudgedSamples) -> None:
    result = PROTOCOLS["conditional-3"].choose_queries(VOCABULARY, prior, 0)
    assert len(result) == 6
    for query in result:
        assert isinstance(query, And)
        assert len(query.operands) == 3
        assert LEAST <= prevalence(query, prior) <= MOST


def test_zero_shot_is_rare_but_seen(prior: JudgedSamples) -> None:
    for query in PROTOCOLS["zero-shot"].choose_queries(VOCABULARY, prior, 0):
        assert 0 < prevalence(query, prior) <= RARE


def test_a_sequence_has_five_steps_that_go_together(prior: JudgedSamples) -> None:
    setup = PROTOCOLS["sequential-5"]
    steps = setup.choose_queries(VOCABULARY, prior, 0)
    assert setup.sequential
    assert len(steps) == 5
    assert prevalence(And(tuple(steps)), prior) > 0


def test_logic_has_the_published_shapes(prior: JudgedSamples) -> None:
    conjunction, either, without, both, neither = map(str, PROTOCOLS["logic"].choose_queries(VOCABULARY, prior, 0))
    assert " AND " in conjunction
    assert "OR" not in conjunction
    assert " OR " in either
    assert "AND" not in either
    assert "NOT" in without or "!=" in without
    assert both.count(" AND ") == 2
    assert " OR " in both
    assert " AND NOT (" in neither


def test_a_model_with_few_attributes_cannot_serve_all(tmp_path: Path) -> None:
    subject = EvaluatedModel(known_model())
    seen = subject.judge(torch.randn(500, 4, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(EnergyQLError, match="no query of 4 attributes has a prevalence"):
        PROTOCOLS["zero-shot"].choose_queries(Vocabulary([subject.vocabulary["a"]]), seen, 0)
