from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation.lively import lively_model
from toys import tiny_model
from typer.testing import CliRunner

from energyql.cli.main import app
from energyql.errors import ArgumentError, ModelError

SMALL = ["-n", "20", "--prior", "200", "--oracle", "40"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(lively_model(tmp_path_factory.mktemp("lively")))


def test_bench_compares_and_goes_on(model: str, tmp_path: Path) -> None:
    queries, out = tmp_path / "queries.txt", tmp_path / "out"
    queries.write_text("smile\nFew: glasses AND NOT beard\n", encoding="utf-8")
    arguments = ["bench", str(queries), "--model", model, "--samplers", "slice,ode", "--out", str(out), *SMALL]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    for word in ("Few", "slice, mean", "ode, worst", "Saved", "failed"):
        assert word in done.output
    data = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert data["contenders"] == ["slice", "ode"]
    again = CliRunner().invoke(app, [*arguments, "--quiet"])
    assert (again.exit_code, again.output) == (0, "")
    assert json.loads((out / "results.json").read_text(encoding="utf-8"))["queries"] == data["queries"]


def test_wrong_arguments_are_refused_before_anything_is_drawn(model: str, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out"), *SMALL]
    found = CliRunner().invoke(app, ["bench", "smile", "--model", model, "--samplers", "slize", *out])
    assert isinstance(found.exception, ArgumentError)
    found = CliRunner().invoke(app, ["bench", "smle", "--model", model, *out])
    assert "did you mean smile" in str(found.exception)
    judgeless = str(tiny_model(tmp_path / "model", judge=False))
    found = CliRunner().invoke(app, ["bench", "smile", "--model", judgeless, *out])
    assert isinstance(found.exception, ModelError)
    assert not (tmp_path / "out").exists()


def test_a_setup_that_the_model_cannot_run_says_what_is_missing(model: str, tmp_path: Path) -> None:
    arguments = ["evaluate", "--model", model, "--out", str(tmp_path / "out"), *SMALL]
    found = CliRunner().invoke(app, [*arguments, "--setup", "ffhq"])
    assert isinstance(found.exception, ModelError)
    for name in ("gender", "yaw"):
        assert f"attribute {name!r}" in str(found.exception)
    assert "attribute 'glasses'" not in str(found.exception)
    found = CliRunner().invoke(app, [*arguments, "--setup", "faces"])
    assert isinstance(found.exception, ArgumentError)
    assert "afhq, cifar10, ffhq, metfaces" in str(found.exception)
    found = CliRunner().invoke(app, [*arguments, "--setup", "ffhq", "--protocols", "conditional-2"])
    assert "there is no protocol 'conditional-2'" in str(found.exception)
    assert not (tmp_path / "out").exists()
