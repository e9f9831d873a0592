"""What the painted eyes show, measured in 128 x 128 pixels: a labeller, and a judge, of four attributes."""


def look(images):
    """Return attribute -> values for pictures in [-1, 1], (batch, 3, 128, 128)."""
    red, _, blue = colours = images.mean((2, 3)).T / 2 + 0.5
    across = images.mean((1, 3))  # brightness of each row
    return {
        "light": colours.mean(0),  # 0 is black, 1 is white
        "vivid": (images.amax(1) - images.amin(1)).mean((1, 2)) / 2 > 0.15,
        "tint": ["warm" if x > 0.08 else "cool" if x < 0.02 else "neutral" for x in (red - blue).tolist()],
        "shaded": across[:, :40].mean(1) < across[:, 40:].mean(1) - 0.2,  # by brow or lid
    }
