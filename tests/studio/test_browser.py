"""The page in a real browser, with the packaged model or a tiny one. No test depends on what a picture shows."""

import io
import json
import zipfile

import pytest
from browser import CONTRAST
from PIL import Image
from playwright.sync_api import expect

from studio.page import apply, doubt_all, draw, drawn, panel, sources, visiting

pytestmark = pytest.mark.browser


def download(page, name):
    with page.expect_download() as waiting:
        page.get_by_role("link", name=name).click()
    return waiting.value.path().read_bytes()


def test_type_a_query_and_see_pictures(visitor):
    page = visitor.open()
    box = page.locator("#query textarea")
    box.fill("")
    box.press_sequentially("smi")
    expect(page.locator("#query .offers li").first).to_contain_text("smile")
    visitor.shoot("completion")
    box.press("Tab")
    box.press_sequentially("AND NOT (gla")
    box.press("ArrowDown")
    expect(page.locator("#query [aria-selected=true]")).to_contain_text("glasses")
    box.press("Enter")
    box.press_sequentially("OR hair = b")
    expect(page.locator("#query .offers code")).to_have_text(["black", "brown", "blonde"])
    box.press("Tab")
    box.press_sequentially(")")
    expect(box).to_have_value("smile AND NOT (glasses OR hair = black)")
    expect(page.locator("#query .verdict")).to_have_text("A valid query.")
    expect(page.locator("#query .t-keyword")).to_have_text(["AND", "NOT", "OR"])
    expect(page.locator("#query .t-attribute")).to_have_text(["smile", "glasses", "hair"])
    panel(page, "circuit")
    expect(page.locator("#circuit svg text", has_text="hair != black")).to_be_visible()
    draw(page, 8)
    expect(page.locator("#summary")).to_contain_text("of 8 satisfy the query, says the image judge")
    expect(page.locator("#wall .badge")).to_have_count(8)
    expect(page.locator("#clauses tbody th")).to_have_text(["smile", "NOT glasses", "NOT hair = black"])
    for place, image in enumerate(page.locator("#wall img").all(), start=1):
        assert image.get_attribute("alt").startswith(f"Picture {place} of 8. Image judge: ")
        assert image.evaluate("async image => { await image.decode(); return image.naturalWidth; }") == 256
    visitor.shoot("pictures", full_page=True)


def test_break_the_query_and_see_the_carets(visitor):
    page = visitor.open()
    box = page.locator("#query textarea")
    box.fill("smile AND NOT (glases OR beerd)")
    page.locator("#query .verdict.bad").wait_for()
    expect(page.locator("#query .verdict")).to_contain_text(
        "'glases' is not an attribute of model 'avatars'.Did you mean glassesbeard?"
    )
    assert "".join(page.locator("#query .caret").all_text_contents()) == "glasesbeerd"
    assert box.get_attribute("aria-invalid") == "true"
    expect(page.locator("#draw")).to_be_disabled()
    expect(page.locator("#circuit")).to_have_class("scroll old")
    # The carets stand under the very letters of the text box.
    letter = page.locator("#query .t-attribute").first.bounding_box()["width"] / len("smile")
    left = page.locator("#query .t-attribute").first.bounding_box()["x"]
    carets = [mark.bounding_box() for mark in page.locator("#query .caret").all()]
    columns = [round((caret["x"] - left) / letter, 1) for caret in carets]
    assert columns == [*range(15, 21), *range(25, 30)]
    content = page.locator("#query .caret").first.evaluate("mark => getComputedStyle(mark, '::after').content")
    assert content == '"^"'
    visitor.shoot("carets")
    box.press("Control+a")
    box.press_sequentially("smile AND")
    box.press("Escape")
    expect(page.locator("#query .verdict")).to_have_text("An operand is missing after AND.")
    expect(page.locator("#query .caret")).to_have_count(1)
    box.fill("🙂 smil")
    expect(page.locator("#query .verdict")).to_contain_text("🙂")
    assert "".join(page.locator("#query .caret").all_text_contents()) == "🙂"


def test_a_part_that_is_never_true_has_carets_and_can_be_drawn(visitor):
    page = visitor.open()
    page.locator("#query textarea").fill("background > 0.8 AND hair = black AND bald XOR hat")
    page.locator("#query .verdict.odd").wait_for()
    expect(page.locator("#query .verdict")).to_contain_text("Hair = black and bald cannot both hold, so `background")
    expect(page.locator("#query .verdict")).to_contain_text("Always: bald IFF hair = absent")
    assert "".join(page.locator("#query .caret").all_text_contents()) == "hair = blackbald"
    assert page.locator("#query textarea").get_attribute("aria-invalid") == "false"
    expect(page.locator("#draw")).to_be_enabled()
    visitor.shoot("odd")


def test_edit_undo_and_share(guest, chromium):
    page = guest.open()
    draw(page)
    page.locator("#wall .tile").nth(2).click()
    expect(page.get_by_role("heading", name="Picture #2")).to_be_visible()
    expect(page.locator("#view .clauses th")).to_have_text(["smile", "NOT glasses", "NOT beard"])
    apply(page, "glasses")
    expect(page.locator("#view .film li")).to_have_text(["As it was", "glasses"])
    first = sources(page, "#view .film img")
    page.locator("#view .chips button", has_text="hair = black").click()
    expect(page.locator("#view .film li")).to_have_text(["As it was", "glasses", "hair = black"])
    assert sources(page, "#view .film img")[:2] == first
    expect(page.locator("#view .ruling code").first).to_contain_text("glasses AND hair = black")
    guest.shoot("edit")
    # Undo gives back the text of the step and the picture before it.
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#view .film li")).to_have_count(2)
    expect(page.locator("#view textarea")).to_have_value("hair = black")
    assert sources(page, "#view .film img") == first
    assert sources(page, "#view .stage img") == first[1:]
    page.locator("#view textarea").fill("glasses AND")
    expect(page.locator("#view .verdict.bad")).to_be_visible()
    expect(page.get_by_role("button", name="Apply")).to_be_disabled()
    page.locator("#view").get_by_role("button", name="Copy link").click()
    expect(page.locator("#view").get_by_role("button", name="Copied")).to_be_visible()
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert link == page.url
    wall = sources(page)
    with visiting(chromium, guest.url) as friend:
        other = friend.open(link.removeprefix(guest.url))
        expect(other.locator("#view .film li")).to_have_text(["As it was", "glasses"])
        assert sources(other, "#view .film img") == first
        expect(other.locator("#wall .tile")).to_have_count(4)
        assert sources(other) == wall
        expect(other.locator("#banner")).to_be_hidden()


@pytest.mark.slow
def test_download_pictures_and_provenance(visitor):
    page = visitor.open()
    draw(page, 2)
    with zipfile.ZipFile(io.BytesIO(download(page, "Everything"))) as packed:
        assert {"energyql/00000.png", "energyql/00001.png", "energyql/result.json"} <= set(packed.namelist())
    (entry,) = json.loads(download(page, "Provenance"))
    assert (entry["query"], entry["n"], entry["model"]) == ("smile AND NOT (glasses OR beard)", 2, "avatars")
    with Image.open(io.BytesIO(download(page, "Grid"))) as grid:
        assert json.loads(grid.text["energyql"])["query"] == entry["query"]
    page.locator("#wall .tile").nth(1).click()
    apply(page, "hat")
    with Image.open(io.BytesIO(download(page, "Download PNG"))) as picture:
        assert picture.size == (256, 256)
        assert json.loads(picture.text["energyql"])["query"] == "hat"


def test_a_link_restores_every_setting(guest, chromium):
    page = guest.open()
    page.locator("#query textarea").fill("beard XOR\nglasses  # faces & more")
    page.locator("#seed").fill("41")
    panel(page, "settings")
    page.locator("#strength").fill("2.5")
    page.locator("#sampler").select_option("ode")
    page.locator("#semantics").select_option("lace")
    page.locator("#query .verdict.good").wait_for()
    draw(page, 3)
    with visiting(chromium, guest.url) as friend:
        other = friend.open(page.url.removeprefix(guest.url))
        expect(other.locator("#wall .tile")).to_have_count(3)
        for name in ("seed", "strength", "sampler", "semantics", "n"):
            assert other.locator(f"#{name}").input_value() == page.locator(f"#{name}").input_value()
        assert other.locator("#query textarea").input_value() == page.locator("#query textarea").input_value()
        assert sources(other) == sources(page)
        panel(other, "circuit")
        expect(other.locator("#circuit-name")).to_contain_text("Tree")
        # A link that is opened in the same window restores what it leaves out, too, and closes what is open.
        other.locator("#wall .tile").first.click()
        plain = page.url.removeprefix(guest.url).replace("&strength=2.5", "")
        plain = plain.replace("sampler=ode", "sampler=magic").replace("seed=41", "seed=-4").replace("n=3", "n=99999")
        friend.open(plain.replace("weights=", "weights=0"))
        expect(other.locator("#banner")).to_contain_text("does not offer sampler magic, seed -4, n 99999.")
        expect(other.locator("#banner")).to_contain_text("other weights")
        expect(other.locator("#view")).to_be_hidden()
        expect(other.locator("#strength")).to_have_value("")
        expect(other.locator("#seed")).to_have_value("0")
        expect(other.locator("#n")).to_have_value("64")
        expect(other.locator("#wall > li")).to_have_count(64)  # they are drawn, or are being drawn


def test_progress_and_cancel(visitor):
    page = visitor.open()
    page.locator("#n").fill("64")
    panel(page, "settings")
    page.locator("#sampler").select_option("published-predictor-corrector")
    with page.expect_response(lambda answer: answer.url.endswith("/api/jobs")):  # later, it is of this drawing
        page.locator("#draw").click()
    expect(page.locator("#progress-text")).to_contain_text("Sampling")
    page.locator("#progress-bar").evaluate(
        "bar => new Promise(done => { const look = () => bar.value > 0.01 ? done() : setTimeout(look, 20); look(); })"
    )
    expect(page.locator("#wall .empty")).to_have_count(64)
    visitor.shoot("progress")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#summary")).to_contain_text("Cancelled after 0 pictures")
    page.locator("#sampler").select_option("ode")
    draw(page, 2)


def test_two_users_do_not_mix(guest, chromium):
    page = guest.open()
    with visiting(chromium, guest.url) as friend:
        other = friend.open()
        other.locator("#seed").fill("9")
        for each in (page, other):
            each.locator("#n").fill("6")
            each.locator("#draw").click()
        for each in (page, other):
            drawn(each, 6)
        mine, theirs = sources(page), sources(other)
        assert not set(mine) & set(theirs)
        page.locator("#seed").fill("9")
        page.locator("#draw").click()
        expect(page.locator("#wall img").first).to_have_attribute("src", theirs[0])
        page.locator("#downloads").wait_for()
        assert sources(page) == theirs


def test_the_keyboard_alone(guest):
    page = guest.open()
    draw(page, 8)
    page.locator("#wall .tile").first.focus()
    for key in ("ArrowRight", "ArrowRight", "End", "Home", "ArrowRight"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator("#view-name")).to_have_text("Picture #1")
    page.get_by_role("button", name="Next picture").press("Enter")
    expect(page.locator("#view-name")).to_have_text("Picture #2")
    page.keyboard.press("Escape")
    expect(page.locator("#view")).to_be_hidden()
    expect(page.locator("#wall [data-position='2']")).to_be_focused()
    tiles = page.locator("#wall .tile").evaluate_all("all => all.map(tile => tile.tabIndex)")
    assert sorted(tiles) == [-1] * 7 + [0]


def test_a_phone(chromium, url):
    with visiting(chromium, url, 390, 844, color_scheme="dark", device_scale_factor=2, has_touch=True) as guest:
        page = guest.open()
        page.locator("#wall img").first.wait_for()
        assert page.locator("#wall img").first.bounding_box()["y"] < 400, "pictures come before settings"
        guest.shoot("phone-start")
        draw(page)
        for selector in ("document.documentElement", "document.body"):
            assert page.evaluate(f"() => {selector}.scrollWidth") <= 390
        guest.shoot("phone", full_page=True)
        page.locator("#wall .tile").first.tap()
        apply(page, "beard")
        assert page.locator("#view").evaluate("view => view.scrollWidth") <= 390
        guest.shoot("phone-edit")


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_everything_has_a_name_and_can_be_read(chromium, small, scheme):
    with visiting(chromium, small, color_scheme=scheme) as guest:
        doubt_all(guest.page)
        page = guest.open()
        draw(page, 3, "smile")
        expect(page.locator(".doubt").first).to_be_visible()  # its colours are measured too
        mark, number = (page.locator(f"#wall .below {part}").first.bounding_box() for part in (".doubt", ".number"))
        assert abs(mark["y"] + mark["height"] / 2 - number["y"] - number["height"] / 2) < 2, "one line"
        assert 0 <= number["x"] - mark["x"] - mark["width"] < 12
        page.locator("#wall .tile").first.click()
        guest.shoot(f"desktop-{scheme}")
        nameless = page.locator("button, a, select, input, textarea, summary, img").evaluate_all(
            """all => all.filter(node => !(node.ariaLabel || node.alt !== undefined && node.tagName === 'IMG'
                || node.textContent.trim() || node.querySelector('img')?.alt || node.labels?.length
                || node.getAttribute('aria-label')))
                .map(node => node.outerHTML.slice(0, 90))"""
        )
        assert nameless == []
        weak = page.evaluate(CONTRAST)
        assert weak == []
