"""Nothing that was done is lost: edits, earlier drawings, typed text, and the way back to them."""

import json
import time
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect

from studio.page import apply, draw, drawn, panel, sources

pytestmark = pytest.mark.browser


def steps(page):
    return parse_qs(urlsplit(page.url).fragment).get("step", [])


@pytest.mark.slow
def test_edits_of_a_picture_stay(guest):
    """Escape, a click beside the picture, Previous, Next and a reload: the steps are there again."""
    page = guest.open()
    draw(page, 3)
    page.locator("#wall .tile").nth(1).click()
    apply(page, "smile")
    apply(page, "hair = brown")
    film = page.locator("#view .film li")
    done = sources(page, "#view .film img")
    page.keyboard.press("Escape")
    expect(page.locator("#view")).to_be_hidden()
    expect(page.locator("#wall li").nth(1)).to_contain_text("2 edits")
    assert sources(page)[1] == done[2]
    page.locator("#wall .tile").nth(1).click()
    expect(film).to_have_text(["As it was", "smile", "hair = brown"])
    page.mouse.click(5, 5)
    expect(page.locator("#view")).to_be_hidden()
    page.locator("#wall .tile").nth(2).click()
    expect(film).to_have_count(0)
    page.get_by_role("button", name="Previous picture").click()
    expect(film).to_have_text(["As it was", "smile", "hair = brown"])
    page.locator("#view textarea").fill("glasses")  # typed and not applied
    page.get_by_role("button", name="Next picture").click()
    page.get_by_role("button", name="Previous picture").click()
    expect(page.locator("#view textarea")).to_have_value("glasses")
    expect(film).to_have_text(["As it was", "smile", "hair = brown"])
    assert sources(page, "#view .film img") == done
    page.reload()
    expect(film).to_have_text(["As it was", "smile", "hair = brown"])
    assert sources(page, "#view .film img") == done
    expect(page.locator("#view textarea")).to_have_value("glasses")
    page.goto("about:blank")
    page.goto(guest.url)
    panel(page, "history")
    page.locator("#history button", has_text="1 picture edited").click()
    drawn(page, 3)
    page.locator("#wall .tile").nth(1).click()
    expect(film).to_have_text(["As it was", "smile", "hair = brown"])


@pytest.mark.slow
def test_back_and_forward_go_through_drawings_pictures_and_steps(guest):
    page = guest.open()
    draw(page, 2, "smile")
    first = sources(page)
    draw(page, 3, "beard XOR glasses")
    second = sources(page)
    page.go_back()
    expect(page.locator("#wall .tile")).to_have_count(2)
    assert sources(page) == first
    expect(page.locator("#query textarea")).to_have_value("smile")
    expect(page.locator("#n")).to_have_value("2")
    page.go_forward()
    expect(page.locator("#wall .tile")).to_have_count(3)
    assert sources(page) == second
    posted = len([url for url in guest.asked if url.endswith("/api/jobs")])
    page.locator("#wall .tile").first.click()
    apply(page, "glasses")
    assert steps(page) == ["glasses"]
    current = page.locator("#view .film [aria-current]")
    page.go_back()
    expect(current).to_have_attribute("aria-label", "As it was")
    expect(page.locator("#view .film li")).to_have_count(2)  # seen, and not thrown away
    page.go_forward()
    expect(current).to_have_attribute("aria-label", "Step 1: glasses")
    page.keyboard.press("Escape")
    expect(page.locator("#view")).to_be_hidden()
    assert steps(page) == []
    page.go_back()
    expect(page.locator("#wall .tile")).to_have_count(2)
    assert sources(page) == first
    page.go_forward()
    page.reload()  # the studio still has the pictures
    drawn(page, 3)
    assert len([url for url in guest.asked if url.endswith("/api/jobs")]) == posted
    panel(page, "history")
    expect(page.locator("#history li code")).to_have_text(
        ["beard XOR glasses", "smile", "smile AND NOT (glasses OR beard)"]
    )
    page.locator("#history button").nth(1).click()
    expect(page.locator("#wall .tile")).to_have_count(2)
    page.go_back()
    expect(page.locator("#wall .tile")).to_have_count(3)


def test_typed_text_survives_a_reload_and_is_what_the_link_says(guest):
    page = guest.open()
    draw(page, 2, "smile")
    wall = sources(page)
    page.locator("#query textarea").fill("smile AND glasses")
    page.locator("#seed").fill("77")
    page.locator("#query .verdict.good").wait_for()
    page.locator("#copy-link").click()
    expect(page.locator("#copy-link")).to_have_text("Copied")
    link = parse_qs(urlsplit(page.evaluate("() => navigator.clipboard.readText()")).fragment)
    assert (link["q"], link["seed"]) == (["smile AND glasses"], ["77"])
    page.reload()
    drawn(page, 2)
    expect(page.locator("#query textarea")).to_have_value("smile AND glasses")
    expect(page.locator("#seed")).to_have_value("77")
    assert sources(page) == wall
    expect(page.locator("#asked code")).to_have_text("smile")


@pytest.mark.slow
def test_the_verdict_on_an_edit_is_not_that_on_the_query(visitor):
    """`hat XOR glasses` no longer holds of a picture with glasses that gets a hat, though the edit holds."""
    page = visitor.open()
    draw(page, 4, "hat XOR glasses")
    number = page.locator("#wall img").evaluate_all(
        "all => all.findIndex(image => /[:;,] glasses[,;]/.test(image.alt.split('; no ')[0] + ';'))"
    )
    assert number >= 0
    page.locator("#wall .tile").nth(number).click()
    expect(page.locator("#view .ruling .says")).to_have_text(["The query holds, says the image judge. P 1.000."])
    apply(page, "hat AND glasses")
    rulings = page.locator("#view .ruling")
    expect(rulings.nth(0)).to_contain_text("The edit holds")
    expect(rulings.nth(1)).to_contain_text("The query no longer holds, says the image judge")
    expect(rulings.nth(1).locator("code")).to_have_text("hat XOR glasses")
    page.keyboard.press("Escape")
    expect(page.locator("#wall li").nth(number)).to_contain_text("misses")


def test_a_job_ends_when_its_page_is_left(guest):
    page = guest.open()
    page.locator("#n").fill("64")
    panel(page, "settings")
    page.locator("#sampler").select_option("published-predictor-corrector")
    with page.expect_response(lambda answer: answer.url.endswith("/api/jobs")) as accepted:
        page.locator("#draw").click()
    job = accepted.value.json()["id"]
    page.locator("#progress").wait_for()
    page.goto("about:blank")
    end = time.monotonic() + 10
    while json.load(urlopen(f"{guest.url}api/jobs/{job}"))["state"] != "cancelled":
        assert time.monotonic() < end, "the job goes on"
        time.sleep(0.05)
