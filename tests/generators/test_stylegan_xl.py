"""StyleGAN-XL: pictures of the official program, heads found from layers, state dicts, classes, and what is refused."""

import dataclasses
import math
import re

import pytest
import torch
from safetensors.torch import load_file

from energyql.errors import ArgumentError, CheckpointWarning, ModelError
from energyql.generators.base import class_count
from energyql.generators.checkpoints import stylegan_xl
from energyql.generators.checkpoints.network_pickle import Checkpoint, NetworkRecord
from energyql.generators.checkpoints.stylegan_xl import read_stylegan_xl
from energyql.generators.families import read_generator
from energyql.generators.load import load_generator, read_checkpoint, save_converted
from energyql.generators.mapping import FrozenMapping, encoder
from energyql.generators.stylegan_xl import StyleGANXL, StyleGANXLConfig
from generators.checkpoints.writer import DATA

NAMES = ("stylegan-xl", "stylegan-xl-r")
"""One with three classes and two heads, T; and a stem without classes, R."""
SMALL = StyleGANXLConfig(
    resolution=32, z_dim=6, w_dim=7, c_dim=3, class_features=5, mapping_layers=2, channel_base=96, channel_max=4,
    num_layers=5, head_layers=(4,), up_factors=(2,),
)  # fmt: skip


def record(name: str = "stylegan-xl") -> NetworkRecord:
    return read_checkpoint(DATA / f"{name}.pkl").network


def build(changed: NetworkRecord) -> StyleGANXL | None:
    """The generator of a record."""
    checkpoint = Checkpoint(None, 1)
    checkpoint.__dict__["network"] = changed  # a cached property
    return read_stylegan_xl(checkpoint)


def check_pictures(generator: StyleGANXL, expected: dict[str, torch.Tensor]) -> None:
    """Compare w and 32 x 32 pixels, or all of fewer, with those of the official program."""
    for truncation in (1, 0.7):
        w = generator.encode(expected["z"], truncation, expected.get("label"))
        torch.testing.assert_close(w, expected[f"w_{truncation}"], rtol=0, atol=1e-5)
        pixels = expected[f"pixels_{truncation}"]
        step = generator.config.resolution // pixels.shape[-1]
        torch.testing.assert_close(generator.synthesize(w)[..., ::step, ::step], pixels, rtol=0, atol=1e-5)
        assert (pixels[0] - pixels[1]).abs().mean() > 0.01


@pytest.mark.parametrize("name", NAMES)
class TestOfficialFiles:
    def test_pictures_are_those_of_the_official_program(self, name):
        generator = load_generator(DATA / f"{name}.pkl")
        assert isinstance(generator, StyleGANXL)
        check_pictures(generator, load_file(DATA / f"{name}.safetensors"))

    @pytest.mark.parametrize("prefix", ["", "module.", "G_ema."])
    @pytest.mark.filterwarnings("ignore:.*a state dict holds no settings")
    def test_state_dicts(self, name, prefix, tmp_path):
        torch.save({f"{prefix}{key}": tensor for key, tensor in record(name).tensors.items()}, tmp_path / "x.pt")
        read, original = load_generator(tmp_path / "x.pt"), load_generator(DATA / f"{name}.pkl")
        assert dataclasses.replace(read.config, channel_base=96) == original.config
        assert read.config.signals() == original.config.signals()
        check_pictures(read, load_file(DATA / f"{name}.safetensors"))

    def test_model_folders(self, name, tmp_path):
        original = load_generator(DATA / f"{name}.pkl")
        save_converted(tmp_path, "mine", original, DATA / f"{name}.pkl")
        read = read_generator(tmp_path)
        assert isinstance(read, StyleGANXL)
        assert read.config == original.config
        w = torch.randn(2, 7)
        torch.testing.assert_close(read.synthesize(w), original.synthesize(w), rtol=0, atol=0.02)
        assert '"truncation": 0.7' in (tmp_path / "config.json").read_text()


def test_a_warning_states_the_settings_that_a_state_dict_lacks(tmp_path):
    torch.save(record().tensors, tmp_path / "x.pt")
    with pytest.warns(CheckpointWarning, match="a state dict holds no settings: assumed are"):
        load_generator(tmp_path / "x.pt")


def test_heads_are_found():
    config = load_generator(DATA / "stylegan-xl.pkl").config
    assert (config.resolution, config.stem_resolution) == (64, 16)
    assert (config.num_layers, config.head_layers, config.up_factors) == (5, (4, 5), (2, 2))
    assert config.num_ws == 12


@pytest.mark.parametrize(
    ("stem", "heads"),
    [
        ((16, 10), ((7, 2),)),
        ((16, 10), ((7, 2), (7, 2), (5, 2))),
        ((16, 10), ((7, 4), (6, 16))),
        ((32, 14), ((3, 8),)),
        ((64, 11), ((20, 4), (9, 2))),
    ],
)
def test_any_heads_are_found(stem, heads):
    counts, factors = zip(*heads, strict=True)
    resolution = stem[0] * math.prod(factors)
    config = dataclasses.replace(
        SMALL, resolution=resolution, channel_base=2048, num_layers=stem[1], head_layers=counts, up_factors=factors
    )
    tensors = StyleGANXL(config).state_dict()
    signals, kept = config.signals(), config.num_layers - config.num_critical
    for place, signal in enumerate(signals):
        layer = f"synthesis.L{place + (place >= kept)}_{signal.size}_{signal.channels}."
        for name in [name for name in tensors if name.startswith(f"synthesis.layers.{place}.")]:
            tensors[layer + name.split(".", 3)[3]] = tensors.pop(name)
    tensors["mapping.embed_proj.weight"] = tensors.pop("mapping.embed.weight")
    tensors["mapping.embed_proj.bias"] = tensors.pop("mapping.embed.bias")
    tensors["mapping.embed.weight"] = tensors.pop("mapping.class_features")
    stated = {"synthesis.channel_base": config.channel_base, "mapping.fc0.bias_gain": 0.01}
    stated[f"synthesis.L0_{signals[0].size}_{signals[0].channels}.conv_clamp"] = 256
    assert build(NetworkRecord("SuperresGenerator", {}, tensors, stated)).config == config


def test_heads_clamp_at_256_whatever_the_stem_does():
    generator = StyleGANXL(dataclasses.replace(SMALL, conv_clamp=None))
    assert [layer.clamp for layer in generator.synthesis.layers] == [None] * 3 + [256.0] * 5


class TestClasses:
    generator = load_generator(DATA / "stylegan-xl.pkl")
    z = torch.randn(4, 6)

    def test_features_of_unused_classes_are_left_out(self):
        assert record().tensors["mapping.embed.weight"].shape == (5, 6)
        assert class_count(self.generator) == 3
        assert self.generator.mapping.class_features.shape == (3, 6)

    def test_each_class_has_its_mean(self):
        condition = torch.eye(3)[[1, 1, 2, 0]]
        w = self.generator.encode(self.z, 0.0, condition)
        assert torch.equal(w, self.generator.mapping.w_avg[[1, 1, 2, 0]])
        assert not torch.equal(w[0], w[2])

    @pytest.mark.parametrize("truncation", [1.0, 0.6])
    def test_the_sampler_has_a_prepared_mapping(self, truncation):
        condition = torch.eye(3)[2]
        frozen = encoder(self.generator, truncation, condition)
        assert isinstance(frozen, FrozenMapping)
        w = self.generator.encode(self.z, truncation, condition.expand(4, -1))
        torch.testing.assert_close(frozen(self.z), w, rtol=0, atol=1e-5)
        value, back = frozen.pullback(self.z)
        z = self.z.clone().requires_grad_()
        self.generator.encode(z, truncation, condition.expand(4, -1)).square().sum().backward()
        torch.testing.assert_close(back(2 * value), z.grad, rtol=1e-4, atol=1e-4)

    def test_labels(self):
        with pytest.raises(ArgumentError, match=r"condition of shape \(4, 3\), not None"):
            self.generator.encode(self.z)
        with pytest.raises(ArgumentError, match=r"shape \(4, 3\), not"):
            self.generator.encode(self.z, condition=torch.eye(4))

    def test_one_mean_for_all_classes_is_that_of_each(self):
        found = record()
        found.tensors["mapping.w_avg"] = torch.arange(7.0)
        found.attributes["mapping.c_dim"] = 3
        assert torch.equal(build(found).mapping.w_avg, torch.arange(7.0).expand(3, -1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_features": 0}, "c_dim and class_features must both be 0"),
        ({"head_layers": (2,)}, "head_layers must be a list of whole numbers from 3 to 64"),
        ({"up_factors": (3,)}, "up_factors must be a list of whole numbers from 2 to 16"),
        ({"up_factors": 2}, "up_factors must be a list"),
        ({"up_factors": (2, 2)}, "one number for each head"),
        ({"up_factors": (8,)}, "the stem has a resolution of 4, which is too low"),
        ({"num_critical": 4}, "num_critical must be below the layers of a head"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(ModelError, match=message):
        dataclasses.replace(SMALL, **changes)


def without(pattern: str):
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if re.search(pattern, name)]:
            del tensors[name]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("affine.bias"), "tensors are missing: synthesis.input.affine.bias"),
        (
            without(r"\.L5_"),
            "its layers are of no known StyleGAN-XL: their numbers and sizes are 0: 36x36",
        ),
        (without(r"\.L(1\d|[4-9])_"), "its layers are of no known StyleGAN-XL"),
        (lambda tensors: tensors["synthesis.L4_36_5.up_filter"].mul_(1.1), "its layers are of no known StyleGAN-XL"),
        (lambda tensors: tensors.update({"mapping.x": torch.ones(1)}), "tensors that a StyleGANXL has not: mapping.x"),
        (lambda tensors: tensors["mapping.w_avg"].fill_(torch.nan), "mapping.w_avg has numbers that are not finite"),
        (without(r"mapping\.fc"), "it has no mapping.fc0.weight"),
    ],
)
def test_damaged_files(tmp_path, change, message):
    tensors = record().tensors
    change(tensors)
    torch.save(tensors, tmp_path / "x.pt")
    with pytest.raises(ModelError, match=re.escape(message)):
        load_generator(tmp_path / "x.pt", lr_multiplier=0.01, conv_clamp=256)


def test_the_search_for_heads_is_limited(monkeypatch):
    monkeypatch.setattr(stylegan_xl, "_MOST_SIGNALS", 50)
    with pytest.raises(ModelError, match="it takes more than 50 operations to read"):
        load_generator(DATA / "stylegan-xl.pkl")


def test_stated_settings_are_those_of_the_file():
    with pytest.raises(ModelError, match="its lr_multiplier is 0.01, not 0.1"):
        load_generator(DATA / "stylegan-xl.pkl", lr_multiplier=0.1)
    with pytest.raises(ModelError, match="its conv_clamp is 256, not inf"):
        load_generator(DATA / "stylegan-xl.pkl", conv_clamp=math.inf)
    found = record()
    found.attributes["synthesis.first_cutoff"] = 1.5
    with pytest.raises(ModelError, match="its layers are of no known StyleGAN-XL"):
        build(found)
