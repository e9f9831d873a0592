"""An accelerator that is not there: a device of torch that computes on the CPU, refuses what CUDA refuses, and counts.

    from benchmarks.emulated import DEVICE, emulated

    with emulated() as log:
        energyql.generate("smile", n=4, device=DEVICE)
    print(log.launches, log.transfers, log.waits, log.lines("wait"))

It needs torch 2.10, which accepts a backend written in Python; `MISSING` says what is wrong with an older one. Values
are those of the CPU, but without packed products and without inference mode, whose tensors cannot be wrapped. An
operation on tensors of both devices raises an error, except where CUDA allows it: copies, numbers of no dimension, and
indices. So does `numpy()`. Dtypes, streams, memory and speed are not emulated.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch.optim.optimizer import _foreach_supported_types
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

import energyql

NAME = "emu"
DEVICE = f"{NAME}:0"
MISSING = (
    None
    if hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
    else f"an emulated device takes torch 2.10 or later, and this is {torch.__version__}"
)
"""Why there is no such device; `None` if there is."""
if MISSING is None:
    backend_registration._setup_privateuseone_for_python_backend(NAME)

KINDS = ("launch", "view", "to device", "blocking", "wait")
"""What is counted: kernels, operations that launch none, transfers to the device, those of them that are not
`non_blocking`, and waits for the device."""
_PACKAGE = f"{Path(energyql.__file__).parent}/"
_aten = torch.ops.aten
_WAITING = frozenset(
    {
        "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal",
        "bincount", "is_nonzero", "_linalg_check_errors", "_linalg_svd", "repeat_interleave",
    }
)  # fmt: skip
"""Operations after which a program waits until all earlier kernels have ended, because their result has a size, or is
an error, that Python must know."""
_NO_KERNEL = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"})
_INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"})


class Log:
    """What a device did, and which lines of the package caused it.

    Attributes:
        counts: how often, for each kind in `KINDS`.
        by_line: how often, for each pair of a kind and a line such as "sampling/base.py:829".
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.by_line: Counter[tuple[str, str]] = Counter()
        self._thread = threading.get_ident()

    @property
    def launches(self) -> int:
        """Number of kernels that were launched."""
        return self.counts["launch"]

    @property
    def operations(self) -> int:
        """Number of operations, those included that launch no kernel, such as views."""
        return self.counts["launch"] + self.counts["view"]

    @property
    def transfers(self) -> int:
        """Number of transfers of tensors to the device."""
        return self.counts["to device"]

    @property
    def blocking(self) -> int:
        """Number of transfers to the device that are not `non_blocking`: CUDA waits until they and all before end."""
        return self.counts["blocking"]

    @property
    def waits(self) -> int:
        """Number of times that Python waits for the device: transfers to the CPU, and other synchronisations."""
        return self.counts["wait"]

    def lines(self, kind: str, count: int = 5) -> list[tuple[str, int]]:
        """Return the lines that caused most of one kind, with their numbers, the largest first."""
        own = Counter({line: number for (one, line), number in self.by_line.items() if one == kind})
        return own.most_common(count)

    def milliseconds(self, launch: float, wait: float) -> float:
        """Return how long Python is busy, in ms, for a `launch` or transfer and a `wait` of so many microseconds."""
        return ((self.launches + self.transfers) * launch + self.waits * wait) / 1000

    def add(self, kind: str) -> None:
        """Count one event, and the innermost line of the package on the stack."""
        self.counts[kind] += 1
        frame = _frame(sys._getframe(1)) or _frame(sys._current_frames().get(self._thread))
        line = f"{frame.f_code.co_filename.removeprefix(_PACKAGE)}:{frame.f_lineno}" if frame else "elsewhere"
        self.by_line[kind, line] += 1


def _frame(frame: FrameType | None) -> FrameType | None:
    while frame is not None and not _is_of_package(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


@cache
def _is_of_package(path: str) -> bool:
    return path.startswith(_PACKAGE)


class OnDevice(torch.Tensor):
    """A tensor on the device; `numbers` is the same on the CPU."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, real: torch.Tensor) -> OnDevice:  # noqa: D102
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype,
            device=torch.device(DEVICE),
        )  # fmt: skip
        made.numbers = real
        return made

    def __init__(self, real: torch.Tensor) -> None: ...

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.numbers!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Return the numbers as lists, for which a program waits."""
        _log().add("wait")
        return self.numbers.tolist()

    def data_ptr(self) -> int:
        """Return the address of the numbers."""
        return self.numbers.data_ptr()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        """Raise the error of a tensor that is not on the CPU."""
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy


_logs: list[Log] = []


def _log() -> Log:
    return _logs[-1] if _logs else Log()


def _wrapped(x: Any) -> Any:
    if isinstance(x, list | tuple):
        return type(x)(*map(_wrapped, x)) if hasattr(x, "_fields") else type(x)(map(_wrapped, x))
    return OnDevice(x) if isinstance(x, torch.Tensor) and not isinstance(x, OnDevice) else x


def _real(x: Any) -> Any:
    if isinstance(x, list | tuple):
        return type(x)(map(_real, x))
    return x.numbers if isinstance(x, OnDevice) else x


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for x in values:
        if isinstance(x, torch.Tensor):
            yield x
        elif isinstance(x, list | tuple):
            yield from _tensors(x)


@cache
def _facts(func: Any) -> tuple[str, bool]:
    """Return the name of an operation, and whether it launches no kernel."""
    name = func._schema.name.removeprefix("aten::")
    return name, func.is_view or name in _NO_KERNEL or name.startswith(("sym_", "is_"))


def _dispatch(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on the numbers of its tensors, count it, and put its results where they belong."""
    tensors = [*_tensors(args), *_tensors(kwargs.values())]
    there = [x for x in tensors if isinstance(x, OnDevice)]
    place = kwargs.get("device")
    place = None if place is None else torch.device(place).type
    if not there and place != NAME:
        return func(*args, **kwargs)
    (name, no_kernel), log = _facts(func), _log()
    copies = func in (_aten._to_copy.default, _aten.copy_.default)
    here = [x for x in tensors if not isinstance(x, OnDevice) and x.dim()]
    if here and there and not copies:
        if not (name in _INDEXING and isinstance(args[0], OnDevice)):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {DEVICE} and cpu ({func})")
        log.add("to device")
        log.add("blocking")
    if place == NAME and kwargs.get("generator") is not None:
        raise RuntimeError(f"Expected a {NAME!r} device type for generator but found 'cpu' ({func})")
    leaves = func is _aten._to_copy.default and place not in (None, NAME)
    comes = bool(copies and (not there or (func is _aten.copy_.default and not isinstance(args[1], OnDevice))))
    if func is _aten.copy_.default and not isinstance(args[0], OnDevice):
        leaves = True
    masks = name in _INDEXING and any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    if leaves or masks or name in _WAITING:
        log.add("wait")
    if comes:
        log.add("to device")
        if not (kwargs.get("non_blocking") or (func is _aten.copy_.default and args[2:3] == (True,))):
            log.add("blocking")
    elif not leaves:
        log.add("view" if no_kernel else "launch")
    changed = {
        **{key: _real(x) for key, x in kwargs.items()},
        **({"device": torch.device("cpu")} if place == NAME else {}),
    }
    if changed.get("pin_memory"):
        changed["pin_memory"] = False
    result = func(*map(_real, args), **changed)
    if name.endswith("_") and isinstance(args[0], torch.Tensor):  # in place
        if args[0].shape != _real(args[0]).shape:
            raise NotImplementedError(f"{func} changes the shape of a tensor of the emulated device")
        return args[0]
    if isinstance(kwargs.get("out"), torch.Tensor):
        return kwargs["out"]
    return result if leaves else _wrapped(result)


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Calls that build a tensor from numbers of Python, below the operations."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        place = kwargs.get("device")
        builds = func in (torch.tensor, torch.as_tensor, torch.asarray)
        if builds and place is not None and torch.device(place).type == NAME:
            del kwargs["device"]
            needs_gradient = kwargs.pop("requires_grad", False)
            made = func(*args, **kwargs)
            made = made if isinstance(made, OnDevice) else made.to(DEVICE)
            return made.requires_grad_() if needs_gradient else made
        if func is torch.Tensor.new_tensor and isinstance(args[0], OnDevice):
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to(DEVICE)
        return func(*args, **kwargs)


def _enter(self: Any) -> None:
    self._grad_before = torch.is_grad_enabled()
    torch._C._set_grad_enabled(not self.mode)


def _leave(self: Any, *_: Any) -> None:
    torch._C._set_grad_enabled(self._grad_before)


@contextmanager
def emulated() -> Iterator[Log]:
    """Provide the device `DEVICE`, and count what happens on it.

    It may be entered again later, also with tensors from before, but not from two threads at a time.

    Yields:
        The counts, which grow until the end.
    """
    log, future = Log(), torch.__future__
    swaps = future.get_swap_module_params_on_conversion()
    _logs.append(log)
    with ExitStack() as stack:
        stack.callback(_logs.remove, log)
        stack.callback(future.set_swap_module_params_on_conversion, swaps)
        future.set_swap_module_params_on_conversion(True)
        _foreach_supported_types.append(OnDevice)  # optimizers group their operations, as on CUDA
        stack.callback(_foreach_supported_types.remove, OnDevice)
        for method, replacement in (("__enter__", _enter), ("__exit__", _leave)):
            stack.enter_context(mock.patch.object(torch.inference_mode, method, replacement))
        stack.enter_context(_Functions())
        stack.enter_context(_Operations())
        yield log
