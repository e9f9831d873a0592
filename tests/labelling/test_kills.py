"""A page for labels, of an audit or of a lesson that is killed while answers arrive loses none that it acknowledged."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from auditing.painted import painted
from studio.client import Client

from energyql.auditing.answers import ANSWERS

TESTS = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the servers that are killed are forks")
@pytest.mark.parametrize("name", ["label", "audit", "teach"])
@pytest.mark.parametrize(
    ("step", "kills"), [pytest.param(30, 2, id="few"), pytest.param(1, 50, marks=pytest.mark.slow, id="all")]
)
def test_every_moment(tiny, tmp_path, name, step, kills):
    arguments = [str(tiny), str(tmp_path), "0", str(step), str(kills), name]
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "labelling.killing", *arguments],
        capture_output=True, text=True, timeout=600, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "answers" in run.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_the_command(tiny, tmp_path):
    """The same command continues at once: the lock of a killed process holds nobody up."""
    folder = painted(tiny).save(tmp_path / "run")
    for start in range(3):
        command = [sys.executable, "-m", "energyql", "audit", str(folder), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
            client = Client(int(re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())[1]), None)
            state = client.get("/api/state").json()
            assert state["answered"] == 2 * start
            for _ in range(2):
                state = client.post("/api/answers", {"key": state["next"][0]["key"], "answers": {}}).json()
            process.send_signal(signal.SIGKILL)
        with (folder / "audit" / ANSWERS).open("ab") as file:
            file.write(b'{"picture": "000')  # half a line
