"""The wall of a lesson: pictures of a generator with the features by which readers learn, kept in the folder."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.backbones import Backbone
from energyql.attributes.judge import Judge, raw_features, thumbnails
from energyql.errors import ModelError
from energyql.files import read_tensors, write_picture, write_tensors
from energyql.generators.base import show_pictures
from energyql.labelling.folder import PictureFolder
from energyql.numerics.shapes import Bool, Float
from energyql.training.feature_fit import SMALL, FeatureSettings
from energyql.training.labelled import Seen
from energyql.training.picture_fit import mean_outputs
from energyql.training.samples import Prior
from energyql.training.settings import POOL_START
from energyql.training.steps import digest

LAYERS = 3
"""Largest number of layers that readers read together: their mean errs less than the best."""
STORE = ".wall"
"""Subfolder of the pictures: files with the features of some pictures each, in half precision."""
READ_AT_ONCE = 512
"""Number of pictures whose features are read together."""
AT_ONCE = 32
"""Most pictures that are drawn together."""
LARGEST = 256
"""Largest side of a picture in the folder, in pixels: a page shows many at once, and each can be drawn again."""
RANDOM_SHARE = 0.25
"""Share of the pictures that are random ones, for the estimate; the others are there to be chosen."""
FIRST_RANDOM = 96
"""Number of pictures at the beginning that are all random."""
_NUMBERS, _IDENTITY, _PIXELS = "energyql/numbers", "energyql/identity", "energyql/pixels"
"""Tensors of a file beside those of layers."""


class Wall:
    """Pictures of prior samples, by number, and their features.

    Picture i is drawn from prior sample i. Numbers below `POOL_START` are random pictures, which are labelled in the
    order of their numbers; others are chosen by what readers say. One thread draws while others read.

    Attributes:
        folder: the pictures; its record has all of the wall.
        numbers: number of each picture, in the order in which they were drawn.
        layers: the layers whose features are in memory.
        lock: held by a thread that adds pictures, or reads what others may change.
    """

    def __init__(self, folder: PictureFolder, prior: Prior, backbone: Backbone) -> None:
        self.folder, self.prior, self.backbone = folder, prior, backbone
        self.lock = threading.RLock()
        self.numbers: list[int] = []
        self.rows: dict[int, int] = {}
        self.layers: tuple[str, ...] = backbone.layers[1::2][:LAYERS]
        self._identity = bytes.fromhex(digest((backbone.mark, SMALL, prior.device.type, prior.preview)))
        self._files: list[tuple[Path, int]] = []
        self._parts: list[dict[str, Tensor]] = []
        for path in sorted((folder.path / STORE).glob("*.safetensors")):
            self._load(path)
        self._record()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def settings(self) -> list[FeatureSettings]:
        """What linear readers read, each one of the present layers."""
        name, mark, side = self.backbone.name, self.backbone.mark, self.backbone.side
        return [FeatureSettings(name, mark, layer, side) for layer in self.layers]

    @property
    def is_random(self) -> Bool[Tensor, " pictures"]:
        """Whether each picture is a random one."""
        return torch.tensor(self.numbers) < POOL_START

    def next_numbers(self, count: int) -> list[int]:
        """Numbers of the next pictures to draw: at first random ones, then a quarter of them, and others."""
        random = sum(number < POOL_START for number in self.numbers)
        all_random, pool = ((i for i in itertools.count(start) if i not in self.rows) for start in (0, POOL_START))
        chosen: list[int] = []
        for total in range(len(self.numbers), len(self.numbers) + count):
            is_random = random < FIRST_RANDOM or random < RANDOM_SHARE * total
            chosen.append(next(all_random if is_random else pool))
            random += is_random
        return chosen

    @torch.no_grad()
    def draw(self, numbers: Sequence[int]) -> None:
        """Draw pictures that the wall lacks, and add them, with their features, to it and to the folder."""
        new = [number for number in dict.fromkeys(numbers) if number not in self.rows]
        for start in range(0, len(new), AT_ONCE):
            self._draw(new[start : start + AT_ONCE])

    def _draw(self, new: Sequence[int]) -> None:
        images = self.prior.draw(self.prior.w_there(torch.tensor(new)))
        shown = show_pictures(self.prior.generator, images)
        for number, picture in zip(new, shown, strict=True):
            file = self.folder.file(number)
            if not file.exists():
                if max(picture.size) > LARGEST:
                    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
                write_picture(file, picture)
        small = thumbnails(images.float(), min(self.backbone.side, max(images.shape[-2:])))
        pixels = ((small.clamp(-1, 1) + 1) * 127.5).round()  # as those from which a training learns
        names = [*self.backbone.layers, _PIXELS]
        read = raw_features(self.backbone, pixels / 127.5 - 1, self.backbone.layers, SMALL)
        stored = {name: each.half().cpu() for name, each in zip(names, read, strict=True)}
        path = self.folder.path / STORE / f"{new[0]:07d}.safetensors"
        path.parent.mkdir(exist_ok=True)
        write_tensors(path, stored | {_NUMBERS: torch.tensor(new), _IDENTITY: _bytes(self._identity)})
        with self.lock:
            self._load(path)
        self._record()

    def seen(self, rows: Tensor | slice = slice(None)) -> Seen:
        """Features of the present layers, with small pixels; the pictures themselves are left out."""
        if len(self._parts) > 1:
            self._parts = [{each: torch.cat([part[each] for part in self._parts]) for each in (*self.layers, _PIXELS)}]
        kept = {name: each[rows] for name, each in self._parts[0].items()}
        return Seen(torch.zeros(len(kept[_PIXELS]), 0), _with_pixels(kept, self.layers))

    def read(self, networks: Sequence[Judge], start: int = 0) -> Float[Tensor, "pictures outputs"]:
        """Mean outputs of readers for all pictures from a row on, a few at a time, so that memory stays small."""
        rows = range(start, len(self), READ_AT_ONCE)
        return torch.cat([mean_outputs(networks, self.seen(slice(row, row + READ_AT_ONCE))) for row in rows])

    def seen_everywhere(self, rows: Sequence[int]) -> Seen:
        """Features of all layers of a few pictures, read from the files."""
        names = (*self.backbone.layers, _PIXELS)
        wanted, start, parts = set(rows), 0, dict[int, dict[str, Tensor]]()
        for path, count in self._files:
            here = [row for row in range(start, start + count) if row in wanted]
            if here:
                stored = read_tensors(path)
                for row in here:
                    parts[row] = {name: stored[name][row - start] for name in names}
            start += count
        found = {name: torch.stack([parts[row][name] for row in rows]) for name in names}
        return Seen(torch.zeros(len(rows), 0), _with_pixels(found, self.backbone.layers))

    def choose(self, layers: Sequence[str]) -> None:
        """Take the features of other layers into memory."""
        if set(layers) != set(self.layers):
            self.layers = tuple(layers)
            self._parts = [self._kept(read_tensors(path)) for path, _ in self._files]

    def _kept(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: stored[name] for name in (*self.layers, _PIXELS)}

    def _load(self, path: Path) -> None:
        """Add the pictures of a file; one that is damaged, or of another backbone, is removed, to be drawn again."""
        try:
            stored = read_tensors(path)
            numbers = stored[_NUMBERS].tolist()
            columns = [stored[name] for name in (*self.backbone.layers, _PIXELS)]
            fits = stored[_IDENTITY].equal(_bytes(self._identity)) and not self.rows.keys() & set(numbers)
            whole = all(len(column) == len(numbers) for column in columns)
            part = self._kept(stored) if fits and whole else None
        except (KeyError, ModelError):
            part = None
        if part is None:
            path.unlink()
            return
        self._parts.append(part)
        self._files.append((path, len(numbers)))
        self.rows |= {number: len(self.numbers) + k for k, number in enumerate(numbers)}
        self.numbers += numbers

    def _record(self) -> None:
        """Record in the folder which pictures it has."""
        random = sum(number < POOL_START for number in self.numbers)
        pool = dict.fromkeys([*self.folder.unsure, *(number for number in self.numbers if number >= POOL_START)])
        if random > self.folder.random or len(pool) > len(self.folder.unsure):
            self.folder = self.folder.having(max(random, self.folder.random), tuple(pool))


def _with_pixels(features: Mapping[str, Tensor], layers: Sequence[str]) -> dict[str, Tensor]:
    return {layer: torch.cat([features[layer], features[_PIXELS]], 1) for layer in layers}


def _bytes(mark: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(mark, np.uint8).copy())
