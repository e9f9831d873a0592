"""The columns of a result: rows by their numbers, concatenation, and what joined results have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.language.lexical import shorten
from energyql.plugins import import_optional

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import DataTree

Key = int | slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any] | Tensor
"""How samples of a result are named; see `Result.__getitem__`."""
COMMON = ("canonical", "model", "fingerprints", "semantics", "truncation", "label", "judge")
"""Facts that results must share to be joined: those that the numbers and verdicts of a sample refer to."""
COUNTED = ("wanted", "budget")
"""Facts that add up."""
_MEANS = ("evaluations_mean", "gradients_mean", "generator_calls_mean", "exact")
_SUMS = ("seconds_sampling", "seconds_drawing", "steps_rejected", "drawn")
_MAXIMA = ("evaluations_max",)


def positions(key: Key, count: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the samples, of `count`, that a key names; see `Result.__getitem__`.

    Raises:
        ArgumentError: as there.
    """
    if isinstance(key, slice):
        try:
            return np.arange(count)[key].copy()  # torch takes no negative strides
        except (TypeError, ValueError, IndexError) as error:
            raise ArgumentError(f"a result cannot be sliced in this way: {error}") from None
    try:
        rows = np.asarray(key.cpu() if isinstance(key, Tensor) else key)
    except ValueError:  # lists of several lengths
        rows = np.asarray(None)
    if rows.dtype == bool:
        if rows.shape != (count,):
            raise ArgumentError(f"a mask for this result has the shape ({count},), not {rows.shape}")
        return rows.nonzero()[0]
    if rows.ndim > 1 or (rows.dtype.kind not in "iu" and rows.shape != (0,)):
        kinds = "a whole number, a slice, a mask or a list of whole numbers"
        raise ArgumentError(f"a result is indexed by {kinds}, not by {shorten(repr(key))}")
    numbers = rows.reshape(-1).astype(np.int64)
    outside = numbers[(numbers < -count) | (numbers >= count)]
    if len(outside):
        held = f"it has {count:,}, numbered from 0" if count else "it is empty"
        raise ArgumentError(f"the result has no sample {outside[0]}: {held}")
    return np.where(numbers < 0, numbers + count, numbers)


def take_rows(column: Any, rows: npt.NDArray[np.int64]) -> Any:
    """Return some rows of a list, array or tensor, or of each one in a dict or tuple of them; None stays None."""
    if column is None:
        return None
    if isinstance(column, dict):
        return type(column)((name, take_rows(part, rows)) for name, part in column.items())
    if isinstance(column, tuple):
        return tuple(take_rows(part, rows) for part in column)
    return [column[i] for i in rows] if isinstance(column, list) else column[rows]


def concatenate(columns: Sequence[Any]) -> Any:
    """Concatenate lists, arrays or tensors, or those of equal dicts or tuples of them; None if one is None."""
    first = columns[0]
    if any(column is None for column in columns):
        return None
    if isinstance(first, dict):
        return type(first)((name, concatenate([column[name] for column in columns])) for name in first)
    if isinstance(first, tuple):
        return tuple(concatenate(parts) for parts in zip(*columns, strict=True))
    if isinstance(first, list):
        return [entry for column in columns for entry in column]
    return torch.cat(list(columns)) if isinstance(first, Tensor) else np.concatenate(columns)


def join_provenance(parts: Sequence[Mapping[str, Any]], count: int) -> dict[str, Any]:
    """Return the provenance of joined results: what the parts share, and lists of what differs.

    Args:
        parts: provenance of each result, at least one.
        count: number of samples of all.

    Raises:
        ArgumentError: there are none, or they differ in one of the `COMMON` facts.
    """
    if not parts:
        raise ArgumentError("Result.join needs at least one result; got an empty sequence")
    first = parts[0]
    for part in parts[1:]:
        for name in COMMON:
            if (mine := first.get(name)) != (theirs := part.get(name)):
                shown = "" if name == "fingerprints" else f": {shorten(str(mine))} and {shorten(str(theirs))}"
                raise ArgumentError(
                    f"these results differ in their {'query' if name == 'canonical' else name}{shown}",
                    hint="join results of one query, model and judge, and keep others in a list",
                )
    joined = {name: value for name, value in first.items() if all(name in part for part in parts)}
    for name in joined.keys() - {"n", "query", *COMMON, *COUNTED}:
        different: list[Any] = []
        for part in parts:
            values = part[name] if isinstance(part[name], list) else [part[name]]
            different += [value for value in values if value not in different]
        if len(different) > 1:
            joined[name] = different
    joined |= {name: sum(part[name] for part in parts) for name in COUNTED if name in joined}
    return joined | {"n": count}


def join_statistics(parts: Sequence[Mapping[str, float]], counts: Sequence[int]) -> dict[str, float]:
    """Return the statistics of joined results of so many samples, those that follow from the parts' and no others."""
    parts = [part for part, count in zip(parts, counts, strict=True) if count]
    counts = [count for count in counts if count]
    shared = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
    joined = {name: sum(part[name] for part in parts) for name in shared if name in _SUMS}
    joined |= {name: max(part[name] for part in parts) for name in shared if name in _MAXIMA}
    for name in (name for name in shared if name in _MEANS):
        joined[name] = sum(part[name] * count for part, count in zip(parts, counts, strict=True)) / sum(counts)
    return joined


def as_frame(measurements: Mapping[str, Any], probability: npt.NDArray[np.float64] | None) -> DataFrame:
    """Return the measurements of a result as a table of pandas; see `Result.to_pandas`.

    Raises:
        ArgumentError: pandas is not installed.
    """
    pandas = import_optional("pandas", "a table needs pandas", "pip install pandas")
    table: dict[str, Any] = {"index": measurements["index"], "energy": measurements["energy"]}
    if probability is not None:
        table["probability"] = probability
    table |= {"satisfied": measurements["satisfied"], "status": [status.name for status in measurements["status"]]}
    for name, prediction in measurements["probabilities"].items():
        if isinstance(prediction, dict):
            table |= {f"{name}={value}": column for value, column in prediction.items()}
        elif isinstance(prediction, tuple):
            table |= {f"{name}.mean": prediction[0], f"{name}.std": prediction[1]}
        else:
            table[name] = prediction
    table |= {f"judged.{name}": values for name, values in measurements["judged"].items()}
    frame: DataFrame = pandas.DataFrame(table)
    return frame


def as_inference(
    measurements: Mapping[str, Any], statistics: Mapping[str, float], provenance: Mapping[str, Any], chains: int
) -> DataTree:
    """Return the measurements of a result as data of ArviZ; see `Result.to_arviz`.

    Raises:
        ArgumentError: as there.
    """
    arviz = import_optional(
        "arviz_base", "data of ArviZ need arviz-base", 'pip install "arviz-base>=0.6", with Python 3.11 or later'
    )
    count = len(measurements["index"])
    if type(chains) is not int or not 1 <= chains <= count or count % chains:
        raise ArgumentError(f"{count} samples do not make {chains} chains of one length", hint="take another number")

    def drawn(column: Any) -> npt.NDArray[Any]:
        array = np.asarray(column)
        return array.reshape(chains, count // chains, *array.shape[1:])

    taken = {"chain", "draw", "z", "z_dim"}
    for name, prediction in measurements["probabilities"].items():
        names = {name, f"{name}_value"} if isinstance(prediction, dict) else {name}
        if clash := names & taken:
            raise ArgumentError(
                f"ArviZ needs the name {min(clash)!r} once, and the attribute {name!r} takes it again",
                hint="use to_pandas, or give the attribute another name where it is trained",
            )
        taken |= names
    posterior: dict[str, npt.NDArray[Any]] = {}
    dims, coords = {"z": ["z_dim"]}, {}
    for name, prediction in measurements["probabilities"].items():
        if isinstance(prediction, dict):
            dims[name], coords[f"{name}_value"] = [f"{name}_value"], list(prediction)
            posterior[name] = drawn(np.stack(list(prediction.values()), 1))
        else:
            posterior[name] = drawn(prediction[0] if isinstance(prediction, tuple) else prediction)
    z, energy = measurements["z"].numpy(), measurements["energy"]
    stats = {
        "query_energy": drawn(energy),
        "status": drawn([status.name for status in measurements["status"]]),
        **{name: drawn(measurements[name]) for name in ("index", "doubtful")},
    }
    strengths = {
        float(found) for found in re.findall(r"\bstrength=([\d.e+-]+)", str(provenance.get("sampler", "")))
    } or {1.0}
    if len(strengths) == 1:  # joined results of several strengths have no common density
        stats["lp"] = drawn(-strengths.pop() * energy - 0.5 * np.square(z, dtype=float).sum(1))
    if measurements["satisfied"] is not None:
        stats["satisfied"] = drawn(measurements["satisfied"])
    facts = {name: json.dumps(value) for name, value in (("provenance", provenance), ("statistics", statistics))}
    tree: DataTree = arviz.from_dict(
        {"posterior": posterior, "unconstrained_posterior": {"z": drawn(z)}, "sample_stats": stats},
        dims=dims, coords=coords, attrs={"/": {"inference_library": "energyql", **facts}},
    )  # fmt: skip
    return tree
