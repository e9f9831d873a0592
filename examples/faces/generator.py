"""The DCGAN of the package `gan-face-generate` as a generator of energyql: faces of 64 x 64 pixels."""

from importlib.util import find_spec
from pathlib import Path

import torch
from gan_face_generate.models import Generator as DCGAN

import energyql

WEIGHTS = Path(find_spec("gan_face_generate").origin).with_name("weights.tar")


class Faces(torch.nn.Module):
    """Rendered faces, blurred, about one in eight deformed."""

    z_dim = 100

    def __init__(self):
        super().__init__()
        self.network = DCGAN(ngpu=0, nc=3, nz=self.z_dim, ngf=64)
        self.network.load_state_dict(energyql.read_weights(WEIGHTS)["netG_state_dict"])

    def encode(self, z, truncation=1.0):
        """Return w, which is z: there is no mapping network."""
        return truncation * z

    def synthesize(self, w):
        """Return images in [-1, 1], (batch, 3, 64, 64)."""
        return self.network(w[:, :, None, None])
