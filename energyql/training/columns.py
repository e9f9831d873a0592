"""Columns of tables of labels, as CSV or Parquet files."""

from __future__ import annotations

import csv
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from energyql.attributes.labels import as_number, is_missing
from energyql.errors import DataError

_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")


def read_columns(path: Path) -> dict[str, list[Any]]:
    """Read the columns of a table by their names: cells of one column, from the first row to the last.

    Raises:
        DataError: the file is missing or damaged, or no table with one name for each column.
    """
    return _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _read_csv(path)


def _read_csv(path: Path) -> dict[str, list[Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    try:
        tables = {mark: [line for line in csv.reader(text.splitlines(), delimiter=mark) if line] for mark in ",;\t"}
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file: {error}") from error
    # The delimiter that gives most columns, of the same number in every row if possible.
    even = {mark: lines for mark, lines in tables.items() if len({len(line) for line in lines}) == 1 < len(lines[0])}
    delimiter, lines = max((even or tables).items(), key=lambda item: len(item[1][0]) if item[1] else 0)
    if not lines:
        raise DataError(f"{path} is empty")
    names = [name.strip() for name in lines[0]]
    if len(set(names)) != len(names) or "" in names:
        raise DataError(f"{path}: the first line must name every column once, and it is {', '.join(names)!r}")
    for row, line in enumerate(lines[1:], 1):
        if len(line) != len(names):
            raise DataError(f"{path}, row {row}: {len(line)} cells for {len(names)} columns")
    columns = {name: [line[i] for line in lines[1:]] for i, name in enumerate(names)}
    return columns if delimiter == "," else {name: _with_points(cells) for name, cells in columns.items()}


def _with_points(cells: list[str]) -> list[str]:
    """Return a column of numbers with decimal points for its decimal commas; other columns as they are."""
    changed = [cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in cells]
    return changed if all(is_missing(cell) or as_number(cell) is not None for cell in changed) else cells


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    readers: dict[str, Callable[[Any], dict[Any, Any]]] = {
        "pyarrow.parquet": lambda library: library.read_table(path).to_pydict(),
        "polars": lambda library: library.read_parquet(path).to_dict(as_series=False),
    }
    for module, read in readers.items():
        try:
            library = importlib.import_module(module)
        except ImportError:
            continue
        try:
            return {str(name): list(cells) for name, cells in read(library).items()}
        except Exception as error:  # each library has its own errors
            raise DataError(f"cannot read {path}: {error}") from error
    raise DataError(f"{path} is a Parquet file, and no library that reads it is installed", hint="pip install pyarrow")
