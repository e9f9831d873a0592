"""What the page does besides drawing one query: pointing, comparing, varying, keeping, exporting, own pictures."""

import io
import json
import re
import zipfile

import pytest
from PIL import Image
from playwright.sync_api import expect

from studio.page import apply, draw, drawn, panel, sources

pytestmark = pytest.mark.browser


def drop(page, data, name, kind):
    """Drop a file on the page, as from a folder."""
    transfer = page.evaluate_handle(
        """([bytes, name, kind]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(bytes)], name, { type: kind }));
            return transfer;
        }""",
        [list(data), name, kind],
    )
    page.dispatch_event("main", "drop", {"dataTransfer": transfer})


def saved(page, action):
    with page.expect_download() as waiting:
        action()
    return waiting.value.path().read_bytes()


def test_pointing_builds_the_query(visitor):
    page = visitor.open()
    box = page.locator("#query textarea")
    panel(page, "build")

    def press(name):
        page.get_by_role("button", name=name, exact=True).click()

    box.fill("hat OR beard")
    press("smile: yes")
    expect(box).to_have_value("(hat OR beard) AND smile")
    press("smile: no")
    expect(box).to_have_value("(hat OR beard) AND NOT smile")
    press("hair: red")
    press("hair: black")
    expect(box).to_have_value("(hat OR beard) AND NOT smile AND hair IN {black, red}")
    press("smile: no")
    press("hair: black")
    expect(box).to_have_value("(hat OR beard) AND hair = red")
    page.get_by_role("slider", name="skin_tone: at least").fill("0.6")
    expect(box).to_have_value("(hat OR beard) AND hair = red AND skin_tone > 0.6")
    page.get_by_role("slider", name="skin_tone: at most").fill("0.8")
    expect(box).to_have_value("(hat OR beard) AND hair = red AND skin_tone IN [0.6, 0.8]")
    # The other way round: what is typed shows in the panel.
    box.fill("glasses AND NOT hat AND eyes IN {happy, wide} AND background < 0.3")
    expect(page.get_by_role("button", name="glasses: yes", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="hat: no", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="eyes: wide")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("slider", name="background: at most")).to_have_value("0.3")
    expect(page.get_by_role("button", name="smile: yes", exact=True)).to_have_attribute("aria-pressed", "false")
    # What was meant is one click away.
    box.fill("smile AND NOT (glases OR beerd)")
    page.locator("#query .remedy button", has_text="beard").click()
    expect(box).to_have_value("smile AND NOT (glases OR beard)")
    page.locator("#query .remedy button", has_text="glasses").click()
    expect(box).to_have_value("smile AND NOT (glasses OR beard)")
    expect(page.locator("#query .verdict")).to_have_text("A valid query.")


@pytest.mark.slow
def test_many_pictures_are_edited_together_and_varied(guest):
    page = guest.open()
    draw(page, 4, "smile AND NOT beard")
    page.locator("#wall .tile").nth(0).focus()
    page.keyboard.press("x")
    page.locator("#wall .tile").nth(2).click(modifiers=["Control"])
    expect(page.locator("#chosen strong")).to_have_text("2 selected")
    page.get_by_role("button", name="Edit together").click()
    page.locator("#many summary").click()
    page.locator("#many .tick input").uncheck()
    page.get_by_role("group", name="Attributes to keep").get_by_role("button", name="hair", exact=True).click()
    page.locator("#many input[type=number]").fill("5")
    page.locator("#many input[type=number]").blur()
    page.locator("#many textarea").fill("beard")
    with page.expect_request("**/api/edits") as sent:
        page.locator("#many textarea").press("Enter")
    body = sent.value.post_data_json
    assert body["edit_strength"] == 5
    assert "hair" not in body["keep"]
    assert "smile" in body["keep"]
    expect(page.locator("#many .facts")).to_have_text("2 pictures edited")
    expect(page.locator("#wall li", has_text="1 edit")).to_have_count(2)
    # Variations: a wall of its own, with an address, and its pictures can be edited.
    before = sources(page)
    page.get_by_role("button", name="More like these").click()
    drawn(page, 8)
    expect(page.locator("#asked")).to_contain_text("Like #0, #2")
    assert "vary=0+2" in page.url
    assert not set(sources(page)) & set(before)
    page.locator("#wall .tile").nth(3).click()
    apply(page, "glasses")
    expect(page.locator("#view .film li")).to_have_text(["As it was", "glasses"])
    page.keyboard.press("Escape")
    page.go_back()
    expect(page.locator("#wall .tile")).to_have_count(4)
    assert sources(page) == before


def test_before_and_after_and_the_same_seed(guest):
    page = guest.open()
    page.locator("#seed").fill("12")
    draw(page, 2, "smile")
    page.locator("#seed").fill("3")
    page.locator("#wall .tile").first.click()
    expect(page.get_by_role("button", name="Before and after")).to_be_disabled()
    apply(page, "beard")
    page.get_by_role("button", name="Before and after").click()
    wipe = page.get_by_role("slider", name="Wipe between before and after")
    wipe.fill("30")
    clip = page.locator("#view .over").evaluate("image => image.style.clipPath")
    assert clip.replace("px", "") in ("inset(0 70% 0 0)", "inset(0 70% 0 0%)")
    assert sources(page, "#view .over") == sources(page, "#view .film li:first-child img")
    guest.shoot("wipe")
    page.get_by_role("button", name="Use its seed").click()
    expect(page.locator("#view")).to_be_hidden()
    expect(page.locator("#seed")).to_have_value("12")


@pytest.mark.slow
def test_rows_side_by_side(guest):
    page = guest.open()
    draw(page, 2, "smile XOR beard")
    wall = sources(page)
    panel(page, "compare")
    expect(page.locator("#literals")).to_have_value("smile, beard")
    page.get_by_role("button", name="By semantics").click()
    rows = page.locator(".board-row")
    expect(rows.locator("strong")).to_have_text(["exact", "product", "lace"])
    expect(page.locator(".board-row img")).to_have_count(6)
    assert sources(page, ".board-row:nth-of-type(1) img") == wall
    guest.shoot("compare")
    page.locator("#compare textarea").fill("glasses")
    page.get_by_role("button", name="Side by side").click()
    expect(rows.locator("code")).to_have_text(["smile XOR beard", "glasses"])
    page.go_back()
    expect(rows).to_have_count(3)
    page.go_back()
    expect(page.locator("#board")).to_be_hidden()
    assert sources(page) == wall
    page.locator("#literals").fill("hair = black, hair = brown")
    page.get_by_role("button", name="Draw the table").click()
    expect(rows).to_have_count(4)
    expect(rows.first).to_contain_text("No pictures: ")
    expect(page.locator(".board-row img")).to_have_count(6)
    page.get_by_role("link", name="Download as a page").wait_for()
    guest.shoot("table")
    html = saved(page, lambda: page.get_by_role("link", name="Download as a page").click()).decode()
    assert "<table" in html
    page.get_by_role("button", name="Draw the path").click()
    expect(page.locator(".board-row img")).to_have_count(16)
    expect(rows.locator("strong")).to_have_text(["Path 1", "Path 2"])
    expect(page.locator("#board .ends")).to_have_text("A smile XOR beard to B glasses")
    expect(page.locator(".board-row .end")).to_have_count(32)  # of each picture the probabilities of both ends
    expect(page.locator(".board-row .end").first).to_have_text(re.compile(r"A[01]\.\d\d"))
    expect(page.locator(".board-row .badge, .board-row li.no")).to_have_count(0)  # between two queries nothing fails
    page.reload()
    expect(page.locator(".board-row img")).to_have_count(16)
    page.get_by_role("button", name="Draw the gallery").click()
    expect(rows.locator("code").first).to_have_text("smile XOR beard")
    page.get_by_role("link", name="Download as a page").wait_for()
    page.locator(".board-row").nth(1).get_by_role("button", name="On the wall").click()
    drawn(page, 2)
    expect(page.locator("#board")).to_be_hidden()


@pytest.mark.slow
def test_favourites_are_kept_and_exported(guest):
    page = guest.open()
    draw(page, 3, "smile")
    page.locator("#wall .tile").first.focus()
    page.keyboard.press("f")
    page.locator("#wall .tile").nth(1).click()
    apply(page, "beard")
    page.get_by_role("button", name="Favourite", exact=True).click()
    page.keyboard.press("Escape")
    expect(page.locator("#tray-count")).to_have_text("2")
    page.goto("about:blank")
    page.goto(guest.url)
    drawn(page, 16)
    panel(page, "tray")
    expect(page.locator("#tray img")).to_have_count(2)
    data = saved(page, lambda: page.get_by_role("button", name="Export as ZIP").click())
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        assert packed.testzip() is None
        names = packed.namelist()
        assert names == ["energyql/00-0.png", "energyql/01-1.png", "energyql/favourites.json"]
        pictures = [packed.read(name) for name in names[:2]]
        assert json.loads(packed.read(names[2]))[1]["steps"] == ["beard"]
    facts = [json.loads(Image.open(io.BytesIO(picture)).text["energyql"]) for picture in pictures]
    assert [fact["query"] for fact in facts] == ["smile", "beard"]
    page.locator("#tray .tile").nth(1).click()
    expect(page.locator("#view .film li")).to_have_text(["As it was", "beard"])
    film = sources(page, "#view .film img")
    page.keyboard.press("Escape")
    # The same file, dropped on the page, brings back what it shows.
    draw(page, 2, "glasses")
    drop(page, pictures[1], "face.png", "image/png")
    expect(page.locator("#view[open]:not(.busy)")).to_be_visible()  # the closed one still has its last film
    expect(page.locator("#view .film li")).to_have_text(["As it was", "beard"])
    expect(page.locator("#query textarea")).to_have_value("smile")
    assert sources(page, "#view .film img") == film
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Remove from the favourites").first.click()
    expect(page.locator("#tray img")).to_have_count(1)


@pytest.mark.slow
def test_a_photograph_is_edited(guest):
    page = guest.open()
    draw(page, 1, "smile AND NOT beard")
    data = io.BytesIO()
    drop(page, b"GIF89a", "film.gif", "image/gif")
    expect(page.locator("#dropped")).to_have_text("This is no PNG, JPEG or WebP.")
    page.locator("#wall .tile").first.click()
    picture = saved(page, lambda: page.get_by_role("link", name="Download PNG").click())
    page.keyboard.press("Escape")
    with Image.open(io.BytesIO(picture)) as opened:
        opened.convert("RGB").save(data, "PNG")  # which says nothing of its making
    drop(page, data.getvalue(), "me.png", "image/png")
    expect(page.locator("#dropped")).to_contain_text("The picture says nothing of its making".lower()[4:])
    page.get_by_role("button", name="Edit it as a photograph").click()
    expect(page.locator("#asked")).to_contain_text("Your photograph")
    drawn(page, 1)
    page.locator("#wall .tile").click()
    apply(page, "beard")
    expect(page.locator("#view .film li")).to_have_text(["As it was", "beard"])
    guest.shoot("photograph")
    page.reload()
    expect(page.locator("#view .film li")).to_have_text(["As it was", "beard"])
    guest.faults = [fault for fault in guest.faults if "422" not in fault]  # the refusal of the provenance is meant


@pytest.mark.slow
def test_shortcuts(guest):
    page = guest.open()
    draw(page, 2)
    page.locator("#wall .tile").first.focus()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    expect(page.locator("#panel-settings")).to_be_visible()
    seed = page.locator("#seed").input_value()
    page.keyboard.press("r")
    expect(page.locator("#seed")).not_to_have_value(seed)
    drawn(page, 2)
    page.keyboard.press("/")
    expect(page.locator("#query textarea")).to_be_focused()
    page.keyboard.type("?")  # a text, where text is typed
    expect(page.locator("#help")).to_be_hidden()
