"""What all commands share: help, options, errors, and that they run as programs."""

import os
import re
import subprocess
import sys
import warnings

import pytest
import typer
from commands import ENTRY, invoke, process
from typer.testing import CliRunner

from energyql import __version__
from energyql.cli import main as cli


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

    def test_without_a_command_one_screen_leads_to_the_first_picture(self, main):
        code, out, _ = main()
        lines = out.splitlines()
        assert code == 0
        assert 15 <= len(lines) <= 24
        assert max(map(len, lines)) <= 80
        assert next(line for line in lines if line.startswith("  ")).startswith("  energyql generate ")
        words = re.findall(r"[\w-]+", out[out.index("All commands") :])
        assert set(typer.main.get_command(cli.app).commands) <= set(words)

    @pytest.mark.parametrize("command", ["generate", "gallery", "edit", "dataset", "train"])
    def test_help_has_the_usual_options_and_help_all_every_one(self, command):
        short, full = (
            CliRunner(env={"COLUMNS": "100"}).invoke(cli.app, [command, flag]).output
            for flag in ("--help", "--help-all")
        )
        assert len(short.splitlines()) <= 45
        assert "More options" not in short
        parameters = [each for each in typer.main.get_command(cli.app).commands[command].params if each.name != "label"]
        names = {each.opts[0] for each in parameters if each.param_type_name == "option"}
        shown, rare = (set(re.findall(r"^│ +(?:\* +)?(--?[a-z][a-z-]*)", text, re.MULTILINE)) for text in (short, full))
        assert names <= rare
        assert f"with {len(names - shown)} more options" in " ".join(short.replace("│", "").split())
        for option in ("--out", "-n", "--model", "--seed", "--verify", "--only-satisfied", "--device"):
            assert (option in shown) == (option in names), option

    def test_a_wrong_value_of_a_rare_option_leads_to_the_help_that_describes_it(self, main):
        _, _, errors = main("generate", "smile", "--budget", "0")
        assert errors.endswith("energyql generate --help-all describes the command\n")

    def test_help_has_every_command_in_its_group(self):
        shown = invoke("--help").output
        for name in (*cli.GROUPS, *typer.main.get_command(cli.app).commands):
            assert f" {name} " in shown


class TestOptions:
    def test_shared_options_stand_in_one_order(self):
        order = (
            "save_to n model semantics sampler strength precision truncation condition seed batch_size device "
            "as_json quiet"
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
            ("energyql generate smile --sampl", "--sampler"),  # which only --help-all shows
            ("energyql generate smile --sampler slice", "slice+descent"),
            ("energyql generate smile --model ava", "avatars"),
            ("energyql generate smile --model ti", "tiny/"),
        ):
            environment = {
                "_ENERGYQL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1),
            }  # fmt: skip
            done = CliRunner().invoke(cli.app, [], prog_name="energyql", env=environment)
            assert expected in done.output.split(), done.output


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

    @pytest.mark.parametrize(
        ("arguments", "message", "hint"),
        [
            ("generate smile --sampler od", "--sampler cannot be 'od'", "did you mean ode? choose slice+descent, "),
            ("generate smile --noise no", "--noise cannot be 'no'", "did you mean none? choose const, random, none"),
            ("directions --method x", "--method cannot be 'x'", "choose ganspace, "),
            ("sample x -o y --by z", "--by cannot be 'z'", "choose heads, teacher"),
            ("generate smile -n 0", "-n must be a whole number of at least 1", ""),
            ("generate smile -n many", "-n must be a whole number of at least 1", ""),
            ("generate smile --strength much", "--strength must be a number", ""),
            ("studio --port 70000", "--port must be a whole number from 0 to 65,535", ""),
            ("generate smile --samplr ode", "no such option: --samplr", "did you mean --sampler?"),
            ("generate smile --sede 1", "no such option: --sede", "did you mean --seed?"),
            ("gnerate smile", "no such command 'gnerate'", ""),
            ("generate", "missing argument", 'a query, such as "smile AND NOT'),
            ("convert", "missing argument", "or its name on a hub, hub:owner/name\n"),
            ("generate smile AND hat", "got unexpected extra argument", "stands in quotes"),
            ("directions avatars", "got unexpected extra argument", "after --model"),
        ],
    )
    def test_wrong_words_of_a_command(self, main, arguments, message, hint):
        code, out, errors = main(*arguments.split())
        assert (code, out) == (2, "")
        assert errors.startswith(f"ArgumentError: {message}")
        assert hint in errors
        for foreign in ("Input should", "Value error", "│", "Invalid"):
            assert foreign not in errors
        assert errors.endswith(("--help describes the command\n", "--help-all describes the command\n"))

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
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "1"}),
        ({"OMP_WAIT_POLICY": "active"}, {}),
    ],
)
def test_waiting_threads_spin_briefly_in_commands_only(given, expected):
    names = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    code = (
        "import os, sys, energyql\n"
        f"own = [os.environ.get(name) for name in {names}]\n"
        "import energyql.cli\n"
        f"print(own, {{name: os.environ[name] for name in {names} if name in os.environ}}, 'torch' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in (*names, "OMP_WAIT_POLICY")}
    output = subprocess.run([sys.executable, "-c", code], env=environment | given, capture_output=True, text=True)
    assert output.stdout.strip() == f"{[given.get(name) for name in names]} {expected} False"
