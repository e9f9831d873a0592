"""Generators and judges by name: from the command line and Python, and never without permission."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import short
import torch
from attack import MARK
from toys import tiny_model
from typer.testing import CliRunner

from energyql import load_generator, load_model, plugins, train_attributes
from energyql.attributes.labels import import_labeller
from energyql.cli.main import app
from energyql.errors import ArgumentError, EnergyQLError, ModelError, WeakHeadError
from energyql.generators.families import named_generator
from energyql.pipeline.generate import generate
from energyql.pipeline.model import judge_mark, record_judge
from energyql.plugins import GENERATORS, JUDGES, is_plugin
from energyql.studio import serving
from energyql.training.heads import HeadSettings

CODE = """
import torch

class Faces(torch.nn.Module):
    z_dim = 6

    def __init__(self, shift=0.0):
        super().__init__()
        self.paint = torch.nn.Linear(6, 3 * 16)
        with torch.no_grad():
            self.paint.weight.copy_(torch.sin(torch.arange(288.0)).view(48, 6))
            self.paint.bias.fill_(shift)

    def encode(self, z, truncation=1.0):
        return truncation * z

    def synthesize(self, w):
        return torch.tanh(self.paint(w)).view(-1, 3, 4, 4)

def others():
    return Faces(0.1)

def needy(weights):
    return Faces()

def look(images):
    return {"bright": images.mean((1, 2, 3)) > 0, "red": images[:, 0].mean((1, 2))}

def more(images):
    return {**look(images), "blue": images[:, 2].mean((1, 2))}

def blue(images):
    return {"blue": images[:, 2].mean((1, 2))}

number, ready = 7, Faces()
"""
MODEL = Path("model")
SMALL = ["-n", "60", "--steps", "20", "--hidden", "4", "-q"]
TINY = {"n": 60, "settings": HeadSettings(steps=20, hidden=4), "judge": None, "progress": False}
REFUSAL = (
    "holds no generator, only the name of one: faces. It is code, which is not run without permission\n"
    "if you trust it, pass generator='faces', or allow what the folder names, once: allow_plugins=True"
)


def install(site: Path, package: str, points: str) -> None:
    """What pip leaves of a package that offers something."""
    folder = site / f"{package}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(points)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an installed package, with the same code to import, and with a model of both, made by a command."""
    desk = tmp_path_factory.mktemp("desk")
    install(
        desk / "site", "some-faces",
        f"[{GENERATORS}]\nfaces = packaged_faces:Faces\nbroken = packaged_faces:nothing\n\n"
        f"[{JUDGES}]\nfaces = packaged_faces:look\n",
    )  # fmt: skip
    (desk / "site" / "packaged_faces.py").write_text(CODE)
    (desk / "my_faces.py").write_text(CODE)
    (desk / "my_lacking.py").write_text("import not_there")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        patch.syspath_prepend(str(desk / "site"))
        run("train", "faces", "--labeller", "faces", "--judge", "faces", "--out", "model", *SMALL)
    return desk


@pytest.fixture(autouse=True)
def desk(made, tmp_path, monkeypatch):
    """The working directory is a copy of it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name in ("my_faces", "packaged_faces"):
        sys.modules.pop(name, None)
    yield
    for name in ("my_faces", "packaged_faces", "evil"):
        sys.modules.pop(name, None)


def run(*words: object) -> str:
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(outcome.exception, EnergyQLError):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_directions_of_a_generator_by_name():
    find = ["directions", "--method", "pictures", "-n", 2, "--out", "found", "-q", "--model"]
    run(*find, "my_faces:Faces")
    name = ["directions", "--out", "found", "--name", "0=first", "-q", "--model", "my_faces:Faces"]
    with pytest.raises(ArgumentError, match="my_faces:Faces is no model folder\nname a folder .*--into"):
        run(*name)
    run(*name, "--into", "named")
    assert "first" in run("attributes", "--model", "named")
    with pytest.raises(ModelError, match="not run without permission"):
        run(*find, "named")
    run(*find, "named", "--allow-plugins")


def test_a_plugin_from_the_command_line():
    assert {path.suffix for path in MODEL.rglob("*")} == {".json", ".safetensors", ".png"}
    assert not (MODEL / "generator.safetensors").exists()
    config = json.loads((MODEL / "config.json").read_text())
    assert config["generator"] == {"kind": "named", "name": "faces"}
    assert "bright" in run("attributes", "--model", MODEL)
    assert "red" in run("explain", "bright AND red > 0", "--model", MODEL)
    command = [
        "generate",
        "bright AND red > 0",
        "-n",
        4,
        "--model",
        MODEL,
        "--allow-weak",
        "bright,red",
        "--verify",
        "off",
    ]
    for words in (["--generator", "faces", "--judge", "faces"], ["--allow-plugins"]):
        assert "of 4 satisfy the query, says the judge packaged_faces:look" in run(*command, *words)
    assert "says the judge" not in run(*command, "--generator", "faces", "--judge", "none")
    with pytest.raises(ModelError) as caught:
        run(*command)
    assert str(caught.value).endswith(f"model {REFUSAL}")
    told = "if you trust it, pass --generator faces, or allow what the folder names, once: --allow-plugins"
    assert caught.value.for_command_line().endswith(told)
    with pytest.raises(ModelError, match="holds no judge, only the name of one: faces") as caught:
        run(*command, "--generator", "faces")
    assert "pass --judge faces, or" in caught.value.for_command_line()


def test_permission_is_given_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ENERGYQL_STATE", str(tmp_path / "state"))
    ask = ["generate", "bright", "-n", 2, "--allow-weak", "bright", "--verify", "off", "--model"]
    with pytest.raises(ModelError, match="holds no generator"):
        run(*ask, MODEL)
    run(*ask, MODEL, "--allow-plugins")
    assert "of 2 satisfy the query" in run(*ask, MODEL)
    train = ["train", "my_faces:Faces", "--labeller", "my_faces:look", "--judge", "my_faces:look", *SMALL, "--out"]
    run(*train, "asked")
    with pytest.raises(ModelError, match="holds no generator"):
        run(*ask, "asked")
    run(*train, "made", "--allow-plugins")
    assert "of 2 satisfy the query" in run(*ask, "made")
    calls = []
    monkeypatch.setattr(serving, "serve", lambda models, **options: calls.append((models, options)))
    run("studio", "--model", "made", "--model", "asked")
    ((models, _),) = calls
    with pytest.raises(ModelError, match="asked holds no generator"):
        serving.load_models(models, "cpu")
    Path("my_faces.py").write_text(CODE + "print()\n")
    with pytest.raises(ModelError, match=r"permission: the file .*my_faces\.py changed since you allowed it"):
        load_model("made")


def test_all_commands_that_draw(monkeypatch):
    short.edits(monkeypatch)
    ask = ["--model", MODEL, "--allow-plugins", "-q"]
    weak = [*ask, "--allow-weak", "bright"]
    run("edit", "bright", "-n", 2, "--out", "edited", *weak)
    run("animate", "bright", "NOT bright", "-n", 1, "--frames", 2, "--out", "film.gif", *weak)
    Path("queries.txt").write_text("bright\n")
    run("gallery", "queries.txt", "-n", 2, "--out", "page.html", *weak, "--verify", "off")
    with pytest.raises(WeakHeadError):  # of a pilot, so with the generator
        run("explain", "bright", "--pilot", "--model", MODEL, "--generator", "faces", "--judge", "none")
    run("invert", next(Path("edited").rglob("*.png")), "--out", "inverted.png", "--space", "z", "--anyway", *ask)
    assert Path("page.html").is_file()
    calls = []
    monkeypatch.setattr(serving, "serve", lambda models, **options: calls.append((models, options)))
    run("studio", "--model", MODEL, "--allow-plugins")
    ((models, _),) = calls
    ((name, pipeline),) = serving.load_models(models, "cpu").items()
    assert (name, type(pipeline.model.generator).__name__) == ("model", "Faces")
    with pytest.raises(ArgumentError, match="are for one model\nfor several, --allow-plugins"):
        run("studio", "-m", MODEL, "-m", "avatars", "--generator", "faces")


def test_training_goes_on_in_the_folder():
    before = load_model(MODEL, allow_plugins=True)
    with pytest.raises(ModelError, match="It is code, which is not run without permission"):
        run("train", MODEL, "--labeller", "my_faces:blue", *SMALL)
    run("train", MODEL, "--labeller", "my_faces:blue", "--allow-plugins", "--judge", "my_faces:more", *SMALL)
    after = load_model(MODEL, allow_plugins=True)
    assert list(after.vocabulary) == ["bright", "red", "blue"]
    assert after.judge.__name__ == "more"
    assert torch.equal(after.bank.heads["red"].skip_weight, before.bank.heads["red"].skip_weight)
    run("train", MODEL, "--out", "copy", "--labeller", "faces", "--replace", "--generator", "faces", *SMALL)
    assert load_model("copy", generator="faces", judge="my_faces:more").name == "copy"
    with pytest.raises(ModelError, match="copy holds attributes of another generator"):
        run("train", "my_faces:others", "--out", "copy", "--labeller", "faces", *SMALL)


def test_a_function_of_ones_own_from_python():
    made = train_attributes("my_faces:Faces", import_labeller("my_faces:look"), "own", **TINY)
    assert (made.bank.space, made.bank.truncation) == ("w", (1.0, 1.0))
    for given in ("my_faces:Faces", "packaged_faces:Faces", "faces", named_generator("my_faces:Faces")):
        model = load_model("own", generator=given, judge="faces")
        assert model.judge_images(torch.ones(1, 3, 4, 4))["bright"].all()
    with pytest.raises(ModelError, match="fitted to another generator"):
        load_model("own", generator="my_faces:others")
    object_first = named_generator("faces")
    train_attributes(object_first, import_labeller("faces"), "later", truncation=0.7, **TINY)
    train_attributes("faces", import_labeller("my_faces:blue"), "later", **TINY)
    assert load_model("later", allow_plugins=True).truncation == 0.7


def test_a_generator_that_is_stored_may_have_a_judge_by_name(tmp_path, monkeypatch):
    folder = tiny_model(tmp_path / "tiny", judge=True)
    stored = load_model(folder)
    assert "judge" in stored.fingerprints
    Path("my_looks.py").write_text("def look(images):\n    return {}\n")
    record_judge(folder, "my_looks:look")
    with pytest.raises(ModelError, match="judge='my_looks:look'"):
        load_model(folder)
    model = load_model(folder, allow_plugins=True)
    assert (model.judge.__name__, model.fingerprints["judge"]) == ("look", judge_mark(model.judge))
    assert load_model(folder, judge="none").judge is None
    assert load_model(folder, judge=stored.judge).judge is stored.judge


def hostile(folder: Path, name: object) -> Path:
    tiny_model(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"generator": {"kind": "named", "name": name}}))
    return folder


def test_no_name_in_a_folder_is_followed_by_itself(unharmed, tmp_path):
    (tmp_path / "evil.py").write_text(f"open({MARK!r}, 'w')\n")
    folder = hostile(tmp_path / "m", "evil:make")
    judged = tiny_model(tmp_path / "judged")
    record_judge(judged, "evil:make")

    def look(images):
        return {"bright": images.mean((1, 2, 3)) > 0}

    for call in (
        lambda: load_model(folder),
        lambda: load_generator(folder),
        lambda: generate("smile", 1, model=folder),
        lambda: train_attributes(folder, look, n=20),
        lambda: train_attributes(folder, look, tmp_path / "copy", n=20),
        lambda: serving.load_models([str(folder)], "cpu"),
        lambda: run("edit", "smile", "--model", folder),
        lambda: run("import-heads", folder, "x.npy", "--attribute", "a"),
        lambda: load_model(judged),
        lambda: load_model(judged, generator="faces"),
        lambda: generate("smile", 1, model=judged),
    ):
        with pytest.raises(EnergyQLError):
            call()
    assert "evil" not in sys.modules


@pytest.mark.parametrize("name", [None, 3, "", "a b:c", "os:abort; rm -rf x", "a\nb", "../x", "x" * 300, ["os:abort"]])
def test_names_that_no_folder_may_have(tmp_path, name):
    with pytest.raises(ModelError, match="the name of its generator is no name of code"):
        load_model(hostile(tmp_path / "m", name), allow_plugins=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "no installed package has 'nothing' among its generators\ninstalled generators: broken, faces; or"),
        ("broken", "broken is packaged_faces:nothing, which cannot be imported: .* has no attribute 'nothing'"),
        ("my_faces:nothing", r"module 'my_faces' has no 'nothing'\nthe module is .*my_faces\.py"),
        ("my_faces:faces", "module 'my_faces' has no 'faces'\ndid you mean Faces"),
        ("no_such_module:f", "cannot import 'no_such_module': .*\nno_such_module:f is taken as module:object, with"),
        ("my_lacking:f", "cannot import 'my_lacking': .*\nthe module was found, but not what it imports: not_there"),
        ("my_faces:needy", "my_faces:needy cannot be called without arguments: missing a required argument: 'weights'"),
        ("my_faces:number", "my_faces:number is a int without z_dim, encode, synthesize, so it is no generator"),
        ("my_faces:Faces.paint", "module 'my_faces' has no 'Faces.paint'"),
        ("a b:c", "'a b:c' is not of the form module:function"),
    ],
)  # fmt: skip
def test_names_of_no_generator(name, message):
    with pytest.raises(ArgumentError, match=message):
        named_generator(name)


def test_two_packages_with_one_name(tmp_path):
    install(tmp_path / "site", "same-faces", f"[{GENERATORS}]\nfaces = packaged_faces:Faces\n")
    assert named_generator("faces").z_dim == 6
    install(tmp_path / "site", "other-faces", f"[{GENERATORS}]\nfaces = packaged_faces:others\n")
    with pytest.raises(ArgumentError, match="several generators\nname packaged_faces:Faces or packaged_faces:o"):
        named_generator("faces")


def test_what_a_factory_may_be():
    for name in ("my_faces:Faces", "my_faces:others", "my_faces:ready"):
        generator = named_generator(name)
        assert not generator.training
        assert not generator.paint.weight.requires_grad


def test_what_is_taken_for_a_name():
    assert is_plugin("faces", GENERATORS)
    assert is_plugin("a.b:C.d", GENERATORS)
    for text in ("avatars", "./faces", "C:\\models", "a:b:c", "faces/x:y", ""):
        assert not is_plugin(text, GENERATORS)
    Path("my_faces:Faces").mkdir()
    with pytest.raises(ModelError, match="not a model folder"):
        train_attributes("my_faces:Faces", import_labeller("faces"))
    with pytest.raises(ArgumentError, match="needs a folder for its attributes"):
        run("train", "faces", "--labeller", "faces")
    with pytest.raises(ArgumentError, match="are two generators"):
        run("train", "faces", "--labeller", "faces", "--generator", "my_faces:others", "--out", "x")
    assert not Path("x").exists()


def test_generated_code_is_no_plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = SimpleNamespace(f_code=SimpleNamespace(co_filename="<string>"), f_globals={"__name__": "energyql.files"})
    assert not plugins._is_own(frame)
