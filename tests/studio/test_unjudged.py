"""A model without a judge, one of whose heads is weak: what the API and the page say."""

import re
from dataclasses import replace

import pytest
from toys import tiny_model

from energyql import generate, load_model
from energyql.attributes.heads import DOUBT, AttributeBank
from energyql.attributes.quality import HeadReport
from energyql.errors import WeakHeadError
from energyql.pipeline.session import Session
from energyql.studio.schemas import CheckRequest, DrawRequest
from energyql.studio.studio import Studio
from studio.client import serving

RECALL = {"no": (0.5, 0.3, 0.7), "yes": (0.5, 0.3, 0.7)}
WEAK = HeadReport("yes/no", 80, 20, {"no": 50, "yes": 50}, 0.5, (0.35, 0.65), RECALL, 0.1)
REASON = "balanced accuracy 0.50 (0.35 to 0.65) is not clearly above chance, 0.50"


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    folder = tiny_model(tmp_path_factory.mktemp("unjudged"), judge=False)
    AttributeBank.load(folder).with_reports({"glasses": WEAK}).save(folder)
    with serving([str(folder)]) as client:
        yield client


def test_the_model(studio):
    (model,) = studio.get("/api/info").json()["models"]
    assert model["judge"] is None
    assert {each["name"]: each["weak"] for each in model["attributes"]} == {
        "smile": None, "hair": None, "age": None, "glasses": REASON, "beard": None
    }  # fmt: skip
    assert model["examples"]
    assert not [query for query in model["examples"] if "glasses" in query]


def test_pictures_without_verdict(studio):
    job = studio.draw(query="smile", n=2)
    assert [picture["satisfied"] for picture in job["pictures"]] == [None, None]
    assert {picture["verdict"] for picture in job["pictures"]} == {"Not judged: the model has no judge"}
    assert job["pictures"][0]["alt"] == "Picture 1 of 2. The query smile is not judged."
    assert job["pictures"][0]["judged"] == {}
    assert job["summary"].startswith("not judged: the model has no judge; mean P ")
    facts = {fact["name"]: fact["text"] for fact in job["facts"]}
    assert (facts["judge"], facts["heads"]) == ("none", "smile: quality not measured")


def test_a_weak_head_is_refused_unless_it_is_allowed(studio):
    refused = studio.post("/api/jobs", {"query": "smile AND glasses", "n": 1})
    assert (refused.status, refused.json()["error"], refused.json()["spans"]) == (422, "WeakHeadError", [[10, 17]])
    check = studio.post("/api/check", {"query": "smile AND glasses"}).json()
    assert check["problem"]["message"] == f"the head of 'glasses' is too weak for queries: {REASON}"
    job = studio.draw(query="smile AND glasses", n=1, allow_weak=["glasses"])
    assert job["state"] == "done"
    edited = studio.draw("/api/edits", query="smile", steps=["glasses"], allow_weak=["glasses"])
    assert [picture["verdict"][:10] for picture in edited["pictures"]] == ["Not judged"] * 2


@pytest.mark.parametrize("verify", [None, "sure", "off"])
@pytest.mark.parametrize("reader", ["judge", "verifier"])
def test_a_check_says_what_a_drawing_does(tmp_path, reader, verify):
    folder = tiny_model(tmp_path)
    AttributeBank.load(folder).with_reports({"glasses": WEAK}).save(folder)
    model = load_model(folder)
    if reader == "verifier":
        model = replace(model, verifier=model.judge, judge=None)
    studio = Studio({"tiny": Session(model, model.device)})
    query = {"query": "glasses", "verify": verify}
    check = studio.check(CheckRequest(**query))
    if verify == "sure" or (reader == "verifier" and verify is None):
        assert check.ok
        studio.draw(DrawRequest(**query, n=1))
    else:
        with pytest.raises(WeakHeadError) as caught:
            studio.draw(DrawRequest(**query, n=1))
        assert (check.problem.message, check.problem.hint) == (caught.value.message, caught.value.hint)
    studio.close()


def test_a_check_needs_a_reader_of_pictures_to_verify(studio):
    check = studio.post("/api/check", {"query": "smile", "verify": "sure"}).json()
    assert check["problem"]["message"].endswith("has no verifier and no judge")


def test_doubtful_pictures(tmp_path):
    folder = tiny_model(tmp_path)
    with serving([str(folder)]) as client:
        pictures = client.draw(query="smile", n=8, seed=12)["pictures"]
    expected = generate("smile", 8, seed=12, model=folder, progress=False).doubtful
    assert 0 < expected.sum() < 8
    assert [picture["doubtful"] for picture in pictures] == expected.tolist()
    assert [picture["doubt"] for picture in pictures] == [DOUBT if doubtful else "" for doubtful in expected]
    assert [picture["alt"].endswith(f"It is doubtful: {DOUBT}.") for picture in pictures] == expected.tolist()


@pytest.mark.browser
def test_the_page(chromium, studio):
    from playwright.sync_api import expect  # Playwright takes seconds to import

    from studio.page import draw, visiting

    with visiting(chromium, studio.url) as visitor:
        page = visitor.open()
        page.locator("#query textarea").fill("smile")
        page.locator("#query .verdict.good").wait_for()
        draw(page, 2)
        assert page.locator("#wall .badge").count() == 0
        assert page.locator("#wall li.yes, #wall li.no").count() == 0
        expect(page.locator("#summary")).to_have_text(re.compile("^not judged: the model has no judge"))
        page.locator("#wall .tile").first.click()
        expect(page.locator("#view .says")).to_have_text(re.compile("^Not judged: the model has no judge. P"))
        assert page.locator("#view .badge").count() == 0
