"""Pictures come first, nothing jumps, and everything can be reached and read, however narrow the window."""

import pytest
from browser import CONTRAST
from playwright.sync_api import expect

from studio.page import apply, draw, drawn, panel, visiting

pytestmark = pytest.mark.browser

HIDDEN = """() => {
    const node = document.activeElement, box = node.getClientRects()[0];  // of a link in two lines, the first
    const x = box.left + box.width / 2, y = box.top + Math.min(box.height / 2, 12);
    const top = document.elementFromPoint(x, y);
    const part = (each) => each.closest('.box, label, .frame') ?? each;
    const seen = top && (node.contains(top) || top.contains(node) || part(top) === part(node));
    return seen || node === document.body ? null : `${node.outerHTML.slice(0, 50)} under ${top?.className}`;
}"""


def outside(page):
    """Texts that stand in no landmark and in no dialog."""
    return page.evaluate(
        """() => [...document.body.children].filter(node => node.checkVisibility() && node.textContent.trim()
            && !node.matches('header, nav, main, footer, aside, dialog, [role=search], .skip, .hidden')
            && !node.querySelector(':scope > main, :scope > aside')).map(node => node.outerHTML.slice(0, 80))"""
    )


def reach(page, presses):
    """Press Tab through the page; returns what was in focus and hidden by something else."""
    found = set()
    for _ in range(presses):
        page.keyboard.press("Tab")
        found.add(page.evaluate(HIDDEN))
    return found - {None}


def test_pictures_fill_the_window_and_nothing_jumps(chromium, small):
    with visiting(chromium, small, 1440, 900) as guest:
        page = guest.open()
        drawn(page, 16)  # real pictures on the first screen, without a click
        wall = page.locator("#wall").bounding_box()
        assert wall["width"] > 0.95 * 1440
        assert wall["y"] < 300
        assert page.locator("#wall .tile").nth(10).bounding_box()["y"] < 900

        def places():
            return [page.locator(each).bounding_box() for each in ("#draw", "#wall", "#query .box")]

        before = places()
        for text in ("smile AND", "smile", "smile AND glases", "beard"):
            page.locator("#query textarea").fill(text)
            page.locator("#query .verdict.good, #query .verdict.bad").wait_for()
            assert places() == before, text
        page.locator("#draw").click()
        assert [box["y"] for box in places()] == [box["y"] for box in before]
        drawn(page, 16)
        assert [box["y"] for box in places()] == [box["y"] for box in before]
        width = page.locator("#wall .tile").first.bounding_box()["width"]
        page.locator("#size").fill("400")
        assert page.locator("#wall .tile").first.bounding_box()["width"] > 1.5 * width
        # The bar stays when the page scrolls.
        page.mouse.wheel(0, 2000)
        for _ in range(200):  # waiting in the page would need eval, which its policy forbids
            if page.evaluate("scrollY") > 300:
                break
            page.wait_for_timeout(50)
        assert page.evaluate("scrollY") > 300
        assert page.locator("#draw").bounding_box()["y"] < 100
        page.reload()
        drawn(page, 16)
        expect(page.locator("#size")).to_have_value("400")
        # The picture that is open keeps its place while it is edited.
        page.evaluate("scrollTo(0, 0)")
        page.locator("#wall .tile").first.click()
        view = page.locator("#view").bounding_box()
        button = page.locator("#view").get_by_role("button", name="Close").bounding_box()
        apply(page, "beard")
        assert page.locator("#view").bounding_box() == view
        assert page.locator("#view").get_by_role("button", name="Close").bounding_box() == button
        badge, image = page.locator("#wall .badge").first, page.locator("#wall img").first
        assert badge.evaluate("b => b.getBoundingClientRect().top") > image.evaluate(
            "i => i.getBoundingClientRect().bottom"
        )


@pytest.mark.parametrize(
    ("width", "height"),
    [
        pytest.param(390, 844, id="phone", marks=pytest.mark.slow),
        pytest.param(320, 640, id="narrow"),
        pytest.param(195, 422, id="twice", marks=pytest.mark.slow),
    ],
)
def test_narrow_windows(chromium, small, width, height):
    """Also a phone whose page is enlarged to 200 %, which makes its window half as wide."""
    with visiting(chromium, small, width, height) as guest:
        page = guest.open()
        draw(page, 2)
        if width > 300:
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("header").evaluate("header => header.scrollWidth") <= width
            assert page.locator("#wall").bounding_box()["y"] < 0.75 * height or height < 700
        page.evaluate("scrollTo(0, 0)")
        page.locator("#skip").focus()
        assert reach(page, 24) == set()
        page.locator("#wall .tile").first.focus()
        page.keyboard.press("Enter")
        apply(page, "beard")
        assert reach(page, 30) == set()
        guest.shoot(f"narrow-{width}", full_page=False)


def test_roles_and_landmarks(guest):
    page = guest.open()
    draw(page, 2)
    assert outside(page) == []
    for role in ("banner", "search", "navigation", "main", "contentinfo"):
        expect(page.get_by_role(role)).to_have_count(1)
    box = page.get_by_role("combobox", name="Query")
    expect(box).to_have_attribute("aria-expanded", "false")
    box.fill("smile AND gla")
    expect(box).to_have_attribute("aria-expanded", "true")
    assert page.locator(f"#{box.get_attribute('aria-controls')}").get_attribute("role") == "listbox"
    box.press("ArrowDown")
    active = box.get_attribute("aria-activedescendant")
    expect(page.locator(f"#{active}")).to_have_attribute("aria-selected", "true")
    box.press("Escape")
    expect(box).to_have_attribute("aria-expanded", "false")
    expect(box).not_to_have_attribute("aria-activedescendant", active)


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
def test_every_panel_can_be_read(chromium, small, scheme):
    with visiting(chromium, small, color_scheme=scheme) as guest:
        page = guest.open()
        draw(page, 2, "smile")
        for toggle in page.locator("[data-panel]").all():
            toggle.click()
            expect(page.locator("#panel > section:visible")).to_have_count(1)
            assert page.evaluate(CONTRAST) == [], toggle.get_attribute("data-panel")
            guest.shoot(f"panel-{toggle.get_attribute('data-panel')}-{scheme}")
        page.keyboard.press("?")
        expect(page.locator("#help")).to_be_visible()
        assert page.evaluate(CONTRAST) == []
        page.keyboard.press("Escape")
        panel(page, "build")
