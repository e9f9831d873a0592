"""The path of one call through the library stays short enough to read."""

import os
import subprocess
import sys

import pytest

MOST_FILES = 59
"""Most files with a function that runs in the first call of `generate` in a process, which also loads the model."""
SCRIPT = """
import os, sys, energyql
generate = energyql.generate

def trace(semantics):
    files = set()

    def visit(frame, event, argument):
        if event == "call" and frame.f_code.co_name != "<module>":
            before, found, path = frame.f_code.co_filename.replace("\\\\", "/").rpartition("/energyql/")
            files.update([path] if found else [])

    sys.setprofile(visit)
    generate("smile AND NOT (glasses OR beard)", n=4, semantics=semantics, progress=False)
    sys.setprofile(None)
    print(*sorted(files), flush=True)

for semantics in sys.argv[1:]:
    if not os.fork():  # so that each call is the first of its process
        trace(semantics)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the calls are made in forks")
@pytest.mark.parametrize(
    "semantics", [["exact"], pytest.param(["product", "lace"], marks=pytest.mark.slow)], ids=["default", "others"]
)
def test_a_call_of_generate_runs_through_few_files(semantics):
    command = [sys.executable, "-c", SCRIPT, *semantics]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    calls = [line.split() for line in run.stdout.splitlines()]
    assert len(calls) == len(semantics)
    for files in calls:
        assert 20 < len(files) <= MOST_FILES, files
