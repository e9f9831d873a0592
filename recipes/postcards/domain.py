"""What a postcard shows: its choices, which drawing follows from them, its colours and its attributes."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from energyql.generators.stylegan2 import StyleGAN2Config
from energyql.training.heads import HeadSettings
from energyql.vocabulary import AttributeSpec, Vocabulary
from recipes.common.domain import Batch, CardText, Condition, Domain, Stage, palette, yes_no
from recipes.postcards.drawing import Drawing
from recipes.postcards.shapes import WALLS
from recipes.postcards.trees import SEASONS

TREES = ("absent", "pine", "oak", "birch")
WINTER: Condition = ("season.winter",)


VOCABULARY = Vocabulary(
    [
        yes_no("night", "stars, a moon, and light in the windows"),
        yes_no("clouds", "two white clouds"),
        yes_no("mountains", "a range with snow on its peaks"),
        yes_no("boat", "a sailing boat on the lake, which is frozen in winter"),
        yes_no("house", "a house on the meadow"),
        yes_no("smoke", "smoke above the chimney of the house"),
        yes_no("snow", "snow falls, which it does in winter"),
        AttributeSpec("house_color", "categorical", (*WALLS, "absent"), description="colour of the walls"),
        AttributeSpec("season", "categorical", SEASONS),
        AttributeSpec("tree", "categorical", TREES, description="the tree beside the lake"),
        AttributeSpec("height", "continuous", description="of sun or moon: 0 is near the horizon, 1 is high"),
        AttributeSpec("glow", "continuous", description="of the sky: 0 is a cold blue, 1 is a warm evening"),
    ],
    model="postcards",
    relations=(
        "house IFF house_color != absent",
        "smoke IMPLIES house",
        "snow IMPLIES season = winter",
        "NOT (boat AND season = winter)",
    ),
)

# Five heights; the last column of the second part is the height itself.
_HEIGHTS = torch.cat([torch.eye(5), torch.linspace(0, 1, 5)[:, None]], 1)
PALETTES = {
    "day_top": palette(("#3E8FD6", "#5BA8DE", "#7DB3D9", "#9A9CCB", "#A876B0")),
    "day_low": palette(("#CFEAF8", "#E6F3EF", "#FCEBC9", "#FFCF9C", "#FFA07C")),
    "day_tint": palette(("#FFFFFF", "#FFFFFF", "#FFF9EF", "#FFEBD8", "#FFD9C4")),
    "night_top": palette(("#0B1638", "#10173F", "#1A1A4A", "#26194E", "#361C54")),
    "night_low": palette(("#2C4F82", "#394F86", "#514C8C", "#764F92", "#A95F90")),
    "night_tint": palette(("#7289C2", "#7686C0", "#7E84BE", "#887EBA", "#967AB6")),
    "sun": palette(("#FFF4C4", "#FFEDA6", "#FFE07C", "#FFC766", "#FF9561")),
    "height_low": _HEIGHTS[:, :3].contiguous(),
    "height_high": _HEIGHTS[:, 3:].contiguous(),
}
_SHOWN_SEASONS = tuple((f"season.{season}",) for season in SEASONS)
_EVERY_SEASON_OF_A_TREE = tuple((f"tree.{tree}", f"season.{season}") for tree in ("oak", "birch") for season in SEASONS)


def _labels(chosen: Batch, parts: Batch, uniform: Batch) -> dict[str, Tensor]:
    return {
        "night": chosen["night"],
        "clouds": chosen["clouds"],
        "mountains": chosen["mountains"],
        "boat": parts["boat"] == 1,
        "house": chosen["house"],
        "smoke": parts["smoke"] == 1,
        "snow": parts["snow"] == 1,
        "house_color": torch.where(chosen["house"], chosen["wall"], len(WALLS)),
        "season": chosen["season"],
        "tree": chosen["tree"],
        "height": uniform["height"],
        "glow": uniform["glow"],
    }


CARD = CardText(
    summary="A StyleGAN2 (skip architecture, 128 x 128, z 48, w 96) that draws landscapes on postcards, with"
    "\nattribute heads that read the direction of z, and an image judge.",
    licence="Drawings: made for this model, as shapes in `recipes/postcards`. Drawings and weights: Apache-2.0, like"
    "\nthe code.",
    faults="""- Two of 100 pictures lie so close to a threshold that they show a blend of two drawings.
- A lake is frozen in winter, so a boat in winter is a contradiction, as are snow in summer and smoke without a house.
- Pictures of nights are a little less exact than those of days: dark colours vary most with `glow`.
- Dependencies are built in: mountains, pines and smoke go with winter, houses and boats with each other.
""",
)
DOMAIN = Domain(
    vocabulary=VOCABULARY,
    switches={
        "night": 0.35,
        "clouds": 0.5,
        "mountains": 0.55,
        "boat": 0.5,
        "house": 0.62,
        "smoke": 0.55,
        "snow": 0.6,
    },
    choices={
        "season": {"spring": 0.0, "summer": 0.05, "autumn": 0.0, "winter": 0.2},
        "wall": dict.fromkeys(WALLS, 0.0),
        "tree": {"absent": 0.0, "pine": 0.1, "oak": 0.1, "birch": 0.0},
    },
    numbers=("height", "glow"),
    hidden=(
        {"mountains": 0.45, "season.winter": 0.4, "tree.pine": 0.45, "smoke": 0.35, "house": -0.2},  # a cold place
        {"boat": 0.4, "house": 0.35, "clouds": -0.3, "season.summer": 0.3, "wall.red": 0.2},  # a holiday
    ),
    drawn={
        "night": ((), ("night",)),
        "clouds": ((), ("clouds",)),
        "mountains": ((), ("mountains",)),
        "season": _SHOWN_SEASONS,
        "boat": ((), ("boat", WINTER)),
        "house": ((), *(("house", f"wall.{wall}") for wall in WALLS)),
        "roof_snow": ((), ("house", "season.winter")),
        "lit": ((), ("house", "night")),
        "smoke": ((), ("smoke", "house")),
        "tree": (
            ("tree.absent",),
            ("tree.pine", WINTER),
            ("tree.pine", "season.winter"),
            *_EVERY_SEASON_OF_A_TREE,
        ),
        "snow": ((), ("snow", "season.winter")),
    },
    paints={paint: "height" if paint.startswith("height") else "glow" for paint in PALETTES},
    palettes=PALETTES,
    labels=_labels,
    drawing=cache(Drawing),
    config=StyleGAN2Config(
        resolution=128,
        z_dim=48,
        w_dim=96,
        mapping_layers=5,
        layer_features=112,
        mapping_lr_multiplier=0.1,
        channel_base=2048,
        channel_max=96,
    ),
    stages=(Stage(32, 1600, 1e-2, 0.2), Stage(64, 2000, 1e-2, 0.25), Stage(128, 3000, 8e-3, 0.5)),
    judge_side=64,
    judge_channels=(16, 32, 64, 96),
    heads=HeadSettings(hidden=64, steps=6000, batch=1024, lr=4e-3, weight_decay=0.02, patience=None),
    head_latents=150_000,
    watched="night",
    card=CARD,
    factor_seed=30,
    embedding_seed=31,
)
