"""What docs/newcomer.md says, done by somebody who labels the pictures of a tiny network on the page."""

import io
import re
import shutil
from pathlib import Path

import markdown
import numpy as np
import pytest
import short
from labelled import CHECKPOINTS
from labelling.pages import running
from markdown import ROOT, run_page
from PIL import Image

from energyql.labelling.folder import LABELS, PictureFolder
from energyql.labelling.sheet import LabelSheet
from energyql.pipeline.model import load_model
from energyql.studio.guard import Access
from energyql.studio.web import Listening
from energyql.training import teacher
from energyql.training.picture_fit import PictureSettings

PAGE = ROOT / "docs" / "newcomer.md"
SMALL = PictureSettings(side=8, channels=(8, 16), least=1_536, most=1_536, lr=1e-2)


def look(file):
    """What a person sees, whose glasses are red, whose hair is green, and who grows older with contrast."""
    pixels = np.asarray(Image.open(file).convert("RGB"), dtype=float) / 255
    red, green, _ = pixels.mean((0, 1))
    hair = "black" if green < 0.33 else "brown" if green < 0.53 else "blond"
    return {"glasses": bool(red > 0.85), "hair": hair, "age": float(5 * pixels.mean(2).std())}


def label_all(make, *, ready, **_):
    """Serve the page while somebody labels up to 20 pictures on it, and then the others in the table."""
    with running(make(Access())) as client:
        ready(Listening((client.url,), False, False))
        for _ in range(20):
            if not (coming := client.get("/api/state").json()["next"]):
                break
            index = coming[0]
            picture = client.get(f"/api/pictures/{index}.png")
            answer = client.post("/api/labels", {"index": index, "labels": look(io.BytesIO(picture.body))})
            assert answer.status == 200, answer.body
    folder = PictureFolder.read(Path("pictures"))
    sheet = LabelSheet.open(folder.path / LABELS, folder, None)
    known = sheet.rows()
    sheet.update({index: look(folder.file(index)) for index in folder.indices if index not in known})


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder after the whole page, and what its commands printed."""
    folder, printed, call = tmp_path_factory.mktemp("newcomer"), [], markdown.call
    shutil.copy(CHECKPOINTS / "ada.pkl", folder / "ffhq.pkl")

    def quick(words):
        quicker = ["--steps", "120"] if words[1] == "train" else ["--pool", "120"] if "--unsure" in words else []
        # After so short a training, no picture may be accepted.
        quicker += ["--verify", "off"] if words[1] == "generate" else []
        printed.append(call([*words, *quicker]))
        return printed[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("energyql.studio.web.serve_app", label_all)
        patch.setattr("typer.launch", lambda address: 0)
        patch.setattr(markdown, "call", quick)
        patch.setattr(teacher, "FURTHER", 100)
        short.networks(patch, SMALL)
        names = run_page(PAGE, elsewhere=lambda words: words[:2] == ["pip", "install"])
    assert "generate" in names
    return folder, printed


def test_everything_is_labelled_in_two_rounds(walked):
    folder = walked[0]
    pictures = PictureFolder.read(folder / "pictures")
    assert (pictures.random, len(pictures.unsure), pictures.drawn.seed) == (300, 100, 7)
    rows = (folder / "pictures" / "labels.csv").read_text().splitlines()
    assert len(rows) == 401
    assert rows[0] == "index,chosen,drawn,glasses,hair=black|brown|blond,age=0..1"


def test_the_round_says_what_it_gained(walked):
    shown = markdown.texts(PAGE, "text", "Label where it helps")[0].rstrip()
    form = re.sub(r"[-+]?\d+(\.\d+)?", "N", shown)
    (line,) = [line for text in walked[1] for line in text.splitlines() if line.startswith("age: ")]
    assert re.sub(r"[-+]?\d+(\.\d+)?", "N", line) == form
    for name in ("hair", "glasses"):
        assert any(line.startswith(f"{name}: balanced accuracy ") for text in walked[1] for line in text.splitlines())


def test_the_pictures_are_what_was_asked_for(walked):
    folder = walked[0]
    assert load_model(folder / "faces").truncation == 0.7
    seen = [look(file) for file in (folder / "result").glob("*.png") if file.stem.isdigit()]
    assert len(seen) == 16
    assert sum(each["glasses"] and each["hair"] != "blond" for each in seen) >= 13
