"""Labels of pictures: cells as people write them, and their encoding as numbers.

A cell is a bool, a number, text, or missing. An `ImageLabeller` returns cells for pictures.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.predictions import PREDICTIONS, Prediction
from energyql.errors import ArgumentError, DataError, misfit
from energyql.kinds import KINDS, is_missing
from energyql.numerics.shapes import Float
from energyql.plugins import JUDGES, load_plugin, make_plugin
from energyql.vocabulary import AttributeSpec, Vocabulary

Column = Sequence[Any]
"""Cells of one attribute."""
ImageLabeller = Callable[[Tensor], Mapping[str, Any]]
"""Pictures in [-1, 1], (batch, channels, height, width) -> attribute -> `batch` cells: a list, array or tensor, or a
prediction, whose likeliest value counts."""
Numbers = Mapping[str, Float[Tensor, " batch"]]
"""Numbers, by title, to which directions of latents are fitted; see `as_numbers`."""


@torch.no_grad()
def label_images(
    labeller: ImageLabeller, images: Float[Tensor, "batch channels height width"], who: str = "the labeller"
) -> dict[str, list[Any]]:
    """Label pictures.

    Args:
        labeller: a function or a torch module. A module is put into evaluation mode.
        images: pictures in [-1, 1], (batch, channels, height, width).
        who: name of the labeller in messages.

    Returns:
        Attribute -> one cell per picture.

    Raises:
        DataError: the labeller does not return a mapping from names to one value per picture.
    """
    labels = call_labeller(labeller, images, who)
    return {name: as_cells(values, len(images), name, who) for name, values in labels.items()}


@torch.no_grad()
def call_labeller(
    labeller: ImageLabeller, images: Float[Tensor, "batch channels height width"], who: str = "the labeller"
) -> Mapping[str, Any]:
    """Call a labeller, and return the mapping that it returns; see `label_images`.

    Raises:
        DataError: as for `check_labels`.
    """
    if isinstance(labeller, torch.nn.Module):
        labeller.eval().to(images.device)
    return check_labels(labeller(images), who)


def check_labels(labels: Any, who: str) -> Mapping[str, Any]:
    """Return `labels`, which a labeller returned, if they are a mapping from names; `who` names it in messages.

    Raises:
        DataError: it is not a mapping from names, or is empty.
    """
    if not isinstance(labels, Mapping) or not labels or not all(isinstance(name, str) for name in labels):
        raise DataError(
            f"{who} returned {_shown(labels)}",
            hint='it must return a dict such as {"smile": [True, False, ...]}, one value per picture',
        )
    return labels


def _shown(labels: Any) -> str:
    if not isinstance(labels, Mapping):
        kind = type(labels).__name__
        return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    return "a dict whose keys are not all names" if labels else "an empty dict"


def read_images(labeller: ImageLabeller, images: Tensor, vocabulary: Vocabulary) -> dict[str, npt.NDArray[Any]]:
    """Read the values of attributes off pictures.

    Args:
        labeller: a judge, or any function that returns some of the attributes.
        images: pictures in [-1, 1], (batch, channels, height, width).
        vocabulary: the attributes; others that the labeller returns are left out.

    Returns:
        Attribute -> (batch,) bool, class names or float64, for those that the labeller returns.

    Raises:
        DataError: a value is missing, or is not one of the attribute's.
    """
    columns = label_images(labeller, images, "the judge")
    values: dict[str, npt.NDArray[Any]] = {}
    for name, spec in ((name, spec) for name, spec in vocabulary.items() if name in columns):
        numbers = encode_column(columns[name], spec, "the judge").numpy()
        if np.isnan(numbers).any():
            raise DataError(
                f"the judge returns no value of {name!r} for some pictures", hint="a judge must label every picture"
            )
        values[name] = PREDICTIONS[spec.kind].decode(numbers, spec)
    return values


def import_labeller(name: str) -> ImageLabeller:
    """Import the labeller called `module:function`, or the judge of that name in an installed package.

    A class is called without arguments first, so that a torch module can be named by its class.

    Raises:
        ArgumentError: there is no such labeller.
    """
    found = load_plugin(name, JUDGES)
    found = make_plugin(found, name) if inspect.isclass(found) else found
    if not callable(found):
        raise ArgumentError(
            f"{name} is a {type(found).__name__}, which cannot be called",
            hint="name a function, a class or a torch module",
        )
    if wrong := misfit(found, None):
        raise ArgumentError(
            f"{name} cannot be called with pictures: {wrong}", hint="it takes one argument, the pictures"
        )
    labeller: ImageLabeller = found
    return labeller


def labeller_name(labeller: ImageLabeller) -> str:
    """Return a text that identifies a labeller, so that an interrupted labelling is resumed with the same one.

    It is the `identity` of the labeller, if it has one, or else its name and source code.
    """
    identity = getattr(labeller, "identity", None)
    if isinstance(identity, str):
        return identity
    subject: Any = labeller if hasattr(labeller, "__qualname__") else type(labeller)
    try:
        source = inspect.getsource(subject)
    except (OSError, TypeError):
        source = ""
    return f"{subject.__module__}.{subject.__qualname__}\n{source}"


def as_cells(values: Any, count: int, name: str, who: str = "the labeller") -> list[Any]:
    """Convert the values that a labeller, called `who`, returned for one attribute to a list of `count` cells.

    Raises:
        DataError: the values have another length, or are no sequence of cells.
    """
    if isinstance(values, Prediction):
        values = values.decide()
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    cells = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(cells, str) or not isinstance(cells, Sequence) or len(cells) != count:
        several = isinstance(cells, Sequence) and not isinstance(cells, str)
        raise DataError(
            f"{who}: {name!r}: {count} pictures but {f'{len(cells)} values' if several else f'{cells!r:.40}'}",
            hint=f"return one value per picture, such as {{{name!r}: [True, False, ...]}}",
        )
    if cells and isinstance(cells[0], Sequence) and not isinstance(cells[0], str):
        raise DataError(
            f"{name!r}: a label is a list", hint="return one value per picture, such as the name of a class"
        )
    return list(cells)


def as_numbers(labels: Mapping[str, Any], count: int) -> Numbers:
    """Return the labels or predictions of `count` pictures as numbers: log-odds, means, or tensors as they are.

    Of a categorical attribute there is a number for each class, "hair = red": its logit less the mean of all.

    Raises:
        DataError: a value is none of these, has another shape, or is not finite.
    """
    numbers: dict[str, Tensor] = {}
    for name, value in labels.items():
        titles, rows = value.titled(name) if isinstance(value, Prediction) else ([name], value)
        shapes = ((count,),) * (len(titles) == 1) + ((count, len(titles)),)
        if not isinstance(rows, Tensor) or not rows.is_floating_point() or rows.shape not in shapes:
            kind = f"{rows.dtype} of shape {tuple(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
            raise DataError(
                f"{name!r} is a {kind}, not a tensor of one number for each picture, {shapes[0]}",
                hint="directions are learned by the gradient of a number; a judge that is trained has one for every "
                "attribute",
            )
        if not rows.isfinite().all():
            raise DataError(f"{name!r} is not finite for all pictures", hint="let the labeller return finite numbers")
        rows = rows.reshape(count, -1)
        rows = rows - rows.mean(1, keepdim=True) if len(titles) > 1 else rows
        numbers |= zip(titles, rows.unbind(1), strict=True)
    return numbers


def encode_column(cells: Column, spec: AttributeSpec, source: str = "the labels") -> Float[Tensor, " rows"]:
    """Encode cells as 0 or 1, the index of the class, or the number, in float32; NaN where missing.

    Raises:
        DataError: a cell is no value of the attribute; the message has its row, counted from 1.
    """
    values: list[float] = []
    encode = KINDS[spec.kind].encoder(spec)
    for row, cell in enumerate(cells, 1):
        value = math.nan if is_missing(cell) else encode(cell)
        if value is None:
            raise DataError(
                f"{source}, row {row}: {spec.name!r} is {cell!r}, not {KINDS[spec.kind].expected(spec)}",
                hint="correct the value, or leave it empty if it is not known",
            )
        values.append(value)
    return torch.tensor(values, dtype=torch.float32)


def known_cells(cells: Column, spec: AttributeSpec) -> Column:
    """Return the cells with `None` in place of classes that the attribute does not have."""
    if not spec.values:
        return cells
    encode = KINDS[spec.kind].encoder(spec)
    return [None if is_missing(cell) or encode(cell) is None else cell for cell in cells]
