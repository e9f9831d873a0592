"""Models on a hub, and folders as hubs read them, against a server that speaks the protocol of huggingface_hub."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import NAME, TOKEN, same_pictures
from needed import needed
from toys import random_heads, tiny_model
from typer.testing import CliRunner

import energyql
from energyql import ArgumentError, AttributeSpec, Model, ModelError, Vocabulary, generate, load_model, load_onnx
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.cli.main import app
from energyql.errors import EnergyQLError
from energyql.models import hub as hub_module
from energyql.pipeline import model as model_module

LIBRARY, CONSTANTS = needed("huggingface_hub"), needed("huggingface_hub.constants")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub's own calls


# Downloads


def test_a_download(hub, contents, tiny):
    hub.add(NAME, contents | {"README.md": b"# tiny", "report.png": b"png", ".gitattributes": b""})
    model = Model.from_pretrained(NAME)
    assert same_pictures(model, load_model(tiny))
    assert hub.downloaded() == sorted([*contents, "README.md"])  # nothing else
    assert str(model.folder).startswith(CONSTANTS.HF_HUB_CACHE)
    hub.asked.clear()
    Model.from_pretrained(NAME)
    assert hub.downloaded() == []  # from the cache


def test_revisions(hub, contents):
    repo = hub.add(NAME, contents)
    old = repo.refs["main"]
    config = json.loads(contents["config.json"]) | {"truncation": 0.9}
    repo.commit(contents | {"config.json": json.dumps(config).encode()})
    repo.refs["v1"] = old
    assert Model.from_pretrained(NAME).truncation == 0.9
    assert Model.from_pretrained(NAME, revision="v1").truncation == 0.7
    assert Model.from_pretrained(NAME, revision=old).truncation == 0.7
    with pytest.raises(ModelError, match=r"the hub has no model somebody/tiny at v2: .*\nsee to its name and revision"):
        Model.from_pretrained(NAME, revision="v2")


@pytest.mark.parametrize(
    "file",
    ["model.pkl", "pytorch_model.bin", "modeling.py", "sub/weights.pt", "a.ckpt", "run.sh", "x.npz", "noext", "m.PTH",
     "data.json.pkl", "setup.cfg", "evil.safetensors\n.py"],
)  # fmt: skip
def test_what_could_be_executed_is_refused(hub, contents, file):
    hub.add(NAME, contents | {file: b"import os"})
    with pytest.raises(
        ModelError, match=r"somebody/tiny holds .*\n?.*, and models are loaded from repositories of saf"
    ):
        Model.from_pretrained(NAME)
    assert hub.downloaded() == []


def test_a_pickle_in_the_cache_is_refused(hub, contents):
    """Other programs use the same cache."""
    hub.add(NAME, contents)
    folder = Model.from_pretrained(NAME).folder
    (folder / "model.pkl").write_bytes(b"")
    with pytest.raises(ModelError, match="holds model.pkl"):
        Model.from_pretrained(NAME)


def test_named_code_in_a_download_is_not_followed(hub, contents, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("open('mark', 'w')\ndef make(): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = json.loads(contents["config.json"]) | {"generator": {"kind": "named", "name": "evil:make"}}
    hub.add(NAME, contents | {"config.json": json.dumps(config).encode()})
    with pytest.raises(ModelError, match="evil:make"):
        Model.from_pretrained(NAME)
    config = json.loads(contents["config.json"]) | {"judge": "evil:make"}
    hub.repos[NAME].commit(contents | {"config.json": json.dumps(config).encode()})
    with pytest.raises(ModelError, match="evil:make"):
        Model.from_pretrained(NAME)
    assert not (tmp_path / "mark").exists()
    assert Model.from_pretrained(NAME, judge="none").judge is None


def test_no_model_of_this_library(hub):
    hub.add(NAME, {"config.json": b"{}", "model.safetensors": b""})
    with pytest.raises(ModelError, match=r"somebody/tiny is no model of energyql"):
        Model.from_pretrained(NAME)
    with pytest.raises(ModelError, match="the hub has no model nobody/none"):
        Model.from_pretrained("nobody/none")
    hub.repos[NAME].private = True
    os.environ.pop("HF_TOKEN")
    with pytest.raises(ModelError, match="the hub has no model somebody/tiny.*\n.*HF_TOKEN if it is private"):
        Model.from_pretrained(NAME)


def test_without_a_network(hub, contents, monkeypatch):
    hub.add(NAME, contents)
    Model.from_pretrained(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert Model.from_pretrained(NAME).name == "tiny"  # from the cache
    with pytest.raises(ModelError, match=r"other/model cannot be downloaded: .*\nit is not in the cache either"):
        Model.from_pretrained("other/model")


@pytest.mark.parametrize("file", ["judge.json", "judge.safetensors", "generator.safetensors"])
def test_a_file_that_cannot_be_downloaded(hub, contents, monkeypatch, file):
    hub.add(NAME, contents)
    hub.broken.add(file)
    with pytest.raises(ModelError, match=r"somebody/tiny cannot be downloaded: .*\ndownload it again"):
        Model.from_pretrained(NAME)
    with monkeypatch.context() as offline:
        offline.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(ModelError, match=r"cannot be downloaded: .*\nit is not in the cache either, or not all of"):
            Model.from_pretrained(NAME)
    hub.broken.clear()
    assert Model.from_pretrained(NAME).judge is not None


def test_a_file_that_is_lost_in_the_cache(hub, contents, monkeypatch):
    hub.add(NAME, contents)
    (Model.from_pretrained(NAME).folder / "judge.json").unlink()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="it is not in the cache either, or not all of it"):
        Model.from_pretrained(NAME)


def test_a_commit_between_two_requests(hub, contents):
    """The files are those of the commit whose list was checked."""
    repo = hub.add(NAME, contents)
    old = repo.refs["main"]
    hub.listed = lambda: repo.commit(contents | {"evil.pkl": b"", "vocabulary.json": b"{}"})
    assert Model.from_pretrained(NAME).folder.name == old


def test_names_that_no_hub_has(hub, monkeypatch):
    for name in ("tiny", "a/b/c", "a--b/c", "../x", "a/b..c"):
        with pytest.raises(ArgumentError, match=f"a model on a hub is called owner/name, not '{re.escape(name)}'"):
            hub_module.download(name)
    assert hub.asked == []
    with pytest.raises(ModelError, match="the hub has no model models/mine.*\n.*; and there is no folder models/mine"):
        Model.from_pretrained("models/mine")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot be downloaded.*\n.*; and there is no folder models/mine"):
        Model.from_pretrained("models/mine")


def test_without_the_library(monkeypatch, tiny):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ArgumentError, match=r'huggingface_hub, which is not installed\npip install "huggingface_hub>='):
        Model.from_pretrained(NAME)
    with pytest.raises(ArgumentError, match="huggingface_hub, which is not installed"):
        load_model(tiny).push_to_hub(NAME)
    assert Model.from_pretrained(tiny).name == "tiny"


def test_a_folder_comes_before_a_hub(hub, contents, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "somebody" / "tiny")
    assert Model.from_pretrained(NAME).folder == tmp_path / "somebody" / "tiny"
    assert hub.asked == []


# Nothing is downloaded by itself


@pytest.mark.parametrize(
    "call",
    [
        lambda: load_model(NAME),
        lambda: load_model(NAME, generator="plain_generators:steep"),
        lambda: generate("smile", n=1, model=NAME),
        lambda: energyql.explain("smile", model=NAME),
        lambda: energyql.list_attributes(NAME),
        lambda: energyql.export_energy("smile", model=NAME),
        lambda: energyql.edit(1, "smile", model=NAME),
        lambda: energyql.sample_pictures(NAME, "pictures", 2),
        lambda: energyql.train_attributes(NAME, None, out="m"),
    ],
)
def test_an_id_in_place_of_a_folder_says_how_to_fetch_it(hub, contents, unharmed, call):
    hub.add(NAME, contents)
    with pytest.raises(ModelError, match=r"no model 'somebody/tiny'\n.*from_pretrained\('somebody/tiny'\)"):
        call()
    assert hub.asked == []


# Uploads


def test_an_upload(hub, tiny, tmp_path):
    model = load_model(tiny)
    url = model.push_to_hub(NAME, license="mit", message="first")
    repo = hub.repos[NAME]
    assert url == f"{hub.url}/{NAME}/commit/{repo.refs['main']}"
    assert (repo.private, repo.messages) == (False, ["", "first"])
    assert set(repo.files) == {
        ".gitattributes", "README.md", "config.json", "generator.safetensors", "attributes.safetensors",
        "vocabulary.json", "judge.json", "judge.safetensors",
    } | ({"report.json"} & set(repo.files))  # fmt: skip
    assert f'from_pretrained("{NAME}")' in repo.files["README.md"].decode()
    assert len(hub.stored) == sum(
        len(data) > 1000 and name.endswith("safetensors") for name, data in repo.files.items()
    )
    assert same_pictures(Model.from_pretrained(NAME), model)
    replace(model, judge=None).push_to_hub(NAME)
    assert "judge.safetensors" not in repo.files
    assert Model.from_pretrained(NAME).judge is None


def test_an_onnx_model(hub, tmp_path):
    needed("onnxruntime")
    needed("onnx")
    from onnx_files import gan

    specs = Vocabulary([AttributeSpec("high", "yes/no")])
    bank = AttributeBank(specs, random_heads(specs, 4), fitted=FittedUnder("w", (1.0, 1.0)))
    model = Model("small", load_onnx(gan(tmp_path / "gan.onnx"), values=(-1, 1)), bank)
    model.push_to_hub(NAME)
    repo = hub.repos[NAME]
    assert repo.files["generator.onnx"] == (tmp_path / "gan.onnx").read_bytes()
    loaded = Model.from_pretrained(NAME)
    assert loaded.generator.config == model.generator.config
    repo.commit({name: data for name, data in repo.files.items() if name != "generator.onnx"})
    with pytest.raises(ModelError, match=r"has no generator\.onnx, and its model needs it"):
        Model.from_pretrained(NAME)


def test_a_private_upload(hub, tiny):
    load_model(tiny).push_to_hub("me/secret", private=True)
    assert hub.repos["me/secret"].private
    assert Model.from_pretrained("me/secret").name == "tiny"
    load_model(tiny).push_to_hub("me/secret", private=True)  # again
    load_model(tiny).push_to_hub("me/open")
    before = hub.repos["me/open"].refs["main"]
    with pytest.raises(ArgumentError, match="me/open is there already, and it is public\nmake it private"):
        load_model(tiny).push_to_hub("me/open", private=True)
    assert hub.repos["me/open"].refs["main"] == before


def test_uploads_that_are_refused(hub, tiny, monkeypatch):
    model = load_model(tiny)
    with monkeypatch.context() as unwritten:  # refused before the work
        unwritten.setattr(model_module, "save_model", None)
        with pytest.raises(ArgumentError, match="a model on a hub is called owner/name, not 'a--b/c'"):
            model.push_to_hub("a--b/c")
    with pytest.raises(ArgumentError, match="a model on a hub is called owner/name, not 'tiny'"):
        model.push_to_hub("tiny")
    hub.add("me/old", {"weights.bin": b""})
    with pytest.raises(ArgumentError, match="me/old holds weights.bin, and models are loaded from repositories of"):
        model.push_to_hub("me/old")
    assert list(hub.repos["me/old"].files) == ["weights.bin"]
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ModelError, match=r"me/new cannot be uploaded: .*401.*\nsee to the network"):
        model.push_to_hub("me/new")


def test_commands(hub, tiny, tmp_path, monkeypatch):
    """As programs, with the settings that users have; those that are refused, in this process."""
    settings = {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "COLUMNS": "200", "NO_COLOR": "1",
    }  # fmt: skip

    def run(*words):
        code = "from energyql.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, words)], cwd=tmp_path, env=os.environ | settings,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    code, printed, errors = run("upload", tiny, "me/mine", "--license", "mit")
    assert (code, errors) == (0, "")
    assert printed == f"Uploaded {tiny}: {hub.url}/me/mine/commit/{hub.repos['me/mine'].refs['main']}\n"
    code, printed, errors = run("download", "me/mine")
    assert (code, printed.splitlines()[0], errors) == (
        0, 'Saved mine; energyql generate "..." --model mine draws with it', ""
    )  # fmt: skip
    assert load_model(tmp_path / "mine").name == "tiny"
    assert not any(path.is_symlink() for path in (tmp_path / "mine").iterdir())
    monkeypatch.chdir(tmp_path)
    for words, message in (
        (("download", "me/mine"), "^mine holds a model already"),
        (("generate", "smile", "--model", "me/mine"), "energyql download me/mine"),
    ):
        with pytest.raises(EnergyQLError) as caught:
            CliRunner().invoke(app, words, catch_exceptions=False)
        assert re.search(message, caught.value.for_command_line())


def test_no_hub_is_asked_without_a_name_of_one():
    assert hub_module.is_hub_id("owner/name")
    for other in (
        "avatars",
        "a/b/c",
        "/a/b",
        "./a",
        "https://huggingface.co/a/b",
        "a/",
        Path("owner/name"),
        None,
        "a b/c",
    ):
        assert not hub_module.is_hub_id(other)
