"""Independent pieces of a computation on the CPU, computed at the same time by threads of one core each.

The threads of PyTorch wait for one another after each operation. Threads that compute pieces of their own do not, so
they take less time, above all beside other programs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from threading import Barrier
from typing import Any, TypeVar

import torch

LARGEST_PIECE = 4
"""Most rows in a piece. Beside other programs, threads that have more time compute more of the small pieces."""
Result = TypeVar("Result")
_pools: dict[int, ThreadPoolExecutor] = {}
"""Number of threads -> pool."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a child process has no threads of its parent


def piece_size(rows: int, most: int) -> int:
    """Return the number of rows of each piece, such that `in_pool` computes the pieces in the least time.

    It is `most` if `in_pool` uses no other threads for so many rows.
    """
    threads = torch.get_num_threads()
    return most if threads < 2 or rows < threads else min(LARGEST_PIECE, rows // threads)


def in_pool(function: Callable[..., Result], pieces: Sequence[tuple[Any, ...]]) -> list[Result]:
    """Return `[function(*piece) for piece in pieces]`, computed by as many threads as PyTorch has on the CPU.

    Each of these threads computes whole pieces, in each operation with one thread of PyTorch. Gradients, inference mode
    and context variables are on or off as in the calling thread. If there are fewer pieces than threads, the calling
    thread computes them one after the other, with all threads of PyTorch; as it does with a few pieces that would leave
    most threads without work, inside a piece of another call, and under autocast.

    If a piece raises an exception, or Ctrl-C ends the wait, no further piece is begun. The exception is raised once the
    pieces that were begun have ended.

    Args:
        function: function that several threads can call at the same time. The bits of its result must not depend on the
            number of threads of PyTorch.
        pieces: arguments of each call, in the order of the results. Tensors among them are on the CPU.
    """
    threads = torch.get_num_threads()
    rest = len(pieces) % threads
    pooled = len(pieces) - (rest if rest <= max(1, threads // 4) else 0)
    if threads < 2 or len(pieces) < threads or in_autocast():
        return [function(*piece) for piece in pieces]
    pool = _pools.get(threads) or _pools.setdefault(threads, _new_pool(threads))
    call = torch.is_inference_mode_enabled(), torch.is_grad_enabled(), function
    futures = list[Future[Result]]()
    try:
        for piece in pieces[:pooled]:
            futures.append(pool.submit(copy_context().run, _compute, *call, piece))
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        for future in futures:
            future.cancel()  # does nothing to those that were begun
        wait(futures)
    return [future.result() for future in futures] + [function(*piece) for piece in pieces[pooled:]]


def _new_pool(threads: int) -> ThreadPoolExecutor:
    pool, all_begun = ThreadPoolExecutor(threads, "energyql"), Barrier(threads)
    try:
        wait([pool.submit(_begin, all_begun) for _ in range(threads)])
    except BaseException:  # Ctrl-C, or the system allows no further thread
        all_begun.abort()
        raise
    finally:
        torch.set_num_threads(threads)  # for threads that begin later
    return pool


def _begin(all_begun: Barrier) -> None:
    """Set one thread of PyTorch for this thread of the pool.

    PyTorch has a number for each thread. At its first computation a thread takes the number that was set last, in any
    thread, even if it has set one of its own before.
    """
    torch.get_num_threads()  # counts as a computation
    torch.set_num_threads(1)
    all_begun.wait()


def _compute(inference: bool, gradients: bool, function: Callable[..., Result], piece: tuple[Any, ...]) -> Result:
    with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
        return function(*piece)


def in_autocast() -> bool:
    """Return whether autocast, PyTorch's automatic change of precision, is on for the CPU in this thread."""
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()
