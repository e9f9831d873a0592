"""Computations on the CPU whose pieces are computed by threads at the same time; transfers from and to an accelerator.

The threads of PyTorch divide each operation among them, and wait for one another after each operation. The threads of
this module compute independent pieces of the batch, on one core each, without waiting. So they take less time, above
all when other programs run on the same machine.
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
"""Largest number of rows of a piece, a part of a batch that one thread computes. With small pieces, a thread that other
programs slow down can leave more of the pieces to the other threads."""
LARGE = 2**22
"""Several threads of PyTorch are faster than one thread, on an idle machine, for operations with at least this number
of multiplications. Examples are a layer of 512 inputs and 512 outputs for 16 rows, and one of 64 inputs and 64 outputs
for 1,024 rows. Smaller operations take as long with one thread. The times are in docs/performance.md."""
Result = TypeVar("Result")
_pools: dict[int, ThreadPoolExecutor] = {}
"""The pools of threads that `in_pool` has used: number of threads -> pool."""
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

    Outside of this context, the number of pieces decides whether the threads of the pool or those of PyTorch compute,
    and the last bits of results differ between the two. If `always` is false, this context changes nothing.
    """
    token = _always.set(always or _always.get())
    try:
        yield
    finally:
        _always.reset(token)


def thread_count() -> int:
    """Return how many threads PyTorch uses on the CPU for the calling thread, outside of the context `one_thread`.

    Inside of `one_thread`, this is the number from before, not 1. A thread that computes for the first time while
    another thread is inside of `one_thread` gets that number too.
    """
    if (threads := _threads.get()) is not None:
        return threads
    with _setting:
        _settled.wait()
        return torch.get_num_threads()


@contextmanager
def one_thread(products: float = 0) -> Iterator[None]:
    """Context in which the calling thread computes each operation alone, without the further threads of PyTorch.

    Threads of PyTorch wait for one another after each operation. For small operations, the waiting takes as long as the
    threads save, and beside other programs many times as long. `in_pool` uses as many threads as before.

    Args:
        products: about how many products of two numbers the largest operation computes. If there are at least `LARGE`,
            the context changes nothing.
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
    """Set the number of threads of PyTorch for the calling thread, and for threads that compute for the first time.

    PyTorch stores the number for each thread that calls it. At its first computation a thread takes the number that was
    set last, in any thread. So this thread sets `own`, and then starts a new thread, which sets `others` and then
    the event `_settled`. The caller does not wait for the new thread, because beside other programs this may take some
    milliseconds. The caller holds the lock `_setting`.

    Args:
        own: number of threads for the calling thread.
        others: number of threads for threads that have computed nothing yet.
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
    """Set the variables of this module to their first values in a child process, directly after the fork.

    The child has none of the threads of its parent. One of these may have held the lock inside the event `_settled`, so
    the child makes a new event.
    """
    global _settled
    _settled = Event()
    _settled.set()
    _pools.clear()
    _setting.release()


def piece_count(rows: int, most: int, largest: int = LARGEST_PIECE) -> int:
    """Return the number of pieces into which rows are to be divided for `in_pool`, which computes pieces by threads.

    Args:
        rows: number of rows in all.
        most: largest number of rows of a piece if only the calling thread computes, because there are too few rows.
        largest: largest number of rows of a piece if several threads compute. Each thread then gets equally many
            pieces.
    """
    threads = thread_count()
    if not _uses_threads(rows):
        return max(1, math.ceil(rows / most))
    return max(1, min(rows, threads * math.ceil(rows / (largest * threads))))


def in_pool(function: Callable[..., Result], pieces: Sequence[tuple[Any, ...]]) -> list[Result]:
    """Return `[function(*piece) for piece in pieces]`, computed by as many threads as PyTorch has on the CPU.

    Each of these threads computes whole pieces, in each operation with one thread of PyTorch, so the bits are those of
    a process with one thread. Gradients, inference mode and context variables are on or off as in the calling thread.
    In some cases the calling thread computes the pieces one after the other, with all threads of PyTorch: if there are
    fewer pieces than threads (except in the context `always_in_pool`), if the call is made inside a piece of another
    call, under autocast, and while the interpreter ends.

    If a piece raises an exception, or Ctrl-C ends the wait, no further piece is begun. The exception is raised once the
    pieces that were begun have ended.

    Args:
        function: function that several threads can call at the same time. It is never code of a user.
        pieces: arguments of each call, in the order of the results. Tensors among them are on the CPU.
    """
    if not _uses_threads(len(pieces)):
        return [function(*piece) for piece in pieces]
    threads = thread_count()
    pool = _pools.get(threads) or _pools.setdefault(threads, _new_pool(threads))
    compute = partial(_compute, torch.is_inference_mode_enabled(), torch.is_grad_enabled(), function)
    futures = list[Future[Result]]()
    try:
        for piece in pieces:
            futures.append(pool.submit(partial(copy_context().run, compute, piece)))
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        for future in futures:
            future.cancel()  # does nothing to those that were begun
        wait(futures)
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


def _compute(inference: bool, gradients: bool, function: Callable[..., Result], piece: tuple[Any, ...]) -> Result:
    _threads.set(None)  # a thread of the pool uses no others
    with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
        return function(*piece)


def in_autocast() -> bool:
    """Return whether autocast, PyTorch's automatic change of precision, is on for the CPU in this thread."""
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()


def to_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors on the CPU: those of an accelerator are copied by one transfer, those of the CPU returned as such.

    So the program waits only once for the accelerator. The tensors may have any shapes and dtypes. If they are on
    several accelerators, they are copied one by one.
    """
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
