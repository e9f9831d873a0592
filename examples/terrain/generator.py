"""The one-step diffusion model of the package `adaptive-terrain-diffusion` as a generator of energyql.

The model draws heights from noise of 128 x 128 numbers and a difficulty. A picture is a map of these heights that
loses nothing: the colour tells the height, the brightness tells how the light falls on the slope.
"""

from importlib.util import find_spec
from pathlib import Path

import onnxruntime
import torch

WEIGHTS = "weights/terrain_consistency_unet_difficulty100.onnx"
SIDE, SIGMA, CELL = 128, 80.0, 0.1  # pixels a side, scale of the noise, metres between two pixels
SCALE, HIGHEST = 0.1, 22.16864013671875  # metres: the network's output is asinh(height / SCALE), scaled to [-1, 1]
STEEPER = 5.0  # slopes are drawn so many times steeper than they are, because most are gentle


class Terrain(torch.nn.Module):
    """Terrains of 12.8 x 12.8 metres.

    z is the noise, row by row, and one number more, from which the difficulty follows, uniform in [0, 1].
    """

    z_dim = SIDE * SIDE + 1

    def __init__(self):
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        folder = Path(find_spec("terrain_diffusion").origin).parent
        self.network = onnxruntime.InferenceSession(folder / WEIGHTS, options, providers=["CPUExecutionProvider"])

    def encode(self, z, truncation=1.0):
        """Return w, which is z: there is no mapping network."""
        return truncation * z

    def features(self, z):
        """Return what heads read: the means of the noise in 64 blocks, with unit variance, and the difficulty's number."""
        noise = z[:, :-1].view(-1, 1, SIDE, SIDE)
        return torch.cat([16 * torch.nn.functional.avg_pool2d(noise, 16).flatten(1), z[:, -1:]], 1)

    def synthesize(self, w):
        """Return maps in [-1, 1], (batch, 3, 128, 128)."""
        noise = SIGMA * w[:, :-1].reshape(-1, 1, SIDE, SIDE)
        difficulty = torch.special.ndtr(w[:, -1])
        inputs = {"noisy": noise, "sigma": torch.full_like(difficulty, SIGMA), "difficulty": difficulty}
        # One at a time, so that a picture does not depend on those beside it in any bit.
        rows = [self.network.run(None, {k: v[i : i + 1].numpy() for k, v in inputs.items()})[0] for i in range(len(w))]
        return draw_map((torch.cat([torch.from_numpy(row) for row in rows])[:, 0].clamp(-1, 1) + 1) / 2)


def draw_map(height):
    """Return a map of heights: low land is blue, high land is orange, and the light comes from the north-west.

    Args:
        height: what the network draws, scaled to [0, 1], (batch, rows, columns).
    """
    metres = as_metres(height)
    south, east = torch.gradient(metres * STEEPER / CELL, dim=(1, 2))
    light = (south + east + 1.5) / (2 + 1.5**2) ** 0.5 / (1 + south**2 + east**2).sqrt()
    return 2 * (light.clamp(0.1, 1)[:, None] * torch.stack([height, 0.6 + 0 * height, 1 - height], 1)) - 1


def heights(images):
    """Return the heights in metres that maps show, (batch, 128, 128)."""
    red, _, blue = (images / 2 + 0.5).unbind(1)
    return as_metres(red / (red + blue))


def as_metres(height):
    """Return heights in metres for what the network draws, scaled to [0, 1]."""
    return SCALE * torch.sinh(height * torch.asinh(torch.tensor(HIGHEST / SCALE)))
