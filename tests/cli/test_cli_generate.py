import dataclasses
import io
import json
import re

import pytest
from commands import invoke
from PIL import Image
from toys import CONFIG, VOCABULARY, random_generator, random_heads
from typer.testing import CliRunner

from energyql import Result
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.cli import main as cli
from energyql.cli.options import read_condition
from energyql.errors import ArgumentError
from energyql.generators.families import save_model
from energyql.pipeline import run as run_module
from energyql.sampling.registry import strengths


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
        assert strengths(provenance["sampler"]) == {3.0}

    @pytest.mark.parametrize(("text", "condition"), [("1", 1), ("0.5,0.5", [0.5, 0.5]), ("0,1", 1)])
    def test_a_class_label(self, tmp_path, text, condition):
        mark = save_model(tmp_path / "m", "m", random_generator(dataclasses.replace(CONFIG, c_dim=2)))
        bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, CONFIG.w_dim), fitted=FittedUnder(generator=mark))
        bank.save(tmp_path / "m")
        out = tmp_path / "run"
        arguments = ("generate", "smile", "-n", 1, "-m", tmp_path / "m", "-o", out, "--device", "cpu", "-q")
        assert invoke(*arguments, "--condition", text).exit_code == 0
        assert json.loads((out / "result.json").read_text())["provenance"]["condition"] == condition
        for wrong, message in (("2", "2 is not a condition"), ("cat", "'cat' is not a condition")):
            with pytest.raises(ArgumentError, match=message):
                raise invoke(*arguments, "--condition", wrong).exception

    @pytest.mark.parametrize(
        ("text", "condition"),
        [
            (None, None), ("3", 3), ("0.5,0.5", [0.5, 0.5]), ("a house, red", "a house, red"),
            ('["a house", "7"]', ["a house", "7"]), ('["a house"', '["a house"'), ("random", "random"),
        ],
    )  # fmt: skip
    def test_conditions(self, text, condition):
        assert read_condition(text) == condition

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
        for more in ([], ["--only-satisfied"]):
            code, _, errors = main(*arguments, "-n", 2, "--seed", 1, *more)
            assert (code, errors.splitlines()[0]) == (9, f"DataError: {tmp_path} holds a run of another seed: 0, not 1")
        code, _, errors = main(*arguments, "-n", 2, "--strength", 2)
        assert code == 9
        assert re.search(r"holds a run of another sampler: strength=1.0, .*, not strength=2.0, ", errors)
        code, _, errors = main(*arguments, "-n", 2)
        assert (code, f"{tmp_path} holds 2 samples of this run; 4 beyond were removed" in errors) == (0, True)
        assert sorted(path.name for path in tmp_path.glob("*.png")) == ["00000.png", "00001.png", "grid.png"]

    def test_without_a_number_all_pictures_stay(self, tiny, tmp_path, main):
        arguments = ("generate", "smile", "-m", tiny, "--device", "cpu", "-o", tmp_path)
        for number, held in ((["-n", 20], 20), ([], 20), (["-n", 3], 3), ([], 16)):
            assert main(*arguments, *number)[0] == 0
            assert len(Result.load(tmp_path)) == held

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
            assert main(*arguments, "-n", n, "--only-satisfied", "--budget", 3)[0] == 0
            assert len(Result.load(tmp_path)) == n
        code, _, errors = main(*arguments, "-n", 2)
        assert (code, "holds a run with a budget" in errors) == (9, True)

    def test_a_budget_of_calls(self, tiny, tmp_path, main):
        arguments = ("generate", "smile", "-m", tiny, "--device", "cpu", "-o", tmp_path / "out", "-n", 4)
        code, _, errors = main(*arguments, "--budget", 9)
        assert (code, "accepts n pictures: --only-satisfied" in errors, "until_satisfied" in errors) == (2, True, False)
        # Its judge accepts no picture, so the first sample keeps the last one of its attempts.
        code, output, _ = main(*arguments, "--budget", 9, "--verify", "sure", "--attempts", 9)
        assert (code, "4 were wanted, but the budget of 9 calls ended" in output) == (0, True)
        assert len(Result.load(tmp_path / "out")) == 1

    def test_ctrl_c_keeps_what_is_there(self, tiny, tmp_path, main, monkeypatch):
        monkeypatch.setattr(run_module, "STREAM_BATCH", 2)
        draw, drawn = run_module._part, []

        def interrupted(*arguments):
            if drawn:
                raise KeyboardInterrupt
            drawn.append(draw(*arguments))
            return drawn[-1]

        monkeypatch.setattr(run_module, "_part", interrupted)
        code, _, errors = main("generate", "smile", "-n", 6, "-m", tiny, "--device", "cpu", "-o", tmp_path)
        assert (code, errors.splitlines()[-1]) == (130, "interrupted; run the same command again to resume")
        assert len(Result.load(tmp_path)) == 2
