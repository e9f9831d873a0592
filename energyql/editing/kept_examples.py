"""What is kept of drawn examples between runs: a file for each model in the user's folder of caches.

An inversion compares its pictures with examples of the prior, which are always the same, and drawing them takes longer
than all else. Nothing depends on the files: without them, or where they cannot be read or written, pictures are drawn.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from energyql.attributes.judge import JointJudge, Judge
from energyql.errors import ArgumentError, ModelError
from energyql.files import read_tensors, write_tensors
from energyql.generators.base import Generator
from energyql.generators.families import family_of, module_fingerprint
from energyql.numerics.shapes import Float
from energyql.version import __version__

FOLDER = "ENERGYQL_CACHE"
"""Environment variable with the folder of caches; empty for none."""
MOST_FILES, MOST_BYTES = 32, 1 << 25
"""Files that are kept, those that were used last; and the most numbers of one, in bytes: larger ones are not kept."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What an inversion needs of the pictures of examples.

    Attributes:
        shape: of one picture, (channels, height, width).
        thumbnails: the pictures, reduced, (m, numbers).
        features: of the pictures, (m, numbers); `None` without an embedding module.
        pixel_variance: of a pixel over the pictures, the mean over all pixels.
    """

    shape: tuple[int, int, int]
    thumbnails: Float[Tensor, "m numbers"]
    features: Float[Tensor, "m features"] | None
    pixel_variance: float


def cache_folder() -> Path | None:
    """Return the user's folder for files that can be made again; `None` if there shall be none."""
    named = os.environ.get(FOLDER)
    if named is not None:
        return Path(named) if named else None
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "energyql" if base and os.path.isabs(base) else None


def place_of(generator: Generator, w: Tensor, embed: object, batch_size: int) -> Path | None:
    """Return where the examples with these w are kept; `None` if they are not.

    The name of the file is a digest of all that the pictures and their features depend on: w, which depends on the
    examples, truncation and label; weights and settings of the generator; the judge whose features are compared; and
    what the last bits depend on. Of code that is not the library's, nobody knows whether it is still the same, so
    nothing is kept for other generators and other embedding functions.
    """
    folder, judges = cache_folder(), _judges(embed)
    if folder is None or judges is None or family_of(generator) is None:
        return None
    parts = [
        __version__, torch.__version__, w.device.type, str(w.dtype), str(batch_size),
        type(generator).__name__, repr(getattr(generator, "config", "")), module_fingerprint(generator),
        *(f"{judge.side} {module_fingerprint(judge)}" for judge in judges),
    ]  # fmt: skip
    digest = hashlib.sha256("\n".join(parts).encode())
    digest.update(w.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return folder / "examples" / f"{digest.hexdigest()[:32]}.safetensors"


def _judges(embed: object) -> list[Judge] | None:
    """Return the judges whose features are compared; `None` if it is something else that is compared."""
    if embed is None:
        return []
    owner = getattr(embed, "__self__", None)
    if getattr(embed, "__name__", "") != "features" or not isinstance(owner, Judge | JointJudge):
        return None
    return [owner] if isinstance(owner, Judge) else list(owner.judges)


def kept_or(place: Path | None, like: Tensor, has_features: bool, draw: Callable[[], Seen]) -> Seen:
    """Return what is kept of the examples, or draw them and keep it.

    Args:
        place: of `place_of`.
        like: w of the examples, for their number, type and device.
        has_features: whether features are needed.
        draw: draws the examples.
    """
    if place is None:
        return draw()
    if (found := _read(place, like, has_features)) is not None:
        with suppress(OSError):
            os.utime(place)  # the files that were used last are kept
        return found
    seen = draw()
    tensors = {
        "shape": torch.tensor(seen.shape), "thumbnails": seen.thumbnails,
        "pixel_variance": torch.tensor(seen.pixel_variance, dtype=torch.float64),
    } | ({} if seen.features is None else {"features": seen.features})  # fmt: skip
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) <= MOST_BYTES:
        with suppress(OSError, ArgumentError):  # nobody needs the file, so a folder that cannot be written does no harm
            write_tensors(place, tensors)
            _remove_oldest(place.parent)
    return seen


def _read(place: Path, like: Tensor, has_features: bool) -> Seen | None:
    """Return what a file holds; `None` if it is missing, damaged or of another form."""
    try:
        tensors = read_tensors(place)
        channels, height, width = (int(size) for size in tensors["shape"])
        variance, thumbnails = float(tensors["pixel_variance"]), tensors["thumbnails"]
        features = tensors["features"] if has_features else None
    except (ModelError, KeyError, TypeError, ValueError, RuntimeError):
        return None
    for part in (thumbnails, features):
        if part is not None and not (
            part.ndim == 2 and len(part) == len(like) and part.dtype == like.dtype and bool(part.isfinite().all())
        ):
            return None
    if min(channels, height, width) < 1 or not 0 < variance < float("inf"):
        return None
    where = like.device
    return Seen(
        (channels, height, width), thumbnails.to(where), None if features is None else features.to(where), variance
    )


def _remove_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[MOST_FILES:]:
        path.unlink(missing_ok=True)
