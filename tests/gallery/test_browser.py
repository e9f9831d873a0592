"""A gallery in a real browser: keys, filters, copying, colours, and nothing asked of the network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from energyql import Gallery

pytestmark = pytest.mark.browser
PLACES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A started Chromium."""
    path = next(filter(None, map(shutil.which, PLACES)), None)
    if path is None:
        if os.environ.get("ENERGYQL_NEED_BROWSER"):
            pytest.fail("Chromium is missing: apt-get install chromium")
        pytest.skip("Chromium is missing: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def path(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved page with two queries, a table and a traversal."""
    gallery = Gallery({"First": "smile AND NOT beard", "Second": "hair = black"}, n=4, model=tiny, progress=False)
    gallery.results[1].energy[:] = -1  # so that the order by energy is known
    gallery.add_truth_table("smile", "beard", n=2)
    gallery.add_traversal("smile", "beard", 3, n=1)
    return gallery.save(tmp_path_factory.mktemp("gallery"))


@pytest.fixture
def page(browser: Any, path: Path) -> Iterator[Any]:
    """The page, open; afterwards there must have been no error and no request."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    opened = context.new_page()
    trouble: list[str] = []
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else trouble.append(r.url))
    opened.goto(path.as_uri())
    yield opened
    context.close()
    assert trouble == []


def focused(page: Any) -> str:
    """The row of numbers that belongs to the picture in focus, or the class or id of whatever else is."""
    return page.evaluate(
        "document.activeElement.dataset.row || document.activeElement.id || document.activeElement.className"
    )


def test_keys_move_enlarge_and_come_back(page: Any) -> None:
    stops = []
    while "s1-0" not in stops:
        page.keyboard.press("Tab")
        stops.append(focused(page))
        assert len(stops) < 20
    assert {"search", "show", "order", "theme", "copy"} <= set(stops)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    assert focused(page) == "s1-3"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.locator("#view").is_visible()
    assert page.locator("#view-words").inner_text().startswith("Picture 3 of 4. ")
    page.keyboard.press("ArrowRight")
    assert page.locator("#view-words").inner_text().startswith("Picture 4 of 4. ")
    page.keyboard.press("Escape")
    assert not page.locator("#view").is_visible()
    assert focused(page) == "s1-3"
    page.keyboard.press("ArrowDown")
    assert focused(page).startswith("s2-")


def test_the_enlarged_view_has_numbers_and_buttons(page: Any) -> None:
    page.locator("#s1 .tile").first.click()
    terms = page.locator("#view-numbers dt").all_inner_texts()
    assert {"seed", "energy", "P(smile)", "P(NOT beard)"} <= set(terms)
    assert page.locator("#view-previous").is_disabled()
    page.locator("#view-next").click()
    assert page.locator("#view-words").inner_text().startswith("Picture 2 of 4. ")
    page.locator("#view-close").click()
    assert focused(page) == "s1-1"


def test_search_and_verdicts(page: Any) -> None:
    page.fill("#search", "hair")
    assert page.locator(".card:visible").count() == 1
    assert page.locator("#count").inner_text() == "1 of 4 shown, 4 pictures"
    page.fill("#search", "")
    page.select_option("#show", "no")
    assert page.locator(".wall:not(.way) > li.yes:visible").count() == 0
    wanted = page.locator(".wall > li.no").count()
    assert page.locator(".wall > li.no:visible").count() == wanted
    page.fill("#search", "nothing like this")
    assert page.locator("#nothing").is_visible()


def test_order_by_energy(page: Any) -> None:
    page.select_option("#order", "up")
    order = page.evaluate("[...document.querySelectorAll('.card')].map(card => card.id)")
    assert order[:2] == ["s2", "s1"]
    energies = page.evaluate("[...document.querySelectorAll('#s1 .wall > li')].map(li => +li.dataset.energy)")
    assert energies == sorted(energies)
    page.select_option("#order", "")
    assert page.evaluate("[...document.querySelectorAll('.card')].map(card => card.id)") == ["s1", "s2", "s3", "s4"]


def test_copying(page: Any) -> None:
    page.evaluate("document.addEventListener('copy', () => { window.copied = document.activeElement.value; })")
    # As on a page from disk that may not use the clipboard; the old way has to do.
    page.evaluate("() => { if (navigator.clipboard) navigator.clipboard.writeText = () => Promise.reject(); }")
    page.locator("#s1 .copy").click()
    page.wait_for_function("document.querySelector('#said').textContent !== ''")
    assert page.locator("#said").text_content() == "The query is copied"
    assert page.evaluate("window.copied") == "smile AND NOT beard"


def test_colours_are_remembered(page: Any) -> None:
    def paper() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = paper()
    page.select_option("#theme", "dark")
    assert paper() != light
    page.reload()
    assert paper() != light
    page.select_option("#theme", "")
    assert paper() == light


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_nothing_is_wider_than_the_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_everything_is_shown(browser: Any, path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator(".card:visible").count() == 4
    assert not page.locator(".tools").is_visible()
    assert not page.locator(".copy").first.is_visible()
    context.close()
