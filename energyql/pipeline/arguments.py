"""Arguments that callers give, checked in one way everywhere."""

from __future__ import annotations

import math
from numbers import Integral, Real

import torch

from energyql.errors import ArgumentError
from energyql.sampling import Sampler, make_sampler

MOST_SAMPLES = 1_000_000
"""Most samples of one call."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""What energies can be computed in, by name."""


def whole_number(name: str, value: int, *, least: int = 1, most: int = MOST_SAMPLES) -> int:
    """The value of the argument `name`, a whole number from `least` to `most`.

    Raises:
        ArgumentError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= value <= most:
        raise ArgumentError(f"{name} must be a whole number from {least} to {most:,}, not {value!r}")
    return int(value)


def finite_number(name: str, value: float) -> float:
    """The value of the argument `name`, a finite number.

    Raises:
        ArgumentError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ArgumentError(f"{name} must be a finite number, not {value!r}")
    return float(value)


def choose_sampler(sampler: str | Sampler, strength: float | None) -> Sampler:
    """The sampler meant by a name and a strength, or a sampler as it is.

    Raises:
        ArgumentError: there is no such sampler, or a strength comes with a sampler that has its own.
    """
    if isinstance(sampler, str):
        return make_sampler(sampler, 1.0 if strength is None else finite_number("strength", strength))
    if strength is not None:
        raise ArgumentError("strength belongs to the sampler", hint="set it where you make the sampler")
    if not callable(getattr(sampler, "sample", None)):
        raise ArgumentError(f"a sampler is a name or an object with a method sample, not {sampler!r}")
    return sampler


def choose_precision(name: str) -> torch.dtype:
    """The type of number called `name`.

    Raises:
        ArgumentError: energies are not computed in it.
    """
    if name not in PRECISIONS:
        raise ArgumentError(f"there is no precision {name!r}", hint=f"precisions: {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one.

    Raises:
        ArgumentError: there is no such device here.
    """
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ArgumentError(f"device {name!r} is not available here", hint="use auto, cpu, cuda or mps") from error
    return device
