"""Every block of the documentation runs, links lead somewhere, and pictures can be drawn."""

from __future__ import annotations

import re
import runpy
import sys
from functools import cache
from pathlib import Path

import pytest
import short
from markdown import ROOT, blocks, run_page
from PIL import Image

import energyql
from docs import draw
from energyql import models, parse
from energyql.language import bind
from energyql.models import read_vocabulary
from energyql.training import goals

DOCS = ROOT / "docs"
ELSEWHERE = {
    "newcomer.md": "docs/test_newcomer_docs.py",
    "teach.md": "docs/test_teach_docs.py",
    "own-model.md": "docs/test_own_model_docs.py",
    "trust.md": "docs/test_own_model_docs.py",
    "verified.md": "docs/test_own_model_docs.py",
    "checkpoints.md": "docs/test_own_model_docs.py",
    "any-generator.md": "docs/test_own_model_docs.py",
    "noise.md": "generators/test_diffusers.py",
    "studio.md": "studio/test_page_of_docs.py",
    "studio-api.md": "studio/test_page_of_docs.py",
}
"""Pages that need a set-up of their own."""
PAGES = [page for page in sorted(DOCS.glob("*.md")) if page.name not in ELSEWHERE]
MANY_PICTURES = {"editing.md", "gallery.md", "pictures.md", "samplers.md"}
"""Pages whose blocks draw so many pictures that a random model with small ones takes the place of the packaged one."""
LONG = {"datasets.md", "gallery.md"}
"""Pages that take seconds and whose commands other tests run: slow as a whole."""
SLOW = [page for page in PAGES if any(block.slow for block in blocks(page))]
LANGUAGES = {"python", "sh", "text", "toml", "json", "csv", "query", "error"}
DIRECTIVES = {"{include}", "{literalinclude}", "{notebook}", "{toctree}", "{eval-rst}"}


def installing(words: list[str]) -> bool:
    """Commands that set something up: the continuous integration runs them, or they need what it has not."""
    return words[:2] in (["pip", "install"], ["sphinx-build", "-W"])


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder in which the reader works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(Image.Image, "show", lambda self: None)


def name(page: Path) -> str:
    return page.stem


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] if page.name in LONG else []) for page in PAGES], ids=name
)
def test_blocks_run(page: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.name in MANY_PICTURES:
        monkeypatch.setattr(models, "_packaged", lambda: model.parent)
        short.edits(monkeypatch)
    run_page(page, elsewhere=installing)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW, ids=name)
def test_slow_blocks_run(page: Path) -> None:
    run_page(page, slow=True, elsewhere=installing)


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name)
def test_no_block_is_of_an_unknown_kind(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= LANGUAGES | DIRECTIVES
    assert f"\n{page.read_text(encoding='utf-8')}".count("\n```") == 2 * len(blocks(page))


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_no_block_of_a_measurement_is_run() -> None:
    for page in (DOCS / "measurements").glob("*.md"):
        assert all(block.left_out for block in blocks(page) if block.language in {"python", "sh"}), page


def test_examples_are_all_shown() -> None:
    shown = re.findall(
        r"^```\{literalinclude\} (\S+)", (DOCS / "examples.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    scripts = {path for path in (ROOT / "examples").glob("*.py") if path.stem != "common"}
    assert {(DOCS / target).resolve() for target in shown} == scripts


def test_every_public_name_is_in_the_reference() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    documented = set(re.findall(r"auto(?:function|class|data):: energyql\.(?:\w+\.)*(\w+)$", text, re.MULTILINE))
    assert set(energyql.__all__) - {"__version__"} <= documented


def test_every_query_in_a_box_is_one_of_the_packaged_model() -> None:
    vocabulary = read_vocabulary("avatars")
    for page in PAGES:
        for block in blocks(page):
            for line in block.text.splitlines() if block.language == "query" else ():
                bind(parse(line), vocabulary, query=line)


def test_every_picture_has_a_text() -> None:
    for page in DOCS.rglob("*.md"):
        assert "![](" not in page.read_text(encoding="utf-8"), page


def test_pages_of_their_own_set_up_are_tested() -> None:
    for page, test in ELSEWHERE.items():
        assert (DOCS / page).exists()
        assert page in (ROOT / "tests" / test).read_text(encoding="utf-8")


def draw_pictures(names: list[str], out: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What `python -m docs.draw` makes of some names."""
    monkeypatch.setattr(sys, "argv", ["draw.py", *names, "--out", str(out), "--model", str(model)])
    draw.main()
    return {path.name for path in out.iterdir()}


def test_the_pictures_are_drawn_by_one_command(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goals, "STEPS", 4)
    strip = cache(draw.strip)  # one for each semantics is drawn
    monkeypatch.setattr(draw, "strip", lambda query, model, semantics: strip(draw.COMPARED, model, semantics))
    made = draw_pictures(
        ["architecture", "rule", "strips", "circuits", "plane", "directions"], tmp_path, model, monkeypatch
    )
    kept = {path.name for path in (DOCS / "images").iterdir()}
    assert made | set(draw.EXAMPLES) | set(draw.STUDIO) | set(draw.MEASURED) == kept
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "grammar" / "README.md"]
    used = {Path(t).name for p in pages for t in re.findall(r"\]\(([^)\s]+)", p.read_text(encoding="utf-8"))}
    assert kept <= used
    assert max(path.stat().st_size for path in (DOCS / "images").iterdir()) <= 400_000


@pytest.mark.slow
@pytest.mark.browser
def test_pictures_of_pages(chromium_path: str, tmp_path: Path, larger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "EXAMPLES", {name: draw.EXAMPLES[name] for name in ("faces.webp", "traversal.png")})

    def run(command: list[object], *, check: bool) -> None:
        """Here and not in a process of its own, which would import everything again."""
        python, script, *arguments = map(str, command)
        assert (python, check) == (sys.executable, True)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        monkeypatch.syspath_prepend(Path(script).parent)
        runpy.run_path(script, run_name="__main__")

    monkeypatch.setattr(draw.subprocess, "run", run)
    made = draw_pictures(["examples", "studio"], tmp_path, larger, monkeypatch)
    assert made == set(draw.EXAMPLES) | set(draw.STUDIO)
    for name in made:
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 500
