"""What docs/teach.md says, done by somebody who teaches a tiny network on the page."""

import io
import shutil
import time
from pathlib import Path

import numpy as np
from labelled import CHECKPOINTS
from labelling.pages import running
from markdown import ROOT, run_page
from PIL import Image

from energyql.pipeline.generate import generate
from energyql.pipeline.model import load_model
from energyql.studio.guard import Access
from energyql.studio.web import Listening

WAIT = 120.0


def until(true):
    """Wait for what the thread of the lesson does."""
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def teach(make, *, ready, **_):
    """Serve the page while somebody says of two screens which pictures are bright, and asks for some."""
    with running(make(Access())) as client:
        ready(Listening((client.url,), False, False))
        client.post("/api/attributes", {"page": "a", "text": "glasses"})
        until(lambda: client.get("/api/lesson").json()["drawn"] >= 300)
        for _ in range(2):
            cells = client.get("/api/wall?attribute=glasses").json()["screen"]
            numbers = [cell["number"] for cell in cells]
            files = [client.get(f"/api/pictures/{number}.png").body for number in numbers]
            light = [float(np.asarray(Image.open(io.BytesIO(file))).mean()) for file in files]
            labels = {str(n): "yes" if x > np.median(light) else "no" for n, x in zip(numbers, light, strict=True)}
            assert client.post("/api/labels", {"page": "a", "attribute": "glasses", "labels": labels}).status == 200
        assert client.post("/api/questions", {"query": "NOT glasses", "n": 2}).status == 202
        until(lambda: client.get("/api/questions").json()["finished"])
        until(lambda: client.get("/api/lesson").json()["newest"])


def test_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(CHECKPOINTS / "ada.pkl", "ffhq.pkl")
    monkeypatch.setattr("energyql.studio.web.serve_app", teach)
    monkeypatch.setattr("typer.launch", lambda address: 0)
    run_page(ROOT / "docs" / "teach.md", elsewhere=lambda words: words[:2] == ["pip", "install"])
    assert list(load_model("faces").vocabulary) == ["glasses"]
    assert Path("faces/pictures/labels.csv").is_file()
    assert len(generate("glasses", 2, model="faces", verify="off", allow_weak=["glasses"])) == 2
