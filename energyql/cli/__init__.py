"""The command line, one file for each group of commands.

This file sets variables of the environment that shorten how long idle threads of OpenMP, a library that torch uses,
wait actively ("spin"). On a busy machine, spinning threads take the processor from the thread that they wait for: 16
pictures took up to fifty times as long. The variables must be set before torch is loaded. A variable that the user has
set is not changed.
"""

import os

SPINS = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1"}
"""Variables of the environment that shorten how long idle threads of OpenMP, which torch uses, wait actively for work.
The first is for the OpenMP of GNU (about 20 microseconds), the second for those of Intel and LLVM (1 ms)."""

if "OMP_WAIT_POLICY" not in os.environ:
    for variable, value in SPINS.items():
        os.environ.setdefault(variable, value)
