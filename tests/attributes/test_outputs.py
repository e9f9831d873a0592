import numpy as np
import pytest
import torch
from toys import VOCABULARY

from energyql.attributes.predictions import (
    Categorical,
    Continuous,
    YesNo,
    decide,
    output_count,
    split_outputs,
    tabulate,
)
from energyql.pipeline.scoring import score

ROWS = torch.tensor(
    [
        [2.0, 0.0, 1.0, 3.0, 0.25, -1.0, 0.5],
        [-2.0, 5.0, 1.0, 3.0, 0.75, 0.0, -0.5],
    ]
)


def predictions():
    return split_outputs(ROWS, VOCABULARY.values(), {"age": torch.tensor(0.1)})


def test_counts():
    assert [output_count(spec) for spec in VOCABULARY.values()] == [1, 3, 1, 1, 1]


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


def test_a_number_does_as_a_standard_deviation():
    found = split_outputs(ROWS, VOCABULARY.values(), {"age": 0.2})
    assert tabulate(found)["age"][1] == pytest.approx([0.2, 0.2])
