"""Labels from a CSV or Parquet file, for prior samples by their index or for latents in a file."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from energyql.errors import DataError
from energyql.training.labels import LabelTable

INDEX = "index"
"""The column that tells which sample a row is about."""


def read_label_table(path: Path, latents: Path | None = None) -> LabelTable:
    """Read labels, an attribute a column and a sample a row.

    Without `latents`, the column `index` tells which picture of `energyql.generate` a row is about, for the seed that
    the training is given; without that column, row i is about picture i, from 0. With `latents`, the same holds for
    the rows of that file.

    Args:
        path: CSV (comma, semicolon or tab), or Parquet by its name; Parquet needs pyarrow or polars.
        latents: `.npy` or `.safetensors`, see `read_latents`.

    Raises:
        DataError: a file is missing, damaged, or does not fit the other.
    """
    columns = _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _read_csv(path)
    rows = len(next(iter(columns.values()), ()))
    index = _index(columns.pop(INDEX, None), rows, path)
    if not columns:
        raise DataError(f"{path} has no column of labels")
    if not rows:
        raise DataError(f"{path} has no rows")
    if latents is None:
        return LabelTable(columns, index=index, source=str(path))
    found = read_latents(latents)
    if int(index.max()) >= len(found):
        raise DataError(f"{path} is about sample {int(index.max())}, but {latents} holds only {len(found)}")
    return LabelTable(columns, latents=found[index], source=str(path))


def read_latents(path: Path) -> Tensor:
    """Latents of a `.npy` file, or of a `.safetensors` file with one tensor.

    Args:
        path: shape (n, latent_dim), or with axes between that hold the same latent again, as W+ does.

    Returns:
        (n, latent_dim) float32.

    Raises:
        DataError: the file is missing or damaged, or its latents differ along a layer.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            tensors = load_file(path)
            if len(tensors) != 1:
                raise DataError(f"{path} holds {len(tensors)} tensors", hint="save the latents alone")
            (found,) = tensors.values()
        else:
            found = read_npy(path)
    except (OSError, ValueError, TypeError, EOFError, OverflowError, SafetensorError) as error:
        raise DataError(f"cannot read latents from {path}: {error}") from error
    return one_a_sample(found, path)


def read_npy(path: Path) -> Tensor:
    """The numbers of a `.npy` file, float32.

    Raises:
        OSError, ValueError, TypeError, EOFError, OverflowError: it is missing, damaged, or holds something else.
    """
    try:
        # Mapped, so that no memory is taken for sizes that the file only claims.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError("it is no .npy file of plain numbers") from error
    return torch.from_numpy(np.array(found, dtype=np.float32))


def one_a_sample(latents: Tensor, path: Path) -> Tensor:
    """(n, ..., latent_dim) with the same latent in every place between -> (n, latent_dim) float32.

    Raises:
        DataError: there is no such latent, or it is not finite.
    """
    if latents.ndim < 2 or not latents.numel():
        raise DataError(f"{path}: latents have shape {tuple(latents.shape)}, not (samples, numbers)")
    rows = latents.flatten(1, -2) if latents.ndim > 2 else latents[:, None]
    first = rows[:, 0]
    if not rows.isfinite().all():
        raise DataError(f"{path}: a latent has a number that is not finite")
    if not torch.equal(rows, first[:, None].expand_as(rows)):
        raise DataError(
            f"{path}: the latents differ from layer to layer (W+), but heads read one latent a sample",
            hint="label latents as the mapping network gives them",
        )
    return first.float().clone()


def _index(cells: list[Any] | None, rows: int, path: Path) -> Tensor:
    if cells is None:
        return torch.arange(rows)
    index = []
    for row, cell in enumerate(cells, 1):
        try:
            number = int(cell)
            if number < 0 or number != float(cell):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise DataError(f"{path}, row {row}: the index is {cell!r}, not a whole number from 0") from None
        index.append(number)
    if len(set(index)) != len(index):
        twice = next(number for number in index if index.count(number) > 1)
        raise DataError(f"{path}: sample {twice} has two rows")
    return torch.tensor(index, dtype=torch.int64)


def _read_csv(path: Path) -> dict[str, list[Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    header = text.split("\n", 1)[0]
    try:
        lines = [line for line in csv.reader(text.splitlines(), delimiter=max(",;\t", key=header.count)) if line]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file: {error}") from error
    if not lines:
        raise DataError(f"{path} is empty")
    names = [name.strip() for name in lines[0]]
    if len(set(names)) != len(names) or "" in names:
        raise DataError(f"{path}: the first line must name every column once, and it is {', '.join(names)!r}")
    for row, line in enumerate(lines[1:], 1):
        if len(line) != len(names):
            raise DataError(f"{path}, row {row}: {len(line)} cells for {len(names)} columns")
    return {name: [line[i] for line in lines[1:]] for i, name in enumerate(names)}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    read = _parquet_reader(path)
    try:
        return {str(name): list(cells) for name, cells in read(path).items()}
    except Exception as error:  # two libraries, each with errors of its own
        raise DataError(f"cannot read {path}: {error}") from error


def _parquet_reader(path: Path) -> Callable[[Path], dict[str, list[Any]]]:
    for module, read in (
        ("pyarrow.parquet", lambda library: lambda file: library.read_table(file).to_pydict()),
        ("polars", lambda library: lambda file: library.read_parquet(file).to_dict(as_series=False)),
    ):
        try:
            found: Callable[[Path], dict[str, list[Any]]] = read(importlib.import_module(module))
        except ImportError:
            continue
        return found
    raise DataError(f"{path} is a Parquet file, and nothing that reads it is installed", hint="pip install pyarrow")
