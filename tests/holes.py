"""A generator of 100 numbers with a labelling function, one of whose attributes no head can learn from few labels."""

import torch


class Stains(torch.nn.Module):
    """Pictures (batch, 3, 8, 8) of four squares, whose colours are smooth functions of z."""

    z_dim = 100

    def __init__(self):
        super().__init__()
        self.register_buffer("mix", torch.randn(100, 12, generator=torch.Generator().manual_seed(0)) / 10)

    def encode(self, z, truncation=1.0):
        return truncation * z

    def synthesize(self, w):
        squares = torch.tanh(w @ self.mix).unflatten(1, (3, 2, 2))
        return squares.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)


def look(images):
    """Read off what is easy (`red`), what takes many labels (`bent`), and what heads cannot learn (`odd`)."""
    red, green, blue = images.mean((2, 3)).unbind(1)
    return {
        "red": red > 0.1,
        "bent": (green > 0.1) ^ (blue > 0.1),
        "odd": torch.sin(1e3 * images.mean((1, 2, 3))) > 0.5,
    }
