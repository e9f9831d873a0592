"""Notebooks are plain, stand in the documentation, and fail its build if a cell raises. `test_site.py` runs them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from markdown import ROOT
from needed import needed

needed("sphinx")
needed("myst_parser")
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").iterdir())
ALL = [*NOTEBOOKS, ROOT / "examples" / "faces" / "audited-dataset.ipynb"]


def cells(path: Path, kind: str) -> list[str]:
    """The texts of the cells of a kind."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


def name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", ALL, ids=name)
def test_a_notebook_is_stored_as_jupyter_wants_it_and_without_outputs(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    for cell in content["cells"]:
        code = {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
        assert cell == {key: cell[key] for key in ("cell_type", "id", "metadata", "source")} | code


@pytest.mark.parametrize("path", ALL, ids=name)
def test_text_stands_before_code(path: Path) -> None:
    kinds = [cell["cell_type"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    assert kinds[0] == "markdown"
    assert kinds.count("markdown") >= kinds.count("code") - 1
    for code in cells(path, "code"):
        assert ast.parse(code).body
        assert max(map(len, code.splitlines())) <= 92


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_a_page_of_the_guide(path: Path) -> None:
    page = (ROOT / "docs" / "notebooks" / f"{path.stem}.md").read_text(encoding="utf-8")
    assert f"```{{notebook}} ../../examples/notebooks/{path.name}\n" in page
    assert f"\nnotebooks/{path.stem}\n" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def built(folder: Path, *codes: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Build the page of a notebook with these code cells; return how that ended, and the page."""
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "\n", "## *Part*"]}
    ]
    cells += [{"cell_type": "code", "metadata": {}, "source": [code]} for code in codes]
    (folder / "book.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    (folder / "index.md").write_text("```{notebook} book.ipynb\n```\n", encoding="utf-8")
    (folder / "conf.py").write_text('extensions = ["myst_parser", "docs.notebook"]\n', encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(folder), str(folder / "site")]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, check=False)
    page = folder / "site" / "index.html"
    return done, page.read_text(encoding="utf-8") if page.exists() else ""


PICTURE = """
class Picture:
    def _repr_png_(self):
        return b"png"

    def __repr__(self):
        return 'a "small" picture'
"""


def test_outputs_are_those_of_jupyter(tmp_path: Path) -> None:
    codes = ["print('<one>')\n2", "x = 3", f"{PICTURE}\nPicture()", "import os\nos.listdir()", "None"]
    done, page = built(tmp_path, *codes)
    assert done.returncode == 0, done.stderr
    outputs = page.split('<div class="cell-output">')[1:]
    assert len(outputs) == 3
    assert outputs[0].startswith("<pre>&lt;one&gt;\n</pre><pre>2</pre></div>")
    assert outputs[1].startswith('<img src="data:image/png;base64,cG5n" alt="a &quot;small&quot; picture"></div>')
    assert outputs[2].startswith("<pre>[]</pre></div>")
    assert "<h1>Title" in page
    assert "<h2><em>Part</em>" in page


def test_a_cell_that_raises_fails_the_build(tmp_path: Path) -> None:
    done, _ = built(tmp_path, "x = 1", "x / 0")
    assert done.returncode != 0
    assert "book.ipynb, cell 3: ZeroDivisionError: division by zero" in done.stderr
