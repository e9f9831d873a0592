"""A real Chromium, driven by Playwright: for tests of pages, and for pictures of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
ARTIFACTS = os.environ.get("ENERGYQL_ARTIFACTS")
"""A folder for screenshots, which are taken only if it is named: they take a tenth of the time of these tests."""
CONTRAST = (ROOT / "tests" / "studio" / "contrast.js").read_text(encoding="utf-8")
"""A function of the page: every text whose contrast is too weak."""
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The shell without windows first: it takes about half of the CPU time of the others."""
MISSING = "Chromium is missing: apt-get install chromium-headless-shell, or name one in ENERGYQL_CHROMIUM"
PATIENCE = 60_000
"""Milliseconds that a test waits for what must come; long, for machines that are busy."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

expect.set_options(timeout=PATIENCE)


def find_chromium() -> str | None:
    """The path of a browser, if there is one."""
    return next(filter(None, map(shutil.which, (os.environ.get("ENERGYQL_CHROMIUM", ""), *NAMES))), None)


@contextmanager
def started(path: str) -> Iterator[Browser]:
    """A browser without a window, until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Visitor:
    """A page in a browser profile of its own. Whatever goes wrong in it is kept.

    Args:
        context: the profile.
        url: of the page.
        ready: what there is on the page once it can be used.
        folder: of its screenshots.
    """

    def __init__(self, context: BrowserContext, url: str, ready: str, folder: str) -> None:
        self.url, self.ready, self.folder = url, ready, folder
        self.page = context.new_page()
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, fragment: str = "") -> Page:
        """The page, once it can be used."""
        self.page.goto(self.url + fragment)
        self.page.locator(self.ready).wait_for()
        return self.page

    def shoot(self, name: str, *, full_page: bool = False) -> None:
        """Keep a screenshot, if there is a folder for them."""
        if ARTIFACTS:
            self.page.screenshot(path=Path(ARTIFACTS, self.folder, f"{name}.png"), full_page=full_page)

    def check(self) -> None:
        """Nothing went wrong, and nobody else was asked for anything."""
        assert self.faults == []
        assert [url for url in self.asked if not url.startswith((self.url, "data:"))] == []


@contextmanager
def visiting(
    chromium: Browser, url: str, width: int = 1280, height: int = 900, *, ready: str = "main", folder: str, **options
) -> Iterator[Visitor]:
    """A new visitor, who takes nothing along from the last one. Options are those of Playwright's `new_context`."""
    context = chromium.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce", **options)
    context.set_default_timeout(PATIENCE)
    visitor = Visitor(context, url, ready, folder)
    try:
        yield visitor
        visitor.check()
    finally:
        context.close()
