"""The page for labels in a real browser, by keyboard and by mouse."""

from functools import partial

import pytest

from energyql.labelling.app import create_app
from energyql.labelling.looks import Looks
from energyql.labelling.sheet import LabelSheet
from labelling.doubted import doubted_sheet
from labelling.pages import labelling, running

pytestmark = pytest.mark.browser


@pytest.fixture
def sheet(folder, tmp_path):
    return LabelSheet.open(tmp_path / "labels.csv", folder, "glasses, hair=black|brown, age=0..10")


@pytest.fixture
def visitor(chromium, sheet):
    from browser import visiting  # Playwright takes seconds to import

    with (
        labelling(sheet) as client,
        partial(visiting, ready="#work", folder="label")(
            chromium, client.url, permissions=["clipboard-read"]
        ) as visitor,
    ):
        yield visitor


def number_of(page):
    return page.locator("#number").text_content()


def test_by_keyboard(visitor, sheet):
    from playwright.sync_api import expect

    page = visitor.open()
    for key in ("y", "2", "7", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#number")).to_have_text("picture 1")
    assert sheet.rows() == {0: {"glasses": "yes", "hair": "brown", "age": "7.2"}}
    for key in ("N", "s", "x", "9", "Enter"):  # an x is no answer
        page.keyboard.press(key)
    expect(page.locator("#number")).to_have_text("picture 2")
    assert sheet.rows()[1] == {"glasses": "no", "hair": "", "age": "9"}
    page.keyboard.press("y")
    page.keyboard.press("Backspace")  # this decision
    expect(page.locator("[aria-current] strong")).to_have_text("glasses")
    page.keyboard.press("u")  # the last picture
    expect(page.locator("#number")).to_have_text("picture 1")
    assert list(sheet.rows()) == [0]
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    visitor.shoot("keys")
    page.keyboard.press("y")  # not while the keys are shown
    page.keyboard.press("Escape")
    expect(page.locator("[aria-current] strong")).to_have_text("glasses")
    visitor.shoot("picture")


def test_by_mouse_to_the_end(visitor, sheet):
    from playwright.sync_api import expect

    page = visitor.open()
    for index in sheet.folder.indices:
        expect(page.locator("#number")).to_have_text(f"picture {index}")
        page.get_by_role("button", name="no N").click()
        page.get_by_role("button", name="black 1").click()
        page.get_by_role("slider").fill("2.5")
        page.get_by_role("button", name="Accept Enter").click()
    expect(page.locator("#done")).to_be_visible()
    expect(page.locator("#command")).to_contain_text(f"--labels {sheet.path}")
    expect(page.locator("#progress-text")).to_have_text("8 of 8 pictures")
    visitor.shoot("done")
    assert set(map(tuple, (row.values() for row in sheet.rows().values()))) == {("no", "black", "2.5")}
    page.locator("#undo-done").click()
    expect(page.locator("#number")).to_have_text("picture 1000002")
    expect(page.locator("#progress-text")).to_have_text("7 of 8 pictures")  # as the server says
    assert len(sheet.rows()) == 7


def test_failures_are_shown(visitor, sheet):
    from playwright.sync_api import expect

    page = visitor.open()
    sheet.path.write_text("not,a\ntable,of labels\n")
    for key in ("y", "1", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#failure")).to_contain_text("DataError")
    expect(page.locator("#number")).to_have_text("picture 0")
    visitor.faults.clear()  # the browser logs the refusal
    sheet.path.unlink()
    page.keyboard.press("Enter")
    expect(page.locator("#number")).to_have_text("picture 1")
    expect(page.locator("#failure")).to_be_hidden()


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
def test_on_a_phone(chromium, sheet, scheme):
    """The answers of a question stand in one row below it, the picture leaves room for them, and all can be read."""
    from browser import CONTRAST, visiting

    with (
        labelling(sheet) as client,
        visiting(chromium, client.url, 390, 844, ready="#work", folder="label", color_scheme=scheme) as visitor,
    ):
        page = visitor.open()
        page.locator(".question").nth(2).wait_for()
        for question in page.locator(".question").all()[:2]:
            name = question.locator("strong").bounding_box()
            answers = [button.bounding_box() for button in question.locator("button").all()]
            assert len({answer["y"] for answer in answers}) == 1
            assert answers[0]["y"] >= name["y"] + name["height"]
        last = page.locator("#leave").bounding_box()
        assert last["y"] + last["height"] < 844
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.keyboard.press("y")
        assert page.evaluate(CONTRAST) == []


def test_doubted_labels_are_looked_at_again(chromium, folder):
    from browser import visiting
    from playwright.sync_api import expect

    sheet = doubted_sheet(folder)
    with (
        running(create_app(sheet, looks=Looks(sheet))) as client,
        visiting(chromium, client.url, ready="#work", folder="label") as visitor,
    ):
        page = visitor.open()
        expect(page.locator("#number")).to_have_text("picture 2")
        expect(page.locator("#progress-text")).to_have_text("0 of 3 pictures looked at again")
        assert page.locator(".again").all_text_contents() == ["you said no: look again", "you said 3: look again"]
        expect(page.locator("[aria-current] strong")).to_have_text("glasses")
        expect(page.get_by_role("button", name="no N")).to_have_attribute("aria-pressed", "true")
        visitor.shoot("doubtful")
        page.keyboard.press("y")
        expect(page.locator("[aria-current] strong")).to_have_text("age")  # the hair is not doubted
        page.get_by_role("button", name="brown 2").click()  # but may be corrected
        expect(page.locator("[aria-current] strong")).to_have_text("age")
        page.keyboard.press("Enter")
        expect(page.locator("#number")).to_have_text("picture 0")
        assert sheet.rows()[2] == {"glasses": "yes", "hair": "brown", "age": "3"}
        page.keyboard.press("Enter")
        expect(page.locator("#number")).to_have_text("picture 4")
        assert sheet.rows()[0]["glasses"] == "no"
        page.keyboard.press("u")
        expect(page.locator("#number")).to_have_text("picture 0")
        page.get_by_role("button", name="Keep Enter").click()
        expect(page.locator("#number")).to_have_text("picture 4")
        page.keyboard.press("2")
        expect(page.locator("#end")).to_have_text("You looked at all doubted labels again")
        expect(page.locator("#progress-text")).to_have_text("3 of 3 pictures looked at again")
        expect(page.locator("#command")).to_contain_text("--replace")
        assert sheet.rows()[4]["hair"] == "brown"
