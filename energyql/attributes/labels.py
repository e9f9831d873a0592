"""Labels of pictures, from people or code, and their encoding as numbers.

The label of one picture for one attribute is called a cell: a bool, a number, a text, or missing (`None`, NaN or ""). A
labeller is code that returns cells for pictures.
"""

from __future__ import annotations

import dis
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.predictions import HEAD_KINDS, Prediction, on_cpu
from energyql.errors import ArgumentError, DataError, misfit
from energyql.kinds import KINDS, lacks_value
from energyql.numerics.shapes import Float
from energyql.plugins import JUDGES, load_plugin, make_plugin
from energyql.vocabulary import AttributeSpec, Vocabulary

Column = Sequence[Any]
"""Labels ("cells") of one attribute, one for each picture: bools, numbers, texts, or missing values."""
ImageLabeller = Callable[[Tensor], Mapping[str, Any]]
"""Function from pictures in [-1, 1], (batch, channels, height, width), to a dict by attribute. Each value is a list,
array or tensor of `batch` labels, or a prediction, of which the likeliest values are taken."""
Numbers = Mapping[str, Float[Tensor, " batch"]]
"""Title such as "smile" or "hair = red" -> a number for each picture, to which a direction in latent space is fitted;
see `as_numbers`."""


@torch.no_grad()
def label_images(
    labeller: ImageLabeller, images: Float[Tensor, "batch channels height width"], who: str = "the labeller"
) -> dict[str, list[Any]]:
    """Call a labeller with pictures in [-1, 1], and return for each attribute its labels as a list.

    See `call_labeller`. A `DataError` also says that there is not one label for each picture.
    """
    labels = on_cpu(call_labeller(labeller, images, who))
    return {name: as_cells(values, len(images), name, who) for name, values in labels.items()}


def call_labeller(
    labeller: ImageLabeller,
    images: Float[Tensor, "batch channels height width"],
    who: str = "the labeller",
    *,
    gradient: bool = False,
) -> Mapping[str, Any]:
    """Call a labeller with pictures in [-1, 1], and return its result unchanged: labels or predictions by attribute.

    Without `gradient`, a module is put into evaluation mode on the pictures' device, and autograd records nothing.

    Raises:
        DataError: the labeller, called `who`, returns no mapping whose keys are texts, or an empty one.
    """
    if isinstance(labeller, torch.nn.Module) and not gradient:
        labeller.eval().to(images.device)
    with torch.set_grad_enabled(gradient):
        labels = labeller(images)
    if not isinstance(labels, Mapping) or not labels or not all(isinstance(name, str) for name in labels):
        raise DataError(f'{who} must return a dict such as {{"smile": [True, False]}}, not {labels!r:.60}')
    return labels


def read_images(labeller: ImageLabeller, images: Tensor, vocabulary: Vocabulary) -> dict[str, npt.NDArray[Any]]:
    """Call a labeller with pictures in [-1, 1], and return attribute -> array (batch,) of bool, class names or float64.

    Attributes that `vocabulary` or the labeller lacks are left out.

    Raises:
        DataError: a value is missing, or is no value of its attribute.
    """
    columns = label_images(labeller, images, "the judge")
    values: dict[str, npt.NDArray[Any]] = {}
    for name, spec in ((name, spec) for name, spec in vocabulary.items() if name in columns):
        numbers = encode_column(columns[name], spec, "the judge").numpy()
        if np.isnan(numbers).any():
            raise DataError(f"the judge returns no value of {name!r} for some pictures")
        values[name] = HEAD_KINDS[spec.kind].decode(numbers, spec)
    return values


def import_labeller(name: str) -> ImageLabeller:
    """Import a labeller (code that returns labels for pictures) by its name.

    The name is `module:function`, or that of a judge that an installed package offers as a plugin. A class, such as a
    torch module, is called without arguments.

    Raises:
        ArgumentError: there is no such labeller, or it cannot be called with pictures.
    """
    labeller: Any = load_plugin(name, JUDGES)
    labeller = make_plugin(labeller, name) if inspect.isclass(labeller) else labeller
    if wrong := misfit(labeller, None) if callable(labeller) else f"it is of type {type(labeller).__name__}":
        raise ArgumentError(f"{name} cannot be called with pictures: {wrong}")
    return cast(ImageLabeller, labeller)


def labeller_name(labeller: ImageLabeller) -> str:
    """A text by which a labeller is recognised, with its name for people as first line.

    It is the labeller's `identity`, or else the name and source code of the function or class, and what the source does
    not show: the arguments of a partial function, and numbers and texts from the function around it. The weights of
    networks are not in it, see `judge_mark`.
    """
    identity = getattr(labeller, "identity", None)
    if isinstance(identity, str):
        return identity
    subject: Any = labeller if hasattr(labeller, "__qualname__") else type(labeller)
    try:
        source = inspect.getsource(subject)
    except (OSError, TypeError):
        source = ""
    module = getattr(subject, "__module__", None)  # methods of built-in classes have none
    return "\n".join([f"{module}.{subject.__qualname__}", source, *_bound(labeller)])


def _bound(labeller: Any) -> Iterator[str]:
    """Yield a text for each thing that a labeller's source does not show, without addresses, which change each time."""
    if isinstance(labeller, partial):
        yield labeller_name(labeller.func)
        named = [*enumerate(labeller.args), *sorted(labeller.keywords.items())]
        for name, value in named:
            whole = labeller_name(value) if callable(value) else type(value).__qualname__
            yield f"{name} = {value!r}" if _is_plain(value) else f"{name}: {whole}"
    if cells := getattr(labeller, "__closure__", None):
        # What the function itself changes, such as a counter of its calls, is no setting of it.
        own = {each.argval for each in dis.get_instructions(labeller) if each.opname == "STORE_DEREF"}
        for name, cell in zip(labeller.__code__.co_freevars, cells, strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # the variable has no value yet
                continue
            if name not in own and _is_plain(value):
                yield f"{name} = {value!r}"


def _is_plain(value: object) -> bool:
    """Whether `repr` tells all of a value: a text, number, bool or `None`, or a tuple of these."""
    return all(map(_is_plain, value)) if type(value) is tuple else isinstance(value, str | int | float | None)


def as_cells(values: Any, count: int, name: str, who: str = "the labeller") -> list[Any]:
    """The labels that a labeller returned for one attribute, or the likeliest values of a prediction, as a list.

    A `DataError` says, with `who` and the attribute `name`, that there are not `count` labels.
    """
    if isinstance(values, Prediction):
        values = values.decide()
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    cells = values.tolist() if hasattr(values, "tolist") else values
    is_list = isinstance(cells, Sequence) and not isinstance(cells, str)
    if not is_list or len(cells) != count:
        answer = f"{len(cells)} values" if is_list else f"{cells!r:.40}"
        raise DataError(f"{who}: {name!r}: {count} pictures but {answer}")
    if any(isinstance(cell, list | tuple) for cell in cells[:1]):
        raise DataError(f"{who}: {name!r}: a label is a list, and not a value such as the name of a class")
    return list(cells)


def as_numbers(labels: Mapping[str, Any], count: int, *, finite: bool = True) -> Numbers:
    """Predictions for pictures as numbers, (count,) for each title, to which directions in latents are fitted.

    A yes/no prediction becomes its log-odds, a continuous one its mean, with the attribute's name as title. A
    categorical one becomes, for each class, the logit minus the mean of all logits, with a title such as "hair = red".
    A float tensor (count,) or (count, 1) is taken as it is. Anything else raises a `DataError`; so do numbers that are
    not finite, unless `finite` is false, which saves waiting for a GPU.
    """
    numbers: dict[str, Tensor] = {}
    for name, value in labels.items():
        titles, rows = value.titled(name) if isinstance(value, Prediction) else ([name], value)
        shapes = ((count,),) * (len(titles) == 1) + ((count, len(titles)),)
        if not isinstance(rows, Tensor) or not rows.is_floating_point() or rows.shape not in shapes:
            kind = f"{rows.dtype} of shape {tuple(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
            raise DataError(
                f"{name!r} is a {kind}, not a tensor of one number for each picture, {shapes[0]}",
                hint="directions follow the gradient of a number, which a trained judge has for every attribute",
            )
        if finite and not rows.isfinite().all():
            raise DataError(f"{name!r} is not finite for all pictures")
        rows = rows.reshape(count, -1)
        rows = rows - rows.mean(1, keepdim=True) if len(titles) > 1 else rows
        numbers |= zip(titles, rows.unbind(1), strict=True)
    return numbers


def encode_column(cells: Column, spec: AttributeSpec, source: str = "the labels") -> Float[Tensor, " rows"]:
    """Encode the labels of one attribute as float32: 0 or 1, the index of the class, or the value; NaN if missing.

    A `DataError` about a label that is no value of the attribute names `source` and the row, counted from 1.
    """
    values: list[float] = []
    written = KINDS[spec.kind].labels
    encode = written.encoder(spec)
    for row, cell in enumerate(cells, 1):
        value = math.nan if lacks_value(cell, spec) else encode(cell)
        if value is None:
            raise DataError(f"{source}, row {row}: {spec.name!r} is {cell!r}, not {written.expected(spec)}")
        values.append(value)
    return torch.tensor(values, dtype=torch.float32)


def known_cells(cells: Column, spec: AttributeSpec) -> Column:
    """Replace labels that are no class of a categorical attribute by `None`: for a training, they are missing."""
    if not spec.values:
        return cells
    encode = KINDS[spec.kind].labels.encoder(spec)
    return [None if lacks_value(cell, spec) or encode(cell) is None else cell for cell in cells]
