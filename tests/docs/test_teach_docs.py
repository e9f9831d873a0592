"""What docs/teach.md says, done by somebody who teaches a tiny network and photographs on the page."""

import io
import shutil
import time
from pathlib import Path

import markdown
import numpy as np
import pytest
from labelled import CHECKPOINTS
from labelling.pages import running
from markdown import ROOT, run_page
from PIL import Image

from energyql.attributes.judge import load_judge
from energyql.labelling.sample import sample_pictures
from energyql.pipeline.model import load_model
from energyql.studio.guard import Access
from energyql.studio.web import Listening

PAGE = ROOT / "docs" / "teach.md"
WAIT = 120.0
LOOKS = {"glasses": lambda pixels: pixels.mean(), "smile": lambda pixels: pixels[..., 0].mean() - pixels[..., 1].mean()}
"""Attribute -> the number that pictures which have it have more of."""


def until(true):
    """Wait for what the thread of the lesson does."""
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def teach(make, *, ready, **_):
    """Serve the page while somebody says of three screens of each attribute which pictures have it, and asks."""
    with running(make(Access())) as client:
        ready(Listening((client.url,), False, False))
        found = client.get("/api/lesson")
        if found.status != 200:  # the studio
            (name,) = (each["name"] for each in client.get("/api/info").json()["models"])
            assert client.get(f"/lessons/{name}/").status == 200
            return
        state = found.json()
        client.post("/api/attributes", {"page": "a", "text": "glasses, smile" if "avatars" not in state else "sad"})
        until(lambda: client.get("/api/lesson").json()["drawn"] >= state["wanted"])
        for name, look in LOOKS.items():
            for _ in range(3):
                cells = client.get(f"/api/wall?attribute={name}").json()["screen"]
                files = [client.get(f"/api/pictures/{cell['number']}.png").body for cell in cells]
                seen = [look(np.asarray(Image.open(io.BytesIO(file)), float)) for file in files]
                limit = np.median(seen)
                labels = {str(c["number"]): "yes" if x > limit else "no" for c, x in zip(cells, seen, strict=True)}
                assert client.post("/api/labels", {"page": "a", "labels": {name: labels}}).status == 200
        assert client.post("/api/questions", {"query": "NOT glasses", "n": 2}).status == 202
        until(lambda: client.get("/api/questions").json()["finished"])
        until(lambda: client.get("/api/lesson").json()["newest"])


@pytest.fixture
def walk(tmp_path, monkeypatch):
    """A folder with what the page takes for granted, and pages that somebody clicks."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(CHECKPOINTS / "ada.pkl", "ffhq.pkl")
    sample_pictures("ffhq.pkl", "photographs", 100, seed=9)
    for module in ("web", "serving"):
        monkeypatch.setattr(f"energyql.studio.{module}.serve_app", teach)
    monkeypatch.setattr("typer.launch", lambda address: 0)
    return tmp_path


def test_the_page(walk, monkeypatch):
    call = markdown.call

    def quick(words):
        few = {"train": ["-n", "300"], "teach": ["-n", "280"]}
        return call([*words, *few.get(words[1], ())])

    monkeypatch.setattr(markdown, "call", quick)
    run_page(PAGE, elsewhere=lambda words: words[:2] == ["pip", "install"])
    assert list(load_model("faces").vocabulary) == ["glasses", "smile"]
    assert Path("faces/pictures/labels.csv").is_file()
    assert len([file for file in Path("result").glob("*.png") if file.stem.isdigit()]) == 16
    assert list(load_judge(Path("judge")).vocabulary) == ["glasses", "smile"]
    assert list(load_model("from-photographs").vocabulary) == ["glasses", "smile"]


def test_the_readme_has_its_commands():
    (readme,) = markdown.texts(ROOT / "README.md", "sh", "Your own model")
    page = [line for text in markdown.texts(PAGE, "sh") for line in text.splitlines()]
    assert len(readme.splitlines()) == 2
    assert set(readme.splitlines()) <= set(page)
