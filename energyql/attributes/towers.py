"""Pretrained networks in folders of other libraries: settings of their pictures, and loading that runs no code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.errors import ModelError
from energyql.files import MOST_JSON, read_bytes, read_json, refuse_code
from energyql.language.lexical import shorten
from energyql.numerics.shapes import Float

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation, for red, green and blue, of the pictures in [0, 1] that CLIP learned from; for models
that do not state their own."""
_IMAGES = ("preprocessor_config.json", "processor_config.json")


def as_pixels(
    images: Float[Tensor, "n channels height width"], size: int | Sequence[int], mean: Any, std: Any
) -> Float[Tensor, "n 3 _ _"]:
    """Input of a network for pictures in [-1, 1] with 1 or 3 channels: resized, with three channels, and standardised.

    `mean` and `std` are those of red, green and blue, in [0, 1]; `None` or empty stands for `MEAN` and `STD`.
    """
    shape = (size, size) if isinstance(size, int) else tuple(size)
    pictures = ((images.float().clamp(-1, 1) + 1) / 2).expand(-1, 3, -1, -1)
    if pictures.shape[-2:] != shape:
        pictures = F.interpolate(pictures, size=shape, mode="bicubic", antialias=True).clamp(0, 1)
    center, scale = (
        torch.tensor(numbers, device=images.device).view(3, 1, 1) for numbers in (mean or MEAN, std or STD)
    )
    return (pictures - center) / scale


def refuse_named_code(folder: Path) -> None:
    """Raise a `ModelError` if a folder holds code (`refuse_code`), or its configuration names some."""
    refuse_code(folder)
    for name in ("config.json", "tokenizer_config.json"):
        # Not `read_json`, which refuses numbers of 31 digits, as tokenizers have.
        if (folder / name).is_file() and b'"auto_map"' in read_bytes(folder / name, MOST_JSON):
            raise ModelError(f"{folder / name} names code, which is not run", hint="choose a reader of a known class")


def stated_scale(folder: Path) -> tuple[Any, Any]:
    """Mean and standard deviation of pictures that a folder of transformers states, checked; `None` for neither."""
    images = next((path for name in _IMAGES if (path := folder / name).is_file()), None)
    outer = "image_processor." if images and "image_processor" in read_json(images) else ""
    mean, std = (images and stated(images, f"{outer}{name}") for name in ("image_mean", "image_std"))
    return mean, std


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(type(side) is int and side > 0 for side in sides)


def _are_three(value: Any, right: Callable[[float], bool]) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(x) in (int, float) and right(x) for x in value)


_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "size": (_is_size, "a whole number above 0, or a list of two"),
    "mean": (partial(_are_three, right=lambda number: 0 <= number <= 1), "three numbers in [0, 1]"),
    "std": (partial(_are_three, right=lambda number: 0 < number < math.inf), "three numbers above 0"),
}
"""Last word of the name of a setting -> whether a value of JSON is right for it, and text for users: what is right."""


def stated(path: Path, place: str) -> Any:
    """The setting `place`, such as "vision_config.image_size", of a JSON file, checked; `None` if it is not stated."""
    value: Any = read_json(path)
    *outer, last = place.split(".")
    for name in outer:
        value = {} if value.get(name) is None else value[name]
        if not isinstance(value, dict):
            raise ModelError(f"{path}: {name} must be an object, not {shorten(repr(value))}", hint=_CORRECT)
    value = value.get(last)
    is_right, expected = _RULES[last.rpartition("_")[2]]
    if value is not None and not is_right(value):
        raise ModelError(f"{path}: {place} must be {expected}, not {shorten(repr(value))}", hint=_CORRECT)
    return value


_CORRECT = "copy the reader again, or correct the file"
