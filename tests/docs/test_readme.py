"""What the README says, done."""

import re
import shlex
from pathlib import Path

import pytest
from markdown import ROOT, blocks, execute, texts
from PIL import Image
from typer.testing import CliRunner

from energyql import parse
from energyql.cli.main import app
from energyql.language import bind
from energyql.models import read_vocabulary

README = ROOT / "README.md"


def test_two_commands_do_all_the_set_up():
    main_job, *_, tests = (text.strip() for text in texts(README, "sh"))
    assert main_job.startswith("pip install . && energyql generate ")
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    install, test = tests.split(" && ")
    assert lines.index(install) < lines.index(test)


def test_it_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 130


def test_the_main_job_draws_a_labelled_grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(texts(README, "sh")[0].split("&& energyql ")[1])
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 0, outcome.output
    satisfied, total = map(
        int, re.search(r"(\d+) of (\d+) satisfy the query, says the image judge", outcome.output).groups()
    )
    assert total == 16
    assert satisfied >= 15
    with Image.open("faces.png") as grid:
        assert grid.width > 4 * 128
        assert "energyql" in grid.text


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image.Image, "show", lambda self: None)
    for block in blocks(README):
        if block.language != "python":
            continue
        names = {}
        execute(block, names, README)
        if "same" in names:
            assert [a.tobytes() for a in names["result"].images] == [b.tobytes() for b in names["same"].images]
            assert len(list(Path("faces").glob("*.png"))) == 17


@pytest.mark.parametrize("query", texts(README, "text")[0].splitlines())
def test_queries_fit_the_packaged_model(query):
    bind(parse(query), read_vocabulary("avatars"), query=query)


def test_the_error_prints_as_shown(capsys, monkeypatch):
    from energyql.cli.main import main

    command, expected = texts(README, "text")[1].split("\n", 1)
    monkeypatch.setattr("sys.argv", shlex.split(command.removeprefix("$ ")))
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == expected


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (ROOT / target).exists(), target
