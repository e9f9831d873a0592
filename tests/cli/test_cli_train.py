import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from labelled import CHECKPOINTS, answers, latents_of, write_csv
from toys import VOCABULARY, tiny_model
from typer.testing import CliRunner

from energyql.attributes.quality import HeadReport
from energyql.cli.reports import report
from energyql.cli.train import import_heads, train
from energyql.errors import ArgumentError, DataError, EnergyQLError, ModelError, VocabularyError
from energyql.generators.load import load_generator
from energyql.pipeline.model import load_model
from energyql.training import teacher

ADA = str(CHECKPOINTS / "ada.pkl")
NO_NETWORK = r"(?:No network reads pictures, so none is ticked: energyql train-judge [^\n]*\n\n)"
"""A sentence of a training that is there if an attribute is ready, but no network reads pictures."""
app = typer.Typer()
app.command()(train)
app.command()(import_heads)
app.command()(report)


def run(*words):
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(outcome.exception, EnergyQLError):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


@pytest.fixture
def table(tmp_path):
    found = answers(latents_of(load_generator(ADA), 80, 0.7, seed=0))
    return write_csv(
        tmp_path / "labels.csv",
        {"index": list(range(80)), "glasses": found["glasses"].tolist(), "hair": found["haircolor"].tolist()},
    )


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    monkeypatch.setattr(teacher, "FURTHER", 50)


def test_a_table_of_what_was_learned(tmp_path, table):
    output = run("train", ADA, "--labels", table, "--out", tmp_path / "m", "--steps", 9, "--kind", "hair=categorical")
    assert f"Saved {tmp_path / 'm'}; all numbers: energyql report {tmp_path / 'm'} --full\n\nglasses  " in output
    output, _, hint = output.rpartition("\nA network that knows photographs reads better from few labels: ")
    assert hint.startswith("pip install ")
    verdict = r"(?:ready|works where pictures are verified|needs about \d+0 more labels of \w+)"
    assert re.search(
        rf"\n\nglasses  {verdict}\nhair     {verdict}\n\n{NO_NETWORK}?To draw pictures .*, type: energyql .*\n$",
        output,
    )
    short = run("report", tmp_path / "m")
    assert output.endswith(f"\n\n{short}")
    output = run("report", tmp_path / "m", "--full")
    assert re.search(
        r"^glasses, yes/no: balanced accuracy 0\.\d\d \(0\.\d\d to [01]\.\d\d\), chance 0\.50$", output, re.MULTILINE
    )
    assert re.search(
        r"^  measured on 16 of 80 labels; calibration error 0\.\d+; recall of no \d\.\d\d, yes ", output, re.MULTILINE
    )
    assert re.search(
        r"^  weak, so queries (?:refuse it|use it only where pictures are verified): ", output, re.MULTILINE
    )
    by_hand = "learnt from labels by hand alone: a network that read the pictures was not clearly better than chance"
    taught = r"learnt also from 50 pictures labelled by a network, whose balanced accuracy is 0\.\d\d on 64 labels"
    assert len(re.findall(f"^  (?:{by_hand}|{taught})$", output, re.MULTILINE)) == 2
    data = json.loads(run("report", tmp_path / "m", "--json"))
    assert set(data["heads"]) == {"glasses", "hair"}
    assert data["heads"]["glasses"]["score"] == load_model(tmp_path / "m").report["glasses"].score
    judged = [name for judge in data["judges"] for name in judge["attributes"]]
    unread = [name for name in ("glasses", "hair") if name not in judged]
    assert output.endswith(f"not judged: {', '.join(unread)}\n") == bool(unread)
    vocabulary = load_model(tmp_path / "m").vocabulary
    assert (vocabulary["glasses"].kind, vocabulary["hair"].kind) == ("yes/no", "categorical")


def test_r2_is_no_accuracy(tmp_path):
    found = answers(latents_of(load_generator(ADA), 80, 0.7, seed=0))
    table = write_csv(tmp_path / "ages.csv", {"index": list(range(80)), "age": found["age"].tolist()})
    output = run("train", ADA, "--labels", table, "--out", tmp_path / "m", "--steps", 9, "-n", 0)
    others = r"(?:works where pictures are verified|needs about [\d,]+ more labels)\n\n"
    assert re.search(rf"\n\nage  (ready\n\n{NO_NETWORK}|{others})To draw", output)
    output = run("report", tmp_path / "m", "--full")
    assert "by a network" not in output
    assert re.search(r"^age, continuous: R2 -?\d+\.\d\d \(-?\d+\.\d\d to -?\d+\.\d\d\)$", output, re.MULTILINE)


def test_a_report_of_heads_that_were_not_measured(tiny):
    judge = (
        "Judge judge.safetensors, on labels of pictures that it did not learn from:\n"
        "  not measured: smile, hair, age, glasses, beard\n"
    )
    assert run("report", tiny, "--full") == "no report: smile, hair, age, glasses, beard\n" + judge
    lines = run("report", tiny).splitlines()
    assert lines[:2] == ["smile    not measured", "hair     not measured"]
    assert lines[-1] == f'To draw pictures of one, type: energyql generate "smile" --model {tiny}'
    unmeasured = dict.fromkeys(["smile", "hair", "age", "glasses", "beard"])
    data = json.loads(run("report", tiny, "--json"))
    assert data == {"heads": {}, "judges": [{"judge": "judge.safetensors", "attributes": unmeasured}]}


def test_the_verdicts_and_the_next_command(tmp_path):
    folder = tiny_model(tmp_path / "m")
    judge, config = (json.loads((folder / file).read_text()) for file in ("judge.json", "config.json"))
    reports = {
        name: HeadReport("yes/no", 80, 20, {"no": 86, "yes": 14}, 0.5, (0.3, 0.7), {}, 0.1) for name in VOCABULARY
    }
    bank = load_model(folder).bank
    bank.reports = reports | {"glasses": replace(reports["glasses"], score=0.9, interval=(0.8, 0.95))}
    bank.save(folder)
    sample = f"To draw pictures that are worth a label, type: energyql sample {folder} --unsure -n 100 --out pictures"
    lacking, works = "needs about 40 more labels of yes", "works where pictures are verified"
    assert run("report", folder).splitlines() == [
        *(f"{name:7}  {lacking}" for name in ("smile", "hair", "age")), "glasses  ready", f"beard    {lacking}", "",
        f'To draw pictures of one, type: energyql generate "glasses" --model {folder}',
    ]  # fmt: skip
    assert "  weak, so queries refuse it: " in run("report", folder, "--full")
    bank.reports = reports
    bank.save(folder)
    assert run("report", folder).splitlines()[-1] == sample
    read = judge | {"vocabulary": {"attributes": [judge["vocabulary"]["attributes"][1]]}}
    (folder / "verifier.json").write_text(json.dumps(read))
    assert run("report", folder).splitlines()[:3] == [f"smile    {lacking}", f"hair     {works}", f"age      {lacking}"]
    assert run("report", folder).endswith(f'energyql generate "hair = black" --model {folder}\n')
    full = run("report", folder, "--full")
    assert full.count("  weak, so queries use it only where pictures are verified: ") == 1
    assert "not verified: smile, age, glasses, beard\n" in full
    (folder / "config.json").write_text(json.dumps(config | {"judge": "gaze:look"}))  # code, which gave the labels
    printed = run("report", folder)
    assert printed.count(works) == 5
    assert printed.endswith(f'energyql generate "smile" --model {folder} --allow-plugins\n')


def test_what_no_network_reads_is_said_in_words(tmp_path):
    folder = tiny_model(tmp_path / "m")
    good = HeadReport("yes/no", 80, 20, {"no": 80, "yes": 40}, 0.9, (0.8, 0.95), {}, 0.1)
    bank = load_model(folder).bank
    bank.reports = {"smile": good, "glasses": good, "beard": good, "age": replace(good, interval=(0.3, 0.95))}
    bank.save(folder)
    judge = json.loads((folder / "judge.json").read_text())

    def reading(*names):
        own = [each for each in judge["vocabulary"]["attributes"] if each["name"] in names]
        return json.dumps(judge | {"vocabulary": {"attributes": own}})

    needed = "it needs about 40 more labels of yes"
    (folder / "judge.json").write_text(reading("smile", "beard"))
    (folder / "verifier.json").write_text(reading("smile"))
    lines = run("report", folder).splitlines()
    assert lines[5:] == [
        "", f"No network reads glasses yet, so its pictures are not ticked: {needed}.",
        f"No verifier reads beard yet, so its pictures are chosen by its head alone: {needed}.", "", lines[-1],
    ]  # fmt: skip
    (folder / "verifier.json").write_text(reading("smile", "beard", "glasses"))
    judged = f"No judge reads glasses yet, so its pictures are not ticked: {needed}."
    assert judged in run("report", folder).splitlines()
    for file in ("judge.json", "judge.safetensors", "verifier.json"):
        (folder / file).unlink()
    nobody = "No network reads pictures, so none is ticked: energyql train-judge trains one from labels of pictures."
    assert [line for line in run("report", folder).splitlines() if line.startswith("No ")] == [nobody]


def test_text_of_a_folder_commands_no_terminal(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"judge": "a:\x1b[31mb\x9b2J\r"}))
    assert r"Judge a:\x1b[31mb\x9b2J\x0d, on labels" in run("report", folder, "--full")


def test_quiet_and_only(tmp_path, table):
    options = ["--steps", "9", "--truncation", "0.7", "-q", "--device", "cpu", "--judge", "none", "-n", "0"]
    arguments = ("--labels", table, "--out", tmp_path / "m", *options)
    assert run("train", ADA, *arguments, "--only", "glasses", "--space", "z", "--balance") == ""
    bank = load_model(tmp_path / "m").bank
    assert (list(bank.vocabulary), bank.space, bank.truncation) == (["glasses"], "z", (0.7, 0.7))
    with pytest.raises(VocabularyError, match="already has 'glasses'"):
        run("train", ADA, *arguments, "--only", "glasses")
    run("train", ADA, *arguments, "--only", "glasses", "--space", "z", "--replace")


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ([], ArgumentError, "labels come from nowhere\ngive one of --labels, --labeller, --prompts, --styleflow"),
        (["--labels", "a", "--styleflow", "b"], ArgumentError, "come from --labels and --styleflow"),
        (["--labeller", "a:b", "--latents", "c"], ArgumentError, "--latents belongs to --labels"),
        (["--labels", "no.csv"], DataError, r"no\.csv is missing"),
        (["--styleflow", "no"], ModelError, r"all_latents\.pickle is missing"),
        (["--labeller", "nothing"], ArgumentError, "module:function"),
        (["--prompts", "no.json"], DataError, r"no\.json is missing: an object, attribute -> prompts"),
        (
            ["--labeller", "os:getcwd", "--space", "w+"],
            ArgumentError,
            r"heads read one of w, z, direction, features, not 'w\+'",
        ),
        (["--labels", "no.csv", "--truncation", "a:b"], ArgumentError, "neither a number nor of the form LOW:HIGH"),
        (["--labels", "no.csv", "--truncation", "1:2:3"], ArgumentError, "neither a number nor of the form LOW:HIGH"),
        (["--labels", "no.csv", "--device", "abacus"], ArgumentError, "not available"),
        (["--labeller", "os:getcwd", "--condition", "cat"], ArgumentError, "takes no condition, such as 'cat'"),
    ],
)
def test_mistakes(words, error, message):
    with pytest.raises(error, match=message):
        run("train", ADA, "--out", "nowhere", *words)


@pytest.mark.parametrize("kind", ["hair", "hair=many", "=continuous"])
def test_wrong_kinds(tmp_path, table, kind):
    with pytest.raises(ArgumentError, match="is (not name=kind|no kind of attribute)\nkinds are yes/no, "):
        run("train", ADA, "--labels", table, "--out", tmp_path / "m", "--kind", kind)


def test_a_function_that_labels_decides_and_judges(tmp_path, monkeypatch):
    (tmp_path / "defining.py").write_text("def look(images):\n    return {'bright': images.mean((1, 2, 3))}\n")
    monkeypatch.chdir(tmp_path)
    run("train", ADA, "--labeller", "defining:look", "-n", 60, "--steps", 3, "-q", "--out", "m")
    assert json.loads((tmp_path / "m" / "config.json").read_text())["judge"] == "defining:look"
    assert not (tmp_path / "m" / "verifier.json").exists()
    model = load_model("m", judge="defining:look")
    assert model.judge is model.verifier and model.judge.__name__ == "look"
    with pytest.raises(ModelError) as caught:
        load_model("m")
    assert "pass judge='defining:look', or" in caught.value.hint
    assert "pass --judge defining:look, or" in caught.value.for_command_line()
    assert re.match(r"bright  (?:ready|works where pictures are verified)\n\nTo draw", run("report", "m"))


def test_labels_of_a_conditional_generator(tmp_path, monkeypatch):
    (tmp_path / "looks.py").write_text("def look(images):\n    return {'bright': images.mean((1, 2, 3))}\n")
    monkeypatch.chdir(tmp_path)
    conditional = CHECKPOINTS / "ada_conditional.pkl"
    arguments = ("train", conditional, "--labeller", "looks:look", "-n", 40, "--steps", 3, "-q", "--out")
    for text, condition in (("1", 1), ("random", "random"), ("0.5,0.5,0,0", (0.5, 0.5, 0.0, 0.0))):
        run(*arguments, tmp_path / text, "--condition", text, "--judge", "train" if text == "random" else "none")
        assert load_model(tmp_path / text).bank.condition == condition
    with pytest.raises(ArgumentError, match="conditional on 4 classes: give a condition"):
        run(*arguments, tmp_path / "none")
    size = load_generator(conditional).config.w_dim
    np.save("smile.npy", np.ones((1, size)))
    run("import-heads", "1", "smile.npy", "--attribute", "smile", "--truncation", "0.7")
    with pytest.raises(ModelError, match=r"\(0.7, 0.7\) under condition 1, so new ones cannot .* under condition 2"):
        run("import-heads", "1", "smile.npy", "--attribute", "grin", "--truncation", "0.7", "--condition", 2)
    with pytest.raises(ArgumentError, match="give a condition"):
        run("import-heads", conditional, "smile.npy", "--attribute", "smile", "--out", "new")


def test_a_boundary_has_one_attribute(tmp_path):
    with pytest.raises(ArgumentError, match="give --attribute once"):
        run("import-heads", ADA, tmp_path / "b.npy", "--attribute", "a", "--attribute", "b=continuous")
    with pytest.raises(ModelError, match=r"c\.pt is missing"):
        run("import-heads", ADA, tmp_path / "c.pt", "--attribute", "hair=black, brown")


def test_an_address_is_no_file(tmp_path, table):
    address = "https://example.org/ffhq.pkl"
    with pytest.raises(
        ArgumentError, match=f"{address} is an address, and energyql reads files\ndownload it, and give the file"
    ):
        run("train", address, "--labels", table, "--out", tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_what_a_state_dict_leaves_open(tmp_path, table):
    content = torch.load(CHECKPOINTS / "rosinality.pt", weights_only=True)
    weights = {name: w / 2 if name.startswith("style.") else w for name, w in content["g_ema"].items()}
    torch.save(content | {"g_ema": weights}, tmp_path / "x.pt")
    with pytest.raises(ModelError) as caught:
        run("train", tmp_path / "x.pt", "--labels", table, "--out", tmp_path / "m")
    assert "about 0.02. Use energyql convert --lr-mlp and the new folder" in caught.value.for_command_line()
    assert not (tmp_path / "m").exists()
