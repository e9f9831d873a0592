"""Labels as people have them, and as training needs them.

There are two sources. A `LabelTable` knows the answers for certain samples. An `ImageLabeller` is a function that is
shown pictures. Both give columns of cells, by attribute; a cell is a bool, a number, text, or missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.outputs import decide
from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.errors import DataError, VocabularyError
from energyql.vocabulary import AttributeSpec, Kind, Vocabulary

Column = Sequence[Any]
ImageLabeller = Callable[[Tensor], Mapping[str, Any]]
"""Pictures in [-1, 1], (batch, channels, height, width) -> attribute -> `batch` cells: a list, array or tensor, or a
prediction, of which the likeliest value counts."""

MISSING = {"", "na", "n/a", "nan", "none", "null", "?"}
YES, NO = {"1", "true", "yes", "y", "t"}, {"0", "false", "no", "n", "f"}
MOST_CLASSES = 100
TOLERANCE = 0.05
"""Share of the range of a continuous attribute that `=` allows where nobody says otherwise."""


@dataclass(frozen=True)
class LabelTable:
    """Answers for certain samples.

    Attributes:
        columns: attribute -> n cells.
        index: which prior samples these are, (n,); `None` where `latents` are given.
        latents: (n, latent_dim), in the space that heads will read; `None` where `index` is given.
        test: how many rows at the end are for the report only; `None` lets the training choose, and shuffle.
        vocabulary: what the columns hold, where it is known for certain.
        source: for messages.
    """

    columns: Mapping[str, Column]
    index: Tensor | None = None
    latents: Tensor | None = None
    test: int | None = None
    vocabulary: Vocabulary | None = None
    source: str = "the table"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def as_cells(values: Any, count: int, name: str) -> list[Any]:
    """What a labeller gave for one attribute, as `count` plain cells.

    Raises:
        DataError: it is of another length, or nothing that holds cells.
    """
    if isinstance(values, YesNo | Categorical | Continuous):
        values = decide({name: values})[name]
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    cells = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(cells, str) or not isinstance(cells, Sequence) or len(cells) != count:
        shape = f"{len(cells)} values" if isinstance(cells, Sequence) else type(values).__name__
        raise DataError(f"{name!r}: {count} pictures but {shape}", hint="a labeller gives one value a picture")
    if cells and isinstance(cells[0], Sequence) and not isinstance(cells[0], str):
        raise DataError(f"{name!r}: a label is a list", hint="give one value a picture, such as the name of a class")
    return list(cells)


def is_missing(cell: Any) -> bool:
    """Whether a cell is empty, by any of the usual signs."""
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in MISSING):
        return True
    return isinstance(cell, float) and math.isnan(cell)


def infer(
    columns: Mapping[str, Column], kinds: Mapping[str, Kind] | None = None, known: Vocabulary | None = None
) -> Vocabulary:
    """What the columns hold: 0/1, true/false, yes/no is yes/no; numbers are continuous; other text is categorical.

    Args:
        columns: attribute -> cells.
        kinds: what must not be inferred.
        known: attributes that need not be inferred, unless `kinds` names them.

    Raises:
        DataError: a column is empty, or looks like free text.
        VocabularyError: `kinds` names what is no column.
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
    numbers = [_number(cell) for cell in known]
    if kind is None:
        if all(_yes_no(cell) is not None for cell in known):
            kind = "yes/no"
        else:
            kind = "continuous" if None not in numbers else "categorical"
    if kind == "continuous":
        wrong = next((cell for cell, number in zip(known, numbers, strict=True) if number is None), None)
        if wrong is not None:
            raise DataError(f"column {name!r}: {wrong!r} is not a number")
        found = [number for number in numbers if number is not None]
        low, high = min(found), max(found)
        if low == high:
            raise DataError(f"column {name!r}: all values are {low:g}, so there is nothing to learn")
        return AttributeSpec(name, kind, low=low, high=high, tolerance=TOLERANCE * (high - low))
    if kind == "categorical":
        values = sorted({_text(cell) for cell in known})
        if len(values) > MOST_CLASSES:
            raise DataError(
                f"column {name!r} has {len(values)} different texts, such as {values[0]!r} and {values[1]!r}",
                hint="a categorical attribute has a few classes; leave the column out if it is none",
            )
        if len(values) < 2:
            raise DataError(f"column {name!r}: all values are {values[0]!r}, so there is nothing to learn")
        return AttributeSpec(name, kind, values=tuple(values))
    return AttributeSpec(name, kind)


def encode_column(cells: Column, spec: AttributeSpec, source: str = "the labels") -> Tensor:
    """Cells as training needs them: 0/1, the index of the class, or the number; NaN where missing; (n,) float32.

    Raises:
        DataError: a cell is not a value of the attribute; the message names its row, counted from 1.
    """
    values: list[float] = []
    classes = {value: float(i) for i, value in enumerate(spec.values)}
    for row, cell in enumerate(cells, 1):
        value: float | None
        if is_missing(cell):
            value = math.nan
        elif spec.kind == "categorical":
            value = classes.get(_text(cell))
        elif spec.kind == "yes/no":
            value = _yes_no(cell)
        else:
            value = _number(cell)
        if value is None:
            wanted = {
                "categorical": f"one of {', '.join(spec.values)}",
                "yes/no": "0 or 1, true or false, yes or no",
                "continuous": "a finite number",
            }[spec.kind]
            raise DataError(f"{source}, row {row}: {spec.name!r} is {cell!r}, not {wanted}")
        values.append(value)
    return torch.tensor(values, dtype=torch.float32)


def _yes_no(cell: Any) -> float | None:
    if isinstance(cell, str):
        text = cell.strip().lower()
        cell = 1 if text in YES else 0 if text in NO else _number(text)
    return float(cell) if isinstance(cell, Real) and cell in (0, 1) else None


def _number(cell: Any) -> float | None:
    try:
        number = float(cell.strip() if isinstance(cell, str) else cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _text(cell: Any) -> str:
    if isinstance(cell, str):
        return cell.strip()
    return f"{cell:g}" if isinstance(cell, float) else str(cell)
