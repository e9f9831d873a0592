import numpy as np
import pytest
import torch

from energyql.attributes.image_labels import import_labeller, label_images, labeller_name, read_images
from energyql.attributes.outputs import decide
from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.errors import ArgumentError, DataError
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
    with pytest.raises(DataError, match="it must give a dict|one value a picture"):
        label_images(lambda images: answer, IMAGES)


def test_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_labels.py").write_text(
        "def f(x):\n    return {'a': [1] * len(x)}\nclass C:\n    __call__ = staticmethod(f)\nn = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    assert import_labeller("my_labels:f")(IMAGES) == {"a": [1, 1, 1]}
    assert import_labeller("my_labels:C")(IMAGES) == {"a": [1, 1, 1]}
    for name, message in [
        ("my_labels", "module:function"),
        (":f", "module:function"),
        ("no_such_module_here:f", "cannot import"),
        ("my_labels:g", "has no 'g'"),
        ("my_labels:n", "is a int, which cannot be called"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            import_labeller(name)


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
            ({"a": [1, None, 0]}, "the judge gives no value of 'a' for some pictures"),
            ({"b": ["x", "y", "x"]}, "the judge, row 2: 'b' is 'y', not one of x, longer"),
            ({"c": [1, 2]}, "3 pictures but 2 values"),
        ],
    )
    def test_wrong_values(self, change, message):
        answer = {"a": [1, 1, 0], "b": ["x", "x", "x"], "c": [0, 0, 0]} | change
        with pytest.raises(DataError, match=message):
            read_images(lambda images: answer, IMAGES, self.VOCABULARY)

    def test_missing_attributes(self):
        with pytest.raises(DataError, match="the judge tells nothing of 'b', 'c'"):
            read_images(lambda images: {"a": [1, 1, 0]}, IMAGES, self.VOCABULARY)


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
    assert labeller_name(len)
