import pytest
import torch
import torch.nn.functional as F

from energyql import dense
from energyql.dense import Dense, DenseStack, Linear
from energyql.energy.batches import SIZES

SLOPE = 0.2
TYPES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}
"""What layers compute in, and how far off a number of size 1 may be."""
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")


def matrix(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer(networks, inputs=12, outputs=9):
    """A layer, and what it should compute from (networks, batch, in) in float64."""
    weight, bias = matrix(networks, outputs, inputs) / inputs**0.5, matrix(networks, 1, outputs, seed=1)

    def expected(x):
        return F.leaky_relu(x @ weight.transpose(1, 2) + bias, SLOPE)

    return weight, bias, expected


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def packed(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(dense._Packed, "of", staticmethod(lambda *parameters: None))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.usefixtures("packed")
def test_value_and_way_back(dtype, networks, batch):
    weight, bias, expected = layer(networks)
    x = matrix(networks, batch, 12, seed=2).to(dtype)
    exact = x.double().clone().requires_grad_()
    value, pull = expected(exact), matrix(networks, batch, 9, seed=3).to(dtype)
    (gradient,) = torch.autograd.grad(value, exact, pull.double())
    tolerance = {"rtol": TYPES[dtype], "atol": TYPES[dtype] * 3}

    stack = DenseStack(weight, bias, SLOPE).computed_in(dtype)
    found = stack(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), value.detach(), **tolerance)
    torch.testing.assert_close(stack.back_through(pull.clone(), found).double(), gradient, **tolerance)

    one = Dense(weight[0], bias[0, 0], SLOPE).computed_in(dtype)
    torch.testing.assert_close(one(x[0]).double(), value[0].detach(), **tolerance)
    torch.testing.assert_close(one.back_through(pull[0].clone(), found[0]).double(), gradient[0], **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("packed")
def test_autograd_finds_its_way_through(dtype):
    weight, bias, expected = layer(3)
    exact = matrix(3, 5, 12, seed=2).to(dtype).double().requires_grad_()
    (gradient,) = torch.autograd.grad(expected(exact).sum(), exact)
    for network in (DenseStack(weight, bias, SLOPE), Dense(weight[1], bias[1, 0], SLOPE)):
        computed, of = network.computed_in(dtype), slice(None) if isinstance(network, DenseStack) else 1
        x = exact.detach().to(dtype).requires_grad_()
        computed(x[of]).sum().backward()
        torch.testing.assert_close(x.grad[of].double(), gradient[of], rtol=TYPES[dtype], atol=TYPES[dtype])
        with torch.no_grad():
            assert not computed(x[of]).requires_grad
        with torch.inference_mode():
            computed(x[of])
        (again,) = torch.autograd.grad(computed(x[of]).sum(), x)
        torch.testing.assert_close(again, x.grad)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.usefixtures("packed")
def test_without_bias_and_activation(dtype):
    weight, x, pull = (matrix(*shape).to(dtype) for shape in ((9, 12), (5, 12), (5, 9)))
    linear, tolerance = Linear(weight), {"rtol": TYPES[dtype], "atol": TYPES[dtype] * 9}
    torch.testing.assert_close(linear(x).double(), x.double() @ weight.double().T, **tolerance)
    torch.testing.assert_close(linear.back(pull).double(), pull.double() @ weight.double(), **tolerance)
    x.requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(linear(x), x, pull)[0], linear.back(pull), **tolerance)


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_in_every_batch(dtype):
    weight, bias, _ = layer(2, 96, 80)
    stack, one = (
        network.computed_in(dtype) for network in (DenseStack(weight, bias, SLOPE), Dense(weight[0], bias[0, 0], SLOPE))
    )
    x = matrix(2, SIZES[-1], 96, seed=2).to(dtype)
    whole, alone = stack(x), one(x[0])
    back, back_alone = stack.back_through(whole.clone(), whole), one.back_through(alone.clone(), alone)
    for count in SIZES:
        rows = stack(x[:, -count:])
        assert torch.equal(rows, whole[:, -count:])
        assert torch.equal(one(x[0, -count:]), alone[-count:])
        assert torch.equal(stack.back_through(rows.clone(), rows), back[:, -count:])
        assert torch.equal(one.back_through(alone[-count:].clone(), alone[-count:]), back_alone[-count:])


@needs_onednn
def test_packed_where_it_can_be():
    weight, bias, _ = layer(2)
    for dtype, is_packed in ((torch.float32, True), (torch.float64, False)):
        one = Dense(weight[0], bias[0, 0], SLOPE).computed_in(dtype)
        assert (one._forward is not None, one._backward is not None) == (is_packed, is_packed)
    assert Dense(weight[0, :0], bias[0, 0, :0], SLOPE).computed_in(torch.float32)(torch.ones(4, 12)).shape == (4, 0)
