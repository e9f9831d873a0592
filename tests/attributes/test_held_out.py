"""The file of labelled samples that a verifier did not learn from."""

import pytest
import torch

from energyql.attributes.held_out import HeldOut, held_out_path
from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.errors import ModelError
from energyql.files import read_tensors, write_tensors
from energyql.vocabulary import AttributeSpec, Vocabulary

SPECS = Vocabulary(
    [
        AttributeSpec("smile", "yes/no"),
        AttributeSpec("hair", "categorical", values=("black", "brown", "red")),
        AttributeSpec("age", "continuous", low=0.0, high=9.0),
    ]
)
PREDICTIONS = {
    "smile": YesNo(torch.arange(4.0)),
    "hair": Categorical(torch.eye(4)[:, :3], ("black", "brown", "red")),
    "age": Continuous(torch.arange(4.0), torch.ones(4)),
}
LABELS = {
    "smile": torch.tensor([0, 1, torch.nan, 1]),
    "hair": torch.tensor([0, 1, 2, torch.nan]),
    "age": torch.tensor([-1, 2.5, torch.nan, 70]),
}


@pytest.fixture
def folder(tmp_path):
    HeldOut(LABELS, PREDICTIONS, PREDICTIONS).save(tmp_path, "verifier")
    return tmp_path


def test_what_is_written_is_read(folder):
    loaded = HeldOut.load(folder, "verifier", SPECS)
    for name in SPECS:
        torch.testing.assert_close(loaded.labels[name], LABELS[name], equal_nan=True)
        for part in (loaded.heads, loaded.readings):
            torch.testing.assert_close(part[name].columns(), PREDICTIONS[name].columns())
    assert list(loaded.only(["age"]).heads) == ["age"]
    assert HeldOut.load(folder, "verifier-2", SPECS) is None


@pytest.mark.parametrize(
    ("key", "tensor", "reason"),
    [
        ("heads/smile", torch.zeros(4), "its predictions do not fit its labels"),
        ("readings/hair", torch.zeros(4, 0), "its predictions do not fit its labels"),
        ("readings/hair", torch.zeros(4, 4), "its predictions do not fit its labels"),
        ("heads/age", torch.zeros(4, 1), "its predictions do not fit its labels"),
        ("heads/age", torch.zeros(3, 2), "its predictions do not fit its labels"),
        ("labels/smile", torch.tensor(1.0), "len"),
        ("labels/hair", torch.zeros(4, 1), "its labels are not one column for each attribute"),
        ("labels/hair", torch.tensor([0.0, 1, 2, 3]), "a label of 'hair' is none of its values"),
        ("labels/hair", torch.tensor([0.0, 1, 2, torch.inf]), "a label of 'hair' is none of its values"),
        ("labels/smile", torch.tensor([0.0, 1, 0.5, 1]), "a label of 'smile' is none of its values"),
        ("labels/smile", torch.tensor([0.0, 1, -1, 1]), "a label of 'smile' is none of its values"),
        ("labels/age", None, "'labels/age' is missing"),
    ],
)
def test_damage_is_named(folder, key, tensor, reason):
    path = held_out_path(folder, "verifier")
    tensors = read_tensors(path)
    del tensors[key]
    write_tensors(path, tensors | ({} if tensor is None else {key: tensor}))
    with pytest.raises(ModelError, match=f"verifier-held-out.*{reason}"):
        HeldOut.load(folder, "verifier", SPECS)
