"""FastGAN and projected GAN: pictures of the official programs, state dicts, model folders, and what is refused."""

import dataclasses
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from energyql.errors import ArgumentError, ModelError
from energyql.generators.base import noise_options, noise_size
from energyql.generators.families import read_generator
from energyql.generators.fastgan import FastGAN, FastGANConfig
from energyql.generators.load import load_generator, read_checkpoint, save_converted
from generators.checkpoints.writer import DATA, Call, Named, dumps

SMALL = FastGANConfig(z_dim=5, widths=(6, 4, 3), layers=(2, 1), c_dim=3, embed_features=4)
FILES = ("fastgan.pth", "projected-gan.pkl", "projected-gan-lite.pkl", "projected-gan-conditional.pkl")


def original() -> dict[str, torch.Tensor]:
    """The state dict of a FastGAN of 1024 x 1024."""
    return torch.load(DATA / "fastgan.pth", weights_only=True)["g"]


def full_conditional() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The state dict of a full conditional projected GAN, and what it draws."""
    expected = load_file(DATA / "projected-gan-full-conditional.safetensors")
    names = [name for name in expected if name.startswith("G_ema.")]
    return {name.removeprefix("G_ema.synthesis."): expected.pop(name) for name in names}, expected


def check_pictures(generator: FastGAN, expected: dict[str, torch.Tensor]) -> None:
    """Compare 32 x 32 pixels with those of the official program, which drew with waves for its noise."""
    w = generator.encode(expected["z"], condition=expected.get("label"))
    numbers = torch.arange(generator.config.noise_size, dtype=torch.float64)
    noise = (1.4 * torch.sin(0.37 * numbers)).float().expand(len(w), -1)
    images = generator.synthesize(w, noise)
    step = generator.config.resolution // 32
    torch.testing.assert_close(images[..., ::step, ::step], expected["pixels"], rtol=0, atol=1e-4)
    assert expected["pixels"].flatten(1).std(0).mean() > 0.005
    assert torch.equal(generator.synthesize(w[1:], noise[1:]), images[1:]), "a picture does not depend on its batch"


@pytest.mark.parametrize("name", FILES)
class TestOfficialFiles:
    def test_pictures_are_those_of_the_official_program(self, name):
        generator = load_generator(DATA / name)
        assert isinstance(generator, FastGAN)
        check_pictures(generator, load_file(DATA / f"{name.partition('.')[0]}.safetensors"))

    def test_model_folders(self, name, tmp_path):
        generator = load_generator(DATA / name)
        save_converted(tmp_path, "mine", generator, DATA / name)
        read = read_generator(tmp_path)
        assert isinstance(read, FastGAN)
        assert read.config == generator.config
        z, condition = torch.randn(2, read.z_dim), torch.eye(read.c_dim)[:2] if read.c_dim else None
        images = [network.synthesize(network.encode(z, condition=condition)) for network in (read, generator)]
        torch.testing.assert_close(*images, rtol=0, atol=0.02)  # stored in half precision
        assert '"truncation": 1.0' in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fastgan.pth", {"resolution": 1024, "layers": (2, 1) * 4, "normalize_z": False, "tanh": True, "c_dim": 0}),
        ("projected-gan.pkl", {"resolution": 128, "layers": (2,) * 5, "normalize_z": True, "tanh": False}),
        ("projected-gan-lite.pkl", {"resolution": 256, "layers": (1,) * 6, "noise_size": 0}),
        ("projected-gan-conditional.pkl", {"resolution": 128, "layers": (1,) * 5, "c_dim": 3, "w_dim": 6}),
    ],
)
def test_settings(name, expected):
    config = load_generator(DATA / name).config
    assert {key: getattr(config, key) for key in expected} == expected


class TestStateDicts:
    @pytest.mark.parametrize("prefix", ["", "synthesis.", "module.", "G_ema.synthesis."])
    def test_prefixes(self, prefix, tmp_path):
        state, expected = full_conditional()
        save_file({f"{prefix}{name}": tensor for name, tensor in state.items()}, tmp_path / "x.safetensors")
        generator = load_generator(tmp_path / "x.safetensors")
        assert generator.c_dim == 1000, "the official code makes so many, and no tensor says how many were used"
        check_pictures(generator, expected | {"label": torch.eye(1000)[expected["label"].argmax(1)]})

    @pytest.mark.parametrize("name", FILES[1:])
    def test_a_pickle_and_its_state_dict_agree(self, name, tmp_path):
        torch.save({"G_ema": read_checkpoint(DATA / name).network.tensors}, tmp_path / "x.pt")
        read, whole = load_generator(tmp_path / "x.pt"), load_generator(DATA / name)
        assert read.config == dataclasses.replace(whole.config, c_dim=read.c_dim)
        state = whole.state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in read.state_dict().items() if key != "embed")

    def test_averaged_parameters_stand_in_a_list(self, tmp_path):
        state = original()
        buffers = ("weight_u", "weight_v", "running_mean", "running_var", "num_batches_tracked")
        average = [2 * tensor for name, tensor in state.items() if not name.endswith(buffers)]
        torch.save(
            {"g": {f"module.{name}": tensor for name, tensor in state.items()}, "g_ema": average}, tmp_path / "x"
        )
        averaged, own = load_generator(tmp_path / "x"), load_generator(DATA / "fastgan.pth")
        assert torch.allclose(averaged.colours, own.colours)  # spectral normalisation undoes the factor
        names = [name for name in own.state_dict() if name.endswith("noise_strength")]
        assert names
        for name in names:  # twice the strength, and twice the factor of the normalisation
            assert torch.allclose(averaged.state_dict()[name], 4 * own.state_dict()[name])
        torch.save({"g": state, "g_ema": average[1:]}, tmp_path / "x")
        with pytest.raises(ModelError, match=r"its g_ema is a list of \d+ entries, and its generator has \d+ param"):
            load_generator(tmp_path / "x")
        torch.save({"g": state, "g_ema": [average[1], average[0], *average[2:]]}, tmp_path / "x")
        with pytest.raises(ModelError, match=r"its g_ema has the shape \(\d+,\) for init\.init\.0\.weight_orig"):
            load_generator(tmp_path / "x")

    def test_smaller_pictures_end_without_a_tangent(self, tmp_path):
        state = {name: tensor for name, tensor in original().items() if "_512." not in name and "_1024." not in name}
        torch.save({"g": state}, tmp_path / "x.pth")
        config = load_generator(tmp_path / "x.pth").config
        assert (config.resolution, config.tanh) == (256, False)


def test_the_file_is_not_run(tmp_path):
    with pytest.raises(ModuleNotFoundError, match="pg_modules|timm"):  # what a pickle of the program asks for
        pickle.loads((DATA / "projected-gan-lite.pkl").read_bytes())
    call = Call(Named("pg_modules.networks_fastgan", "Generator"), ("argument",), {"_modules": {}})
    (tmp_path / "x.pkl").write_bytes(dumps({"G_ema": call}))
    with pytest.raises(ModelError, match="a part of the network is not one of the official code"):
        load_generator(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    ("module", "name"),
    [("torch.nn.modules", "x.y"), ("torch.nn..modules", "x"), ("torch.nnx", "x"), ("pg_module", "x")],
)
def test_only_classes_of_known_packages_may_be_named(tmp_path, module, name):
    (tmp_path / "x.pkl").write_bytes(dumps({"D": Call(Named(module, name)), "G_ema": None}))
    with pytest.raises(ModelError, match="which no supported checkpoint needs"):
        load_generator(tmp_path / "x.pkl")


class TestNoise:
    generator = load_generator(DATA / "projected-gan.pkl")
    w = generator.encode(torch.randn(2, generator.z_dim))

    def test_by_default_the_stored_noise_is_added(self):
        stored = torch.cat(
            [self.generator.get_buffer(f"b{8 << i}.{j}.noise_const").flatten() for i in range(5) for j in (0, 1)]
        )
        images, without = self.generator.synthesize(self.w), self.generator.synthesize(self.w, "none")
        assert torch.equal(self.generator.synthesize(self.w, stored.expand(2, -1)), images)
        assert torch.equal(self.generator.synthesize(self.w, torch.zeros(2, len(stored))), without)
        assert (images - without).abs().max() > 0.01
        assert torch.equal(load_generator(DATA / "projected-gan.pkl").synthesize(self.w), images)

    def test_random_noise_is_that_of_seed_and_number(self):
        assert noise_size(self.generator) == self.generator.config.noise_size
        options = [noise_options(self.generator, "random", 3, index) for index in ([0, 1], [1, 0])]
        first, second = (self.generator.synthesize(self.w, **given) for given in options)
        assert not torch.equal(first, second)
        swapped = self.generator.synthesize(self.w.flip(0), **options[1])
        assert torch.equal(swapped.flip(0), first)

    def test_noise_size_is_zero_without_strength(self):
        assert noise_size(load_generator(DATA / "projected-gan-lite.pkl")) == 0
        assert noise_size(FastGAN(SMALL)) == 0

    @pytest.mark.parametrize("noise", [torch.zeros(2, 5), torch.zeros(1, 43648)])
    def test_noise_of_another_shape_is_refused(self, noise):
        with pytest.raises(ArgumentError, match=r'noise is "const", "none" or a tensor \(2, 43648\), not'):
            self.generator.synthesize(self.w, noise)


def test_projected_gan_sees_the_direction_of_z():
    generator = FastGAN(dataclasses.replace(SMALL, normalize_z=True))
    z, condition = torch.randn(2, 5), torch.eye(3)[[2, 0]]
    w = generator.encode(z, 0.5, condition)
    torch.testing.assert_close(w[:, :5].square().mean(1), torch.full((2,), 0.25))
    torch.testing.assert_close(w, generator.encode(7 * z, 0.5, condition))


def test_the_gradient_is_the_gradient():
    generator = FastGAN(dataclasses.replace(SMALL, widths=(6, 4, 3, 3, 3), layers=(2, 1, 2, 1), tanh=True)).double()
    random = torch.Generator().manual_seed(0)
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.2, generator=random)
    w = torch.randn(2, SMALL.w_dim, generator=random).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: generator.synthesize(w).mean((2, 3)), w)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_dim": 0}, "z_dim must be a whole number from 1"),
        ({"widths": (6, -4, 3)}, "widths must be a list of whole numbers from 1"),
        ({"widths": 6}, "widths must be a list of whole numbers"),
        ({"layers": (2, 3)}, "layers must be a list of whole numbers from 1 to 2"),
        ({"layers": (2,)}, "layers one less"),
        ({"widths": (2,) * 10, "layers": (1,) * 9}, "2 to 9 stages"),
        ({"image_channels": 4}, "image_channels must be one of 1, 3, not 4"),
        ({"tanh": 1}, "tanh must be one of False, True, not 1"),
        ({"embed_features": 0}, "must both be 0"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(ModelError, match=message):
        dataclasses.replace(SMALL, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("feat_8.3.bias"), "it has no tensor feat_8.3.bias, which a FastGAN has"),
        (lambda state: state.pop("se_64.main.1.weight_v"), "it has no tensor se_64.main.1.weight_v"),
        (
            lambda state: state.update({"feat_8.9.weight": torch.ones(1)}),
            "tensor feat_8.9.weight that a FastGAN has not",
        ),
        (
            lambda state: state.update({"to_big.bias": torch.ones(3)}),
            "neither FastGAN, which has to_128",
        ),
        (lambda state: state.update({"feat_16.1.weight_u": torch.ones(3)}), "vectors of other lengths than its weight"),
        (lambda state: state.update({"feat_16.1.weight_u": torch.zeros(8)}), "numbers that are not finite"),
        (lambda state: state.update({"feat_8.3.bias": torch.full((10,), torch.nan)}), "not finite"),
        (lambda state: state.update({"se_64.main.3.weight_orig": torch.ones(3, 3, 2, 2)}), "se_64.main.3 has vectors"),
        (
            lambda state: (
                [state.pop(name) for name in list(state) if "_512." in name or "_1024." in name]
                + [state.update({"feat_64.1.weight_orig": torch.ones(2, 3, 3, 3)})]
            ),
            "the side of its pictures is not certain: to_big takes 1 channels",
        ),
    ],
)
def test_damaged_state_dicts(tmp_path, change, message):
    state = original()
    change(state)
    torch.save({"g": state}, tmp_path / "x.pth")
    with pytest.raises(ModelError, match=f"cannot read .*{message}"):
        load_generator(tmp_path / "x.pth")


def test_settings_of_stylegan_are_refused():
    with pytest.raises(ModelError, match="a FastGAN takes no lr_multiplier and no conv_clamp"):
        load_generator(DATA / "fastgan.pth", conv_clamp=256)
