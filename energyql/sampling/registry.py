"""Samplers by name, chains of samplers, and records of samplers as JSON values, which results and benchmarks keep.

A record is `{"name": ..., "settings": {...}}`, and so is a setting that is itself an object with settings.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.numerics.random import FIRST_RUN, RandomStreams
from energyql.sampling.base import (
    SAMPLERS,
    Batch,
    BatchSampler,
    EnergyLike,
    Progress,
    Sampler,
    SampleResult,
    as_energy,
    check_floor,
)
from energyql.sampling.descent import DescentSampler
from energyql.sampling.ode import ODESolver
from energyql.sampling.slice import SliceSampler

FLOW_TOLERANCE = 0.01
"""Energy tolerance, in nats, of the flows in this module: a probability of 0.99."""
HANDOVER = 1.0
"""λE, in nats, at which descent ends and slice moves begin: a probability of 0.37."""


@dataclass(frozen=True)
class Chain:
    """Run samplers one after the other, each from the latents that the one before returned. A `Sampler`.

    A sample that a sampler could not finish goes on from its latent; the status of the last sampler is reported. A
    sampler that ends where the energy is low enough does not evaluate samples whose energy is low enough already.
    Evaluations are summed; of two diagnostics with the same name the later one is returned.

    Args:
        samplers: at least one, in their order.

    Raises:
        ArgumentError: there are none, or one does not derive from `BatchSampler`.
    """

    samplers: tuple[BatchSampler, ...]

    def __post_init__(self) -> None:
        if not self.samplers:
            raise ArgumentError("a chain needs at least one sampler")
        for sampler in self.samplers:
            if not isinstance(sampler, BatchSampler):
                raise ArgumentError(f"a chain takes samplers that derive from BatchSampler, not {sampler!r}")

    @property
    def name(self) -> str:
        """The names of the samplers, joined by +."""
        return "+".join(sampler.name or type(sampler).__qualname__ for sampler in self.samplers)

    @property
    def descends(self) -> bool:
        """Whether the last sampler descends; see `BatchSampler`."""
        return self.samplers[-1].descends

    @property
    def needs_gradient(self) -> bool:
        """Whether one of the samplers follows the gradient; see `BatchSampler`."""
        return any(sampler.needs_gradient for sampler in self.samplers)

    @property
    def needs_floor(self) -> bool:
        """Whether one of the samplers needs a lower bound of the energy; see `BatchSampler`."""
        return any(sampler.needs_floor for sampler in self.samplers)

    @torch.no_grad()
    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Run all samplers; see `Sampler.sample`. Each takes an equal share of the progress."""
        if self.needs_floor:
            check_floor(as_energy(energy).least)
        results, count = list[SampleResult](), len(self.samplers)
        z: Tensor = z0
        energies: Tensor | None = None
        for number, sampler in enumerate(self.samplers):

            def share(done: float, moving: int, number: int = number) -> None:
                if progress is not None:
                    progress((number + done) / count, moving if number == count - 1 else len(z0))

            batch = Batch.start(energy, z, noise.part(str(number)), share)
            if energies is not None:
                batch.energies, batch.follows = energies, True
            sampler.run(batch)
            results.append(batch.result())
            z, energies = batch.z, batch.energies
        evaluations = torch.stack([result.evaluations for result in results]).sum(0)
        gradients = torch.stack([result.gradients for result in results]).sum(0)
        diagnostics = {name: numbers for result in results for name, numbers in result.diagnostics.items()}
        return SampleResult(z, results[-1].status, evaluations, gradients, diagnostics)


def slice_then_ode(*, strength: float = 1.0) -> Sampler:
    """Draw from the posterior, then follow the flow with the samples that do not satisfy the query with certainty."""
    return Chain((SliceSampler(strength=strength), ODESolver(strength=strength, enough=FLOW_TOLERANCE)))


def slice_then_descent(*, strength: float = 1.0) -> Sampler:
    """Draw near the posterior, then descend with the samples that do not satisfy the query with certainty."""
    near = DescentSampler(strength=strength, enough=HANDOVER)
    draws = SliceSampler(strength=strength, descent=near, bracket=math.pi / 2)
    return Chain((draws, DescentSampler(strength=strength)))


SAMPLERS |= {
    "slice+descent": slice_then_descent,
    "slice+ode": slice_then_ode,
    "slice": SliceSampler,
    "ode": partial(ODESolver, enough=FLOW_TOLERANCE),
    "descent": DescentSampler,
    "langevin": resolve_name("energyql.sampling.langevin:LangevinSampler"),
    "predictor-corrector": resolve_name("energyql.sampling.langevin:PredictorCorrector"),
    "published-ode": partial(ODESolver, "dopri5", rtol=1e-3, atol=1e-3, overshoot=True),
    "published-langevin": resolve_name("energyql.sampling.langevin:LangevinSampler.published"),
    "published-predictor-corrector": resolve_name("energyql.sampling.langevin:PredictorCorrector.published"),
}


def make_sampler(name: str, strength: float = 1.0) -> Sampler:
    """Return the sampler called `name`.

    Raises:
        ArgumentError: there is no such sampler, or the strength is not above 0.
    """
    if name not in SAMPLERS:
        raise ArgumentError(f"there is no sampler {name!r}", hint=f"samplers: {', '.join(SAMPLERS)}")
    return SAMPLERS[name](strength=strength)


Record = dict[str, Any]


def describe_sampler(sampler: object) -> Record:
    """Return the record of a sampler.

    The name is the attribute `name`, if the sampler derives from `BatchSampler`, or that of the class. The settings are
    the fields of a dataclass, or the attributes of another object. Numbers, texts and collections of them are recorded
    as they are, other values without fields or attributes by their `repr`.
    """
    return _described(sampler, ())


def _described(value: object, outer: tuple[int, ...]) -> Record:
    kind, name = type(value), value.name if isinstance(value, BatchSampler | Chain) else ""
    if is_dataclass(value):
        settings = {one.name: getattr(value, one.name) for one in fields(value) if one.repr}
    else:
        settings = {one: getattr(value, one, None) for one in getattr(kind, "__slots__", ())}
        settings |= getattr(value, "__dict__", {})
        if not settings and _has_own_repr(value):
            settings = {"repr": repr(value)}
    inside = (*outer, id(value))
    return {
        "name": str(name or kind.__qualname__),
        "settings": {one: _plain(setting, inside) for one, setting in settings.items()},
    }


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
    return _described(value, outer) if has_fields or not _has_own_repr(value) else repr(value)


def _has_own_repr(value: object) -> bool:
    return type(value).__repr__ is not object.__repr__


_CLASSES = {
    "DescentSampler": "descent", "LangevinSampler": "langevin", "ODESolver": "ode",
    "PredictorCorrector": "predictor-corrector", "SliceSampler": "slice",
}  # fmt: skip
"""Names of samplers by their classes, as their `repr` had them."""


def read_record(value: object) -> Any:
    """Return the record of a sampler that a file holds, or the list of records of joined results.

    Until November 2026 files held the `repr` of a sampler in place of its record.

    Raises:
        ValueError: the value is no record, no `repr`, and no list of these.
    """
    if isinstance(value, list):
        return [read_record(one) for one in value]
    if isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("settings"), dict):
        return value
    if not isinstance(value, str):
        raise ValueError(f"a sampler is recorded by its name and settings, not by {type(value).__name__}")
    try:
        record = _read(ast.parse(value, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, MemoryError):
        record = value
    return record if isinstance(record, dict) else {"name": str(record), "settings": {}}


def _read(node: ast.expr) -> Any:
    """Return a part of a `repr`, given as syntax tree, as a JSON value."""
    if isinstance(node, ast.Tuple | ast.List):
        return [_read(entry) for entry in node.elts]
    if isinstance(node, ast.Constant):
        return "..." if node.value is ... else node.value
    if not isinstance(node, ast.Call):
        return ast.unparse(node)
    kind = ast.unparse(node.func)
    settings = {str(place): _read(entry) for place, entry in enumerate(node.args)}
    settings |= {str(keyword.arg): _read(keyword.value) for keyword in node.keywords}
    if kind == "DescentSampler":
        settings.setdefault("tolerance", 0.001)  # was not a setting at first
    if kind == "SliceSampler" and "then" in settings:  # was a setting in place of descent
        near = describe_sampler(DescentSampler(strength=settings["strength"], enough=HANDOVER))
        settings["descent"] = near if settings.pop("then") == "descend" else None
    if kind == "Chain":
        return {"name": "+".join(one["name"] for one in settings["samplers"]), "settings": settings}
    return {"name": _CLASSES.get(kind, kind), "settings": settings}


def strengths(record: object) -> set[float]:
    """Return all strengths in the record of a sampler, or in a list of records."""
    if isinstance(record, list):
        return set().union(*map(strengths, record))
    if not isinstance(record, dict):
        return set()
    own = {record["strength"]} if isinstance(record.get("strength"), int | float) else set[float]()
    return own.union(*map(strengths, record.values()))


def registered(record: object) -> tuple[str, float | None] | None:
    """Return name and strength with which `make_sampler` makes the recorded sampler; `None` if there is no such name.

    The strength is `None` if it is 1, the default.

    Raises:
        ValueError: it has a strength that no sampler can have.
    """
    if len(values := strengths(record)) != 1:
        return None
    strength = values.pop()
    for name in SAMPLERS:
        if describe_sampler(make_sampler(name, strength)) == record:
            return name, None if strength == 1 else strength
    return None


def sampler_words(record: object) -> str:
    """Return a recorded sampler, or a list of them, in words."""
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
    """Return a record, or a part of it, with all settings, such as `descent(strength=1.0, enough=0.1)`."""
    if isinstance(record, list):
        return f"[{', '.join(map(sampler_text, record))}]"
    if isinstance(record, dict) and record.keys() == {"name", "settings"}:
        settings = ", ".join(f"{name}={sampler_text(value)}" for name, value in record["settings"].items())
        return f"{record['name']}({settings})"
    return str(record)
