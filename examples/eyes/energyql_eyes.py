"""The conditional DCGAN of `omniart-eye-generator` as a generator of energyql, and what its painted eyes show."""

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import torch

import energyql

FOLDER = Path(find_spec("omniart_eye_generator").submodule_search_locations[0])  # importing it fails without a GPU


class Eyes(torch.nn.Module):
    """Eyes of 128 x 128 pixels. Classes: amber, blue, brown, gray, grayscale, green, hazel, red."""

    z_dim, c_dim = 100, 8

    def __init__(self):
        super().__init__()
        spec = spec_from_file_location("omniart_network", FOLDER / "generator.py")
        spec.loader.exec_module(code := module_from_spec(spec))
        self.network = code.Generator()
        self.network.load_state_dict(energyql.read_weights(FOLDER / "generator_model_state.pth"))

    def encode(self, z, truncation=1.0, condition=None):
        """Return z and the class, side by side: (batch, 108)."""
        return torch.cat([truncation * z, condition], 1)

    def synthesize(self, w):
        """Return images in [-1, 1], (batch, 3, 128, 128)."""
        return self.network.main(w[:, :, None, None])


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
