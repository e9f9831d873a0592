"""The path of one call through the library stays short enough to read."""

import subprocess
import sys

MOST_FILES = 57
"""Most files with a function that runs in one call of `generate`."""
SCRIPT = """
import os, sys, energyql
generate, files = energyql.generate, set()

def visit(frame, event, argument):
    if event == "call" and frame.f_code.co_name != "<module>":
        before, found, path = frame.f_code.co_filename.replace("\\\\", "/").rpartition("/energyql/")
        files.update([path] if found else [])

sys.setprofile(visit)
generate("smile AND NOT (glasses OR beard)", n=4, semantics=sys.argv[1], progress=False)
sys.setprofile(None)
print(*sorted(files), sep="\\n")
"""


def test_a_call_of_generate_runs_through_few_files():
    for semantics in ("exact", "product", "lace"):
        run = subprocess.run([sys.executable, "-c", SCRIPT, semantics], capture_output=True, text=True, check=True)
        files = run.stdout.split()
        assert 20 < len(files) <= MOST_FILES, files
