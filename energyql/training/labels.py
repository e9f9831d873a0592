"""Labels of given samples: tables, as CSV or Parquet files, and the inference of attributes from their columns."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from energyql.attributes.labels import Column, as_number, as_text, as_yes_no, is_missing
from energyql.errors import DataError, VocabularyError
from energyql.training.drawn import CHOSEN, INDEX, TOLERANCE, Drawn, held_out_order, parse_attribute, take_drawn
from energyql.vocabulary import AttributeSpec, Kind, Vocabulary

MOST_CLASSES = 100


@dataclass(frozen=True)
class LabelTable:
    """Labels of given samples.

    Attributes:
        columns: attribute -> n cells.
        index: indices of prior samples, (n,); `None` where `latents` are given.
        latents: (n, latent_dim), in the space that the heads will read; `None` where `index` is given.
        learned: number of rows at the beginning that heads are fitted to, and that measure nothing.
        test: number of rows at the end that only the report uses; `None` lets the training shuffle and choose.
        vocabulary: the attributes of the columns, where they are known for certain.
        drawn: how the pictures were drawn, where the table says so.
        source: name of the table in messages.
    """

    columns: Mapping[str, Column]
    index: Tensor | None = None
    latents: Tensor | None = None
    learned: int = 0
    test: int | None = None
    vocabulary: Vocabulary | None = None
    drawn: Drawn | None = None
    source: str = "the table"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def infer(
    columns: Mapping[str, Column], kinds: Mapping[str, Kind] | None = None, known: Vocabulary | None = None
) -> Vocabulary:
    """Infer the kind of each column.

    0/1, true/false and yes/no are yes/no; numbers are continuous; other text is categorical. A kind in `kinds` is not
    inferred; other attributes in `known` are used as they are.

    Raises:
        DataError: a column is empty or constant, or seems to be free text.
        VocabularyError: a name in `kinds` is no column.
    """
    kinds, known = kinds or {}, known or Vocabulary([])
    if unknown := [name for name in kinds if name not in columns]:
        raise VocabularyError(f"there is no column {unknown[0]!r}", hint=f"columns: {', '.join(columns)}")
    return Vocabulary(
        known[name] if name in known and name not in kinds else _infer_one(name, cells, kinds.get(name))
        for name, cells in columns.items()
    )


def _infer_one(name: str, cells: Column, kind: Kind | None) -> AttributeSpec:
    known = [cell for cell in cells if not is_missing(cell)]
    if not known:
        raise DataError(f"column {name!r} has no values")
    numbers = [as_number(cell) for cell in known]
    if kind is None and all(as_yes_no(cell) is not None for cell in known):
        kind = "yes/no"
    if kind == "yes/no":
        return AttributeSpec(name, kind)
    if kind == "continuous" and None in numbers:
        raise DataError(f"column {name!r}: {known[numbers.index(None)]!r} is not a number")
    values = sorted({as_text(cell) for cell in known})
    found = sorted({number for number in numbers if number is not None})
    continuous = kind == "continuous" or (kind is None and None not in numbers)
    if len(found if continuous else values) < 2:
        raise DataError(f"column {name!r}: all values are {values[0]!r}, so there is nothing to learn")
    if continuous:
        low, high = found[0], found[-1]
        return AttributeSpec(name, "continuous", low=low, high=high, tolerance=TOLERANCE * (high - low))
    if len(values) > MOST_CLASSES:
        raise DataError(
            f"column {name!r} has {len(values)} different texts, such as {values[0]!r} and {values[1]!r}",
            hint="a categorical attribute has a few classes; leave the column out if it is none",
        )
    return AttributeSpec(name, "categorical", values=tuple(values))


def read_label_table(path: Path, latents: Path | None = None) -> LabelTable:
    """Read labels: a column for each attribute, a row for each sample.

    The column `index` is the number of a picture of `energyql.generate`, under the seed of the training; without that
    column, row i is about picture i, from 0. With `latents`, the index is a row of that file.

    A table with the column `drawn`, as `energyql label` writes it, says itself how its pictures were drawn and what its
    attributes are; see `energyql.training.drawn`.

    The file is CSV (comma, semicolon or tab), or Parquet by its name, which needs pyarrow or polars; `read_latents`
    reads the latents.

    Raises:
        DataError: a file is missing, damaged, or does not fit the other.
    """
    columns: dict[str, list[Any]]
    columns = _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else read_csv(path)
    rows = len(next(iter(columns.values()), ()))
    index = _index(columns.pop(INDEX, None), rows, path)
    drawn = take_drawn(columns, str(path))
    chosen = None if drawn is None else columns.pop(CHOSEN, None)
    if not columns:
        raise DataError(f"{path} has no column of labels")
    if not rows:
        raise DataError(f"{path} has no rows")
    if latents is None:
        table = LabelTable(columns, index=index, source=str(path))
        return table if drawn is None else _of_drawn(table, drawn, chosen)
    if drawn is not None:
        raise DataError(
            f"{path} says how its pictures were drawn, so it takes no latents", hint="leave out the latents"
        )
    found = read_latents(latents)
    if int(index.max()) >= len(found):
        raise DataError(f"{path} is about sample {int(index.max())}, but {latents} holds only {len(found)}")
    return LabelTable(columns, latents=found[index], source=str(path))


def _of_drawn(table: LabelTable, drawn: Drawn, chosen: Column | None) -> LabelTable:
    """Read the attributes off the headers, and order the rows by how their pictures were chosen."""
    specs = Vocabulary(parse_attribute(header) for header in table.columns)
    columns = dict(zip(specs, table.columns.values(), strict=True))
    table = replace(table, columns=columns, vocabulary=specs, drawn=drawn)
    if chosen is None:
        return table
    assert table.index is not None
    order, learned, test = held_out_order(table.index, chosen, drawn.seed, table.source)
    columns = {name: [cells[row] for row in order] for name, cells in columns.items()}
    return replace(table, columns=columns, index=table.index[torch.tensor(order)], learned=learned, test=test)


def read_latents(path: Path) -> Tensor:
    """Read the latents of a `.npy` file, or of a `.safetensors` file with one tensor, as (n, latent_dim) float32.

    Between these, the file may have axes along which the latent is repeated, as in W+.

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
    return one_per_sample(found, path)


def read_npy(path: Path) -> Tensor:
    """Read the numbers of a `.npy` file, float32.

    Raises:
        OSError, ValueError, TypeError, EOFError, OverflowError: it is missing, damaged, or holds something else.
    """
    try:
        # Mapped, so that no memory is allocated for a size that the file claims but does not have.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError("it is not a .npy file of plain numbers") from error
    return torch.from_numpy(np.array(found, dtype=np.float32))


def one_per_sample(latents: Tensor, path: Path) -> Tensor:
    """Reduce latents (n, ..., latent_dim) that are constant along the middle axes to (n, latent_dim) float32.

    Raises:
        DataError: they are not constant there, or not finite.
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
            hint="label the output of the mapping network",
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


def read_csv(path: Path) -> dict[str, list[str]]:
    """Return the cells of each column of a CSV file: comma, semicolon or tab.

    Raises:
        DataError: it cannot be read, or is no table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    header = text.split("\n", 1)[0]
    try:
        lines = [line for line in csv.reader(text.splitlines(), delimiter=max(",;\t", key=header.count)) if line]
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file: {error}") from error
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
