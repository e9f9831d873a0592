"""The pictures that a job begins with: those of a run, by number, those of another job, or an uploaded photograph."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from energyql.editing.folder import SavedResult
from energyql.editing.invert import Inversion
from energyql.editing.latents import LatentSpace
from energyql.pipeline.draw import PreparedQuery
from energyql.pipeline.result import Result
from energyql.studio.jobs import Job
from energyql.studio.problems import StudioError
from energyql.studio.results import JobResult

MOST_SPACES = 4
"""Largest number of latent spaces that are kept, one for each model, truncation and label."""
_SPACES: dict[tuple[Any, ...], LatentSpace] = {}


@dataclass(frozen=True, eq=False)
class RunPictures:
    """Pictures of a run, which are drawn when they are read.

    Attributes:
        prepared: the query of the run.
        numbers: their numbers in the run.
        inversion: always `None`; see `HeldPictures`.
    """

    prepared: PreparedQuery
    numbers: Sequence[int]
    inversion: Inversion | None = None

    def read(self, job: Job) -> Result:
        """Draw and return the pictures, those of `energyql.generate`; `job` receives the progress."""
        parts = []
        for done, number in enumerate(self.numbers):

            def share(stage: str, fraction: float, done: int = done) -> None:
                job.report(stage, (done + fraction) / len(self.numbers))

            parts.append(self.prepared.run(1, first=number, progress=share))
        return Result.join(parts)


@dataclass(frozen=True, eq=False)
class HeldPictures:
    """Pictures of another job.

    Attributes:
        prepared: a query with their settings.
        pictures: the pictures; of several results only the latents, because these have no common verdict.
        inversion: the inversion of a photograph, if they are its reconstruction.
    """

    prepared: PreparedQuery
    pictures: Result | SavedResult
    inversion: Inversion | None

    def read(self, job: Job) -> Result | SavedResult:
        """Return the pictures."""
        return self.pictures


Pictures = RunPictures | HeldPictures


def held_pictures(result: JobResult, positions: Sequence[int]) -> tuple[Result | SavedResult, Inversion | None]:
    """Return pictures of a job, and the inversion if they are the reconstruction of a photograph.

    Args:
        result: the result of the job.
        positions: positions of the pictures; empty for those of the last step of an edit, or all of any other job.

    Raises:
        StudioError: the job has no such picture, or none yet.
    """
    results, positions = result.results, list(positions)
    if not results:
        raise StudioError("NotReady", "the job has no picture yet", hint="ask again when the request is done")
    if not positions:
        count = sum(map(len, results))
        positions = list(range(count - len(results[-1]) if result.kind == "edit" else 0, count))
    located = [result.locate(position) for position in positions]
    places = [place for place in located if place is not None]
    if len(places) < len(located):
        missing = positions[located.index(None)]
        hint = f"there are {len(result.pictures)}, counted from 0"
        raise StudioError("NotKept", f"there is no picture {missing}", hint=hint)
    first, rows = places[0][0], [row for _, row in places]
    if all(owner is first for owner, _ in places):
        return first[rows], result.photograph
    w = [owner.w[row] for owner, row in places]
    if layered := [part for part in w if part.ndim == 2]:  # some in W, others in W+
        w = [part if part.ndim == 2 else part.expand_as(layered[0]) for part in w]
    z, index = torch.stack([owner.z[row] for owner, row in places]), [owner.index[row] for owner, row in places]
    return SavedResult(z, torch.stack(w), np.array(index, np.int64), first.provenance), None


def shared_space(prepared: PreparedQuery) -> LatentSpace:
    """Return the latent space for a query's settings; jobs share it, because it holds a copy of the mapping network."""
    facts = prepared.provenance
    key = id(prepared.model), facts["truncation"], facts["label"]  # unique: a space keeps its model alive
    if key not in _SPACES:
        while len(_SPACES) >= MOST_SPACES:
            _SPACES.pop(next(iter(_SPACES)))
        _SPACES[key] = LatentSpace(prepared.model, facts["truncation"], facts["label"])
    return _SPACES[key]


FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""Media type -> format of pictures that are read; no other decoder is called."""


def check_photograph(data: bytes, most: int) -> None:
    """Read the header of a picture, to refuse a wrong one at once.

    Args:
        data: content of the file.
        most: largest number of pixels.

    Raises:
        StudioError: the data is no PNG, JPEG or WebP, or has more pixels.
    """
    with _opened(data, most):
        pass


def read_photograph(data: bytes, most: int) -> Image.Image:
    """Return a picture, upright.

    Args:
        data: content of the file.
        most: largest number of pixels.

    Raises:
        StudioError: the data is no PNG, JPEG or WebP, is damaged, or has more pixels.
    """
    with _opened(data, most) as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        return opened.convert("RGB")


def text_of(data: bytes, most: int) -> str:
    """Return the text field "energyql" of a PNG; empty if it has none. Pixels are not decoded.

    Args:
        data: content of the file.
        most: largest number of pixels.

    Raises:
        StudioError: the data is no picture, or has more pixels.
    """
    with _opened(data, most) as opened:
        text = opened.info.get("energyql", "")
        return text if isinstance(text, str) else ""


@contextmanager
def _opened(data: bytes, most: int) -> Iterator[Image.Image]:
    """Yield a picture; any error of a decoder inside the block becomes a `StudioError`."""
    try:
        with Image.open(io.BytesIO(data), formats=list(FORMATS.values())) as opened:
            if opened.width * opened.height > most:
                raise Image.DecompressionBombError
            yield opened
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # from limits of Pillow
        message = f"the picture has more than {most / 1e6:g} million pixels"
        raise StudioError("TooLarge", message, hint="reduce it first") from None
    except StudioError:
        raise
    except Exception as error:  # decoders raise errors of many classes for damaged data
        hint = "send a PNG, a JPEG or a WebP"
        raise StudioError(
            "InvalidRequest", "the picture cannot be read: it is damaged or of another kind", hint=hint
        ) from error
