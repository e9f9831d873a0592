"""`sample_pictures` and `energyql sample` with a generator that has a name, `module:factory`."""

import pytest
import typer
from typer.testing import CliRunner

from energyql import ModelSource, sample_pictures
from energyql.cli.pages import sample
from energyql.errors import ArgumentError, DataError, EnergyQLError, ModelError
from energyql.pipeline.model import save_named_model

MODULE = """
import torch

class Plain(torch.nn.Module):
    z_dim = 4

    def __init__(self, slope=0.5):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(slope))

    def encode(self, z, truncation=1.0):
        return truncation * z

    def synthesize(self, w):
        return torch.tanh(self.slope * w[:, :3, None, None].expand(-1, -1, 8, 8))


def steep():
    return Plain(2.0)
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "plain_generators.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "code")


def test_a_name_takes_the_place_of_a_model(tmp_path):
    folder = sample_pictures("plain_generators:Plain", tmp_path / "p", 3)
    assert (folder.random, folder.drawn.truncation) == (3, 1.0)
    assert sample_pictures("plain_generators:Plain", tmp_path / "p", 4).random == 4
    with pytest.raises(DataError, match="pictures of another generator"):
        sample_pictures("plain_generators:steep", tmp_path / "p", 5)
    with pytest.raises(ArgumentError, match="plain_generators"):
        sample_pictures("plain_generators:Missing", tmp_path / "q", 1)


class TestFolders:
    def test_a_name_in_a_folder_is_followed_only_if_allowed(self, tmp_path):
        save_named_model(tmp_path / "m", "m", "plain_generators:steep", truncation=0.5)
        with pytest.raises(ModelError, match="allow-plugins|allow_plugins"):
            sample_pictures(tmp_path / "m", tmp_path / "p", 2)
        assert not (tmp_path / "p").exists()
        folder = sample_pictures(ModelSource(tmp_path / "m", allow_plugins=True), tmp_path / "p", 2)
        assert folder.drawn.truncation == 0.5
        assert sample_pictures(ModelSource(tmp_path / "m", "plain_generators:steep"), tmp_path / "p", 3).random == 3
        with pytest.raises(DataError, match="pictures of another generator"):
            sample_pictures(ModelSource(tmp_path / "m", "plain_generators:Plain"), tmp_path / "p", 4)

    def test_two_generators(self, tmp_path):
        with pytest.raises(ArgumentError, match="the generator a:b is for a model folder that names one"):
            sample_pictures(ModelSource("plain_generators:Plain", "a:b"), tmp_path / "p", 2)


def test_the_command(tmp_path):
    app = typer.Typer()
    app.command()(sample)

    def run(*words):
        outcome = CliRunner().invoke(app, [str(word) for word in words])
        if isinstance(outcome.exception, EnergyQLError):
            raise outcome.exception
        return outcome.output

    save_named_model(tmp_path / "m", "m", "plain_generators:steep", truncation=0.5)
    words = ("-n", 2, "--device", "cpu", "--out")
    assert "2 random pictures" in run("plain_generators:Plain", *words, tmp_path / "p")
    assert "at truncation 0.5" in run(tmp_path / "m", *words, tmp_path / "q", "--allow-plugins")
    assert "at truncation 0.5" in run(tmp_path / "m", *words, tmp_path / "r", "--generator", "plain_generators:steep")
    with pytest.raises(ModelError, match="allow_plugins"):
        run(tmp_path / "m", *words, tmp_path / "s")
