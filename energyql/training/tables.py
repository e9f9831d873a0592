"""Tables of labels as CSV or Parquet files, and plain numbers as `.npy` files. Nothing in a file is evaluated."""

from __future__ import annotations

import csv
import importlib
import math
import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from energyql.errors import DataError, EnergyQLError
from energyql.files import check_file, naming_source, read_bytes
from energyql.language.lexical import shorten
from energyql.pipeline.score import find_delimiter, with_points
from energyql.vocabulary import closest, repeated

MOST_BYTES = 1 << 26
"""Largest table that is read, in bytes; of a Parquet file also its content."""
MOST_CELLS = 1 << 23
"""Most cells of a Parquet file, which may be thousands of times as many as its bytes."""
_AT_ONCE = 256
"""Rows of a Parquet file that are read before their size is compared again."""


def read_columns(path: Path) -> dict[str, list[Any]]:
    """Read the columns of a table by their names: cells of one column, from the first row to the last.

    Raises:
        DataError: the file is missing or damaged, or no table with one name for each column.
    """
    _check_there(path)
    return _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _read_csv(path)


def _check_there(path: Path) -> None:
    """Say of a table that is no file where there might be one."""
    if os.path.isfile(path) or (os.path.exists(path) and not os.path.isdir(path)):
        return  # what is left is read, or the reader says why not
    folder = path if os.path.isdir(path) else path.parent
    tables = sorted(table for end in ("csv", "parquet", "pq") for table in folder.glob(f"*.{end}"))
    near = closest(path.name, [table.name for table in tables])
    found = folder / near if near else tables[0] if len(tables) == 1 else None
    hint = "energyql label writes labels.csv into the folder of the pictures; or give another CSV or Parquet file"
    what = "is a folder, and labels are a table in a file" if folder == path else "is missing"
    raise DataError(f"{path} {what}", hint=f"did you mean {found}?" if found else hint)


def _read_csv(path: Path) -> dict[str, list[Any]]:
    try:
        text = read_bytes(path, MOST_BYTES, DataError).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: {error}", hint="save it again as CSV in UTF-8, or as Parquet") from error
    try:
        lines = text.splitlines()
        delimiter = find_delimiter(lambda mark: csv.reader(lines, delimiter=mark))
        reader = csv.reader(lines, delimiter=delimiter)
        numbered = [(cells, reader.line_num) for cells in reader if cells]
    except csv.Error as error:
        raise DataError(
            f"{path} is not a CSV file: {error}",
            hint="save it as CSV: a row for each picture, cells separated by commas",
        ) from error
    except MemoryError:
        raise DataError(f"cannot read {path}: there is not enough memory", hint="give a part of the rows") from None
    if not numbered:
        raise DataError(
            f"{path} is empty", hint="it needs the names of the columns in its first line, and a row for each picture"
        )
    names = [name.strip() for name in numbered[0][0]]
    if repeated(names) is not None or "" in names:
        shown = shorten(", ".join(names))
        raise DataError(
            f"{path}: the first line must name every column once, and it is {shown!r}",
            hint="write the names there, such as index,glasses,age",
        )
    for cells, line in numbered:
        if len(cells) != len(names):
            raise DataError(
                f"{path}, line {line}: {len(cells)} cells for {len(names)} columns",
                hint="each line has a cell for each column; a cell with a comma stands in quotes",
            )
    columns = {name: [cells[i] for cells, _ in numbered[1:]] for i, name in enumerate(names)}
    return columns if delimiter == "," else {name: with_points(cells) for name, cells in columns.items()}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
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
            raise DataError(
                f"cannot read {path}: {error}", hint="save it again as CSV in UTF-8, or as Parquet"
            ) from error
    raise DataError(f"{path} is a Parquet file, and no library that reads it is installed", hint="pip install pyarrow")


def _with_pyarrow(library: Any, path: Path) -> dict[str, list[Any]]:
    # A file of some hundred bytes can hold any number of equal rows, so sizes are compared before cells are made.
    with library.ParquetFile(path) as file:
        metadata, names = file.metadata, file.schema_arrow.names
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        _check_size(path, metadata.num_rows * len(names), sum(group.total_byte_size for group in groups))
        columns: list[list[Any]] = [[] for _ in names]
        size = 0
        for batch in file.iter_batches(batch_size=_AT_ONCE):
            # A cell of a dictionary becomes a text of its own.
            found = [each.dictionary_decode() if hasattr(each, "dictionary") else each for each in batch.columns]
            size += sum(each.nbytes for each in found)
            _check_size(path, (len(columns[0]) + len(batch)) * len(names), size)
            for cells, each in zip(columns, found, strict=True):
                cells.extend(each.to_pylist())
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


MAX_HEADER = 10_000
"""Longest header in bytes; NumPy itself reads no longer one."""
MAX_SIDE, MAX_DIMENSIONS = 2**48, 8
_MAGIC = b"\x93NUMPY"
_ENTRY = r"""\s*['"](descr|fortran_order|shape)['"]\s*:\s*(?:['"]([^'"]*)['"]|(True|False)|\(([\dL,\s]*)\))\s*"""
_HEADER = re.compile(rf"\s*\{{{_ENTRY},{_ENTRY},{_ENTRY},?\s*\}}\s*", re.ASCII)
_DTYPE = re.compile(r"[<>=|]?(?:f[248]|[iu][1248])")


def read_npy(path: Path, kind: type[EnergyQLError] = DataError) -> Tensor:
    """Read the numbers of a `.npy` file, floating-point or whole, as float32.

    The format is that of `numpy.lib.format`, versions 1 to 3. Numbers beyond float32 become infinite.

    Args:
        path: the file.
        kind: of the error.

    Raises:
        EnergyQLError: the file is missing, damaged, or holds something else, such as text, dates, complex numbers or
            objects.
    """
    size = check_file(path, kind=kind)
    with naming_source(path, kind), path.open("rb") as file:
        start = file.read(len(_MAGIC) + 2)
        version = tuple(start[len(_MAGIC) :])
        if not start.startswith(_MAGIC) or version not in ((1, 0), (2, 0), (3, 0)):
            raise kind(
                f"cannot read {path}: it is not a .npy file",
                hint="save an array with numpy.save, or tensors as .safetensors",
            )
        length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
        if length > MAX_HEADER:
            raise kind(
                f"cannot read {path}: its header of {length} bytes is longer than {MAX_HEADER}",
                hint="save it again with numpy.save",
            )
        header = file.read(length).decode("utf-8" if version == (3, 0) else "latin-1", "replace")
        dtype, shape, order = _read_header(header, path, kind)
        rest, count = size - file.tell(), math.prod(shape)
        if rest != count * dtype.itemsize:
            raise kind(
                f"cannot read {path}: shape {shape} of {dtype} takes {count * dtype.itemsize} bytes, and it has {rest}",
                hint="the file is cut short: copy it, or save it, again",
            )
        found = np.fromfile(file, dtype, count)
    if len(found) != count:
        raise kind(f"cannot read {path}: it was cut short while it was read", hint="save it again with numpy.save")
    with np.errstate(over="ignore"):
        return torch.from_numpy(found.reshape(shape, order=order).astype("f4", order="C", copy=False))


def _read_header(
    header: str, path: Path, kind: type[EnergyQLError]
) -> tuple[np.dtype[np.generic], tuple[int, ...], Literal["C", "F"]]:
    """Return dtype, shape and order from the text of a header."""
    found = _HEADER.fullmatch(header)
    if found is None:
        raise kind(
            f"cannot read {path}: its header is not that of plain numbers",
            hint="save an array of float32 with numpy.save",
        )
    groups = [found.groups()[i : i + 4] for i in (0, 4, 8)]
    texts, flags, tuples = ({name: group[i] for name, *group in groups if group[i] is not None} for i in range(3))
    if not _DTYPE.fullmatch(dtype := texts.get("descr", "")):
        raise kind(f"cannot read {path}: it holds {dtype[:20]!a}, not plain numbers", hint="save it as float32")
    sides = [side.strip().removesuffix("L") for side in tuples.get("shape", "?").split(",") if side.strip()]
    known = "fortran_order" in flags and len(sides) <= MAX_DIMENSIONS
    if not known or not all(side.isdecimal() and len(side) < 16 and int(side) < MAX_SIDE for side in sides):
        raise kind(f"cannot read {path}: its shape is impossible", hint="save it again with numpy.save")
    return np.dtype(dtype), tuple(map(int, sides)), "F" if flags["fortran_order"] == "True" else "C"
