"""A foreign generator, a DCGAN of faces from PyPI, with attributes that are functions of its pictures.

    pip install --no-deps gan-face-generate

The package is a file of code and a file of weights, both MIT. Its dependencies serve training only, hence --no-deps.
"""

import inspect
from pathlib import Path

import torch
from common import options
from gan_face_generate.models import Generator as DCGAN

import energyql

args = options(__doc__, model=None)
folder = args.out / "own_generator"


class Faces(torch.nn.Module):
    """The DCGAN as energyql calls a generator."""

    z_dim = 100

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.network = DCGAN(ngpu=0, nc=3, nz=self.z_dim, ngf=64)
        self.network.load_state_dict(energyql.read_weights(weights)["netG_state_dict"])

    def encode(self, z, truncation=1.0):
        """Return w, which is z: there is no mapping network."""
        return truncation * z

    def synthesize(self, w):
        """Return images in [-1, 1], (batch, 3, 64, 64)."""
        return self.network(w[:, :, None, None])


def look(images):
    """Measure faces of 64 x 64 pixels: brightness from 0 to 1, and differences of brightness or colour."""
    light, face = images.mean(1), images[:, :, 20:48, 20:44].mean((2, 3))
    left, right = light[:, 20:48, 18:32].mean((1, 2)), light[:, 20:48, 32:46].mean((1, 2))
    return {
        "background": torch.cat([light[:, :40, :6], light[:, :40, -6:]], 2).mean((1, 2)) / 2 + 0.5,
        "dark_hair": light[:, 3:10, 22:42].mean((1, 2)) < -0.55,  # or a dark hat
        "warm": face[:, 0] - face[:, 2] > 0.3,
        "lit": ["right" if x > 0.15 else "left" if x < -0.15 else "front" for x in right - left],
    }


faces = Faces(Path(inspect.getfile(DCGAN)).with_name("weights.tar"))
count = 200 if args.smoke else 5000
trained = energyql.train_attributes(faces, look, folder / "heads", count=count, judge=look, replace=True)
model = energyql.Model("faces", faces, trained.bank, judge=trained.judge)

for name, query in {
    "cold": "dark_hair AND NOT (warm OR lit = left)",
    "side": "warm AND lit = right AND background < 0.3",
    "either": "(dark_hair XOR warm) AND background IN [0.4, 0.6]",
    "two": "AT LEAST 2 OF (dark_hair, warm, lit = front) AND background > 0.6",
}.items():
    allowed = list(trained.report) if args.smoke else []  # heads of 200 pictures are too weak for queries
    result = energyql.generate(query, n=args.n, model=model, strength=2, allow_weak=allowed)
    print(f"{query}: {result.summary()}")
    result.save(folder / f"{name}.png")
