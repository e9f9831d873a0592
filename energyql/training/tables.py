"""Read tables of labels from CSV or Parquet files, and numbers from `.npy` files. Nothing in a file is executed."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from energyql.errors import DataError, EnergyQLError
from energyql.files import check_file, naming_source
from energyql.language.lexical import shorten
from energyql.pipeline.score import read_table
from energyql.vocabulary import closest

MOST_BYTES = 1 << 26
"""Largest size of a table that is read, in bytes: of the file, and for Parquet also of the cells in memory."""
MOST_CELLS = 1 << 23
"""Largest number of cells of a Parquet file. (A byte of such a file can hold thousands of cells.)"""
_AT_ONCE = 256
"""Rows of a Parquet file that are read before the size of the content is checked again."""


def read_columns(path: Path) -> dict[str, list[Any]]:
    """Read a CSV file, or a Parquet file (.parquet or .pq), as name -> cells.

    Raises:
        DataError: the file is missing, damaged or too large; a name in the header of a CSV file is empty or occurs
            twice; or a row does not have as many cells as the header.
    """
    _check_there(path)
    return _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _read_csv(path)


def _check_there(path: Path) -> None:
    """Raise a `DataError` if `path` is a folder or missing; its hint proposes a table there."""
    is_folder = os.path.isdir(path)
    if os.path.exists(path) and not is_folder:
        return
    folder = path if is_folder else path.parent
    tables = sorted(table for end in ("csv", "parquet", "pq") for table in folder.glob(f"*.{end}"))
    name = closest(path.name, [table.name for table in tables]) or (tables[0].name if len(tables) == 1 else None)
    hint = "energyql label writes labels.csv into the folder of the pictures; or give another CSV or Parquet file"
    what = "is a folder, and labels are a table in a file" if is_folder else "is missing"
    raise DataError(f"{path} {what}", hint=f"did you mean {folder / name}?" if name else hint)


def _read_csv(path: Path) -> dict[str, list[Any]]:
    check_file(path, MOST_BYTES, DataError)
    columns, _ = read_table(path, strict=False)
    if "" in columns:
        names = shorten(", ".join(columns), 120)
        raise DataError(f"{path}: the first line does not name every column: {names}", hint="name each column once")
    return columns


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    """Read by pyarrow, or by polars if pyarrow is not installed."""
    check_file(path, MOST_BYTES, DataError)
    for module, read in {"pyarrow.parquet": _with_pyarrow, "polars": _with_polars}.items():
        try:
            library = importlib.import_module(module)
        except ImportError:
            continue
        try:
            return read(library, path)
        except DataError:
            raise
        except Exception as error:  # each library has its own errors
            raise DataError(f"cannot read {path}: {error}", hint="save it again as CSV in UTF-8") from error
    raise DataError(f"{path} is a Parquet file, and no library that reads it is installed", hint="pip install pyarrow")


def _with_pyarrow(library: Any, path: Path) -> dict[str, list[Any]]:
    # A file of some hundred bytes can hold any number of equal rows, so sizes are checked before cells are made.
    with library.ParquetFile(path) as file:
        metadata, names = file.metadata, file.schema_arrow.names
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        _check_size(path, metadata.num_rows * len(names), sum(group.total_byte_size for group in groups))
        columns: list[list[Any]] = [[] for _ in names]
        size = 0
        for batch in file.iter_batches(batch_size=_AT_ONCE):
            # A cell of a dictionary becomes a text of its own.
            arrays = [each.dictionary_decode() if hasattr(each, "dictionary") else each for each in batch.columns]
            size += sum(array.nbytes for array in arrays)
            _check_size(path, (len(columns[0]) + len(batch)) * len(names), size)
            for cells, array in zip(columns, arrays, strict=True):
                cells.extend(array.to_pylist())
    return dict(zip(map(str, names), columns, strict=True))


def _with_polars(library: Any, path: Path) -> dict[str, list[Any]]:
    lazy = library.scan_parquet(path)
    _check_size(path, lazy.select(library.len()).collect().item() * len(lazy.collect_schema()), 0)
    frame = lazy.collect()
    _check_size(path, 0, frame.estimated_size())
    return {str(name): list(cells) for name, cells in frame.to_dict(as_series=False).items()}


def _check_size(path: Path, cells: int, size: int) -> None:
    if cells > MOST_CELLS:
        raise DataError(f"{path} has more than {MOST_CELLS:,} cells", hint="keep only the columns of labels")
    if size > MOST_BYTES:
        raise DataError(f"{path} holds more than {MOST_BYTES >> 20} MiB", hint="keep only the columns of labels")


def read_npy(path: Path, kind: type[EnergyQLError] = DataError) -> Tensor:
    """Read the plain numbers of a `.npy` file as float32; numbers beyond its range become infinite.

    Raises:
        EnergyQLError: of the class `kind`: the file is missing or damaged, or has other data, such as text or objects.
    """
    size, wrong = check_file(path, kind=kind), f"cannot read {path}: it is not a .npy file of plain numbers"
    with naming_source(path, kind), path.open("rb") as file:
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except OSError:
            raise
        except Exception as error:  # NumPy raises errors of many classes for a damaged header
            raise kind(wrong, hint="save an array of float32 with numpy.save") from error
        if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
            raise kind(f"{wrong}, but of {array.dtype}", hint="save it as float32")
        if (end := file.tell()) != size:
            raise kind(f"cannot read {path}: its array ends at byte {end} of {size}", hint="save it, or copy it, again")
    with np.errstate(over="ignore"):
        return torch.from_numpy(array.astype("f4", order="C", copy=False))
