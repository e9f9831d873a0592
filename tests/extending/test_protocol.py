"""An evaluation protocol costs one entry in one file; docs/extending.md walks through it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation.lively import lively_model

ROOT = Path(__file__).parents[2]
FILE = "energyql/evaluation/protocols.py"
BEFORE = '        EvaluationProtocol(\n            "conditional-3", "Conditional'
ENTRY = """        EvaluationProtocol(
            "conditional-4",
            "Conditional sampling on four attributes",
            "Two random conjunctions of four attributes with a prevalence of at least 0.1 %.",
            conjunctions(2, 4, LEAST, MOST),
        ),
"""
CHECK = """
import sys
import energyql
from energyql.cli.main import app
from energyql.evaluation import reference
from energyql.evaluation.protocols import PROTOCOLS

reference.MOST_PICTURES = 300  # exact samples of rare queries are another test's
assert energyql.__file__.startswith(sys.argv[1])
assert list(PROTOCOLS)[3] == "conditional-4"
app(["evaluate", *sys.argv[2:]], standalone_mode=False)
"""


@pytest.mark.slow
def test_a_protocol_costs_one_entry(tmp_path):
    for folder in ("energyql", "grammar"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc.*"))
    text = (tmp_path / FILE).read_text(encoding="utf-8")
    assert text.count(BEFORE) == 1
    (tmp_path / FILE).write_text(text.replace(BEFORE, ENTRY + BEFORE), encoding="utf-8")

    arguments = ["--model", str(lively_model(tmp_path / "model")), "--out", str(tmp_path / "out")]
    arguments += ["--protocols", "conditional-4", "--samplers", "ode", "-n", "8", "--prior", "200", "--oracle", "30"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(tmp_path), *arguments],
        cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Conditional sampling on four attributes" in done.stdout
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))["setups"]["conditional-4"]
    queries = [record["query"] for record in found["comparison"]["queries"]]
    assert [query.count(" AND ") for query in queries] == [3, 3]
    page = (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    assert all(f"`{query}`" in page for query in queries)
    changed = [
        path
        for path in (tmp_path / "energyql").rglob("*.py")
        if path.read_bytes() != (ROOT / path.relative_to(tmp_path)).read_bytes()
    ]
    assert changed == [tmp_path / FILE]
