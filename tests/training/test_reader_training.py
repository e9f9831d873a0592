"""`space="picture"`: a network that reads pictures in the place of heads, and a judge that is another one."""

import json

import numpy as np
import pytest
import short
import torch
from holes import Stains, look
from labelled import write_csv
from toys import VOCABULARY, random_generator, tiny_model
from typer.testing import CliRunner

from energyql import explain, generate, load_model, train_attributes, train_judge
from energyql.attributes.bank import FittedUnder
from energyql.attributes.pictures import PictureBank
from energyql.cli import main as cli
from energyql.errors import ArgumentError, DataError, EnergyQLError, ModelError, VocabularyError
from energyql.generators.families import save_model
from energyql.pipeline.model import is_same
from energyql.training.judge import labelled_pictures
from energyql.training.labels import LabelTable
from energyql.training.picture_fit import PictureSettings
from energyql.training.samples import Prior
from energyql.training.target import Target, Task
from energyql.vocabulary import Vocabulary

QUICK = PictureSettings(side=8, channels=(8, 16), least=3_000, most=3_000, lr=1e-2)


@pytest.fixture(autouse=True)
def learning(monkeypatch):
    """Networks that learn something."""
    short.networks(monkeypatch, QUICK)


def train(out, labels=look, **more):
    options = {"n": 300, "space": "picture", "only": ["red"], "judge": "train", "progress": False} | more
    return train_attributes(Stains(), labels, out, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        short.networks(patched, QUICK)
        return train(tmp_path_factory.mktemp("trained") / "m")


class TestTraining:
    def test_guide_and_judge_are_two_networks(self, trained):
        assert isinstance(trained.bank, PictureBank)
        assert list(trained.bank.vocabulary) == ["red"]
        assert not is_same(trained.bank.reader, trained.judge)
        assert trained.report["red"].held_out == 60
        assert trained.report["red"].judges
        assert {path.name for path in trained.folder.iterdir()} == {
            "vocabulary.json", "reader.json", "reader.safetensors", "judge.json", "judge.safetensors", "report.png",
            "verifier.json", "verifier.safetensors", "verifier-2.json", "verifier-2.safetensors",
            "verifier-held-out.safetensors",
        }  # fmt: skip

    def test_queries_follow_it(self, trained):
        model = load_model(trained.folder, generator=Stains())
        assert model.report["red"] == trained.report["red"]
        result = generate("NOT red", 8, model=model, progress=False)
        assert (result.probabilities["red"] < 0.12).all()
        truth = look(model.generator.synthesize(result.w))["red"]
        assert (~truth).float().mean() >= 0.75
        assert result.satisfied is not None
        assert np.array_equal(result.satisfied, ~result.judged["red"])
        assert explain("red", model=model, pilot=True).pilot.generator_calls > 1

    def test_the_same_call_gives_the_same_network(self, trained, tmp_path):
        again = train(tmp_path / "m", judge=None)
        assert again.judge is None
        for name, tensor in again.bank.reader.state_dict().items():
            assert torch.equal(tensor, trained.bank.reader.state_dict()[name]), name

    def test_a_folder_has_one_reader_or_heads(self, trained, tmp_path):
        with pytest.raises(ModelError, match="has attributes already, and a network .* is trained as a whole"):
            train(trained.folder, lambda images: {"green": look(images)["bent"]}, only=None)
        with pytest.raises(ModelError, match=r"read picture at .*, so new ones cannot read w"):
            train(trained.folder, only=["bent"], space="w")
        with pytest.raises(ModelError, match="so new ones cannot read picture at truncation"):
            train_attributes(tiny_model(tmp_path), lambda images: {"new": images[:, 0, 0, 0] > 0}, space="picture")

    def test_another_judge(self, trained):
        before = load_model(trained.folder, generator=Stains()).judge
        found = train_judge(Stains(), look, trained.folder, only=["red"], n=300, seed=7, progress=False)
        assert found.report["red"].judges
        after = load_model(trained.folder, generator=Stains())
        assert not is_same(after.judge, before)
        assert not is_same(after.judge, after.bank.reader)


def test_from_a_table_of_picture_numbers(tmp_path):
    labels = look(Stains().synthesize(Prior(Stains(), 3, FittedUnder(), torch.device("cpu")).z(torch.arange(300))))
    table = LabelTable({"red": labels["red"].tolist()}, index=torch.arange(300))
    trained = train(tmp_path / "m", table, seed=3, only=None)
    assert not is_same(trained.bank.reader, trained.judge)  # other rows in another order, from another seed
    assert trained.report["red"].fitted == 240
    with pytest.raises(DataError, match="the labels are about latents"):
        train(tmp_path / "n", LabelTable({"red": [0, 1] * 50}, latents=torch.zeros(100, 100)), only=None)


def test_what_cannot_be_learnt(tmp_path):
    with pytest.raises(DataError, match="could learn none of odd\nlabel some hundreds .* teacher .*space=.w"):
        train(tmp_path / "m", only=["odd"], judge=None)
    with pytest.raises(VocabularyError, match="there are no labels for 'hat'"):
        train(tmp_path / "m", only=["hat"], n=20)
    with pytest.raises(ArgumentError, match="not 'pictures'; picture is for a network"):
        train(tmp_path / "m", space="pictures")


def test_networks_of_other_names_have_other_seeds_and_pictures(tmp_path):
    prior = Prior(Stains(), 5, FittedUnder(), torch.device("cpu"))
    task = Task(Target(tmp_path, Stains(), "mark", None, None), prior, look, lambda stage, done: None)
    seen = []

    def learnable(columns):
        seen.append(columns["red"])
        return Vocabulary([VOCABULARY["smile"]])

    for apart in (1, 2):
        with pytest.raises(KeyError, match="smile"):  # before anything is fitted
            labelled_pictures("reader", task, learnable, 100, QUICK.side, apart=apart)
    assert seen[0] != seen[1]
    assert len(seen[0]) == 100


@pytest.mark.slow
def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gaze_guide.py").write_text(
        "def look(images):\n    return {'smile': images[:, 0].mean((1, 2)) > images[:, 2].mean((1, 2))}\n"
    )
    save_model(tmp_path / "m", "m", random_generator(), truncation=0.7)

    def run(*words):
        outcome = CliRunner().invoke(cli.app, [str(word) for word in words])
        if isinstance(outcome.exception, EnergyQLError):
            raise outcome.exception
        assert outcome.exit_code == 0, outcome.output
        return outcome.output

    output = run(
        "train",
        "m",
        "--labeller",
        "gaze_guide:look",
        "--judge",
        "train",
        "-n",
        300,
        "--space",
        "picture",
        "--device",
        "cpu",
    )
    assert "smile, yes/no: balanced accuracy" in output
    assert json.loads((tmp_path / "m" / "vocabulary.json").read_text())["space"] == "picture"
    assert "smile, yes/no: balanced accuracy" in run("report", "m")
    assert "calls of the generator; by rejection" in run("explain", "smile", "--model", "m", "--pilot")
    found = json.loads(run("generate", "smile", "-n", 2, "--model", "m", "--json", "--out", "out", "--quiet"))
    assert found["statistics"]["generator_calls_mean"] >= 1
    with pytest.raises(ArgumentError, match="an edit needs heads"):
        run("edit", "smile", "--model", "m", "--start", 1, "--out", "edit.png")
    write_csv(tmp_path / "labels.csv", {"index": list(range(20)), "new": [0, 1] * 10})
    with pytest.raises(ModelError, match="new ones cannot read w"):
        run("train", "m", "--labels", "labels.csv", "--space", "w", "--device", "cpu")
