"""The argument, option and stored field `condition` had the name `label` before, which is still accepted everywhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from energyql.errors import ArgumentError

CONDITION: Final = "condition"
LABEL: Final = "label"
_Arguments = ParamSpec("_Arguments")
_Returned = TypeVar("_Returned")


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the key `label` to `condition`, in the arguments of a call or the content of a stored file.

    Raises:
        ArgumentError: both names occur.
    """
    if LABEL in values and CONDITION in values:
        raise ArgumentError("condition and label are one setting, and both are given", hint="leave out label")
    return {CONDITION if name == LABEL else name: value for name, value in values.items()}


def takes_label(function: Callable[_Arguments, _Returned]) -> Callable[_Arguments, _Returned]:
    """Decorator: the function also takes the keyword argument `label`, with a warning, and passes it as `condition`."""

    @wraps(function)
    def call(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Returned:
        if LABEL in options:
            warnings.warn("label is the older name of condition", DeprecationWarning, stacklevel=2)
            options = renamed(options)  # type: ignore[assignment]
        return function(*arguments, **options)

    return call
