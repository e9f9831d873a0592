"""The room that a limit of the system leaves to this process (`ulimit -v`, RLIMIT_AS)."""

from __future__ import annotations

from pathlib import Path

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

MARGIN = 64 << 20
"""Bytes that must be left before a product is computed. oneDNN compiles code for it, and where there is no room for the
code, it reports a fault that does not speak of memory, or the process crashes."""
_STATUS = Path("/proc/self/status")


def limit() -> int | None:
    """Return the bytes of address space that this process may take, or `None` without a limit that can be read."""
    if resource is None:
        return None
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]  # first, because this is asked before every product
    return None if soft == resource.RLIM_INFINITY or not _STATUS.exists() else soft


def check_room() -> None:
    """Check that there is a limit with at least `MARGIN` left, or no limit.

    Raises:
        MemoryError: there is less.
    """
    most = limit()
    if most is not None and most - _size("VmSize") < MARGIN:
        raise MemoryError


def nearly_ended() -> bool:
    """Whether at any time less than `MARGIN` was left of the limit."""
    most = limit()
    return most is not None and most - _size("VmPeak") < MARGIN


def _size(name: str) -> int:
    """Return a size that the system reports about this process, in bytes."""
    with _STATUS.open(encoding="ascii") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))
