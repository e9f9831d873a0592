"""A field of `Result` costs three files, and one more on gallery pages; docs/extending.md walks through it."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import energyql

ROOT = Path(__file__).parents[2]
RESULT, COLUMNS, READ = (f"energyql/pipeline/{name}.py" for name in ("result", "columns", "read"))
PAGE = "energyql/gallery/page.py"
PLACES = [  # of each text of the page: the file, and the line before which it stands
    (RESULT, '    audited: str = ""\n'),
    (RESULT, "        audited: share of all samples that truly satisfies the query"),
    (COLUMNS, '}\n"""Name of the field -> column."""\n'),
    (
        READ,
        '        statistics={"doubtful": float(doubtful.mean())}, provenance=plan.provenance | facts, prompt=prompt,',
    ),
    (PAGE, "        rows.append(row)\n"),
]
CHECK = """
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import energyql
from energyql import Gallery, Result
from energyql.errors import DataError

assert energyql.__file__.startswith(sys.argv[1])
result = energyql.generate("smile", 3, progress=False)
bright = [np.asarray(picture).mean() for picture in result.images]
assert result.brightness.tolist() == bright

# selections, joined and saved results
assert result[[2, 0]].brightness.tolist() == [bright[2], bright[0]]
assert Result.join([result[:1], result[1:]]).brightness.tolist() == bright
assert [sample["brightness"] for sample in result.to_dict()["samples"]] == bright
result.save("new")
loaded = Result.load("new")
assert loaded.brightness.tolist() == bright and loaded.brightness.dtype == np.float64

# edits, and a run that is continued
assert energyql.edit(result, ["hat"], progress=False).final.brightness.shape == (3,)
for count in 2, 3:
    list(energyql.stream("smile", count, out="run", progress=False))
assert Result.load("run").brightness.tolist() == bright

# results from before
before = Result.load("before")
assert before.brightness is None and before[:1].brightness is None and len(before) == 3
assert Result.join([before, result]).brightness is None
before.save("again")
assert Result.load("again").brightness is None
list(energyql.stream("smile", 3, out="run-before", progress=False))
assert Result.load("run-before").brightness is None and len(Result.load("run-before")) == 3

# a damaged file
path = Path("new/result.json")
path.write_text(json.dumps(json.loads(path.read_text()) | {"samples": [
    sample | {"brightness": wrong} for sample, wrong in zip(result.to_dict()["samples"], ("much", 1, 2), strict=True)
]}))
with pytest.raises(DataError, match="new holds a damaged result"):
    Result.load("new")

# pages
assert "<th>brightness" in Gallery(["smile"], n=2, progress=False).to_html().replace(' scope="col"', "")
"""


def texts() -> list[str]:
    """The texts that docs/extending.md adds, each indented for its place."""
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    section = page.split("\n## A field of `Result`\n")[1].split("\n## ")[0]
    blocks = [textwrap.dedent(block.split("   ```\n")[0]) for block in section.split("```text\n")[1:]]
    margins = [before[: len(before) - len(before.lstrip())] or "    " for _, before in PLACES]
    return [textwrap.indent(block, margin) for block, margin in zip(blocks, margins, strict=True)]


@pytest.mark.slow
def test_a_field_costs_three_files(tmp_path):
    energyql.generate("smile", 3, progress=False).save(tmp_path / "before")
    list(energyql.stream("smile", 2, out=tmp_path / "run-before", progress=False))
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
