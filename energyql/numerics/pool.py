"""Independent pieces of a computation on the CPU, one thread and core for each; transfers from and to an accelerator.

The threads of PyTorch divide each operation among them, and wait for one another after each. The threads of this module
do not wait, and so take less time, above all when other programs run on the same machine.
"""

from __future__ import annotations

import math
import os
from _thread import start_new_thread
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from threading import Barrier, Event, Lock, main_thread
from typing import Any, TypeVar

import torch
from torch import Tensor

LARGEST_PIECE = 4
"""Most rows of a piece, which one thread computes: with small ones, a thread that other programs slow down can leave
more to others."""
LARGE = 2**22
"""Number of multiplications in an operation from which several threads of PyTorch are faster than one, on an idle
machine, such as a layer of 512 inputs and outputs for 16 rows (docs/performance.md)."""
Result = TypeVar("Result")
_pools: dict[int, ThreadPoolExecutor] = {}
"""The pools of threads that `in_pool` has used, by number of threads."""
_always = ContextVar("always", default=False)
_threads = ContextVar[int | None]("threads", default=None)
"""Number of threads that PyTorch used before `one_thread`; `None` outside of it."""

_setting = Lock()
"""Held while a thread changes the number of threads that PyTorch gives to new threads."""
_settled = Event()
"""Cleared while the number of threads that PyTorch gives to new threads is wrong for them; see `_set_threads`."""
_settled.set()


@contextmanager
def always_in_pool(always: bool = True) -> Iterator[None]:
    """Context in which `in_pool` always uses the threads of its pool, even for fewer pieces than threads.

    Outside of it, the number of pieces decides who computes, and so the last bits of results. If `always` is false,
    nothing changes.
    """
    token = _always.set(always or _always.get())
    try:
        yield
    finally:
        _always.reset(token)


def thread_count() -> int:
    """Number of threads that PyTorch uses on the CPU for the calling thread, or used before `one_thread`.

    A thread that computes for the first time while another is inside of `one_thread` gets the number from before, too.
    """
    if (threads := _threads.get()) is not None:
        return threads
    with _setting:
        _settled.wait()
        return torch.get_num_threads()


@contextmanager
def one_thread(products: float = 0) -> Iterator[None]:
    """Context in which the calling thread computes each operation alone, without the further threads of PyTorch.

    For small operations, threads wait for one another as long as they save, and many times as long beside other
    programs. Nothing changes if the largest operation has at least `LARGE` multiplications (`products`). `in_pool` uses
    as many threads as before.
    """
    inside = _threads.get() is not None or not main_thread().is_alive()
    if products >= LARGE or inside or (threads := thread_count()) == 1:
        yield
        return
    token = _threads.set(threads)
    try:
        with _setting:
            _set_threads(1, threads)
        yield
    finally:  # also if Ctrl-C ends `_set_threads`, or the system allows no further thread
        torch.set_num_threads(threads)
        _threads.reset(token)
        _settled.wait()


def _set_threads(own: int, others: int) -> None:
    """Set the number of threads of PyTorch: `own` for this thread, `others` for threads without computations yet.

    PyTorch gives a new thread the number that was set last, in any thread, so a new thread sets `others` after `own`.
    It is not waited for, as this may take milliseconds; it sets `_settled`. The caller holds the lock `_setting`.
    """
    _settled.wait()
    try:
        _settled.clear()
        torch.set_num_threads(own)
        start_new_thread(_set_for_others, (others,))
    except BaseException:  # Ctrl-C, or the system allows no further thread
        _set_for_others(others)
        raise


def _set_for_others(threads: int) -> None:
    torch.set_num_threads(threads)
    _settled.set()


def _before_fork() -> None:
    _setting.acquire()
    _settled.wait()


def _after_fork() -> None:
    """Reset this module in a child process, where a thread that is gone may have held the lock in `_settled`."""
    global _settled
    _settled = Event()
    _settled.set()
    _pools.clear()
    _setting.release()


def piece_count(rows: int, most: int, largest: int = LARGEST_PIECE) -> int:
    """Number of pieces into which rows are to be divided for `in_pool`, with equally many for each thread.

    A piece has at most `largest` rows, or `most` if there are too few rows for several threads.
    """
    threads = thread_count()
    if not _uses_threads(rows):
        return max(1, math.ceil(rows / most))
    return max(1, min(rows, threads * math.ceil(rows / (largest * threads))))


def in_pool(function: Callable[..., Result], pieces: Sequence[tuple[Any, ...]]) -> list[Result]:
    """Return `[function(*piece) for piece in pieces]`, computed by as many threads as PyTorch has on the CPU.

    Each thread computes whole pieces, with one thread of PyTorch, so the bits are those of a process with one thread.
    Gradients, inference mode and context variables are on or off as in the calling thread. The calling thread computes
    all pieces, with all threads of PyTorch, if there are fewer pieces than threads (except in `always_in_pool`), inside
    a piece of another call, under autocast, and while the interpreter ends.

    If a piece raises an exception, or Ctrl-C ends the wait, no further piece is begun; the exception is raised once the
    others have ended.

    Args:
        function: function that several threads can call at the same time; never code of a user.
        pieces: arguments of each call. Tensors among them are on the CPU.
    """
    if not _uses_threads(len(pieces)):
        return [function(*piece) for piece in pieces]
    threads = thread_count()
    pool = _pools.get(threads) or _pools.setdefault(threads, _new_pool(threads))
    compute = partial(_compute, torch.is_inference_mode_enabled(), torch.is_grad_enabled(), function)
    # Known before any is submitted: Ctrl-C can end `submit` once a piece is on its way.
    futures = [Future[Result]() for _ in pieces]
    try:
        for future, piece in zip(futures, pieces, strict=True):
            pool.submit(copy_context().run, compute, future, piece)
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        wait([future for future in futures if not future.cancel()])  # those that were begun
    return [future.result() for future in futures]


def _uses_threads(pieces: int) -> bool:
    threads = thread_count()
    return threads > 1 and (pieces >= threads or _always.get()) and not in_autocast() and main_thread().is_alive()


def _new_pool(threads: int) -> ThreadPoolExecutor:
    pool, all_begun, own = ThreadPoolExecutor(threads, "energyql"), Barrier(threads), torch.get_num_threads()
    with _setting:
        try:
            wait([pool.submit(_begin, all_begun) for _ in range(threads)])
        except BaseException:  # Ctrl-C, or the system allows no further thread
            all_begun.abort()
            raise
        finally:
            _set_threads(own, threads)
    return pool


def _begin(all_begun: Barrier) -> None:
    """Let this thread of the pool compute with one thread of PyTorch, and wait until all threads of the pool run."""
    torch.get_num_threads()  # counts as the first computation, at which a number that was set before is lost
    torch.set_num_threads(1)
    all_begun.wait()


def _compute(
    inference: bool,
    gradients: bool,
    function: Callable[..., Result],
    future: Future[Result],
    piece: tuple[Any, ...],
) -> None:
    if not future.set_running_or_notify_cancel():
        return
    _threads.set(None)  # a thread of the pool uses no others
    try:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            future.set_result(function(*piece))
    except BaseException as error:
        future.set_exception(error)
    finally:
        del future  # the exception's frames refer to it, and it to the exception


def in_autocast() -> bool:
    """Whether autocast, PyTorch's automatic change of precision, is on for the CPU in this thread."""
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()


def to_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors of any shapes and dtypes to the CPU; those of one accelerator by one transfer, with one wait."""
    there = [tensor for tensor in tensors if tensor.device.type != "cpu"]
    if len(there) < 2 or len({tensor.device for tensor in there}) > 1:
        return [tensor.cpu() for tensor in tensors]
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in there:
        groups.setdefault(tensor.dtype, []).append(tensor.detach().reshape(-1))
    raw = [torch.cat(group).view(torch.uint8) for group in groups.values()]
    parts = torch.cat(raw).cpu().split([len(part) for part in raw])
    moved = {
        # A copy, because a number must not begin in the middle of a word.
        dtype: iter(part.clone().view(dtype).split([len(x) for x in group]))
        for (dtype, group), part in zip(groups.items(), parts, strict=True)
    }
    return [
        tensor if tensor.device.type == "cpu" else next(moved[tensor.dtype]).clone().view(tensor.shape)
        for tensor in tensors
    ]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU as a tensor on `device`, without waiting for computations that still run there."""
    # MPS reads the memory of the CPU later, when it may hold other numbers.
    return tensor.to(device, non_blocking=device.type != "mps")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_setting.release, after_in_child=_after_fork)
