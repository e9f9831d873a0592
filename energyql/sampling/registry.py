"""Samplers by name, chains of samplers, and records of samplers.

A record is the JSON value `{"name": ..., "settings": {...}}` that describes a sampler in files of results. A setting
that is an object with settings, such as another sampler, is a record too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

from energyql.errors import ArgumentError
from energyql.sampling.base import (
    SAMPLERS,
    Batch,
    BatchSampler,
    Sampler,
)
from energyql.sampling.descent import DescentSampler
from energyql.sampling.langevin import LangevinSampler, PredictorCorrector
from energyql.sampling.ode import ODESolver
from energyql.sampling.population import PopulationSampler
from energyql.sampling.slice import SliceSampler

FLOW_TOLERANCE = 0.01
"""Energy, in nats, at which flows in this module end: the query then has a probability of 0.99."""
HANDOVER = 1.0
"""λE, in nats, at which slice moves take over from the first descent of the sampler "slice+descent"; P is then 0.37."""


@dataclass(frozen=True)
class Chain(BatchSampler):
    """A `Sampler` that runs at least one sampler after the other, each from the latents where the one before ended.

    A sampler with a setting `enough` does not evaluate samples whose energy an earlier sampler recorded as low enough.
    The result has the status of the last sampler, also for samples that earlier ones could not finish, the sum of all
    evaluations, and of diagnostics with the same name those of the later sampler.
    """

    samplers: tuple[BatchSampler, ...]

    def __post_init__(self) -> None:
        if not self.samplers:
            raise ArgumentError("a chain needs at least one sampler")

    @property
    def name(self) -> str:  # type: ignore[override]
        """The names of the samplers, joined by +, such as "slice+descent"."""
        return "+".join(sampler.name or type(sampler).__qualname__ for sampler in self.samplers)

    @property
    def descends(self) -> bool:  # type: ignore[override]
        """Whether samples of the last sampler end where the energy is low, instead of following the posterior."""
        return self.samplers[-1].descends

    @property
    def needs_gradient(self) -> bool:  # type: ignore[override]
        """Whether one of the samplers uses the gradient of the energy."""
        return any(sampler.needs_gradient for sampler in self.samplers)

    @property
    def needs_floor(self) -> bool:  # type: ignore[override]
        """Whether one of the samplers needs an energy with a lower bound."""
        return any(sampler.needs_floor for sampler in self.samplers)

    def run(self, batch: Batch) -> None:
        """Run all samplers on a batch, one after the other; each sampler is an equal share of the progress."""
        for number, sampler in enumerate(self.samplers):
            part = batch.restarted(batch.noise.part(str(number)), partial(self._report, batch, number), number > 0)
            sampler.run(part)
            batch.z, batch.energies, batch.status = part.z, part.energies, part.status
            batch.values += part.values
            batch.gradients += part.gradients

    def _report(self, batch: Batch, number: int, done: float, moving: int) -> None:
        if batch.progress is not None:
            count = len(self.samplers)
            batch.progress((number + done) / count, moving if number == count - 1 else len(batch.z))


def slice_then_ode(*, strength: float = 1.0) -> Sampler:
    """Sampler "slice+ode": draws from the posterior; those with exp(-λE) below 0.99 then follow the flow until 0.99."""
    return Chain((SliceSampler(strength=strength), ODESolver(strength=strength, enough=FLOW_TOLERANCE)))


def slice_then_descent(*, strength: float = 1.0) -> Sampler:
    """Sampler "slice+descent": draws near the posterior; those with exp(-λE) below 0.9 then descend until 0.9."""
    near = DescentSampler(strength=strength, enough=HANDOVER)
    draws = SliceSampler(strength=strength, descent=near, bracket=math.pi / 2)
    return Chain((draws, DescentSampler(strength=strength)))


def flow_to_tolerance(*, strength: float = 1.0) -> Sampler:
    """Sampler "ode": samples follow the flow of `ODESolver` until exp(-λE) is 0.99."""
    return ODESolver(strength=strength, enough=FLOW_TOLERANCE)


SAMPLERS |= {
    "slice+descent": slice_then_descent,
    "slice+ode": slice_then_ode,
    "slice": SliceSampler,
    "population": PopulationSampler,
    "ode": flow_to_tolerance,
    "descent": DescentSampler,
    "langevin": LangevinSampler,
    "predictor-corrector": PredictorCorrector,
    "published-ode": ODESolver.published,
    "published-langevin": LangevinSampler.published,
    "published-predictor-corrector": PredictorCorrector.published,
}


def make_sampler(name: str, strength: float = 1.0) -> Sampler:
    """Make the sampler called `name`, one of `SAMPLERS`, which multiplies the energy by `strength`.

    Raises:
        ArgumentError: there is no sampler of this name, or `strength` is not above 0, or is above a million.
    """
    if name not in SAMPLERS:
        raise ArgumentError(f"there is no sampler {name!r}", hint=f"samplers: {', '.join(SAMPLERS)}")
    return SAMPLERS[name](strength=strength)


Record = dict[str, Any]


def describe_sampler(sampler: object) -> Record:
    """Return the record of a sampler: `{"name": ..., "settings": {...}}`, with JSON values.

    The name is the attribute `name` of a `BatchSampler`, if it has one, else that of the class. The settings are the
    fields of a dataclass, or else the attributes. Numbers, texts, and lists, tuples and dicts of them stay as they are;
    a dataclass, or an object whose class defines no `repr`, becomes a record; anything else its `repr`.
    """
    return _describe(sampler, ())


def _describe(value: object, outer: tuple[int, ...]) -> Record:
    kind, name = type(value), value.name if isinstance(value, BatchSampler) else ""
    if is_dataclass(value):
        settings = {one.name: getattr(value, one.name) for one in fields(value) if one.repr}
    else:
        settings = {slot: getattr(value, slot, None) for slot in getattr(kind, "__slots__", ())}
        settings |= getattr(value, "__dict__", {})
        settings = settings or ({"repr": repr(value)} if _has_own_repr(value) else {})
    plain = {one: _plain(setting, (*outer, id(value))) for one, setting in settings.items()}
    return {"name": str(name or kind.__qualname__), "settings": plain}


def _plain(value: object, outer: tuple[int, ...]) -> Any:
    if id(value) in outer:
        return "..."
    if value is None or isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if type(value) in (tuple, list):
        return [_plain(entry, outer) for entry in value]  # type: ignore[attr-defined]
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, outer) for key, entry in value.items()}
    has_fields = is_dataclass(value) and not isinstance(value, type)
    return _describe(value, outer) if has_fields or not _has_own_repr(value) else repr(value)


def _has_own_repr(value: object) -> bool:
    return type(value).__repr__ is not object.__repr__


def check_record(value: object) -> None:
    """Check that a value from a file of results is the record of a sampler, or a list of them; else a `ValueError`."""
    if isinstance(value, list):
        for one in value:
            check_record(one)
    elif not (
        isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("settings"), dict)
    ):
        raise ValueError(f"a sampler is recorded by its name and settings, not by {type(value).__name__}")


def strengths(record: object) -> set[float]:
    """Collect all values of settings called `strength` in a record, also in nested ones, or in a list of records."""
    if isinstance(record, list):
        return set().union(*map(strengths, record))
    if not isinstance(record, dict):
        return set()
    own = {record["strength"]} if isinstance(record.get("strength"), int | float) else set[float]()
    return own.union(*map(strengths, record.values()))


def registered(record: object) -> tuple[str, float | None] | None:
    """Inverse of `make_sampler`: the name and strength (`None` for 1) that make the sampler that `record` describes.

    The result is `None` if none do, for example because other settings were changed. A strength out of range raises an
    `ArgumentError`.
    """
    if len(values := strengths(record)) != 1:
        return None
    strength = values.pop()
    for name in SAMPLERS:
        if describe_sampler(make_sampler(name, strength)) == record:
            return name, None if strength == 1 else strength
    return None


def sampler_words(record: object) -> str:
    """Short text about a record, such as "sampler descent, strength 2", or its name alone if settings were changed."""
    if isinstance(record, list):
        return " and ".join(map(sampler_words, record))
    try:
        entry = registered(record)
    except ValueError:  # of a result that someone changed
        entry = None
    if entry is None:
        return str(record["name"]) if isinstance(record, dict) else ""
    name, strength = entry
    return f"sampler {name}" if strength is None else f"sampler {name}, strength {strength:g}"


def sampler_text(record: object) -> str:
    """Text of a sampler's JSON record, as `describe_sampler` makes it, such as `descent(strength=1.0, enough=0.1)`.

    Also of a list of records; of any other value, such as that of a setting, by `str`.
    """
    if isinstance(record, list):
        return f"[{', '.join(map(sampler_text, record))}]"
    if isinstance(record, dict) and record.keys() == {"name", "settings"}:
        settings = ", ".join(f"{name}={sampler_text(value)}" for name, value in record["settings"].items())
        return f"{record['name']}({settings})"
    return str(record)
