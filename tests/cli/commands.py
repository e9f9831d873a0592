"""Commands as tests run them: in this process, or as a program."""

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from energyql.cli import main as cli

CHECKPOINTS = Path(__file__).parents[1] / "generators" / "checkpoints" / "data"

ENTRY = "from energyql.cli.main import main; main()"
TABLE = "file,smile,hat\na,0.2,0.5\nb,0.9,0.5\nc,0.5,0.5\n"


def invoke(*arguments):
    return CliRunner(env={"COLUMNS": "120"}).invoke(cli.app, [str(argument) for argument in arguments])


def process(*arguments, **settings):
    """A real command; a mistake of ours would show as a traceback."""
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-c", ENTRY, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **settings)
