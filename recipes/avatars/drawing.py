"""Cartoon avatars as stacks of pre-rendered layers, composed in torch.

Every part of the Avataaars drawings (`python-avatars`, MIT; drawings free for any use) is rendered once, alone, in
black and in white paint. A painted part changes a picture by an affine function of its paint, so the two renderings
give a layer of five planes: premultiplied base colour (3), visibility of the paint (1), opacity (1). A batch of avatars
is then a few gathers and multiply-adds: a few percent of a training step, and no picture is used twice.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from functools import cache

import numpy as np
import python_avatars as pa
import resvg_py
import torch
from PIL import Image
from torch import Tensor

# The visible square of the 264 x 280 drawing: the head, with room for hats, long hair and shoulders.
CROP_LEFT, CROP_TOP, CROP_SIZE = 30, 6, 204
OVERSAMPLING = 4
HAT_LIFT, BROW_LIFT = 8, 4  # drawing units; brows stay clear of brims and of the upper rims of glasses
HAIR_BELOW = {"NONE": 0, "WINTER_HAT_3": 78, "HAT": 50}  # drawing row above which a hat hides the hair
SHAVEN_LIP = (132, 140, 42, 17)  # ellipse (x, y, half width, half height) that a beard leaves to the moustache
# Shapes of our own, in drawing units. The inside of a brimmed hat closes the gap beside the head.
OWN_SHAPES = {
    "BRIM_INSIDE": '<ellipse cx="132" cy="68" rx="62" ry="24" fill="{paint}"/>'
    '<ellipse cx="132" cy="68" rx="62" ry="24" fill="#000" fill-opacity="0.35"/>',
    "FRECKLES": "".join(
        f'<circle cx="{x}" cy="{y}" r="2" fill="#50200A" fill-opacity="0.45"/>'
        for side in (-1, 1)
        for x, y in ((132 + side * 20, 138), (132 + side * 27, 135), (132 + side * 33, 140), (132 + side * 26, 143))
    ),
    "EARRINGS": "".join(
        f'<circle cx="{x}" cy="139" r="5.5" fill="#F7C83B" stroke="#9A6B05" stroke-width="1.5"/>' for x in (75, 189)
    ),
}

# Slot -> the drawings it chooses from, in painting order; "NONE" draws nothing.
PARTS: dict[str, tuple[str, ...]] = {
    "brim": ("NONE", "NONE", "BRIM_INSIDE"),  # chosen with the hat
    "body": ("BODY",),
    "freckles": ("NONE", "FRECKLES"),
    "clothing": ("SHIRT_CREW_NECK",),
    "mouth": ("SMILE", "TWINKLE", "SERIOUS", "SAD"),
    "nose": ("DEFAULT",),
    "eyes": ("DEFAULT", "HAPPY", "SURPRISED", "NONE"),
    "hair": ("NONE", "SHORT_WAVED", "SHORT_CURLY", "PIXIE", "STRAIGHT_STRAND", "STRAIGHT_1", "LOOSE_HAIR"),
    "earrings": ("NONE", "EARRINGS"),
    "beard": ("NONE", "BEARD_MEDIUM", "BEARD_MAGESTIC"),
    "moustache": ("NONE", "MOUSTACHE_FANCY", "MOUSTACHE_MAGNUM"),
    "hat": ("NONE", "WINTER_HAT_3", "HAT"),
    "glasses": ("NONE", "PRESCRIPTION_2", "ROUND", "WAYFARERS", "KURT"),
    "brows": ("DEFAULT_NATURAL", "RAISED_EXCITED_NATURAL", "ANGRY_NATURAL"),
}
# Slot -> (argument of pa.Avatar, its enumeration, argument of its paint, the group of the SVG that holds it).
_SLOTS = {
    "body": ("", None, "skin_color", "Body"),
    "clothing": ("clothing", pa.ClothingType, "clothing_color", "Clothing"),
    "mouth": ("mouth", pa.MouthType, "", "Mouth"),
    "nose": ("nose", pa.NoseType, "", "Nose"),
    "eyes": ("eyes", pa.EyeType, "", "Eyes"),
    "hair": ("top", pa.HairType, "hair_color", "Top"),
    "beard": ("facial_hair", pa.FacialHairType, "facial_hair_color", "Top"),
    "moustache": ("facial_hair", pa.FacialHairType, "facial_hair_color", "Top"),
    "hat": ("top", pa.HatType, "hat_color", "Top"),
    "glasses": ("accessory", pa.AccessoryType, "", "Top"),
    "brows": ("eyebrows", pa.EyebrowType, "", "Eyebrow"),
}


def _render_part(slot: str, name: str, paint: str) -> np.ndarray:
    """Render one part alone: premultiplied RGBA in [0, 1], (side, side, 4), side being that of the crop."""
    return _rasterized(_part(slot, name, paint), {"hat": HAT_LIFT, "brows": BROW_LIFT}.get(slot, 0))


def _part(slot: str, name: str, paint: str) -> str:
    if name in OWN_SHAPES:
        shapes = OWN_SHAPES[name].format(paint=paint)
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 264 280">{shapes}</svg>'
    argument, enumeration, painted, group = _SLOTS[slot]
    settings = {
        "style": pa.AvatarStyle.TRANSPARENT,
        "top": pa.HairType.NONE,
        "facial_hair": pa.FacialHairType.NONE,
        "accessory": pa.AccessoryType.NONE,
        "clothing": pa.ClothingType.NONE,
    }
    if enumeration is not None:
        settings[argument] = enumeration[name]
    if painted:
        settings[painted] = paint
    root = ET.fromstring(pa.Avatar(**settings).render())
    _keep_only(root, f"transparent_{group}")
    return ET.tostring(root, "unicode")


def _rasterized(svg: str, lift: int) -> np.ndarray:
    box = (CROP_LEFT, CROP_TOP + lift, CROP_LEFT + CROP_SIZE, CROP_TOP + lift + CROP_SIZE)
    image = Image.open(io.BytesIO(_png(svg))).crop(tuple(OVERSAMPLING * value for value in box))
    rgba = np.asarray(image.convert("RGBA"), np.float32) / 255
    rgba[..., :3] *= rgba[..., 3:]
    return rgba


@cache
def _png(svg: str) -> bytes:
    """Render a drawing once for all resolutions, which takes longer than all that follows."""
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=264 * OVERSAMPLING))


def _keep_only(node: ET.Element, wanted: str) -> bool:
    """Remove all groups except the wanted one, its ancestors and its descendants."""
    if node.get("id") == wanted:
        return True
    found = False
    for child in list(node):
        if child.tag.endswith("}defs"):
            continue
        if _keep_only(child, wanted):
            found = True
        else:
            node.remove(child)
    return found


def _layer(slot: str, name: str) -> np.ndarray:
    """Render a layer at the side of the crop: (5, side, side)."""
    side = CROP_SIZE * OVERSAMPLING
    if name == "NONE":
        return np.zeros((5, side, side), np.float32)
    black, white = (_render_part(slot, name, paint) for paint in ("#000000", "#ffffff"))
    layer = np.concatenate([black[..., :3], (white - black)[..., :1], black[..., 3:]], -1).transpose(2, 0, 1).copy()
    if slot == "brows":  # drawn in translucent black; here they take the colour of the hair
        shape = layer[4] / 0.6
        layer = np.stack([0 * shape, 0 * shape, 0 * shape, 0.9 * shape, 0.9 * shape])
    if slot == "beard":
        x, y, half_width, half_height = (OVERSAMPLING * value for value in SHAVEN_LIP)
        row, column = np.ogrid[:side, :side]
        row, column = row + OVERSAMPLING * CROP_TOP, column + OVERSAMPLING * CROP_LEFT
        layer *= ((column - x) / half_width) ** 2 + ((row - y) / half_height) ** 2 > 1
    return layer


Box = tuple[slice, slice]


class Drawing:
    """All layers at one resolution.

    Args:
        resolution: side of the square pictures in pixels.
    """

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution
        self.layers: dict[str, tuple[Box, Tensor]] = {}
        for slot, names in PARTS.items():
            stack = torch.from_numpy(np.stack([_layer(slot, name) for name in names]))
            layers = torch.nn.functional.interpolate(stack, size=(resolution, resolution), mode="area")
            box = _box(layers.amax((0, 1)))
            self.layers[slot] = box, layers[(..., *box)].contiguous()
        rows = (torch.arange(resolution) + 0.5) * CROP_SIZE / resolution + CROP_TOP
        self.below_hat = torch.stack([(rows > HAIR_BELOW[name]).float()[None, :, None] for name in PARTS["hat"]])

    def compose(self, parts: dict[str, Tensor], paints: dict[str, Tensor]) -> Tensor:
        """Paint a batch of avatars.

        Args:
            parts: slot -> index into `PARTS[slot]`, shape (batch,); slots with one drawing may be left out.
            paints: "background", "skin", "clothing", "hair", "hat" -> RGB in [0, 1], shape (batch, 3).

        Returns:
            Pictures in [-1, 1], shape (batch, 3, resolution, resolution).
        """
        sides = -1, -1, self.resolution, self.resolution
        picture = paints["background"][:, :, None, None].expand(sides).clone()
        paint_of = {"brim": "hat", "body": "skin", "clothing": "clothing", "hat": "hat"}
        parts = parts | {"brim": parts["hat"]}
        for slot, (box, stack) in self.layers.items():
            layer = stack[parts[slot]] if slot in parts else stack
            paint = paints[paint_of.get(slot, "hair")] * (0.7 if slot == "brows" else 1.0)
            if slot == "hair":
                layer = layer * self.below_hat[:, :, box[0]][parts["hat"]]
            region = picture[(..., *box)]
            region.mul_(1 - layer[:, 4:]).add_(layer[:, :3]).add_(layer[:, 3:4] * paint[:, :, None, None])
        return picture.clamp_(0, 1).mul_(2).sub_(1)


def _box(visible: Tensor) -> Box:
    """Return the rows and columns of the smallest rectangle that holds every nonzero number of (side, side)."""
    rows, columns = visible.amax(1).nonzero().flatten(), visible.amax(0).nonzero().flatten()
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
