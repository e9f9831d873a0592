"""Numbered random cases: a few in every run of the tests, any number by hand.

Case i of a fuzzer is the same in every run. By hand, for example from case 50,000 on:

    ENERGYQL_FUZZ=100000 ENERGYQL_FUZZ_FIRST=50000 python -m pytest tests/fuzz
"""

import os
import random
import signal
import warnings
from contextlib import contextmanager

from energyql.errors import EnergyQLError

MANY, FIRST = int(os.environ.get("ENERGYQL_FUZZ", "0")), int(os.environ.get("ENERGYQL_FUZZ_FIRST", "0"))
SECONDS = 10
"""A case that takes longer counts as a hang."""
try:
    import resource
except ImportError:  # Windows
    resource = None
MEMORY = 700
"""Most megabytes that a fuzzer may add to what the process took before."""


class Hang(BaseException):
    """Not an `Exception`, so that no reader takes it for an error of its own."""


def fuzz(work, few, share=1.0):
    """Call `work` with a random generator for each case: `few` of them, or by hand ENERGYQL_FUZZ times `share`.

    A case may raise an `EnergyQLError`. Anything else that it raises, a case that takes too long, and memory that grows
    without bound are failures, which name the case.
    """
    before = _memory()
    for number in range(FIRST, FIRST + (int(MANY * share) or few)):
        try:
            with _alarm(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work(random.Random(number))
        except EnergyQLError:
            pass
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            again = f"ENERGYQL_FUZZ=1 ENERGYQL_FUZZ_FIRST={number}"
            raise AssertionError(f"case {number} ({again}): {type(error).__name__}: {error}") from error
    assert _memory() - before < MEMORY, f"it took {_memory() - before} MB more than before"


@contextmanager
def _alarm():
    """Raise `Hang` in the block after `SECONDS`, where the system has an alarm clock."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_):
        raise Hang(f"it took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _memory():
    """Return the most megabytes that this process has taken so far."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


TEXTS = (b"0", b"-1", b"9" * 30, b"1e999", b"NaN", b"null", b"'", b'"', b"(", b"\n", b"\x00", b",,")


def damage(random, data):
    """Return bytes with some damage: other bytes, other numbers, pieces left out, doubled or moved, a cut."""
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        # Most of a file is numbers, where damage changes little: its beginning and its end hold the structure.
        near, end = random.randrange(200), len(data)
        where = max(0, min(end, random.choice((random.randrange(end + 1), near, end - near))))
        length = random.choice((1, 2, 4, 8, random.randrange(64)))
        piece = data[where : where + length]
        kind = random.randrange(8)
        if kind == 0:
            data[where : where + length] = random.randbytes(length)
        elif kind == 1:
            data[where : where + length] = random.choice((bytes(length), b"\xff" * length, b"\x7f" + b"\xff" * length))
        elif kind == 2 and where < len(data):
            data[where] ^= 1 << random.randrange(8)
        elif kind == 3:
            del data[where : where + length]
        elif kind == 4:
            data[where:where] = piece * random.choice((1, 2, 50))
        elif kind == 5:
            target = random.randrange(len(data) + 1)
            data[target:target] = piece
        elif kind == 6:
            data[where : where + length] = random.choice(TEXTS)
        else:
            del data[where:]
    return bytes(data)


VALUES = (
    None, True, 0, -1, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", "\0", "x" * 300, "../..", [], {}, [[]],
)  # fmt: skip


def damage_json(random, value, depth=0):
    """Return JSON values with some of them replaced, left out or doubled."""
    if random.random() < 0.06 * (depth > 0):
        return random.choice(VALUES)
    if isinstance(value, dict):
        found = {key: damage_json(random, each, depth + 1) for key, each in value.items() if random.random() > 0.02}
        if random.random() < 0.03:
            found[random.choice(("a", "kind", "__class__", ""))] = random.choice(VALUES)
        return found
    if isinstance(value, list):
        items = [damage_json(random, each, depth + 1) for each in value if random.random() > 0.02]
        return items + items[:1] if random.random() < 0.03 else items
    return value
