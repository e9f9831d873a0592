import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from toys import CONFIG, VOCABULARY, random_generator, random_heads
from typer.testing import CliRunner

from energyql import load_generator, load_model
from energyql.attributes.bank import AttributeBank
from energyql.cli import main as cli
from energyql.errors import ArgumentError, ModelError
from energyql.pipeline.model import save_model
from energyql.version import __version__

CHECKPOINTS = Path(__file__).parents[1] / "generators" / "checkpoints" / "data"

ENTRY = "from energyql.cli.main import main; main()"
TABLE = "file,smile,hat\na,0.2,0.5\nb,0.9,0.5\nc,0.5,0.5\n"


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def process(*arguments, **settings):
    """A real command; a mistake of ours would show as a traceback."""
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-c", ENTRY, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **settings)


@pytest.fixture
def main(monkeypatch, capsys):
    """Runs `main` as a command would, and returns exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["energyql", *(str(argument) for argument in arguments)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back afterwards
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return call


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE, encoding="utf-8-sig")
    return path


class TestHelp:
    def test_version(self):
        result = invoke("--version")
        assert result.exit_code == 0
        assert result.output == f"energyql {__version__}\n"

    @pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["generate", "--help"], ["score", "-h"]])
    def test_help(self, arguments):
        result = invoke(*arguments)
        assert result.exit_code == 0
        assert "Usage" in result.output

    @pytest.mark.parametrize(
        "arguments", [["paint"], ["generate"], ["generate", "smile", "-n", "0"], ["score", "smile"]]
    )
    def test_wrong_usage(self, arguments):
        assert invoke(*arguments).exit_code == 2


class TestGenerate:
    def test_a_grid(self, tiny, tmp_path):
        path = tmp_path / "faces.png"
        result = invoke("generate", "smile", "-n", 2, "-m", tiny, "-o", path, "--device", "cpu", "--seed", 5)
        assert result.exit_code == 0, result.exception
        assert "of 2 satisfy the query, says the image judge" in result.output
        assert str(path) in result.output
        with Image.open(path) as picture:
            provenance = json.loads(picture.text["energyql"])
        assert (provenance["query"], provenance["n"], provenance["seed"]) == ("smile", 2, 5)

    def test_every_option_arrives(self, tiny, tmp_path):
        folder = tmp_path / "run"
        options = ["--semantics", "product", "--strength", 3, "--truncation", 0.9, "--batch-size", 1]
        result = invoke(
            "generate",
            "smile",
            "-n",
            2,
            "-m",
            tiny,
            "-o",
            folder,
            "--device",
            "cpu",
            "-q",
            "--sampler",
            "ode",
            *options,
        )
        assert result.exit_code == 0, result.exception
        assert result.output == ""
        provenance = json.loads((folder / "result.json").read_text(encoding="utf-8"))["provenance"]
        assert provenance["semantics"] == "product"
        assert provenance["truncation"] == 0.9
        assert "strength=3.0" in provenance["sampler"]

    @pytest.mark.parametrize(("text", "label"), [("1", 1), ("0.5,0.5", [0.5, 0.5]), ("0,1", 1)])
    def test_a_class_label(self, tmp_path, text, label):
        mark = save_model(tmp_path / "m", "m", random_generator(dataclasses.replace(CONFIG, c_dim=2)))
        AttributeBank(VOCABULARY, random_heads(VOCABULARY, CONFIG.w_dim), generator=mark).save(tmp_path / "m")
        out = tmp_path / "run"
        arguments = ("generate", "smile", "-n", 1, "-m", tmp_path / "m", "-o", out, "--device", "cpu", "-q")
        assert invoke(*arguments, "--label", text).exit_code == 0
        assert json.loads((out / "result.json").read_text())["provenance"]["label"] == label
        for wrong, message in (("2", "there is no class 2"), ("cat", "a label is a class, such as 3, or numbers")):
            with pytest.raises(ArgumentError, match=message):
                raise invoke(*arguments, "--label", wrong).exception


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

    def test_markup_and_emoji_codes_are_text(self, main, tiny):
        code, _, errors = main("explain", '"[bold]" AND ":smile:"', "-m", tiny)
        assert code == 1
        assert '"[bold]" AND ":smile:"' in errors


def test_attributes(tiny):
    output = invoke("attributes", "-m", tiny).output
    assert "black, brown, dark red" in output
    assert "corners of the mouth up" in output
    assert "0 to 1" in output
    assert len(output.splitlines()) == 7


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

    def test_a_place_that_cannot_be_written(self, table, main):
        code, out, errors = main("score", "smile", table, "--out", table / "ranked.csv")
        assert (code, out) == (2, "")
        assert errors.startswith("ArgumentError: cannot write")


class TestErrors:
    def test_carets(self, main, tiny):
        code, out, errors = main("explain", "smile AND NOT glases", "-m", tiny)
        assert (code, out) == (1, "")
        assert errors.splitlines() == [
            "UnknownAttribute: 'glases' is not an attribute of model 'tiny'",
            "  smile AND NOT glases",
            "                ^^^^^^",
            "did you mean glasses?",
        ]

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["explain", "smile AND"], 1, "QuerySyntaxError"),
            (["explain", "smile", "--semantics", "odd"], 2, "ArgumentError: no semantics is called 'odd'"),
            (["explain", "smile AND NOT smile"], 1, "Contradiction"),
            (["explain", "hair = green"], 1, "KindError"),
            (["explain", ""], 1, "QuerySyntaxError"),
            (["generate", "smile", "--device", "tpu"], 2, "ArgumentError: device 'tpu' is not available here"),
            (["generate", "smile", "--truncation", "nan"], 2, "ArgumentError: truncation must be a finite number"),
            (["generate", "smile", "--seed", "-1"], 2, "ArgumentError: seed must be"),
        ],
    )
    def test_each_kind(self, main, tiny, tmp_path, monkeypatch, arguments, code, message):
        monkeypatch.chdir(tmp_path)
        found, _, errors = main(*arguments, "-m", tiny)
        assert found == code
        assert errors.startswith(message)
        assert "Traceback" not in errors

    def test_a_tautology_is_a_note(self, main, tiny):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            code, out, errors = main("explain", "smile OR NOT smile", "-m", tiny)
        assert code == 0
        assert errors.startswith("note: ")
        assert out


class TestProcesses:
    def test_generate(self, tiny, tmp_path):
        path = tmp_path / "größe.png"
        done = process("generate", "smile AND age > 0.5", "-n", 1, "-m", tiny, "-o", path, "--device", "cpu")
        assert done.returncode == 0, done.stderr
        assert "of 1 satisfy the query" in done.stdout
        assert "sampling" in done.stderr
        assert path.exists()

    def test_a_reader_that_stops_reading(self, tmp_path):
        path = tmp_path / "long.csv"
        path.write_text("smile\n" + "0.5\n" * 20_000)
        command = [sys.executable, "-c", ENTRY, "score", "smile", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert running.stdout.readline().startswith("rank")
            running.stdout.close()
            assert "Traceback" not in running.stderr.read()

    @pytest.mark.parametrize("arguments", [["--help"], ["explain", "smile AND NOT glasses"], ["attributes"]])
    def test_quick_commands_do_not_wait_for_torch(self, tiny, arguments):
        model = [] if arguments == ["--help"] else ["-m", str(tiny)]
        code = f"""
import sys
sys.argv = ["energyql", *{[*arguments, *model]!r}]
from energyql.cli.main import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.parametrize(
    "checkpoint", sorted([*CHECKPOINTS.glob("*.pkl"), *CHECKPOINTS.glob("*.pt")]), ids=lambda p: p.name
)
def test_convert_makes_a_model_folder(checkpoint, tmp_path):
    outcome = invoke("convert", checkpoint, "--out", tmp_path / "model", "--name", "mine")
    assert outcome.exit_code == 0, outcome.output
    assert "kind StyleGAN" in outcome.output
    converted, original = load_generator(tmp_path / "model"), load_generator(checkpoint)
    z = torch.randn(2, original.z_dim, generator=torch.Generator().manual_seed(0))
    label = torch.eye(original.config.c_dim)[:2] if original.config.c_dim else None
    w = original.encode(z, 0.7, label)
    assert torch.allclose(converted.encode(z, 0.7, label), w, atol=1e-5)
    assert torch.allclose(converted.synthesize(w), original.synthesize(w), atol=1e-4)  # other memory layouts
    with pytest.raises(ModelError, match="model 'mine' has no attributes yet"):
        load_model(tmp_path / "model")


def test_convert_refuses_what_is_no_checkpoint(tmp_path):
    (tmp_path / "notes.pkl").write_text("hello")
    outcome = invoke("convert", tmp_path / "notes.pkl", "--out", tmp_path / "model")
    assert isinstance(outcome.exception, ModelError)
    assert "notes.pkl" in str(outcome.exception)
    assert not (tmp_path / "model").exists()
