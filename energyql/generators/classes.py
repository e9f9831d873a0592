"""Labels of conditional generators: what people give, checked, and what `encode` takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, cast

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.generators.base import ConditionalGenerator, Generator

Label = int | tuple[float, ...]
"""A class, or the `c_dim` numbers that a generator is conditional on."""
RANDOM: Literal["random"] = "random"
"""Every sample has a class of its own. Samples that heads are fitted to may be so, pictures of a query may not."""


def class_count(generator: Generator) -> int:
    """Numbers in a label, c_dim; 0 for a generator without classes."""
    count = getattr(generator, "c_dim", 0)
    return count if isinstance(count, int) else 0


def check_label(label: Any, generator: Generator) -> Label | None:
    """A label as it is compared and recorded: a class wherever it is one.

    Args:
        label: a class, 0 to c_dim - 1; or c_dim numbers as a list, array or tensor; `None` for no label.
        generator: whose.

    Raises:
        ArgumentError: the generator needs a label, or has no classes, or not that one.
    """
    count = class_count(generator)
    if not count:
        if label is None:
            return None
        raise ArgumentError(f"this generator has no classes, so it takes no label, such as {label!r}")
    if label is None:
        raise ArgumentError(f"this generator is conditional on {count} classes: give a label", hint=_allowed(count))
    numbers = label.tolist() if hasattr(label, "tolist") else label
    if isinstance(numbers, int) and not isinstance(numbers, bool):
        if not 0 <= numbers < count:
            raise ArgumentError(f"there is no class {numbers}", hint=_allowed(count))
        return numbers
    if not isinstance(numbers, Sequence) or isinstance(numbers, str):
        raise ArgumentError(f"{label!r} is no label", hint=_allowed(count))
    if len(numbers) != count or not all(_finite(number) for number in numbers):
        raise ArgumentError(f"{label!r} are not {count} finite numbers", hint=_allowed(count))
    condition = tuple(float(number) for number in numbers)
    one_hot = sorted(condition) == [0.0] * (count - 1) + [1.0]
    return condition.index(1.0) if one_hot else condition


def check_fitted_label(label: Any, generator: Generator) -> Label | Literal["random"] | None:
    """As `check_label`, for a label that heads are fitted under: "random" is one too."""
    if isinstance(label, str) and label == RANDOM and class_count(generator):
        return RANDOM
    return check_label(label, generator)


def as_condition(label: Label | None, generator: Generator) -> Tensor | None:
    """A checked label as `encode` takes it, (c_dim,) float32; `None` for none."""
    if label is None:
        return None
    if isinstance(label, tuple):
        return torch.tensor(label, dtype=torch.float32)
    return one_hot(torch.tensor(label), class_count(generator))


def one_hot(classes: Tensor, count: int) -> Tensor:
    """Classes (...) as conditions (..., count), float32."""
    return torch.nn.functional.one_hot(classes, count).float()


def encode_under(generator: Generator, z: Tensor, truncation: float, condition: Tensor | None = None) -> Tensor:
    """`generator.encode`, with its label where it is conditional.

    Args:
        generator: whose.
        z: (batch, z_dim).
        truncation: psi.
        condition: (c_dim,) for all samples, or (batch, c_dim); `None` for a generator without classes.
    """
    if condition is None:
        return generator.encode(z, truncation)
    return cast(ConditionalGenerator, generator).encode(z, truncation, condition.to(z).expand(len(z), -1))


def _finite(number: Any) -> bool:
    return isinstance(number, Real) and not isinstance(number, bool) and math.isfinite(number)


def _allowed(count: int) -> str:
    return f"a label is a class from 0 to {count - 1}, or a list of {count} numbers"
