"""Benchmarks of a checkout; each is one command, `python -m benchmarks.NAME`. README.md lists them."""

import energyql.cli  # noqa: F401  threads wait as in commands; before torch is loaded
