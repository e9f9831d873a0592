"""The first lines of docs/noise.md, done with a small pipeline; tests/generators/test_diffusers.py runs the others."""

import sys

import pytest
from markdown import ROOT, blocks, execute
from needed import needed

needed("diffusers")
PAGE = ROOT / "docs" / "noise.md"
LOOK = """
def look(images):
    red, green, blue = images.mean((2, 3)).unbind(1)
    above, below = (half.mean((1, 2, 3)) for half in images.chunk(2, dim=2))
    hair = ["red" if more else "black" for more in red > 0.005]
    return {"hat": green > -0.007, "glasses": above - below > 0, "beard": blue > 0.08, "hair": hair}
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_first_lines_choose_the_pictures(tmp_path, monkeypatch):
    from pipelines import latent

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    latent().save_pretrained("my-pipeline")
    (tmp_path / "my_looks.py").write_text(LOOK, encoding="utf-8")
    first, names = blocks(PAGE)[0], {}
    assert len(first.text.split("\n\n")[1].splitlines()) == 5
    quick = first.text.replace("judge=look)", "judge=look, n=300)", 1).replace("n=16", "n=2")
    try:
        execute(type(first)(first.language, quick, first.line, first.before, first.section), names, PAGE)
    finally:
        sys.modules.pop("my_looks", None)
    assert "2 of 2 satisfy the query by the definition" in names["result"].summary()
    assert (tmp_path / "red.png").exists()
