"""The page of a studio in a browser: what several tests do with it."""

from __future__ import annotations

from functools import partial

import browser
from playwright.sync_api import expect

visiting = partial(browser.visiting, ready="#query .verdict.good", folder="studio")


def draw(page, n=4):
    """Press Enter in the query box, and wait for the pictures."""
    page.locator("#n").fill(str(n))
    page.locator("#query textarea").press("Enter")
    page.locator("#downloads").wait_for()
    expect(page.locator("#wall .tile")).to_have_count(n)


def sources(page, selector="#wall img"):
    return page.locator(selector).evaluate_all("all => all.map(image => image.src)")
