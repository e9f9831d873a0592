"""The measurements of a result as data of other libraries: pandas, ArviZ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from energyql.attributes.predictions import table_columns
from energyql.errors import ArgumentError
from energyql.plugins import import_optional
from energyql.sampling.registry import strengths
from energyql.vocabulary import repeated

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import DataTree

    from energyql.pipeline.result import Result


def as_frame(result: Result) -> DataFrame:
    """The table of `Result.to_pandas`."""
    pandas = import_optional("pandas", "a table needs pandas", "pip install pandas")
    table: dict[str, Any] = {"index": result.index, "energy": result.energy}
    if result.probability is not None:
        table["probability"] = result.probability
    table |= {"satisfied": result.satisfied, "status": [status.name for status in result.status]}
    if result.prompt is not None:
        table["prompt"] = result.prompt
    for name, prediction in result.probabilities.items():
        table |= table_columns(name, prediction)
    frame: DataFrame = pandas.DataFrame(table | {f"judged.{name}": values for name, values in result.judged.items()})
    return frame


def as_arviz(result: Result, chains: int) -> DataTree:
    """The data of `Result.to_arviz`."""
    hint = 'pip install "arviz-base>=0.6", with Python 3.11 or later'
    arviz = import_optional("arviz_base", "data of ArviZ need arviz-base", hint)
    if type(chains) is not int or not 1 <= chains <= len(result) or len(result) % chains:
        raise ArgumentError(f"{len(result)} samples do not make {chains} chains of one length")

    def by_chain(column: Any) -> npt.NDArray[Any]:
        array = np.asarray(column)
        return array.reshape(chains, len(result) // chains, *array.shape[1:])

    posterior: dict[str, npt.NDArray[Any]] = {}
    dims, coords = {"z": ["z_dim"]}, {}
    for name, prediction in result.probabilities.items():
        column: Any = prediction[0] if isinstance(prediction, tuple) else prediction
        if isinstance(prediction, dict):
            dims[name], coords[f"{name}_value"] = [f"{name}_value"], list(prediction)
            column = np.stack(list(prediction.values()), 1)
        posterior[name] = by_chain(column)
    if clash := repeated(["chain", "draw", "z", "z_dim", *posterior, *coords]):
        raise ArgumentError(f"ArviZ needs the name {clash!r} once, and an attribute takes it again")
    stats = {"query_energy": result.energy, "status": [status.name for status in result.status]}
    stats |= {"index": result.index, "doubtful": result.doubtful}
    stats |= {} if result.satisfied is None else {"satisfied": result.satisfied}
    z, strength_values = result.z.numpy(), strengths(result.provenance.get("sampler")) or {1.0}
    if len(strength_values) == 1:  # joined results of several strengths have no common density
        stats["lp"] = -strength_values.pop() * result.energy - 0.5 * np.square(z, dtype=float).sum(1)
    groups = {"posterior": posterior, "unconstrained_posterior": {"z": by_chain(z)}}
    groups["sample_stats"] = {name: by_chain(column) for name, column in stats.items()}
    facts = {name: json.dumps(getattr(result, name)) for name in ("provenance", "statistics")}
    attributes = {"/": {"inference_library": "energyql", **facts}}
    return cast("DataTree", arviz.from_dict(groups, dims=dims, coords=coords, attrs=attributes))
