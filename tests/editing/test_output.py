"""Filmstrips, animations, folders, and the commands that write them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageColor
from typer.testing import CliRunner

import energyql
from energyql import generate
from energyql.cli.edit import read_layers, read_preset, read_start
from energyql.cli.main import app
from energyql.editing.filmstrip import step_column
from energyql.editing.settings import PRESETS
from energyql.errors import ArgumentError
from energyql.pipeline.result_words import MARK
from energyql.render.pictures import NO, YES


def test_filmstrip(edited):
    strip, two = edited.filmstrip(), edited.filmstrip([0, 1])
    assert strip.width == two.width > 4 * 100
    assert strip.height > 2 * two.height
    with pytest.raises(ArgumentError, match="there is no picture 6"):
        edited.filmstrip([6])
    leaks = replace(edited.leaks[0], changed={name: np.arange(6) < 2 for name in ("a", "b")}, implied={})
    captions = step_column(replace(edited.steps[0], doubtful=np.arange(6) == 1), leaks, "smile").captions
    assert captions[:3] == ["2 changed: a, b", f"{MARK}, 2 changed: a, b", ""]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animation(edited, tmp_path, suffix):
    path = edited.animate(tmp_path / f"edit{suffix}", rows=[0, 1], frames=3)
    with Image.open(path) as picture:
        assert picture.n_frames >= 4
        assert picture.info["loop"] == 0


def test_traversal(model, tiny, tmp_path):
    stops = [generate(query, 2, model=model, progress=False) for query in ("smile", "NOT smile")]
    reports = []
    report = lambda *stage: reports.append(stage)  # noqa: E731
    path = energyql.animate(stops, tmp_path / "way.webp", model=model, frames=4, progress=report)
    assert reports == [("frames", fraction) for fraction in (0.25, 0.5, 0.75, 1)]
    with Image.open(path) as picture:
        assert picture.n_frames == 5
    with pytest.raises(ArgumentError, match="at least two results\nmake them by `generate`"):
        energyql.animate(stops[:1], tmp_path / "way.webp", model=model)
    stops[1].provenance["truncation"] = 0.5
    with pytest.raises(ArgumentError, match="not all of this model at one truncation"):
        energyql.animate(stops, tmp_path / "way.webp", model=model)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("a.mp4", {}, "ends in .gif or .webp, not .*\n.* ffmpeg "),
        ("a.gif", {"frames": 0}, "frames must be"),
        ("a.gif", {"seconds": 0.001}, "seconds must lie"),
    ],
)
def test_wrong_animations(edited, tmp_path, name, settings, message):
    with pytest.raises(ArgumentError, match=message):
        edited.animate(tmp_path / name, **settings)


def test_folder(edited, tmp_path):
    folder = edited.save(tmp_path / "all")
    data = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
    assert [step["query"] for step in data["steps"]] == edited.queries
    assert len(data["steps"][0]["satisfied"]) == 6
    assert (folder / "filmstrip.png").is_file()
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"0-start", "1", "2", "3"}
    with pytest.raises(ArgumentError):
        edited.save(tmp_path / "all.txt")


def test_an_edit_that_nobody_judges(edit, model, tmp_path):
    edited = edit(5, ["smile"], model=replace(model, judge=None), n=2)
    assert [result.satisfied for result in (edited.start, edited.final)] == [None, None]
    assert edited.summary().startswith("1. not judged: the model has no judge; mean P ")
    assert edited.to_dict()["steps"][0]["satisfied"] is None
    colours = {colour for _, colour in edited.filmstrip().getcolors(1 << 16)}
    assert not colours & {ImageColor.getrgb(YES), ImageColor.getrgb(NO)}
    saved = json.loads((edited.save(tmp_path / "all") / "1" / "result.json").read_text(encoding="utf-8"))
    assert [sample["satisfied"] for sample in saved["samples"]] == [None, None]
    assert saved["provenance"]["judge"] is None


def test_summary(edited):
    assert edited.summary().count("of 6 satisfy the query, says the image judge") == 3
    assert repr(edited).startswith("<Edit of 6 pictures in 3 steps>")
    one = replace(edited, start=edited.start[:1], steps=edited.steps[:1], leaks=edited.leaks[:1])
    assert repr(one).startswith("<Edit of 1 picture in 1 step>")
    assert repr(one.leaks) == f"[{one.leaks[0]}]"
    assert edited._repr_png_().startswith(b"\x89PNG")


def run(*arguments):
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", ["edit.png", "edit.gif", "edit.webp", "folder"])
def test_edit_command(tiny, tmp_path, name):
    output = run("edit", "smile", "-s", "3", "-m", tiny, "-o", tmp_path / name)
    assert (tmp_path / name).exists()
    assert "1 of 1 satisfy" in output or "0 of 1 satisfy" in output


@pytest.mark.parametrize("command", [("edit", "smile"), ("invert", "missing.png")])
def test_a_run_stays(tmp_path, command):
    (tmp_path / "result.json").write_text("{}")
    done = CliRunner().invoke(app, [*command, "-m", "nothing", "-o", str(tmp_path)])
    assert f"{tmp_path} holds a run" in str(done.exception)  # before a model is looked for


def test_animate_command(tiny, tmp_path):
    run("animate", "smile", "beard", "-n", "1", "--frames", "2", "-q", "-m", tiny, "-o", tmp_path / "way.gif")
    assert (tmp_path / "way.gif").is_file()


def test_options(tmp_path):
    assert read_start([str(tmp_path)]) == tmp_path
    assert read_start(["7"]) == 7
    assert read_start(["7", "8"]) == [7, 8]
    assert [str(path) for path in read_start(["a.png"])] == ["a.png"]
    with pytest.raises(ArgumentError, match="not from both"):
        read_start(["7", "a.png"])
    for number in ("9" * 5000, "٣", "-1", "1.5"):
        with pytest.raises(ArgumentError, match="is not a seed"):
            read_start([number])
    assert read_layers(["0,2-4"]) == [0, 2, 3, 4]
    assert read_layers(["hair=6-8", "smile=1"]) == {"hair": [6, 7, 8], "smile": [1]}
    assert read_layers([]) is None
    with pytest.raises(ArgumentError, match="layers are written"):
        read_layers(["first"])
    with pytest.raises(ArgumentError, match="layers are given once, or for attributes"):
        read_layers(["1", "hair=2"])


def test_weights():
    chosen = read_preset("lace", ["near_z=0.5", "keep_logits=0"])
    assert chosen == replace(PRESETS["lace"], near_z=0.5, keep_logits=0.0)
    for weight, message in (
        ("far=1", "no weight 'far'.*near_w"),
        ("near_z", "near_z=0.5, not 'near_z'"),
        ("near_z=-1", "near_z must be from 0"),
    ):
        with pytest.raises(ArgumentError, match=f"(?s){message}"):
            read_preset("default", [weight])
