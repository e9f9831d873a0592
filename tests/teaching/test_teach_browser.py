"""The page of a lesson in a real browser."""

import re

import pytest
from labelling.pages import running

from energyql.teaching.app import create_app
from teaching.conftest import brightness

pytestmark = pytest.mark.browser


def test_a_person_teaches_and_asks(chromium, room):
    from browser import visiting  # Playwright takes seconds to import
    from playwright.sync_api import expect

    wall = room.lesson.wall
    told = brightness(wall, wall.numbers)
    limit = sorted(told.values())[80]
    with (
        running(create_app(room)) as client,
        visiting(chromium, client.url, ready="#new", folder="teach", permissions=["clipboard-read"]) as visitor,
    ):
        page = visitor.open()
        expect(page.locator("#work")).to_be_hidden()
        expect(page.locator("#sections img")).to_have_count(40)
        columns = page.evaluate("getComputedStyle(document.querySelector('#sections .wall')).gridTemplateColumns")
        column = float(columns.split("px")[0])  # pictures of any size fill their cells
        assert column - 8 <= page.locator("#sections img").first.bounding_box()["width"] <= column
        page.locator("#new").fill("a=b")
        page.keyboard.press("Enter")
        expect(page.locator("#add-problem")).to_contain_text("is not an attribute")
        page.wait_for_timeout(200)
        visitor.faults.clear()  # the console reports the refused request
        page.locator("#new").fill("bright")
        page.keyboard.press("Enter")
        expect(page.locator("#screen .cell")).to_have_count(40)
        visitor.shoot("first", full_page=True)
        for number in (number for number in range(40) if told[number] > limit):
            page.locator(f'#screen [data-number="{number}"]').click()
        page.locator("#screen .cell").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Space")
        page.keyboard.press("Space")
        page.keyboard.press("Enter")
        expect(page.locator("#screen")).to_have_attribute("data-version", "2")
        assert {n: cells["bright"] for n, cells in room.lesson.rows.items()} == {
            number: "yes" if told[number] > limit else "no" for number in range(40)
        }
        expect(page.locator("#sections h3")).to_have_count(3)
        page.locator("#query textarea").fill("bright")
        page.locator("#query textarea").press("Enter")
        expect(page.locator("#answer-words")).to_contain_text(re.compile("About [0-9]+ % of these are right"))
        expect(page.locator("#answer figure")).to_have_count(16)
        page.locator("#answer .chip").first.click()  # contradict
        expect(page.locator("#answer .chip.said")).to_have_count(1)
        assert sum(bool(cells["bright"]) for cells in room.lesson.rows.values()) in (40, 41)
        page.locator("#undo").click()
        expect(page.locator("#screen")).to_have_attribute("data-version", "4")
        shown = {
            int(re.search(r"(\d+)\.png", image.get_attribute("src"))[1]) for image in page.locator("#answer img").all()
        }
        assert not shown & room.lesson.labels.keys()
        page.locator("#answer-rest").click()
        expect(page.locator("#screen")).to_have_attribute("data-version", "5")
        expect(page.locator("#answer .chip.said")).to_have_count(0)
        kept = shown & room.lesson.labels.keys()
        assert len(kept) == 15  # all but the one that was contradicted, and then undone
        expect(page.locator("#answer figure")).to_have_count(16)
        now = {
            int(re.search(r"(\d+)\.png", image.get_attribute("src"))[1]) for image in page.locator("#answer img").all()
        }
        assert kept < now
        visitor.shoot("answered", full_page=True)
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        visitor.shoot("phone", full_page=True)
        other = page.context.new_page()
        other.goto(client.url)
        expect(other.locator("#reading-only")).to_be_visible()
        other.locator("#take-over").click()
        expect(other.locator("#reading-only")).to_be_hidden()
        expect(page.locator("#reading-only")).to_be_visible()
        assert [fault for fault in visitor.faults if "favicon" not in fault] == []
        visitor.check()
