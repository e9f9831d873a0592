"""Runs `energyql train` in children of its own, each of which ends itself by a signal while it labels pictures.

`python ended.py FOLDER:CALL:SIGNAL ... WORD ...`: a run takes place in FOLDER, a copy of the first one where it is not
there, and gets the signal at a call of the labeller. Prints for each run how it ended and what it wrote on standard
error, as JSON.
"""

import json
import os
import shutil
import sys
from importlib import import_module
from pathlib import Path

from energyql.cli.main import main
from energyql.training import judge, teacher

SMALL = judge.PictureSettings(side=8, channels=(4,), least=400, most=400)


def end(folder, call, number, words):
    """Run the command; return its status and its errors."""
    os.chdir(folder)
    Path("calls.txt").write_text("")
    Path("stop.txt").write_text(f"{call} {number}")
    if (child := os.fork()) == 0:
        os.dup2(os.open("errors.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.argv = ["energyql", *words]
        main()  # ends the process
    _, status = os.waitpid(child, 0)
    Path("stop.txt").unlink()
    errors = Path("errors.txt").read_text()
    Path("errors.txt").unlink()
    return os.waitstatus_to_exitcode(status), errors


if __name__ == "__main__":
    import_module("torch._dynamo")  # here, so that no child does, at its first optimizer
    for module in (judge, teacher):
        module.PictureSettings = lambda: SMALL
    runs = [word.split(":") for word in sys.argv[1:] if word.count(":") == 2]
    words = [word for word in sys.argv[1:] if word.count(":") < 2]
    ends = []
    for folder, call, number in runs:
        if not Path(folder).is_dir():
            shutil.copytree(runs[0][0], folder)
        ends.append(end(folder, call, number, words))
    print(json.dumps(ends))
