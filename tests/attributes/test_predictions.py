import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from toys import VOCABULARY

from energyql.attributes.predictions import (
    Categorical,
    Continuous,
    YesNo,
    decide,
    log_probabilities,
    split_outputs,
    tabulate,
)
from energyql.pipeline.score import score

INF = math.inf
HAIR = ("black", "brown", "red", "gray")
TAILS = [0.0, 1.0, -1.0, 7.0, -7.0, 40.0, -40.0, 1e3, -1e3, 1e5, -1e5]


def close(actual, expected, **tolerance):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), **tolerance)


def test_yes_no():
    head = YesNo(torch.tensor([0.0, 2.0, -200.0], dtype=torch.float64))
    close(head.log_probability((True,)), [-math.log(2), -math.log1p(math.exp(-2)), -200.0])
    close(head.log_probability((False,)), [-math.log(2), -2 - math.log1p(math.exp(-2)), 0.0])
    close(head.probability((True,)) + head.probability((False,)), [1.0, 1.0, 1.0])
    close(head.log_probability((False, True)), [0.0, 0.0, 0.0])
    close(head.log_probability(()), [-INF, -INF, -INF])


def test_certain_answers_are_exact():
    head = YesNo(torch.tensor([INF, -INF]))
    assert head.log_probability((True,)).tolist() == [0.0, -INF]
    assert head.log_probability((False,)).tolist() == [-INF, 0.0]


def test_categorical_adds_the_probabilities_of_the_classes():
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    head = Categorical(logits, HAIR)
    p = torch.softmax(logits, dim=1)
    for size in range(1, 4):
        for cells in itertools.combinations(range(4), size):
            close(head.probability([HAIR[i] for i in cells]), p[:, list(cells)].sum(1))
    close(head.log_probability(HAIR), torch.zeros(5))
    close(head.log_probability(()), torch.full((5,), -INF))


def test_a_class_set_near_certainty_keeps_its_digits():
    head = Categorical(torch.tensor([[60.0, 60.0, 0.0, 0.0]]), HAIR)
    close(head.log_probability(("black", "brown")), [-math.exp(-60.0)], atol=0, rtol=1e-4)
    close(head.log_probability(("red", "gray")), [-60.0])


@pytest.mark.parametrize("cells", [((-INF, 0.2),), ((0.2, INF),), ((0.2, 0.7),), ((-INF, 0.1), (0.3, 0.4), (0.9, INF))])
def test_continuous_is_a_difference_of_cdfs(cells):
    means = [-0.3, 0.1, 0.5, 1.2]
    head = Continuous(torch.tensor(means, dtype=torch.float64), 0.25)
    expected = []
    for mean in means:
        normal = NormalDist(mean, 0.25)
        expected.append(sum((1 if b == INF else normal.cdf(b)) - (0 if a == -INF else normal.cdf(a)) for a, b in cells))
    close(head.probability(cells), expected)
    std = torch.full((4,), 0.25, dtype=torch.float64)
    close(Continuous(head.mean, std).probability(cells), expected)


def test_continuous_full_and_empty():
    head = Continuous(torch.tensor([0.1, 5.0]), 0.25)
    assert head.log_probability(((-INF, INF),)).tolist() == [0.0, 0.0]
    assert head.log_probability(()).tolist() == [-INF, -INF]


@pytest.mark.parametrize(
    "cells", [((-INF, 0.0),), ((0.0, INF),), ((-0.5, 0.5),), ((0.0, 1e-6),), ((-INF, -1.0), (1.0, INF))]
)
@pytest.mark.parametrize("std", [1.0, 1e-3, 1e3])
def test_far_tails_stay_finite_in_float32(cells, std):
    mean = torch.tensor(TAILS, requires_grad=True)
    spread = torch.full((len(TAILS),), std, requires_grad=True)
    value = Continuous(mean, spread).log_probability(cells)
    value.sum().backward()
    assert value.isfinite().all()
    assert (value <= 0).all()
    assert mean.grad.isfinite().all()
    assert spread.grad.isfinite().all()


def test_discrete_tails_stay_finite_in_float32():
    logit = torch.tensor(TAILS, requires_grad=True)
    logits = torch.stack([logit, torch.zeros_like(logit), -logit], dim=1)
    head = Categorical(logits, ("a", "b", "c"))
    rows = log_probabilities([(YesNo(logit), (True,)), (YesNo(logit), (False,)), (head, ("a",)), (head, ("a", "c"))])
    rows.sum().backward()
    assert rows.isfinite().all()
    assert logit.grad.isfinite().all()


def test_many_at_once_are_the_same_as_one_by_one():
    random = torch.Generator().manual_seed(1)
    heads = [
        (Continuous(torch.rand(6, generator=random), 0.1), ((0.2, 0.4),)),
        (YesNo(torch.randn(6, generator=random)), (False,)),
        (Categorical(torch.randn(6, 4, generator=random), HAIR), ("red", "gray")),
        (Continuous(torch.rand(6, generator=random), torch.full((6,), 0.3)), ((-INF, 0.2), (0.7, 0.8), (0.9, INF))),
        (Continuous(torch.rand(6, generator=random), 0.2), ((0.5, INF),)),
    ]
    for size in range(1, 6):
        for chosen in itertools.combinations(heads, size):
            together = log_probabilities(chosen)
            assert together.shape == (size, 6)
            for row, (head, cells) in zip(together, chosen, strict=True):
                close(row, head.log_probability(cells))


def test_gradients_are_right():
    random = torch.Generator().manual_seed(2)
    mean = torch.randn(6, dtype=torch.float64, generator=random, requires_grad=True)
    std = (0.1 + torch.rand(6, dtype=torch.float64, generator=random)).requires_grad_()
    logits = torch.randn(6, 4, dtype=torch.float64, generator=random, requires_grad=True)

    def rows(mean, std, logits):
        continuous, hair = Continuous(mean, std), Categorical(logits, HAIR)
        union = ((-INF, -0.5), (0.0, 0.3), (0.5, INF))
        requests = [(continuous, union), (continuous, ((-0.1, 2.0),)), (hair, ("red",)), (hair, ("red", "gray"))]
        return log_probabilities([*requests, (YesNo(mean), (False,))])

    assert torch.autograd.gradcheck(rows, (mean, std, logits))


def test_what_was_evaluated_in_inference_mode_can_be_differentiated_later() -> None:
    values = ("a", "b", "c", "d", "e")
    cells = ("b", "d")
    with torch.inference_mode():
        Categorical(torch.randn(3, 5), values).log_probability(cells)
    logits = torch.randn(3, 5, requires_grad=True)
    Categorical(logits, values).log_probability(cells).sum().backward()
    assert logits.grad is not None


OUTPUTS = torch.tensor(
    [
        [2.0, 0.0, 1.0, 3.0, 0.25, -1.0, 0.5],
        [-2.0, 5.0, 1.0, 3.0, 0.75, 0.0, -0.5],
    ]
)


def predictions():
    return split_outputs(OUTPUTS, VOCABULARY.values(), {"age": torch.tensor(0.1)})


def test_columns_go_to_attributes_in_order():
    found = predictions()
    assert list(found) == list(VOCABULARY)
    assert [type(p) for p in found.values()] == [YesNo, Categorical, Continuous, YesNo, YesNo]
    assert found["smile"].logit.tolist() == [2.0, -2.0]
    assert found["hair"].logits.tolist() == [[0.0, 1.0, 3.0], [5.0, 1.0, 3.0]]
    assert found["age"].mean.tolist() == [0.25, 0.75]
    assert found["beard"].logit.tolist() == [0.5, -0.5]


def test_decisions():
    decided = decide(predictions())
    assert decided["smile"].tolist() == [True, False]
    assert decided["smile"].dtype == bool
    assert decided["glasses"].tolist() == [False, False]
    assert decided["hair"].tolist() == ["dark red", "black"]
    assert decided["age"].tolist() == [0.25, 0.75]
    assert decided["age"].dtype == np.float64


def test_tables_are_what_score_takes():
    table = tabulate(predictions())
    assert table["smile"] == pytest.approx(1 / (1 + np.exp([-2.0, 2.0])))
    assert sum(table["hair"].values()) == pytest.approx([1.0, 1.0])
    assert list(table["hair"]) == list(VOCABULARY["hair"].values)
    mean, std = table["age"]
    assert mean == pytest.approx([0.25, 0.75])
    assert std == pytest.approx([0.1, 0.1])
    assert score('smile AND hair = "dark red" AND age > 0.5', table).shape == (2,)
