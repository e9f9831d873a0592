"""The command `audit`."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import typer
from auditing.painted import painted
from typer.testing import CliRunner

from energyql.cli.pages import audit
from energyql.errors import ArgumentError, DataError, EnergyQLError
from energyql.files import sole_writer
from energyql.studio import web
from energyql.studio.guard import Access

app = typer.Typer()
app.command()(audit)


@pytest.fixture
def folder(tiny, tmp_path):
    return painted(tiny).save(tmp_path / "run")


def run(*words):
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(outcome.exception, EnergyQLError):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


SEEING = ("--simulate", "auditing.painted:look", "-q")


def test_a_function_and_then_a_person(folder, monkeypatch):
    output = run(folder, "--clicks", 20, "--attributes", *SEEING, "--json")
    data = json.loads(output)
    assert (data["decided"], data["anytime"], data["people"]) == (20, False, ["auditing.painted:look"])
    assert sorted(data["frequencies"]) == ["glasses", "smile"]
    shown = json.loads((folder / "audit" / "audit.json").read_text())
    assert shown["text"] == data["text"]
    served = []

    def serve_app(make, **options):
        make(Access())
        served.append(options["port"])

    monkeypatch.setattr(web, "serve_app", serve_app)
    assert run(folder, "--by", "ann", "--port", 0) == run(folder, "--simulate", "auditing.painted:look")
    assert served == [0]
    assert run(folder, "--by", "auditing.painted:look").startswith(
        f"audited: {data['text']} satisfy the query; 20 of 40"
    )
    assert served == [0]  # a finished audit needs no page


def test_until_a_width(folder):
    assert json.loads(run(folder, "--width", 0.3, *SEEING, "--json"))["anytime"]
    with pytest.raises(ArgumentError, match="not both"):
        run(folder, "--width", 0.3, "--clicks", 5, *SEEING)
    with pytest.raises(ArgumentError, match="width is between 0 and 1"):
        run(folder, "--width", 3, *SEEING)


def test_nobody_answered(folder, monkeypatch):
    monkeypatch.setattr(web, "serve_app", lambda make, **options: None)
    with pytest.raises(DataError, match="cannot be audited: there are no answers yet"):
        run(folder)
    assert not (folder / "audit" / "audit.json").exists()
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ArgumentError, match="the page of an audit needs uvicorn"):
        run(folder)


def test_one_writer(folder):
    with ThreadPoolExecutor(1) as threads, sole_writer(folder / "audit", "an audit"):
        with pytest.raises(ArgumentError, match="is being written by an audit of another thread"):
            threads.submit(run, folder, *SEEING).result()
        assert not (folder / "audit" / "answers.jsonl").exists()


def test_mistakes(tmp_path, folder):
    with pytest.raises(DataError, match="there is no"):
        run(tmp_path / "none", *SEEING)
    with pytest.raises(ArgumentError, match="cannot import"):
        run(folder, "--simulate", "no_such_module:look")
