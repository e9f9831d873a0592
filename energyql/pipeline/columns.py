"""The fields of a `Result` with an entry for each sample: one table, and how they are written, read and joined."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from energyql.sampling import Status
from energyql.vocabulary import ByAttribute

_INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf}
"""Texts for infinite numbers, which strict JSON cannot hold; NaN becomes null."""
_WORDS = {number: word for word, number in _INFINITE.items()}


def map_columns(function: Callable[..., Any], *columns: Any) -> Any:
    """Call a function with columns, and return its value; for dicts or tuples, call it for each key or position.

    A column has an entry per sample: a list, array or tensor, or a dict or tuple of these, nested or not. `None` gives
    `None`.
    """
    first = columns[0]
    if any(column is None for column in columns):
        return None
    if isinstance(first, dict):
        return type(first)((name, map_columns(function, *(each[name] for each in columns))) for name in first)
    if isinstance(first, tuple):
        return tuple(map_columns(function, *parts) for parts in zip(*columns, strict=True))
    return function(*columns)


def take_rows(column: Any, rows: npt.NDArray[np.int64]) -> Any:
    """Return the entries of some samples in one field, in the form of the field; `rows` are positions, (k,)."""
    return map_columns(lambda part: [part[i] for i in rows] if isinstance(part, list) else part[rows], column)


def concatenate(columns: Sequence[Any]) -> Any:
    """Join the values of one field of several results end to end; `None` if one of them is `None`."""
    return map_columns(_concatenated, *columns)


def _concatenated(*columns: Any) -> Any:
    if isinstance(columns[0], list):
        return list(chain(*columns))
    return torch.cat(columns) if isinstance(columns[0], torch.Tensor) else np.concatenate(columns)


def plain(value: Any) -> Any:
    """A value that JSON can hold: a status as its name, NaN as `None`, infinity as "Infinity"."""
    if isinstance(value, Status):
        return value.name
    value = value.item() if isinstance(value, np.generic) else value
    return None if value != value else _WORDS.get(value, value)


def _column(entries: Sequence[Any]) -> Any:
    """Return one field of a result, such as `energy`, from the JSON values of all samples in `result.json`.

    Numbers, texts, and true and false become an array. Dicts become a dict of arrays, lists a tuple of arrays.
    """
    first = entries[0]
    if isinstance(first, dict):
        return {name: _column([entry[name] for entry in entries]) for name in first}
    if isinstance(first, list):
        return tuple(map(_column, zip(*entries, strict=True)))
    kinds = {type(entry) for entry in entries}
    if kinds in ({bool}, {str}):
        return np.array(entries)
    return np.array(entries, np.int64) if kinds == {int} else floats(entries)


def floats(entries: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Numbers, also NaN and infinite ones."""
    return np.array(list(map(number, entries)), np.float64)


def number(entry: object) -> float:
    """The number of a JSON value, by the texts of `plain`."""
    value = math.nan if entry is None else _INFINITE.get(entry, entry)  # type: ignore[call-overload]
    if type(value) not in (int, float):
        raise TypeError(f"{entry!r:.40} is not a number")
    return float(value)


def tables(entries: Sequence[Any]) -> Any:
    """A table by attribute, the same attributes for all samples."""
    if len({tuple(checked(entry, dict)) for entry in entries}) > 1:
        raise ValueError("the samples have different attributes")
    return ByAttribute(_column(entries))


def statuses(entries: Sequence[Any]) -> list[Status]:
    """Statuses by their names."""
    return [Status[entry] for entry in entries]


def bools(entries: Sequence[Any]) -> npt.NDArray[np.bool_]:
    """True or false, nothing else."""
    return np.array([checked(entry, bool) for entry in entries])


def texts(entries: Sequence[Any]) -> npt.NDArray[np.str_]:
    """Texts."""
    return np.array([checked(entry, str) for entry in entries])


def whole_numbers(entries: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Whole numbers from 0."""
    if below := [entry for entry in entries if checked(entry, int) < 0]:
        raise ValueError(f"{below[0]} is below 0")
    return np.array(entries, np.int64)


def checked(value: Any, kind: type) -> Any:
    """The value, if it is exactly of this type; a `TypeError` otherwise."""
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value


Decode = Callable[[Sequence[Any]], Any]
"""Function from the JSON values of all samples to a field."""


@dataclass(frozen=True)
class Column:
    """A field of a `Result` with an entry for each sample; all of them are joined and selected in the same way.

    Attributes:
        decode: function from the JSON values in `result.json` to the field; `None` for pictures and latents, which have
            files of their own.
        optional: whether results may lack the field, which is then `None`.
        sparse: whether `result.json` leaves the field out where it is `None`.
    """

    decode: Decode | None = None
    optional: bool = False
    sparse: bool = False

    def read(self, name: str, samples: Sequence[Mapping[str, Any]]) -> Any:
        """Return the field called `name` from the samples of a `result.json`."""
        assert self.decode is not None
        if not self.optional:
            return self.decode([sample[name] for sample in samples])
        entries = [sample.get(name) for sample in samples]
        return None if all(entry is None for entry in entries) else self.decode(entries)


COLUMNS: Mapping[str, Column] = {
    "images": Column(),
    "z": Column(),
    "w": Column(),
    "index": Column(whole_numbers),
    "energy": Column(floats),
    "probabilities": Column(tables),
    "judged": Column(tables),
    "satisfied": Column(bools, optional=True),
    "doubtful": Column(bools),
    "status": Column(statuses),
    "draws": Column(whole_numbers, optional=True),
    "prompt": Column(texts, optional=True, sparse=True),
}
"""Name of the field -> column."""
MEASURED = {name: column for name, column in COLUMNS.items() if column.decode is not None}
"""The columns of `result.json`."""
