import pytest
import typer
from markup import Document
from rich.filesize import decimal
from typer.testing import CliRunner

from energyql.cli.pages import gallery
from energyql.errors import ArgumentError, DataError, EnergyQLError

app = typer.Typer()
app.command()(gallery)


def run(*words):
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(outcome.exception, EnergyQLError):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.txt"
    path.write_text("# faces\nElder: beard AND hair = black\nsmile\n\nhair = black AND beard  # again\n")
    return path


def test_a_page(tiny, queries, tmp_path):
    words = ("--title", "Faces", "--about", "Made.\n\nBy nobody.")
    output = run(queries, "--out", tmp_path / "site", "-m", tiny, "-n", 2, "--device", "cpu", *words)
    path = tmp_path / "site" / "index.html"
    assert "note: line 5 (hair = black AND beard) means the same as line 2 (Elder)" in output
    assert "3 queries, 6 pictures; " in output
    assert f"Saved {path} ({decimal(path.stat().st_size)})" in output
    page = Document(path.read_text(encoding="utf-8"))
    assert page.texts("h1") == ["Faces"]
    assert page.texts("p")[:2] == ["Made.", "By nobody."]
    assert len(page.all("li", "yes") + page.all("li", "no")) == 6


def test_tables_and_traversals_without_a_file(tiny, tmp_path):
    path = tmp_path / "page.html"
    tables = ["--truth-table", "smile, hair IN {black, brown}", "--truth-table", "beard"]
    way = ["--traverse", "smile", "beard AND NOT smile", "--steps", 3]
    assert run(*tables, *way, "-o", path, "-m", tiny, "-n", 1, "-q") == ""
    page = Document(path.read_text(encoding="utf-8"))
    assert len(page.all("section", "card")) == 3
    assert len(page.all("button", "tile")) == 4 + 2 + 3


def test_every_setting_arrives(tiny, queries, tmp_path):
    options = ["--semantics", "product", "--sampler", "ode", "--strength", 3, "--truncation", 0.9, "--seed", 7]
    run(queries, "-o", tmp_path, "-m", tiny, "-n", 1, "--device", "cpu", "--batch-size", 1, *options)
    facts = Document((tmp_path / "index.html").read_text(encoding="utf-8")).texts("dd")
    assert {"product", "0.9", "7", "cpu"} <= set(facts)
    assert any("strength=3" in fact for fact in facts)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ([], ArgumentError, "there is nothing to draw\nname a file of queries"),
        (["none.txt"], DataError, r"none\.txt is missing\nit was looked for in"),
        (["QUERIES", "-o", "page.png"], ArgumentError, "this cannot be saved as .png"),
        (["QUERIES", "-m", "nowhere"], EnergyQLError, "there is no model 'nowhere'"),
        (["QUERIES", "--truth-table", "smile,smil"], DataError, "attribute 2: UnknownAttribute"),
        (["QUERIES", "--truth-table", "smile,"], EnergyQLError, "is missing"),
        (["QUERIES", "--traverse", "smile", "smil"], DataError, "end: UnknownAttribute"),
        (
            ["--traverse", "smile", "--out", "page.html"],
            ArgumentError,
            "--traverse takes two queries, not smile and --o",
        ),
        (["--truth-table", "smile,smile,smile,smile,smile"], ArgumentError, "1 to 4 attributes, not 5"),
        (["QUERIES", "--traverse", "smile", "beard", "--steps", "99"], ArgumentError, "from 2 to 64"),
    ],
)
def test_mistakes_are_found_before_anything_is_drawn(tiny, queries, tmp_path, monkeypatch, words, error, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("energyql.gallery.gallery.open_session", lambda *_, **__: pytest.fail("drawn too early"))
    words = [str(queries) if word == "QUERIES" else word for word in words]
    with pytest.raises(error, match=message):
        run(*words, *([] if "-m" in words else ["-m", tiny]), *([] if "-o" in words else ["-o", "site"]))
    assert not (tmp_path / "site").exists()
