import json

import pytest
import torch
import torch.nn.functional as F
from damage import leave_out, spoil
from toys import VOCABULARY

from energyql.attributes.judge import Convolutions, JointJudge, Judge, thumbnails
from energyql.errors import ModelError
from energyql.files import write_json, write_tensors
from energyql.vocabulary import AttributeSpec, Vocabulary


def judge(**settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        subject = Judge(VOCABULARY, Convolutions(**({"side": 16, "channels": (4, 6)} | settings)))
        subject(torch.rand(8, 3, 32, 32))  # gives the batch norms statistics of their own
    subject.std.uniform_(0.01, 0.2, generator=torch.Generator().manual_seed(0))
    return subject.eval().requires_grad_(False)


def pictures(side=32, batch=3):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_kinds():
    subject = judge()
    predictions = subject(pictures())
    assert list(predictions) == list(VOCABULARY)
    assert predictions["hair"].logits.shape == (3, 3)
    assert predictions["hair"].values == VOCABULARY["hair"].values
    assert predictions["age"].std == subject.std[2]


@pytest.mark.parametrize("size", [(32, 32), (37, 20), (16, 16), (5, 40)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_thumbnails_are_averages_of_areas(size, channels):
    images = torch.randn(3, channels, *size, generator=torch.Generator().manual_seed(1))
    expected = F.interpolate(images, size=(16, 16), mode="area")[:, :3].expand(-1, 3, -1, -1)
    torch.testing.assert_close(thumbnails(images, 16), expected)


def test_a_larger_picture_of_the_same_is_the_same():
    large = pictures(16).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(judge()(large)["smile"].logit, judge()(pictures(16))["smile"].logit)


@pytest.mark.parametrize(("side", "channels"), [(16, (4, 6)), (20, (4, 4, 4)), (7, (3,))])
def test_any_side_and_depth(side, channels, tmp_path):
    subject = judge(side=side, channels=channels)
    assert subject(pictures())["smile"].logit.shape == (3,)
    subject.save(tmp_path)
    assert Judge.load(tmp_path)(pictures())["smile"].logit.shape == (3,)


@pytest.mark.parametrize("training", [False, True])
def test_features_without_a_graph_are_those_with_one(training):
    subject, random = judge().train(training), torch.Generator().manual_seed(0)
    for level in subject.body.levels:
        for norm in (level[1], level[4]):
            norm.weight.uniform_(0.5, 2, generator=random)
            norm.bias.uniform_(-1, 1, generator=random)
    found = subject.features(pictures(batch=40))
    with torch.no_grad():
        without = subject.features(pictures(batch=40))
    assert found.std() > 0.1
    torch.testing.assert_close(without, found, rtol=0, atol=1e-4)


def test_round_trip(tmp_path):
    subject = judge()
    subject.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["judge.json", "judge.safetensors"]
    loaded = Judge.load(tmp_path)
    assert not loaded.training
    assert loaded.vocabulary == VOCABULARY
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(loaded.std, subject.std, rtol=1e-3, atol=0)
    before, after = subject.head(subject.features(pictures())), loaded.head(loaded.features(pictures()))
    assert after.dtype == torch.float32
    assert before.std() > 0.05
    torch.testing.assert_close(after, before, rtol=0, atol=5e-3)
    assert {name: value.shape for name, value in loaded.state_dict().items()} == {
        name: value.shape for name, value in subject.state_dict().items()
    }


@pytest.mark.parametrize("file", ["judge.safetensors", "judge.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "noise", "pickle"])
def test_damaged_files_are_named(tmp_path, file, damage):
    judge().save(tmp_path)
    spoil(tmp_path / file, damage)
    with pytest.raises(ModelError, match=file):
        Judge.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"side": 0},
        {"side": "16"},
        {"side": 10**12},
        {"channels": []},
        {"channels": 4},
        {"channels": None},
        {"channels": [4, -1]},
        {"channels": [60000, 60000]},  # 65 GB, were it not for the weights that are looked at first
        {"channels": [4, 7]},
        {"vocabulary": {"version": 1, "attributes": [{"name": "smile"}]}},
        {"vocabulary": 3},
    ],
)
def test_wrong_descriptions(tmp_path, change):
    judge().save(tmp_path)
    path = tmp_path / "judge.json"
    write_json(path, json.loads(path.read_text()) | change)
    with pytest.raises(ModelError, match="judge"):
        Judge.load(tmp_path)


@pytest.mark.parametrize("key", ["side", "channels", "vocabulary"])
def test_a_description_without_a_part(tmp_path, key):
    judge().save(tmp_path)
    leave_out(tmp_path / "judge.json", key)
    with pytest.raises(ModelError, match=f"judge.json: '{key}' is missing"):
        Judge.load(tmp_path)


def test_extra_tensors(tmp_path):
    subject = judge()
    subject.save(tmp_path)
    tensors = {name: value for name, value in subject.state_dict().items() if value.is_floating_point()}
    write_tensors(tmp_path / "judge.safetensors", tensors | {"more": torch.ones(2)})
    with pytest.raises(ModelError, match=r"(?s)judge\.safetensors.*more"):
        Judge.load(tmp_path)


def test_in_a_cell_it_is_a_line():
    assert repr(judge()) == f"<Judge of pictures of 16 pixels: {', '.join(VOCABULARY)}>"
    other = Judge(Vocabulary([AttributeSpec("hat", "yes/no")]), Convolutions(16, (4,)))
    assert repr(JointJudge([judge(), other])) == f"<{judge()!r} and <Judge of pictures of 16 pixels: hat>>"
