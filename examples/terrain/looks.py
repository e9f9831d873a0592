"""What the maps show: a labeller, and a judge, of five attributes of a terrain."""

import torch
from generator import CELL, heights
from torch.nn.functional import avg_pool2d, max_pool2d, pad


def look(images):
    """Return attribute -> values for maps in [-1, 1], (batch, 3, 112, 112)."""
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
