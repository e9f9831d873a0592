"""Labels from a function or module that looks at pictures."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.labels import ImageLabeller, as_cells, encode_column
from energyql.errors import ArgumentError, DataError
from energyql.vocabulary import Vocabulary


def import_labeller(name: str) -> ImageLabeller:
    """The labeller that "module:function" names; the working directory is searched as well.

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


@torch.no_grad()
def label_images(labeller: ImageLabeller, images: Tensor) -> dict[str, list[Any]]:
    """Ask a labeller about pictures.

    Args:
        labeller: a function, or a torch module, which is put into evaluation mode.
        images: in [-1, 1], (batch, channels, height, width).

    Raises:
        DataError: its answer is no mapping from names to one value a picture.
    """
    if isinstance(labeller, torch.nn.Module):
        labeller.eval().to(images.device)
    answer = labeller(images)
    if not isinstance(answer, Mapping) or not answer or not all(isinstance(name, str) for name in answer):
        raise DataError(
            f"the labeller gave a {type(answer).__name__}",
            hint='it must give a dict such as {"smile": [True, False, ...]}, one value a picture',
        )
    return {name: as_cells(values, len(images), name) for name, values in answer.items()}


def read_images(labeller: ImageLabeller, images: Tensor, vocabulary: Vocabulary) -> dict[str, npt.NDArray[Any]]:
    """What a labeller sees in pictures, as values that a query can be judged by.

    Args:
        labeller: a judge, or any function that tells of every attribute.
        images: in [-1, 1], (batch, channels, height, width).
        vocabulary: the attributes; what else the labeller tells of is left out.

    Returns:
        Attribute -> (batch,) bool, class names or float64.

    Raises:
        DataError: an attribute or the value of a picture is missing, or is none that the attribute has.
    """
    columns = label_images(labeller, images)
    if missing := [name for name in vocabulary if name not in columns]:
        raise DataError(f"the judge tells nothing of {', '.join(map(repr, missing))}")
    values: dict[str, npt.NDArray[Any]] = {}
    for name, spec in vocabulary.items():
        numbers = encode_column(columns[name], spec, "the judge").numpy()
        if np.isnan(numbers).any():
            raise DataError(f"the judge gives no value of {name!r} for some pictures", hint="a judge tells of each one")
        if spec.kind == "categorical":
            values[name] = np.array(spec.values)[numbers.astype(int)]
        else:
            values[name] = numbers.astype(bool if spec.kind == "yes/no" else np.float64)
    return values


def labeller_name(labeller: ImageLabeller) -> str:
    """What tells one labeller from another when an interrupted labelling goes on."""
    identity = getattr(labeller, "identity", None)
    if isinstance(identity, str):
        return identity
    subject: Any = labeller if hasattr(labeller, "__qualname__") else type(labeller)
    try:
        source = inspect.getsource(subject)
    except (OSError, TypeError):
        source = ""
    return f"{subject.__module__}.{subject.__qualname__}\n{source}"
