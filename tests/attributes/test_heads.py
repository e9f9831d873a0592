import dataclasses
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from energyql.attributes.heads import FusedHeads, Head
from energyql.errors import ModelError
from energyql.numerics.linear import Dense, DenseStack
from energyql.numerics.pullback import Differentiable

DIM = 6


def head(outputs, widths=(5,), seed=0, *, skip=True):
    random = torch.Generator().manual_seed(seed)

    def matrix(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    layers = [(matrix(b, a), matrix(b)) for a, b in pairwise([DIM, *widths])]
    path = matrix(outputs, DIM) if skip else torch.zeros(outputs, DIM, dtype=torch.float64)
    out = matrix(outputs, widths[-1])
    return Head(*layers[0], out, path, matrix(outputs), torch.tensor(1.0), tuple(layers[1:]))


def converted(head, dtype):
    return Head.from_tensors({name: tensor.to(dtype) for name, tensor in head.tensors().items()})


def alone(head, x):
    h = x
    for weight, bias in ((head.hidden_weight, head.hidden_bias), *head.deeper):
        h = F.leaky_relu(h @ weight.T + bias, 0.2)
    return h @ head.out_weight.T + x @ head.skip_weight.T + head.out_bias


def latents(count=7):
    return torch.randn(count, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


CASES = {
    "one": [head(1)],
    "one hidden layer": [head(1), head(3, (4,), 1), head(1, (2,), 2)],
    "linear": [head(2, (0,))],
    "constant": [head(2, (0,), skip=False)],
    "one deep": [head(2, (5, 4, 3))],
    "equal widths": [head(1, (5, 4, 3)), head(3, (5, 4, 3), 1), head(1, (5, 4, 3), 2)],
    "two widths": [head(2, (5, 4)), head(1, (4, 4), 1), head(3, (5, 4), 2), head(1, (4, 4), 3)],
    "no linear path": [head(1, (5, 4), skip=False), head(2, (5, 4), 1, skip=False)],
    "all sorts": [head(1), head(2, (3,), 1), head(1, (2, 2), 2), head(3, (0,)), head(2, (4, 3, 2), 4, skip=False)],
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def heads(request):
    return request.param


def expected(heads, x):
    return torch.cat([alone(one, x) for one in heads], 1)


def test_a_direction_is_read_without_its_length(heads):
    x = latents().requires_grad_()
    fused = FusedHeads.of(heads, direction=True)
    scaled = x * (DIM**0.5 / x.norm(dim=1, keepdim=True))
    torch.testing.assert_close(fused(3 * x), expected(heads, scaled), rtol=1e-6, atol=1e-6)
    value, back = fused.pullback(x.detach())
    grad = torch.randn(value.shape, dtype=value.dtype, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(value, fused(x))
    torch.testing.assert_close(back(grad.clone()), torch.autograd.grad(fused(x), x, grad)[0])
    mapped = fused.then(torch.ones(1, value.shape[1], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(mapped(x), fused(x).sum(1, keepdim=True))


def test_together_as_alone(heads):
    x = latents().requires_grad_()
    together, apart = FusedHeads.of(heads)(x), expected(heads, x)
    torch.testing.assert_close(together, apart)
    if apart.requires_grad and together.requires_grad:
        ours, theirs = (torch.autograd.grad(outputs.square().sum(), x)[0] for outputs in (together, apart))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_the_pullback_is_autograds(heads, batch):
    x = latents(batch).requires_grad_()
    apart = expected(heads, x)
    grad = torch.randn(apart.shape, dtype=apart.dtype, generator=torch.Generator().manual_seed(2))
    fused, kept = FusedHeads.of(heads), x.detach().clone()
    value, back = fused.pullback(x.detach())
    torch.testing.assert_close(value, apart)
    torch.testing.assert_close(back(grad.clone()), torch.autograd.grad(apart, x, grad)[0])
    assert torch.equal(x, kept)
    assert isinstance(fused, Differentiable)


def test_the_pullback_in_float32(heads):
    single = [converted(one, torch.float32) for one in heads]
    x = latents()
    apart, grad = expected(heads, x), torch.ones(7, sum(len(one.out_bias) for one in heads))
    value, back = FusedHeads.of(single).pullback(x.float())
    _, exact = FusedHeads.of(heads).pullback(x)
    torch.testing.assert_close(value, apart.float(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(back(grad), exact(grad.double()).float(), rtol=1e-5, atol=1e-4)


def test_a_linear_map_after_the_heads(heads):
    fused, x = FusedHeads.of(heads), latents()
    random = torch.Generator().manual_seed(3)
    matrix = torch.randn(4, len(fused.bias), dtype=torch.float64, generator=random)
    offset = torch.tensor([0.0, 1.0, -2.0, 3.0], dtype=torch.float64)
    mapped = fused.then(matrix, offset)
    torch.testing.assert_close(mapped(x), fused(x) @ matrix.T + offset)
    grad = torch.randn(7, 4, dtype=torch.float64, generator=random)
    torch.testing.assert_close(mapped.pullback(x)[1](grad), fused.pullback(x)[1](grad @ matrix))
    torch.testing.assert_close(fused(x), expected(heads, x))


def test_a_row_that_is_infinite_takes_nothing_from_the_others():
    fused, x = FusedHeads.of(CASES["one hidden layer"]), latents()
    matrix = torch.zeros(2, len(fused.bias), dtype=torch.float64)
    matrix[0, 0] = 1.0
    value, back = fused.then(matrix, torch.tensor([0.0, -torch.inf], dtype=torch.float64)).pullback(x)
    torch.testing.assert_close(value[:, 0], fused(x)[:, 0])
    assert (value[:, 1] == -torch.inf).all()
    grad = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(7, 2).contiguous()
    assert back(grad).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_heads_of_equal_widths_take_few_products(dtype, monkeypatch):
    calls = []
    for layer in (Dense, DenseStack):
        real = layer.__call__
        monkeypatch.setattr(layer, "__call__", lambda self, x, real=real: calls.append(type(self)) or real(self, x))
    FusedHeads.of([converted(head(1, (5, 4, 3), i), dtype) for i in range(12)])(latents().to(dtype))
    assert calls[:3] == [Dense, Dense, DenseStack]  # the linear paths are a network too
    assert calls.count(DenseStack) == 2
    calls.clear()
    FusedHeads.of([converted(head(1, (5,), i), dtype) for i in range(12)])(latents().to(dtype))
    assert calls == [Dense]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deeper": ((torch.zeros(4, 6), torch.zeros(4)),)}, r"deeper0_weight has shape \(4, 6\), not \(4, 5\)"),
        ({"deeper": ((torch.zeros(4, 5), torch.zeros(3)),)}, r"deeper0_weight has shape \(4, 5\), not \(3, 5\)"),
        ({"deeper": ((torch.zeros(4, 5), torch.zeros(())),)}, "deeper0"),
        ({"deeper": ()}, r"out_weight has shape \(1, 3\), not \(1, 5\)"),
    ],
)
def test_layers_that_do_not_fit(change, message):
    with pytest.raises(ModelError, match=f"the head of 'smile': {message}"):
        dataclasses.replace(head(1, (5, 4, 3)), **change).check("smile", 1, DIM)
