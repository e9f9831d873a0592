"""Plans for models of every kind: a StyleGAN, a generator of one's own by name, one whose z is a picture, a reader."""

import torch
from toys import VOCABULARY, random_heads

from energyql import DatasetClass, DatasetPlan
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.pictures import PictureBank
from energyql.attributes.predictions import YesNo
from energyql.generators.families import module_fingerprint
from energyql.pipeline.model import Model
from energyql.plugins import GENERATORS, load_plugin
from energyql.vocabulary import Vocabulary

KINDS = ("stylegan", "own", "picture", "reader")
OWN = '''
import torch


class Own(torch.nn.Module):
    """z -> pictures, through a w of its own."""

    z_dim = 8

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.linspace(0.5, 1.5, 48))

    def encode(self, z, truncation=1.0):
        return truncation * z

    def synthesize(self, w):
        return torch.tanh(w.repeat(1, 6) * self.scale).unflatten(1, (3, 4, 4))


def look(images):
    return {"glasses": images[:, 0, 0, 0] > 0, "beard": images[:, 0, 0, 1] > 0}
'''


class Drawing:
    """A generator in picture space: z is a picture, and heads read the means of its blocks."""

    z_dim = 192

    def encode(self, z, truncation=1.0):
        return truncation * z

    def features(self, z):
        return z.unflatten(1, (3, 4, 2, 4, 2)).mean((3, 5)).flatten(1)

    def synthesize(self, w):
        return torch.tanh(w).unflatten(1, (3, 8, 8))


def see(images):
    """Brightness of two corners."""
    return {"glasses": images[:, :, :4, :4].mean((1, 2, 3)) > 0, "beard": images[:, :, 4:, 4:].mean((1, 2, 3)) > 0}


class Reader(torch.nn.Module):
    """The same as log-odds, in the place of heads."""

    def forward(self, images):
        corners = {"glasses": images[:, :, :4, :4], "beard": images[:, :, 4:, 4:]}
        return {name: YesNo(100 * corner.mean((1, 2, 3))) for name, corner in corners.items()}


def plan_of(kind, folder, tiny):
    """A plan of 20 pictures for a model of this kind, and the further arguments of the call.

    The module of a generator of one's own is written to `folder`, which must be the working directory.
    """
    model, settings = tiny, {}
    if kind == "own":
        (folder / "own_network.py").write_text(OWN)
        settings = {"generator": "own_network:Own", "judge": "own_network:look"}
        mark = module_fingerprint(load_plugin("own_network:Own", GENERATORS)())
        AttributeBank(VOCABULARY, random_heads(VOCABULARY, 8), fitted=FittedUnder(generator=mark)).save(folder / "own")
        model = "own"
    elif kind == "picture":
        bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, 48), fitted=FittedUnder("features"))
        model = Model("picture", Drawing(), bank, see)
    elif kind == "reader":
        known = Vocabulary(VOCABULARY[name] for name in ("glasses", "beard"))
        model = Model("reader", Drawing(), PictureBank(Reader(), known), see)
    classes = [DatasetClass(name="both", query="glasses AND beard", count=12, model=model)]
    classes.append(DatasetClass(name="none", query="NOT glasses", count=8, model=model))
    return DatasetPlan(classes=classes, shard_size=5), settings
