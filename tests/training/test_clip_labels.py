import math
import sys
from types import SimpleNamespace

import pytest
import torch

from energyql.attributes.labels import encode_column
from energyql.attributes.words import OpenClip
from energyql.errors import ArgumentError, DataError
from energyql.training.clip_labels import ClipLabeller, load_clip_labeller

PROMPTS = {
    "bright": ["white", "black"],
    "colour": {"red": "red", "green": "green", "blue": "blue"},
}
COLOURS = {
    "white": [1, 1, 1], "black": [-1, -1, -1], "red": [1, -1, -1], "green": [-1, 1, -1], "blue": [-1, -1, 1],
}  # fmt: skip


class ColourClip(torch.nn.Module):
    """Has the interface of a model of open_clip; pictures and texts are their mean colours."""

    def __init__(self, scale=2.0):
        super().__init__()
        self.logit_scale = torch.nn.Parameter(torch.tensor(math.log(scale)))
        self.visual = SimpleNamespace(image_size=(8, 8), image_mean=(0.5, 0.5, 0.5), image_std=(0.5, 0.5, 0.5))

    def encode_image(self, pictures):
        assert pictures.shape[1:] == (3, 8, 8)
        return pictures.mean((2, 3))

    def encode_text(self, tokens):
        return tokens.float()


def tokenizer(texts):
    return torch.tensor([COLOURS[text] for text in texts])


def pictures(*names):
    return torch.stack([torch.tensor(COLOURS[name]).float()[:, None, None].expand(3, 16, 20) for name in names])


def test_labels_follow_the_prompts():
    labeller = ClipLabeller(OpenClip(ColourClip(), tokenizer), PROMPTS)
    found = labeller(pictures("red", "blue", "green", "white"))
    assert found["colour"][:3] == ["red", "blue", "green"]
    assert found["bright"][3] is True
    assert [spec.kind for spec in labeller.vocabulary.values()] == ["yes/no", "categorical"]
    for name, cells in found.items():
        assert not encode_column(cells, labeller.vocabulary[name]).isnan().any()


def test_guesses_are_left_out():
    labeller = ClipLabeller(OpenClip(ColourClip(scale=2.0), tokenizer), PROMPTS, margin=2.0)
    found = labeller(pictures("red", "white"))
    assert found["bright"] == [None, True]  # red is a third as far from the border as white: 1.3 logits
    assert ClipLabeller(OpenClip(ColourClip(scale=4.0), tokenizer), PROMPTS, margin=2.0)(pictures("red"))["bright"] == [
        False
    ]


def test_pictures_are_prepared():
    labeller = ClipLabeller(OpenClip(ColourClip(), tokenizer), PROMPTS)
    torch.testing.assert_close(labeller.reader.prepare(pictures("red")), pictures("red")[:, :, :8, :8])
    assert labeller.reader.prepare(torch.full((2, 1, 8, 8), 3.0)).eq(1).all()
    bare = ColourClip()
    bare.visual = SimpleNamespace(image_size=8)
    assert (
        ClipLabeller(OpenClip(bare, tokenizer), PROMPTS).reader.prepare(pictures("white")).max() > 1.5
    )  # CLIP's own statistics


def test_models_and_prompts_tell_labellers_apart():
    names = {
        ClipLabeller(OpenClip(ColourClip(), tokenizer), prompts, margin=margin, identity=identity).identity
        for prompts in (PROMPTS, {"bright": ["white", "black"]})
        for margin in (0.0, 1.0)
        for identity in ("a", "b")
    }
    assert len(names) == 8


@pytest.mark.parametrize("options", [["white"], "white", {"red": "red"}, ["white", 3], {"a": 1, "b": 2}, None])
def test_wrong_prompts(options):
    with pytest.raises(DataError, match="the prompts of 'x' are"):
        ClipLabeller(OpenClip(ColourClip(), tokenizer), {"x": options})


def test_files_of_prompts(tmp_path):
    path = tmp_path / "prompts.json"
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"prompts\.json"):
            load_clip_labeller(path)
    with pytest.raises(DataError, match="there are no prompts"):
        ClipLabeller(OpenClip(ColourClip(), tokenizer), {})


def test_without_open_clip(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)  # an import of it fails
    with pytest.raises(ArgumentError, match=r'not installed\npip install "open_clip_torch'):
        load_clip_labeller(PROMPTS)


def small_model():
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    return open_clip, open_clip.CLIP(16, vision, text)


def test_a_small_model_of_open_clip(monkeypatch):
    with torch.random.fork_rng(devices=[]):
        open_clip, model = small_model()
    asked = []

    def create_model(name, pretrained, device):
        asked.append((name, pretrained, device))
        return model

    monkeypatch.setattr(open_clip, "create_model", create_model)
    labeller = load_clip_labeller(PROMPTS, model="ViT-B-32", weights="some")
    assert asked == [("ViT-B-32", "some", "cpu")]
    images = torch.rand(5, 3, 24, 24) * 2 - 1
    found = labeller(images)
    features = torch.nn.functional.normalize(model.encode_image(labeller.reader.prepare(images)), dim=-1)
    texts = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(["red", "green", "blue"]))
    expected = (features @ torch.nn.functional.normalize(texts, dim=-1).T).argmax(1)
    assert found["colour"] == [("red", "green", "blue")[k] for k in expected]
    assert set(found["bright"]) <= {True, False}


def test_a_model_that_open_clip_does_not_have():
    pytest.importorskip("open_clip")
    with pytest.raises(DataError, match="open_clip cannot load no-such-model"):
        load_clip_labeller(PROMPTS, model="no-such-model", weights="")
