"""A judge that is given is measured on labels of pictures, as one that is trained."""

import json

import numpy as np
import pytest
import torch
from brief import ADA, bright, train
from holes import Stains, look
from labelled import write_csv
from toys import VOCABULARY, tiny_model

from energyql.attributes.bank import FittedUnder
from energyql.attributes.judge import Convolutions, Judge
from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.attributes.quality import GIVEN, judge_names, read_given, read_judge_reports, verdict_on
from energyql.errors import ArgumentError, DataError, LabelWarning, ModelError
from energyql.files import read_json, write_json
from energyql.pipeline.model import load_model, record_judge
from energyql.training import judge as judge_module
from energyql.training.judge import TrainedJudge, train_judge, unmeasured
from energyql.training.labels import Drawn, LabelTable, read_label_table
from energyql.training.samples import Prior
from energyql.training.settings import TRAIN
from energyql.vocabulary import AttributeSpec, Vocabulary


def table(count=80, seed=5, **more):
    z = Prior(Stains(), seed, FittedUnder(), torch.device("cpu")).z(torch.arange(count))
    images = Stains().synthesize(z)
    columns = {"red": look(images)["red"].tolist(), "light": images.mean((1, 2, 3)).tolist()}
    return LabelTable(columns, index=torch.arange(count), **more)


def nearly(images):
    """A judge that is wrong about `red` in every fifth picture of some fixed kind, and half a shade off in `light`."""
    wrong = (1e4 * images.mean((1, 2, 3))).long() % 5 == 0
    return {"red": look(images)["red"] ^ wrong, "light": images.mean((1, 2, 3)) + 0.01}


class Guesses(torch.nn.Module):
    """A judge with probabilities, of more attributes than anybody asks for."""

    def __init__(self, scale=8.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, images):
        red = images[:, 0].mean((1, 2))
        return {
            "red": YesNo(self.scale * (red - 0.1)),
            "light": Continuous(images.mean((1, 2, 3)), 0.1),
            "shade": Categorical(torch.stack([red, -red], 1), ("warm", "cold")),
        }


class TestQuality:
    def test_of_a_function_after_the_last_seed(self, tmp_path):
        """It is measured on pictures of another seed than those of the heads."""
        seeds, draw = [], Prior.z
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Prior, "z", lambda self, index: seeds.append(self.seed) or draw(self, index))
            trained = train(Stains(), look, tmp_path, judge=nearly, seed=2**64 - 1)
        assert set(seeds) == {2**64 - 1, 0}
        assert "red" in trained.judge_report

    def test_of_a_function_on_a_table(self, tmp_path):
        trained = train(Stains(), table(), tmp_path, judge=nearly, seed=5, truncation=1.0)
        assert trained.judge is nearly
        assert trained.verdicts == dict.fromkeys(
            ("red", "light"), "works where pictures are verified"
        )  # it defines them
        assert trained.judge_unmeasured == ""
        red, light = trained.judge_report["red"], trained.judge_report["light"]
        z = Prior(Stains(), 5, FittedUnder(), torch.device("cpu")).z(torch.arange(80))
        images = Stains().synthesize(z)
        truth, said = look(images)["red"], nearly(images)["red"]
        recalls = [(said[truth == value] == value).float().mean().item() for value in (True, False)]
        assert red.score == pytest.approx(sum(recalls) / 2)
        assert red.recall["yes"][0] == pytest.approx(recalls[0])
        assert 0.5 < red.interval[0] < red.score < red.interval[1] < 1
        assert (red.fitted, red.held_out, red.calibration_error) == (0, 80, None)
        assert (light.measure, round(light.details["error"], 3)) == ("R2", 0.01)

    def test_of_a_module_with_probabilities(self, tmp_path):
        trained = train(Stains(), table(), tmp_path, judge=Guesses(), seed=5, truncation=1.0)
        assert list(trained.judge_report) == ["red", "light"]
        assert trained.verdicts == {name: verdict_on(each, False) for name, each in trained.report.items()}
        assert all(each.weak for each in trained.report.values())
        assert trained.judge_report["red"].score == 1
        assert 0 < trained.judge_report["red"].calibration_error < 0.3
        assert trained.judge_report["light"].details["std"] == pytest.approx(0.1)

    def test_of_classes_that_only_the_judge_has(self, tmp_path):
        shades = ["warm" if value else "cold" for value in table().columns["red"]]
        trained = train(
            Stains(), LabelTable({"shade": shades}, index=torch.arange(80)), tmp_path, judge=Guesses(), seed=5,
            truncation=1.0, vocabulary=Vocabulary([AttributeSpec("shade", "categorical", values=("cold", "warm"))]),
        )  # fmt: skip
        shade = trained.judge_report["shade"]
        assert shade.score > 0.9
        assert shade.calibration_error is None  # the classes stand in another order, so only the values are taken

    def test_on_other_pictures_of_a_labeller(self, tmp_path):
        seen = []

        def labeller(images):
            seen.append(images)
            return {"red": look(images)["red"]}

        trained = train(Stains(), labeller, tmp_path, n=100, judge=nearly)
        assert trained.judge_report["red"].held_out == 100
        drawn = torch.cat(seen)
        assert len(drawn) == len(drawn.flatten(1).unique(dim=0)) == 200

    def test_at_most_so_many(self, tmp_path, monkeypatch):
        monkeypatch.setattr(judge_module, "MOST_TESTS", 30)
        found = train(Stains(), table(learned=20, test=20), tmp_path, judge=nearly, seed=5, truncation=1.0)
        assert found.judge_report["red"].held_out == 30

    def test_not_on_pictures_that_heads_chose(self, tmp_path):
        found = train(Stains(), table(learned=35, test=20), tmp_path, judge=nearly, seed=5, truncation=1.0)
        assert found.judge_report["red"].held_out == 45

    def test_where_nothing_can_be_measured(self, tmp_path):
        z = Prior(Stains(), 0, FittedUnder(), torch.device("cpu")).z(torch.arange(60))
        latents = LabelTable({"red": [0, 1] * 30}, latents=z)
        for labels, reason in (
            (latents, "it is not known which pictures the labels are about"),
            (nearly, "it gave the labels itself"),
        ):
            trained = train(Stains(), labels, tmp_path / reason[:5], judge=nearly, truncation=1.0)
            assert (trained.judge_unmeasured, trained.judge_report) == (reason, {})
            assert not (tmp_path / reason[:5] / GIVEN).exists()

    def test_another_network_of_the_same_class_gave_no_labels_itself(self):
        assert unmeasured(Guesses(), Guesses()) == "it gave the labels itself"
        for judge, labeller in ((Guesses(), Guesses(2.0)), (Guesses().forward, Guesses(2.0).forward)):
            assert unmeasured(judge, labeller) is None

    def test_a_judge_must_answer(self, tmp_path):
        with pytest.raises(DataError, match="the judge returns no value of 'red' for some pictures"):
            train(Stains(), table(), tmp_path, judge=lambda images: {"red": [None] * len(images)}, seed=5)

    def test_an_interruption_draws_nothing_twice(self, tmp_path, monkeypatch):
        seen = []

        class Counted(Stains):
            def synthesize(self, w):
                seen.append(w)
                return super().synthesize(w)

        def stop(*_):
            raise KeyboardInterrupt

        options = {"judge": nearly, "seed": 5, "truncation": 1.0}
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(judge_module, "report_quality", stop)
            train(Counted(), table(), tmp_path, **options)
        assert len(torch.cat(seen)) == 80
        assert train(Counted(), table(), tmp_path, **options).judge_report["red"].held_out == 80
        assert len(torch.cat(seen)) == 80


class TestFolder:
    def test_it_counts_for_the_same_judge_only(self, tmp_path):
        generator = Stains()
        trained = train(generator, table(), tmp_path, judge=Guesses(), seed=5, truncation=1.0)
        known = load_model(tmp_path, generator=generator, judge=Guesses())
        assert known.judge_report == trained.judge_report
        for other in (Guesses(2.0), nearly):
            assert load_model(tmp_path, generator=generator, judge=other).judge_report == {}
        assert load_model(tmp_path, generator=generator).judge_report == {}
        (found,) = read_judge_reports(tmp_path)
        assert found.name.endswith("Guesses")
        assert found.measured == trained.judge_report

    def test_new_labels_end_an_old_report(self, tmp_path):
        train(Stains(), table(), tmp_path, judge=nearly, seed=5, truncation=1.0)
        train(Stains(), table(), tmp_path, only=["red"], seed=5, truncation=1.0, replace=True)
        assert list(read_given(tmp_path).attributes) == ["light"]
        train(Stains(), table(), tmp_path, only=["light"], seed=5, truncation=1.0, replace=True)
        assert read_given(tmp_path) is None

    def test_a_judge_of_another_folder_is_measured_anew(self, tmp_path):
        judge = Judge(Vocabulary([AttributeSpec("red", "yes/no")]), Convolutions(8, (4,))).eval()
        trained = train(Stains(), table(), tmp_path, judge=judge, seed=5, truncation=1.0)
        assert trained.judge_report["red"].held_out == 80
        assert load_model(tmp_path, generator=Stains()).judge_report == trained.judge_report
        assert not (tmp_path / GIVEN).exists()

    def test_by_name(self, tmp_path, monkeypatch):
        (tmp_path / "my_judge.py").write_text(
            "def see(images):\n    return {'bright': images.mean((1, 2, 3)) + 0.05}\n"
        )
        monkeypatch.chdir(tmp_path)
        trained = train(ADA, bright, tmp_path / "m", judge="my_judge:see")
        assert read_json(tmp_path / "m" / "config.json")["judge"] == "my_judge:see"
        model = load_model(tmp_path / "m", allow_plugins=True)
        assert model.judge_report == trained.judge_report
        assert model.judge_report["bright"].held_out == 60
        with pytest.raises(ArgumentError, match="cannot import 'no_judge'"):
            train(ADA, bright, tmp_path / "n", judge="no_judge:see")
        assert not (tmp_path / "n").exists()


class TestForAModelWithHeads:
    def test_a_given_judge_is_measured(self, tmp_path):
        generator = Stains()
        train(generator, table(), tmp_path, seed=5, truncation=1.0)
        trained = train_judge(generator, table(), tmp_path, seed=5, judge=nearly, progress=False)
        assert trained.judge is nearly
        assert load_model(tmp_path, generator=generator, judge=nearly).judge_report == trained.report

    def test_a_table_says_which_pictures_it_is_about(self, tmp_path):
        generator = Stains()
        train(generator, table(), tmp_path / "m", seed=5, truncation=1.0)
        drawn = str(Drawn.by(generator, 5, 1.0, None))
        rows = {
            "index": list(range(80)), "chosen": ["random"] * 80, "drawn": [drawn] * 80,
            "red": ["yes" if value else "no" for value in table().columns["red"]],
        }  # fmt: skip
        path = write_csv(tmp_path / "labels.csv", rows)
        found = train_judge(generator, path, tmp_path / "m", judge=Guesses(), progress=False)
        assert found.report["red"].score == 1  # of another seed, labels would not fit the pictures
        with pytest.raises(ArgumentError, match=r"is about pictures of seed 5, not 6\nleave out the seed"):
            train_judge(generator, path, tmp_path / "m", judge=nearly, seed=6, progress=False)
        rows["drawn"] = [str(Drawn.by(generator, 5, 0.5, None))] * 80
        with pytest.raises(ArgumentError, match=r"about pictures of truncation 0\.5 and condition None; the heads of"):
            train_judge(generator, write_csv(path, rows), tmp_path / "m", judge=nearly, progress=False)

    def test_a_table_among_pictures_is_about_these(self, tmp_path):
        generator = Stains()
        train(generator, table(), tmp_path / "m", seed=5, truncation=1.0)
        write_json(tmp_path / "pictures.json", {"drawn": str(Drawn.by(generator, 5, 1.0, None))})
        path = write_csv(tmp_path / "mine.csv", {"index": list(range(80)), "red": table().columns["red"]})
        found = train_judge(generator, path, tmp_path / "m", judge=Guesses(), progress=False)
        assert found.report["red"].score == 1
        for again in (train_judge, train):
            with pytest.raises(ArgumentError, match=r"mine.csv is about pictures of seed 5, not 6\nleave out the seed"):
                again(generator, path, tmp_path / "m", seed=6)

    def test_a_table_of_heads_for_many_truncations(self, tmp_path):
        train(Stains(), look, tmp_path / "m", truncation=(0.5, 1.0))
        path = write_csv(tmp_path / "labels.csv", {"index": list(range(80)), "red": table().columns["red"]})
        with pytest.raises(ArgumentError, match="labelled by hand have one truncation and one condition"):
            train_judge(Stains(), read_label_table(path), tmp_path / "m", judge=nearly, progress=False)


class TestCodeByName:
    """A judge that is code, named in `config.json`, beside judges that are networks."""

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        """A model with networks that read all attributes; `named_looks:look` can be its judge."""
        (tmp_path / "named_looks.py").write_text("def look(images):\n    return {'smile': images[:, 0, 0, 0] > 0}\n")
        monkeypatch.syspath_prepend(tmp_path)
        return tiny_model(tmp_path / "m")

    def network(self, *names):
        return Judge(Vocabulary(VOCABULARY[name] for name in names), Convolutions(8, (4,))).eval()

    def store(self, folder, judge, names, network=None):
        verifier = None if network is None else self.network(*network.vocabulary)
        trained = TrainedJudge(judge_module.given_judge(judge) or network, {}, verifier=verifier)
        judge_module.store_judge(folder, judge, names, trained)

    def code(self, folder):
        return read_json(folder / "config.json").get("judge")

    def test_networks_of_all_attributes_end_its_use(self, folder):
        record_judge(folder, "named_looks:look")
        with pytest.raises(ModelError, match="named_looks:look"):
            load_model(folder)
        self.store(folder, TRAIN, list(VOCABULARY), self.network(*VOCABULARY))
        model = load_model(folder)
        assert isinstance(model.judge, Judge) and isinstance(model.verifier, Judge)

    def test_it_stays_for_attributes_that_no_network_judges(self, folder):
        self.store(folder, "named_looks:look", list(VOCABULARY))
        assert judge_names(folder) == []
        first, *others = VOCABULARY
        self.store(folder, TRAIN, [first])  # as training does, until the judge of the new attribute is trained
        message = f"still the code named_looks:look, .* no network judges {', '.join(others)}; "
        with pytest.warns(LabelWarning, match=message):
            self.store(folder, TRAIN, [first], self.network(first))
        self.store(folder, None, [first])
        assert self.code(folder) == "named_looks:look"
        self.store(folder, None, list(VOCABULARY))
        assert self.code(folder) is None

    def test_who_loses_a_judge_is_named(self, folder):
        with pytest.warns(LabelWarning, match="named_looks:look is now the only judge .* checks hair, age, glasses, "):
            self.store(folder, "named_looks:look", ["smile"])
        assert load_model(folder, allow_plugins=True).judge.__name__ == "look"
        self.store(folder, "named_looks:look", list(VOCABULARY))
        (folder.parent / "other_looks.py").write_text("def look(images):\n    return {'age': images[:, 0, 0, 0]}\n")
        with pytest.warns(LabelWarning, match="other_looks:look is now .* checks smile, hair, glasses, beard, unless"):
            self.store(folder, "other_looks:look", ["age"])

    def test_an_object_takes_the_place_of_networks(self, folder):
        self.store(folder, look, ["smile"])
        assert "smile" not in load_model(folder).judge.vocabulary
        assert (self.code(folder), read_given(folder)) == (None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": [3]}, "'list' object has no attribute 'items'"),
        ({"attributes": {"red": {}}}, "'kind' is missing"),
        ({"attributes": {"red": 1}}, "not subscriptable"),
    ],
)
def test_a_damaged_report(tmp_path, change, message):
    train(Stains(), table(), tmp_path, judge=nearly, seed=5, truncation=1.0)
    data = json.loads((tmp_path / GIVEN).read_text())
    for broken, expected in ((data | change, message), ({"judge": "a", "attributes": {}}, "'mark' is missing")):
        (tmp_path / GIVEN).write_text(json.dumps(broken))
        with pytest.raises(ModelError, match=rf"judge_report\.json: .*{expected}"):
            read_given(tmp_path)


def test_values_without_probabilities_have_no_calibration():
    report = judge_module.report_quality(
        {"red": torch.tensor([1.0, 0.0, 1.0, 1.0])}, {"red": torch.tensor([1.0, 0.0, 0.0, torch.nan])},
        {"red": AttributeSpec("red", "yes/no")}, {"red": torch.empty(0)},
    )["red"]  # fmt: skip
    assert report.details == {"confusion": [[1, 1], [0, 1]]}
    assert report.score == pytest.approx(0.75)
    assert np.isclose(report.skill, 0.5)
