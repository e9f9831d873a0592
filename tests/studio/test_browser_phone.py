"""On a phone pictures come before settings: what is asked for from a panel is on the screen at once."""

import pytest
from playwright.sync_api import expect

from studio.page import apply, draw, drawn, panel, visiting

pytestmark = pytest.mark.browser

CUT = """row => {
    const end = row.getBoundingClientRect().right;
    const boxes = [...row.querySelectorAll("li")].map(item => item.getBoundingClientRect());
    return boxes.filter(box => box.left < end - 15 && box.right > end + 15).length;
}"""
"""Number of pictures of a row that its end cuts."""


@pytest.fixture
def phone(chromium, small):
    with visiting(chromium, small, 390, 844, has_touch=True) as visitor:
        yield visitor.open()


def on_screen(page, selector):
    """Whether all of it is in the window, with nothing before it but the bar."""
    box = page.locator(selector).first.bounding_box()
    return box is not None and 0 < box["y"] and box["y"] + box["height"] < 844


@pytest.mark.slow
def test_a_query_that_is_built_by_pointing(phone):
    drawn(phone, 16)
    panel(phone, "build")
    phone.get_by_role("button", name="hair: black", exact=True).tap()
    phone.get_by_role("slider", name="age: at least").focus()  # far down in the panel
    expect(phone.locator("#draw")).to_be_enabled()
    phone.locator("#draw").tap()
    expect(phone.locator("#panel")).to_be_hidden()
    expect(phone.locator("#asked")).to_contain_text("hair = black")
    drawn(phone, 16)
    assert on_screen(phone, "#wall .tile")


def test_rows_that_are_compared_and_earlier_drawings(phone):
    draw(phone, 2, "smile")
    draw(phone, 4, "beard")
    panel(phone, "compare")
    phone.get_by_role("button", name="By semantics").tap()
    expect(phone.locator("#panel")).to_be_hidden()
    expect(phone.locator(".board-row img")).to_have_count(12)
    assert on_screen(phone, ".board-row img")
    assert phone.locator(".strip-row").first.evaluate(CUT) == 1  # so one sees that there are more
    panel(phone, "history")
    phone.locator("#history button").nth(1).tap()
    expect(phone.locator("#wall .tile")).to_have_count(2)
    assert on_screen(phone, "#wall .tile")


def test_a_narrow_phone_has_one_line_for_each_bar(chromium, small):
    with visiting(chromium, small, 320, 640, has_touch=True) as visitor:
        page = visitor.open()
        draw(page, 2, "smile")
        for bar in ("header.bar-top", "#ask .run"):
            inside = (
                page.locator(bar)
                .locator("button, h1, select, input")
                .evaluate_all(
                    "all => all.filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect())"
                    ".map(box => Math.round((box.top + box.bottom) / 2))"
                )
            )
            assert max(inside) - min(inside) < 5, bar
        assert page.locator("#wall .tile").first.bounding_box()["y"] < 400
        assert page.evaluate("document.documentElement.scrollWidth") <= 320


@pytest.mark.slow
def test_the_wall_names_an_edit_that_failed(chromium, small):
    with visiting(chromium, small) as visitor:
        page = visitor.open()
        draw(page, 2, "smile OR NOT smile")

        def fail(route):
            job = route.fetch().json()
            for picture in job["pictures"]:
                picture["satisfied"] = picture["query"] != "beard" and picture["satisfied"]
            route.fulfill(json=job)

        page.route("**/api/jobs/*", fail)
        page.locator("#wall .tile").first.click()
        apply(page, "beard")
        page.keyboard.press("Escape")
        tile = page.locator("#wall li").first
        expect(tile.locator("strong")).to_have_text("edit failed")
        expect(tile.locator(".badge")).to_have_class("badge no")
        expect(page.locator("#wall li").nth(1).locator("strong")).to_have_count(0)


def test_the_foot_stands_below_the_pictures(chromium, small):
    with visiting(chromium, small, 1600, 900) as visitor:
        page = visitor.open()
        drawn(page, 16)
        left = [page.locator(each).first.bounding_box()["x"] for each in ("#wall", ".foot p", "#query .box")]
        assert max(left) - min(left) < 2
