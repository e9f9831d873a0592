"""Every example runs, and writes what its README says."""

from __future__ import annotations

import re
import runpy
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from PIL import Image

import energyql

POSTCARDS = "postcards"  # asks another packaged model
EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "common")
LONG = {"continuous", "counting", "dataset", "editing", "gallery", "operators", "truth_table", "web_page"}
"""What they call is tested elsewhere; they run in the slow tests."""
AVATARS = Path(energyql.__file__).parent / "models" / "avatars"


def readme_rows() -> dict[str, str]:
    """Script -> the pattern of what it writes, by the table of the README."""
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) \| .+ \| `(.+)` \|$", text, re.MULTILINE))


def run(script: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    path = EXAMPLES / f"{script}.py"
    monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    runpy.run_path(str(path), run_name="__main__")


def test_readme_lists_every_script() -> None:
    assert sorted(readme_rows()) == SCRIPTS


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, marks=[pytest.mark.slow] if script in LONG else [])
        for script in SCRIPTS
        if script != POSTCARDS
    ],
)
def test_smoke(
    script: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(script, monkeypatch, "--smoke", "--model", str(model), "--out", str(tmp_path))
    assert capsys.readouterr().out.strip()
    written = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert all(fnmatch(name, readme_rows()[script]) for name in written)
    for name in written:
        if name.endswith((".png", ".webp")):
            with Image.open(tmp_path / name) as picture:
                picture.load()
                assert min(picture.size) > 100
        else:
            assert (tmp_path / name).read_text(encoding="utf-8").splitlines()[1:]


@pytest.mark.slow  # its queries and its judge are tested in recipes/test_postcards.py
def test_postcards_show_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(POSTCARDS, monkeypatch, "--smoke", "--out", str(tmp_path))
    counts = re.findall(r"(\d+) of (\d+) satisfy the query, says the image judge", capsys.readouterr().out)
    assert counts == [("2", "2")] * 4
    with Image.open(tmp_path / readme_rows()[POSTCARDS]) as picture:
        assert picture.size == (2 * 128 + 6, 4 * 128 + 3 * 6)


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_explains_itself_and_is_short(script: str) -> None:
    text = (EXAMPLES / f"{script}.py").read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert 10 <= len(text.splitlines()) <= 40


def test_score_table_ranks_best_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("score_table", monkeypatch, "--out", str(tmp_path))
    assert capsys.readouterr().out.split()[1] == "ben.jpg"


@pytest.mark.slow
def test_gallery_of_the_packaged_model_shows_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (AVATARS / "config.json").is_file(), "the packaged model is missing: make it with recipes/avatars"
    run("gallery", monkeypatch, "--out", str(tmp_path))
    counts = re.findall(r"(\d+) of (\d+) satisfy the query, says the image judge", capsys.readouterr().out)
    fractions = [int(satisfied) / int(total) for satisfied, total in counts]
    assert len(fractions) == len(list(tmp_path.rglob("*.png"))) >= 10
    assert sum(fractions) / len(fractions) >= 0.9
    assert min(fractions) >= 0.5
