"""Packed convolutions, filters and sums against plain torch operations."""

import pytest
import torch
import torch.nn.functional as F

from energyql.generators.convolution import add_to_each_, convolve, filter_each, packed_convolution
from energyql.numerics.linear import can_pack


def maps(*shape, dtype=torch.float32, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize(("inputs", "outputs", "side"), [(32, 32, 4), (48, 24, 16), (20, 7, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_convolution_is_the_convolution(inputs, outputs, side, up, dtype):
    x, weight = maps(5, inputs, side, side, dtype=dtype), maps(outputs, inputs, 3, 3, dtype=dtype, seed=1)
    packed = packed_convolution(weight, side, padding=1, up=up)
    if packed is None:
        supported = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        assert not can_pack(weight) or not supported
        return
    result = packed(x)
    assert result.dtype == dtype
    exact = convolve(x.double(), weight.double(), padding=1, up=up)
    atol = (1e-5 if dtype == torch.float32 else 0.04) * exact.abs().max().item()
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=atol)
    for i in range(5):  # a sample depends on itself alone, to the bit
        assert torch.equal(packed(x[i : i + 1]), result[i : i + 1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_what_cannot_be_packed(dtype):
    assert packed_convolution(torch.ones(4, 4, 3, 3, dtype=dtype), 8) is None


def test_a_filter_takes_every_channel_alone():
    x, kernel, bias = maps(2, 3, 9, 9), torch.rand(4, 4), torch.tensor([1.0, -2.0, 3.0])
    for channel in range(3):
        one = F.conv2d(x[:, channel : channel + 1], kernel[None, None], bias[channel : channel + 1], padding=1)
        torch.testing.assert_close(filter_each(x, kernel, bias)[:, channel : channel + 1], one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shape", [(8, 8), (1, 1, 8, 8)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_map_is_added_to_every_channel(dtype, batch, shape, layout):
    x, added = maps(batch, 5, 8, 8, dtype=dtype).contiguous(memory_format=layout), torch.randn(shape)
    expected = x + added.to(dtype)
    result = add_to_each_(x, added)
    assert result is x
    torch.testing.assert_close(result, expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_derivatives_in_forward_mode():
    x, weight = torch.randn(2, 3, 2, 2), torch.randn(4, 3, 1, 1)
    hessian = torch.func.hessian(lambda a: convolve(a, weight).square().sum())(x)
    assert torch.allclose(hessian, torch.func.hessian(lambda a: F.conv2d(a, weight).square().sum())(x), atol=1e-5)
    _, slope = torch.func.jvp(lambda w: convolve(x, w), (weight,), (weight,))
    assert torch.allclose(slope, F.conv2d(x, weight), atol=1e-5)
