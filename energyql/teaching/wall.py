"""The wall of a lesson: pictures with the features by which readers learn, kept in the folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.backbones import Backbone
from energyql.attributes.judge import Judge, raw_features, thumbnails
from energyql.attributes.statistics import SIZES
from energyql.errors import ModelError
from energyql.files import read_tensors, write_picture, write_tensors
from energyql.labelling.folder import PictureFolder
from energyql.numerics.shapes import Bool, Float
from energyql.teaching.pictures import FIRST_RANDOM, LARGEST, RANDOM_SHARE, Pictures
from energyql.training.feature_fit import SMALL, FeatureSettings
from energyql.training.labelled import Seen
from energyql.training.picture_fit import read_outputs
from energyql.training.settings import POOL_START
from energyql.training.steps import digest

STORE = ".wall"
"""Subfolder of the pictures: files with the features of some pictures each, in half precision."""
AT_ONCE = 32
"""Most pictures that are drawn together."""
_NUMBERS, _IDENTITY, _SIMPLE = "energyql/numbers", "energyql/identity", "energyql/simple"
"""Tensors of a file beside those of layers."""


class Wall:
    """Pictures, by number, and their features.

    Numbers below `POOL_START` are random pictures, which are labelled in the order of their numbers; others are chosen
    by what readers say. One thread draws while others read.

    Attributes:
        folder: the pictures; its record has all of the wall.
        pictures: where they come from.
        numbers: number of each picture, in the order in which they were drawn.
        layer: the layer whose features readers read.
        lock: held by a thread that adds pictures, or reads what others may change.
    """

    def __init__(self, folder: PictureFolder, pictures: Pictures, backbone: Backbone) -> None:
        self.folder, self.pictures, self.backbone = folder, pictures, backbone
        self.lock = threading.RLock()
        self.numbers: list[int] = []
        self.rows: dict[int, int] = {}
        self.layer = backbone.layers[min(1, len(backbone.layers) - 1)]
        self._identity = bytes.fromhex(digest((backbone.mark, SMALL, SIZES, *pictures.mark)))
        self._files: list[tuple[Path, range]] = []  # each with the rows of its pictures
        self._seen: dict[tuple[str, int], Tensor] = {}  # of labelled pictures: layer, row
        for path in sorted((folder.path / STORE).glob("*.safetensors")):
            self._load(path)
        self._record()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def settings(self) -> FeatureSettings:
        """What a linear reader reads."""
        side = min(self.backbone.side, self.pictures.side)
        return FeatureSettings(self.backbone.name, self.backbone.mark, self.layer, side)

    @property
    def is_random(self) -> Bool[Tensor, " pictures"]:
        """Whether each picture is a random one."""
        return torch.tensor(self.numbers) < POOL_START

    def next_numbers(self, count: int) -> list[int]:
        """Numbers of the next pictures to draw: at first random ones, then a quarter of them, and others.

        Of photographs there may be fewer than `count`.
        """
        random = sum(number < POOL_START for number in self.numbers)
        all_random, pool = self.absent(0), self.absent(POOL_START)
        chosen: list[int] = []
        for total in range(len(self.numbers), len(self.numbers) + count):
            both = (all_random, pool) if random < FIRST_RANDOM or random < RANDOM_SHARE * total else (pool, all_random)
            number = next(both[0], None)
            number = next(both[1], None) if number is None else number
            if number is None:
                break
            chosen.append(number)
            random += number < POOL_START
        return chosen

    def absent(self, start: int) -> Iterator[int]:
        """Numbers of pictures that are not on the wall: random ones from 0, others from `POOL_START` on."""
        return (number for number in self.pictures.numbers(start) if number not in self.rows)

    @torch.no_grad()
    def draw(self, numbers: Sequence[int]) -> None:
        """Draw pictures that the wall lacks, and add them, with their features, to it and to the folder."""
        new = [number for number in dict.fromkeys(numbers) if number not in self.rows]
        for start in range(0, len(new), AT_ONCE):
            self._draw(new[start : start + AT_ONCE])

    def _draw(self, new: Sequence[int]) -> None:
        images = self.pictures.draw(new)
        for number, picture in zip(new, self.pictures.show(images), strict=True):
            file = self.folder.file(number)
            if not file.exists():
                if max(picture.size) > LARGEST:
                    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
                write_picture(file, picture)
        small = thumbnails(images.float(), self.settings.side)
        pixels = ((small.clamp(-1, 1) + 1) * 127.5).round()  # as those from which a training learns
        names = [*self.backbone.layers, _SIMPLE]
        read = raw_features(self.backbone, pixels / 127.5 - 1, self.backbone.layers, SMALL)
        stored = {name: each.half().cpu() for name, each in zip(names, read, strict=True)}
        path = self.folder.path / STORE / f"{new[0]:07d}.safetensors"
        path.parent.mkdir(exist_ok=True)
        write_tensors(path, stored | {_NUMBERS: torch.tensor(new), _IDENTITY: _bytes(self._identity)})
        with self.lock:
            self._load(path)
        self._record()

    def give_way(self, _done: float) -> None:
        """Wait while another thread holds the lock, so that a click needs not share the cores with a long fit."""
        with self.lock:
            pass

    def seen(self, rows: Sequence[int]) -> Seen:
        """Features of the present layer for labelled pictures, each once, which stay in memory until the next call."""
        new = [row for row in rows if (self.layer, row) not in self._seen]
        known = self._seen | {
            (self.layer, row): each for row, each in zip(new, self._features(self.layer, new), strict=True)
        }
        self._seen = {(self.layer, row): known[self.layer, row] for row in rows}
        return Seen(torch.zeros(len(rows), 0), {self.layer: torch.stack([*self._seen.values()])})

    def seen_everywhere(self, rows: Sequence[int]) -> Seen:
        """Features of all layers, of which each is read from the files when it is looked at."""
        return Seen(torch.zeros(len(rows), 0), _Layers(partial(self._features, rows=rows), self.backbone.layers))

    def _features(self, layer: str, rows: Sequence[int]) -> Float[Tensor, "rows features"]:
        """Features of a layer, and those that need no backbone, of some pictures, which are read from their files."""
        wanted, found = {row: k for k, row in enumerate(rows)}, torch.zeros(len(rows), 0)
        for path, own in self._files:
            if here := [row for row in own if row in wanted]:
                part = _columns(path, layer)[[row - own.start for row in here]]
                if not found.shape[1]:
                    found = part.new_empty(len(rows), part.shape[1])
                found[[wanted[row] for row in here]] = part
        return found

    def read(self, judge: Judge, start: int = 0) -> Float[Tensor, "pictures outputs"]:
        """Outputs of a reader for all pictures from a row on."""
        parts = (
            _columns(path, self.layer)[max(0, start - own.start) :] for path, own in self._files if own.stop > start
        )
        return torch.cat([read_outputs(judge, Seen(torch.zeros(len(part), 0), {self.layer: part})) for part in parts])

    def _load(self, path: Path) -> None:
        """Add the pictures of a file; one that is damaged, or of another backbone, is removed, to be drawn again."""
        try:
            stored = read_tensors(path)
            numbers = stored[_NUMBERS].tolist()
            columns = [stored[name] for name in (*self.backbone.layers, _SIMPLE)]
            fits = stored[_IDENTITY].equal(_bytes(self._identity)) and not self.rows.keys() & set(numbers)
            whole = all(len(column) == len(numbers) for column in columns)
        except (KeyError, ModelError):
            fits = whole = False
        if not (fits and whole):
            path.unlink()
            return
        self._files.append((path, range(len(self), len(self) + len(numbers))))
        self.rows |= {number: len(self.numbers) + k for k, number in enumerate(numbers)}
        self.numbers += numbers

    def _record(self) -> None:
        """Record in the folder which pictures it has."""
        random = sum(number < POOL_START for number in self.numbers)
        pool = dict.fromkeys([*self.folder.unsure, *(number for number in self.numbers if number >= POOL_START)])
        if random > self.folder.random or len(pool) > len(self.folder.unsure):
            self.folder = self.folder.having(max(random, self.folder.random), tuple(pool))


class _Layers(Mapping[str, Tensor]):
    """Layer -> features of some pictures, which are in memory only while they are used."""

    def __init__(self, read: Callable[[str], Tensor], layers: Sequence[str]) -> None:
        self._read, self._layers = read, layers

    def __getitem__(self, layer: str) -> Tensor:
        return self._read(layer)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def _columns(path: Path, layer: str) -> Float[Tensor, "pictures features"]:
    """What is read of a file: a layer, and the features that need no backbone."""
    stored = read_tensors(path)
    return torch.cat([stored[layer], stored[_SIMPLE]], 1)


def _bytes(mark: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(mark, np.uint8).copy())
