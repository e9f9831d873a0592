"""Commands as tests run them: in this process, or as a program."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
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


PLAN = """\
model = "MODEL"
shard_size = 3

[[class]]
name = "both"
query = "glasses AND beard"
count = 5

[[class]]
name = "smile"
query = "smile"
count = 4
"""
QUICK = ("--prior", "100", "--oracle", "30", "-q")
COMMANDS = {
    "generate": ("generate", "smile", "-n", "2", "-q", "-m", "MODEL"),
    "generate-budget": ("generate", "smile", "-n", "1", "--only-satisfied", "--budget", "200", "-q", "-m", "MODEL"),
    "score": ("score", "smile", "table.csv"),
    "edit": ("edit", "glasses", "-q", "-m", "MODEL"),
    "invert": ("invert", "photo.png", "--anyway", "-q", "-m", "MODEL"),
    "gallery": ("gallery", "queries.txt", "-n", "2", "-q", "-m", "MODEL"),
    "animate": ("animate", "smile", "glasses", "-n", "1", "--frames", "2", "-q", "-m", "MODEL"),
    "train": ("train", "bare", "--labels", "labels.csv", "-n", "0", "--judge", "none", "--truncation", "0.7", "-q"),
    "import-heads": ("import-heads", "bare", "normal.npy", "--attribute", "happy"),
    "sample": ("sample", "bare", "-n", "2", "-q"),
    "dataset": ("dataset", "plan.toml", "-q"),
    "export": ("export", "smile", "-m", "MODEL"),
    "bench": ("bench", "smile", "-n", "2", *QUICK, "-m", "MODEL"),
}
SUFFIX = {"animate": ".gif", "gallery": ".html", "score": ".csv", "export": ".onnx"}


def arguments(command, tiny, out):
    """The words of one of `COMMANDS`, for a model folder and a place to write."""
    return [str(tiny) if text == "MODEL" else text for text in COMMANDS[command]] + ["--out", out]


def write_inputs(tiny, folder):
    """Write what `COMMANDS` read: a model without heads, labels, a table, a list of queries, a direction, a picture."""
    (folder / "bare").mkdir()
    for name in ("config.json", "generator.safetensors"):
        shutil.copy(tiny / name, folder / "bare")
    random = np.random.default_rng(0)
    rows = [f"{i},{i % 2},{random.random():.3f}\n" for i in range(60)]
    (folder / "labels.csv").write_text("index,happy,tall\n" + "".join(rows))
    (folder / "table.csv").write_text("smile\n" + "0.5\n" * 2000)
    (folder / "queries.txt").write_text("smile\n")
    (folder / "plan.toml").write_text(PLAN.replace("MODEL", str(tiny)))
    np.save(folder / "normal.npy", random.random((1, 16), np.float32))
    Image.new("RGB", (16, 16)).save(folder / "photo.png")
