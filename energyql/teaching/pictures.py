"""Pictures of a lesson: those that a generator draws, or the photographs of a folder."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from energyql.editing.pictures import as_images, open_picture
from energyql.errors import DataError
from energyql.files import read_json, write_json
from energyql.generators.base import show_pictures
from energyql.numerics.shapes import Float
from energyql.render.pictures import to_pictures
from energyql.training.samples import Prior
from energyql.training.settings import POOL_START

LARGEST = 256
"""Largest side of a picture in the folder, in pixels: a page shows many at once."""
FIRST_RANDOM = 96
"""Number of pictures at the beginning that are all random."""
RANDOM_SHARE = 0.25
"""Share of the pictures that are random ones, for the estimate; the others are there to be chosen."""
NUMBERS = "photographs.json"
"""File in the folder of the pictures: which photograph has which number."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


class Pictures(Protocol):
    """Pictures by number. Random ones have the numbers below `POOL_START`."""

    @property
    def mark(self) -> tuple[Any, ...]:
        """What their features depend on, beside the backbone."""

    @property
    def side(self) -> int:
        """Side of the pictures, in pixels."""

    def numbers(self, start: int) -> Iterable[int]:
        """Numbers of all pictures from `start` on, up to the end of the random ones if it is one of them."""

    def draw(self, numbers: Sequence[int]) -> Float[Tensor, "batch channels height width"]:
        """Pictures, as readers take them."""

    def show(self, images: Float[Tensor, "batch channels height width"]) -> list[Image.Image]:
        """The same as people see them."""


@dataclass(frozen=True)
class Drawings:
    """Pictures of a generator: picture i is drawn from prior sample i."""

    prior: Prior
    side: int

    @property
    def mark(self) -> tuple[Any, ...]:
        """Kind of the device, and the side of previews."""
        return self.prior.device.type, self.prior.preview

    def numbers(self, start: int) -> Iterable[int]:
        """Numbers from `start` on."""
        return range(start, POOL_START) if start < POOL_START else itertools.count(start)

    def draw(self, numbers: Sequence[int]) -> Float[Tensor, "batch channels height width"]:
        """Draw pictures, or the previews of a generator of large ones."""
        return self.prior.draw(self.prior.w_there(torch.tensor(numbers)))

    def show(self, images: Float[Tensor, "batch channels height width"]) -> list[Image.Image]:
        """The pictures as people see them."""
        return show_pictures(self.prior.generator, images)


@dataclass(frozen=True)
class Photographs:
    """Photographs of a folder and its subfolders, each cropped to a square around its centre.

    Attributes:
        folder: the folder.
        names: number -> path in the folder.
    """

    folder: Path
    names: dict[int, str]
    device: torch.device
    mark: tuple[Any, ...] = ("photographs",)
    side: int = LARGEST

    @classmethod
    def open(cls, folder: Path, pictures: Path, device: torch.device) -> Photographs:
        """Number the photographs of a folder in random order, and record the numbers in the folder of the pictures.

        Photographs that were added since the last time get further numbers; the others keep theirs.

        Raises:
            DataError: there are too few photographs, or the record is damaged or that of another folder.
        """
        found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        random.Random(0).shuffle(found)
        names = cls._recorded(folder, pictures)
        new = [name for name in found if name not in set(names.values())]
        if not names:
            if len(new) < FIRST_RANDOM:
                wrong = f"{folder} has {len(new)} photographs, which are too few"
                kinds = ", ".join(sorted(SUFFIXES))
                raise DataError(wrong, hint=f"a reader learns from at least {FIRST_RANDOM} files ({kinds})")
            count = max(FIRST_RANDOM, round(RANDOM_SHARE * len(new)))
            names, new = dict(enumerate(new[:count])), new[count:]
        start = max([POOL_START - 1, *names]) + 1
        names |= dict(enumerate(new, start))
        record = {"folder": str(folder.resolve()), "photographs": {str(number): name for number, name in names.items()}}
        pictures.mkdir(parents=True, exist_ok=True)
        write_json(pictures / NUMBERS, record)
        present = set(found)
        return cls(folder, {number: name for number, name in names.items() if name in present}, device)

    @staticmethod
    def _recorded(folder: Path, pictures: Path) -> dict[int, str]:
        """Number -> path of earlier photographs."""
        path = pictures / NUMBERS
        if not path.is_file():
            return {}
        try:
            record = read_json(path, DataError)
            names = {int(number): str(name) for number, name in record["photographs"].items()}
            if record["folder"] != str(folder.resolve()):
                wrong = f"{pictures} has the lesson of another folder of photographs, {record['folder']}"
                raise DataError(wrong, hint="name another folder for the judge")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path} is damaged: {error}", hint="begin again in another folder") from error
        return names

    def numbers(self, start: int) -> Iterable[int]:
        """Numbers of photographs that are there."""
        return (number for number in self.names if start <= number and (number < POOL_START) == (start < POOL_START))

    def draw(self, numbers: Sequence[int]) -> Float[Tensor, "batch channels height width"]:
        """Read photographs; an `ArgumentError` says which file cannot be read."""
        side = torch.zeros(1, 3, LARGEST, LARGEST, device=self.device)
        return as_images([open_picture(self.folder / self.names[number]) for number in numbers], side)

    def show(self, images: Float[Tensor, "batch channels height width"]) -> list[Image.Image]:
        """The photographs as they are read."""
        return to_pictures(images)
