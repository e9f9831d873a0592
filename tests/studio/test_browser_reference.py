"""The page of the HTTP API that a running studio has."""

import pytest
from browser import CONTRAST
from playwright.sync_api import expect

from studio.page import visiting

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "scheme"), [pytest.param(1280, "light", marks=pytest.mark.slow), (320, "dark")])
def test_the_page_of_the_api(chromium, small, width, scheme):
    with visiting(chromium, small, width, color_scheme=scheme) as guest:
        page = guest.open()
        page.get_by_role("link", name="HTTP API").click()
        expect(page.get_by_role("heading", name="How it works")).to_be_visible()
        described = page.request.get(f"{guest.url}api/openapi.json").json()
        routes = page.locator("#routes .route")
        expect(routes).to_have_count(sum(map(len, described["paths"].values())))
        for path in described["paths"]:
            expect(routes.locator("code.path", has_text=path).first).to_have_text(path)
        edits = routes.filter(has=page.get_by_text("/api/edits", exact=True))
        edits.locator("summary").click()
        for name in described["components"]["schemas"]["EditRequest"]["properties"]:
            expect(edits.get_by_role("rowheader", name=name, exact=True)).to_be_visible()
        expect(edits).to_contain_text("required, at least 1")
        edits.get_by_role("link", name="JobInfo").click()
        job = page.locator("#type-JobInfo")
        expect(job.get_by_role("rowheader", name="pictures")).to_be_visible()
        expect(job.get_by_role("link", name="Picture")).to_be_visible()
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        guest.shoot(f"reference-{width}")
        page.get_by_role("link", name="The studio").click()
        expect(page.locator("#query .verdict.good")).to_be_visible()
