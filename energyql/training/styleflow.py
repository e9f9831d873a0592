"""StyleFlow's labelled latents, read from its two pickles. Nothing in the files is executed.

`all_latents.pickle` holds {"Latent": (n, 1, layers, latent_dim)}, w repeated over the layers; `att_light.pickle` holds
{"att_light": [(n, 21) objects]}, with `None` for what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from energyql.attributes.labels import is_missing
from energyql.errors import DataError, ModelError
from energyql.generators.checkpoints.arrays import NUMPY_NAMES, ArrayRecord, DtypeRecord, make_dtype
from energyql.generators.checkpoints.reading import CheckpointError, file_bytes, reading
from energyql.generators.checkpoints.records import Budget, Names, is_shape
from energyql.generators.checkpoints.unpickle import unpickle
from energyql.training.labels import LabelTable, infer, one_per_sample
from energyql.vocabulary import AttributeSpec, Vocabulary

LATENTS, LABELS = "all_latents.pickle", "att_light.pickle"
YES_NO = ("smile", "gender", "beard", "glasses")
HAIR = "haircolor"
HAIR_CLASSES = 5
COLUMNS = (
    "width", "height", "smile", "pitch", "roll", "yaw", "gender", "age", "beard", "glasses", "bald", HAIR,
    *(f"light{i}" for i in range(9)),
)  # fmt: skip
TEST_SHARE = 10
"""The last rows, one in ten, are for the report: 1,000 of 10,000, the split of earlier work."""
MAX_OPERATIONS = 10_000_000
"""Limit on pickle operations: the table has 210,000 cells, each of which may be a NumPy number."""


@dataclass(eq=False)
class _ObjectDtype(DtypeRecord):
    """The dtype of an array of Python objects."""

    kind: str = "O"

    @property
    def dtype(self) -> np.dtype[Any]:
        raise CheckpointError("an array of objects is read as if it were numbers")


@dataclass(eq=False)
class _AnyArray(ArrayRecord):
    """A NumPy array of numbers, or of objects that are plain values of the pickle."""

    cells: list[Any] = field(default_factory=list)

    def set_state(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _ObjectDtype)):
            super().set_state(state)
            return
        _, self.shape, self.dtype, _, self.cells = state
        if not is_shape(self.shape) or not isinstance(self.cells, list) or len(self.cells) != math.prod(self.shape):
            raise CheckpointError("an array of objects is damaged")

    def rows(self) -> list[list[Any]]:
        """Return the cells of a table, row by row."""
        if not isinstance(self.dtype, _ObjectDtype):
            if len(self.shape) != 2 or math.prod(self.shape) > MAX_OPERATIONS:
                return []
            numbers: list[list[Any]] = self.array().tolist()
            return numbers
        if len(self.shape) != 2:
            return []
        rows, columns = self.shape  # objects are written row by row, regardless of their order in memory
        return [self.cells[i * columns : (i + 1) * columns] for i in range(rows)]


def _dtype(text: Any, *rest: Any) -> DtypeRecord:
    return _ObjectDtype() if text in ("O8", "O4", "O", "|O") else make_dtype(text, *rest)


_NAMES: Names = {
    **NUMPY_NAMES,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _AnyArray(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _AnyArray(),
}


def read_styleflow(folder: Path, only: Sequence[str] | None = None) -> LabelTable:
    """Read the latents and labels of a folder with StyleFlow's two pickles.

    Of the attributes in `only`, all 21 by default; continuous ones range from 0 to 1 where their values do. The last
    tenth of the rows is for the report.

    Raises:
        ModelError: a pickle is missing, damaged, unsafe, or of another form.
        DataError: `only` names an attribute that StyleFlow does not have, or a column is constant.
    """
    columns = list(COLUMNS if only is None else only)
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise DataError(f"StyleFlow has no labels for {unknown[0]!r}", hint=f"it has {', '.join(COLUMNS)}")
    latents, rows = _latents(folder / LATENTS), _rows(folder / LABELS)
    if len(rows) != len(latents):
        raise ModelError(
            f"{folder} holds {len(latents)} latents, but labels for {len(rows)}",
            hint="both files must be from one download",
        )
    table = {name: [_cell(row[COLUMNS.index(name)], name) for row in rows] for name in columns}
    if only is None:  # leave out columns with one value
        table = {
            name: cells for name, cells in table.items() if len({cell for cell in cells if not is_missing(cell)}) > 1
        }
    return LabelTable(
        table,
        latents=latents,
        test=len(rows) // TEST_SHARE,
        vocabulary=Vocabulary(_spec(name, cells) for name, cells in table.items()),
        source=str(folder / LABELS),
    )


def _latents(path: Path) -> Tensor:
    with reading(path):
        found = _content(path, "Latent")
        if not isinstance(found, ArrayRecord) or isinstance(found.dtype, _ObjectDtype) or len(found.shape) < 2:
            raise CheckpointError("its Latent is not an array of numbers")
        return one_per_sample(torch.from_numpy(found.array().astype("<f4")), path)


def _rows(path: Path) -> list[list[Any]]:
    with reading(path):
        found = _content(path, "att_light")
        table = found[0] if isinstance(found, list | tuple) and found else found
        rows = table.rows() if isinstance(table, _AnyArray) else []
        if not rows or any(len(row) != len(COLUMNS) for row in rows):
            raise CheckpointError(f"its att_light is not a table of {len(COLUMNS)} columns")
        return rows


def _content(path: Path, key: str) -> Any:
    data = file_bytes(path)
    content, _ = unpickle(data, _NAMES, budget=Budget(len(data), MAX_OPERATIONS))
    if not isinstance(content, dict) or key not in content:
        raise CheckpointError(f"it has no {key}, so it is not StyleFlow's {path.name}")
    return content[key]


def _cell(cell: Any, name: str) -> Any:
    """Return a plain cell; a yes/no label that is a score is rounded."""
    if isinstance(cell, ArrayRecord) and not isinstance(cell.dtype, _ObjectDtype) and math.prod(cell.shape) == 1:
        cell = cell.array().item()
    if name in YES_NO and isinstance(cell, float) and 0 < cell < 1:
        return cell > 0.5
    if cell is not None and not isinstance(cell, bool | int | float | str):
        raise ModelError(f"a label of {name!r} is a {type(cell).__name__}", hint="download the file again")
    return cell


def _spec(name: str, cells: list[Any]) -> AttributeSpec:
    if name in YES_NO:
        return AttributeSpec(name, "yes/no")
    if name == HAIR:
        return AttributeSpec(name, "categorical", values=tuple(map(str, range(HAIR_CLASSES))))
    spec = infer({name: cells}, {name: "continuous"})[name]
    return AttributeSpec(name, "continuous") if spec.low >= 0 and spec.high <= 1 else spec
