"""The digits of scikit-learn as pictures in [-1, 1], their parts, random distortions, and two plain measures."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from energyql.numerics.shapes import Float
from energyql.vocabulary import AttributeSpec, Vocabulary

Kind = Literal["gan", "vae", "hierarchical"]
SIDE = 8
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOCABULARY = Vocabulary(
    [
        AttributeSpec("digit", "categorical", DIGITS),
        AttributeSpec("thickness", "continuous", low=1.0, high=2.5, description="mean width of the strokes in pixels"),
        AttributeSpec(
            "slant", "continuous", low=-0.4, high=0.4, description="0 is upright, above 0 leans to the right"
        ),
    ],
    model="digits",
)
LABELLER, JUDGE, TEST = "labeller", "judge", "test"
"""Parts of the real digits: one for each of the two networks that read pictures, and one for tests alone."""
_STARTS = {LABELLER: (0, 700), JUDGE: (700, 1400), TEST: (1400, 1797)}
_SPLIT_SEED = 11
_LEAST_EDGE = 1e-6  # so that the root has a gradient where nothing changes


@cache
def real_digits(*parts: str) -> tuple[Float[Tensor, "n 1 8 8"], Float[Tensor, " n"]]:
    """Return pictures in [-1, 1] and their digits, of some parts of the data, in random order."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    rows = torch.cat([order[slice(*_STARTS[part])] for part in parts])
    pictures = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    return pictures[rows], torch.from_numpy(data.target).float()[rows]


def vary(images: Float[Tensor, "n 1 8 8"], random: torch.Generator, share: float) -> Float[Tensor, "n 1 8 8"]:
    """Turn, shear, zoom and shift a random share of the pictures a little; edges are filled with -1. Differentiable.

    Digits are not mirrored: a mirrored digit is none.
    """
    count = len(images)
    turn, shear, zoom_x, zoom_y, shift_x, shift_y = (2 * torch.rand(6, count, generator=random) - 1).unbind()
    angle = math.radians(10) * turn
    x, y = 1 + 0.08 * zoom_x, 1 + 0.08 * zoom_y
    rows = [
        torch.stack([x * angle.cos(), -y * angle.sin() + 0.12 * shear, 0.1 * shift_x], 1),
        torch.stack([x * angle.sin(), y * angle.cos(), 0.1 * shift_y], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    ink = F.grid_sample((images + 1) / 2, grid, mode="bicubic", align_corners=False)
    chosen = torch.rand(count, 1, 1, 1, generator=random) < share
    return torch.where(chosen, 2 * ink.clamp(0, 1) - 1, images)


def thickness(images: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, " n"]:
    """Return the mean width of the strokes in pixels: twice their area over the length of their edges."""
    ink = _ink(images)
    framed = F.pad(ink, (1, 1, 1, 1))
    across = framed[:, :-1, 1:] - framed[:, :-1, :-1]
    down = framed[:, 1:, :-1] - framed[:, :-1, :-1]
    edges = (across.square() + down.square() + _LEAST_EDGE**2).sqrt().sum((1, 2))
    return 2 * ink.sum((1, 2)) / edges.clamp(min=1)


def slant(images: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, " n"]:
    """Return by how many pixels a digit moves to the right for each pixel upward: the regression of x on -y."""
    ink = _ink(images)
    mass = ink.sum((1, 2)).clamp(min=1)
    place = torch.arange(float(SIDE), device=ink.device)
    x = place - ((ink * place).sum((1, 2)) / mass)[:, None]
    y = place - ((ink * place[:, None]).sum((1, 2)) / mass)[:, None]
    covariance = (ink * x[:, None, :] * y[:, :, None]).sum((1, 2))
    return -covariance / (ink * y[:, :, None].square()).sum((1, 2)).clamp(min=1)


def _ink(images: Tensor) -> Float[Tensor, "n 8 8"]:
    return (images.mean(1).clamp(-1, 1) + 1) / 2
