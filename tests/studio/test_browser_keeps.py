"""What is on the wall stays, and the page says of it what is true, whatever is typed meanwhile."""

import re
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect

from energyql.pipeline.settings import DEFAULT_ATTEMPTS, DEFAULT_PURITY
from studio.page import doubt_all, draw, drawn, panel, sources

pytestmark = pytest.mark.browser


def test_a_broken_query_leaves_the_pictures_alone(guest):
    page = guest.open()
    draw(page, 2)
    wall, address, box = sources(page), page.url, page.locator("#query textarea")
    box.fill("smile AND (glasses")
    page.locator("#query .verdict.bad").wait_for()
    asked = len(guest.asked)
    box.press("Enter")
    page.locator("#draw").evaluate("button => document.activeElement.blur()")
    page.keyboard.press("Control+Enter")
    expect(box).to_be_focused()
    assert "/api/jobs" not in str(guest.asked[asked:])
    # Quicker than the check: the studio refuses, and the reason stands where the text is, once.
    page.route("**/api/check", lambda route: None)
    box.fill("smil")
    with page.expect_response("**/api/jobs") as refusal:
        box.press("Enter")
    assert refusal.value.status == 422
    expect(page.locator("#query .verdict.bad")).to_contain_text("'smil' is not an attribute")
    expect(page.locator("#failure")).to_be_hidden()
    expect(page.locator("#progress")).to_be_hidden()
    assert sources(page) == wall
    assert page.url == address
    guest.faults = [fault for fault in guest.faults if "422" not in fault]  # the refusal is meant


def test_a_broken_step_is_not_sent(guest):
    page = guest.open()
    draw(page, 1)
    page.locator("#wall .tile").first.click()
    box = page.locator("#view textarea")
    box.fill("glases")
    page.locator("#view .verdict.bad").wait_for()
    box.press("Enter")
    assert not [url for url in guest.asked if "/api/edits" in url]
    page.route("**/api/check", lambda route: None)
    box.fill("beerd")
    with page.expect_response("**/api/edits"):
        box.press("Enter")
    expect(page.locator("#view .verdict.bad")).to_contain_text("'beerd' is not an attribute")
    expect(page.locator("#view .failure")).to_be_hidden()
    guest.faults = [fault for fault in guest.faults if "422" not in fault]


def test_the_address_is_that_of_the_wall(guest):
    page = guest.open()
    draw(page, 2, "smile")
    address = page.url
    assert "q=smile&" in address
    page.locator("#query textarea").fill("beard XOR glasses")
    page.locator("#seed").fill("7")
    panel(page, "settings")
    page.locator("#semantics").select_option("product")
    page.locator("#wall .tile").first.click()
    with page.expect_request("**/api/check") as check:
        page.locator("#view textarea").fill("glasses")
    assert check.value.post_data_json["semantics"] == "exact"
    page.keyboard.press("Escape")
    expect(page.locator("#view")).to_be_hidden()
    assert page.url == address


def test_what_was_said_of_another_text_is_taken_back_at_once(guest):
    page = guest.open()
    page.route("**/api/check", lambda route: None)  # no answer comes
    page.locator("#query textarea").fill("smile AND")
    expect(page.locator("#query .verdict")).to_have_text("")
    expect(page.locator("#query .verdict.good")).to_have_count(0)
    expect(page.locator("#circuit")).to_have_class("scroll old")


def test_a_studio_without_an_answer_is_asked_again(guest):
    page = guest.open()
    busy = '{"error": "Busy", "message": "18 requests are being worked on already", "hint": null, "spans": []}'
    page.route("**/api/check", lambda route: route.fulfill(status=503, body=busy), times=1)
    page.locator("#query textarea").fill("smile")
    expect(page.locator("#query .verdict")).to_have_text("18 requests are being worked on already.")
    expect(page.locator("#query .verdict")).to_have_text("A valid query.")
    guest.faults = [fault for fault in guest.faults if "503" not in fault]


def test_a_job_that_was_given_up_says_why(guest):
    page = guest.open()

    def give_up(route):
        job = route.fetch().json()
        problem = {
            "error": "Unwatched",
            "message": "nobody asked",
            "hint": None,
            "spans": [],
            "drawing": "nobody asked",
        }
        route.fulfill(json=job | {"state": "cancelled", "done": 0, "pictures": [], "problem": problem})

    page.route("**/api/jobs/*", give_up)
    page.locator("#draw").click()
    expect(page.locator("#summary")).to_have_text("Given up after 0 pictures")
    expect(page.locator("#failure")).to_have_text("Nobody asked.")


def test_weak_attributes_are_allowed_and_doubtful_pictures_marked(guest):
    """A studio whose head of `beard` is weak, and whose pictures are all doubtful."""
    page = guest.page

    def weak_model(route):
        info = route.fetch().json()
        info["models"][0]["examples"] = ["smile"]
        for attribute in info["models"][0]["attributes"]:
            attribute["weak"] = "0.55 of 1" if attribute["name"] == "beard" else None
        route.fulfill(json=info)

    def check(route):
        asked = route.request.post_data_json
        if "beard" not in asked["query"] or "beard" in asked["allow_weak"]:
            route.continue_()
            return
        refused = {"error": "WeakHeadError", "message": "the head of 'beard' is too weak for queries: 0.55 of 1"}
        hint = "allow it by name: allow_weak=['beard']"
        route.fulfill(json={"ok": False, "problem": refused | {"hint": hint, "spans": [[0, 5]], "drawing": ""}})

    page.route("**/api/info", weak_model)
    page.route("**/api/check", check)
    doubt_all(page)
    guest.open()
    page.locator("#query textarea").fill("beard")
    expect(page.locator("#query .verdict")).to_contain_text("too weak for queries")
    expect(page.locator("#query .verdict")).not_to_contain_text("allow_weak")
    page.get_by_role("button", name="Use beard anyway").click()
    expect(page.locator("#query .verdict")).to_have_text("A valid query.")
    with page.expect_request("**/api/jobs") as sent:
        page.locator("#draw").click()
    assert sent.value.post_data_json["allow_weak"] == ["beard"]
    expect(page.locator("#wall .doubt").last).to_have_text("doubtful")
    expect(page).to_have_url(re.compile("weak=beard"))
    panel(page, "settings")
    page.locator("#weak button").click()
    expect(page.locator("#query .verdict")).to_contain_text("too weak for queries")
    page.locator("#downloads").wait_for()  # no answer is on its way any more


def test_how_pictures_are_verified_is_in_links_and_pictures(guest, tmp_path):
    page = guest.open()
    panel(page, "settings")
    mode, *numbers = fields = [page.locator(f"#{name}") for name in ("verify", "purity", "attempts")]
    expect(mode.locator("option")).to_have_text(["default: off", "sure", "faithful", "off"])
    assert [each.get_attribute("placeholder") for each in numbers] == [str(DEFAULT_PURITY), str(DEFAULT_ATTEMPTS)]
    for each in numbers:
        expect(each).to_be_hidden()
    with page.expect_request("**/api/check") as check:
        mode.select_option("sure")
    assert check.value.post_data_json["verify"] == "sure"
    numbers[0].fill("0.9")
    numbers[1].fill("32")
    with page.expect_response(lambda answer: answer.url.endswith("/api/jobs")) as sent:
        draw(page, 1, "smile")
    job, asked = sent.value.json()["id"], sent.value.request.post_data_json
    wanted = {"verify": "sure", "purity": 0.9, "attempts": 32}
    assert {name: asked[name] for name in wanted} == wanted
    (tmp_path / "one.png").write_bytes(urlopen(f"{guest.url}api/jobs/{job}/pictures/0.png").read())
    page.locator("#wall .tile").first.click()
    with page.expect_request("**/api/check") as check:
        page.locator("#view textarea").fill("glasses")
    assert check.value.post_data_json["verify"] == "off"  # the pictures of edits are not verified
    page.keyboard.press("Escape")
    expect(page.locator("#view")).to_be_hidden()

    def restored():
        drawn(page, 1)
        return [each.input_value() for each in fields]

    page.reload()
    assert restored() == ["sure", "0.9", "32"]  # the panel is still open
    mode.select_option("")
    draw(page, 2, "smile")
    assert "verify" not in page.url
    panel(page, "photo")
    page.locator("#provenance").set_input_files(tmp_path / "one.png")
    assert restored() == ["sure", "0.9", "32"]


def test_a_download_that_fails_says_why(guest):
    page = guest.open()
    draw(page, 2, "smile")
    page.route("**/result.zip", lambda route: route.fulfill(status=404, json={"message": "there is no such request"}))
    page.get_by_role("link", name="Everything").click()
    expect(page.locator("#downloads [role=alert]")).to_have_text(
        "The studio no longer has these pictures: draw them again."
    )
    page.unroute("**/result.zip")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Everything").click()
    assert waiting.value.suggested_filename == "energyql.zip"
    expect(page.locator("#downloads [role=alert]")).to_have_count(0)
    guest.faults = [fault for fault in guest.faults if "404" not in fault]  # the refusal is meant
