"""A training that is refused leaves the disk as it was."""

import pytest
import torch
from brief import ADA, bright, dark, train
from labelled import write_csv
from toys import random_heads, tiny_model

from energyql import train_attributes
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.errors import EnergyQLError
from energyql.models.unfinished import WORK
from energyql.training.foreign import add_heads
from energyql.training.judge import train_judge
from energyql.vocabulary import AttributeSpec, Vocabulary

CODE = """
import torch


class Plain(torch.nn.Module):
    z_dim = 4

    def encode(self, z, truncation=1.0):
        return truncation * z

    def synthesize(self, w):
        return w[:, :3, None, None].expand(-1, -1, 8, 8).tanh()


def first():
    return Plain()


second = first
"""


def same(images):
    return {"same": [True] * len(images)}


class Fickle:
    """A labeller that returns another attribute each time."""

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return {f"a{self.calls}": images.mean((1, 2, 3))}


def unknown_class(images):
    return {"hair": ["green"] * len(images)}


HAIR = Vocabulary([AttributeSpec("hair", "categorical", values=("black", "brown"))])
REFUSED = {
    "labels that are all the same": (same, {}),
    "other attributes in each batch": (Fickle(), {}),
    "a class that the vocabulary lacks": (unknown_class, {"vocabulary": HAIR}),
    "an attribute without labels": (bright, {"only": ["other"]}),
    "a kind that labels are not of": (bright, {"kinds": {"bright": "yes/no"}}),
    "a kind of another attribute": (bright, {"kinds": {"other": "yes/no"}}),
    "a view that the generator lacks": (bright, {"space": "features"}),
    "a class of no class": (bright, {"condition": 3}),
    "a judge that is not there": (bright, {"judge": "no.such:judge"}),
    "a judge that is no code": (bright, {"judge": 3}),
    "labels that are none": ({"bright": [1.0]}, {}),
    "no attribute": (bright, {"only": []}),
    "a kind that does not exist": (bright, {"kinds": {"bright": "binary"}}),
    "a range of three numbers": (bright, {"truncation": (0, 0.5, 1)}),
    "a truncation that is text": (bright, {"truncation": "0.7"}),
    "a device that is not there": (bright, {"device": "gpu"}),
}


def disk(folder):
    """All below a folder: the content of files, and `None` of folders."""
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def nothing(folder):
    pass


def empty(folder):
    folder.mkdir(parents=True)


def a_file(folder):
    empty(folder)
    (folder / "notes.txt").write_text("mine")


def interrupted(folder):
    def stopped(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(ADA, stopped, folder)
    assert (folder / WORK).is_dir()


def trained(folder):
    train(ADA, dark, folder)


STARTS = (empty, a_file, interrupted, trained)


@pytest.mark.parametrize(
    ("what", "start"), [*((what, nothing) for what in REFUSED), *((next(iter(REFUSED)), start) for start in STARTS)]
)
def test_the_disk_is_as_before(tmp_path, monkeypatch, what, start):
    monkeypatch.setattr("energyql.training.samples.PICTURES_A_PART", 20)
    labeller, settings = REFUSED[what]
    start(tmp_path / "above" / "model")
    before = disk(tmp_path)
    with pytest.raises(EnergyQLError):
        train(ADA, labeller, tmp_path / "above" / "model", **settings)
    left = disk(tmp_path)
    if start is interrupted:  # the answers of another labeller are of no use, so these may be replaced
        before, left = (
            {path: content for path, content in each.items() if WORK not in path.parts} for each in (before, left)
        )
    assert left == before


def test_a_bad_table(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("index,bright\n" + "".join(f"{i},1\n" for i in range(40)))
    before = disk(tmp_path)
    with pytest.raises(EnergyQLError):
        train(ADA, table, tmp_path / "model")
    assert disk(tmp_path) == before


def test_a_copy_of_a_model(tmp_path):
    """That nothing is learnt from labels is known only after the model was copied."""
    source = tiny_model(tmp_path / "tiny", truncation=(0.7, 0.7))
    table = write_csv(tmp_path / "l.csv", {"index": list(range(60)), "height": [0.1 * i for i in range(60)]})
    heads = [
        AttributeBank(HAIR, random_heads(HAIR, size), fitted=FittedUnder(truncation=(0.7, 0.7))) for size in (3, 16)
    ]
    before = disk(tmp_path)
    for call in (
        lambda: train_judge(source, table, tmp_path / "copy", progress=False),
        lambda: train_judge(source, same, tmp_path / "copy", n=40, progress=False),
        lambda: train_judge(source, same, n=40, progress=False),
        lambda: train(source, table, tmp_path / "copy", space="z"),
        lambda: add_heads(source, heads[0], tmp_path / "copy"),
        lambda: add_heads(source, heads[1], tmp_path / "copy"),
    ):
        with pytest.raises(EnergyQLError):
            call()
        assert disk(tmp_path) == before


def test_a_generator_by_name(tmp_path, monkeypatch):
    (tmp_path / "refused_code.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    train("refused_code:first", bright, tmp_path / "model")
    torch.save({}, tmp_path / "x.pt")
    before = disk(tmp_path)
    for out in ("model", "new"):
        with pytest.raises(EnergyQLError):
            train("refused_code:second", same, tmp_path / out)
        left = {path: content for path, content in disk(tmp_path).items() if "__pycache__" not in path.parts}
        assert left == {path: content for path, content in before.items() if "__pycache__" not in path.parts}


class Untruncated:
    z_dim = 4

    def encode(self, z):
        return z

    def synthesize(self, w):
        return w[:, :3, None, None]


class Blind:
    z_dim = 4

    def synthesize(self, w):
        return w[:, :3, None, None]


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (Blind(), "this is a Blind without encode, so it is no generator"),
        (Untruncated(), r"cannot be called as encode\(z, truncation\): too many positional"),
        (Untruncated, r"Untruncated is a class, not a generator\nmake one: Untruncated\(\)"),
    ],
)
def test_no_generators(tmp_path, generator, message):
    with pytest.raises(EnergyQLError, match=message):
        train_attributes(generator, same, tmp_path / "new")
    assert not (tmp_path / "new").exists()
