"""A real Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

ARTIFACTS = Path(os.environ.get("ENERGYQL_ARTIFACTS", Path(__file__).parents[2] / "artifacts")) / "studio"
"""Screenshots; git ignores the folder."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium():
    """The path of a browser. Without one the tests fail where they must run, and say that they are skipped elsewhere."""
    for name in (os.environ.get("ENERGYQL_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"):
        if name and (found := shutil.which(name)):
            return found
    why = "no Chromium: apt-get install chromium, or name one in ENERGYQL_CHROMIUM"
    if os.environ.get("ENERGYQL_NEED_BROWSER"):
        pytest.fail(why)
    pytest.skip(why)


class Visitor:
    """A page of the studio in a browser profile of its own. Whatever goes wrong in it is kept."""

    def __init__(self, context, url):
        self.context, self.url = context, url
        self.page = context.new_page()
        self.faults, self.asked = [], []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, fragment=""):
        self.page.goto(self.url + fragment)
        self.page.locator("#query .verdict.good").wait_for()
        return self.page

    def shoot(self, name, **options):
        """Keep a screenshot."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png", **options)

    def check(self):
        """Nothing went wrong, and nobody else was asked for anything."""
        assert self.faults == []
        assert [url for url in self.asked if not url.startswith((self.url, "data:"))] == []


@contextmanager
def visiting(chromium, url, width=1280, height=900, **options):
    """A new visitor, who takes nothing along from the last one."""
    context = chromium.new_context(
        viewport={"width": width, "height": height}, reduced_motion="reduce", **options
    )
    context.set_default_timeout(15_000)
    visitor = Visitor(context, url)
    try:
        yield visitor
        visitor.check()
    finally:
        context.close()
