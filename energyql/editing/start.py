"""What an edit can start from, as latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.editing.latents import Latents, LatentSpace
from energyql.editing.photographs import Picture
from energyql.editing.saved import Saved
from energyql.errors import ArgumentError
from energyql.pipeline.arguments import whole_number
from energyql.pipeline.result import Result
from energyql.sampling import prior_latents

Start = int | Sequence[int] | Tensor | npt.NDArray[Any] | Result | Saved | Picture | Sequence[Picture]
"""A seed, seeds, latents (n, z_dim), an earlier result or the folder that it was saved to, or photographs."""

KINDS = "a seed, a list of seeds, latents (n, z_dim), a Result or its folder, or pictures (paths or PIL images)"


@dataclass(frozen=True, eq=False)
class Begun:
    """A start as latents.

    Attributes:
        latents: on the model's device.
        index: number of each sample in its run, (n,).
        facts: for the provenance.
        result: the start itself, where it was a result with its pictures.
    """

    latents: Latents
    index: npt.NDArray[np.int64]
    facts: dict[str, Any]
    result: Result | None = None

    def __len__(self) -> int:
        return len(self.latents)


def pictures_of(start: Any) -> list[Picture] | None:
    """The pictures that a start consists of; `None` where it consists of something else."""
    if isinstance(start, Picture):
        return [start]
    if isinstance(start, list | tuple) and start and all(isinstance(item, Picture) for item in start):
        return list(start)
    return None


def begin(start: Any, n: int | None, space: LatentSpace) -> Begun:
    """The latents of a start that is no picture.

    Args:
        start: see `Start`.
        n: samples of a seed; 1 by default.
        space: the model's latents.

    Raises:
        ArgumentError: it is nothing to start from, or does not fit the model.
    """
    model = space.model
    size = model.generator.z_dim
    if n is not None and not _is_seed(start):
        raise ArgumentError("n is the number of samples of one seed", hint="leave it out for any other start")
    if isinstance(start, Result | Saved):
        _check_result(start, space)
        latents = space.beside(start.z.to(model.device), start.w.to(model.device))
        drawn = start if isinstance(start, Result) else None
        return Begun(latents, start.index, {"start": start.provenance}, drawn)
    if _is_seed(start):
        count, seed = whole_number("n", 1 if n is None else n), _seed(start)
        z = prior_latents(seed, 0, count, size)
        return Begun(Latents(z.to(model.device)), np.arange(count), {"start": {"seed": seed, "n": count}})
    if isinstance(start, list | tuple) and start and all(map(_is_seed, start)):
        seeds = [_seed(seed) for seed in start]
        z = torch.cat([prior_latents(seed, 0, 1, size) for seed in seeds])
        return Begun(Latents(z.to(model.device)), np.arange(len(seeds)), {"start": {"seeds": seeds}})
    if isinstance(start, Tensor | np.ndarray):
        z = _latents(start, size)
        return Begun(Latents(z.to(model.device)), np.arange(len(z)), {"start": {"latents": len(z)}})
    raise ArgumentError(f"an edit cannot start from {_shown(start)}", hint=f"give {KINDS}")


def _is_seed(start: Any) -> bool:
    return isinstance(start, Integral) and not isinstance(start, bool)


def _seed(seed: Any) -> int:
    return whole_number("a seed", seed, least=0, most=2**64 - 1)


def _latents(start: Tensor | npt.NDArray[Any], size: int) -> Tensor:
    try:
        z = torch.as_tensor(start).detach()
    except TypeError as error:
        raise ArgumentError(f"latents must be numbers: {error}") from error
    z = z[None] if z.ndim == 1 else z
    if z.ndim != 2 or z.shape[1] != size or not len(z) or not z.is_floating_point():
        raise ArgumentError(
            f"start latents must be z, floating point of shape (n, {size}), not {tuple(start.shape)}",
            hint="of a w, give the Result that holds it, or the picture",
        )
    if not z.isfinite().all():
        raise ArgumentError("start latents must be finite")
    return z.float()


def _check_result(start: Result | Saved, space: LatentSpace) -> None:
    if not len(start):
        raise ArgumentError("an edit cannot start from a result without pictures")
    theirs, ours = (facts.get("generator") for facts in (start.provenance["fingerprints"], space.model.fingerprints))
    if theirs != ours or start.z.shape[1] != space.model.generator.z_dim:
        raise ArgumentError(
            f"the result was made by another model, {start.provenance['model']!r}",
            hint="name that model, or give the pictures themselves, start=result.images",
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
