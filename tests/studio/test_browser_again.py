"""Pictures that begin with pictures: variations of variations and of photographs, and edits of many at once."""

import io

import pytest
from PIL import Image
from playwright.sync_api import expect

from studio.page import apply, draw, drawn, panel, sources, visiting

pytestmark = pytest.mark.browser


def select(page, count):
    page.locator("#wall .tile").first.focus()
    for _ in range(count):
        page.keyboard.press("x")
        page.keyboard.press("ArrowRight")


def more_like(page, place, told):
    page.locator("#wall .tile").nth(place).click()
    page.get_by_role("button", name="More like this").click()
    expect(page.locator("#asked strong")).to_have_text(told)
    drawn(page, 8)


@pytest.mark.slow
def test_variations_of_variations(guest, chromium):
    page = guest.open()
    draw(page, 3, "smile")
    more_like(page, 1, "Like #1")
    first = sources(page)
    more_like(page, 7, "Like #7 of those like #1")
    second = sources(page)
    assert second != first
    address = page.url.removeprefix(guest.url)
    page.locator("#wall .tile").nth(2).click()
    apply(page, "beard")
    page.keyboard.press("Escape")
    expect(page.locator("#view")).to_be_hidden()
    page.go_back()
    expect(page.get_by_role("heading", name="Picture #7")).to_be_visible()
    page.go_back()
    expect(page.locator("#view")).to_be_hidden()
    expect(page.locator("#asked strong")).to_have_text("Like #1")
    assert sources(page) == first
    page.reload()
    drawn(page, 8)
    assert sources(page) == first
    # Somebody else has nothing of it but the link: the first round is drawn again, too.
    with visiting(chromium, guest.url) as friend:
        other = friend.open(address)
        expect(other.locator("#asked strong")).to_have_text("Like #7 of those like #1")
        drawn(other, 8)
        assert sources(other) == second


@pytest.mark.slow
def test_variations_of_a_photograph(guest):
    page = guest.open()
    draw(page, 1, "smile")
    page.locator("#wall .tile").click()
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download PNG").click()
    data = io.BytesIO()
    with Image.open(waiting.value.path()) as opened:
        opened.convert("RGB").save(data, "PNG")
    page.keyboard.press("Escape")
    panel(page, "photo")
    page.locator("#photo").set_input_files({"name": "me.png", "mimeType": "image/png", "buffer": data.getvalue()})
    expect(page.locator("#asked")).to_contain_text("Your photograph")
    drawn(page, 1)
    more_like(page, 0, "Like #0")
    assert len(set(sources(page))) > 1


@pytest.mark.slow
def test_many_are_edited_in_one_request(guest):
    page = guest.open()
    draw(page, 4, "smile")
    select(page, 3)
    page.get_by_role("button", name="Edit together").click()
    expect(page.get_by_role("button", name="Apply to all")).to_be_disabled()  # nothing is typed yet
    guest.asked.clear()
    for step in ("beard", "hair = brown"):
        page.locator("#many textarea").fill(step)
        page.locator("#many textarea").press("Enter")
        expect(page.locator("#many .facts")).to_have_text("3 pictures edited")
        expect(page.locator("#many textarea")).to_have_value("")
    assert len([url for url in guest.asked if url.endswith("/api/edits")]) == 2
    films = []
    for place in range(3):
        page.locator("#wall .tile").nth(place).click()
        expect(page.locator("#view .film li")).to_have_text(["As it was", "beard", "hair = brown"])
        films.append(sources(page, "#view .film img"))
        link = page.get_by_role("link", name="Download PNG").get_attribute("href")
        assert link.endswith(f"/pictures/{6 + place}.png"), link  # the last step of three
        page.keyboard.press("Escape")
    assert len({image for film in films for image in film}) == 9
    page.get_by_role("button", name="Clear").first.click()
    page.locator("#many textarea").fill("beard")
    expect(page.locator("#many .verdict.good")).to_be_visible()
    expect(page.get_by_role("button", name="Apply to all")).to_be_disabled()  # nothing is selected


@pytest.mark.parametrize("touch", [pytest.param(False, marks=pytest.mark.slow), True])
def test_panels_open_on_a_phone(chromium, small, touch):
    with visiting(chromium, small, 390, 844, has_touch=touch, is_mobile=touch) as guest:
        page = guest.open()
        drawn(page, 16)
        for toggle in page.locator("[data-panel]").all():
            (toggle.tap if touch else toggle.click)()
            expect(page.locator(f"#panel-{toggle.get_attribute('data-panel')}")).to_be_visible()
