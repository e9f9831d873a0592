"""The conditional DCGAN of the package `omniart-eye-generator` as a generator of energyql: eyes from paintings."""

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

    def encode(self, z, truncation=1.0, label=None):
        """Return z and the class, side by side: (batch, 108)."""
        return torch.cat([truncation * z, label], 1)

    def synthesize(self, w):
        """Return images in [-1, 1], (batch, 3, 128, 128)."""
        return self.network.main(w[:, :, None, None])
