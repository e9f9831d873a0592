import io

import numpy as np
import pytest
import python_avatars as pa
import resvg_py
import torch
from PIL import Image

from recipes.avatars.domain import DOMAIN
from recipes.avatars.drawing import CROP_LEFT, CROP_SIZE, CROP_TOP, PARTS

SIDE = DOMAIN.judge_side


@pytest.fixture(scope="module")
def drawing():
    return DOMAIN.drawing(SIDE)


def avatar(**chosen):
    parts = {slot: torch.zeros(1, dtype=torch.long) for slot, names in PARTS.items() if len(names) > 1}
    del parts["brim"]  # follows the hat
    parts |= {slot: torch.tensor([PARTS[slot].index(name)]) for slot, name in chosen.items()}
    grey = torch.full((1, 3), 0.5)
    paints = dict.fromkeys(("background", "skin", "clothing", "hair", "hat"), grey)
    return parts, paints


@pytest.mark.slow
def test_layers_add_up_to_the_whole_drawing(drawing):
    parts, paints = avatar(mouth="SAD", hair="PIXIE", moustache="MOUSTACHE_FANCY", glasses="ROUND")
    composed = (drawing.compose(parts, paints)[0].permute(1, 2, 0).numpy() + 1) / 2
    grey = "#808080"
    svg = pa.Avatar(
        style=pa.AvatarStyle.TRANSPARENT, background_color=grey, top=pa.HairType.PIXIE, mouth=pa.MouthType.SAD,
        eyes=pa.EyeType.DEFAULT, eyebrows=pa.EyebrowType.DEFAULT_NATURAL, nose=pa.NoseType.DEFAULT,
        facial_hair=pa.FacialHairType.MOUSTACHE_FANCY, accessory=pa.AccessoryType.ROUND,
        clothing=pa.ClothingType.SHIRT_CREW_NECK, skin_color=grey, hair_color=grey, facial_hair_color=grey,
        clothing_color=grey,
    ).render()  # fmt: skip
    whole = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=264 * 4)))).convert("RGBA")
    on_grey = Image.new("RGBA", whole.size, (128, 128, 128, 255))
    on_grey.alpha_composite(whole)
    box = tuple(4 * value for value in (CROP_LEFT, CROP_TOP, CROP_LEFT + CROP_SIZE, CROP_TOP + CROP_SIZE))
    direct = np.asarray(on_grey.convert("RGB").crop(box).resize((SIDE, SIDE), Image.Resampling.BOX), float) / 255
    error = np.abs(composed - direct).mean(2)
    brows = slice(int((70 - CROP_TOP) * SIDE / CROP_SIZE), int((106 - CROP_TOP) * SIDE / CROP_SIZE))
    error[brows] = 0  # here brows are painted like hair, and lifted
    assert error.mean() < 0.004
    assert np.quantile(error, 0.99) < 0.06


@pytest.mark.slow
def test_every_drawing_shows(drawing):
    light, dark = torch.full((1, 3), 0.8), torch.full((1, 3), 0.1)
    paints = {"background": light, "skin": light, "clothing": light, "hair": dark, "hat": dark}
    plain = drawing.compose(avatar(eyes="NONE")[0], paints)
    for slot, names in PARTS.items():
        for name in names[1:]:
            if slot != "brim" and (slot, name) != ("eyes", "NONE"):
                other = drawing.compose(avatar(**({"eyes": "NONE"} | {slot: name}))[0], paints)
                assert (other - plain).abs().amax() > 0.2, (slot, name)


@pytest.fixture
def coarse_drawing(coarse):
    return DOMAIN.drawing(SIDE)


def test_a_hat_hides_the_hair_above_its_brim(coarse_drawing):
    hat = coarse_drawing.compose(*avatar(hat="WINTER_HAT_3"))
    hair = coarse_drawing.compose(*avatar(hat="WINTER_HAT_3", hair="LOOSE_HAIR"))
    difference = (hat - hair).abs().amax((0, 1, 3))
    assert difference[: SIDE // 4].max() < 1e-6
    assert difference[SIDE // 2 :].max() > 0.1


def test_paint_colours_only_its_part(coarse_drawing):
    parts, paints = avatar(hat="WINTER_HAT_3")
    before = coarse_drawing.compose(parts, paints)
    red = coarse_drawing.compose(parts, paints | {"hat": torch.tensor([[1.0, 0.0, 0.0]])})
    changed = (before - red).abs().amax((0, 1)) > 0.05
    assert changed.any()
    assert not changed[SIDE // 2 :].any()
