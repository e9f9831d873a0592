"""How close generated pictures are to the renderings of the same codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sharpness:
    """Peak signal-to-noise ratio in dB, and energy of the finite differences over that of the rendering, by picture."""

    psnr: Tensor
    energy: Tensor

    def __str__(self) -> str:
        """Medians, and 10th percentiles, where pictures are worst."""
        decibel, energy = (f"{x.median():.2f} ({x.quantile(0.1):.2f})" for x in (self.psnr, self.energy))
        return f"PSNR {decibel} dB, gradient energy {energy}"


def compare(drawn: Tensor, rendered: Tensor) -> Sharpness:
    """Compare pictures in [-1, 1], (n, 3, side, side)."""
    error = (drawn - rendered).square().mean((1, 2, 3))
    return Sharpness(10 * torch.log10(4 / error), gradient_energy(drawn) / gradient_energy(rendered))


def gradient_energy(pictures: Tensor) -> Tensor:
    """Return the sum of squares of the finite differences of each picture, (n,)."""
    dx, dy = pictures[..., 1:] - pictures[..., :-1], pictures[..., 1:, :] - pictures[..., :-1, :]
    return dx.square().sum((1, 2, 3)) + dy.square().sum((1, 2, 3))
