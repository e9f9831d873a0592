"""The documentation of several versions, side by side on a disk, made of a repository with two tags."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from browser import visiting
from markdown import ROOT
from needed import needed
from sites import search

from docs import build

for library in ("sphinx", "furo", "myst_parser"):
    needed(library)
SETTINGS = """
project, extensions, html_theme, templates_path = "energyql", ["myst_parser"], "furo", ["_templates"]
html_show_search_summary = False
"""
WHO = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")


def commit(repository: Path, version: str, pages: dict[str, str]) -> None:
    """Commit the pages of a version under its name in setup.cfg."""
    (repository / "setup.cfg").write_text(f"[metadata]\nversion = {version}\n", encoding="utf-8")
    for name, text in pages.items():
        (repository / "docs" / f"{name}.md").write_text(text, encoding="utf-8")
    build.git(repository, "add", ".")
    build.git(repository, *WHO, "commit", "--quiet", "--message", version)


def first_page(version: str, others: str) -> str:
    return f"# Version {version}\n\n```{{toctree}}\n{others}\n```\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.2.0 and 0.10.0 are released, 0.11.0 is not; each version has one page more."""
    folder = tmp_path_factory.mktemp("repository")
    build.git(folder, "init", "--quiet")
    shutil.copytree(ROOT / "docs" / "_templates", folder / "docs" / "_templates")
    (folder / "docs" / "conf.py").write_text(SETTINGS, encoding="utf-8")
    commit(folder, "0.2.0", {"index": first_page("0.2.0", "flow"), "flow": "# Flow\n\nA quagga.\n"})
    build.git(folder, "tag", "v0.2.0")
    build.git(folder, "tag", "vanity")
    commit(folder, "0.10.0", {"index": first_page("0.10.0", "flow\nslice"), "slice": "# Slice\n\nAn okapi.\n"})
    build.git(folder, "tag", "v0.10.0")
    commit(folder, "0.11.0", {"index": first_page("0.11.0", "flow\nslice\njump"), "jump": "# Jump\n\nA numbat.\n"})
    return folder


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build.build_site(repository, folder)
    return folder


def test_each_version_has_a_folder_with_its_own_pages(site: Path) -> None:
    assert {path.name for path in site.iterdir()} == {"0.2.0", "0.10.0", "0.11.0", "index.html", "versions.js"}
    for version, count in (("0.2.0", 1), ("0.10.0", 2), ("0.11.0", 3)):
        there = [(site / version / f"{name}.html").exists() for name in ("flow", "slice", "jump")]
        assert there == [number < count for number in range(3)]
        assert f"<title>energyql {version}</title>" in (site / version / "index.html").read_text(encoding="utf-8")


def test_a_release_is_built_once_and_the_checkout_each_time(repository: Path, site: Path) -> None:
    before = {path.name: path.stat().st_ino for path in site.iterdir() if path.is_dir()}
    build.build_site(repository, site)
    after = {path.name: path.stat().st_ino for path in site.iterdir() if path.is_dir()}
    assert {name for name in before if before[name] != after[name]} == {"0.11.0"}


def test_a_page_with_a_warning_leaves_the_earlier_site(repository: Path, site: Path) -> None:
    page = repository / "docs" / "jump.md"
    text, before = page.read_text(encoding="utf-8"), (site / "0.11.0" / "jump.html").read_bytes()
    page.write_text(f"{text}\n[lost](lost.md)\n", encoding="utf-8")
    try:
        with pytest.raises(subprocess.CalledProcessError):
            build.build_site(repository, site)
    finally:
        page.write_text(text, encoding="utf-8")
    assert (site / "0.11.0" / "jump.html").read_bytes() == before
    assert not list(site.glob(".building-*"))


@pytest.mark.browser
def test_versions_are_chosen_on_pages_from_disk(chromium: Any, site: Path) -> None:
    with visiting(chromium, site.as_uri(), ready="article", folder="docs") as visitor:
        page = visitor.open("/index.html")
        page.wait_for_url("**/0.10.0/index.html")
        links = page.get_by_role("navigation", name="Versions").get_by_role("link")
        assert links.all_inner_texts() == ["0.11.0 (unreleased)", "0.10.0", "0.2.0"]
        assert page.locator("#versions [aria-current]").inner_text() == "0.10.0"
        page.get_by_role("link", name="Slice").first.click()
        page.wait_for_url("**/0.10.0/slice.html")
        assert page.locator(".old-version").count() == 0
        links.get_by_text("0.11.0").click()
        page.wait_for_url("**/0.11.0/slice.html")  # the same page
        assert page.locator(".old-version").count() == 0
        links.get_by_text("0.2.0").click()
        page.wait_for_url("**/0.2.0/index.html")  # which has no such page
        page.locator(".old-version").get_by_role("link", name="0.10.0").click()
        page.wait_for_url("**/0.10.0/index.html")


@pytest.mark.browser
def test_each_version_searches_itself(chromium: Any, site: Path) -> None:
    with visiting(chromium, site.as_uri(), ready="article", folder="docs") as visitor:
        for version, word, titles in (
            ("0.2.0", "quagga", ["Flow"]),
            ("0.2.0", "numbat", []),
            ("0.11.0", "numbat", ["Jump"]),
        ):
            page = visitor.open(f"/{version}/flow.html")
            assert search(page, word) == titles
