"""Wrong files and names on the command line: the error says what is wrong, where, and what to do; nothing is left."""

import re

import numpy as np
import pytest
from commands import CHECKPOINTS, invoke
from toys import random_generator, tiny_model

from energyql.errors import EnergyQLError
from energyql.generators.families import save_model
from energyql.pipeline import run as run_module

ADA = CHECKPOINTS / "ada.pkl"
TRAIN = ("train", ADA, "--out", "new", "-n", "20")
WRONG = [
    # command, a part of the message, a part of the hint
    (("generate", "text.npy"), "text.npy is a file, and this command takes a query", "gallery QUERIES.txt"),
    (("edit", "smile", "words.csv", "-m", "model"), "words.csv is a file", "dataset PLAN.toml"),
    (
        ("gallery", "2 * smile AND 0.5 * hat"),
        "no file '2 .*hat', and a gallery takes a file",
        "generate '2 .*hat' draws",
    ),
    (("gallery", "plan.toml"), "plan.toml is no list of queries", "energyql dataset plan.toml"),
    (("score", "smile", "avatars"), "avatars is a model", "to_pandas"),
    (("generate", "smile", "-m", "nofolder"), "no model 'nofolder'", "packaged models: "),
    (("generate", "smile", "-m", "folder"), "folder is not a model folder", "energyql train"),
    (
        ("generate", "smile", "-m", "tony/model"),
        "no model 'tony/model'",
        "no folder .*tony; fetch .* download tony/model\nor give",
    ),
    (("generate", "smile", "-m", "faces:make"), "no model 'faces:make'", "energyql train makes a model folder"),
    (("generate", "smile", "-m", "broken"), r"attributes\.safetensors is missing", "it was looked for in .*broken"),
    (("generate", "smile", "-m", "model", "-o", "text.txt/x"), "text.txt is not a folder", "name another folder"),
    (("generate", "smile", "-m", "model", "--judge", "no_such:one"), "cannot import 'no_such'", "module in"),
    (("edit", "smile", "-m", "model", "-s", "face.png"), "no picture face.png", "did you mean faces.png"),
    (("edit", "smile", "-m", "model", "-s", "text.txt"), "cannot read text.txt as a picture", "give a PNG"),
    (("edit", "smile", "-m", "model", "-s", "folder"), "folder holds no result", "name one that generate"),
    (("edit", "smile", "-m", "model", "-s", "text.txt", "-s", "3"), "not from both", "give --start with seeds, or"),
    (("edit", "smile", "-m", "model", "--layers", "nope=1"), "'nope' is not an attribute", "attributes: smile"),
    (("edit", "smile", "-m", "model", "-s", "-1"), "-1 is not a seed", "a whole number"),
    (("generate", "smile", "-m", "model", "-n", 2000, "-o", "x.png"), "at most 1,024 .*not 2,000", "name a folder"),
    (("invert", "none.png", "-m", "model"), "no picture none.png", "it was looked for in"),
    (("invert", "folder", "-m", "model"), "cannot read folder: it is a folder", "name a file"),
    (("animate", "smile", "-m", "model"), "at least two queries", "energyql animate"),
    (("convert", "none.pkl", "-o", "new"), "none.pkl is missing", "it was looked for in"),
    (("convert", "cu.pt", "-o", "new"), "cu.pt is missing", r"^did you mean cut\.pt\?$"),
    (("convert", "folde.pt", "-o", "new"), "folde.pt is missing", "it was looked for in"),
    (("generate", "smile", "-m", "folde.pkl"), "no model 'folde.pkl'", "it was looked for in"),
    (("score", "smile", "words.csv", "-o", "o.json"), "cannot be saved as o.json", r"end the path in \.csv"),
    (("edit", "smile", "-m", "model", "-o", "e.xyz"), "cannot be saved as .xyz", r"end the path in \.gif, .*\.webp"),
    (("score", "hat", "bars.csv"), "no column for 'hat'", "separated by commas, semicolons or tabs"),
    (("animate", "smile", "hat", "-m", "model", "-o", "text.txt/a.gif"), "text.txt is not a folder", "another folder"),
    ((*TRAIN, "--labels", "labels.csv", "--kind", "smile=x"), "'x' is no kind of attribute", "kinds are yes/no"),
    (("directions", "-m", "model", "--layers", "0-99"), "no layers|not 6$", "0-2|leave out"),
    (("convert", "folder", "-o", "new"), "folder is a folder", "give a checkpoint"),
    (("convert", "text.npy", "-o", "new"), "not a checkpoint", "energyql reads"),
    (("convert", ADA, "-o", "text.txt"), "text.txt is not a folder", "name another folder"),
    (("convert", "cut.pt", "-o", "new"), r"cut\.pt", "download|copy"),
    (("score", "smile", "none.csv"), "none.csv is missing", "it was looked for in"),
    (("score", "smile", "folder"), "folder is a model or a folder, and score ranks the rows of a CSV", "to_pandas"),
    (("score", "smile", "words.csv"), "'x' is not a number", "correct it, or leave the row out"),
    (("score", "smile", "ragged.csv"), "line 2: 2 cells where the first line has 1", "a cell for each column"),
    (("sample", "no_such:thing", "-o", "new"), "cannot import 'no_such'", "with the module in"),
    (("sample", "none.pkl", "-o", "new"), "no model 'none.pkl'", "it was looked for in"),
    (("sample", "folder", "-o", "new"), "not a model folder", "energyql convert"),
    (("sample", "model", "-o", "new", "--unsure", "--only", "x"), "'x' is not an attribute", "attributes: smile"),
    (("sample", "model", "-o", "new", "--unsure", "--labels", "none.csv"), "none.csv is missing", "energyql label"),
    (("label", "none"), "none is not a folder of pictures", "energyql sample"),
    ((*TRAIN, "--labels", "none.csv"), "none.csv is missing", "energyql label writes"),
    ((*TRAIN, "--labels", "folder"), "folder is a folder", "energyql label writes"),
    ((*TRAIN, "--labels", "empty.csv"), "empty.csv is empty", "first line"),
    ((*TRAIN, "--labels", "bytes.csv"), "cannot read bytes.csv", "CSV in UTF-8"),
    ((*TRAIN, "--labels", "labels.csv", "--latents", "none.npy"), "none.npy is missing", "it was looked for in"),
    ((*TRAIN, "--labels", "labels.csv", "--latents", "text.npy"), "text.npy: it is not a .npy file", "numpy.save"),
    ((*TRAIN, "--labels", "labels.csv", "--latents", "folder"), "cannot read folder: it is a folder", "name a file"),
    ((*TRAIN, "--labels", "labels.csv", "--latents", "z.npy"), "latents have 7 numbers", "latents of this generator"),
    ((*TRAIN, "--labels", "labels.csv", "--latents", "nan.npy"), "not finite", "leave such samples out"),
    ((*TRAIN, "--labeller", "no_such:one"), "cannot import 'no_such'", "with the module in"),
    ((*TRAIN, "--latents", "z.npy", "--prompts", "p.json"), "--latents belongs to --labels", "give the table"),
    ((*TRAIN, "--prompts", "none.json"), "none.json is missing", "such as"),
    ((*TRAIN, "--styleflow", "none"), "is missing", "there is no folder .*none"),
    (("import-heads", ADA, "none.pt", "--attribute", "x", "-o", "new"), "none.pt is missing", "it was looked for"),
    (("import-heads", ADA, "text.npy", "--attribute", "x", "-o", "new"), "not a .npy file", "numpy.save"),
    (("report", "bare"), "model 'bare' has no attributes yet", "energyql train"),
    (("attributes", "-m", "bare"), "model 'bare' has no attributes yet", "energyql train"),
    (("explain", "smile", "-m", "bare"), "model 'bare' has no attributes yet", "energyql train"),
    (("bench", "none.txt"), "none.txt is missing", "it was looked for in"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with a model, and files of which each has one fault."""
    folder = tmp_path_factory.mktemp("places")
    tiny_model(folder / "model")
    tiny_model(folder / "broken")
    (folder / "broken" / "attributes.safetensors").unlink()
    save_model(folder / "bare", "bare", random_generator())
    (folder / "folder").mkdir()
    texts = {
        "text.txt": "hello", "text.npy": "hello", "empty.csv": "", "words.csv": "smile\nx\n",
        "ragged.csv": "smile\n1,2\n", "labels.csv": "index,smile\n" + "".join(f"{i},{i % 2}\n" for i in range(60)),
        "p.json": "{}", "faces.png": "", "bars.csv": "file|smile\na|0.1\n",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "bytes.csv").write_bytes(b"\xff\xfe\xff")
    whole = (CHECKPOINTS / "rosinality_64.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    np.save(folder / "z.npy", np.zeros((60, 7), "f4"))
    np.save(folder / "nan.npy", np.full((60, 8), np.nan, "f4"))
    return folder


@pytest.mark.parametrize(("words", "message", "hint"), WRONG, ids=lambda value: None if isinstance(value, str) else "")
def test_the_error_says_what_to_do(places, monkeypatch, words, message, hint):
    monkeypatch.chdir(places)
    before = sorted(places.rglob("*"))
    error = invoke(*words).exception
    assert isinstance(error, EnergyQLError), repr(error)
    assert re.search(message, error.message), error.message
    shown = error.for_command_line().removeprefix(error.message).lstrip("\n")
    assert re.search(hint, shown), shown
    assert sorted(places.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "work"),
    [
        (("sample", "model", "-o", "new"), "energyql.labelling.sample.sample_pictures"),
        ((*TRAIN, "--labels", "labels.csv"), "energyql.training.run.train_attributes"),
        (("train-judge", "model", "--labels", "labels.csv"), "energyql.training.judge.train_judge"),
    ],
    ids=["sample", "train", "train-judge"],
)
def test_ctrl_c_says_that_the_command_can_be_resumed(places, monkeypatch, words, work):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.chdir(places)
    monkeypatch.setattr(work, interrupted)
    outcome = invoke(*words)
    assert (outcome.exit_code, "interrupted; run the same command again to resume" in outcome.stderr) == (130, True)


def test_ctrl_c_ends_other_commands_with_a_word(places, monkeypatch):
    monkeypatch.chdir(places)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "run", lambda *_, **settings: pytest.fail("a query was drawn"))
        assert "hst" in str(invoke("animate", "smile", "hst", "-m", "model").exception)  # before anything is drawn

    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run", interrupted)
    for words in (("animate", "smile", "NOT smile"), ("generate", "smile")):
        outcome = invoke(*words, "-m", "model", "-q")
        assert (outcome.exit_code, outcome.stderr) == (130, "interrupted\n")
