"""The command `energyql studio`: what it starts, and what it says when it cannot."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from energyql.cli.main import app
from energyql.errors import ArgumentError, EnergyQLError
from energyql.studio import serving
from energyql.studio.limits import Limits

PROGRAM = Path(sys.executable).with_name("energyql")


@pytest.fixture
def served(monkeypatch):
    """What would be served."""
    calls = []
    monkeypatch.setattr(serving, "serve", lambda models, **options: calls.append((models, options)))
    return calls


def run(*words):
    outcome = CliRunner().invoke(app, ["studio", *map(str, words)])
    if isinstance(outcome.exception, EnergyQLError):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output


def test_loopback_and_limits_by_default(served):
    run()
    ((models, options),) = served
    assert models == ["avatars"]
    assert (options["host"], options["port"], options["allowed"]) == ("127.0.0.1", 8420, [])
    assert options["limits"] == Limits()


def test_every_option_arrives(served):
    limits = ["--max-n", 5, "--timeout", 7, "--queue", 2]
    run("-m", "a", "-m", "b", "--host", "0.0.0.0", "--port", 0, "--allow-host", "x", "--device", "cpu", *limits)
    ((models, options),) = served
    assert models == ["a", "b"]
    assert (options["host"], options["port"], options["allowed"]) == ("0.0.0.0", 0, ["x"])
    assert options["limits"] == Limits(pictures=5, seconds=7, waiting=2)


def test_a_missing_package_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("energyql.studio")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ArgumentError, match="the studio needs uvicorn, which is not installed") as caught:
        run()
    assert caught.value.hint == 'pip install "fastapi>=0.115" "uvicorn>=0.30"'


def test_a_port_that_is_taken_is_noticed_before_models_are_loaded(monkeypatch):
    monkeypatch.setattr(serving, "load_models", None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ArgumentError, match=r"cannot listen on 127\.0\.0\.1, port \d+: Address already in use"):
            run("--port", taken.getsockname()[1])


def test_it_serves_until_ctrl_c(tiny):
    command = [PROGRAM, "studio", "-m", tiny, "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline() == f"Loading {tiny}...\n"
            words = server.stdout.readline().split()
            assert words[:4] == ["The", "studio", "is", "at"]
            assert words[4].startswith("http://127.0.0.1:")
            with urlopen(words[4].removesuffix(".") + "api/info") as answer:
                assert json.load(answer)["models"][0]["name"] == "tiny"
            server.send_signal(signal.SIGINT)
            assert "Traceback" not in server.communicate(timeout=60)[1]
        finally:
            server.kill()
