"""Time of drawing against the bare convolutions: `python -m benchmarks.drawing --help`.

Bare convolutions: the 3 x 3 (or 1 x 1) convolutions of the network with plain weights, as `torch.nn.functional`
computes them, on maps of the same sizes, and nothing else. Plain (StyleGAN2 only): the published structure in plain
operations, weights of every sample in one grouped convolution, filter, noise, bias and activation one after another.
All take turns in one process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.table import Table
from torch import Tensor

from benchmarks.common import SmokeOption, ThreadsOption, page, run_command, show, split_names, take_turns
from energyql.evaluation.measure import machine
from energyql.files import write_json, write_text
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.model import load_model
from energyql.progress import Report, reporting
from energyql.sampling import prior_latents

WIDE = {"channel_base": 65536, "channel_max": 1024}
NETWORKS: dict[str, Callable[[], Any]] = {
    "avatars": lambda: load_model(DEFAULT_MODEL).generator,
    "stylegan2-128": lambda: StyleGAN2(StyleGAN2Config(128, channel_base=16384)),
    "stylegan2-256": lambda: StyleGAN2(StyleGAN2Config(256, channel_base=16384)),
    "stylegan2-1024": lambda: StyleGAN2(StyleGAN2Config(1024)),
    "stylegan3-t-128": lambda: StyleGAN3(StyleGAN3Config(128)),
    "stylegan3-r-128": lambda: StyleGAN3(StyleGAN3Config(128, conv_kernel=1, use_radial_filters=True, **WIDE)),
}
"""The networks by name: avatars as packaged, the others with random weights."""
TURNS = 5
NOTE = (
    "Bare, plain, ours: milliseconds for n pictures, medians of runs that took turns. Ratios: medians of the ratios of "
    "a turn. PSNR: of pictures in bfloat16 against float32, of peak 2 and clamped to [-1, 1]; random networks draw "
    "pictures of far more contrast than trained ones, which costs them decibels."
)
HEADER = (
    "network",
    "n",
    "bare",
    "plain",
    "ours",
    "bfloat16",
    "ours / bare",
    "plain / ours",
    "plain / bfloat16",
    "PSNR",
)


def bare_convolutions(generator: Any, n: int) -> Callable[[], None]:
    """Return a function that computes the convolutions of n pictures, in float32."""
    calls: list[Callable[[], Tensor]] = []
    if type(generator) is StyleGAN3:
        signals = generator.config.signals()
        for module, before in zip(generator.synthesis.layers, [signals[0], *signals[:-1]], strict=True):
            weight = module.weight
            x = torch.randn(n, weight.shape[1], before.size, before.size)
            calls.append(partial(F.conv2d, x, weight, padding=weight.shape[-1] - 1))
    else:
        for side in generator.config.block_resolutions:
            for name in ("conv0", "conv1"):
                layer: Any = getattr(generator.synthesis.get_submodule(f"b{side}"), name, None)
                if layer is not None:
                    up, weight = layer.conv.modulation.up, layer.conv.weight
                    x = torch.randn(n, weight.shape[1], *[side // 2 if up else side] * 2)
                    call = partial(F.conv_transpose2d, x, weight.transpose(0, 1).contiguous(), stride=2)
                    calls.append(call if up else partial(F.conv2d, x, weight, padding=1))

    def run() -> None:
        for call in calls:
            call()

    return run


def plain_pictures(generator: Any, ws: Tensor) -> Tensor:
    """Draw W+ (batch, num_ws, w_dim) by the published structure, in float32."""
    kernel = generator.synthesis.resample_filter

    def filtered(x: Tensor, padding: int) -> Tensor:
        return F.conv2d(x, (4 * kernel).repeat(x.shape[1], 1, 1, 1), padding=padding, groups=x.shape[1])

    def convolved(conv: Any, x: Tensor, w: Tensor) -> Tensor:
        batch, (outputs, inputs, taps, _) = len(x), conv.weight.shape
        weight = conv.weight * (conv.affine(w) * conv.style_gain)[:, None, :, None, None]
        if conv.modulation.demodulate:
            weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        x = x.reshape(1, -1, *x.shape[2:])
        if conv.modulation.up:
            weight = weight.transpose(1, 2).reshape(batch * inputs, outputs, taps, taps)
            x = F.conv_transpose2d(x, weight, stride=2, groups=batch)
            return filtered(x.view(batch, outputs, *x.shape[2:]), 1)
        x = F.conv2d(x, weight.reshape(-1, inputs, taps, taps), padding=taps // 2, groups=batch)
        return x.view(batch, outputs, *x.shape[2:])

    def layer(module: Any, x: Tensor, w: Tensor) -> Tensor:
        x = convolved(module.conv, x, w) + module.noise_const * module.noise_strength
        x = F.leaky_relu(x + module.bias[:, None, None], 0.2) * math.sqrt(2)
        return x if module.clamp is None else x.clamp(-module.clamp, module.clamp)

    row, image = 0, ws.new_zeros(())
    for side in generator.config.block_resolutions:
        block: Any = generator.synthesis.get_submodule(f"b{side}")
        if side == 4:
            x = block.const.expand(len(ws), -1, -1, -1)
        else:
            x = layer(block.conv0, x, ws[:, row])
            row += 1
            spread = F.pad(image[..., None, :, None], (0, 1, 0, 0, 0, 1)).reshape(len(ws), -1, side, side)
            image = filtered(F.pad(spread, (1, 0, 1, 0)), 1)
        x = layer(block.conv1, x, ws[:, row])
        row += 1
        rgb = convolved(block.torgb.conv, x, ws[:, row]) + block.torgb.bias[:, None, None]
        image = image + (rgb if block.torgb.clamp is None else rgb.clamp(-block.torgb.clamp, block.torgb.clamp))
    return image


def measure(name: str, n: int, turns: int, report: Report) -> dict[str, Any]:
    """Time one network at one batch size."""
    torch.manual_seed(0)
    generator = NETWORKS[name]()
    generator.eval().requires_grad_(False)
    for key, value in generator.named_parameters():
        if key.endswith("noise_strength") and name != DEFAULT_MODEL:
            value.fill_(0.1)
    bare = bare_convolutions(generator, n)
    with torch.inference_mode():
        w = generator.encode(prior_latents(0, 0, n, generator.z_dim))
        calls: dict[str, Callable[[int], Any]] = {
            "bare": lambda _: bare(),
            "ours": lambda _: generator.synthesize(w),
            "bfloat16": lambda _: generator.synthesize(w, dtype=torch.bfloat16),
        }
        if type(generator) is StyleGAN2:
            ws = w[:, None].expand(-1, generator.config.num_ws, -1)
            calls["plain"] = lambda _: plain_pictures(generator, ws)
        timed = take_turns(calls, turns, partial(report, f"{name}, n = {n}"))
    seconds = {key: [taken for taken, _ in runs] for key, runs in timed.items()}
    images = {key: runs[-1][1] for key, runs in timed.items() if key != "bare"}
    error = (images["bfloat16"].clamp(-1, 1) - images["ours"].clamp(-1, 1)).square().mean().item()
    row: dict[str, Any] = {"network": name, "n": n, "psnr": 10 * math.log10(4 / error)}
    row |= {key: 1000 * median(taken) for key, taken in seconds.items()}
    for above, below in (("ours", "bare"), ("plain", "ours"), ("plain", "bfloat16")):
        if above in seconds:
            row[f"{above} / {below}"] = median(a / b for a, b in zip(seconds[above], seconds[below], strict=True))
    if "plain" in images:
        row["difference"] = (images["plain"] - images["ours"]).abs().max().item()
    return row


def main(
    networks: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(NETWORKS)}.")] = ",".join(NETWORKS),
    n: Annotated[str, typer.Option("--n", "-n", help="Batch sizes, separated by commas.")] = "1,4,16",
    turns: Annotated[int, typer.Option(min=1, help="Of which medians are taken.")] = TURNS,
    threads: ThreadsOption = 2,
    out: Annotated[Path, typer.Option(help="Folder for results.json and results.md.")] = Path("runs/drawing"),
    smoke: SmokeOption = False,
) -> None:
    """Time pictures of StyleGANs against their bare convolutions and against the published structure."""
    torch.set_num_threads(threads)
    names = [DEFAULT_MODEL] if smoke else split_names("--networks", networks, NETWORKS)
    sizes = [2] if smoke else [int(size) for size in split_names("--n", n, map(str, range(1, 257)))]
    with reporting(True) as report:
        rows = [measure(name, size, 1 if smoke else turns, report) for name in names for size in sizes]
    data = {"machine": machine(), "settings": {"turns": turns, "threads": threads}, "rows": rows}
    cells = [[_cell(row.get("psnr" if column == "PSNR" else column)) for column in HEADER] for row in rows]
    table = Table(*HEADER)
    for line in cells:
        table.add_row(*line)
    write_json(out / "results.json", data)
    write_text(out / "results.md", page("Time of drawing", NOTE, HEADER, cells, data))
    show(table, NOTE, f"Saved {out / 'results.json'} and results.md", width=110)


def _cell(value: float | str | None) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return "" if value is None else str(value)


if __name__ == "__main__":
    run_command(main)
