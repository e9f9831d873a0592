"""Avatars as a domain: what `recipes.common` needs to know to make the model."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from energyql.generators.stylegan2 import StyleGAN2Config
from energyql.training.heads import HeadSettings
from recipes.avatars.drawing import CROP_LEFT, CROP_SIZE, CROP_TOP, Drawing
from recipes.avatars.factors import (
    AGE,
    CHOICES,
    CONTINUOUS,
    DRAWN,
    HAIR_COLORS,
    PAINTS,
    PALETTES,
    PRESENTATION,
    SWITCHES,
)
from recipes.avatars.vocabulary import VOCABULARY
from recipes.common.domain import Batch, CardText, Domain, Stage, palette

FACE = (62, 6, 202, 186)  # left, top, right, bottom in drawing units
FACE_WEIGHT = 2.0


def face_weights(side: int) -> Tensor:
    """Return weights (1, 1, side, side): `FACE_WEIGHT` on the face, else 1, divided by the mean."""
    scale = side / CROP_SIZE
    left, right = (int((FACE[i] - CROP_LEFT) * scale) for i in (0, 2))
    top, bottom = (int((FACE[i] - CROP_TOP) * scale) for i in (1, 3))
    weights = torch.ones(1, 1, side, side)
    weights[:, :, top:bottom, left:right] = FACE_WEIGHT
    return weights / weights.mean()


def labels(chosen: Batch, parts: Batch, uniform: Batch) -> dict[str, Tensor]:
    """Return the attributes of avatars, from what shows: a hat hides a bald head, dark lenses hide the eyes."""
    return {
        "smile": chosen["mouth"] <= 1,
        "frown": chosen["mouth"] == 3,
        "glasses": chosen["glasses"],
        "sunglasses": parts["eyes"] == 3,
        "beard": chosen["beard"],
        "moustache": chosen["moustache"],
        "bald": parts["hair"] == 0,
        "long_hair": parts["hair"] >= 4,
        "hat": chosen["hat"],
        "freckles": chosen["freckles"],
        "earrings": chosen["earrings"],
        "hair": torch.where(parts["hair"] == 0, len(HAIR_COLORS), chosen["hair"]),
        "mouth": chosen["mouth"],
        "eyes": parts["eyes"],
        "brows": chosen["brows"],
        "skin_tone": uniform["skin_tone"],
        "background": uniform["background"],
    }


CARD = CardText(
    summary="A StyleGAN2 (skip architecture, 256 x 256, z 64, w 128) that draws cartoon avatars, with attribute heads\n"
    "that read the direction of z, and an image judge.",
    licence="Drawings: the Avataaars library as packaged by `python-avatars` (MIT; the drawings are free for any use),"
    "\ncomposed by the recipe. No photographs and no real people took part. Weights: Apache-2.0, like the code.",
    faults="""- Two of 100 pictures lie so close to a threshold that they show a blend of two drawings.
- Eyes cannot be seen behind dark lenses: `eyes` is then `hidden`. Under a hat no head is bald: hair shows below
  it. On a bald head `hair` is `absent`.
- `smile` and `frown` follow the mouth, so `smile AND frown` is a contradiction, as are `bald AND hat`,
  `bald AND long_hair`, `sunglasses AND NOT glasses`.
- Dependencies are built in: beards and moustaches are rare with long hair, gray hair goes with glasses and baldness,
  earrings go with long hair.
""",
)
DOMAIN = Domain(
    vocabulary=VOCABULARY,
    switches=SWITCHES,
    choices=CHOICES,
    numbers=CONTINUOUS,
    hidden=(PRESENTATION, AGE),
    drawn=DRAWN,
    paints=PAINTS,
    palettes=PALETTES,
    chosen_paints={"hair_color": ("hair", palette(list(HAIR_COLORS.values())))},
    labels=labels,
    drawing=cache(Drawing),
    config=StyleGAN2Config(
        resolution=256,
        z_dim=64,
        w_dim=128,
        mapping_layers=5,
        layer_features=160,
        mapping_lr_multiplier=0.1,
        channel_base=4096,
        channel_max=128,
    ),
    stages=(
        Stage(32, 1600, 1e-2, 0.2),
        Stage(64, 2000, 1e-2, 0.25),
        Stage(128, 3000, 8e-3, 0.25),
        Stage(256, 2500, 7e-3, 0.6),
    ),
    judge_side=96,  # at 64 it sees 97.7 % of the freckles
    judge_channels=(24, 48, 96, 128),
    heads=HeadSettings(hidden=96, steps=8000, batch=2048, lr=4e-3, weight_decay=0.02, patience=None),
    head_latents=300_000,
    watched="hat",
    card=CARD,
    loss_weights=face_weights,
    factor_seed=20,
    embedding_seed=21,
)
