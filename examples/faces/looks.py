"""What the faces show, measured in 64 x 64 pixels: a labeller, and a judge, of five attributes."""

import torch


def look(images):
    """Return attribute -> values for pictures in [-1, 1], (batch, 3, 64, 64)."""
    light, face = images.mean(1), images[:, :, 20:48, 20:44].mean((2, 3))
    left, right = light[:, 20:48, 18:32].mean((1, 2)), light[:, 20:48, 32:46].mean((1, 2))
    return {
        "background": torch.cat([light[:, :40, :6], light[:, :40, -6:]], 2).mean((1, 2)) / 2 + 0.5,  # 0 is black
        "dark_hair": light[:, 3:10, 22:42].mean((1, 2)) < -0.55,  # or a dark hat
        "warm": face[:, 0] - face[:, 2] > 0.3,  # more red than blue
        "lit": ["right" if x > 0.15 else "left" if x < -0.15 else "front" for x in (right - left).tolist()],
        "symmetric": (light - light.flip(2)).abs().mean((1, 2)) < 0.24,
    }
