"""The page of a studio in a browser: what several tests do with it."""

from __future__ import annotations

from functools import partial

import browser
from playwright.sync_api import expect

visiting = partial(browser.visiting, ready="#query .verdict.good", folder="studio")


def draw(page, n=4, query=None):
    """Press Enter in the query box, and wait for the pictures."""
    page.locator("#asked code").wait_for()  # the example that is drawn at the start
    page.locator("#progress").wait_for(state="hidden")
    page.locator("#n").fill(str(n))
    if query is not None:
        page.locator("#query textarea").fill(query)
    with page.expect_response(lambda answer: answer.url.endswith("/api/jobs")):
        page.locator("#query textarea").press("Enter")
    drawn(page, n)


def drawn(page, n=4):
    """Wait until the wall is done."""
    expect(page.locator("#wall .tile")).to_have_count(n)
    page.locator("#downloads").wait_for()


def doubt_all(page):
    """Mark all pictures that arrive as doubtful."""

    def doubtful(route):
        job = route.fetch().json()
        route.fulfill(json=job | {"pictures": [picture | {"doubtful": True} for picture in job["pictures"]]})

    page.route("**/api/jobs/*", doubtful)


def apply(page, step):
    """Type a step in the open picture, and wait for it."""
    page.locator("#view textarea").fill(step)
    page.locator("#view textarea").press("Enter")
    expect(page.locator("#view textarea")).to_have_value("")


def panel(page, name):
    """Open a panel."""
    page.locator(f"[data-panel={name}]").click()


def sources(page, selector="#wall img"):
    return page.locator(selector).evaluate_all("all => all.map(image => image.src)")
