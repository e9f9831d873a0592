import pytest
import torch

from energyql.errors import ArgumentError
from energyql.numerics.pullback import Identity, by_autograd, leaky_relu_back_, pullback_of


def latents():
    return torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Doubled:
    """Says how often it is asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, x):
        return 2 * x

    def pullback(self, x):
        self.asked += 1
        return 2 * x, lambda grad: 2 * grad


def test_the_own_pullback_of_a_function_comes_first():
    function = Doubled()
    value, back = pullback_of(function)(latents())
    assert function.asked == 1
    assert torch.equal(value, 2 * latents())
    assert torch.equal(back(latents()), 2 * latents())


def test_any_other_function_is_differentiated():
    value, back = pullback_of(torch.sin)(latents())
    torch.testing.assert_close(value, latents().sin())
    torch.testing.assert_close(back(torch.ones_like(value)), latents().cos())
    assert not value.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_by_autograd_works_in_every_gradient_mode(mode):
    with mode():
        x = latents()
        value, back = by_autograd(torch.sin, x)
        grad = back(torch.ones_like(value))
    torch.testing.assert_close(grad.clone(), latents().cos())
    assert not x.requires_grad


def test_a_function_that_detaches_is_refused():
    with pytest.raises(ArgumentError, match="does not depend on z"):
        by_autograd(lambda x: x.detach() + 1, latents())


def test_identity():
    x = latents()
    value, back = pullback_of(Identity())(x)
    assert value is back(x) is Identity()(x) is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leaky_relu(dtype):
    x = torch.tensor([-2.0, -0.0, 0.0, 3.0], dtype=dtype, requires_grad=True)
    result = torch.nn.functional.leaky_relu(x, 0.2)
    grad = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=dtype)
    expected = torch.autograd.grad(result, x, grad)[0]
    assert leaky_relu_back_(grad, result.detach(), 0.2) is grad
    torch.testing.assert_close(grad, expected)
