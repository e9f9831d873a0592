"""Records of samplers as JSON values, for results and benchmarks, and their descriptions in words.

A record is `{"name": ..., "settings": {...}}`, and so is a setting that is itself an object with settings.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from energyql.sampling.base import SAMPLERS, BatchSampler
from energyql.sampling.descent import DescentSampler
from energyql.sampling.registry import HANDOVER, Chain, make_sampler

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
