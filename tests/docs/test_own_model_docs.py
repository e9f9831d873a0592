"""What own-model.md, trust.md, verified.md, checkpoints.md and any-generator.md in docs say, done on a tiny network."""

import json
import re
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import dcgan
import numpy as np
import pytest
import short
import torch
import typer
from labelled import CHECKPOINTS, answers, latents_of, write_csv, write_styleflow
from markdown import ROOT, call, texts
from markdown import blocks as all_blocks
from needed import needed
from PIL import Image
from typer.testing import CliRunner

from energyql.cli.main import explain, generate
from energyql.cli.pages import sample
from energyql.cli.reports import report
from energyql.cli.train import import_heads, train, train_judge
from energyql.generators.load import load_generator
from energyql.models import read_vocabulary
from energyql.pipeline import clips
from energyql.pipeline.model import load_model
from energyql.training import clip_labels, run, teacher
from energyql.training.picture_fit import PictureSettings

PAGES = [ROOT / "docs" / f"{name}.md" for name in ("own-model", "trust", "verified", "checkpoints", "any-generator")]
SMALL = ["--steps", "20", "--hidden", "8"]
NO_JUDGE = ("--judge", "none")
COUNT, FEW = 60, 16


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    monkeypatch.setattr(teacher, "FURTHER", COUNT)


def blocks(section, language):
    found = [text for page in PAGES for text in texts(page, language, section)]
    assert found, f"no {language} under {section}"
    return found


def do(command, *more):
    """Run a command of a page; trainings are made smaller, and have the further options `more`."""
    app = typer.Typer()
    app.command()(train)
    app.command()(import_heads)
    app.command()(generate)
    app.command()(explain)
    app.command()(sample)
    app.command()(report)
    app.command("train-judge")(train_judge)
    program, *words = shlex.split(command)
    assert program == "energyql"
    words += [*SMALL, *more] if words[0] == "train" else []
    if words[0].startswith("train") and "-n" in words:
        words[words.index("-n") + 1] = str(COUNT)
    if words[0] == "generate" and "-n" in words:
        words[words.index("-n") + 1] = str(FEW)
    if words[0] == "generate" and "--allow-weak" not in words:  # after so small a training
        words += ["--allow-weak", ",".join(read_vocabulary(words[words.index("--model") + 1]))]
    outcome = CliRunner().invoke(app, words)
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def shell(section, *more):
    return "".join(do(line, *more) for block in blocks(section, "sh") for line in block.splitlines())


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copy(CHECKPOINTS / "ada.pkl", "ffhq.pkl")
    yield
    for name in ("my_labels", "more_labels", "my_network", "my_faces"):
        sys.modules.pop(name, None)


def labeller(name, text):
    Path(f"{name}.py").write_text(text)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A model of the page's function, whose judge and verifier have learned something; not to be changed."""
    folder = tmp_path_factory.mktemp("learned")
    shutil.copy(CHECKPOINTS / "ada.pkl", folder / "ffhq.pkl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        short.networks(patch, PictureSettings(side=8, channels=(4,), least=1_600, most=1_600))
        labeller("my_labels", blocks("Labels from a function", "python")[0])
        do("energyql train ffhq.pkl --labeller my_labels:look -n 5000 --judge train --out from-function")
    sys.modules.pop("my_labels")
    return folder / "from-function"


def test_two_commands_from_nothing_to_pictures():
    write_styleflow(Path("styleflow"), latents_of(load_generator("ffhq.pkl"), 200, 0.8))
    assert len(blocks("From `ffhq.pkl` and StyleFlow's labels to pictures", "sh")[0].splitlines()) == 2
    output = shell("From `ffhq.pkl` and StyleFlow's labels to pictures")
    assert "not judged: the model has no judge" in output
    with Image.open("energyql.png") as grid:
        assert "energyql" in grid.text
    with Image.open("ffhq/report.png") as report:
        assert report.width > 1000
    model = load_model("ffhq")
    text = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
    listed = re.findall(r"width height .*?haircolor", text)[0].split()
    assert list(model.vocabulary) == [*listed, *(f"light{i}" for i in range(9))]
    assert model.truncation == pytest.approx(0.8, abs=0.05)


def test_a_table():
    header, *rows = blocks("Labels in a table", "csv")[0].splitlines()
    w = latents_of(load_generator("ffhq.pkl"), 200, 0.7, seed=7)
    found = answers(w)
    columns = {
        "index": list(range(200)),
        "glasses": ["yes" if x else "no" for x in found["glasses"]],
        "hair": [("black", "blond", "")[k % 3] for k in found["haircolor"]],
        "age": [f"{x:.2f}" if i % 3 != 2 else "" for i, x in enumerate(found["age"])],
    }
    assert header.split(",") == list(columns)
    assert len(rows) == 3
    write_csv(Path("labels.csv"), columns)
    np.save("latents.npy", w.numpy())
    shell("Labels in a table", *NO_JUDGE)
    for folder in ("from-table", "from-latents"):
        kinds = [spec.kind for spec in load_model(folder).vocabulary.values()]
        assert kinds == ["yes/no", "categorical", "continuous"]
    assert load_model("from-table").bank.truncation == (0.7, 0.7)


def test_a_function_and_one_attribute_more(monkeypatch):
    function, python = blocks("Labels from a function", "python")
    labeller("my_labels", function)
    shell("Labels from a function", *NO_JUDGE)
    monkeypatch.setattr(run, "HeadSettings", partial(run.HeadSettings, steps=20, hidden=4))
    names = {}
    exec(python.replace("n=5000", f"n={COUNT}"), names)
    assert names["trained"].judge is names["trained"].verifier is names["look"]
    assert list(names["trained"].bank.vocabulary) == ["bright", "green", "light"]

    before = load_model("from-function").bank
    labeller("more_labels", "def look(images):\n    return {'dark': -images.mean((1, 2, 3))}\n")
    shell("One attribute more", *NO_JUDGE)
    after = load_model("from-function").bank
    assert list(after.vocabulary) == [*before.vocabulary, "dark"]
    for name, head in before.heads.items():
        for field, tensor in head.tensors().items():
            assert torch.equal(after.heads[name].tensors()[field], tensor)


def test_can_the_heads_be_trusted(learned):
    shutil.copytree(learned, "from-function")
    output = shell("Can the heads be trusted?")
    assert "green, yes/no: balanced accuracy " in output
    assert "  weak, so queries refuse it: " in output
    assert re.search(r"of 16 satisfy the query, says the image judge|by the verifier|not judged: ", output)


def test_verified_pictures(learned, monkeypatch):
    monkeypatch.setattr(clips, "PILOT", 128)
    shutil.copytree(learned, "from-function")
    labeller("my_labels", blocks("Labels from a function", "python")[0])
    assert re.search(r"16 of 16 .*by the verifier[;.].* \d+ pictures were drawn", shell("How pictures are verified"))
    assert "satisfy the query by the definition my_labels:look. " in shell("When is a picture accepted?")
    assert "verify faithful, clip 0.01: " in shell("What does it cost?")


def test_a_judge_of_ones_own(capsys):
    labeller("my_labels", blocks("Labels from a function", "python")[0])
    assert "judge" in shell("Labels from a function")
    output = shell("A judge of your own")
    assert "Saved from-function; all numbers: energyql report from-function --full" in output
    assert "not judged" in output.lower() or "Judge judge" in output
    names = {}
    exec(blocks("A judge of your own", "python")[0].replace("n=5000", f"n={COUNT}"), names)
    assert set(names["trained"].report) == {"bright", "green", "light"}
    assert capsys.readouterr().out.startswith(f"{names['trained'].report['green']} (")


def test_what_the_heads_read():
    labeller("my_labels", blocks("Labels from a function", "python")[0])
    shell("What the heads read", *NO_JUDGE)
    assert load_model("from-direction").bank.space == "direction"


def test_words(monkeypatch):
    """With a stand-in that has the interface of open_clip; a real model is tested in training/test_clip_labels.py."""
    prompts = blocks("Labels from words", "json")[0]
    Path("prompts.json").write_text(prompts)

    class Stand(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logit_scale = torch.nn.Parameter(torch.tensor(4.0))
            self.visual = SimpleNamespace(image_size=16)

        def encode_image(self, pictures):
            features = pictures.mean(3).flatten(1)
            return features - features.mean(0)

        def encode_text(self, tokens):
            return tokens

    def tokenizer(texts):
        return torch.randn(len(texts), 48, generator=torch.Generator().manual_seed(sum(map(len, texts))))

    library = SimpleNamespace(create_model=lambda *_, **__: Stand(), get_tokenizer=lambda name: tokenizer)
    monkeypatch.setattr(clip_labels, "import_optional", lambda *_: library)
    shell("Labels from words", *NO_JUDGE)
    assert list(load_model("from-words").vocabulary) == list(json.loads(prompts))


def test_heads_of_others():
    size = load_generator("ffhq.pkl").config.w_dim
    state = {"net.0.weight": torch.randn(4, size, 1, 1), "net.0.bias": torch.zeros(4)}
    state |= {"heads.weight": torch.randn(2, 4), "heads.bias": torch.zeros(2)}
    torch.save({"state_dict": state}, "glasses.pt")
    np.save("smile.npy", np.ones((1, size)) / size**0.5)
    output = shell("Heads from other programs")
    assert "not calibrated" in output
    assert list(load_model("imported").vocabulary) == ["glasses", "smile"]


def test_conditional_generators():
    shutil.copy(CHECKPOINTS / "tensorflow_conditional.pkl", "animals.pkl")
    labeller("my_labels", blocks("Labels from a function", "python")[0])
    shell("Conditional generators", *NO_JUDGE)  # a verifier that has learnt little accepts none of many pictures
    assert load_model("cats").bank.condition == 2
    assert load_model("animals").bank.condition == "random"


def test_noise():
    labeller("my_labels", blocks("Labels from a function", "python")[0])
    do("energyql train ffhq.pkl --labeller my_labels:look -n 5000 --judge none --out from-function")
    shell("Noise")
    with Image.open("energyql.png") as grid:
        assert json.loads(grid.text["energyql"])["noise"] == "random"
    names = {}
    exec(blocks("Noise", "python")[0], names)
    generator, z = names["generator"], names["z"]
    assert torch.equal(names["rows"][:, 3], generator.encode(z, 0.7))
    assert torch.equal(names["rows"][:, 4], generator.encode(z))
    assert names["images"].shape[:2] == (4, 3)


def test_any_torch_module(monkeypatch):
    monkeypatch.setattr(run, "HeadSettings", partial(run.HeadSettings, steps=20, hidden=4))
    labeller("my_labels", blocks("Labels from a function", "python")[0])
    shutil.copy(dcgan.__file__, "my_network.py")
    dcgan.write_weights(Path("weights.tar"))
    names = {}
    wrapping, querying, loading = blocks("Any torch module", "python")
    (factory,) = blocks("By name", "python")
    exec(wrapping, names)
    assert len(wrapping[wrapping.index("class") :].splitlines()) <= 13
    for block in (querying, loading):
        exec(block.replace("n=5000", f"n={COUNT}"), names)
    assert "of 4 satisfy the query by the definition my_labels:look" in names["result"].summary()
    assert list(names["model"].vocabulary) == ["bright", "green", "light"]
    Path("my_faces.py").write_text(f"{wrapping}\n\n{factory}")
    train, *generate = blocks("By name", "sh")[0].splitlines()
    do(train)
    assert len(generate) == 2
    assert all("of 16 satisfy the query by the definition my_labels:look" in do(line) for line in generate)
    exec(blocks("A view of z", "python")[0], names)
    assert names["Terrain"]().features(torch.ones(2, 4096)).tolist() == [[16.0] * 16] * 2


def test_an_onnx_model():
    needed("onnxruntime")
    needed("onnx")
    from onnx_files import heights

    heights(Path("land.onnx"), channels=3)
    labeller("my_labels", blocks("Labels from a function", "python")[0])
    convert, train, generate = blocks("An ONNX model", "sh")[0].splitlines()
    call(shlex.split(convert))
    do(train)
    assert "of 16 satisfy the query by the definition my_labels:look" in do(generate)


def test_the_package_of_the_page_is_that_of_the_examples():
    (text,) = blocks("A package", "text")
    assert text in (ROOT / "examples" / "eyes" / "pyproject.toml").read_text(encoding="utf-8")


def test_every_block_is_run():
    assert sum(len(all_blocks(page)) for page in PAGES) == 36


def test_a_vae_of_two_levels():
    names = {"torch": torch}
    exec(blocks("A VAE, of one level or several", "python")[0], names)

    class Network(torch.nn.Module):
        def below(self, top):
            return top.repeat(1, 4), 1 + top.repeat(1, 4).square()

        def decode(self, top, below):
            return torch.tanh((top.sum(1) + below.sum(1))[:, None, None, None].expand(-1, 1, 8, 8))

    generator = names["Levels"](Network())
    z = torch.randn(5, 40)
    w = generator.encode(z)
    assert torch.equal(w[:, :8], z[:, :8])
    below = z[:, :8].repeat(1, 4)
    torch.testing.assert_close(w[:, 8:], below + (1 + below.square()) * z[:, 8:])
    assert torch.equal(generator.encode(z, 0.0), torch.zeros(5, 40))
    assert generator.synthesize(w).shape == (5, 1, 8, 8)
