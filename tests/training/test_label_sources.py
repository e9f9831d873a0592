import math

import pytest
import torch

from energyql.attributes.labels import import_labeller
from energyql.errors import ArgumentError, DataError, VocabularyError
from energyql.training.labels import infer
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
    assert infer({"x": [0, 1], "y": [0, 1]}, vocabulary=known)["x"] == known["x"]
    assert infer({"x": [0, 1]}, {"x": "yes/no"}, known)["x"].kind == "yes/no"


@pytest.mark.parametrize(
    ("columns", "kinds", "error", "message"),
    [
        ({"x": ["", "nan"]}, {}, DataError, "column 'x' has no values"),
        ({"x": ["a", "a"]}, {}, DataError, "all values are 'a'"),
        ({"x": [2.5, 2.5]}, {}, DataError, "all values are '2.5'"),
        (
            {"x": [f"name {i % 150}" for i in range(400)]},
            {},
            DataError,
            "150 different texts.*\n.*leave the col",
        ),
        ({"x": ["1", "old"]}, {"x": "continuous"}, DataError, "'old' is not a number"),
        ({"x": [1]}, {"y": "yes/no"}, VocabularyError, "no column 'y'\ncolumns: x"),
    ],
)
def test_columns_of_no_use(columns, kinds, error, message):
    with pytest.raises(error, match=message):
        infer(columns, kinds)


def test_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_labels.py").write_text(
        "def f(x):\n    return {'a': [1] * len(x)}\nclass C:\n    __call__ = staticmethod(f)\nn = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    assert import_labeller("my_labels:f")(torch.zeros(3, 3, 4, 4)) == {"a": [1, 1, 1]}
    assert import_labeller("my_labels:C")(torch.zeros(3, 3, 4, 4)) == {"a": [1, 1, 1]}
    for name, message in [
        ("my_labels", "module:function"),
        (":f", "module:function"),
        ("no_such_module_here:f", "cannot import"),
        ("my_labels:g", "has no 'g'"),
        ("my_labels:n", "cannot be called with pictures: it is of type int"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            import_labeller(name)
