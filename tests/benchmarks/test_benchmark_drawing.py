"""The benchmark of drawing, at its smallest: its rival draws the same pictures, and it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import random_generator

from benchmarks import drawing
from energyql.generators.stylegan2 import StyleGAN2Config
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config


@pytest.mark.parametrize("clamp", [None, 0.7])
def test_the_published_structure_draws_the_same_pictures(clamp: float | None) -> None:
    config = StyleGAN2Config(
        resolution=32, z_dim=6, w_dim=10, mapping_layers=2, channel_base=256, channel_max=12, conv_clamp=clamp
    )
    generator = random_generator(config)
    ws = torch.randn(3, config.num_ws, 10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawing.plain_pictures(generator, ws), generator.synthesize(ws), rtol=0, atol=1e-4)


def test_bare_convolutions_are_those_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    real = torch.nn.functional.conv2d

    def conv2d(x: torch.Tensor, weight: torch.Tensor, *rest: object, **options: object) -> torch.Tensor:
        if options.get("groups", 1) == 1 and weight.shape[-1] == 3:
            seen.append((x.shape[-1], *weight.shape))
        return real(x, weight, *rest, **options)  # type: ignore[call-overload,no-any-return]

    config = StyleGAN3Config(16, z_dim=4, w_dim=4, channel_base=128, channel_max=8, num_layers=4, num_critical=2)
    generator = StyleGAN3(config).eval().requires_grad_(False)
    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    bare = drawing.bare_convolutions(generator, 1)
    bare()
    of_bare, seen[:] = list(seen), []
    generator.double().synthesize(torch.randn(1, 4, dtype=torch.float64))  # nothing is packed in float64
    assert of_bare == seen


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.drawing", "--smoke", "--threads", "1", "--out", str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["rows"][0]
    assert row["network"] == "avatars"
    assert row["difference"] < 1e-4
    assert row["psnr"] > 45
    assert (tmp_path / "results.md").is_file()
