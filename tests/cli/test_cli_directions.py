"""The command `energyql directions`: look, then name."""

import json
import re

import pytest
from commands import invoke
from PIL import Image
from toys import tiny_model

from energyql.errors import ArgumentError, DataError
from energyql.pipeline.model import load_model
from energyql.training import goals


def run(*arguments):
    outcome = invoke(*arguments)
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_find_look_name_ask(tmp_path):
    model, folder = tiny_model(tmp_path / "m"), tmp_path / "found"
    output = run("directions", "-m", model, "--method", "sefa", "-n", 3, "--layers", "0-2", "-o", folder, "-q")
    assert output == ""
    assert sorted(path.name for path in folder.iterdir()) == [
        "directions.json",
        "directions.png",
        "directions.safetensors",
    ]
    record = json.loads((folder / "directions.json").read_text())
    assert (record["method"], record["layers"], len(record["directions"])) == ("sefa", [0, 1, 2], 3)
    with Image.open(folder / "directions.png") as page:
        assert page.size[0] > 10 * 128
    output = run(
        "directions", "-m", model, "-o", folder, "--name", "1=tilt", "--name", "0 = lift", "--into", tmp_path / "n"
    )
    assert output.endswith("Saved tilt, lift; the model has 7 attributes now\n")
    assert list(load_model(tmp_path / "n").vocabulary)[-2:] == ["tilt", "lift"]
    assert "tilt" not in load_model(model).vocabulary
    listed = " ".join(run("attributes", "-m", tmp_path / "n").split())
    assert re.search(r"tilt -4 to 4 \(sefa 1, layers 0, 1, 2, in", listed)
    query = run("generate", "tilt > 0.5 AND NOT smile", "-m", tmp_path / "n", "-n", 2, "-o", tmp_path / "a.png", "-q")
    assert query == ""


def test_the_shares_are_printed(tmp_path):
    output = run("directions", "-m", tiny_model(tmp_path / "m"), "-n", 2, "-o", tmp_path / "found")
    assert re.search(r"^0: share \d+\.\d %, values -\d\.\d to \d\.\d$", output, re.MULTILINE)
    assert "Look at directions.png" in output


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--name", "0=a", "--method", "sefa"], ArgumentError, "--name is for the directions that .* holds"),
        (["--name", "0=a", "-n", 3], ArgumentError, "--name is for the directions"),
        (["--name", "0=a"], ArgumentError, "the packaged model 'avatars' is not changed"),
        (["--name", "0=a", "--into", "x"], DataError, "holds no directions"),
        (["--name", "smile", "--into", "x"], ArgumentError, "--name: 'smile' is not of the form NUMBER=NAME"),
        (["--name", f"{'9' * 5000}=a", "--into", "x"], ArgumentError, "9=a is not NUMBER=NAME"),
        (["--name", "²=a", "--into", "x"], ArgumentError, "²=a is not NUMBER=NAME"),
        (["--name", "0=", "--into", "x"], ArgumentError, "'0=' is not of the form NUMBER=NAME"),
        (["--name", "0=a", "--name", "0=b", "--into", "x"], ArgumentError, "--name: 0 is given twice"),
        (["--name", "0= ", "--into", "x"], ArgumentError, "0=  is not NUMBER=NAME"),
        (["--name", "0=a", "--name", "00=b", "--into", "x"], ArgumentError, "00=b gives a number or a name twice"),
        (["--name", "0=a", "--name", "1=a", "--into", "x"], ArgumentError, "1=a gives a number or a name twice"),
        (["--into", "x"], ArgumentError, "--into and --replace are for attributes"),
        (["--name", "0=a", "--goals", "zoom"], ArgumentError, "--name is for the directions"),
        (["--name", "0=a", "--labeller", "a:b"], ArgumentError, "--name is for the directions"),
        (["--goals", "zoom"], ArgumentError, "ganspace has no goals"),
        (["--method", "steerability", "--goals", "zoom,red", "-n", 1], ArgumentError, "2 goals .*\nraise count, -n 2"),
        (
            ["--method", "ganalyze", "--labeller", "math:pi"],
            ArgumentError,
            "math:pi cannot be called with pictures: it is of type float",
        ),
        (["--layers", "a"], ArgumentError, "layers are written"),
        (["--layers", "9-4"], ArgumentError, "layers are written 4-9 or 0,1,7, not '9-4'"),
        (["--device", "gpu"], ArgumentError, "device 'gpu' is not available here"),
    ],
)
def test_mistakes(arguments, kind, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message):
        run("directions", "-o", tmp_path / "found", *arguments)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "found").exists()


def test_goals_are_learned_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(goals, "STEPS", 16)
    model, folder = tiny_model(tmp_path / "m"), tmp_path / "found"
    output = run("directions", "-m", model, "--method", "steerability", "--goals", "blue, zoom", "-o", folder)
    assert re.search(r"^zoom: share \d+\.\d %, values .*\nblue: share \d+\.\d %, values ", output, re.MULTILINE)
    with Image.open(folder / "directions.png") as page:
        assert page.size[0] > 10 * 128
    run("directions", "-m", model, "-o", folder, "--name", "0=near", "--into", tmp_path / "n", "-q")
    assert load_model(tmp_path / "n").vocabulary["near"].description.startswith("steerability zoom, in standard")
    output = run("directions", "-m", model, "--method", "ganalyze", "--goals", "smile", "-n", 3, "-o", tmp_path / "s")
    assert re.search(r"^smile: share", output, re.MULTILINE)
