import json
import re

import pytest
import short
import torch
from labelled import CHECKPOINTS, write_csv
from toys import tiny_model
from typer.testing import CliRunner

from energyql.attributes.bank import FittedUnder
from energyql.cli import main as cli
from energyql.errors import ArgumentError, DataError, EnergyQLError, ModelError
from energyql.generators.load import load_generator
from energyql.pipeline.model import load_model
from energyql.training import teacher
from energyql.training.picture_fit import PictureSettings
from energyql.training.samples import Prior

LOOK = """
def look(images):
    return {"smile": images[:, 0].mean((1, 2)) > images[:, 2].mean((1, 2)), "age": 40 + 100 * images.mean((1, 2, 3))}


def see(images):
    return {"smile": images[:, 0].mean((1, 2)) > images[:, 2].mean((1, 2)) + 0.02}
"""


def run(*words):
    outcome = CliRunner().invoke(cli.app, [str(word) for word in words])
    if isinstance(outcome.exception, EnergyQLError):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model without a judge, and a module of labellers beside it."""
    settings = PictureSettings(side=8, channels=(4, 8), least=2_500, most=2_500, lr=1e-2)
    short.networks(monkeypatch, settings)
    (tmp_path / "gaze.py").write_text(LOOK)
    monkeypatch.chdir(tmp_path)
    return tiny_model(tmp_path / "m", judge=False)


def test_from_a_labeller(model):
    assert "not judged: smile, hair, age, glasses, beard\n" in run("report", model, "--full")
    output = run("train-judge", model, "--labeller", "gaze:look", "-n", 300, "--device", "cpu")
    assert output.endswith(f"Saved {model}; all numbers: energyql report {model} --full\n\n{run('report', model)}")
    output = run("report", model, "--full")
    assert re.search(
        r"^Judge judge.safetensors, on labels of pictures that it did not learn from:\n"
        r"  smile, yes/no: balanced accuracy [01]\.\d\d \(0\.\d\d to [01]\.\d\d\), chance 0\.50\n"
        r"    measured on 150 of 300 labels; calibration error 0\.\d\d\d; recall of no [01]\.\d\d, yes [01]\.\d\d$",
        output,
        re.MULTILINE,
    )
    assert "smile" in load_model(model).judged_names
    verifier, _ = re.findall(r"(?m)^  smile, .*\n    .*$", output)
    assert "measured on 300 of 300 labels; " in verifier  # in turn: each label serves to learn and to measure
    assert output.index("Verifier, which decides") < output.index(verifier) < output.index("Judge judge.safetensors")
    assert "not judged: hair," in output
    (found,) = json.loads(run("report", model, "--json"))["judges"]
    assert found["judge"] == "judge.safetensors"
    smile = found["attributes"]["smile"]
    assert (smile["fitted"], smile["held_out"]) == (150, 150)  # heads of several truncations propose no pictures
    assert found["attributes"]["smile"]["measure"] == "balanced accuracy"


def test_from_a_table_for_a_copy(model, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    from gaze import look  # the module that the fixture wrote

    monkeypatch.setattr(teacher, "FURTHER", 300)
    loaded = load_model(model)
    prior = Prior(loaded.generator, 3, FittedUnder("w", (0.7, 0.7)), loaded.device)
    index = list(range(200))
    labels = look(loaded.generator.synthesize(prior.w(torch.tensor(index))))
    table = write_csv(tmp_path / "labels.csv", {"index": index, "smile": labels["smile"].tolist()})
    with pytest.raises(ArgumentError, match="labelled by hand have one truncation"):
        run("train-judge", model, "--labels", table)
    narrow = tiny_model(tmp_path / "narrow", judge=False, truncation=(0.7, 0.7))
    assert run("train-judge", narrow, "--labels", table, "--seed", 3, "-o", "copy", "--only", "smile", "-q") == ""
    assert load_model("copy").judged_names == ("smile",)
    assert load_model("copy").judge_report["smile"].held_out == 100
    assert [len(samples.labels["smile"]) for samples in load_model("copy").held_out] == [200 + 300]
    assert load_model(narrow).judge is None


def test_one_by_name_is_measured(model):
    run("train-judge", model, "--labeller", "gaze:look", "--judge", "gaze:see", "-n", 100)
    output = run("report", model, "--full")
    assert "Judge gaze:see, on labels of pictures that it did not learn from:\n  smile, yes/no: balanced acc" in output
    assert "measured on 100 of 100 labels; recall of no" in output
    known = load_model(model, allow_plugins=True)
    assert known.judge_report["smile"].held_out == 100
    run("train-judge", model, "--labeller", "gaze:look", "--judge", "gaze:look", "-n", 100)
    assert "  not measured: no labels of pictures were at hand" in run("report", model, "--full")


def test_a_judge_of_little_skill_is_marked(model, tmp_path):
    (tmp_path / "coin.py").write_text("def toss(images):\n    return {'smile': [i % 2 for i in range(len(images))]}\n")
    run("train-judge", model, "--labeller", "gaze:look", "--judge", "coin:toss", "-n", 100)
    output = run("report", model, "--full")
    assert "    weak: little or not clearly better than chance, so its verdicts say little\n" in output


def test_mistakes(model):
    for words, error, message in (
        ([model], ArgumentError, "labels come from nowhere\ngive one of --labels, --labeller, --prompts"),
        ([model, "--labels", "no.csv"], DataError, r"no\.csv is missing"),
        ([model, "--labeller", "gaze:look", "--judge", "nothing"], ArgumentError, "among its judges"),
        ([model, "--labeller", "gaze:look", "--only", "smil", "-n", 20], DataError, "the model has smile, hair, age"),
        (["avatars", "--labeller", "gaze:look"], ArgumentError, "the packaged model 'avatars' is not changed"),
        ([CHECKPOINTS / "ada.pkl", "--labeller", "gaze:look", "-o", "new"], ModelError, "has no attributes to judge"),
    ):
        with pytest.raises(error, match=message):
            run("train-judge", *words)
    assert load_generator(model)
