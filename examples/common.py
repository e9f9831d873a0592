"""What all examples share: `--out`, `--smoke`, `--model`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What the command line of an example says."""

    out: Path  # folder for what the example writes
    n: int  # pictures a query
    model: str  # a packaged model, or a model folder


def options(description: str | None) -> Options:
    """Read the command line; `--help` prints `description`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, default=Path("runs/examples"), help="folder to write to")
    parser.add_argument("--smoke", action="store_true", help="few pictures: only to see that it runs")
    parser.add_argument("--model", default="avatars", help="a packaged model, or a model folder")
    arguments = parser.parse_args()
    return Options(arguments.out, 4 if arguments.smoke else 16, arguments.model)
