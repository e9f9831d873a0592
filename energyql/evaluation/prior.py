"""Pictures of the prior, judged once for a model and kept on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.evaluation.subject import Seen, Subject
from energyql.files import replacing
from energyql.progress import Report
from energyql.sampling import normals

SHARD = 500
"""Samples in a file: what an interruption may cost."""


def prior_samples(subject: Subject, count: int, folder: Path, report: Report, *, seed: int = 0) -> Seen:
    """Exact samples of the prior, the same for every call with the same seed; a longer run begins with a shorter one.

    Args:
        subject: the model.
        count: how many.
        folder: where judged samples are kept, in files of `SHARD`; those of another model are left alone.
        report: called with the stage "prior".
        seed: of the samples; they differ from those of `prior_latents` for every seed.

    Raises:
        ArgumentError: nothing can be written to the folder.
    """
    parts: list[Seen] = []
    place = folder / f"prior-{subject.identity[:16]}-{seed}"
    for start in range(0, count, SHARD):
        z = normals(seed, start, SHARD, subject.z_dim, stream="bench/prior")
        parts.append(_kept(place / f"{start:07d}.npz", subject, z))
        report("prior", min(1.0, (start + SHARD) / count))
    return Seen.join(parts).select(np.arange(count))


def _kept(path: Path, subject: Subject, z: Tensor) -> Seen:
    found = read_seen(path, z)
    if found is None:
        found = subject.look(z)
        write_seen(path, found, ("values", "features", "w"))
    return found


def write_seen(path: Path, seen: Seen, parts: tuple[str, ...], **more: np.ndarray[Any, Any]) -> None:
    """Keep what was seen, whole or not at all.

    Args:
        path: ends in .npz.
        seen: what.
        parts: of it: "z", "w", "values", "features".
        more: arrays to keep beside it.

    Raises:
        ArgumentError: it cannot be written.
    """
    arrays = dict(more)
    for part in parts:
        if part == "values":
            arrays |= {f"value/{name}": column for name, column in seen.values.items()}
        elif (tensor := getattr(seen, part)) is not None:
            arrays[part] = tensor.numpy()
    try:
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]  # names are no keywords of savez
    except OSError as error:
        raise ArgumentError(f"cannot write {path}: {error.strerror or error}") from error


def read_seen(path: Path, z: Tensor | None = None) -> Seen | None:
    """What `write_seen` wrote; nothing where there is no such file, or a damaged one.

    Args:
        path: which.
        z: the latents, where the file does not hold them.
    """
    arrays = read_arrays(path)
    if arrays is None or "w" not in arrays or (z is None and "z" not in arrays):
        return None
    values = {name.removeprefix("value/"): column for name, column in arrays.items() if name.startswith("value/")}
    features = torch.from_numpy(arrays["features"]) if "features" in arrays else None
    return Seen(torch.from_numpy(arrays["z"]) if z is None else z, torch.from_numpy(arrays["w"]), values, features)


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]] | None:
    """The arrays of an .npz file; nothing where there is none that can be read."""
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return dict(stored.items())
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):
        return None
