"""Functions compiled by `torch.compile`, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from energyql.errors import ArgumentError, first_line

_PYTHON = "its code, in Python, may not branch on numbers of tensors, convert them or print; or leave out compile"
_COMPILER = "the CPU needs a C++ compiler (g++, or the variable CXX), and a GPU needs Triton; or leave out compile"


def compiled(function: Callable[..., Tensor], what: str) -> Callable[..., Tensor]:
    """Compile `function` by `torch.compile` to one program for any number of rows; results are equal up to rounding.

    The first call takes seconds to minutes. The rounding errors of a row may depend on the number of rows. All tensors
    among the arguments have a row for each sample, and samples do not interact. `what` names the result in errors, such
    as "the energy".

    Raises:
        ArgumentError: torch, or this version of Python, cannot compile; a call raises it if the function cannot be
            compiled.
    """

    def own(x: Tensor, **options: Any) -> Tensor:
        return function(x, **options)

    # Torch keeps a few programs for each code object, and functions that share one would throw out each other's.
    own.__code__ = own.__code__.replace()
    problem = f"torch {torch.__version__} cannot compile {what}"
    if not hasattr(torch.compiler, "is_compiling"):
        raise ArgumentError(problem, hint="install torch 2.3 or later, or leave out compile")
    try:
        run = torch.compile(own, fullgraph=True, dynamic=True)
    except RuntimeError as error:
        raise ArgumentError(f"{problem}: {error}", hint="leave out compile, or take another Python") from error

    def call(x: Tensor, **options: Any) -> Tensor:
        count = len(x)
        if not count:
            return function(x, **options)
        if count == 1:  # as two rows, because torch would compile another program for one
            x = torch.cat([x, x])
            options = {name: torch.cat([o, o]) if isinstance(o, Tensor) else o for name, o in options.items()}
        try:
            return run(x, **options)[:count]
        except torch._dynamo.exc.TorchDynamoException as error:
            hint = _COMPILER if isinstance(error, torch._dynamo.exc.BackendCompilerFailed) else _PYTHON
            reason = getattr(error, "inner_exception", error)  # what a compiler raised
            raise ArgumentError(f"{problem}: {first_line(reason)}", hint=hint) from error

    return call
