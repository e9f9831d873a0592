import json

import brief
import pytest
import torch
from brief import ADA, bright, dark, draw, train
from labelled import CHECKPOINTS, answers, latents_of, write_csv, write_styleflow
from PIL import Image
from toys import tiny_model

from energyql.attributes.heads import AttributeBank
from energyql.errors import ArgumentError, DataError, LabelWarning, ModelError, VocabularyError
from energyql.generators.families import save_model
from energyql.generators.load import load_generator
from energyql.models.unfinished import WORK
from energyql.pipeline.model import load_model
from energyql.training import run
from energyql.training.foreign import read_styleflow
from energyql.training.heads import HeadSettings
from energyql.training.labels import LabelTable

QUICK = HeadSettings(steps=150, hidden=8, batch=128, lr=2e-2, weight_decay=1e-2)


@pytest.fixture(scope="module")
def styleflow(tmp_path_factory):
    """A model trained on StyleFlow's pickles of a tiny network, drawn at truncation 0.8."""
    base = tmp_path_factory.mktemp("styleflow")
    labels = read_styleflow(
        write_styleflow(base / "labels", latents_of(load_generator(ADA), 1500, 0.8)),
        ["glasses", "beard", "age", "haircolor"],
    )
    return train(ADA, labels, base / "model", settings=QUICK)


def brightness(images):
    """A labeller: how bright, whether red, and where it is brightest."""
    mean = images.mean((1, 2, 3))
    corners = images[:, 0, ::31, ::31].flatten(1).argmax(1)
    red = images[:, 0].mean((1, 2)) > images[:, 1].mean((1, 2))
    red = [None if i % 9 == 0 else bool(answer) for i, answer in enumerate(red)]
    return {"bright": mean, "red": red, "corner": [f"corner {k}" for k in corners.tolist()]}


class TestStyleFlow:
    def test_the_folder(self, styleflow):
        files = {file.name for file in styleflow.folder.iterdir()}
        assert files == {
            "config.json", "generator.safetensors", "attributes.safetensors", "vocabulary.json", "report.json",
            "report.png", "second.safetensors", "card.md",
        }  # fmt: skip
        model = load_model(styleflow.folder)
        assert list(model.vocabulary) == ["glasses", "beard", "age", "haircolor"]
        assert model.bank.space == "w"

    def test_it_learned(self, styleflow):
        report = styleflow.report
        assert report["glasses"].score > 0.9
        assert report["beard"].score > 0.75
        assert report["haircolor"].score > 0.7
        assert report["age"].score > 0.8
        assert 100 < report["glasses"].held_out <= 150
        assert all(each.weak is None for each in report.values())

    def test_truncation_is_read_off_the_latents(self, styleflow):
        low, high = styleflow.bank.truncation
        assert low == high == pytest.approx(0.8, abs=0.03)

    def test_the_report(self, styleflow):
        report = json.loads((styleflow.folder / "report.json").read_text())["attributes"]
        assert list(report) == list(styleflow.report)
        assert load_model(styleflow.folder).report == styleflow.report
        hair = report["haircolor"]
        assert sum(map(sum, hair["details"]["confusion"])) == hair["held_out"]
        assert sum(hair["labels"].values()) == hair["fitted"] + hair["held_out"]
        assert (hair["measure"], report["age"]["measure"]) == ("balanced accuracy", "R2")
        with Image.open(styleflow.folder / "report.png") as picture:
            assert picture.width > 500


class TestLabeller:
    def test_a_function(self, tmp_path):
        trained = train(ADA, brightness, tmp_path / "m", n=300)
        assert [spec.kind for spec in trained.bank.vocabulary.values()] == ["continuous", "yes/no", "categorical"]
        assert trained.bank.truncation == (0.7, 0.7)
        assert sum(trained.report["red"].labels.values()) < 300
        assert trained.report["bright"].fitted == 240
        assert trained.report["bright"].held_out == 60
        assert load_model(tmp_path / "m").bank.generator

    def test_pictures_of_another_range_are_told(self, tmp_path, monkeypatch):
        generator = load_generator(ADA)
        drawn = generator.synthesize
        monkeypatch.setattr(generator, "synthesize", lambda w: 127.5 * (drawn(w) + 1))
        with pytest.warns(LabelWarning, match=r"pictures are far outside of \[-1, 1\]") as warned:
            train(generator, bright, tmp_path / "m", n=300)
        assert {warning.filename for warning in warned} == {brief.__file__}

    def test_a_range_of_truncation_and_space_z(self, tmp_path):
        trained = train(ADA, bright, tmp_path / "m", truncation=(0.5, 1.0), space="z")
        assert (trained.bank.space, trained.bank.truncation) == ("z", (0.5, 1.0))
        for psi in (0.5, 1.0):
            assert draw("bright > 1", 1, model=tmp_path / "m", truncation=psi, allow_weak=["bright"]).images

    def test_a_judge_as_labeller(self, tiny, tmp_path):
        judge = load_model(tiny).judge
        trained = train(tiny, judge, tmp_path / "m", n=40, only=["age"], replace=True, truncation=(0.5, 1.0))
        assert list(trained.report) == ["age"]
        assert load_model(tmp_path / "m").judged_names == ("smile", "hair", "glasses", "beard")  # "age" is another now

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
            train(Own(), bright)
        trained = train(Own(), bright, tmp_path)
        assert AttributeBank.load(tmp_path).generator == trained.bank.generator != ""
        other = Own()
        with torch.no_grad():
            other.scale += 1
        with pytest.raises(ModelError, match="attributes of another generator"):
            train(other, lambda images: {"b": bright(images)["bright"]}, tmp_path)


class TestAdding:
    def test_to_a_converted_model_without_attributes(self, tmp_path):
        save_model(tmp_path / "m", "m", load_generator(ADA), truncation=0.9, dtype=torch.float32)
        trained = train(tmp_path / "m", bright)
        assert trained.bank.truncation == (0.9, 0.9)
        train(ADA, dark, tmp_path / "m")
        model = load_model(tmp_path / "m")
        assert list(model.vocabulary) == ["bright", "dark"]
        assert model.truncation == 0.9

    def test_others_stay_as_they_are(self, tmp_path):
        tiny_model(tmp_path / "m", judge=False)
        before = AttributeBank.load(tmp_path / "m")
        train(tmp_path / "m", bright)
        after = load_model(tmp_path / "m").bank
        assert list(after.vocabulary) == [*before.vocabulary, "bright"]
        assert (after.space, after.truncation) == (before.space, before.truncation)
        for name, head in before.heads.items():
            for field, tensor in head.tensors().items():
                assert torch.equal(after.heads[name].tensors()[field], tensor)
        assert list(after.reports) == ["bright"]

    def test_a_report_of_earlier_attributes_is_kept(self, tmp_path):
        for function in (bright, dark):
            train(ADA, function, tmp_path / "m")
        assert list(load_model(tmp_path / "m").report) == ["bright", "dark"]
        copied = train(tmp_path / "m", lambda images: {"red": images[:, 0].mean((1, 2))}, tmp_path / "n")
        assert list(copied.bank.reports) == ["bright", "dark", "red"]

    def test_names_do_not_clash(self, tmp_path):
        for attempt in range(2):
            if attempt:
                with pytest.raises(VocabularyError, match=r"already has 'bright'\n.*replace=True"):
                    train(ADA, bright, tmp_path)
            train(ADA, bright, tmp_path, replace=attempt > 0, seed=attempt)

    def test_a_judge_that_would_not_know(self, tmp_path):
        tiny_model(tmp_path / "m")
        before = [(tmp_path / "m" / name).read_bytes() for name in ("judge.json", "judge.safetensors")]
        train(tmp_path / "m", bright, tmp_path / "n")
        for folder in ("m", "n"):
            assert [(tmp_path / folder / f"judge.{end}").read_bytes() for end in ("json", "safetensors")] == before
        model = load_model(tmp_path / "n")
        assert "bright" in model.vocabulary
        assert model.judged_names == tuple(load_model(tmp_path / "m").vocabulary)
        both = draw("smile", 2, model=model), draw("smile AND bright > 1", 2, model=model)
        assert both[0].satisfied is not None
        assert both[1].satisfied is None
        assert both[1].provenance["unjudged"] == "the judge does not read 'bright'"

    def test_another_space_or_truncation(self, tmp_path):
        tiny_model(tmp_path / "m", judge=False)
        for setting in ({"space": "z"}, {"truncation": 0.6}):
            with pytest.raises(ModelError, match="new ones cannot read"):
                train(tmp_path / "m", bright, **setting)

    def test_another_generator(self, tmp_path):
        train(ADA, bright, tmp_path)
        with pytest.raises(ModelError, match="holds another generator"):
            train(CHECKPOINTS / "rosinality.pt", bright, tmp_path)

    def test_the_packaged_model_is_not_changed(self, tiny, tmp_path, monkeypatch):
        from energyql import models

        (tmp_path / "package").mkdir()
        (tmp_path / "package" / "toy").symlink_to(tiny)
        monkeypatch.setattr(models, "__file__", str(tmp_path / "package" / "__init__.py"))
        with pytest.raises(ArgumentError, match="'toy' is not changed"):
            train("toy", bright)
        with pytest.raises(ArgumentError, match="a model folder must be named"):
            train(ADA, bright)


class TestTable:
    def test_by_index(self, tmp_path):
        generator = load_generator(ADA)
        index = torch.randperm(900, generator=torch.Generator().manual_seed(1))
        found = answers(latents_of(generator, 900, 0.7, seed=11))
        table = {"index": index.tolist(), "glasses": [("no", "yes")[found["glasses"][i]] for i in index]}
        trained = train(ADA, write_csv(tmp_path / "labels.csv", table), tmp_path / "m", seed=11, settings=QUICK)
        assert trained.report["glasses"].score > 0.85

    def test_latents_in_z(self, tmp_path):
        table = LabelTable({"a": [0, 1] * 30}, latents=torch.randn(60, load_generator(ADA).z_dim))
        assert train(ADA, table, tmp_path, space="z").bank.space == "z"

    def test_latents_of_another_generator(self, tmp_path):
        size = load_generator(ADA).config.w_dim
        for latents, message in (
            (50 + torch.randn(60, size), "probably not latents of this generator.* give their truncation"),
            (torch.randn(60, size + 1), f"latents have {size + 1} numbers"),
        ):
            with pytest.raises(DataError, match=message):
                train(ADA, LabelTable({"a": [0, 1] * 30}, latents=latents), tmp_path)
        wrong = LabelTable({"a": [0, 1] * 30}, latents=torch.randn(60, size + 1))
        with pytest.raises(DataError, match=f"but w has {size}"):
            train(ADA, wrong, tmp_path, truncation=1.0)

    def test_mistakes(self, tmp_path):
        table = LabelTable({"a": [0, 1] * 30}, index=torch.arange(60))
        with pytest.raises(ArgumentError, match="labelled by hand have one truncation"):
            train(ADA, table, tmp_path, truncation=(0.5, 1.0))
        with pytest.raises(ArgumentError, match="truncation is a number or a range"):
            train(ADA, table, tmp_path, truncation=(1.0, 0.5))
        with pytest.raises(VocabularyError, match="no labels for 'b'\nlabels: a"):
            train(ADA, table, tmp_path, only=["b"])
        with pytest.raises(DataError, match="too few"):
            few = LabelTable({"a": [0, 1] * 3}, index=torch.arange(6))
            train(ADA, few, tmp_path)


class TestInterruption:
    @pytest.mark.parametrize("calls", [1, 3, 5])
    def test_nothing_is_lost_and_the_end_is_the_same(self, tmp_path, monkeypatch, calls):
        monkeypatch.setattr("energyql.training.samples.PICTURES_A_PART", 40)
        seen, ends = [], [calls]

        def labeller(images):
            if len(seen) in ends:
                raise KeyboardInterrupt
            seen.append(len(images))
            return bright(images)

        with pytest.raises(KeyboardInterrupt):
            train(ADA, labeller, tmp_path / "a", n=100)
        before = sum(seen)
        ends.clear()
        train(ADA, labeller, tmp_path / "a", n=100)
        assert before - before % 40 + sum(seen) - before == 100 or before < 40
        train(ADA, labeller, tmp_path / "b", n=100)
        for name in ("attributes.safetensors", "vocabulary.json", "report.json"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert not (tmp_path / "a" / WORK).exists()

    def test_answers_of_another_run_are_not_used(self, tmp_path, monkeypatch):
        def stopped(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(run, "fit_bank", stopped)
            train(ADA, dark, tmp_path)
        assert [path.name for path in (tmp_path / WORK / "labels").iterdir()] == ["0-60"]
        trained = train(ADA, bright, tmp_path)
        assert list(trained.bank.vocabulary) == ["bright"]


def test_a_refused_training_leaves_no_folder(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("index,bright\n" + "".join(f"{i},1\n" for i in range(40)))
    for options in ({}, {"kinds": {"other": "yes/no"}}):
        with pytest.raises((DataError, VocabularyError)):
            train(ADA, table, tmp_path / "model", **options)
        assert not (tmp_path / "model").exists()
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(DataError):
        train(ADA, table, folder)
    assert folder.exists()  # it was there before


class TestLabelsWithoutANumber:
    """A labeller labels pictures in rounds, as long as the heads gain by it."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(run, "FIRST_ROUND", 20)
        monkeypatch.setattr(run, "MEASURED", 6)

    @pytest.mark.parametrize(("losses", "count"), [((1.0, 0.995), 40), ((1.0, 0.9, 0.895), 80), ((1.0, 0.9, 0.8), 160)])
    def test_rounds_end_when_heads_gain_little(self, tmp_path, monkeypatch, losses, count):
        left, seen = iter(losses), []
        monkeypatch.setattr(run, "_held_out_losses", lambda *_: {"bright": next(left)})

        def labeller(images):
            seen.append(images)
            return bright(images)

        train(ADA, labeller, tmp_path / "m", n=None)
        assert next(left, None) is None
        drawn = torch.cat(seen)
        assert len(drawn) == len(drawn.flatten(1).unique(dim=0)) == count
        train(ADA, bright, tmp_path / "n", n=count)
        for name in ("attributes.safetensors", "report.json"):
            assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "n" / name).read_bytes()

    @pytest.mark.parametrize(("losses", "count"), [([{}], 20), ([{"bright": 0.0}] * 2, 40)])
    def test_rounds_end_when_no_gain_can_be_measured(self, tmp_path, monkeypatch, losses, count):
        left, seen = iter(losses), []
        monkeypatch.setattr(run, "_held_out_losses", lambda *_: next(left))
        train(ADA, lambda images: seen.extend(images) or bright(images), tmp_path, n=None)
        assert len(seen) == count

    def test_the_loss_is_that_of_heads_on_other_samples(self, tmp_path, monkeypatch):
        measure, losses = run._held_out_losses, []

        def measured(*arguments):
            losses.append(measure(*arguments))
            return losses[-1]

        monkeypatch.setattr(run, "_held_out_losses", measured)
        monkeypatch.setattr(run, "FIRST_ROUND", 100)
        monkeypatch.setattr(run, "MEASURED", 40)
        settings = HeadSettings(steps=150, hidden=8, batch=64, lr=2e-2, weight_decay=1e-2)
        train(ADA, bright, tmp_path / "m", n=None, settings=settings)
        assert 2 <= len(losses) <= 3
        assert losses[1]["bright"] < losses[0]["bright"]
