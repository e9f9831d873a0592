import math

import numpy as np
import pytest
import torch

from energyql.attributes.labels import as_cells, encode_column, infer
from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.errors import DataError, VocabularyError
from energyql.vocabulary import AttributeSpec, Vocabulary


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["yes", "no", "", "Yes"], "yes/no"),
        (["TRUE", "false"], "yes/no"),
        (["0", "1", "1.0", "nan"], "yes/no"),
        ([True, False, None], "yes/no"),
        ([1, 0, math.nan], "yes/no"),
        (["0.5", "1", "-2e3"], "continuous"),
        ([0, 1, 2], "continuous"),
        (["black", "brown", "NA", " black "], "categorical"),
        (["1", "2", "many"], "categorical"),
    ],
)
def test_kinds_are_inferred(cells, kind):
    assert infer({"x": cells})["x"].kind == kind


def test_what_is_inferred():
    specs = infer({"age": ["3", "13", ""], "hair": ["brown", "black", None, " brown"]})
    assert (specs["age"].low, specs["age"].high, specs["age"].tolerance) == (3, 13, 0.5)
    assert specs["hair"].values == ("black", "brown")


def test_what_is_told():
    assert infer({"x": [0, 1, 2]}, {"x": "categorical"})["x"].values == ("0", "1", "2")
    assert infer({"x": [0.0, 1.0]}, {"x": "categorical"})["x"].values == ("0", "1")
    known = Vocabulary([AttributeSpec("x", "continuous", low=-1, high=9)])
    assert infer({"x": [0, 1], "y": [0, 1]}, known=known)["x"] == known["x"]
    assert infer({"x": [0, 1]}, {"x": "yes/no"}, known)["x"].kind == "yes/no"


@pytest.mark.parametrize(
    ("columns", "kinds", "error", "message"),
    [
        ({"x": ["", "nan"]}, {}, DataError, "column 'x' has no values"),
        ({"x": ["a", "a"]}, {}, DataError, "all values are 'a'"),
        ({"x": [2.5, 2.5]}, {}, DataError, "all values are 2.5"),
        ({"x": [f"name {i}" for i in range(200)]}, {}, DataError, "200 different texts.*\n.*leave the column out"),
        ({"x": ["1", "old"]}, {"x": "continuous"}, DataError, "'old' is not a number"),
        ({"x": [1]}, {"y": "yes/no"}, VocabularyError, "no column 'y'\ncolumns: x"),
    ],
)
def test_columns_of_no_use(columns, kinds, error, message):
    with pytest.raises(error, match=message):
        infer(columns, kinds)


def test_encoding():
    hair = AttributeSpec("hair", "categorical", values=("black", "brown"))
    assert encode_column(["brown", " black", ""], hair).nan_to_num(-1).tolist() == [1, 0, -1]
    smile = AttributeSpec("smile", "yes/no")
    assert encode_column(["Yes", "no", None, True, "0.0"], smile).nan_to_num(-1).tolist() == [1, 0, -1, 1, 0]
    assert encode_column(["1.5", 2], AttributeSpec("age", "continuous")).tolist() == [1.5, 2]


@pytest.mark.parametrize(
    ("spec", "cell", "message"),
    [
        (AttributeSpec("s", "yes/no"), "maybe", "row 2: 's' is 'maybe', not 0 or 1, true or false"),
        (AttributeSpec("s", "yes/no"), 0.5, "'s' is 0.5"),
        (AttributeSpec("h", "categorical", values=("a", "b")), "c", "'h' is 'c', not one of a, b"),
        (AttributeSpec("n", "continuous"), "inf", "'n' is 'inf', not a finite number"),
        (AttributeSpec("n", "continuous"), "x", "'n' is 'x'"),
    ],
)
def test_wrong_cells_are_named(spec, cell, message):
    with pytest.raises(DataError, match=f"file, {message}|{message}"):
        encode_column(["", cell], spec, "file")


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        (torch.tensor([True, False]), [True, False]),
        (torch.tensor([[1.0], [2.0]]), [1.0, 2.0]),
        (np.array(["a", "b"]), ["a", "b"]),
        ([None, 3], [None, 3]),
        (("a", "b"), ["a", "b"]),
        (YesNo(torch.tensor([2.0, -1.0])), [True, False]),
        (Categorical(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), ("a", "b")), ["b", "a"]),
        (Continuous(torch.tensor([0.5, 1.5]), 0.1), [0.5, 1.5]),
    ],
)
def test_what_labellers_may_give(values, cells):
    assert as_cells(values, 2, "x") == cells


@pytest.mark.parametrize("values", [[1], "ab", 3, None, torch.zeros(2, 3), {"a": 1, "b": 2}, [[1], [2]]])
def test_what_labellers_may_not_give(values):
    with pytest.raises(DataError, match="'x'"):
        as_cells(values, 2, "x")
