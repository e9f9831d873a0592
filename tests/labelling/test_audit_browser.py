"""The page of an audit in a real browser, by keyboard and by mouse."""

import time

import pytest
from auditing.painted import painted

from energyql.auditing.answers import AnswerBook, AuditPlan
from energyql.auditing.session import Session
from energyql.auditing.subject import open_subject
from energyql.labelling.audit_app import create_audit_app
from labelling.pages import running

pytestmark = pytest.mark.browser


def session_of(folder, by="me", **plan):
    subject = open_subject(folder)
    return Session(subject, AnswerBook.open(subject, AuditPlan(**plan)), by)


@pytest.fixture
def folder(tiny, tmp_path):
    return painted(tiny).save(tmp_path / "run")


@pytest.fixture
def visit(chromium):
    """A function from an audit to a block with its visitor."""
    from contextlib import contextmanager

    from browser import visiting  # Playwright takes seconds to import

    @contextmanager
    def begin(session, *size, **options):
        with (
            running(create_audit_app(session)) as client,
            visiting(chromium, client.url, *size, ready="#work", folder="label", **options) as visitor,
        ):
            yield visitor

    return begin


def test_by_keyboard(visit, folder):
    from playwright.sync_api import expect

    session = session_of(folder, clicks=4)
    with visit(session) as visitor:
        page = visitor.open()
        expect(page.locator("#question")).to_have_text("Does it satisfy: smile AND NOT glasses?")
        visitor.shoot("audit")
        for number, key in enumerate("yn?UYy", 1):
            page.keyboard.press(key)
            count = number if number < 4 else number - 2
            expect(page.locator("#progress-text")).to_contain_text(f"{count} picture{'s' * (count != 1)}")
        assert [given["query"] for given in session.answers.values()] == [True, False, True, True]
        expect(page.locator("#done")).to_be_visible()
        expect(page.locator("#summary")).to_contain_text("satisfy the query; 4 of 40 pictures were looked at")
        visitor.shoot("audit-done")
        page.locator("#undo-done").click()
        expect(page.locator("#work")).to_be_visible()
        page.locator("#unclear").click()
        expect(page.locator("#progress-text")).to_have_text("4 pictures, 1 to go")
        expect(page.locator("#done")).to_be_hidden()


def test_conditions_one_by_one(visit, folder):
    from playwright.sync_api import expect

    session = session_of(folder, clicks=3, attributes=True)
    with visit(session) as visitor:
        page = visitor.open()
        expect(page.locator("#question")).to_have_text("Is it true: smile?")
        page.keyboard.press("y")
        expect(page.locator("#question")).to_have_text("Is it true: glasses?")
        page.keyboard.press("u")
        expect(page.locator("#question")).to_have_text("Is it true: smile?")
        for key in "n?":
            page.keyboard.press(key)
        expect(page.locator("#progress-text")).to_contain_text("1 picture,")
        assert list(session.answers.values()) == [{"smile": False, "glasses": None}]


def test_a_second_tab_is_told(visit, folder):
    from playwright.sync_api import expect

    session = session_of(folder, clicks=4)
    with visit(session) as visitor:
        page = visitor.open()
        session.answer(session.next(1)[0].key, {"query": True})  # as another tab would
        page.keyboard.press("n")
        expect(page.locator("#failure")).to_contain_text("is not the picture that is asked now")
        visitor.faults.clear()  # the browser logs the refusal
        expect(page.locator("#progress-text")).to_contain_text("1 picture,")
        page.keyboard.press("n")
        expect(page.locator("#failure")).to_be_hidden()
        assert [given["query"] for given in session.answers.values()] == [True, False]


def test_a_name_is_no_html(visit, folder):
    from playwright.sync_api import expect

    name = "<img src=x onerror=\"document.title='run'\"><b>ann</b>"
    with visit(session_of(folder, name)) as visitor:
        page = visitor.open()
        expect(page.locator("#who")).to_have_text(name)
        assert page.title() != "run"


def test_on_a_phone(visit, folder):
    from browser import CONTRAST

    with visit(session_of(folder), 390, 844, color_scheme="dark") as visitor:
        page = visitor.open()
        last = page.locator("#undo").bounding_box()
        assert last["y"] + last["height"] < 844
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate(CONTRAST) == []


@pytest.mark.slow
def test_ten_thousand_pictures(visit, tiny, tmp_path):
    """From key to next picture it takes at most a second."""
    from playwright.sync_api import expect

    folder = painted(tiny, 10_000).save(tmp_path / "run")
    with visit(session_of(folder)) as visitor:
        page = visitor.open()
        for number in range(1, 6):
            started = time.perf_counter()
            page.keyboard.press("y")
            expect(page.locator("#progress-text")).to_contain_text(f"{number} picture{'s' * (number != 1)},")
            expect(page.locator("#picture")).to_have_js_property("complete", True)
            assert time.perf_counter() - started < 1
