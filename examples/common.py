"""The command line that all examples share: `--out`, `--smoke`, `--model`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The options of an example."""

    out: Path  # folder for what the example writes
    n: int  # pictures a query
    model: str  # a packaged model, or a model folder
    smoke: bool  # draw few pictures, only to see that the example runs


def options(description: str | None, *, model: str | None = "avatars") -> Options:
    """Read the command line; `--help` prints `description`. With `model=None` there is no option `--model`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, default=Path("runs/examples"), help="folder to write to")
    parser.add_argument("--smoke", action="store_true", help="few pictures: only to see that it runs")
    if model is not None:
        parser.add_argument("--model", default=model, help="a packaged model, or a model folder")
    given = parser.parse_args()
    return Options(given.out, 4 if given.smoke else 16, getattr(given, "model", ""), given.smoke)
