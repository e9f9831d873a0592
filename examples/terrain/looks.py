"""Functions of heights that the model draws: their attributes, for labels and the judge, and a map for people."""

import torch
from torch.nn.functional import avg_pool2d, max_pool2d, pad

EDGE = 8  # pixels at each border, which are noisier than the rest, and left out
CELL = 0.1  # metres from one pixel to the next
SCALE, HIGHEST = 0.1, 22.16864013671875  # metres: the network draws asinh(height / SCALE), scaled to [-1, 1]
STEEPER = 3.0  # maps show slopes so many times steeper than they are, because most are gentle


def heights(images):
    """Return heights in metres, (batch, 112, 112), for what the model draws, (batch, 1, 128, 128) in [-1, 1]."""
    inner = images[:, 0, EDGE:-EDGE, EDGE:-EDGE] / 2 + 0.5
    return SCALE * torch.sinh(inner * torch.asinh(torch.tensor(HIGHEST / SCALE)))


def relief(images):
    """Return maps, (batch, 3, 112, 112): low land is blue, high land is orange, and light comes from the north-west."""
    south, east = torch.gradient(STEEPER * heights(images) / CELL, dim=(1, 2))
    light = (south + east + 1.5) / (2 + 1.5**2) ** 0.5 / (1 + south**2 + east**2).sqrt()
    height = images[:, 0, EDGE:-EDGE, EDGE:-EDGE] / 2 + 0.5
    colour = torch.stack([height, torch.full_like(height, 0.6), 1 - height], 1)
    return 2 * light.clamp(0.25, 1)[:, None] * colour - 1


def look(images):
    """Return attribute -> values for what the model draws."""
    height = heights(images)
    south, east = torch.gradient(height / CELL, dim=(1, 2))
    smooth = avg_pool2d(pad(height[:, None], (4, 4, 4, 4), mode="replicate"), 9, 1)[:, 0]
    lowest, highest = height.amin((1, 2)), height.amax((1, 2))
    middle = height.shape[1] // 2
    peaks = [divmod(place, height.shape[2]) for place in height.flatten(1).argmax(1).tolist()]
    return {
        "slope": (south**2 + east**2).sqrt().atan().rad2deg().mean((1, 2)),  # degrees
        "relief": highest - lowest,  # metres from the lowest to the highest point
        "rough": (height - smooth).std((1, 2)) > 0.013,  # metres
        "open": passes(height < ((lowest + highest) / 2)[:, None, None]),  # a pass from west to east, on low ground
        "peak": [f"{'north' if row < middle else 'south'}{'west' if at < middle else 'east'}" for row, at in peaks],
    }


def passes(ground):
    """Return whether one can walk from the west border to the east border without leaving the ground.

    Args:
        ground: where one can walk, bool (batch, rows, columns).
    """
    reached = torch.zeros_like(ground)
    reached[:, :, 0] = ground[:, :, 0]
    while True:
        further = (max_pool2d(reached[:, None].float(), 3, 1, 1)[:, 0] > 0) & ground
        if further.equal(reached):
            return reached[:, :, -1].any(1)
        reached = further
