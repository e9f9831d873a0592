"""A sampler costs one new file and three lines; docs/extending.md walks through it."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE, CATALOG, REGISTRY = (
    f"energyql/{name}.py" for name in ("sampling/crank_nicolson", "catalog", "sampling/registry")
)
LINES = {
    "energyql/catalog.py": [('    "crank-nicolson",\n', '    "langevin",\n')],
    "energyql/sampling/registry.py": [
        ("from energyql.sampling.crank_nicolson import CrankNicolson\n", "from energyql.sampling.descent import"),
        ('    "crank-nicolson": CrankNicolson,\n', '    "langevin": '),
    ],
}
"""File -> its new lines, each with the text before which it stands."""
CHECK = """
import sys
import pytest
import energyql
from typer.testing import CliRunner
from energyql import sample_latents
from energyql.cli.main import app

assert energyql.__file__.startswith(sys.argv[1])
batches = list(sample_latents("smile AND hat", 8, sampler="crank-nicolson", strength=2, batch_size=4, progress=False))
assert [len(batch.z) for batch in batches] == [4, 4] and all(batch.ok.all() for batch in batches)
assert "crank-nicolson" in CliRunner().invoke(app, ["generate", "--help-all"], env={"COLUMNS": "300"}).output
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", "crank-nicolson", "tests/sampling/test_contract.py"]))
"""


def code() -> str:
    """The Python file that docs/extending.md shows."""
    section = (ROOT / "docs/extending.md").read_text(encoding="utf-8").split("\n## A sampler\n")[1].split("\n## ")[0]
    file, *blocks = [block.split("   ```\n")[0] for block in section.split("```text\n")[1:]]
    shown = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    assert shown == [line.strip() for lines in LINES.values() for line, _ in lines]
    return textwrap.dedent(file)


def test_a_sampler_is_short_and_keeps_no_books():
    lines = code().partition("@dataclass")[2].splitlines()
    assert len([line for line in lines if line.strip()]) <= 25
    assert not {"rows", "batch", "status", "values"} & set(re.findall(r"\w+", code()))


@pytest.mark.slow
def test_a_sampler_costs_one_file_and_three_lines(tmp_path):
    for folder in ("energyql", "grammar", "tests/sampling"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc.*"))
    for file, lines in LINES.items():
        text = (tmp_path / file).read_text(encoding="utf-8")
        for line, after in lines:
            assert text.count(after) == 1
            text = text.replace(after, line + after)
        (tmp_path / file).write_text(text, encoding="utf-8")
    (tmp_path / FILE).write_text(code(), encoding="utf-8")

    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(tmp_path / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    changed = [
        path.relative_to(tmp_path).as_posix()
        for path in (tmp_path / "energyql").rglob("*.py")
        if not (ROOT / path.relative_to(tmp_path)).exists()
        or path.read_bytes() != (ROOT / path.relative_to(tmp_path)).read_bytes()
    ]
    assert sorted(changed) == sorted([FILE, *LINES])
