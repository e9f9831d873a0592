"""Statistics of pictures: contrast, texture and colours of their parts, which a linear reader cannot make of pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from energyql.numerics.shapes import Float

SIDE = 64
"""Side, in pixels, of the pictures of which statistics are taken."""
CELLS = 8
"""Statistics are means over the cells of a grid of so many rows and columns."""
LEVELS = 3
"""Number of levels of each channel in a histogram of colours."""
REGIONS = 4
"""Histograms are of the whole picture, and of the regions of a grid of so many rows and columns."""
SIZES = (CELLS**2, CELLS**2, CELLS**2, 3 * CELLS**2, LEVELS**3, LEVELS**3 * REGIONS**2)
"""Number of statistics of each kind, in the order of `picture_statistics`."""


def picture_statistics(images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch statistics"]:
    """Statistics of pictures in [-1, 1], kind after kind (`SIZES`).

    In each cell: mean saturation, standard deviation of the brightness, mean of its steps between pixels, and by how
    much each channel exceeds both others on average; and histograms of colours, in which a colour counts for the levels
    next to it.
    """
    light, least, most = images.mean(1, True), images.amin(1, True), images.amax(1, True)
    corner, below, beside = light[:, :, :-1, :-1], light[:, :, 1:, :-1], light[:, :, :-1, 1:]
    steps = (below - corner).abs() + (beside - corner).abs()
    others = torch.stack([images[:, [1, 2]], images[:, [0, 2]], images[:, [0, 1]]], 1).amax(2)
    cells = [_means(each, CELLS) for each in (most - least, light, light.square(), steps, images - others)]
    saturation, mean, square, texture, excess = cells
    contrast = (square - mean.square()).clamp(min=0).sqrt()
    levels = torch.linspace(-1, 1, LEVELS, device=images.device)[:, None, None]
    near = (1 - (images[:, :, None] - levels).abs() * ((LEVELS - 1) / 2)).clamp(min=0)  # (batch, 3, levels, side, side)
    red, green, blue = near.unbind(1)
    colours = red[:, :, None, None] * green[:, None, :, None] * blue[:, None, None]
    regions = _means(colours.flatten(1, 3), REGIONS)
    whole = regions.unflatten(1, (LEVELS**3, REGIONS**2)).mean(2)
    return torch.cat([saturation, contrast, texture, excess, whole, regions], 1)


def _means(maps: Float[Tensor, "batch maps height width"], cells: int) -> Float[Tensor, "batch means"]:
    return adaptive_avg_pool2d(maps, cells).flatten(1)
