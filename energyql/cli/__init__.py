"""The command line, one file for each group of commands.

Before torch is loaded, it shortens how long idle threads of OpenMP wait actively ("spin"), which takes the processor
from other threads. A variable that the user has set is not changed.
"""

import os

SPINS = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1"}
"""Spinning before a thread sleeps: about 20 microseconds for the OpenMP of GNU, 1 ms for those of Intel and LLVM."""

if "OMP_WAIT_POLICY" not in os.environ:
    for variable, value in SPINS.items():
        os.environ.setdefault(variable, value)
