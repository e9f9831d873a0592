from __future__ import annotations

import pytest
import torch
from torch import Tensor

from energyql.errors import ModelError
from energyql.generators.checkpoints.assemble import assemble, channel_rule
from energyql.generators.load import read_checkpoint
from generators.checkpoints.writer import DATA


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return dict(read_checkpoint(DATA / "ada_conditional.pkl").network.tensors)


@pytest.mark.parametrize("base", [100, 2048, 16384, 32768])
@pytest.mark.parametrize("largest", [8, 512])
def test_channel_rule(base: int, largest: int) -> None:
    channels = {2**i: min(base // 2**i, largest) for i in range(2, 7)}
    found_base, found_largest = channel_rule(channels)
    assert {side: min(found_base // side, found_largest) for side in channels} == channels


def test_channels_without_a_rule() -> None:
    with pytest.raises(ModelError, match="4x4: 8, 8x8: 16"):
        channel_rule({4: 8, 8: 16})
    with pytest.raises(ModelError):
        channel_rule({4: 512, 8: 512, 16: 1024})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("synthesis.b4.const", None, "no complete StyleGAN"),
        ("synthesis.b4.const", torch.ones(3), r"has the shape \(3,\)"),
        ("synthesis.b8.conv1.bias", None, r"missing: synthesis\.b8\.conv1\.bias"),
        (
            "synthesis.b8.conv1.bias",
            torch.ones(3),
            r"do not fit together: synthesis\.b8\.conv1\.bias \(3,\) instead of",
        ),
        ("synthesis.b16.torgb.weight", None, "no picture at 16x16"),
        ("synthesis.b16.skip.weight", torch.ones(1, 1, 1, 1), r"has not: synthesis\.b16\.skip"),
        ("synthesis.b8.extra", torch.ones(1), r"has not: synthesis\.b8\.extra"),
        ("synthesis.b64.conv0.weight", torch.ones(1, 1, 3, 3), "has not"),
        ("synthesis.b8.resample_filter", torch.ones(4, 4), "different resampling filters"),
        ("synthesis.b8.resample_filter", torch.ones(12), "different resampling filters"),
        ("synthesis.b8.resample_filter", torch.ones(4, 3), r"filter has the shape \(4, 3\)"),
        ("mapping.fc0.weight", None, r"no mapping\.fc0"),
        ("mapping.embed.weight", torch.ones(8, 2**17), "c_dim must be a whole number"),
        ("synthesis.b8.conv1.bias", torch.tensor([0.0, torch.nan]), "bias has numbers that are not finite"),
        ("synthesis.b8.conv1.bias", torch.ones(2, dtype=torch.bool), "bias holds bool, not floating-point numbers"),
    ],
)
def test_misfits(tensors: dict[str, Tensor], name: str, value: Tensor | None, message: str) -> None:
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    with pytest.raises(ModelError, match=message):
        assemble(tensors)


def test_mean_of_a_conditional_model(tensors: dict[str, Tensor]) -> None:
    del tensors["mapping.w_avg"]
    generator = assemble(tensors)
    z = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(1))
    w = generator.encode(z, condition=torch.eye(4).repeat(5000, 1))
    torch.testing.assert_close(generator.mapping.w_avg, w.mean(0), atol=0.1, rtol=0)
