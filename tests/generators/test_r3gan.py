"""R3GAN: pictures of the official program, state dicts, model folders, and what is refused."""

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from energyql.errors import ModelError
from energyql.generators.families import read_generator
from energyql.generators.load import load_generator, read_checkpoint, save_converted
from energyql.generators.r3gan import R3GAN, R3GANConfig
from generators.checkpoints.writer import DATA, Call, Named, dumps

SMALL = R3GANConfig(z_dim=5, widths=(6, 4), groups=(3, 2), blocks=(2, 1), c_dim=3, embed_features=4)


def weights(name: str) -> dict[str, torch.Tensor]:
    return read_checkpoint(DATA / f"{name}.pkl").network.tensors


@pytest.mark.parametrize("name", ["r3gan", "r3gan-conditional"])
class TestOfficialFiles:
    def test_pictures_are_those_of_the_official_program(self, name):
        generator, expected = load_generator(DATA / f"{name}.pkl"), load_file(DATA / f"{name}.safetensors")
        assert isinstance(generator, R3GAN)
        assert generator.config.resolution == 16
        w = generator.encode(expected["z"], condition=expected.get("label"))
        images = generator.synthesize(w)
        assert images.flatten(1).std(0).mean() > 0.1
        torch.testing.assert_close(images, expected["image"], rtol=0, atol=1e-5)
        assert torch.equal(generator.synthesize(w[1:3]), images[1:3]), "a picture does not depend on its batch"

    @pytest.mark.parametrize("prefix", ["", "module.", "G_ema."])
    def test_state_dicts(self, name, prefix, tmp_path):
        state = {f"{prefix}{key}": tensor for key, tensor in weights(name).items()}
        torch.save({"G_ema": state}, tmp_path / "x.pt")
        read, original = load_generator(tmp_path / "x.pt"), load_generator(DATA / f"{name}.pkl")
        assert read.config == original.config
        assert all(torch.equal(tensor, original.state_dict()[key]) for key, tensor in read.state_dict().items())

    def test_model_folders(self, name, tmp_path):
        original = load_generator(DATA / f"{name}.pkl")
        save_converted(tmp_path, "mine", original, DATA / f"{name}.pkl")
        read = read_generator(tmp_path)
        assert isinstance(read, R3GAN)
        assert read.config == original.config
        w = torch.randn(3, original.config.w_dim)
        assert torch.equal(read.synthesize(w), original.synthesize(w))
        assert '"truncation": 1.0' in (tmp_path / "config.json").read_text()


def test_the_file_is_not_run(tmp_path):
    with pytest.raises(ModuleNotFoundError, match="training"):  # what a pickle of the program asks for
        pickle.loads((DATA / "r3gan.pkl").read_bytes())
    call = Call(Named("training.networks", "Generator"), ("argument",), {"_modules": {}})
    (tmp_path / "x.pkl").write_bytes(dumps({"G_ema": call}))
    with pytest.raises(ModelError, match="a part of the network is not one of the official code"):
        load_generator(tmp_path / "x.pkl")


def test_filters_of_other_sizes_are_those_of_the_file():
    config = load_generator(DATA / "r3gan.pkl").config
    assert (config.filter_taps, config.kernel, config.widths) == (6, 5, (6, 6, 4))


def test_a_new_network_keeps_the_variance():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = R3GAN(R3GANConfig(z_dim=64, widths=(64, 64, 64), groups=(8, 8, 8), blocks=(2, 2, 2))).eval()
        for parameter in generator.parameters():
            if not parameter.any() and parameter.ndim == 4:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        images = generator.synthesize(torch.randn(16, 64))
    assert images.shape == (16, 3, 16, 16)
    assert 0.3 < images.std() < 3


def test_the_gradient_is_the_gradient():
    generator = R3GAN(SMALL).double()
    random = torch.Generator().manual_seed(0)
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.5, generator=random)
    w = torch.randn(2, SMALL.w_dim, generator=random).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: generator.synthesize(w).mean((2, 3)), w)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_dim": 0}, "z_dim must be a whole number from 1"),
        ({"widths": (6, -4)}, "widths must be a list of whole numbers"),
        ({"widths": 6}, "widths must be a list of whole numbers"),
        ({"groups": (3,)}, "one number for each"),
        ({"widths": (), "groups": (), "blocks": ()}, "one number for each"),
        ({"groups": (5, 2)}, "groups must divide"),
        ({"kernel": 2}, "kernel must be an odd number"),
        ({"filter_taps": 3}, "filter_taps must be an even number"),
        ({"embed_features": 0}, "must both be 0"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(ModelError, match=message):
        dataclasses.replace(SMALL, **changes)


BLOCK = "Model.MainLayers.1.Layers.1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(f"{BLOCK}.NonLinearity1.Bias"), r"tensors are missing: stages\.1\.blocks\.0\.bias1"),
        (lambda state: state.update({f"{BLOCK}.x": torch.ones(1)}), "that an R3GAN has not"),
        (lambda state: state.update({"Model.EmbeddingLayer.weight": torch.ones(6, 3)}), "z_dim must be"),
        (lambda state: [state.pop(key) for key in list(state) if ".Layers.1." in key], "blocks are missing|damaged"),
        (lambda state: state.update({f"{BLOCK}.NonLinearity1.Bias": torch.full((12,), torch.nan)}), "not finite"),
        (lambda state: state.update({"Model.AggregationLayer.Layer.weight": torch.ones(5, 4, 1, 1)}), "image_channels"),
    ],
)
def test_damaged_state_dicts(tmp_path: Path, change, message):
    state = dict(weights("r3gan"))
    change(state)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(ModelError, match=f"cannot read .*({message})"):
        load_generator(tmp_path / "x.pt")


def test_settings_of_stylegan_are_refused():
    with pytest.raises(ModelError, match="an R3GAN takes no lr_multiplier and no conv_clamp"):
        load_generator(DATA / "r3gan.pkl", lr_multiplier=0.01)
