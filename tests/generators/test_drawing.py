"""Prepared constants, scaled weights and scaled activations: the same pictures in every way of drawing them."""

import copy
import pickle

import pytest
import torch
from toys import random_generator

from energyql.generators.base import synthesizer
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config
from energyql.models import model_folder
from energyql.pipeline.model import load_model

WIDE = StyleGAN2Config(resolution=64, z_dim=6, w_dim=10, mapping_layers=3, channel_base=1024, channel_max=40)
"""Small maps have less numbers than the weights, and large maps more."""


@pytest.fixture
def generator():
    return random_generator(WIDE)


def w_of(generator, batch=3):
    return generator.encode(torch.randn(batch, generator.z_dim, generator=torch.Generator().manual_seed(1)))


def by_autograd(generator, w):
    """The picture by the way that has a gradient: nothing is packed, all samples in one batch."""
    with torch.enable_grad():
        return generator.synthesize(w.clone().requires_grad_()).detach()


def stylegan3(kernel):
    torch.manual_seed(0)
    config = StyleGAN3Config(
        resolution=32, z_dim=6, w_dim=10, channel_base=512, channel_max=24, conv_kernel=kernel,
        use_radial_filters=kernel == 1, num_layers=6, num_critical=2,
    )  # fmt: skip
    return StyleGAN3(config).eval().requires_grad_(False)


@pytest.mark.parametrize("make", [lambda: random_generator(WIDE), lambda: stylegan3(3), lambda: stylegan3(1)])
class TestEveryWay:
    def test_with_and_without_a_graph(self, make):
        generator = make()
        w = w_of(generator)
        torch.testing.assert_close(generator.synthesize(w), by_autograd(generator, w), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_picture_has_the_same_bits_in_every_batch(self, make, dtype):
        generator = make()
        w = w_of(generator, 11)
        together = generator.synthesize(w, dtype=dtype)
        for size in (1, 2, 8):
            parts = torch.cat([generator.synthesize(part, dtype=dtype) for part in w.split(size)])
            assert torch.equal(parts, together)

    def test_an_empty_batch_gives_no_pictures(self, make):
        generator = make()
        side = generator.config.resolution
        assert generator.synthesize(w_of(generator)[:0]).shape == (0, 3, side, side)

    def test_feature_maps_in_bfloat16(self, make):
        generator = make()
        w = w_of(generator)
        exact, image = generator.synthesize(w), generator.synthesize(w, dtype=torch.bfloat16)
        assert image.dtype == torch.float32
        assert 0 < (image - exact).abs().mean() < 0.02 * exact.std()

    def test_inference_mode_first_and_a_gradient_later(self, make):
        generator = make()
        w = w_of(generator)
        with torch.inference_mode():
            before = generator.synthesize(w)
        variable = w.clone().requires_grad_()
        image = generator.synthesize(variable)
        image.sum().backward()
        assert variable.grad.abs().sum() > 0
        torch.testing.assert_close(image.detach(), before, rtol=0, atol=1e-4)


class TestConstantsAreNeverStale:
    @pytest.mark.parametrize("name", ["b4.conv1", "b8.conv0", "b64.conv0", "b64.conv1"])
    @pytest.mark.parametrize("how", ["in place", "data", "replaced", "one number", "loaded"])
    def test_a_weight_changes(self, generator, name, how):
        w = w_of(generator)
        before = generator.synthesize(w)
        weight = generator.synthesis.get_submodule(name).conv.weight
        if how == "in place":
            weight.mul_(torch.linspace(0.5, 2, weight.shape[1])[:, None, None])
        elif how == "data":  # as most training loops do for moving averages; PyTorch's version does not count it
            weight.data.mul_(torch.linspace(0.5, 2, weight.shape[1])[:, None, None])
        elif how == "replaced":
            weight.data = weight.data.flip(1)
        elif how == "one number":
            weight[0, 0, 0, 0] += 5
        else:
            other = {key: value.roll(1, 0) for key, value in generator.state_dict().items() if "weight" in key}
            generator.load_state_dict(other, strict=False)
        after = generator.synthesize(w)
        assert not torch.equal(before, after)
        torch.testing.assert_close(after, by_autograd(generator, w), rtol=0, atol=1e-4)

    def test_pictures_in_float64_and_in_float32_again(self, generator):
        w = w_of(generator)
        before = generator.synthesize(w)
        wide = generator.double().synthesize(w.double())
        torch.testing.assert_close(wide.float(), before, rtol=0, atol=1e-4)
        assert torch.equal(generator.float().synthesize(w), before)

    def test_pictures_follow_the_weights_in_training(self, generator):
        """Pictures between the steps of an optimizer are those of the present weights."""
        generator.requires_grad_(True)
        optimizer = torch.optim.SGD(generator.synthesis.parameters(), lr=1e-3)
        w = w_of(generator).detach()
        for _ in range(2):
            with torch.no_grad():
                drawn = generator.synthesize(w)
            torch.testing.assert_close(drawn, generator.synthesize(w).detach(), rtol=0, atol=1e-4)
            optimizer.zero_grad()
            generator.synthesize(w).square().mean().backward()
            optimizer.step()

    @pytest.mark.parametrize("again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
    def test_copies(self, generator, again):
        w = w_of(generator)
        before = generator.synthesize(w)
        other = again(generator)
        assert torch.equal(other.synthesize(w), before)
        other.synthesis.b8.conv0.conv.weight.mul_(torch.linspace(0.5, 2, 40)[:, None, None])
        assert not torch.equal(other.synthesize(w), before)
        assert torch.equal(generator.synthesize(w), before)

    def test_weights_of_inference_mode(self):
        with torch.inference_mode():
            generator = random_generator(WIDE)
            w = w_of(generator)
            before = generator.synthesize(w)
            generator.synthesis.b8.conv0.conv.weight.mul_(torch.linspace(0.5, 2, 40)[:, None, None])
            assert not torch.equal(generator.synthesize(w), before)


class TestSynthesizer:
    def test_a_stylegan_draws_in_the_precision_asked_for(self, generator):
        w = w_of(generator)
        assert torch.equal(synthesizer(generator, torch.float32)(w), generator.synthesize(w))
        lower = synthesizer(generator, torch.bfloat16)(w)
        assert torch.equal(lower, generator.synthesize(w, dtype=torch.bfloat16))
        assert not torch.equal(lower, generator.synthesize(w))

    def test_any_other_generator_draws_in_its_own_precision(self, generator):
        class Own:
            def synthesize(self, w):
                return w.double()

        assert synthesizer(Own(), torch.bfloat16)(torch.ones(2, 3)).dtype == torch.float64

    def test_pictures_of_avatars_in_bfloat16(self):
        generator = load_model(model_folder("avatars")).generator
        assert isinstance(generator, StyleGAN2)
        w = w_of(generator, 8)
        exact, lower = (generator.synthesize(w, dtype=dtype).clamp(-1, 1) for dtype in (torch.float32, torch.bfloat16))
        decibels = 10 * (4 / (lower - exact).square().mean((1, 2, 3))).log10()
        assert decibels.min() > 45
