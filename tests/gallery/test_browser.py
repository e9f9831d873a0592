"""A gallery in a real browser: keys, filters, copying, colours, and nothing asked of the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CONTRAST, visiting
from playwright.sync_api import expect

from energyql import Gallery

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def path(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved page with two queries, a table and a traversal."""
    gallery = Gallery({"First": "smile AND NOT beard", "Second": "hair = black"}, n=4, model=tiny, progress=False)
    gallery.results[1].energy[:] = -1  # so that the order by energy is known
    gallery.add_truth_table("smile", "beard", n=2)
    gallery.add_traversal("smile", "beard", 3, n=1)
    return gallery.save(tmp_path_factory.mktemp("gallery"))


@pytest.fixture
def page(chromium: Any, path: Path) -> Iterator[Any]:
    """The page, open; afterwards there must have been no error and no request."""
    with visiting(chromium, path.as_uri(), folder="gallery") as visitor:
        yield visitor.open()


def focused(page: Any) -> str:
    """The row of numbers that belongs to the picture in focus, or the class or id of whatever else is."""
    return page.evaluate(
        "document.activeElement.dataset.row || document.activeElement.id || document.activeElement.className"
    )


def test_a_page_says_that_pictures_can_be_enlarged(page: Any) -> None:
    expect(page.locator("header.top p")).to_contain_text("says the image judge. Click or tap a picture to enlarge it.")
    expect(page.locator("#hint")).to_be_visible()
    expect(page.locator(".tile").first).to_have_css("cursor", "zoom-in")


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
    expect(page.locator("#view")).to_be_hidden()
    expect(page.locator("[data-row=s1-3]")).to_be_focused()  # a moment later: the close event comes by the queue
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
    expect(page.locator("[data-row=s1-1]")).to_be_focused()


def test_search_and_verdicts(page: Any) -> None:
    page.fill("#search", "hair")
    assert page.locator(".card:visible").count() == 1
    assert page.locator("#count").inner_text() == "1 of 4 shown, 4 pictures"
    page.fill("#search", "")
    page.select_option("#show", "no")
    assert page.locator(".wall:not(.path) > li.yes:visible").count() == 0
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


@pytest.mark.parametrize(
    "width", [320, pytest.param(390, marks=pytest.mark.slow), pytest.param(768, marks=pytest.mark.slow), 1440]
)
def test_nothing_is_wider_than_the_screen(chromium: Any, path: Path, width: int) -> None:
    with visiting(chromium, path.as_uri(), width, 800, folder="gallery") as visitor:
        page = visitor.open()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        visitor.shoot(f"{width}", full_page=True)


def test_without_scripts_everything_is_shown(chromium: Any, path: Path) -> None:
    with visiting(chromium, path.as_uri(), java_script_enabled=False, folder="gallery") as visitor:
        page = visitor.open()
        assert page.locator(".card:visible").count() == 4
        assert not page.locator(".tools").is_visible()
        assert not page.locator(".copy").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_on_the_screen_and_on_paper(chromium: Any, path: Path, scheme: Any) -> None:
    with visiting(chromium, path.as_uri(), 1440, 900, color_scheme=scheme, folder="gallery") as visitor:
        page = visitor.open()
        # Every entry of the contents as if it were here, and satisfied.
        page.evaluate(
            """() => {
                for (const entry of document.querySelectorAll('nav li')) entry.classList.add('here');
                for (const share of document.querySelectorAll('nav .share')) share.className = 'share yes';
            }"""
        )
        assert page.evaluate(CONTRAST) == []
        page.select_option("#theme", "dark")
        page.emulate_media(media="print")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(246, 245, 241)", "a page that was dark is printed on white paper"
        assert page.evaluate(CONTRAST) == []
        kept = page.locator(".letter, .badge").evaluate_all("all => all.map(e => getComputedStyle(e).printColorAdjust)")
        assert set(kept) == {"exact"}


@pytest.mark.parametrize("width", [1000, 1440])
def test_a_truth_table_has_whole_words_and_captions_of_one_line(chromium: Any, path: Path, width: int) -> None:
    with visiting(chromium, path.as_uri(), width, 900, folder="gallery") as visitor:
        page = visitor.open()
        lines = "all => all.map(e => new Set([...e.getClientRects()].map(box => box.top)).size)"
        assert set(page.locator(".truth thead code").evaluate_all(lines)) == {1}
        tops = page.locator(".truth .below:not(:has(.doubt))").evaluate_all(
            """all => all.map(e => [...e.children].map(part => {
                const box = part.getBoundingClientRect();
                return (box.top + box.bottom) / 2;
            }))"""
        )
        assert max(max(each) - min(each) for each in tops) < 5


def test_no_badge_lies_on_a_picture(page: Any) -> None:
    over = page.locator(".truth .badge, .query .badge").evaluate_all(
        """all => all.filter(badge => {
            const picture = badge.closest('.tile').querySelector('img').getBoundingClientRect();
            return badge.getBoundingClientRect().top < picture.bottom;
        }).length"""
    )
    assert over == 0
    assert page.locator(".truth .badge").count() > 0
