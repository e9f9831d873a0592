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
import typer
from PIL import Image
from toys import CONFIG, VOCABULARY, random_generator, random_heads
from typer.testing import CliRunner

import energyql
from energyql import Result, Vocabulary, load_generator, load_model
from energyql.attributes.bank import AttributeBank
from energyql.cli import main as cli
from energyql.errors import ArgumentError, ModelError, UnknownAttribute
from energyql.files import fingerprint, read_json
from energyql.pipeline import prepared
from energyql.pipeline.model import save_model
from energyql.training.target import open_target
from energyql.version import __version__

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
        "arguments",
        [
            ["paint"],
            ["generate"],
            ["generate", "smile", "-n", "0"],
            ["score", "smile"],
            ["explain", "a", "--semantics", "odd"],
        ],
    )
    def test_wrong_usage(self, arguments):
        assert invoke(*arguments).exit_code == 2


class TestOptions:
    def test_shared_options_stand_in_one_order(self):
        order = (
            "save_to n model semantics sampler strength precision truncation label seed device batch_size as_json quiet"
        )
        for name, command in typer.main.get_command(cli.app).commands.items():
            shared = [
                parameter.name
                for parameter in command.params
                if parameter.param_type_name == "option" and parameter.name in order.split()
            ]
            assert shared == sorted(shared, key=order.split().index), name
        assert shared

    def test_standard_output_is_refused_where_files_are_written(self, main, tiny, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for arguments in (
            ["edit", "smile"],
            ["invert", "x.png"],
            ["gallery", "q.txt"],
            ["bench", "smile"],
            ["evaluate"],
        ):
            code, _, errors = main(*arguments, "--out", "-")
            assert code == 2
            assert errors.startswith("ArgumentError: this command cannot write to standard output")
        assert list(tmp_path.iterdir()) == []

    def test_shells_complete_commands_models_and_names(self, tiny, monkeypatch):
        monkeypatch.chdir(tiny.parent)
        for words, expected in (
            ("energyql expl", "explain"),
            ("energyql generate smile --semantics pro", "product"),
            ("energyql generate smile --sampler slice", "slice+descent"),
            ("energyql generate smile --model ava", "avatars"),
            ("energyql generate smile --model ti", "tiny/"),
        ):
            environment = {
                "_ENERGYQL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1),
            }  # fmt: skip
            done = CliRunner().invoke(cli.app, [], prog_name="energyql", env=environment)
            assert expected in done.output.split(), done.output


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

    def test_json_and_nothing_else(self, tiny, tmp_path):
        arguments = ("generate", "smile", "-n", 2, "-m", tiny, "--device", "cpu", "--json")
        grid = invoke(*arguments, "-o", tmp_path / "faces.png")
        data = json.loads(grid.stdout)
        assert (data["saved"], len(data["samples"])) == (str(tmp_path / "faces.png"), 2)
        assert data["summary"].endswith("of 2 satisfy the query, says the image judge")
        assert data["samples"][1].keys() >= {"index", "energy", "satisfied", "judged", "probabilities", "status"}
        folder = json.loads(invoke(*arguments, "-o", tmp_path / "run").stdout)
        saved = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
        assert folder["summary"] == data["summary"]
        assert folder["provenance"] == saved["provenance"]
        assert "samples" not in folder
        assert [sample.pop("picture") for sample in saved["samples"]] == ["00000.png", "00001.png"]
        assert saved["samples"] == data["samples"]

    def test_a_picture_on_standard_output(self, tiny, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        arguments = ("generate", "-", "-n", 1, "-m", tiny, "--device", "cpu", "--out", "-")
        done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], input="smile AND\n glasses\n")
        with Image.open(io.BytesIO(done.stdout_bytes)) as picture:
            assert json.loads(picture.text["energyql"])["canonical"] == "smile AND glasses"
        assert "of 1 satisfy the query" in done.stderr
        assert list(tmp_path.iterdir()) == []
        assert isinstance(invoke(*arguments, "--json").exception, ArgumentError)

    def test_a_folder_is_continued(self, tiny, tmp_path, main):
        arguments = ("generate", "smile", "-m", tiny, "--device", "cpu", "-o", tmp_path)
        assert main(*arguments, "-n", 2)[0] == 0
        code, output, errors = main(*arguments, "-n", 5)
        assert (code, f"{tmp_path} holds 2 samples of this run" in errors) == (0, True)
        assert "of 5 satisfy the query" in output
        assert main(*arguments, "-n", 1, "--first", 5)[0] == 0
        assert Result.load(tmp_path).index.tolist() == [0, 1, 2, 3, 4, 5]
        for more in ([], ["--budget", 9]):
            code, _, errors = main(*arguments, "-n", 2, "--seed", 1, *more)
            assert (code, errors.splitlines()[0]) == (9, f"DataError: {tmp_path} holds a run of another seed: 0, not 1")
        code, _, errors = main(*arguments, "-n", 2)
        assert (code, f"{tmp_path} holds 2 samples of this run; 4 beyond were removed" in errors) == (0, True)
        assert sorted(path.name for path in tmp_path.glob("*.png")) == ["00000.png", "00001.png", "grid.png"]

    def test_a_budget_in_a_folder(self, tiny, tmp_path, main):
        arguments = (
            "generate",
            "smile OR glasses OR beard OR age < 0.9",
            "-m",
            tiny,
            "--device",
            "cpu",
            "-o",
            tmp_path,
        )
        for n in (3, 2):
            assert main(*arguments, "-n", n, "--budget", 3)[0] == 0
            assert len(Result.load(tmp_path)) == n
        code, _, errors = main(*arguments, "-n", 2)
        assert (code, "holds a run with a budget" in errors) == (9, True)

    def test_ctrl_c_keeps_what_is_there(self, tiny, tmp_path, main, monkeypatch):
        monkeypatch.setattr(prepared, "STREAM_BATCH", 2)
        draw, drawn = prepared.PreparedQuery._run, []

        def interrupted(*arguments):
            if drawn:
                raise KeyboardInterrupt
            drawn.append(draw(*arguments))
            return drawn[-1]

        monkeypatch.setattr(prepared.PreparedQuery, "_run", interrupted)
        code, _, errors = main("generate", "smile", "-n", 6, "-m", tiny, "--device", "cpu", "-o", tmp_path)
        assert (code, errors.splitlines()[-1]) == (130, "interrupted; run the same command again to resume")
        assert len(Result.load(tmp_path)) == 2


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

    def test_markup_and_emoji_codes_are_text(self, main, tiny):
        code, _, errors = main("explain", '"[bold]" AND ":smile:"', "-m", tiny)
        assert code == 4
        assert '"[bold]" AND ":smile:"' in errors


def test_attributes(tiny):
    output = invoke("attributes", "-m", tiny).output
    assert "black, brown, dark red" in output
    assert "corners of the mouth up" in output
    assert "0 to 1" in output
    assert len(output.splitlines()) == 7
    data = json.loads(invoke("attributes", "-m", tiny, "--json").stdout)
    assert Vocabulary.from_dict(data) == VOCABULARY


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


class TestErrors:
    def test_carets(self, main, tiny):
        code, out, errors = main("explain", "smile AND NOT glases", "-m", tiny)
        assert (code, out) == (4, "")
        assert errors.splitlines() == [
            "UnknownAttribute: 'glases' is not an attribute of model 'tiny'",
            "  smile AND NOT glases",
            "                ^^^^^^",
            "did you mean glasses?",
        ]

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["explain", "smile AND"], 3, "QuerySyntaxError"),
            (["explain", "smile AND NOT smile"], 6, "Contradiction"),
            (["explain", "hair = green"], 5, "KindError"),
            (["explain", ""], 3, "QuerySyntaxError"),
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

    @pytest.mark.parametrize("arguments", [["--help"], ["explain", "smile AND NOT glasses", "--json"], ["attributes"]])
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
    converted, original = load_generator(tmp_path / "model"), load_generator(checkpoint)
    assert f"kind {type(original).__name__}, " in outcome.output
    z = torch.randn(2, original.z_dim, generator=torch.Generator().manual_seed(0))
    label = torch.eye(original.config.c_dim)[:2] if original.config.c_dim else None
    w = original.encode(z, 0.7, label)
    assert torch.allclose(converted.encode(z, 0.7, label), w, atol=1e-5)
    assert torch.allclose(converted.synthesize(w), original.synthesize(w), atol=1e-4)  # other memory layouts
    with pytest.raises(ModelError, match="model 'mine' has no attributes yet"):
        load_model(tmp_path / "model")


def test_a_converted_folder_says_where_it_is_from(tmp_path):
    checkpoint = CHECKPOINTS / "rosinality_64.pt"
    assert invoke("convert", checkpoint, "--out", tmp_path / "model", "--lr-mlp", "0.01").exit_code == 0
    config, digest = read_json(tmp_path / "model" / "config.json"), fingerprint(checkpoint)
    assert config["truncation"] == 0.7
    assert config["source"] == {
        "file": "rosinality_64.pt", "sha256": digest, "licence": "unknown", "energyql": energyql.__version__
    }  # fmt: skip
    card = (tmp_path / "model" / "card.md").read_text(encoding="utf-8")
    for text in ("# rosinality_64", digest, "`rosinality_64.pt`", "carries no licence", "| resolution | 64 |"):
        assert text in card


def test_convert_keeps_the_licence_in_the_file(tmp_path):
    content = torch.load(CHECKPOINTS / "rosinality_64.pt", weights_only=True)
    torch.save(content | {"license": "CC0\nfor all"}, tmp_path / "x.pt")
    assert invoke("convert", tmp_path / "x.pt", "--out", tmp_path / "model").exit_code == 0
    assert read_json(tmp_path / "model" / "config.json")["source"]["licence"] == "CC0\nfor all"
    assert "    CC0\n    for all\n" in (tmp_path / "model" / "card.md").read_text(encoding="utf-8")


def test_training_from_a_checkpoint_says_where_it_is_from_too(tmp_path):
    checkpoint = CHECKPOINTS / "rosinality_64.pt"
    open_target(checkpoint, tmp_path / "model")
    config = read_json(tmp_path / "model" / "config.json")
    assert (config["truncation"], config["source"]["sha256"]) == (0.7, fingerprint(checkpoint))
    assert (tmp_path / "model" / "card.md").is_file()


def test_convert_reads_files_only(tiny, tmp_path):
    outcome = invoke("convert", "https://example.org/ffhq.pkl", "--out", tmp_path / "model")
    assert isinstance(outcome.exception, ArgumentError)
    assert "https://example.org/ffhq.pkl is an address, and energyql reads files" in str(outcome.exception)
    assert isinstance(invoke("convert", tiny, "--out", tmp_path / "model").exception, ArgumentError)
    assert not (tmp_path / "model").exists()


def test_convert_refuses_what_is_no_checkpoint(tmp_path):
    (tmp_path / "notes.pkl").write_text("hello")
    outcome = invoke("convert", tmp_path / "notes.pkl", "--out", tmp_path / "model")
    assert isinstance(outcome.exception, ModelError)
    assert "notes.pkl" in str(outcome.exception)
    assert not (tmp_path / "model").exists()
