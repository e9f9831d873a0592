"""The search of the documentation, as a reader uses it."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect


def search(page: Page, words: str) -> list[str]:
    """Type words into the search box of a page, and return the titles of what is found."""
    box = page.get_by_role("textbox", name="Search")
    box.fill(words)
    box.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    expect(page.locator(".search-summary")).to_have_text(re.compile("Search finished|did not match any"))
    return page.locator("#search-results li a").all_inner_texts()
