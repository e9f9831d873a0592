"""The page says what one sees: the model, doubts about a picture, how it was drawn, and what can be done with it."""

import json
import shutil
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect

from studio.client import serving
from studio.page import draw, drawn, panel, visiting

pytestmark = pytest.mark.browser

PROBABILITY = {1: [0.99, 0.62], 2: [0.84, 0.31]}
"""Of the clauses in the pictures of which the heads are not sure."""


def feign(route):
    """Make the heads sure of all pictures but two."""
    job = route.fetch().json()
    for picture in job["pictures"]:
        odds = PROBABILITY.get(picture["index"], [0.99, 0.95])
        picture["probability"] = min(odds)
        for clause, probability in zip(picture["clauses"], odds, strict=False):
            clause["probability"] = probability
    route.fulfill(json=job)


@pytest.fixture(scope="module")
def two(tiny, tmp_path_factory):
    """The address of a studio with two models."""
    other = shutil.copytree(tiny, tmp_path_factory.mktemp("models") / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"name": "other"}))
    with serving([str(tiny), str(other)]) as client:
        yield client.url


def opened(visitor):
    """A page with four pictures; what it draws is feigned."""
    visitor.page.route("**/api/jobs/*", feign)
    page = visitor.open("#" + urlencode({"q": "NOT smile AND beard", "n": 4}))
    drawn(page)
    return page


@pytest.fixture(scope="module")
def desk(chromium, two):
    with visiting(chromium, two, 1280, 800) as visitor:
        yield opened(visitor)


@pytest.fixture(scope="module")
def phone(chromium, small):
    with visiting(chromium, small, 390, 844, has_touch=True, is_mobile=True) as visitor:
        yield opened(visitor)


def test_one_of_several_models_is_named_and_chosen(desk, phone):
    expect(phone.get_by_label("Model")).to_be_hidden()  # there is no choice
    expect(phone.locator("#asked")).to_contain_text("tiny · seed 0")
    chooser = desk.get_by_label("Model")
    expect(chooser).to_be_visible()
    assert chooser.locator("option").all_text_contents() == ["tiny", "other"]
    chooser.select_option("other")
    expect(desk.locator("#asked")).to_contain_text("tiny · seed 0")  # that of the pictures, until others are drawn
    draw(desk, 4, "smile OR beard")
    expect(desk.locator("#asked")).to_contain_text("other · seed 0")
    panel(desk, "history")
    expect(desk.locator("#history li").nth(0)).to_contain_text("other · 4 of seed 0")
    expect(desk.locator("#history li").nth(1)).to_contain_text("tiny · 4 of seed 0")
    # Either side of an OR may fail, so only the whole query can be doubtful.
    assert desk.locator("#wall .unsure").all_inner_texts() == ["smile OR beard\n62 % sure", "smile OR beard\n31 % sure"]
    desk.locator("#history button").nth(1).click()
    expect(desk.locator("#asked code")).to_have_text("NOT smile AND beard")
    expect(chooser).to_have_value("tiny")
    panel(desk, "history")


def test_bars_only_of_clauses_that_are_doubtful(desk):
    rows = desk.locator("#wall li")
    assert [rows.nth(place).locator(".unsure").all_inner_texts() for place in range(4)] == [
        [],
        ["beard\n62 % sure"],
        ["beard\n31 % sure", "NOT smile\n84 % sure"],
        [],
    ]
    lengths = desk.locator("#wall .unsure .meter").evaluate_all(
        "all => all.map(bar => Math.round(100 * bar.firstChild.offsetWidth / bar.offsetWidth))"
    )
    assert lengths == pytest.approx([62, 31, 84], abs=1)
    tops = [caption.bounding_box()["y"] for caption in desk.locator("#wall .below").all()]
    assert max(tops) - min(tops) < 2


def test_downloads_say_that_they_are(desk, phone):
    for page in (desk, phone):
        for name in ("grid", "everything", "provenance"):
            link = page.get_by_role("link", name=f"Download {name}", exact=True)
            expect(link).to_be_visible()
            assert "svg" in link.evaluate("link => getComputedStyle(link, '::before').maskImage")
    assert phone.locator("#downloads").bounding_box()["height"] < 40  # in one row


def test_the_bars_of_a_phone(phone):
    for text, field in (("Pictures", "#n"), ("Seed", "#seed")):
        label = phone.locator("#ask").get_by_text(text, exact=True).bounding_box()
        box = phone.locator(field).bounding_box()
        assert label["width"] > 20
        assert box["y"] - 8 < label["y"] + label["height"] <= box["y"]
    row, more = phone.locator(".tools"), phone.locator("#more-tools")
    assert row.evaluate("row => getComputedStyle(row).scrollbarWidth") == "none"
    assert row.evaluate("row => row.scrollWidth - row.clientWidth") > 100
    for _ in range(8):
        if more.is_visible():
            more.tap()
            phone.wait_for_timeout(100)
    expect(more).to_be_hidden()
    expect(phone.locator("[data-panel=tray]")).to_be_in_viewport(ratio=1)
    row.evaluate("row => row.scrollTo(0, 0)")
    expect(more).to_be_visible()


def test_a_picture_says_that_it_can_be_edited(desk, phone):
    for page, act in ((phone, "Tap"), (desk, "Click")):
        assert page.locator("#hint").inner_text() == f"· {act} a picture to open and edit it."
    tile, sign = desk.locator("#wall .tile").nth(1), desk.locator("#wall .opens").nth(1)
    expect(sign).to_have_css("opacity", "0")
    tile.hover()
    expect(sign).to_have_css("opacity", "1")
    desk.mouse.move(0, 0)
    desk.locator("#wall .tile").first.focus()
    desk.keyboard.press("ArrowRight")
    expect(tile).to_be_focused()
    expect(sign).to_have_css("opacity", "1")
    expect(desk.get_by_role("button", name="Open and edit")).to_have_count(4)


def test_how_pictures_were_drawn_in_plain_words(desk):
    asked = desk.locator("#asked .faint")
    expect(asked).to_have_text("tiny · seed 0 · random pictures that fit")
    expect(asked).to_have_attribute("title", "sampler slice+descent, semantics exact")
    expect(desk.locator("#made")).to_contain_text("semanticsexact")
    panel(desk, "settings")
    desk.locator("#sampler").select_option("descent")
    desk.locator("#semantics").select_option("lace")
    draw(desk, 4)
    expect(asked).to_have_text(
        "tiny · seed 0 · random pictures, moved until they fit · scores in place of probabilities"
    )
    expect(asked).to_have_attribute("title", "sampler descent, semantics lace")


def test_quick_edits_have_the_room_that_is_there(phone, desk):
    for page in (phone, desk):
        page.locator("#wall .tile").first.click()
        chips = page.locator("#view").get_by_role("group", name="Quick edits")
        expect(chips.get_by_role("button").last).to_be_visible()
        assert chips.evaluate("chips => chips.scrollHeight - chips.clientHeight") <= 1
        expect(chips).to_have_css("overflow-y", "visible")
    stage, facts = (
        desk.locator("#view .stage").bounding_box(),
        desk.locator("#view .view-facts h3").first.bounding_box(),
    )
    assert (
        stage["x"] <= facts["x"] < stage["x"] + stage["width"]
    )  # below the picture, which leaves the other column free
    assert desk.locator("#view").evaluate("view => view.scrollWidth - view.clientWidth") == 0
