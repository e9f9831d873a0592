"""Runs a command again and again in children of its own, each of which is killed by SIGKILL while it writes a file.

`python killed.py OUT=STOPS ... WORD ...`: of the runs with `--out OUT`, the number k is killed at the file number
STOPS[k] that it writes, once that file is complete under its temporary name; below 0, while it is still empty; at 0 the
run must succeed.
"""

import os
import signal
import sys
from contextlib import contextmanager

from energyql.cli.main import main
from energyql.dataset.destination import Folder
from energyql.dataset.manifest import arrow
from energyql.language import parse

arrow()[0].array([])  # here, so that no child imports torch, nor pyarrow or what it imports at its first array
parse("smile")
original = Folder.writing


def deadly(stop):
    """Return a `writing` that kills the process."""
    left = abs(stop)

    @contextmanager
    def writing(self, name):
        nonlocal left
        left -= 1
        with original(self, name) as path:
            if left == 0 and stop < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            yield path
            if left == 0 and stop > 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return writing


if __name__ == "__main__":
    runs = [word.split("=") for word in sys.argv[1:] if "=" in word]
    words = [word for word in sys.argv if "=" not in word]
    for out, stop in [(out, int(stop)) for out, stops in runs for stop in stops.split(",")]:
        if (child := os.fork()) == 0:
            Folder.writing = deadly(stop)
            sys.argv = [*words, "--out", out]
            main()  # ends the process
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed if stop else status == 0, (out, stop, status)
