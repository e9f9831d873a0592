"""Postcards as stacks of pre-rendered layers, composed in torch.

Every drawing is rendered once; a batch of postcards is then a few gathers and multiply-adds, and no picture is used
twice.
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import resvg_py
import torch
from PIL import Image
from torch import Tensor

from recipes.postcards.shapes import SHAPES

SIZE = 128  # side of the drawing in its own units
OVERSAMPLING = 8
HORIZON = 76.0
SUN_X, SUN_LOW, SUN_HIGH, SUN_RADIUS = 79.0, 59.0, 18.0, 7.5
MOON_BITE = (3.4, -2.2, 6.6)  # offset and radius of the disc that the crescent lacks
GLOW_RADIUS = 26.0
HAZE = {"mountains": 0.38, "hills": 0.16}
"""Share of the colour of the low sky in things far away."""
UNTINTED = ("night", "lit", "snow", "frame")
"""Drawings that shine, and the frame: evening and night do not change their colours."""
WATER, ICE = (0.25, 0.56, 0.70), (0.86, 0.94, 0.98)
MOON = (0.99, 0.96, 0.84)


def _rasterized(shapes: str) -> np.ndarray:
    """Render shapes: premultiplied RGBA in [0, 1], (4, side, side)."""
    if not shapes:
        return np.zeros((4, SIZE * OVERSAMPLING, SIZE * OVERSAMPLING), np.float32)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}">{shapes}</svg>'
    rgba = np.asarray(Image.open(io.BytesIO(_png(svg))).convert("RGBA"), np.float32) / 255
    rgba[..., :3] *= rgba[..., 3:]
    return rgba.transpose(2, 0, 1).copy()


@cache
def _png(svg: str) -> bytes:
    """Render a drawing once for all resolutions, which takes longer than all that follows."""
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE * OVERSAMPLING))


class Drawing:
    """All layers at one resolution.

    Args:
        resolution: side of the square pictures in pixels.
    """

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution
        sides = resolution, resolution
        self.layers: dict[str, tuple[tuple[slice, slice], Tensor]] = {}
        for slot, drawings in SHAPES.items():
            stack = torch.from_numpy(np.stack([_rasterized(one) for one in drawings]))
            layers = torch.nn.functional.interpolate(stack, size=sides, mode="area")
            box = _box(layers[:, 3].amax(0))
            self.layers[slot] = box, layers[(..., *box)].contiguous()
        centres = (torch.arange(resolution) + 0.5) * SIZE / resolution
        self.y, self.x = centres[:, None], centres[None, :]
        self.depth = ((self.y / HORIZON).clamp(0, 1) ** 1.15).expand(sides)

    def compose(self, parts: dict[str, Tensor], paints: dict[str, Tensor]) -> Tensor:
        """Paint a batch of postcards.

        Args:
            parts: slot -> index into `SHAPES[slot]`, shape (batch,); "season" is that of hills, ripples and meadow.
            paints: colours of sky, light and sun by day and by night, RGB in [0, 1], (batch, 3); the last number of
                "height_high" is the height of sun or moon.

        Returns:
            Pictures in [-1, 1], shape (batch, 3, resolution, resolution).
        """
        night = (parts["night"] == 1)[:, None]
        top, low, tint = (
            torch.where(night, paints[f"night_{name}"], paints[f"day_{name}"]) for name in ("top", "low", "tint")
        )
        picture = top[:, :, None, None] + (low - top)[:, :, None, None] * self.depth
        season = parts["season"]
        parts = parts | {"hills": season, "ripples": season, "meadow": season}
        for slot, (box, stack) in self.layers.items():
            if slot == "clouds":
                self._shine(picture, night, paints, parts["night"])
            layer = stack[parts[slot]] if slot in parts else stack.expand(len(night), -1, -1, -1)
            region = picture[(..., *box)]
            opacity, colour = layer[:, 3:], layer[:, :3]
            if slot == "lake":
                water = torch.where((season == 3)[:, None], torch.tensor(ICE), torch.tensor(WATER))
                colour = opacity * (0.4 * water * tint + 0.25 * top + 0.35 * low)[:, :, None, None]
            elif slot not in UNTINTED:
                colour = colour * tint[:, :, None, None]
            if slot in HAZE:
                colour = (1 - HAZE[slot]) * colour + HAZE[slot] * opacity * low[:, :, None, None]
            region.mul_(1 - opacity).add_(colour)
        return picture.clamp_(0, 1).mul_(2).sub_(1)

    def _shine(self, picture: Tensor, night: Tensor, paints: dict[str, Tensor], crescent: Tensor) -> None:
        """Paint the sun, or the moon, with its glow."""
        height = paints["height_high"][:, 2]
        centre = (SUN_LOW + (SUN_HIGH - SUN_LOW) * height)[:, None, None]
        colour = torch.where(night, torch.tensor(MOON), paints["sun"])[:, :, None, None]
        distance = ((self.x - SUN_X) ** 2 + (self.y - centre) ** 2).sqrt()
        glow = 0.42 * (1 - distance / GLOW_RADIUS).clamp(0, 1) ** 2
        x, y, radius = MOON_BITE
        bitten = ((self.x - SUN_X - x) ** 2 + (self.y - centre - y) ** 2).sqrt()
        disc = self._inside(SUN_RADIUS - distance)
        disc = torch.where(crescent[:, None, None] == 1, torch.minimum(disc, self._inside(bitten - radius)), disc)
        for opacity in (glow[:, None], disc[:, None]):
            picture.mul_(1 - opacity).add_(opacity * colour)

    def _inside(self, depth: Tensor) -> Tensor:
        """Return the share of a pixel inside a shape, from the depth of its centre in drawing units."""
        return (0.5 + depth * self.resolution / SIZE).clamp(0, 1)


def _box(visible: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest rectangle that holds every nonzero number of (side, side)."""
    rows, columns = visible.amax(1).nonzero().flatten(), visible.amax(0).nonzero().flatten()
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
