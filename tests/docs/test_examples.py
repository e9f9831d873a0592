"""Every example runs, and writes what its README says."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from dcgan import write_weights
from PIL import Image

import energyql

TESTS = Path(__file__).parents[1]
OWN = "own_generator"  # brings its own model
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
        if script not in (OWN, POSTCARDS)
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
    assert 10 <= len(text.splitlines()) <= (66 if script == OWN else 40)


def test_score_table_ranks_best_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("score_table", monkeypatch, "--out", str(tmp_path))
    assert capsys.readouterr().out.split()[1] == "ben.jpg"


@pytest.fixture
def dcgan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package of faces, in name and form, with random weights."""
    package = tmp_path / "site" / "gan_face_generate"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(TESTS / "dcgan.py", package / "models.py")
    write_weights(package / "weights.tar")
    monkeypatch.syspath_prepend(package.parent)
    forget_faces()
    yield
    forget_faces()


def forget_faces() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "gan_face_generate"]:
        del sys.modules[name]


def faces(out: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run the example of a foreign generator, and look at what it leaves."""
    run(OWN, monkeypatch, "--out", str(out), *arguments)
    written = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    assert all(fnmatch(name, readme_rows()[OWN]) for name in written)
    assert sorted(name for name in written if "heads" not in name) == [
        f"{OWN}/{name}.png" for name in ("cold", "either", "side", "two")
    ]
    report = json.loads((out / OWN / "heads" / "report.json").read_text(encoding="utf-8"))["attributes"]
    assert [entry["kind"] for entry in report.values()] == ["continuous", "yes/no", "yes/no", "categorical"]


@pytest.mark.slow
def test_a_foreign_generator(
    dcgan: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faces(tmp_path / "out", monkeypatch, "--smoke")
    assert capsys.readouterr().out.count("of 4 satisfy the query, says the judge") == 4


@pytest.fixture
def real_faces() -> None:
    pytest.importorskip(
        "gan_face_generate.models", reason="gan-face-generate is missing: pip install --no-deps gan-face-generate"
    )


@pytest.mark.slow
def test_the_foreign_generator_itself(
    real_faces: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # a second run replaces the first
        faces(tmp_path, monkeypatch, "--smoke")
    assert capsys.readouterr().out.count("of 4 satisfy the query, says the judge") == 8


@pytest.mark.slow
def test_the_foreign_generator_draws_what_is_asked(
    real_faces: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate = energyql.generate  # 16 pictures tell little of a share
    monkeypatch.setattr(energyql, "generate", lambda query, n, **settings: generate(query, 480, **settings))
    faces(tmp_path, monkeypatch)
    counts = re.findall(r"(\d+) of 480 satisfy the query, says the judge", capsys.readouterr().out)
    assert len(counts) == 4
    assert min(map(int, counts)) >= 480 * 11 / 16  # samples of the prior: 0.7 to 3 of 16
    assert sum(map(int, counts)) >= 480 * 54 / 16


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
