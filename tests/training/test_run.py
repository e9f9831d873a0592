import json
from dataclasses import replace

import pytest
import torch
from labelled import CHECKPOINTS, answers, latents_of, write_csv, write_styleflow
from PIL import Image
from toys import tiny_model

from energyql import E
from energyql.attributes.bank import AttributeBank
from energyql.errors import ArgumentError, DataError, ModelError, VocabularyError
from energyql.generators.load import load_generator
from energyql.pipeline.generate import generate
from energyql.pipeline.model import load_model, save_model
from energyql.sampling import prior_latents
from energyql.training import run
from energyql.training.labels import LabelTable
from energyql.training.run import HeadSettings, train_attributes
from energyql.training.samples import Prior
from energyql.training.styleflow import read_styleflow

ADA = CHECKPOINTS / "ada.pkl"
QUICK = HeadSettings(steps=150, hidden=8, batch=128, lr=2e-2, weight_decay=1e-2)
SHORT = HeadSettings(steps=6, hidden=4, batch=16)


@pytest.fixture(scope="module")
def styleflow(tmp_path_factory):
    """A model trained on StyleFlow's pickles of a tiny network, drawn at truncation 0.8."""
    base = tmp_path_factory.mktemp("styleflow")
    labels = read_styleflow(
        write_styleflow(base / "labels", latents_of(load_generator(ADA), 1500, 0.8)),
        ["glasses", "beard", "age", "haircolor"],
    )
    trained = train_attributes(ADA, labels, base / "model", settings=QUICK, progress=False)
    return trained


def brightness(images):
    """A labeller: how bright, whether red, and where it is brightest."""
    mean = images.mean((1, 2, 3))
    corners = images[:, 0, ::31, ::31].flatten(1).argmax(1)
    red = images[:, 0].mean((1, 2)) > images[:, 1].mean((1, 2))
    red = [None if i % 9 == 0 else bool(answer) for i, answer in enumerate(red)]
    return {"bright": mean, "red": red, "corner": [f"corner {k}" for k in corners.tolist()]}


def bright(images):
    return {"bright": images.mean((1, 2, 3))}


class TestStyleFlow:
    def test_the_folder(self, styleflow):
        files = {file.name for file in styleflow.folder.iterdir()}
        assert files == {
            "config.json", "generator.safetensors", "attributes.safetensors", "vocabulary.json", "report.json",
            "report.png",
        }  # fmt: skip
        model = load_model(styleflow.folder)
        assert list(model.vocabulary) == ["glasses", "beard", "age", "haircolor"]
        assert model.bank.space == "w"

    def test_it_learned(self, styleflow):
        report = styleflow.report
        assert report["glasses"]["accuracy"] > 0.9
        assert report["beard"]["accuracy"] > 0.75
        assert report["haircolor"]["accuracy"] > 0.7
        assert report["age"]["explained"] > 0.8
        assert report["glasses"]["samples"] <= 150

    def test_truncation_is_read_off_the_latents(self, styleflow):
        low, high = styleflow.bank.truncation
        assert low == high == pytest.approx(0.8, abs=0.03)

    def test_generate(self, styleflow):
        psi = styleflow.bank.truncation[0]
        result = generate("glasses AND age > 0.6", 4, model=styleflow.folder, truncation=psi, progress=False)
        assert result.satisfied.mean() >= 0.75

    def test_another_truncation_is_refused(self, styleflow):
        with pytest.raises(ArgumentError, match="do not hold at truncation 0.3\n.*fitted at truncation 0.8"):
            generate("glasses", 1, model=styleflow.folder, truncation=0.3, progress=False)

    def test_the_report(self, styleflow):
        report = json.loads((styleflow.folder / "report.json").read_text())["attributes"]
        assert report == {name: dict(entry) for name, entry in styleflow.report.items()}
        assert sum(map(sum, report["haircolor"]["confusion"])) == report["haircolor"]["samples"]
        with Image.open(styleflow.folder / "report.png") as picture:
            assert picture.width > 500


def test_the_default_truncation_is_one_the_heads_know(styleflow):
    assert generate("glasses", 1, model=styleflow.folder, progress=False).images


class TestLabeller:
    def test_a_function(self, tmp_path):
        trained = train_attributes(ADA, brightness, tmp_path / "m", count=300, settings=SHORT, progress=False)
        assert [spec.kind for spec in trained.bank.vocabulary.values()] == ["continuous", "yes/no", "categorical"]
        assert trained.bank.truncation == (0.7, 0.7)
        assert trained.report["red"]["labels"] < 300
        assert load_model(tmp_path / "m").bank.generator

    def test_a_range_of_truncation_and_space_z(self, tmp_path):
        trained = train_attributes(
            ADA, bright, tmp_path / "m", count=60, settings=SHORT, truncation=(0.5, 1.0), space="z", progress=False
        )
        assert (trained.bank.space, trained.bank.truncation) == ("z", (0.5, 1.0))
        for psi in (0.5, 1.0):
            assert generate("bright > 1", 1, model=tmp_path / "m", truncation=psi, progress=False).images

    def test_a_judge_as_labeller(self, tiny, tmp_path):
        judge = load_model(tiny).judge
        trained = train_attributes(
            tiny, judge, tmp_path / "m", count=40, settings=SHORT, only=["age"], replace=True, progress=False,
            truncation=(0.5, 1.0),
        )  # fmt: skip
        assert list(trained.report) == ["age"]
        assert not (tmp_path / "m" / "judge.json").exists()

    def test_a_generator_of_ones_own(self, tmp_path):
        class Own(torch.nn.Module):
            z_dim = 5

            def __init__(self):
                super().__init__()
                self.scale = torch.nn.Parameter(torch.tensor(2.0))

            def encode(self, z, truncation=1.0):
                return z

            def synthesize(self, w):
                return (w[:, :3, None, None] * self.scale).expand(-1, -1, 4, 4).clamp(-1, 1)

        with pytest.raises(ArgumentError, match="needs a folder"):
            train_attributes(Own(), bright)
        trained = train_attributes(Own(), bright, tmp_path, count=60, settings=SHORT, progress=False)
        assert AttributeBank.load(tmp_path).generator == trained.bank.generator != ""
        other = Own()
        with torch.no_grad():
            other.scale += 1
        with pytest.raises(ModelError, match="attributes of another generator"):
            train_attributes(other, lambda images: {"b": bright(images)["bright"]}, tmp_path, count=60)


class TestAdding:
    def test_to_a_converted_model_without_attributes(self, tmp_path):
        save_model(tmp_path / "m", "m", load_generator(ADA), truncation=0.9, dtype=torch.float32)
        trained = train_attributes(tmp_path / "m", bright, count=60, settings=SHORT, progress=False)
        assert trained.bank.truncation == (0.9, 0.9)
        train_attributes(
            ADA, lambda images: {"dark": -images.mean((1, 2, 3))}, tmp_path / "m", count=60, settings=SHORT,
            progress=False,
        )  # fmt: skip
        model = load_model(tmp_path / "m")
        assert list(model.vocabulary) == ["bright", "dark"]
        assert model.truncation == 0.9

    def test_others_stay_as_they_are(self, tmp_path):
        tiny_model(tmp_path / "m", judge=False)
        before = AttributeBank.load(tmp_path / "m")
        train_attributes(tmp_path / "m", bright, count=60, settings=SHORT, progress=False)
        after = load_model(tmp_path / "m").bank
        assert list(after.vocabulary) == [*before.vocabulary, "bright"]
        assert (after.space, after.truncation) == (before.space, before.truncation)
        for name, head in before.heads.items():
            for field, tensor in head.tensors().items():
                assert torch.equal(after.heads[name].tensors()[field], tensor)

    def test_a_report_of_earlier_attributes_is_kept(self, tmp_path):
        for function in (bright, lambda images: {"dark": -images.mean((1, 2, 3))}):
            train_attributes(ADA, function, tmp_path / "m", count=60, settings=SHORT, progress=False)
        assert list(json.loads((tmp_path / "m" / "report.json").read_text())["attributes"]) == ["bright", "dark"]

    def test_names_do_not_clash(self, tmp_path):
        for attempt in range(2):
            if attempt:
                with pytest.raises(VocabularyError, match=r"already has 'bright'\n.*--replace"):
                    train_attributes(ADA, bright, tmp_path, count=60, settings=SHORT, progress=False)
            train_attributes(
                ADA, bright, tmp_path, count=60, settings=SHORT, replace=attempt > 0, seed=attempt, progress=False
            )

    def test_a_judge_that_would_not_know(self, tmp_path):
        tiny_model(tmp_path / "m")
        with pytest.raises(ModelError, match="the judge of .* does not read 'bright'\n.*--out"):
            train_attributes(tmp_path / "m", bright, count=60, settings=SHORT, progress=False)
        train_attributes(tmp_path / "m", bright, tmp_path / "n", count=60, settings=SHORT, progress=False)
        assert "bright" in load_model(tmp_path / "n").vocabulary

    def test_another_space_or_truncation(self, tmp_path):
        tiny_model(tmp_path / "m", judge=False)
        for setting in ({"space": "z"}, {"truncation": 0.6}):
            with pytest.raises(ModelError, match="new ones cannot read"):
                train_attributes(tmp_path / "m", bright, count=60, progress=False, **setting)

    def test_another_generator(self, tmp_path):
        train_attributes(ADA, bright, tmp_path, count=60, settings=SHORT, progress=False)
        with pytest.raises(ModelError, match="holds another generator"):
            train_attributes(CHECKPOINTS / "rosinality.pt", bright, tmp_path, count=60, progress=False)

    def test_the_packaged_model_is_not_changed(self, tiny, tmp_path, monkeypatch):
        from energyql import models

        (tmp_path / "package").mkdir()
        (tmp_path / "package" / "toy").symlink_to(tiny)
        monkeypatch.setattr(models, "__file__", str(tmp_path / "package" / "__init__.py"))
        with pytest.raises(ArgumentError, match="'toy' is not changed"):
            train_attributes("toy", bright)
        with pytest.raises(ArgumentError, match="a model folder must be named"):
            train_attributes(ADA, bright)


class TestTable:
    def test_by_index(self, tmp_path):
        generator = load_generator(ADA)
        index = torch.randperm(900, generator=torch.Generator().manual_seed(1))
        found = answers(latents_of(generator, 900, 0.7, seed=11))
        table = {"index": index.tolist(), "glasses": [("no", "yes")[found["glasses"][i]] for i in index]}
        trained = train_attributes(
            ADA, write_csv(tmp_path / "labels.csv", table), tmp_path / "m", seed=11, settings=QUICK, progress=False
        )
        assert trained.report["glasses"]["accuracy"] > 0.85

    def test_latents_in_z(self, tmp_path):
        table = LabelTable({"a": [0, 1] * 30}, latents=torch.randn(60, load_generator(ADA).z_dim))
        assert train_attributes(ADA, table, tmp_path, space="z", settings=SHORT, progress=False).bank.space == "z"

    def test_latents_of_another_generator(self, tmp_path):
        size = load_generator(ADA).config.w_dim
        for latents, message in (
            (50 + torch.randn(60, size), "probably not latents of this generator.*\n.*truncation"),
            (torch.randn(60, size + 1), f"latents have {size + 1} numbers"),
        ):
            with pytest.raises(DataError, match=message):
                train_attributes(ADA, LabelTable({"a": [0, 1] * 30}, latents=latents), tmp_path, progress=False)
        wrong = LabelTable({"a": [0, 1] * 30}, latents=torch.randn(60, size + 1))
        with pytest.raises(DataError, match=f"but w has {size}"):
            train_attributes(ADA, wrong, tmp_path, truncation=1.0, progress=False)

    def test_mistakes(self, tmp_path):
        table = LabelTable({"a": [0, 1] * 30}, index=torch.arange(60))
        with pytest.raises(ArgumentError, match="not a range"):
            train_attributes(ADA, table, tmp_path, truncation=(0.5, 1.0), progress=False)
        with pytest.raises(ArgumentError, match="truncation is a number or a range"):
            train_attributes(ADA, table, tmp_path, truncation=(1.0, 0.5), progress=False)
        with pytest.raises(VocabularyError, match="no labels for 'b'\nlabels: a"):
            train_attributes(ADA, table, tmp_path, only=["b"], progress=False)
        with pytest.raises(DataError, match="too few"):
            few = LabelTable({"a": [0, 1] * 3}, index=torch.arange(6))
            train_attributes(ADA, few, tmp_path, progress=False)


@pytest.mark.parametrize(("name", "classes"), [("ada_conditional.pkl", 4), ("stylegan3-t-conditional.pkl", 3)])
class TestClassLabels:
    def train(self, name, folder, labels=bright, **settings):
        settings = {"count": 60, "settings": SHORT, "progress": False} | settings
        return train_attributes(CHECKPOINTS / name, labels, folder, **settings)

    def test_one_class(self, tmp_path, name, classes):
        seen = []

        def look(images):
            seen.append(images)
            return bright(images)

        trained = self.train(name, tmp_path, look, label=torch.eye(classes)[1], truncation=0.8, seed=3)
        assert trained.bank.label == load_model(tmp_path).bank.label == 1
        above = trained.bank.vocabulary["bright"].low + 0.01
        generator = load_model(tmp_path).generator
        w = generator.encode(prior_latents(3, 0, 60, generator.z_dim), 0.8, torch.eye(classes)[[1] * 60])
        torch.testing.assert_close(torch.cat(seen), generator.synthesize(w), atol=1e-4, rtol=1e-4)
        self.train(name, tmp_path, lambda images: {"dark": -images.mean((1, 2, 3))})  # the label is that of the others
        result = generate(E.bright > above, 1, model=tmp_path, progress=False)
        assert result.provenance["label"] == 1
        with pytest.raises(ArgumentError, match="do not hold under label 2\nthey were fitted under label 1"):
            generate(E.bright > above, 1, model=tmp_path, label=2, progress=False)
        with pytest.raises(ModelError, match="under label 1, so new ones cannot read .* under label 2"):
            self.train(name, tmp_path, lambda images: {"light": images.mean((1, 2, 3))}, label=2)

    def test_a_class_of_its_own_each(self, tmp_path, name, classes):
        trained = self.train(name, tmp_path, label="random", count=300)
        assert trained.bank.label == "random"
        above = trained.bank.vocabulary["bright"].low + 0.01
        for label in (0, classes - 1):
            assert (
                generate(E.bright > above, 1, model=tmp_path, label=label, progress=False).provenance["label"] == label
            )

    def test_the_class_belongs_to_the_sample(self, name, classes):
        generator = load_generator(CHECKPOINTS / name)
        prior = Prior(generator, 5, (0.5, 1.0), torch.device("cpu"), "random")
        w, some = prior.w(torch.arange(64)), torch.tensor([40, 3, 9])
        torch.testing.assert_close(prior.w(some), w[some])
        own = [prior_with.w(torch.arange(64)) for prior_with in (replace(prior, label=k) for k in range(classes))]
        chosen = torch.stack([(w - other).abs().sum(1) for other in own]).argmin(0)
        assert set(chosen.tolist()) == set(range(classes))
        torch.testing.assert_close(torch.stack(own)[chosen, torch.arange(64)], w)

    def test_truncation_is_read_off_latents_of_a_class(self, tmp_path, name, classes):
        generator = load_generator(CHECKPOINTS / name)
        w = generator.encode(torch.randn(500, generator.z_dim), 0.6, torch.eye(classes)[[2] * 500])
        table = LabelTable({"a": [0, 1] * 250}, latents=w)
        assert self.train(name, tmp_path, table, label=2).bank.truncation[0] == pytest.approx(0.6, abs=0.05)

    def test_an_interrupted_labelling_of_another_class_is_not_used(self, tmp_path, name, classes):
        def stopped(images):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.train(name, tmp_path, stopped, label=0)
        settings = tmp_path / run.WORK / "labels" / "settings.json"
        assert json.loads(settings.read_text())["label"] == 0
        with pytest.raises(KeyboardInterrupt):
            self.train(name, tmp_path, stopped, label=[0.5] * classes)
        assert json.loads(settings.read_text())["label"] == [0.5] * classes

    def test_mistakes(self, tmp_path, name, classes):
        for label, message in (
            (None, f"conditional on {classes} classes: give a label"),
            (classes, f"there is no class {classes}\na label is a class from 0 to {classes - 1}"),
            ([0.5, 0.5], f"are not {classes} finite numbers"),
            ("any", "'any' is not a label"),
        ):
            with pytest.raises(ArgumentError, match=message):
                self.train(name, tmp_path, label=label)
        with pytest.raises(ArgumentError, match="heads that read z cannot tell the classes apart"):
            self.train(name, tmp_path, label="random", space="z")
        table = LabelTable({"a": [0, 1] * 30}, index=torch.arange(60))
        with pytest.raises(ArgumentError, match="labelled by hand have one class label"):
            self.train(name, tmp_path, table, label="random")


def test_a_label_for_a_generator_without_classes(tmp_path):
    for label in (0, "random"):
        with pytest.raises(ArgumentError, match="has no classes, so it takes no label"):
            train_attributes(ADA, bright, tmp_path, label=label, progress=False)


class TestInterruption:
    @pytest.mark.parametrize("calls", [1, 3, 5])
    def test_nothing_is_lost_and_the_end_is_the_same(self, tmp_path, monkeypatch, calls):
        monkeypatch.setattr("energyql.training.samples.PICTURES_A_PART", 40)
        seen = []

        def labeller(images):
            if len(seen) == calls:
                raise KeyboardInterrupt
            seen.append(len(images))
            return bright(images)

        def train(folder):
            return train_attributes(ADA, labeller, folder, count=100, settings=SHORT, progress=False)

        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "a")
        before, calls = sum(seen), None
        train(tmp_path / "a")
        assert before - before % 40 + sum(seen) - before == 100 or before < 40
        train(tmp_path / "b")
        for name in ("attributes.safetensors", "vocabulary.json", "report.json"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert not (tmp_path / "a" / run.WORK).exists()

    def test_answers_of_another_run_are_not_used(self, tmp_path):
        def stopped(images):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_attributes(ADA, stopped, tmp_path, count=60, progress=False)
        (tmp_path / run.WORK / "labels" / "0-60.json").write_text(json.dumps({"wrong": [0, 1] * 30}))
        trained = train_attributes(ADA, bright, tmp_path, count=60, settings=SHORT, progress=False)
        assert list(trained.bank.vocabulary) == ["bright"]


def test_a_refused_training_leaves_no_folder(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("index,bright\n" + "".join(f"{i},1\n" for i in range(40)))
    for options in ({}, {"kinds": {"other": "yes/no"}}):
        with pytest.raises((DataError, VocabularyError)):
            train_attributes(ADA, table, tmp_path / "model", progress=False, **options)
        assert not (tmp_path / "model").exists()
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(DataError):
        train_attributes(ADA, table, folder, progress=False)
    assert folder.exists()  # it was there before
