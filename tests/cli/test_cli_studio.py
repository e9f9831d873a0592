"""The command `energyql studio`: what it starts, and what it says when it cannot."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
from typer.testing import CliRunner

from energyql.cli.main import app
from energyql.cli.options import CodeSource
from energyql.errors import ArgumentError, EnergyQLError
from energyql.studio import serving
from energyql.studio.limits import Limits
from energyql.studio.web import Listening

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
    assert models == [CodeSource("avatars")]
    assert (options["host"], options["port"], options["allowed"]) == ("127.0.0.1", 8420, [])
    assert options["limits"] == Limits()


def test_every_option_arrives(served):
    limits = ["--max-n", 5, "--timeout", 7, "--queue", 2]
    run("-m", "a", "-m", "b", "--host", "0.0.0.0", "--port", 0, "--allow-host", "x", "--device", "cpu", *limits)
    ((models, options),) = served
    assert [source.model for source in models] == ["a", "b"]
    assert (options["host"], options["port"], options["allowed"]) == ("0.0.0.0", 0, ["x"])
    assert options["limits"] == Limits(pictures=5, seconds=7, waiting=2)


def test_a_token_of_ones_own(served, monkeypatch):
    run()
    run("--token", "mine")
    run("--token", "")
    monkeypatch.setenv("ENERGYQL_TOKEN", "of the environment")
    run()
    assert [options["token"] for _, options in served] == [None, "mine", "", "of the environment"]


@pytest.mark.parametrize(
    ("host", "words", "warned"),
    [
        ("127.0.0.1", [], None),
        pytest.param("0.0.0.0", [], "only those who have the token can use it", marks=pytest.mark.slow),
        pytest.param("0.0.0.0", ["--token", ""], "anyone there, without a token, can use it", marks=pytest.mark.slow),
    ],
)
def test_it_serves_until_ctrl_c_at_the_address_it_prints_and_names_dangers(tiny, host, words, warned):
    command = [PROGRAM, "studio", "-m", tiny, "--host", host, "--port", "0", "--device", "cpu", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            lines = [server.stdout.readline()]
            assert lines == [f"Loading {tiny}...\n"]
            while not lines[-1].startswith("Ctrl+C"):
                lines.append(server.stdout.readline())
            assert host != "127.0.0.1" or lines[1].startswith("The studio is at http://127.0.0.1:")
            addresses = [line.split()[-1] for line in lines if "http://" in line]
            assert addresses[0].startswith("http://127.0.0.1:")
            assert not [address for address in addresses if "0.0.0.0" in address]
            assert all(("?token=" in address) == (host != "127.0.0.1" and not words) for address in addresses)
            plain = host == "127.0.0.1" or words  # no token, so no cookie either
            opener = build_opener() if plain else build_opener(HTTPCookieProcessor())
            assert opener.open(addresses[0]).status == 200
            with opener.open(addresses[0].partition("?")[0] + "api/info") as answer:
                assert json.load(answer)["models"][0]["name"] == "tiny"
            server.send_signal(signal.SIGINT)
            said = server.communicate(timeout=60)[1]
            assert "Traceback" not in said
            assert ("Warning" in said) == (warned is not None)
            assert warned is None or (warned in said and "Nothing is encrypted" in said)
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("token", "warned"), [(True, "only those who have the token can"), (False, "anyone there, without a token, can")]
)
def test_dangers_of_a_page_that_others_can_reach_are_named(served, capsys, token, warned):
    run("--host", "0.0.0.0")
    ready = served[0][1]["ready"]
    ready(Listening(("http://127.0.0.1:1/", "http://10.0.0.2:1/"), True, token))
    out, err = capsys.readouterr()
    assert "The studio is at http://127.0.0.1:1/\nFrom other machines: http://10.0.0.2:1/\nCtrl+C ends it.\n" in out
    assert f"Warning: other machines can reach this page; {warned} use it. Nothing is encrypted" in err


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
