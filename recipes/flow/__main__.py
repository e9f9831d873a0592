"""Make a text-to-picture flow of avatars, with a guide and a judge: `python -m recipes.flow --out FOLDER`.

The same command continues an interrupted run.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from energyql.cli.failures import reporting_failures
from recipes.flow.make import make


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/flow"), help="folder of the run, runs/flow by default")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the length of every stage")
    arguments = parser.parse_args()
    if not 0 < arguments.scale < math.inf:
        parser.error(f"--scale must be a finite number above 0, not {arguments.scale}")
    with reporting_failures():
        make(arguments.out, scale=arguments.scale)


if __name__ == "__main__":
    main()
