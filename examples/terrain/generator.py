"""The one-step diffusion model of the package `adaptive-terrain-diffusion` as a generator of energyql.

The model draws heights from noise of 128 x 128 numbers and a difficulty. A picture is a map of the heights that loses
nothing: the colour tells the height, the brightness how the light falls on the slope.
"""

from importlib.util import find_spec
from pathlib import Path

import onnxruntime
import torch

WEIGHTS = "weights/terrain_consistency_unet_difficulty100.onnx"
SIDE, EDGE = 128, 8  # pixels a side, and how many of them at each border are noisier than the rest, and left out
SIGMA = 80.0  # scale of the noise
CELL = 0.1  # metres from one pixel to the next
SCALE, HIGHEST = 0.1, 22.16864013671875  # metres: the network draws asinh(height / SCALE), scaled to [-1, 1]
STEEPER = 3.0  # slopes are drawn so many times steeper than they are, because most are gentle


class Terrain(torch.nn.Module):
    """Terrains of 11.2 x 11.2 metres.

    z is the noise, row by row, and one more number, from which the difficulty follows, uniform in [0, 1].
    """

    z_dim = SIDE * SIDE + 1

    def __init__(self):
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        path = Path(find_spec("terrain_diffusion").origin).parent / WEIGHTS
        self.network = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def encode(self, z, truncation=1.0):
        """Return w, which is z: there is no mapping network."""
        return truncation * z

    def features(self, z):
        """Return what heads read: the means of 64 blocks of the noise, of unit variance, and the last number of z."""
        noise = z[:, :-1].view(-1, 1, SIDE, SIDE)
        return torch.cat([16 * torch.nn.functional.avg_pool2d(noise, 16).flatten(1), z[:, -1:]], 1)

    def synthesize(self, w):
        """Return maps in [-1, 1], (batch, 3, 112, 112)."""
        noise, difficulty = SIGMA * w[:, :-1].view(-1, 1, SIDE, SIDE), torch.special.ndtr(w[:, -1])
        inputs = {"noisy": noise, "sigma": torch.full_like(difficulty, SIGMA), "difficulty": difficulty}
        drawn = [  # one by one, so that no bit of a picture depends on those beside it
            self.network.run(None, {name: rows[i : i + 1].numpy() for name, rows in inputs.items()})[0]
            for i in range(len(w))
        ]
        height = torch.cat([torch.from_numpy(one[:, 0, EDGE:-EDGE, EDGE:-EDGE]) for one in drawn])
        return draw_map(height.clamp(-1, 1) / 2 + 0.5)


def draw_map(height):
    """Return maps of heights: low land is blue, high land is orange, and the light comes from the north-west.

    Args:
        height: what the network draws, scaled to [0, 1], (batch, rows, columns).
    """
    south, east = torch.gradient(STEEPER * in_metres(height) / CELL, dim=(1, 2))
    light = (south + east + 1.5) / (2 + 1.5**2) ** 0.5 / (1 + south**2 + east**2).sqrt()
    colour = torch.stack([height, torch.full_like(height, 0.6), 1 - height], 1)
    return 2 * light.clamp(0.25, 1)[:, None] * colour - 1


def heights(images):
    """Return the heights in metres that maps show, (batch, 112, 112)."""
    red, _, blue = (images / 2 + 0.5).unbind(1)
    return in_metres(red / (red + blue))


def in_metres(height):
    """Return heights in metres for what the network draws, scaled to [0, 1]."""
    return SCALE * torch.sinh(height * torch.asinh(torch.tensor(HIGHEST / SCALE)))
