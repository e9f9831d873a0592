"""A setting of a drawing costs three files; docs/extending.md walks through it."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS, GENERATE, READ = (f"energyql/pipeline/{name}.py" for name in ("settings", "generate", "read"))
PLACES = [  # of each text of the page: the file, and the line before which it stands
    (SETTINGS, "    seed: int\n"),
    (SETTINGS, "    seed: int = field("),
    (GENERATE, "    seed: int = 0,\n"),
    (GENERATE, "        seed: 0 to 2**64 - 1."),
    (GENERATE, "        condition=condition, noise=noise, verify=verify,"),
    (READ, "        batches.append(read(plan, latents, images))\n"),
]
CHECK = """
import inspect
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import energyql
from energyql.cli.main import app
from energyql.dataset.plan import read_plan
from energyql.dataset.shard import PreparedPlan
from energyql.errors import ArgumentError, DataError
from energyql.gallery.words import facts
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import open_session
from energyql.studio.app import create_app
from energyql.studio.schemas import DrawRequest
from energyql.studio.studio import Studio

assert energyql.__file__.startswith(sys.argv[1])
runner, pipeline = CliRunner(env={"COLUMNS": "200"}), open_session("avatars", "cpu")

# Python
assert inspect.signature(energyql.generate).parameters["contrast"].default == 1.0
plain = energyql.generate("smile", 2, progress=False)
grey = energyql.generate("smile", 2, contrast=0.0, progress=False)
assert np.ptp(np.asarray(plain.images[0])) > 100 and np.ptp(np.asarray(grey.images[0])) == 0
with pytest.raises(ArgumentError, match="contrast must be at least 0, not -1"):
    energyql.until_satisfied("smile", 2, contrast=-1)

# provenance, and pages
assert "contrast" not in plain.provenance and grey.provenance["contrast"] == 0
assert ("contrast", "0") in facts(grey) and "contrast" not in dict(facts(plain))

# the command line, and a run that is continued
def draw(n, *options):
    return runner.invoke(app, ["generate", "smile", "-n", n, "--out", "run", "--quiet", *options])

for command in ("generate", "gallery"):
    described = runner.invoke(app, [command, "--help-all"]).output
    assert "--contrast" in described and "Factor of the distance of each colour to grey." in described
assert draw("2", "--contrast", "0.5").exit_code == 0
assert json.loads(Path("run/result.json").read_text())["provenance"]["contrast"] == 0.5
assert draw("3", "--contrast", "0.5").exit_code == 0
for options, ours in (["--contrast", "0.25"], "0.25"), ([], "1.0"):
    with pytest.raises(DataError, match=f"run holds a run of another contrast: 0.5, not {ours}"):
        raise draw("4", *options).exception
list(energyql.stream("smile", 2, out="plain", progress=False))
list(energyql.stream("smile", 3, out="plain", contrast=1.0, progress=False))

# the studio, and a picture that is drawn again
studio = Studio({"avatars": pipeline})
schemas = create_app(studio).openapi()["components"]["schemas"]
assert schemas["DrawRequest"]["properties"]["contrast"]["default"] == 1.0
picture = next(path for path in sorted(Path("run").glob("*.png")) if path.stem.isdigit())
restored = studio.restore(picture.read_bytes())
assert restored.request["contrast"] == 0.5 and restored.notes == []
job = studio.draw(DrawRequest.model_validate(restored.request | {"contrast": 0.0}))
while (state := studio.look(job.id)).state not in ("done", "failed"):
    time.sleep(0.05)
assert dict((fact.name, fact.text) for fact in state.facts)["contrast"] == "0", state.problem
studio.close()

# data sets
def identity(entry):
    Path("plan.toml").write_text(f'[[class]]\\nname = "a"\\nquery = "smile"\\ncount = 1\\n{entry}')
    plan, _ = read_plan(Path("plan.toml"))
    queries = [plan_query(pipeline, one.query, one.draw_settings(plan.seed_of(one))) for one in plan.classes]
    return PreparedPlan(plan, queries).identity["classes"][0]

assert "contrast" not in identity("")
assert identity("contrast = 0.5") == identity("") | {"contrast": 0.5}
"""


def texts() -> list[str]:
    """The texts that docs/extending.md adds, each indented like the line that it stands before."""
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    section = page.split("\n## A setting of a drawing\n")[1].split("\n## ")[0]
    blocks = [textwrap.dedent(block.split("   ```\n")[0]) for block in section.split("```text\n")[1:]]
    margins = [before[: len(before) - len(before.lstrip())] for _, before in PLACES]
    return [textwrap.indent(block, margin) for block, margin in zip(blocks, margins, strict=True)]


@pytest.mark.slow
def test_a_setting_costs_three_files(tmp_path):
    for folder in ("energyql", "grammar"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc.*"))
    for (name, before), text in zip(PLACES, texts(), strict=True):
        source = (tmp_path / name).read_text(encoding="utf-8")
        assert source.count(before) == 1, before
        (tmp_path / name).write_text(source.replace(before, text + before), encoding="utf-8")
    (tmp_path / "check.py").write_text(CHECK, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "check.py", str(tmp_path)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
