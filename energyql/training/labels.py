"""Sources of labels for training: tables of labelled samples, and labellers imported by name."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from energyql.attributes.labels import Column, ImageLabeller, as_number, as_text, as_yes_no, is_missing
from energyql.errors import ArgumentError, DataError, VocabularyError
from energyql.vocabulary import AttributeSpec, Kind, Vocabulary

MOST_CLASSES = 100
TOLERANCE = 0.05
"""Default tolerance of `=` for a continuous attribute, as a share of its range."""


@dataclass(frozen=True)
class LabelTable:
    """Labels of given samples.

    Attributes:
        columns: attribute -> n cells.
        index: indices of prior samples, (n,); `None` where `latents` are given.
        latents: (n, latent_dim), in the space that the heads will read; `None` where `index` is given.
        test: number of rows at the end that only the report uses; `None` lets the training shuffle and choose.
        vocabulary: the attributes of the columns, where they are known for certain.
        source: name of the table in messages.
    """

    columns: Mapping[str, Column]
    index: Tensor | None = None
    latents: Tensor | None = None
    test: int | None = None
    vocabulary: Vocabulary | None = None
    source: str = "the table"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def infer(
    columns: Mapping[str, Column], kinds: Mapping[str, Kind] | None = None, known: Vocabulary | None = None
) -> Vocabulary:
    """Infer the kind of each column.

    0/1, true/false and yes/no are yes/no; numbers are continuous; other text is categorical.

    Args:
        columns: attribute -> cells.
        kinds: attribute -> its kind, where it must not be inferred.
        known: attributes to use as they are, unless `kinds` names them.

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
    if kind is None:
        if all(as_yes_no(cell) is not None for cell in known):
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
        values = sorted({as_text(cell) for cell in known})
        if len(values) > MOST_CLASSES:
            raise DataError(
                f"column {name!r} has {len(values)} different texts, such as {values[0]!r} and {values[1]!r}",
                hint="a categorical attribute has a few classes; leave the column out if it is none",
            )
        if len(values) < 2:
            raise DataError(f"column {name!r}: all values are {values[0]!r}, so there is nothing to learn")
        return AttributeSpec(name, kind, values=tuple(values))
    return AttributeSpec(name, kind)


def import_labeller(name: str) -> ImageLabeller:
    """Import the labeller called "module:function"; the working directory is searched as well.

    A class is called without arguments first, so that a torch module can be named by its class.

    Raises:
        ArgumentError: there is no such module or function.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ArgumentError(f"a labeller is written module:function, not {name!r}")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise ArgumentError(f"cannot import {module!r}: {error}") from error
    finally:
        sys.path.remove(here)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ArgumentError(f"module {module!r} has no {attribute!r}")
        found = getattr(found, part)
    found = found() if inspect.isclass(found) else found
    if not callable(found):
        raise ArgumentError(f"{name} is a {type(found).__name__}, which cannot be called")
    labeller: ImageLabeller = found
    return labeller
