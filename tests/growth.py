"""How the work of a call grows with the size of its input: a ratio of CPU times, which other programs hardly change."""

import gc
import math
import time
from contextlib import contextmanager


@contextmanager
def no_garbage_collection():
    """Its work depends on what other tests have left, so that `timeit` switches it off as well."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def growth(prepare, call, size, factor=4, times=5):
    """The CPU time of `call(prepare(factor * size))` over that of `call(prepare(size))`, the least of some times each.

    Linear work gives about `factor`, quadratic work about its square.
    """
    inputs = [prepare(size), prepare(factor * size)]
    least = [math.inf, math.inf]
    for _ in range(times):
        for k, given in enumerate(inputs):  # in turn, so that a busy moment of the machine meets both
            with no_garbage_collection():
                start = time.thread_time()
                call(given)
                least[k] = min(least[k], time.thread_time() - start)
    return least[1] / least[0]
