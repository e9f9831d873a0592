"""Labels of given samples: tables with latents or numbers of pictures, and the attributes that their columns hold."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.labels import Column, as_number, as_text, as_yes_no, is_missing
from energyql.errors import DataError, LabelWarning, ModelError, VocabularyError, caller_level
from energyql.files import read_tensors
from energyql.training.drawn import CHOSEN, INDEX, POOL, TOLERANCE, Drawn, held_out_order, parse_attribute, take_drawn
from energyql.training.reading import read_columns, read_npy
from energyql.vocabulary import AttributeSpec, Kind, Vocabulary

MOST_CLASSES = 100
ENOUGH, RARE = 100, 20
"""Labels for each class on average (twice as many of a number), and of the rarest class, below which a training warns:
of a fifth that is held out, four labels of a class put its recall somewhere between 0.3 and 0.95."""


@dataclass(frozen=True)
class LabelTable:
    """Labels of given samples.

    Attributes:
        columns: attribute -> n cells.
        index: indices of prior samples, (n,); `None` where `latents` are given.
        latents: (n, latent_dim), in the space that the heads will read; `None` where `index` is given.
        learned: number of rows at the beginning that heads are fitted to, and that measure nothing.
        test: number of rows at the end that only the report uses; by default the training shuffles and chooses.
        vocabulary: the attributes of the columns, where they are known for certain.
        drawn: how the pictures were drawn, where the table says so.
        beside: how those in the folder of the table were drawn, where the table does not say so.
        pool: folder in which `sample_pictures` keeps thumbnails of the pictures that it chose from, if there is one.
        source: name of the table in messages.
    """

    columns: Mapping[str, Column]
    index: Tensor | None = None
    latents: Tensor | None = None
    learned: int = 0
    test: int | None = None
    vocabulary: Vocabulary | None = None
    drawn: Drawn | None = None
    beside: Drawn | None = None
    pool: Path | None = None
    source: str = "the table"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def infer(
    columns: Mapping[str, Column], kinds: Mapping[str, Kind] | None = None, known: Vocabulary | None = None
) -> Vocabulary:
    """Infer the kind of each column.

    0/1, true/false and yes/no are yes/no; numbers are continuous; other text is categorical. A column of texts that
    mostly differ, such as file names, is left out with a warning. A kind in `kinds` is not inferred; other attributes
    in `known` are used as they are.

    Raises:
        DataError: a column is empty or constant, or has too many classes, or no column is left.
        VocabularyError: a name in `kinds` is no column.

    Warns:
        LabelWarning: a column is left out.
    """
    kinds, known = kinds or {}, known or Vocabulary([])
    if unknown := [name for name in kinds if name not in columns]:
        raise VocabularyError(f"there is no column {unknown[0]!r}", hint=f"columns: {', '.join(columns)}")
    given = {*kinds, *known}
    left_out = [name for name, cells in columns.items() if name not in given and _is_free_text(cells)]
    for name in left_out:
        cells = ", ".join(repr(cell) for cell in columns[name][:2])
        warnings.warn(
            f"column {name!r} is left out: its texts, such as {cells}, mostly differ, so they are no classes",
            LabelWarning,
            stacklevel=caller_level(),
        )
    if len(left_out) == len(columns):
        raise DataError("there is no column of labels", hint="a column for each attribute, such as smile with yes, no")
    return Vocabulary(
        known[name] if name in known and name not in kinds else _infer_one(name, cells, kinds.get(name))
        for name, cells in columns.items()
        if name not in left_out
    )


def _is_free_text(cells: Column) -> bool:
    texts = [as_text(cell) for cell in cells if not is_missing(cell)]
    if all(as_number(text) is not None for text in texts) or all(as_yes_no(text) is not None for text in texts):
        return False
    return len(texts) >= 10 and len(set(texts)) > len(texts) / 2


def warn_of_few_labels(labels: Mapping[str, Tensor], specs: Mapping[str, AttributeSpec]) -> None:
    """Warn of attributes with few labels, all in one message.

    Labels are (rows,): 0/1, class index or number; NaN where missing.

    Warns:
        LabelWarning: there are few labels, or few of one class.
    """
    few = []
    for name, spec in specs.items():
        known = labels[name][~labels[name].isnan()]
        classes = ("no", "yes") if spec.kind == "yes/no" else spec.values
        if len(known) < ENOUGH * max(2, len(classes)):
            few.append(f"{name!r} has {len(known)}")
        elif classes:
            counts = torch.bincount(known.long(), minlength=len(classes))
            least = int(counts.argmin())
            if counts[least] < RARE:
                few.append(f"{name!r} has {counts[least]} of {classes[least]}")
    if few:
        warnings.warn(
            f"there are few labels: {', '.join(few)}; a head needs about {ENOUGH} of each class, {RARE} of a rare one, "
            "and its report says how well it did on those held out",
            LabelWarning,
            stacklevel=caller_level(),
        )


def _infer_one(name: str, cells: Column, kind: Kind | None) -> AttributeSpec:
    known = [cell for cell in cells if not is_missing(cell)]
    if not known:
        raise DataError(f"column {name!r} has no values", hint="leave it out with --only, or label some pictures")
    numbers = [as_number(cell) for cell in known]
    if kind is None and all(as_yes_no(cell) is not None for cell in known):
        kind = "yes/no"
    if kind == "yes/no":
        return AttributeSpec(name, kind)
    if kind == "continuous" and None in numbers:
        raise DataError(
            f"column {name!r}: {known[numbers.index(None)]!r} is not a number",
            hint="correct it, or give another kind: --kind name=categorical",
        )
    values = sorted({as_text(cell) for cell in known})
    found = sorted({number for number in numbers if number is not None})
    continuous = kind == "continuous" or (kind is None and None not in numbers)
    if len(found if continuous else values) < 2:
        hint = "label pictures of another value too, or name the other columns with --only"
        raise DataError(f"column {name!r}: all values are {values[0]!r}, so there is nothing to learn", hint=hint)
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

    The column `index` is the number of a picture of `energyql.sample_pictures`: of the folder in which the table is, or
    else under the seed of the training. With
    `latents`, it is a row of that file; without the column, the rows of both files are in the same order.

    A table with the column `drawn`, as `energyql label` writes it, says itself how its pictures were drawn and what its
    attributes are; see `energyql.training.drawn`.

    The file is CSV (comma, semicolon or tab; decimal commas with the latter two), or Parquet by its name, which needs
    pyarrow or polars; `read_latents` reads the latents.

    Raises:
        DataError: a file is missing, damaged, or does not fit the other, or the table does not say what it is about.

    Warns:
        LabelWarning: the rows are taken in the order of the latents.
    """
    columns = read_columns(path)
    rows = len(next(iter(columns.values()), ()))
    name = next((name for name in columns if name.lower() == INDEX), INDEX)
    cells = columns.pop(name, None)
    drawn = take_drawn(columns, str(path))
    chosen = None if drawn is None else columns.pop(CHOSEN, None)
    if not columns:
        raise DataError(
            f"{path} has no column of labels", hint="add a column for each attribute, such as index,glasses,age"
        )
    if not rows:
        raise DataError(f"{path} has no rows", hint="add a row for each labelled picture")
    if latents is None:
        if cells is None:
            raise DataError(
                f"{path} has no column {INDEX!r}, so nothing says which picture a row is about",
                hint="add the number of each picture in its run of energyql sample --seed; or give --latents",
            )
        table = LabelTable(columns, index=_index(cells, path), source=str(path))
        return replace(table, beside=Drawn.beside(path)) if drawn is None else _of_drawn(table, drawn, chosen)
    if drawn is not None:
        raise DataError(
            f"{path} says how its pictures were drawn, so it takes no latents", hint="leave out the latents"
        )
    found = read_latents(latents)
    if cells is None:
        if len(found) != rows:
            raise DataError(
                f"{path} has {rows} rows and no column {INDEX!r}, but {latents} holds {len(found)} latents",
                hint="a row for each latent, in their order; or a column index with the row of the latent",
            )
        note = f"{path} has no column {INDEX!r}, so its rows are about the latents of {latents} in their order"
        warnings.warn(note, LabelWarning, stacklevel=caller_level())
        return LabelTable(columns, latents=found, source=str(path))
    index = _index(cells, path)
    if int(index.max()) >= len(found):
        raise DataError(
            f"{path} is about sample {int(index.max())}, but {latents} holds only {len(found)}",
            hint="the index is the row in the file of latents, counted from 0",
        )
    return LabelTable(columns, latents=found[index], source=str(path))


def _of_drawn(table: LabelTable, drawn: Drawn, chosen: Column | None) -> LabelTable:
    """Read the attributes off the headers, and order the rows by how their pictures were chosen."""
    specs = Vocabulary(parse_attribute(header) for header in table.columns)
    columns = dict(zip(specs, table.columns.values(), strict=True))
    table = replace(table, columns=columns, vocabulary=specs, drawn=drawn, pool=Path(table.source).with_name(POOL))
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
    if path.suffix.lower() != ".safetensors":
        return one_per_sample(read_npy(path), path)
    try:
        tensors = read_tensors(path)
    except ModelError as error:
        raise DataError(error.message, hint=error.hint) from error
    if len(tensors) != 1:
        raise DataError(f"{path} holds {len(tensors)} tensors", hint="save the latents alone")
    (found,) = tensors.values()
    return one_per_sample(found, path)


def one_per_sample(latents: Tensor, path: Path) -> Tensor:
    """Reduce latents (n, ..., latent_dim) that are constant along the middle axes to (n, latent_dim) float32.

    Raises:
        DataError: they are not constant there, or not finite.
    """
    if latents.ndim < 2 or not latents.numel():
        raise DataError(
            f"{path}: latents have shape {tuple(latents.shape)}, not (samples, numbers)",
            hint="save an array with a row for each sample",
        )
    rows = latents.flatten(1, -2) if latents.ndim > 2 else latents[:, None]
    first = rows[:, 0]
    if not rows.isfinite().all():
        raise DataError(f"{path}: a latent has a number that is not finite", hint="leave such samples out")
    if not torch.equal(rows, first[:, None].expand_as(rows)):
        raise DataError(
            f"{path}: the latents differ from layer to layer (W+), but heads read one latent a sample",
            hint="label the output of the mapping network",
        )
    return first.float().clone()


def _index(cells: list[Any], path: Path) -> Tensor:
    rows: dict[int, int] = {}  # number of a sample -> its row
    for row, cell in enumerate(cells, 1):
        try:
            number = int(cell)
            if not 0 <= number < 2**63 or number != float(cell):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{path}, row {row}: the index is {cell!r}, not a whole number from 0",
                hint="it is the number in the name of the picture",
            ) from None
        if number in rows:
            raise DataError(
                f"{path}: sample {number} has two rows, {rows[number]} and {row}", hint="leave one of them out"
            )
        rows[number] = row
    return torch.tensor(list(rows), dtype=torch.int64)
