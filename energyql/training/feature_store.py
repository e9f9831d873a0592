"""Features of pictures: read once by a backbone, and kept in a file for the next training on the same pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from energyql.attributes.backbones import Backbone
from energyql.attributes.judge import raw_features
from energyql.attributes.statistics import SIZES
from energyql.errors import ArgumentError, ModelError
from energyql.files import read_tensors, sole_writer, write_tensors
from energyql.training.feature_fit import SMALL
from energyql.training.labelled import Seen
from energyql.training.steps import Course, digest

STORE = ".features.safetensors"
"""Name of a file of features: in half precision, a row for each picture."""
AT_ONCE = 64
"""Number of pictures of which features are computed between two reports of progress."""
_PICTURES, _BACKBONE, _SIMPLE = "energyql/pictures", "energyql/backbone", "energyql/simple"
"""Tensors of such a file beside those of layers: the SHA-256 of each picture, that of the backbone and the kind of
device, and features that need no backbone."""


@torch.no_grad()
def see(backbone: Backbone, pictures: Tensor, layers: Sequence[str], course: Course) -> Seen:
    """Pictures (n, 3, side, side) uint8 with the features of some layers, followed by those that need no backbone.

    The file at the checkpoint of `course` keeps them: only pictures that it lacks are read. It begins anew with another
    backbone, or if it lacks a layer.
    """
    device = torch.device(course.device)
    identity = bytes.fromhex(digest((backbone.mark, SMALL, SIZES, device.type)))
    names = [*layers, _SIMPLE]
    known = _read(course.checkpoint, identity, names)
    marks = [hashlib.sha256(picture.numpy().tobytes()).digest() for picture in pictures]
    rows = {mark: row for row, mark in enumerate(_marks(known[_PICTURES]))} if known else {}
    new = list({mark: row for row, mark in enumerate(marks) if mark not in rows}.values())
    parts: list[dict[str, Tensor]] = [known] if known else []
    try:
        for start in range(0, len(new), AT_ONCE):
            part = new[start : start + AT_ONCE]
            images = (pictures[part].float() / 127.5 - 1).to(device)
            read = [features.half().cpu() for features in raw_features(backbone, images, layers, SMALL)]
            parts.append({_PICTURES: _rows([marks[row] for row in part])} | dict(zip(names, read, strict=True)))
            course.progress(min(1.0, (start + AT_ONCE) / len(new)))
    finally:  # also what was read before an interruption
        known = {name: torch.cat([part[name] for part in parts]) for name in (_PICTURES, *names)} if parts else {}
        if new and known:
            _write(course.checkpoint, known | {_BACKBONE: _rows([identity])})
    rows = {mark: row for row, mark in enumerate(_marks(known[_PICTURES]))}
    order = [rows[mark] for mark in marks]
    simple = known[_SIMPLE][order]
    return Seen(pictures, {layer: torch.cat([known[layer][order], simple], 1) for layer in layers})


def _rows(marks: Sequence[bytes]) -> Tensor:
    return torch.from_numpy(np.frombuffer(b"".join(marks), np.uint8).reshape(-1, 32).copy())


def _marks(rows: Tensor) -> list[bytes]:
    return [row.tobytes() for row in rows.numpy()]


def _read(path: Path | None, identity: bytes, names: Sequence[str]) -> dict[str, Tensor]:
    """What a file of features holds, {} if it is missing, damaged or of another `identity`."""
    if path is None or not path.is_file():
        return {}
    try:
        stored = read_tensors(path)
        kept = {name: stored[name] for name in (_PICTURES, *names)}
        if _marks(stored[_BACKBONE]) != [identity] or {len(each) for each in kept.values()} != {len(kept[_PICTURES])}:
            return {}
    except (KeyError, ModelError):
        return {}
    return kept


def _write(path: Path | None, tensors: Mapping[str, Tensor]) -> None:
    """Write a file of features; where another training writes it, or nobody may, the next one reads pictures again."""
    if path is not None:
        with suppress(ArgumentError), sole_writer(path.parent, "features of pictures", path.name):
            write_tensors(path, tensors)
