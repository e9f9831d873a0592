"""How the work of a call grows with the size of its input: a ratio of CPU times, which other programs hardly change."""

import gc
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


def growth(prepare, call, size, factor=4, times=3):
    """The CPU time of `call(prepare(factor * size))` over that of `call(prepare(size))`, the least of some times each.

    Linear work gives about `factor`, quadratic work about its square.
    """
    least = []
    for count in (size, factor * size):
        given, found = prepare(count), []
        for _ in range(times):
            with no_garbage_collection():
                start = time.thread_time()
                call(given)
                found.append(time.thread_time() - start)
        least.append(min(found))
    return least[1] / least[0]
