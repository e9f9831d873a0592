import pytest
import torch

from energyql.errors import ArgumentError
from energyql.generators.frozen import FrozenMapping
from energyql.generators.layers import MappingNetwork
from energyql.generators.stylegan2 import StyleGAN2Config
from energyql.numerics.pullback import Differentiable

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


@pytest.mark.parametrize("label", [None, torch.eye(CLASSES)[1], torch.tensor([0.5, -1.0, 2.0])])
@pytest.mark.parametrize("truncation", [1.0, 0.7, 0.0, -0.5])
@pytest.mark.parametrize("layers", [1, 3])
def test_equal_to_the_network(label, truncation, layers):
    mapping = network(CLASSES if label is not None else 0, layers)
    z = latents().requires_grad_()
    w = mapping(z, truncation, None if label is None else label.expand(4, CLASSES))
    grad = torch.randn(w.shape, dtype=w.dtype, generator=torch.Generator().manual_seed(2))
    (expected,) = torch.autograd.grad(w, z, grad)

    prepared = FrozenMapping(mapping, truncation, label)
    torch.testing.assert_close(prepared(z), w)
    torch.testing.assert_close(torch.autograd.grad(prepared(z), z, grad)[0], expected)
    value, back = prepared.pullback(z.detach())
    torch.testing.assert_close(value, w)
    torch.testing.assert_close(back(grad.clone()), expected)
    assert not value.requires_grad
    assert isinstance(prepared, Differentiable)


def test_against_finite_differences():
    prepared, z = FrozenMapping(network(), 0.7), latents()
    grad = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    step = torch.zeros_like(z)
    columns = []
    for j in range(z.shape[1]):
        step.zero_()[:, j] = 1e-6
        columns.append(((prepared(z + step) - prepared(z - step)) * grad).sum(1) / 2e-6)
    torch.testing.assert_close(prepared.pullback(z)[1](grad), torch.stack(columns, 1), rtol=1e-6, atol=1e-6)


def test_in_float32_and_in_batches_of_any_size():
    single, exact = FrozenMapping(network(dtype=torch.float32), 0.7), FrozenMapping(network(), 0.7)
    for batch in (0, 1, 40):
        z = latents(batch)
        value, back = single.pullback(z.float())
        expected, exact_back = exact.pullback(z)
        torch.testing.assert_close(value, expected.float(), rtol=1e-5, atol=1e-5)
        ones = torch.ones(batch, 5)
        torch.testing.assert_close(back(ones.clone()), exact_back(ones.double()).float(), rtol=1e-5, atol=1e-5)


def test_made_in_inference_mode_it_serves_gradients():
    with torch.inference_mode():
        prepared = FrozenMapping(network(CLASSES), 0.7, torch.eye(CLASSES)[0])
        prepared.pullback(latents())[1](torch.ones(4, 5, dtype=torch.float64))
    z = latents().requires_grad_()
    prepared(z).sum().backward()
    assert z.grad.isfinite().all()


def test_it_keeps_the_parameters_it_was_made_of():
    mapping = network()
    prepared, before = FrozenMapping(mapping), mapping(latents()).detach()
    with torch.no_grad():
        for parameter in mapping.parameters():
            parameter.zero_()
    torch.testing.assert_close(prepared(latents()), before)


@pytest.mark.parametrize(
    ("classes", "label", "message"),
    [
        (CLASSES, None, "conditional on 3 classes: give a label"),
        (0, torch.ones(3), "has no classes"),
        (CLASSES, torch.ones(2), r"label must have shape \(1, 3\)"),
    ],
)
def test_labels_that_do_not_fit(classes, label, message):
    with pytest.raises(ArgumentError, match=message):
        FrozenMapping(network(classes), 1.0, label)
