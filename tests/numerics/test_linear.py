import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from energyql.errors import ArgumentError
from energyql.numerics import linear as dense
from energyql.numerics.linear import BATCH_SIZES, BLOCK, Dense, DenseStack, Linear, can_pack

SLOPE = 0.2
TYPES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}
"""What layers compute in, and how far off a number of size 1 may be."""
needs_packing = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available()
    or not can_pack(torch.ones(1, 1))
    or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"),
    reason="needs a processor of the x86 family, and a PyTorch with oneDNN and its products",
)
needs_bfloat16 = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="oneDNN has no products of bfloat16 for this processor",
)
PACKABLE = [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)]


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


@needs_packing
@pytest.mark.parametrize("dtype", PACKABLE)
@pytest.mark.parametrize("inputs", [12, 96, 512, 1500])
@pytest.mark.parametrize("blocks", [False, True], ids=["as-found", "blocks"])
def test_a_row_is_the_same_in_every_batch(dtype, inputs, blocks, monkeypatch):
    if blocks:
        monkeypatch.setattr(dense, "sizes_alike", lambda *_: (BLOCK,))
    weight, bias, _ = layer(2, inputs, 80)
    stack, one = (
        network.computed_in(dtype) for network in (DenseStack(weight, bias, SLOPE), Dense(weight[0], bias[0, 0], SLOPE))
    )
    x = matrix(2, BATCH_SIZES[-1], inputs, seed=2).to(dtype)
    whole, alone = stack(x), one(x[0])
    back, back_alone = stack.back_through(whole.clone(), whole), one.back_through(alone.clone(), alone)
    for count in (1, 2, 3, 5, 7, 100, *BATCH_SIZES):
        rows = stack(x[:, -count:])
        assert torch.equal(rows, whole[:, -count:])
        assert torch.equal(one(x[0, -count:]), alone[-count:])
        assert torch.equal(stack.back_through(rows.clone(), rows), back[:, -count:])
        assert torch.equal(one.back_through(alone[-count:].clone(), alone[-count:]), back_alone[-count:])


@needs_packing
def test_few_sizes_where_the_bits_of_a_row_depend_on_their_number(monkeypatch):
    monkeypatch.setattr(dense, "sizes_alike", lambda *_: (BLOCK, 96))
    one, sizes = Linear(matrix(9, 12).float()), []
    one(matrix(1, 12).float())
    run = one._forward._run
    one._forward._run = lambda x, *parameters: sizes.append(len(x)) or run(x, *parameters)
    for count in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 97):
        sizes.clear()
        assert one(matrix(count, 12).float()).shape == (count, 9)
        assert sizes == {0: [0], 65: [96], 97: [96, BLOCK]}.get(count, [BLOCK])


@needs_packing
@needs_bfloat16
@pytest.mark.parametrize("shape", [(512, 512), (1152, 512), (40, 96)])
def test_sizes_alike(shape):
    assert dense.sizes_alike(torch.float32, *shape, 1) == ()
    sizes = dense.sizes_alike(torch.bfloat16, *shape, torch.get_num_threads())
    assert not sizes or BLOCK in sizes
    assert all(size in BATCH_SIZES and size % BLOCK == 0 for size in sizes)
    one = Linear(matrix(*shape).bfloat16())
    x = matrix(BATCH_SIZES[-1], shape[1], seed=2).bfloat16()
    expected = torch.cat([one(rows) for rows in x.split(BLOCK)])
    for size in sizes or BATCH_SIZES:
        assert torch.equal(one._forward.run(x[:size]), expected[:size])


@needs_packing
@pytest.mark.parametrize("dtype", PACKABLE)
def test_packed_where_it_can_be(dtype, monkeypatch):
    calls = []
    run = dense._Packed.__call__
    monkeypatch.setattr(dense._Packed, "__call__", lambda self, x: calls.append(len(x)) or run(self, x))
    weight, bias, _ = layer(3)
    x = matrix(3, 4, 12, seed=2).to(dtype)
    for network, given in ((Dense(weight[0], bias[0, 0], SLOPE), x[0]), (DenseStack(weight, bias, SLOPE), x)):
        computed, products = network.computed_in(dtype), len(given) if given.ndim == 3 else 1
        computed.back_through(computed(given), computed(given))
        assert calls == [4] * products * 3
        calls.clear()
        exact = network.computed_in(torch.float64)
        exact.back_through(exact(given.double()), exact(given.double()))
        computed(given.clone().requires_grad_())
        assert calls == []
    assert Dense(weight[0, :0], bias[0, 0, :0], SLOPE).computed_in(dtype)(x[0]).shape == (4, 0)


@pytest.mark.usefixtures("packed")
def test_forward_derivatives():
    weight, bias, _ = layer(1)
    one, x, tangent = (
        Dense(weight[0].float(), bias[0, 0].float(), SLOPE),
        *(matrix(4, 12, seed=i).float() for i in (2, 3)),
    )
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch compiles something in a way of its own
        value, found = forward_ad.unpack_dual(one(forward_ad.make_dual(x, tangent)))
    torch.testing.assert_close(value, one(x))
    slopes = torch.where(value > 0, 1.0, SLOPE)
    torch.testing.assert_close(found, tangent @ weight[0].float().T * slopes)


@pytest.mark.usefixtures("packed")
def test_copies_and_pickles_after_use():
    weight, bias, _ = layer(2)
    x = matrix(2, 4, 12, seed=2).float()
    for network in (
        DenseStack(weight.float(), bias.float(), SLOPE),
        Dense(weight[0].float(), bias[0, 0].float(), SLOPE),
    ):
        given = x if isinstance(network, DenseStack) else x[0]
        value = network(given)
        network.back_through(value.clone(), value)
        for again in (copy.copy(network), copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            torch.testing.assert_close(again(given), value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_another_length(dtype):
    weight, bias, _ = layer(1)
    for network in (Dense(weight[0], bias[0, 0], SLOPE).computed_in(dtype), Linear(weight[0].to(dtype))):
        with pytest.raises(ArgumentError, match="latents have 12 numbers here, not 13"):
            network(torch.ones(2, 13, dtype=dtype))
