from functools import partial

import numpy as np
import pytest
import torch

from energyql.attributes.labels import as_cells, encode_column, known_cells, label_images, labeller_name, read_images
from energyql.attributes.predictions import Categorical, Continuous, YesNo, decide
from energyql.errors import DataError
from energyql.vocabulary import AttributeSpec, Vocabulary

IMAGES = torch.zeros(3, 3, 4, 4)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, images):
        assert not self.training
        assert not torch.is_grad_enabled()
        return {"bright": self.drop(images + 1).mean((1, 2, 3))}


def test_functions_and_modules():
    assert label_images(Net().train(), IMAGES) == {"bright": [1.0, 1.0, 1.0]}
    assert label_images(lambda images: {"a": ["x", None, "y"]}, IMAGES) == {"a": ["x", None, "y"]}


@pytest.mark.parametrize("answer", [None, {}, {1: [0, 0, 0]}, torch.zeros(3), {"a": [1]}])
def test_wrong_answers(answer):
    with pytest.raises(DataError, match="the labeller must return a dict|3 pictures but"):
        label_images(lambda images: answer, IMAGES)


def test_text_is_no_list_of_letters():
    with pytest.raises(DataError, match="the labeller: 'a': 3 pictures but 'yes'"):
        label_images(lambda images: {"a": "yes"}, IMAGES)


@pytest.mark.parametrize(
    ("answer", "message"),
    [(3, "the judge must return a dict .* not 3"), ({"a": True}, "the judge: 'a': 3 pictures but True")],
)
def test_a_judge_is_called_so(answer, message):
    with pytest.raises(DataError, match=message):
        read_images(lambda images: answer, IMAGES, TestReading.VOCABULARY)


class TestReading:
    VOCABULARY = Vocabulary(
        [
            AttributeSpec("a", "yes/no"),
            AttributeSpec("b", "categorical", values=("x", "longer")),
            AttributeSpec("c", "continuous"),
        ]
    )

    def test_values(self):
        answer = {"b": ["longer", "x", "x"], "d": [1, 2, 3], "c": [0.25, 2, -1], "a": [True, "no", 1]}
        values = read_images(lambda images: answer, IMAGES, self.VOCABULARY)
        assert {name: column.tolist() for name, column in values.items()} == {
            "a": [True, False, True],
            "b": ["longer", "x", "x"],
            "c": [0.25, 2, -1],
        }
        assert (values["a"].dtype, values["c"].dtype) == (bool, np.float64)

    def test_predictions(self):
        predictions = {
            "a": YesNo(torch.tensor([1.0, -1.0, 3.0])),
            "b": Categorical(torch.eye(2)[[1, 0, 0]], ("x", "longer")),
            "c": Continuous(torch.tensor([0.1, 0.2, 0.3]), 0.1),
        }
        values, decided = read_images(lambda images: predictions, IMAGES, self.VOCABULARY), decide(predictions)
        assert list(values) == list(decided)
        for name, column in values.items():
            assert column.dtype == decided[name].dtype
            assert (column == decided[name]).all()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"a": [1, None, 0]}, "the judge returns no value of 'a' for some pictures"),
            ({"b": ["x", "y", "x"]}, "the judge, row 2: 'b' is 'y', not one of x, longer"),
            ({"c": [1, 2]}, "3 pictures but 2 values"),
        ],
    )
    def test_wrong_values(self, change, message):
        answer = {"a": [1, 1, 0], "b": ["x", "x", "x"], "c": [0, 0, 0]} | change
        with pytest.raises(DataError, match=message):
            read_images(lambda images: answer, IMAGES, self.VOCABULARY)

    def test_a_judge_of_some_attributes(self):
        assert list(read_images(lambda images: {"c": [1, 1, 0], "d": [0, 0, 0]}, IMAGES, self.VOCABULARY)) == ["c"]


def test_names_tell_labellers_apart():
    def one(images):
        return {"a": [1] * len(images)}

    first = labeller_name(one)

    def one(images):
        return {"a": [2] * len(images)}

    assert labeller_name(one) != first
    assert "Net" in labeller_name(Net())
    net = Net()
    net.identity = "mine"
    assert labeller_name(net) == "mine"
    assert labeller_name(len) and labeller_name(torch.Tensor.mean)


def signed(images, sign, look=None):
    return {"a": [sign > 0] * len(images)}


def test_names_tell_arguments_apart():
    def around(value):
        def look(images):
            return {"a": [value] * len(images)}

        return look

    names = {
        labeller_name(each) for each in (
            partial(signed, sign=1), partial(signed, sign=-1), partial(as_cells, sign=1), around(1), around((1, "b")),
            partial(signed, sign=1, look=around(1)), partial(signed, sign=1, look=around(2)),
        )
    }  # fmt: skip
    assert len(names) == 7
    calls = 0

    def counts(images):
        nonlocal calls
        calls += 1
        return {"a": [1] * len(images)}

    name = labeller_name(counts)
    counts(IMAGES)
    assert labeller_name(counts) == name
    assert labeller_name(partial(signed, sign=1)) in names and labeller_name(around(1)) in names
    address = labeller_name(partial(signed, sign=object(), look=around(object())))
    assert address == labeller_name(partial(signed, sign=object(), look=around(object())))
    assert {name.partition("\n")[0] for name in names} == {
        "functools.partial",
        around(1).__module__ + "." + around(1).__qualname__,
    }


def test_encoding():
    hair = AttributeSpec("hair", "categorical", values=("black", "brown"))
    assert encode_column(["brown", " black", ""], hair).nan_to_num(-1).tolist() == [1, 0, -1]
    hat = AttributeSpec("hat", "categorical", values=("none", "cap"))  # a class, and not a missing label
    assert encode_column(["none", "cap", "", None, "?"], hat).nan_to_num(-1).tolist() == [0, 1, -1, -1, -1]
    assert known_cells(["none", "cap", "NA"], hat) == ["none", "cap", None]
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
