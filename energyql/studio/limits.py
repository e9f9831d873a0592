"""What one request may cost, and what the studio keeps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a studio. Whatever goes beyond them is refused with a message that names the bound.

    Args:
        pictures: of one request.
        characters: of one query.
        steps: of one edit.
        body: bytes of one request.
        waiting: requests in the queue, beside the one that runs.
        seconds: that one request may run.
        unwatched: seconds after which a request that nobody asks about any more is given up.
        kept_seconds: how long a result is kept after it was last asked for.
        kept_bytes: of all results together; the oldest go first.
    """

    pictures: int = 64
    characters: int = 4000
    steps: int = 24
    body: int = 256 * 1024
    waiting: int = 8
    seconds: float = 120.0
    unwatched: float = 30.0
    kept_seconds: float = 3600.0
    kept_bytes: int = 512 * 1024 * 1024
