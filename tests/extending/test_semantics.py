"""A semantics costs one new file and three lines; docs/extending.md walks through it."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = {
    "energyql/catalog.py": [('    "tempered": NamedSemantics(),\n', '    "jem": ')],
    "energyql/energy/rule.py": [
        ("from energyql.energy.tempered import compile_tempered\n", "from energyql.errors import"),
        ('    "tempered": compile_tempered,\n', '    "jem": '),
    ],
}
"""File -> its new lines, each with the text before which it stands."""
CHECK = """
import sys
import numpy as np
from typer.testing import CliRunner
import energyql
from energyql.cli.main import app

assert energyql.__file__.startswith(sys.argv[1])
result = energyql.generate("smile", 4, semantics="tempered", progress=False)
assert result.provenance["semantics"] == "tempered" and result.probability is None and result.satisfied.all()
exact = energyql.score("smile", {"smile": np.array([0.25])})
assert np.allclose(energyql.score("smile", {"smile": np.array([0.25])}, semantics="tempered"), exact / 2)
for words in (["explain", "smile", "--semantics", "tempered"], ["generate", "--help-all"]):
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, words)
    assert done.exit_code == 0 and ("half of: " in done.output or "tempered" in done.output), done.output
"""


def new_file() -> str:
    """The file that docs/extending.md adds."""
    section = (ROOT / "docs/extending.md").read_text(encoding="utf-8").split("\n## A semantics\n")[1].split("\n## ")[0]
    file, *blocks = [block.split("   ```\n")[0] for block in section.split("```text\n")[1:]]
    shown = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    assert shown == [line.strip() for lines in LINES.values() for line, _ in lines]
    return textwrap.dedent(file)


@pytest.mark.slow
def test_a_semantics_costs_one_file_and_three_lines(tmp_path):
    for folder in ("energyql", "grammar"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc.*"))
    (tmp_path / "energyql/energy/tempered.py").write_text(new_file(), encoding="utf-8")
    for file, lines in LINES.items():
        text = (tmp_path / file).read_text(encoding="utf-8")
        for line, after in lines:
            assert text.count(after) == 1
            text = text.replace(after, line + after)
        (tmp_path / file).write_text(text, encoding="utf-8")
    (tmp_path / "check.py").write_text(CHECK, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "check.py", str(tmp_path)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, encoding="utf-8",
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
