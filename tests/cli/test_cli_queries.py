"""The commands `explain`, `attributes` and `score`."""

import csv
import io
import json
import re
import subprocess
import sys
import warnings
from shutil import copytree

import pytest
from commands import ENTRY, TABLE, invoke, process
from toys import VOCABULARY
from typer.testing import CliRunner

from energyql import Vocabulary
from energyql.cli import main as cli
from energyql.cli import options
from energyql.errors import UnknownAttribute
from energyql.files import fingerprint, write_json
from energyql.models import read_vocabulary


class TestExplain:
    @pytest.mark.parametrize("semantics", ["exact", "product", "lace"])
    def test_it_shows_the_query(self, tiny, semantics):
        result = invoke("explain", 'smile and not hair = "dark red"', "-m", tiny, "--semantics", semantics)
        assert result.exit_code == 0, result.exception
        assert result.output.startswith('query  smile AND hair != "dark red"') or "smile AND NOT" in result.output
        assert len(result.output.splitlines()) > 1

    def test_it_says_what_the_heads_can_be_sure_of(self, tiny):
        assert "at best P = " in invoke("explain", "0.5 < age < 0.5001 AND smile", "-m", tiny).output
        for certain in ("0.5 < age < 0.5001 OR smile", "-100 < age < 100 AND smile", "smile"):
            assert "at best" not in invoke("explain", certain, "-m", tiny).output

    def test_json(self, tiny):
        data = json.loads(invoke("explain", "smile AND NOT glasses", "-m", tiny, "--json").stdout)
        assert (data["query"], data["pilot"]) == ("smile AND NOT glasses", None)
        data = json.loads(invoke("explain", "smile", "-m", tiny, "--pilot", "--json").stdout)
        assert 0 < data["pilot"]["prevalence"] < 1
        assert "evaluations of the energy a sample" in invoke("explain", "smile", "-m", tiny, "--pilot").stdout

    def test_a_query_from_standard_input(self, tiny):
        done = CliRunner().invoke(cli.app, ["explain", "-", "-m", str(tiny)], input="smile\n AND NOT glasses\n")
        assert done.stdout.startswith("query  smile AND NOT glasses\n")

    def test_a_part_that_is_never_true_is_a_note(self, main):
        query = "beard OR bald AND hair = black"
        done = process("explain", query)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            pilot = main("explain", query, "--pilot", "--semantics", "exact")
        for code, out, errors in ((done.returncode, done.stdout, done.stderr), pilot):
            assert code == 0
            assert out.startswith(f"query  {query}\n")
            assert errors.splitlines() == [
                "note: bald and hair = black cannot both hold, so this part changes nothing",
                f"  {query}",
                "           ^^^^     ^^^^^^^^^^^^",
                "always: bald IFF hair = absent (--semantics product ignores these relations)",
            ]

    def test_markup_and_emoji_codes_are_text(self, main, tiny):
        code, _, errors = main("explain", '"[bold]" AND ":smile:"', "-m", tiny)
        assert code == 4
        assert '"[bold]" AND ":smile:"' in errors


def test_attributes(tiny):
    output = invoke("attributes", "-m", tiny).output
    assert "black, brown, dark red" in output
    assert "corners of the mouth up" in output
    assert "0 to 1" in output
    assert "no report" in output
    data = json.loads(invoke("attributes", "-m", tiny, "--json").stdout)
    assert Vocabulary.from_dict(data) == VOCABULARY


@pytest.mark.parametrize("model", ["avatars", "postcards"])
@pytest.mark.parametrize(("width", "lines"), [(60, 3), (80, 2), (120, 1), (200, 1)])
def test_an_attribute_takes_a_line(model, width, lines, monkeypatch):
    """Where the terminal is wide enough; at 80 columns, one of both models takes two."""
    monkeypatch.setattr(options.out, "_width", width)
    printed = CliRunner().invoke(cli.app, ["attributes", "-m", model]).output.splitlines()
    assert max(map(len, printed[:-1])) <= width
    names, long, at = [*read_vocabulary(model)], 0, -1
    for line in printed:
        if line.split(" ")[0] in names:
            at, name = 1, line.split(" ")[0]
            assert name == names.pop(0)  # in the order of the vocabulary
        elif at > 0 and line.startswith("  ") and line.strip():
            at += 1
            long += at == 2
            assert at <= lines
        else:
            at = -1
    assert names == []
    if width == 80:
        assert long == (model == "avatars")
    assert f"quality: balanced accuracy, or R2 of a range; more: energyql report {model} --full" in printed[-1]


def test_the_quality_of_attributes(tiny, tmp_path):
    folder = copytree(tiny, tmp_path / "m")
    heads = {"heads": fingerprint(folder / "attributes.safetensors")}
    known = {"fitted": 80, "held_out": 20, "labels": {"no": 50, "yes": 50}, "recall": {}, "details": {}}
    known |= {"ranking": {}, "correlation": None}
    score = {"kind": "yes/no", "calibration_error": None, "score": 0.555, "interval": [0.5, 0.6]}
    entries = {"smile": known | score, "glasses": known | score | {"score": None, "interval": None}}
    write_json(folder / "report.json", heads | {"attributes": entries})
    printed = invoke("attributes", "-m", folder).output
    smile, glasses, age = r"smile +0\.5[56] weak +corners", "glasses +unknown weak", "age +no report +0 to 1"
    for line in ("yes/no +quality +meaning", smile, glasses, age):
        assert re.search(f"^{line}", printed, re.MULTILINE), line


class TestScore:
    def test_to_standard_output(self, table):
        result = invoke("score", "smile", table)
        rows = list(csv.DictReader(io.StringIO(result.stdout)))
        assert [row["file"] for row in rows] == ["b", "c", "a"]
        assert list(rows[0])[:3] == ["rank", "energy", "probability"]

    def test_to_a_file(self, table, tmp_path):
        path = tmp_path / "new" / "ranked.csv"
        result = invoke("score", "NOT smile", table, "--top", 1, "--out", path)
        assert result.exit_code == 0
        assert result.stdout == ""
        assert path.read_text(encoding="utf-8").splitlines()[1].endswith("a,0.2,0.5")
        assert len(path.read_text(encoding="utf-8").splitlines()) == 2

    def test_a_table_from_standard_input(self, tmp_path):
        text = '\ufefffile,smile\r\n"a\nb",0.2\r\nc,0.9\r\n'
        done = CliRunner().invoke(cli.app, ["score", "smile", "-", "--out", "-"], input=text.encode())
        assert [row["file"] for row in csv.DictReader(io.StringIO(done.stdout))] == ["c", "a\nb"]
        done = CliRunner().invoke(cli.app, ["score", "smile", "-"], input="file\na\n")
        assert isinstance(done.exception, UnknownAttribute)
        assert "standard input has no column for 'smile'" in str(done.exception)

    def test_json(self, table, tmp_path):
        data = json.loads(invoke("score", "smile", table, "--json", "--top", 1).stdout)
        assert data == {
            "rows": [
                {
                    "rank": 1,
                    "energy": pytest.approx(0.1053605),
                    "probability": 0.9,
                    "file": "b",
                    "smile": "0.9",
                    "hat": "0.5",
                }
            ]
        }
        table.write_text("smile\n0\n")
        assert json.loads(invoke("score", "smile", table, "--json").stdout)["rows"][0]["energy"] is None

    def test_a_place_that_cannot_be_written(self, table, main):
        code, out, errors = main("score", "smile", table, "--out", table / "ranked.csv")
        assert (code, out) == (2, "")
        assert errors.startswith("ArgumentError: cannot write")


CLOSED = (">&-", "2>&-", "<&- >&- 2>&-")
QUICK = (("explain smile", 0), ("--help", 0), ("explain smyle", 4))
TABLES = [("score hat -", 9, "<&- >&- 2>&-"), pytest.param("score hat -", 0, ">&-", marks=pytest.mark.slow)]


@pytest.mark.parametrize(
    ("arguments", "code", "closed"),
    [
        *(
            pytest.param(*one, closed, marks=[] if i == j else pytest.mark.slow)
            for i, one in enumerate(QUICK)
            for j, closed in enumerate(CLOSED)
        ),
        *TABLES,
    ],
)
def test_what_the_caller_has_closed(arguments, code, closed):
    given = "" if "<" in closed else f"printf '{TABLE}' | "
    done = subprocess.run(
        ["sh", "-c", f"{given}{sys.executable} -c '{ENTRY}' {arguments} {closed}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["generate", "gallery"])
def test_the_help_of_verify_says_what_sure_shifts(command):
    """A wide page, so that the text is in one line."""
    text = " ".join(CliRunner(env={"COLUMNS": "600"}).invoke(cli.app, [command, "--help"]).output.split())
    assert "sure, after few draws, but attributes that the query does not name become more or less frequent" in text
    assert "faithful, with their natural frequencies" in text


def test_score_offers_what_it_takes():
    assert "jem" in invoke("generate", "--help-all").output
    assert "jem" not in invoke("score", "--help").output
