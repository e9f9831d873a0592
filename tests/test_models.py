import json
from pathlib import Path

import pytest
from toys import VOCABULARY

from energyql import models
from energyql.errors import ArgumentError, ModelError
from energyql.models import model_folder, packaged_models, read_vocabulary


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A package with two models in it."""
    for name in ("avatars", "faces"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "not_a_model").mkdir()
    monkeypatch.setattr(models, "__file__", str(tmp_path / "__init__.py"))
    return tmp_path


def test_packaged_models_go_by_name(packaged, tmp_path, monkeypatch):
    assert packaged_models() == ["avatars", "faces"]
    assert model_folder("avatars") == packaged / "avatars"
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "avatars").mkdir(parents=True)
    (elsewhere / "avatars" / "config.json").write_text("{}")
    monkeypatch.chdir(elsewhere)
    assert model_folder("avatars") == packaged / "avatars"
    assert model_folder(Path("avatars")).resolve() == elsewhere / "avatars"
    assert model_folder("./avatars").resolve() == elsewhere / "avatars"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("avatar", "there is no model 'avatar'\ndid you mean avatars\\?\nor give the path"),
        ("xyzzy", "there is no model 'xyzzy'\npackaged models: avatars, faces"),
        ("../models/avatars", "there is no model"),
        ("a\0b", "there is no model"),
        ("n" * 300, "there is no model"),
    ],
)
def test_no_such_model(packaged, model, message):
    with pytest.raises(ModelError, match=message):
        model_folder(model)


def test_a_folder_without_a_model(packaged, tmp_path):
    (tmp_path / "ffhq.pkl").touch()
    with pytest.raises(ModelError, match="ffhq.pkl is a file, and a model is a folder\nof a checkpoint"):
        model_folder(tmp_path / "ffhq.pkl")
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(
        ModelError, match=r"is not a model folder: it has no config\.json\nenergyql convert makes one of"
    ):
        model_folder(mine)
    for name in ("old", "new"):
        (mine / name).mkdir()
        (mine / name / "config.json").touch()
    with pytest.raises(ModelError, match=rf"it has no config\.json\ndid you mean {mine}/new\?"):
        model_folder(mine)


@pytest.mark.parametrize("model", [None, 3, b"avatars", ["avatars"]])
def test_what_names_no_model(model):
    with pytest.raises(ArgumentError, match="a model is a name or the path of a folder"):
        model_folder(model)


def test_the_vocabulary_without_weights(tiny):
    assert read_vocabulary(tiny) == VOCABULARY


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "has no vocabulary"),
        ("[]", "must hold a JSON object"),
        ("{", "cannot read"),
        (json.dumps({"vocabulary": {"version": 2}}), "vocabulary version 2 is unknown"),
    ],
)
def test_a_damaged_vocabulary(tmp_path, content, message):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "vocabulary.json").write_text(content)
    with pytest.raises(ModelError, match=rf"{message}.*vocabulary\.json|vocabulary\.json.*{message}"):
        read_vocabulary(tmp_path)
