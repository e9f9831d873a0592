"""Benchmarks of a checkout; each is one command, `python -m benchmarks.NAME`. README.md lists them."""
