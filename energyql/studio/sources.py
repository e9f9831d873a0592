"""The pictures that a job begins with: numbers of a run, pictures of a job that is held, or what a visitor sends."""

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
"""Latent spaces that are kept, one for each model and truncation."""
_SPACES: dict[tuple[Any, ...], LatentSpace] = {}


@dataclass(frozen=True, eq=False)
class RunPictures:
    """Pictures of a run by their numbers; they need not have been drawn before."""

    prepared: PreparedQuery
    numbers: Sequence[int]
    inversion: Inversion | None = None

    def read(self, job: Job) -> Result:
        """Draw the pictures, those of `energyql.generate`."""
        parts = []
        for done, number in enumerate(self.numbers):

            def share(stage: str, fraction: float, done: int = done) -> None:
                job.report(stage, (done + fraction) / len(self.numbers))

            parts.append(self.prepared.run(1, first=number, progress=share))
        return Result.join(parts)


@dataclass(frozen=True, eq=False)
class HeldPictures:
    """Pictures of a job. Those of several queries have no common verdict, so only their latents are kept."""

    prepared: PreparedQuery
    pictures: Result | SavedResult
    inversion: Inversion | None

    def read(self, job: Job) -> Result | SavedResult:
        """Return the pictures."""
        return self.pictures


Pictures = RunPictures | HeldPictures


def held_pictures(result: JobResult, positions: Sequence[int]) -> tuple[Result | SavedResult, Inversion | None]:
    """Return pictures of a job, by default those of an edit's last step and all of any other job.

    A photograph's inversion is returned with them.

    Raises:
        StudioError: the job has no such picture, or none yet.
    """
    results, positions = result.results, list(positions)
    if not results:
        raise StudioError("NotReady", "the job has no picture yet", hint="ask again when the request is done")
    if not positions:
        count = sum(map(len, results))
        positions = list(range(count - len(results[-1]) if result.kind == "edit" else 0, count))
    found = [result.locate(position) for position in positions]
    places = [place for place in found if place is not None]
    if len(places) < len(found):
        missing = positions[found.index(None)]
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
    """Return the latent space of a query's settings, one for all jobs: it holds a copy of the mapping network."""
    facts = prepared.provenance
    key = id(prepared.model), facts["truncation"], facts["label"]  # a space that is kept keeps its model, and so its id
    if key not in _SPACES:
        while len(_SPACES) >= MOST_SPACES:
            _SPACES.pop(next(iter(_SPACES)))
        _SPACES[key] = LatentSpace(prepared.model, facts["truncation"], facts["label"])
    return _SPACES[key]


FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""Formats that are read, by their media type: no other decoder sees the data."""


def check_photograph(data: bytes, most: int) -> None:
    """Read the header of a picture, so that a wrong one is refused before it waits.

    Raises:
        StudioError: it is no PNG, JPEG or WebP, or has more than `most` pixels.
    """
    with _opened(data, most):
        pass


def read_photograph(data: bytes, most: int) -> Image.Image:
    """Decode a picture and turn it upright.

    Raises:
        StudioError: it is no PNG, JPEG or WebP, it is damaged, or it has more than `most` pixels.
    """
    with _opened(data, most) as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        return opened.convert("RGB")


def text_of(data: bytes, most: int) -> str:
    """Return the text field "energyql" of a PNG; empty if it has none. No pixel is decoded.

    Raises:
        StudioError: it is no picture.
    """
    with _opened(data, most) as opened:
        text = opened.info.get("energyql", "")
        return text if isinstance(text, str) else ""


@contextmanager
def _opened(data: bytes, most: int) -> Iterator[Image.Image]:
    """Open a picture; whatever a decoder raises inside the block becomes a `StudioError`."""
    try:
        with Image.open(io.BytesIO(data), formats=list(FORMATS.values())) as opened:
            if opened.width * opened.height > most:
                raise Image.DecompressionBombError
            yield opened
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow has bounds of its own
        message = f"the picture has more than {most / 1e6:g} million pixels"
        raise StudioError("TooLarge", message, hint="reduce it first") from None
    except StudioError:
        raise
    except Exception as error:  # decoders raise errors of many kinds for damaged data
        hint = "send a PNG, a JPEG or a WebP"
        raise StudioError(
            "InvalidRequest", "the picture cannot be read: it is damaged or of another kind", hint=hint
        ) from error
