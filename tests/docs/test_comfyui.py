"""The nodes for ComfyUI, called as ComfyUI calls them, with a guider and a VAE of a few lines."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from energyql.attributes.judge import Convolutions, Judge
from energyql.errors import UnknownAttribute
from energyql.vocabulary import AttributeSpec, Vocabulary

ROOT = Path(__file__).parents[2]
KNOWN = Vocabulary([AttributeSpec("red", "yes/no"), AttributeSpec("green", "yes/no")])


@pytest.fixture(scope="module")
def nodes():
    spec = importlib.util.spec_from_file_location("comfyui_nodes", ROOT / "examples/comfyui/__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """A folder with two networks that see whether a picture is more red or green than grey; one wants a little more."""
    folder = tmp_path_factory.mktemp("readers")
    for name, channels, offset in (("guide", 16, 0.5), ("judge", 12, 0.4)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(channels)
            judge = Judge(KNOWN, Convolutions(8, (channels,))).eval()
        pictures = torch.stack([torch.full((3, 8, 8), -0.2).index_fill(0, torch.tensor([i]), 1.0) for i in range(3)])
        grid = torch.rand(400, 3, 1, 1, generator=torch.Generator().manual_seed(1)).mul(2).sub(1).expand(-1, -1, 8, 8)
        with torch.no_grad():
            features = judge.features(torch.cat([grid, pictures]))
            ones = torch.cat([features, torch.ones(len(features), 1)], 1).double()
            seen = torch.cat([grid, pictures]).mean((2, 3))[:, :2].double()
            # Features of places are nearly equal: only the solution of least norm is the same on all processors.
            solved = torch.linalg.lstsq(ones, 12 * (seen - offset), rcond=1e-5, driver="gelsd").solution
            assert (ones @ solved - 12 * (seen - offset)).abs().max() < 0.1
            judge.head.weight.copy_(solved[:-1].T)
            judge.head.bias.copy_(solved[-1])
        judge.save(folder, name)
    return folder


class Guider:
    """As ComfyUI's guiders: from noise to samples."""

    def __init__(self):
        self.calls = []

    def sample(
        self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None
    ):
        assert noise.shape == latent_image.shape == (1, 4, 2, 2)
        assert (sampler, sigmas) == ("euler", "sigmas")
        self.calls.append(seed)
        return torch.tanh(noise)


class VAE:
    """As ComfyUI's VAEs: from samples to pictures (batch, height, width, 3) in [0, 1]."""

    def decode(self, samples):
        colour = samples.mean((2, 3))[:, :3] + 0.5
        return colour.clamp(0, 1)[:, None, None].expand(-1, 8, 8, -1)


def call(node, **inputs):
    """Call a node as ComfyUI does: by the name in FUNCTION, with inputs that INPUT_TYPES names."""
    required = node.INPUT_TYPES()["required"]
    assert required.keys() == inputs.keys()
    outputs = getattr(node(), node.FUNCTION)(**inputs)
    assert len(outputs) == len(node.RETURN_TYPES)
    return outputs


def noise_of(nodes, readers, query="red AND NOT green", batch=2, guider=None):
    latent = {"samples": torch.zeros(batch, 4, 2, 2)}
    (noise,) = call(
        nodes.NODE_CLASS_MAPPINGS["EnergyQLNoise"], guider=guider or Guider(), sampler="euler", sigmas="sigmas",
        latent_image=latent, vae=VAE(), query=query, readers=str(readers), seed=7,
    )  # fmt: skip
    return noise, latent


def test_the_interface_of_nodes(nodes):
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for node in nodes.NODE_CLASS_MAPPINGS.values():
        assert node.CATEGORY == "energyql"
        assert callable(getattr(node, node.FUNCTION))
        for kind, *options in node.INPUT_TYPES()["required"].values():
            assert kind.isupper()
            assert all(isinstance(option, dict) for option in options)
    assert nodes.NODE_CLASS_MAPPINGS["EnergyQLNoise"].RETURN_TYPES == ("NOISE",)


def test_noise_of_a_query_and_its_judge(nodes, readers):
    guider = Guider()
    noise, latent = noise_of(nodes, readers, guider=guider, batch=3)
    assert noise.seed == 7
    drawn = noise.generate_noise(latent)
    assert drawn.shape == (3, 4, 2, 2)
    assert drawn.dtype == torch.float32
    assert set(guider.calls) == {7}
    images = VAE().decode(torch.tanh(drawn))
    assert ((images[:, 0, 0, 0] > 0.7) & (images[:, 0, 0, 1] < 0.8)).all()
    verdicts, good = call(
        nodes.NODE_CLASS_MAPPINGS["EnergyQLJudge"], images=torch.cat([images, torch.zeros(1, 8, 8, 3)]),
        query="red AND NOT green", readers=str(readers),
    )  # fmt: skip
    assert [row["satisfied"] for row in json.loads(verdicts)] == [True, True, True, False]
    assert json.loads(verdicts)[3]["red"] is False
    assert torch.equal(good, images)


def test_a_picture_depends_on_the_seed_and_its_number_alone(nodes, readers):
    noise, latent = noise_of(nodes, readers, batch=3)
    one = noise.generate_noise({"samples": latent["samples"][:1]})
    assert torch.equal(one, noise.generate_noise(latent)[:1])


def test_a_wrong_query_is_refused_when_the_node_runs(nodes, readers):
    with pytest.raises(UnknownAttribute, match="rad"):
        noise_of(nodes, readers, query="rad")
