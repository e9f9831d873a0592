"""The whole documentation, built, and read from disk in a browser without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from browser import visiting
from markdown import ROOT
from needed import needed
from sites import search

for library in ("sphinx", "furo", "myst_parser", "sphinx_copybutton", "pyarrow"):
    needed(library)
pytestmark = pytest.mark.slow
NOTEBOOKS = sorted(path.stem for path in (ROOT / "examples" / "notebooks").iterdir())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, of which no page has a warning."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(folder)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_shown_with_their_outputs(site: Path, name: str) -> None:
    text = (site / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
    outputs = re.findall(r'<div class="cell-output">(.*?)</div>\n', text, re.DOTALL)
    assert len(outputs) >= 3
    assert any("<pre>" in output for output in outputs)
    pictures = re.findall(r"<img [^>]*>", "".join(outputs))
    assert pictures
    assert all(re.search(r'src="data:image/[a-z]+;base64,.* alt="[^"]', picture) for picture in pictures)
    (download,) = re.findall(r'href="([^"]*\.ipynb)"', text)
    assert (site / "notebooks" / download).resolve().read_bytes() == (
        ROOT / "examples" / "notebooks" / f"{name}.ipynb"
    ).read_bytes()


@pytest.mark.browser
def test_the_search_finds_words_on_pages_from_disk(chromium: Any, site: Path) -> None:
    with visiting(chromium, site.as_uri(), ready="article", folder="docs") as visitor:
        for start, words, title in (
            ("index.html", "oneDNN", "Speed and memory"),
            ("about/changes.html", "until_satisfied", "energyql.until_satisfied"),
            ("notebooks/first-pictures.html", "balanced data set", "From a query to a balanced data set"),
        ):
            page = visitor.open(f"/{start}")
            assert title in search(page, words)
        page.get_by_role("link", name=title).last.click()
        page.wait_for_url("**/notebooks/balanced-dataset.html*")
        assert search(page, "xyzzy") == []
        assert page.locator("#versions").count() == 0  # there is one version


@pytest.mark.browser
def test_pages_load_nothing_and_fit_on_a_phone(chromium: Any, site: Path) -> None:
    with visiting(chromium, site.as_uri(), 390, 800, ready="article", folder="docs") as visitor:
        for name in NOTEBOOKS:
            page = visitor.open(f"/notebooks/{name}.html")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            visitor.shoot(name, full_page=True)
