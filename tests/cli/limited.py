"""Commands that may take no more memory than some limits: `python -m cli.limited MODEL FOLDER MEBIBYTES...`.

The library is imported once, and each command is a fork that may take so much more than what was taken before. For
each command and limit it prints the name, the limit, how the command ended, and the last words of what it said.
"""

import os
import resource
import shutil
import sys
import traceback
from pathlib import Path

from cli.commands import COMMANDS, SUFFIX, arguments, write_inputs

import energyql.editing.edit
import energyql.evaluation.compare
import energyql.gallery.gallery
import energyql.pipeline.stream
import energyql.training.run  # noqa: F401
from energyql.cli import main as cli

PAGE = resource.getpagesize()


def run(words, more):
    """Run one command in this process and end it: 99 is an error that nobody caught."""
    file = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    most = PAGE * int(Path("/proc/self/statm").read_text().split()[0]) + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sys.argv = ["energyql", *words]
    code = 99
    try:
        cli.main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(model, folder, limits):
    write_inputs(model, folder)
    os.chdir(folder)
    for command in COMMANDS:
        for limit in limits:
            out = folder / f"out{SUFFIX.get(command, '')}"
            if not (child := os.fork()):
                run(arguments(command, model, str(out)), limit << 20)
            status = os.waitpid(child, 0)[1]
            end = os.waitstatus_to_exitcode(status)
            print(command, limit, end, Path("said").read_text().strip().replace("\n", " ")[-160:], sep="\t", flush=True)
            shutil.rmtree(out, ignore_errors=True)
            out.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(limit) for limit in sys.argv[3:]])
