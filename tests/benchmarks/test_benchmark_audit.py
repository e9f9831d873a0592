"""The benchmark of audits, at its smallest."""

import json

from typer import Typer
from typer.testing import CliRunner

from benchmarks import audit


def test_smoke(tmp_path):
    app = Typer()
    app.command()(audit.main)
    outcome = CliRunner().invoke(app, ["--smoke", "--out", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    cases = json.loads((tmp_path / "results.json").read_text())["cases"]
    assert [(case["accuracy"], case["prevalence"]) for case in cases] == [
        (accuracy, prevalence) for accuracy in audit.ACCURACIES for prevalence in audit.PREVALENCES
    ]
    assert (tmp_path / "results.md").read_text().count("| 0.85 |") == 3
