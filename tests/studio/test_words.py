"""Texts in quotes in the studio, read by a toy reader of brightness."""

import json

import pytest
import torch
from playwright.sync_api import expect
from toys import tiny_model

from energyql import generate
from energyql.attributes.quality import HeadReport
from energyql.attributes.words import Calibration, Words
from energyql.errors import UnknownAttribute
from energyql.pipeline import texts
from energyql.pipeline.model import load_model
from energyql.pipeline.session import Session
from energyql.studio.restoring import restore
from energyql.studio.schemas import CheckRequest, DrawRequest
from energyql.studio.studio import Studio
from studio.client import serving
from studio.page import visiting


class Bright:
    def read(self, pictures, texts):
        bright = 40 * pictures.mean((1, 2, 3))
        return torch.stack([bright if text == "a bright picture" else 0 * bright for text in texts], 1)


REPORT = HeadReport("yes/no", 0, 30, {"no": 15, "yes": 15}, 0.5, (0.3, 0.7), {"no": (0.5, 0.3, 0.7)}, 0.1)


@pytest.fixture
def studio(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "COUNT", 128)
    monkeypatch.setenv("ENERGYQL_CACHE", "")
    words = Words(Bright(), "my/bright", "1", {"a cat": Calibration(labels=30, report=REPORT)})
    model = load_model(tiny_model(tmp_path), reader=words)
    bare = load_model(tmp_path)
    studio = Studio({"tiny": Session(model, model.device), "bare": Session(bare, bare.device)})
    yield studio
    studio.close()


def wait(studio, job):
    while (info := studio.look(job.id)).state in ("waiting", "running"):
        pass
    assert info.state == "done", info
    return info


def test_a_picture_is_drawn_and_drawn_again(studio):
    query = '"a bright picture"'
    job = wait(studio, studio.draw(DrawRequest(query=query, n=2)))
    assert "the reader of words bright, zero-shot" in job.summary
    _, result = studio.store.get(job.id)
    provenance = result.results[0].provenance
    marks = {name: pipeline.model.fingerprints for name, pipeline in studio.models.items()}
    restored = restore(json.dumps(provenance | {"index": 0}), marks)
    assert restored.request["query"] == query and restored.request["verify"] == "sure" and not restored.notes
    plain = generate("smile", n=1, model=studio.models["tiny"].model, progress=False).provenance
    assert not restore(json.dumps(plain | {"index": 0}), marks).notes
    changed = {"tiny": marks["tiny"] | {"words": "2"}, "bare": marks["bare"]}
    assert not restore(json.dumps(plain | {"index": 0}), changed).notes
    (weights,) = restore(json.dumps(provenance | {"index": 0}), changed).notes
    assert "other weights" in weights
    without = {"query": query, "model": "bare"}
    with pytest.raises(UnknownAttribute, match="reader="):
        studio.draw(DrawRequest(**without, n=1))
    assert "reader=" in studio.check(CheckRequest(**without)).problem.hint


@pytest.mark.parametrize("verify", [None, "sure", "off"])
def test_checks_draw_nothing(studio, verify, monkeypatch):
    monkeypatch.setattr(texts.PriorPictures, "log_odds", None)
    check = studio.check(CheckRequest(query='"a bright picture" AND NOT smile', verify=verify))
    assert check.ok and check.canonical == '"a bright picture" AND NOT smile'
    weak = studio.check(CheckRequest(query='"a cat"', verify=verify))
    assert weak.problem.message.startswith("the reader of 'a cat' is too weak")


def test_the_page_is_told_the_reader(studio):
    first, second = studio.info.models
    assert (first.words, first.texts) == ("bright", ['"a cat"'])
    assert (second.words, second.texts) == (None, [])


@pytest.mark.browser
def test_the_page_completes_texts_and_names_their_reader(studio, chromium):
    with serving(studio) as client, visiting(chromium, client.url) as visitor:
        page = visitor.open()
        box = page.locator("#query textarea")
        box.fill("")
        box.press_sequentially('smile AND "a c')
        offer = page.locator("#query .offers li").first
        expect(offer).to_contain_text("a cat")
        expect(offer).to_contain_text("read by bright")
        box.press("Tab")
        expect(box).to_have_value('smile AND "a cat" ')
        expect(page.locator("#query .verdict")).to_contain_text("The reader of 'a cat' is too weak")
        assert "".join(page.locator("#query .t-attribute").all_text_contents()) == 'smile"a cat"'
        assert "".join(page.locator("#query .caret").all_text_contents()) == '"a cat"'
