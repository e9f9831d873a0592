import dataclasses
import functools
import shutil

import numpy as np
import pytest
import short
import torch
from brief import ADA, SHORT, bright, dark, draw, train
from holes import Stains, look
from labelled import CHECKPOINTS, write_csv
from toys import tiny_model

from energyql.attributes.bank import FittedUnder
from energyql.attributes.judge import Convolutions, Judge
from energyql.attributes.labels import encode_column
from energyql.attributes.quality import VERIFIER, judge_names
from energyql.errors import DataError, ModelError, VocabularyError
from energyql.files import read_tensors, write_tensors
from energyql.models.hub import model_files
from energyql.models.unfinished import WORK
from energyql.numerics import LARGEST
from energyql.pipeline.generate import generate
from energyql.pipeline.model import Model, is_same, load_model
from energyql.training import judge as judging
from energyql.training.judge import train_judge
from energyql.training.labelled import Labelled
from energyql.training.labels import LabelTable
from energyql.training.picture_fit import Family, PictureSettings, fit_judge, fit_verifier, leave_out
from energyql.training.run import train_attributes
from energyql.training.samples import PICTURE, Prior, Thumbnails, read_thumbnails
from energyql.training.steps import Course
from energyql.vocabulary import AttributeSpec, Vocabulary

QUICK = PictureSettings(side=8, channels=(8, 16), least=3_000, most=3_000, lr=1e-2)
VOCABULARY = Vocabulary([AttributeSpec("red", "yes/no"), AttributeSpec("odd", "yes/no")])


@pytest.fixture
def learning(monkeypatch):
    """Networks that learn something."""
    short.networks(monkeypatch, QUICK)


def labelled(count=300, seed=3):
    """Thumbnails and labels of `Stains`: `red` can be learnt, `odd` cannot."""
    z = Prior(Stains(), seed, FittedUnder(), torch.device("cpu")).z(torch.arange(count))
    cells = Thumbnails(look, 8)(Stains().synthesize(z))
    pictures = read_thumbnails(cells.pop(PICTURE))
    return pictures, {name: encode_column(cells[name], spec) for name, spec in VOCABULARY.items()}


class TestFit:
    def test_it_reads_what_can_be_learnt(self):
        judge, report = fit_judge(Labelled(*labelled(), VOCABULARY), QUICK, Course(1))
        assert list(judge.vocabulary) == ["red"]
        assert report["red"].judges
        assert not report["odd"].judges
        assert judge.report == {"red": report["red"]}
        low, high = report["red"].interval
        assert 0.65 < low < report["red"].score < high <= 1
        assert low > report["odd"].interval[0] + 0.1
        assert (report["red"].fitted, report["red"].held_out) == (240, 60)
        assert report["red"].recall.keys() == report["red"].labels.keys() == {"no", "yes"}
        assert 0 <= report["red"].calibration_error < 0.3
        pictures, labels = labelled(500, seed=4)  # of another seed
        found = judge(pictures.float() / 127.5 - 1)["red"].logit > 0
        assert abs((found == (labels["red"] > 0)).float().mean().item() - report["red"].score) < 0.12

    def test_kinds_and_missing_labels(self):
        pictures, _ = labelled()
        mean = pictures.float().mean((1, 2, 3))
        third = torch.bucketize(mean, mean.quantile(torch.tensor([1 / 3, 2 / 3]))).float()
        third[::7] = torch.nan
        specs = Vocabulary(
            [
                AttributeSpec("grey", "continuous", low=mean.min().item(), high=mean.max().item()),
                AttributeSpec("third", "categorical", values=("dark", "middle", "light")),
            ]
        )
        judge, report = fit_judge(Labelled(pictures, {"grey": 40 * mean, "third": third}, specs), QUICK)
        assert list(judge.vocabulary) == ["grey", "third"]
        assert report["third"].fitted + report["third"].held_out == int((~third.isnan()).sum())
        assert report["grey"].measure == "R2"
        assert report["grey"].score > 0.75
        predicted = judge(pictures.float() / 127.5 - 1)
        error = (predicted["grey"].mean - 40 * mean).square().mean().sqrt()
        assert error < 0.5 * (40 * mean).std()
        assert predicted["grey"].std.item() == pytest.approx(error.item(), rel=0.5)

    def test_numbers_beyond_half_precision(self, tmp_path):
        pictures, _ = labelled()
        labels = {"price": 1000 * pictures.float().mean((1, 2, 3))}
        high = labels["price"].max().item()
        specs = Vocabulary([AttributeSpec("price", "continuous", low=0, high=high)])
        judge, report = fit_judge(Labelled(pictures, labels, specs), QUICK)
        assert high > 2 * LARGEST and report["price"].score > 0.75
        judge.save(tmp_path)
        read = Judge.load(tmp_path)
        assert read.body.levels[0][0].weight.equal(judge.body.levels[0][0].weight)
        assert read.head.bias.equal(judge.head.bias) and read.head.bias.isfinite().all()
        halves = torch.arange(200).split(100)
        settings = dataclasses.replace(QUICK, least=1_500, most=1_500)
        verifier = fit_verifier(
            Labelled(pictures, labels, specs), leave_out(halves), [Family([settings], 2)],
            Course(checkpoint=tmp_path), fresh=pictures[200:],
        )  # fmt: skip
        assert verifier.report["price"].score > 0.5 and len(verifier.networks) == 2

    def test_nothing_can_be_learnt(self):
        pictures, labels = labelled(60)
        specs = Vocabulary([VOCABULARY["odd"]])
        assert fit_judge(Labelled(pictures, labels, specs), QUICK)[0] is None
        with pytest.raises(DataError, match="'odd': none of the pictures to learn from has a label"):
            fit_judge(Labelled(pictures, {"odd": torch.full((60,), torch.nan)}, specs), QUICK)
        price = Vocabulary([AttributeSpec("price", "continuous", low=0, high=1e38)])
        with pytest.raises(DataError, match="'price': labels up to .* are too large to learn from"):
            fit_judge(Labelled(pictures, {"price": torch.linspace(0, 1e38, 60)}, price), QUICK)

    def test_an_interruption_changes_nothing(self, tmp_path):
        data = Labelled(*labelled(100), VOCABULARY)

        def stop(done):
            if done > 0.5:
                raise KeyboardInterrupt

        settings = PictureSettings(side=8, channels=(8,), least=2_500, most=2_500, lr=1e-2)
        with pytest.raises(KeyboardInterrupt):
            fit_judge(data, settings, Course(checkpoint=tmp_path / "s", progress=stop))
        before = torch.get_rng_state()
        first, report = fit_judge(data, settings, Course(checkpoint=tmp_path / "s"))
        second, other = fit_judge(data, settings)
        assert report == other
        assert torch.equal(torch.get_rng_state(), before)
        for name, tensor in second.state_dict().items():
            assert torch.equal(first.state_dict()[name], tensor)


class TestWithTheHeads:
    def test_by_default_from_a_labeller(self, learning, tmp_path):
        generator, seen = Stains(), []

        def labeller(images):
            seen.append(images)
            return {name: look(images)[name] for name in ("red", "odd")}

        trained = train(generator, labeller, tmp_path, n=300, judge="train")
        model = load_model(tmp_path, generator=generator)
        assert model.judged_names == ("red",)
        verifier = {"verifier", "verifier-2", "verifier-held-out"}
        assert set(model.fingerprints) == {"generator", "attributes", "second", "judge"} | verifier
        assert model.judge_report == {"red": trained.judge_report["red"]}
        assert model.judge_report["red"].judges
        assert trained.judge_report["odd"].judges is False
        drawn = torch.cat(seen)
        assert len(drawn) == len(drawn.flatten(1).unique(dim=0)) == 600  # other pictures than those of the heads
        result = draw("red", 40, model=model, verify="off")  # the heads are too poor to propose what it accepts
        assert result.provenance["judge"] == "image judge"
        own = Model("own", generator, model.bank, judge=look)
        truth = draw("red", 40, model=own, verify="off")
        assert (result.satisfied == truth.satisfied).mean() > 0.8

    def test_a_function_decides_itself_by_default(self, tmp_path, monkeypatch):
        """It defines the attributes, so no network is trained, and no weak head is refused."""
        monkeypatch.setattr(judging, "fit_judge", None)
        monkeypatch.setattr(judging, "fit_verifier", None)
        trained = train_attributes(Stains(), look, tmp_path, only=["red", "odd"], n=300, settings=SHORT, progress=False)
        assert trained.judge is trained.verifier is look
        assert judge_names(tmp_path) == judge_names(tmp_path, "verifier") == []
        assert load_model(tmp_path, generator=Stains()).report["odd"].weak
        in_memory = Model("own", Stains(), trained.bank, judge=trained.judge, verifier=trained.verifier)
        for model in (in_memory, load_model(tmp_path, generator=Stains(), judge=look)):
            result = generate("odd", 4, model=model, progress=False)
            assert result.satisfied.all()
            assert "by the definition holes:look" in result.summary()

    def test_a_network_that_labels_does_not_judge_itself(self, learning, tmp_path):
        class Looking(torch.nn.Module):
            def forward(self, images):
                return {"red": look(images)["red"]}

        trained = train_attributes(Stains(), Looking(), tmp_path, n=300, settings=SHORT, progress=False)
        assert isinstance(trained.judge, Judge)
        assert judge_names(tmp_path) == ["judge"]
        given = train(Stains(), look, tmp_path / "m", judge=Looking(), only=["red"])
        assert given.verifier is None

    def test_by_default_from_a_table(self, learning, tmp_path):
        generator = Stains()
        index = torch.randperm(400, generator=torch.Generator().manual_seed(1))[:250]
        z = Prior(generator, 11, FittedUnder(), torch.device("cpu")).z(index)
        table = write_csv(
            tmp_path / "l.csv", {"index": index.tolist(), "red": look(generator.synthesize(z))["red"].tolist()}
        )
        train(generator, table, tmp_path / "m", seed=11, judge="train")
        assert load_model(tmp_path / "m", generator=generator).judged_names == ("red",)

    def test_labels_of_latents_have_no_pictures(self, tmp_path):
        z = Prior(Stains(), 0, FittedUnder(), torch.device("cpu")).z(torch.arange(60))
        trained = train(Stains(), LabelTable({"a": [0, 1] * 30}, latents=z), tmp_path, judge="train", truncation=1.0)
        assert trained.judge is None
        assert judge_names(tmp_path) == []

    def test_a_second_judge_for_a_copy(self, learning, tmp_path):
        tiny_model(tmp_path / "m")
        old = (tmp_path / "m" / "judge.safetensors").read_bytes()
        train(tmp_path / "m", bright, tmp_path / "n", n=100, judge="train")
        assert judge_names(tmp_path / "n") == ["judge", "judge-2"]
        assert (tmp_path / "n" / "judge.safetensors").read_bytes() == old
        model = load_model(tmp_path / "n")
        assert model.judged_names == tuple(model.vocabulary)
        assert (model.name, model.vocabulary.model) == ("n", "n")  # not that of the model that was copied
        assert draw("smile AND bright > 1", 2, model=model).provenance["judge"] == "image judge"

    def test_a_judge_that_is_given(self, tmp_path):
        judge = Judge(Vocabulary([AttributeSpec("bright", "continuous")]), Convolutions(8, (4,))).eval()
        trained = train(ADA, bright, tmp_path / "m", judge=judge)
        assert list(trained.judge.vocabulary) == ["bright"]
        model = load_model(tmp_path / "m")
        assert model.judged_names == ("bright",)
        assert model.judge_report == trained.judge_report  # measured on the labels that were at hand
        assert model.judge_report["bright"].held_out == 60
        again = train(ADA, bright, tmp_path / "n", judge=bright)
        assert again.judge is bright
        assert again.judge_unmeasured == "it gave the labels itself"
        assert judge_names(tmp_path / "n") == []
        result = draw("bright > 1", 2, model=load_model(tmp_path / "n", judge=bright))
        assert result.provenance["judge"] == "judge brief:bright"
        with pytest.raises(VocabularyError, match="the judge reads only bright"):
            train(ADA, dark, tmp_path / "o", judge=judge)

    @pytest.mark.slow
    def test_interrupted_while_the_judge_learns(self, tmp_path, monkeypatch):
        fit = judging.fit_judge

        def stopped(labelled, settings, course, **more):
            def stop(done):
                course.progress(done)
                if done > 0.4:
                    raise KeyboardInterrupt

            return fit(labelled, settings, dataclasses.replace(course, progress=stop), **more)

        monkeypatch.setattr(judging, "fit_judge", stopped)
        options = {"n": 60, "judge": "train", "seed": 5}
        with pytest.raises(KeyboardInterrupt):
            train(ADA, bright, tmp_path / "a", **options)
        assert not (tmp_path / "a" / "judge.json").exists()
        assert not (tmp_path / "a" / "vocabulary.json").exists()
        monkeypatch.setattr(judging, "fit_judge", functools.partial(fit))
        monkeypatch.setattr(Thumbnails, "__call__", None)  # no picture is drawn again
        train(ADA, bright, tmp_path / "a", **options)
        monkeypatch.undo()
        train(ADA, bright, tmp_path / "b", **options)
        for name in ("judge.safetensors", "judge.json", "second.safetensors", "attributes.safetensors"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert not (tmp_path / "a" / WORK).exists()


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verified") / "m"
    with pytest.MonkeyPatch.context() as patched:
        short.networks(patched, QUICK)
        train(Stains(), look, folder, n=300, judge="train")
    return folder


class TestProposals:
    """A fifth of the pictures is proposed by heads where a sampler draws what the heads were fitted for."""

    @pytest.mark.parametrize(
        ("model", "more", "proposed"),
        [
            (Stains(), {"truncation": 0.7}, [20]),
            (Stains(), {"truncation": (0.5, 1.0)}, []),  # of random truncation each
            (CHECKPOINTS / "tensorflow_conditional.pkl", {"condition": "random"}, []),  # of a random class each
        ],
    )
    def test_pictures_of_several_conditions_are_all_random(self, tmp_path, monkeypatch, model, more, proposed):
        counts, propose = [], judging.propose
        monkeypatch.setattr(judging, "propose", lambda *args: counts.append(args[-1]) or propose(*args))
        trained = train(model, bright, tmp_path, n=100, judge="train", **more)
        assert counts == proposed
        report = trained.judge_report["bright"]
        assert report.fitted + report.held_out == 50 + 50 - sum(proposed) // 2


class TestVerifier:
    """The second network, which decides which pictures are kept."""

    def test_it_is_another_network_with_samples_that_it_did_not_learn_from(self, verified):
        model = load_model(verified, generator=Stains())
        assert not is_same(model.judge, model.verifier)
        with pytest.raises(ModelError, match="decides which pictures are kept, so it could never object"):
            Model("one", model.generator, model.bank, judge=model.judge, verifier=model.judge)
        (held_out,) = model.held_out
        assert {*held_out.labels} == {*held_out.heads} == {*held_out.readings} == {*model.verifier.vocabulary}
        report = model.verifier.report["red"]
        judge = model.judge.report["red"]
        assert judge.fitted == 150
        assert (report.fitted, report.held_out) == (60, 240)  # of the 300, heads proposed 60
        assert sum(report.labels.values()) == 300
        assert 0 < judge.held_out < 150
        every, heads = held_out.readings["red"].logit, held_out.heads["red"].logit
        known = ~held_out.labels["red"].isnan()
        assert (report.held_out, len(every)) == (int(known.sum()), 240 + judging.FRESH)
        prior = Prior(Stains(), 2**32 + 1, FittedUnder(), torch.device("cpu"))
        z = prior.z(torch.arange(240))
        pictures = Stains().synthesize(z)
        readings, by_heads = model.verifier(pictures)["red"].logit, model.bank.predict(z)["red"].logit
        places = (by_heads - heads[known][:, None]).abs().argmin(1)
        assert len(places.unique()) > 0.93 * report.held_out
        np.testing.assert_allclose(by_heads[places], heads[known], atol=0.03)
        both = np.stack([readings[places], every[known]])  # each by the network that did not learn it
        assert 0.8 < np.corrcoef(both)[0, 1] < 0.999
        assert (look(pictures)["red"][places].float() == held_out.labels["red"][known]).float().mean() > 0.97
        z = prior.apart(17).z(torch.arange(judging.FRESH))  # then pictures without labels, by all networks
        for values, found in ((model.verifier(Stains().synthesize(z)), every), (model.bank.predict(z), heads)):
            np.testing.assert_allclose(values["red"].logit, found[~known], atol=0.1)  # weights are rounded

    @pytest.mark.parametrize("exact", [False, True])
    def test_its_probabilities_are_those_of_random_pictures(self, exact, tmp_path):
        pictures, _ = labelled(1500)
        mean = pictures.float().mean((1, 2, 3))
        cuts = mean.quantile(torch.tensor([0.05, 0.6]))
        labels = {
            "rare": (mean > mean.quantile(0.94)).float(),
            "third": torch.bucketize(mean, cuts).float(),
            "mean": mean,
        }
        wrong = torch.rand(1500, generator=torch.Generator().manual_seed(2)) < 0.1
        truth = labels["rare"]
        labels["rare"] = torch.where(wrong, 1 - truth, truth)
        specs = Vocabulary(
            [
                AttributeSpec("rare", "yes/no"), AttributeSpec("third", "categorical", values=("a", "b", "c")),
                AttributeSpec("mean", "continuous", low=mean.min().item(), high=mean.max().item()),
            ]
        )  # fmt: skip
        rows = torch.arange(1000)
        fitted = fit_verifier(
            Labelled(pictures, labels, specs, exact), leave_out((rows[::2], rows[1::2])), [Family([QUICK], 2)],
            Course(checkpoint=tmp_path), fresh=pictures[1000:],
        )  # fmt: skip
        assert torch.equal(fitted.rows, torch.cat([rows[::2], rows[1::2]]))
        fresh = pictures[1000:].float() / 127.5 - 1
        joint = judging.joined(fitted.networks)
        predicted = joint(fresh)
        share = (labels["rare"] if exact else truth)[1000:].mean()  # wrong labels are made out, unless they are exact
        assert abs(predicted["rare"].logit.sigmoid().mean() - share) < 0.04
        for k in range(3):
            assert (
                abs(predicted["third"].logits.softmax(1)[:, k].mean() - (labels["third"][1000:] == k).float().mean())
                < 0.05
            )
        error = (predicted["mean"].mean - labels["mean"][1000:]).square().mean().sqrt()
        assert predicted["mean"].std[0].item() == pytest.approx(error.item(), rel=0.6)  # of networks of one half
        assert fitted.report["rare"].calibration_error < 0.1

    def test_later_trainings(self, learning, verified, tmp_path):
        generator, copy = Stains(), tmp_path / "m"
        shutil.copytree(verified, copy)
        old = [(copy / f"{name}.safetensors").read_bytes() for name in ("verifier", "verifier-2", "verifier-held-out")]
        train(generator, lambda images: {"blue": images[:, 2].mean((1, 2)) > 0}, copy, n=100, judge="train")
        assert judge_names(copy, VERIFIER) == ["verifier", "verifier-2", "verifier-3", "verifier-4"]
        model = load_model(copy, generator=generator)
        assert [{*samples.labels} & {"red", "blue"} for samples in model.held_out] == [{"red"}, {"blue"}]
        assert {"red", "blue"} <= {*model.verifier.vocabulary}
        assert old == [
            (copy / f"{name}.safetensors").read_bytes() for name in ("verifier", "verifier-2", "verifier-held-out")
        ]
        train(generator, look, copy, n=60, only=["red"], replace=True)  # without a judge
        model = load_model(copy, generator=generator)
        assert "red" not in model.verifier.vocabulary
        assert all("red" not in samples.labels for samples in model.held_out)
        assert "blue" in model.verifier.vocabulary
        given = load_model(copy, generator=generator, judge=look)
        assert given.verifier is look  # what defines the attributes decides and ticks

    def test_it_is_saved_with_the_model(self, tmp_path):
        tiny_model(tmp_path / "m", judge=False)
        train_judge(
            tmp_path / "m", lambda images: {"smile": images.mean((1, 2, 3)) > 1.1}, n=200, progress=False
        )  # fmt: skip
        model = load_model(tmp_path / "m")
        model.save_pretrained(tmp_path / "n")
        names = {f"{name}.{kind}" for name in ("verifier", "verifier-2") for kind in ("json", "safetensors")}
        assert names | {"verifier-held-out.safetensors"} <= {path.name for path in model_files(tmp_path / "n")}
        again = load_model(tmp_path / "n")
        assert again.verifier.report == model.verifier.report
        for name, tensor in model.verifier.state_dict().items():
            assert torch.equal(again.verifier.state_dict()[name], tensor)
        (one,), (other,) = model.held_out, again.held_out
        torch.testing.assert_close(one.labels["smile"], other.labels["smile"], rtol=0, atol=0, equal_nan=True)
        assert torch.equal(one.readings["smile"].logit, other.readings["smile"].logit)
        with pytest.raises(ModelError, match="the verifier is code, and only networks are saved"):
            dataclasses.replace(model, verifier=look).save_pretrained(tmp_path / "o")
        with pytest.raises(ModelError, match="the discriminator is code, and only networks are saved"):
            dataclasses.replace(model, discriminator=model.verifier).save_pretrained(tmp_path / "o")

    def test_damage_is_named(self, verified, tmp_path):
        shutil.copytree(verified, tmp_path / "m")
        path = tmp_path / "m" / "verifier-held-out.safetensors"
        tensors = read_tensors(path)
        for damaged, message in (
            ({name: tensor for name, tensor in tensors.items() if name != "labels/red"}, "'labels/red' is missing"),
            (tensors | {"labels/red": torch.zeros(3)}, "its predictions do not fit its labels|its labels are not one"),
            (tensors | {"readings/red": torch.zeros(3, 1)}, "its predictions do not fit its labels"),
        ):
            write_tensors(path, damaged)
            with pytest.raises(ModelError, match=f"verifier-held-out.safetensors: (?:{message})"):
                load_model(tmp_path / "m", generator=Stains())
        path.unlink()
        assert load_model(tmp_path / "m", generator=Stains()).held_out == ()


class TestForAModel:
    def test_in_place_of_another(self, learning, tmp_path):
        generator = Stains()
        train(generator, look, tmp_path, n=60)
        trained = train_judge(generator, look, tmp_path, only=["red"], n=300, progress=False)
        assert list(trained.report) == ["red"]
        assert load_model(tmp_path, generator=generator).judged_names == ("red",)
        before = (tmp_path / "judge.safetensors").read_bytes()
        train_judge(generator, look, tmp_path, only=["red"], n=300, seed=4, progress=False)
        assert judge_names(tmp_path) == ["judge"]
        assert (tmp_path / "judge.safetensors").read_bytes() != before

    def test_mistakes(self, tmp_path):
        with pytest.raises(ModelError, match="has no attributes to judge"):
            train_judge(Stains(), look, tmp_path, progress=False)
        train(Stains(), look, tmp_path, n=60)
        for labels, only, message in (
            (LabelTable({"red": [0, 1]}, latents=torch.zeros(2, 100)), None, "the labels are about latents"),
            (bright, None, "the labels are about bright; the model has red, bent, odd"),
            (look, ["rde"], "the model has red, bent, odd"),
        ):
            with pytest.raises(DataError, match=message):
                train_judge(Stains(), labels, tmp_path, only=only, n=60, progress=False)

    def test_no_picture_is_drawn_before_names_are_checked(self, tmp_path, monkeypatch):
        train(Stains(), look, tmp_path, n=60)
        drawn = []
        monkeypatch.setattr(Stains, "synthesize", lambda self, w: drawn.append(len(w)))
        table = LabelTable({"red": ["yes", "no"] * 30}, index=torch.arange(60))
        for labels, only, message in (
            (look, ["red", "rde"], "no attribute 'rde' to judge\nthe model has red, bent, odd"),
            (look, [], "only names no attribute"),
            (table, ["bent"], "the labels are about red; the model has red, bent, odd"),
        ):
            with pytest.raises(DataError, match=message):
                train_judge(Stains(), labels, tmp_path, only=only, n=60, progress=False)
        assert drawn == []


def test_thumbnails_of_grey_and_transparent_pictures():
    for channels in (1, 4):
        images = torch.rand(2, channels, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        cells = Thumbnails(None, 8)(images)[PICTURE]
        expected = torch.nn.functional.avg_pool2d(images[:, :3].expand(-1, 3, -1, -1), 2)
        np.testing.assert_allclose(read_thumbnails(cells).float() / 127.5 - 1, expected, atol=0.005)
