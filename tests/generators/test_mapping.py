import pytest
import torch
from labelled import CHECKPOINTS

from energyql.errors import ArgumentError
from energyql.generators.base import condition_vector, encode_under
from energyql.generators.load import load_generator
from energyql.generators.mapping import FrozenMapping, FullyConnected, MappingNetwork, clamped, encoder
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from energyql.generators.stylegan3 import StyleGAN3Config
from energyql.numerics.pullback import Differentiable

SIZES = {"z_dim": 6, "w_dim": 5, "c_dim": 3, "mapping_layers": 2, "mapping_lr_multiplier": 0.1}


def test_clamping_spares_what_a_graph_needs():
    x = torch.tensor([-10.0, 0.0, 10.0])
    assert clamped(x, None) is x
    variable = x.clone().requires_grad_()
    assert clamped(variable, 1.5).tolist() == [-1.5, 0.0, 1.5]
    assert variable.tolist() == [-10.0, 0.0, 10.0]
    assert clamped(x, 1.5) is x
    assert x.tolist() == [-1.5, 0.0, 1.5]


@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_outputs_have_unit_variance_whatever_the_scale_of_the_parameters(lr_multiplier):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = FullyConnected(256, 512, lr_multiplier=lr_multiplier, bias=3.0)
        out = layer(torch.randn(64, 256))
    assert out.std().item() == pytest.approx(1, abs=0.1)
    assert out.mean().item() == pytest.approx(3, abs=0.1)
    assert layer.weight.std().item() == pytest.approx(1 / lr_multiplier, rel=0.1)


def test_both_configurations_make_one_network():
    second = MappingNetwork(StyleGAN2Config(resolution=8, **SIZES))
    third = MappingNetwork(StyleGAN3Config(resolution=8, **SIZES))
    assert list(second.state_dict()) == [
        "w_avg", "embed.weight", "embed.bias", "fc0.weight", "fc0.bias", "fc1.weight", "fc1.bias",
    ]  # fmt: skip
    third.load_state_dict(second.state_dict())
    z, condition = torch.randn(4, 6), torch.eye(3)[[0, 1, 2, 0]]
    assert torch.equal(second(z, 0.7, condition), third(z, 0.7, condition))


CLASSES = 3


def network(c_dim=0, layers=3, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = StyleGAN2Config(resolution=8, z_dim=6, w_dim=5, c_dim=c_dim, mapping_layers=layers)
        mapping = MappingNetwork(config)
        with torch.no_grad():
            for name, tensor in (*mapping.named_parameters(), *mapping.named_buffers()):
                tensor.normal_()
                if name.startswith("fc"):
                    tensor /= config.mapping_lr_multiplier
    return mapping.to(dtype)


def latents(batch=4):
    return torch.randn(batch, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("condition", [None, torch.eye(CLASSES)[1], torch.tensor([0.5, -1.0, 2.0])])
@pytest.mark.parametrize("truncation", [1.0, 0.7, 0.0, -0.5])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_frozen_mapping_equals_the_network(condition, truncation, layers):
    mapping = network(CLASSES if condition is not None else 0, layers)
    z = latents().requires_grad_()
    w = mapping(z, truncation, None if condition is None else condition.expand(4, CLASSES))
    grad = torch.randn(w.shape, dtype=w.dtype, generator=torch.Generator().manual_seed(2))
    (expected,) = torch.autograd.grad(w, z, grad)

    prepared = FrozenMapping(mapping, truncation, condition)
    torch.testing.assert_close(prepared(z), w)
    torch.testing.assert_close(torch.autograd.grad(prepared(z), z, grad)[0], expected)
    value, back = prepared.pullback(z.detach())
    torch.testing.assert_close(value, w)
    torch.testing.assert_close(back(grad.clone()), expected)
    assert not value.requires_grad
    assert isinstance(prepared, Differentiable)


def test_in_float32_and_in_batches_of_any_size():
    single, exact = FrozenMapping(network(dtype=torch.float32), 0.7), FrozenMapping(network(), 0.7)
    for batch in (0, 1, 40):
        z = latents(batch)
        value, back = single.pullback(z.float())
        expected, exact_back = exact.pullback(z)
        torch.testing.assert_close(value, expected.float(), rtol=1e-5, atol=1e-5)
        ones = torch.ones(batch, 5)
        torch.testing.assert_close(back(ones.clone()), exact_back(ones.double()).float(), rtol=1e-5, atol=1e-5)


def test_a_mapping_made_in_inference_mode_has_gradients():
    with torch.inference_mode():
        prepared = FrozenMapping(network(CLASSES), 0.7, torch.eye(CLASSES)[0])
        prepared.pullback(latents())[1](torch.ones(4, 5, dtype=torch.float64))
    z = latents().requires_grad_()
    prepared(z).sum().backward()
    assert z.grad.isfinite().all()


def test_a_frozen_mapping_copies_the_parameters():
    mapping = network()
    prepared, before = FrozenMapping(mapping), mapping(latents()).detach()
    with torch.no_grad():
        for parameter in mapping.parameters():
            parameter.zero_()
    torch.testing.assert_close(prepared(latents()), before)


@pytest.mark.parametrize(
    ("classes", "condition", "message"),
    [
        (CLASSES, None, r"of 3 classes takes a condition of shape \((1|4), 3\), not None"),
        (0, torch.ones(3), "has no classes, so it takes no condition"),
        (CLASSES, torch.ones(2), r"condition of shape \((1|4), 3\), not"),
        (CLASSES, torch.tensor(1), r"condition of shape \((1|4), 3\), not"),
    ],
)
def test_labels_that_do_not_fit(classes, condition, message):
    mapping = network(classes)
    with pytest.raises(ArgumentError, match=message):
        FrozenMapping(mapping, 1.0, condition)
    with pytest.raises(ArgumentError, match=message):
        mapping(latents(), 1.0, None if condition is None else condition.expand(4, *condition.shape))


SMALL = StyleGAN2Config(resolution=8, z_dim=6, w_dim=5, mapping_layers=2, channel_max=4)


@pytest.mark.parametrize(
    ("name", "condition"),
    [("ada.pkl", None), ("ada_conditional.pkl", 1), ("stylegan3-t.pkl", None), ("stylegan3-t-conditional.pkl", 0)],
)
def test_the_encoder_of_a_stylegan_is_a_frozen_mapping(name, condition):
    generator = load_generator(CHECKPOINTS / name)
    vector = condition_vector(condition, generator)
    encode = encoder(generator, 0.7, vector)
    z = torch.randn(3, generator.z_dim, generator=torch.Generator().manual_seed(0))
    assert isinstance(encode, FrozenMapping)
    torch.testing.assert_close(encode(z), encode_under(generator, z, 0.7, vector), rtol=1e-5, atol=1e-5)


class Other(StyleGAN2):
    def encode(self, z, truncation=1.0, condition=None):
        return 2 * super().encode(z, truncation, condition)


def test_an_encode_of_ones_own_is_called():
    generator, z = Other(SMALL), torch.randn(3, 6)
    assert torch.equal(encoder(generator, 0.7)(z), generator.encode(z, 0.7))
    plain = StyleGAN2(SMALL)
    plain.encode = lambda z, truncation: truncation * z
    assert torch.equal(encoder(plain, 0.5)(z), 0.5 * z)


def test_a_mapping_network_of_ones_own_is_called():
    generator, z = StyleGAN2(SMALL), torch.randn(3, 6)
    generator.mapping = torch.nn.Identity()
    generator.mapping.forward = lambda z, truncation, condition: 3 * truncation * z
    assert torch.equal(encoder(generator, 0.5)(z), 1.5 * z)
