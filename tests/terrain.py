"""A one-step terrain model in miniature: pictures from noise of thousands of numbers, and a view of 16 of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Terrain(nn.Module):
    """Heights from noise (batch, 4096): broad hills from the means of 16 blocks, and fine ones from smaller blocks."""

    z_dim, side = 4096, 64

    def __init__(self) -> None:
        super().__init__()
        self.rough = nn.Parameter(torch.tensor([0.7, 0.2]))

    def encode(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        return truncation * z

    def synthesize(self, w: Tensor) -> Tensor:
        layers = [
            share * F.interpolate(self._means(w, block), size=self.side, mode="bicubic")
            for share, block in zip(self.rough, (16, 4), strict=True)
        ]
        return torch.tanh(sum(layers)).expand(-1, 3, -1, -1)

    def features(self, z: Tensor) -> Tensor:
        """The means of 16 blocks, scaled to unit variance."""
        return self._means(z, 16).flatten(1)

    def _means(self, z: Tensor, block: int) -> Tensor:
        return block * F.avg_pool2d(z.view(-1, 1, self.side, self.side), block)


def survey(images: Tensor) -> dict[str, object]:
    """What the pictures show: the mean heights of the land and of its lowest quarter, and whether the centre rises."""
    height = images[:, 0]
    quarters = F.avg_pool2d(height, 32).flatten(1)
    return {
        "height": height.mean((1, 2)),
        "lowest": quarters.min(1).values,
        "hill": height[:, 16:48, 16:48].mean((1, 2)) > height.mean((1, 2)),
    }
