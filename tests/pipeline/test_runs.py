"""Drawing until enough samples satisfy the query, and models that stay loaded."""

import copy
import dataclasses
import pickle
import shutil

import numpy as np
import pytest
import torch
from toys import VOCABULARY, NeverSampler, pixels, tiny_model

from energyql import ODESolver, Result, Session, generate, load_model, until_satisfied
from energyql.attributes.judge import Convolutions, Judge
from energyql.errors import ArgumentError, ModelError
from energyql.generators.mapping import FrozenMapping
from energyql.pipeline import session as pipeline
from energyql.pipeline.plan import plan_query
from energyql.pipeline.run import draw
from energyql.vocabulary import Vocabulary

QUERY = 'smile AND NOT (glasses OR hair = "dark red") AND age < 0.6'


def by_colour(images):
    return {"age": images[:, 0].mean((1, 2)).sigmoid(), "glasses": images[:, 1].mean((1, 2)) > 0}


class TestUntilSatisfied:
    QUERY = "age > 0.5 AND glasses"
    ROUGH = ODESolver(max_evaluations=5)  # leaves many samples where they do not satisfy it

    @pytest.fixture
    def plain(self, tiny):
        """A model with a judge that sees a difference between pictures; the random one of the folder sees none."""
        return dataclasses.replace(load_model(tiny), judge=by_colour)

    def ask(self, model, n, budget=None, **settings):
        settings = {"model": model, "device": "cpu", "progress": False, "sampler": self.ROUGH} | settings
        return until_satisfied(self.QUERY, n, budget=budget, **settings)

    def test_all_of_them_satisfy(self, plain):
        result = self.ask(plain, 6, 500)
        drawn = int(result.statistics["drawn"])
        assert result.satisfied.all()
        assert len(result) == len(result.images) == 6
        assert 6 < drawn <= 500
        assert (
            f"6 of 6 satisfy the query, says the judge test_runs:by_colour. {drawn} pictures were drawn"
            in result.summary()
        )
        assert result.statistics["evaluations_mean"] > 0

    def test_they_are_the_first_of_the_run(self, plain):
        result = self.ask(plain, 6, 500)
        n = int(result.statistics["drawn"])
        run = generate(self.QUERY, n, model=plain, device="cpu", progress=False, sampler=self.ROUGH)
        assert result.index.tolist() == np.flatnonzero(run.satisfied)[:6].tolist()
        assert pixels(result.images) == pixels([run.images[i] for i in result.index])

    def test_slices_joined_again_count_the_run_once(self, plain):
        result = self.ask(plain, 6, 500)
        joined = Result.join([result[:2], result[2:5], result[5:]])
        assert joined.statistics["drawn"] == result.statistics["drawn"]
        assert joined.summary() == result.summary()
        assert (joined.provenance["budget"], joined.provenance["wanted"]) == (500, 6)
        other = self.ask(plain, 6, 500, seed=9)
        assert (result + other).statistics["drawn"] == result.statistics["drawn"] + other.statistics["drawn"]

    def test_the_budget_may_end_first(self, plain):
        result = self.ask(plain, 30, 30)
        assert 0 < len(result) < 30
        assert result.statistics["drawn"] == 30
        assert "30 were wanted, but the budget of 30 calls ended" in result.summary()
        assert result.provenance["budget"] == 30

    @pytest.mark.parametrize(
        ("judge", "reason"),
        [
            (None, "the model has no judge"),
            (lambda x: {"age": by_colour(x)["age"]}, "the judge does not read 'glasses'"),
        ],
    )
    def test_nobody_counts_without_a_judge(self, plain, judge, reason):
        with pytest.raises(ModelError, match=f"cannot be counted: {reason}\ngive the model a judge"):
            self.ask(dataclasses.replace(plain, judge=judge), 6)

    def test_a_judge_with_a_vocabulary_is_asked_before_the_first_sample(self, plain):
        judge = Judge(Vocabulary([VOCABULARY["age"]]), Convolutions(16, (4,))).eval()
        with pytest.raises(ModelError, match="does not read 'glasses'"):
            self.ask(dataclasses.replace(plain, judge=judge), 6, sampler=NeverSampler())

    def test_a_budget_below_n_is_refused(self, plain):
        with pytest.raises(ArgumentError, match="budget must be a whole number from 6"):
            self.ask(plain, 6, 5)


def counted(function, calls):
    def wrapper(*arguments):
        calls.append(1)
        return function(*arguments)

    return wrapper


class TestCost:
    def test_one_mapping_an_evaluation(self, tiny, monkeypatch):
        model, calls = load_model(tiny), []
        for name in ("__call__", "pullback"):
            monkeypatch.setattr(FrozenMapping, name, counted(getattr(FrozenMapping, name), calls))
        prepared = plan_query(Session(model, torch.device("cpu")), "smile AND age > 0.5 AND glasses", sampler="ode")
        result = draw(prepared, 1, progress=False)
        # One more draws the picture; the final energy comes from the predictions for it.
        assert len(calls) == result.statistics["evaluations_max"] + 1

    def test_models_stay_loaded_until_they_change(self, tmp_path, monkeypatch):
        folder, loads = tiny_model(tmp_path / "a"), []
        load = pipeline.load_model
        monkeypatch.setattr(pipeline, "load_model", lambda *a: loads.append(1) or load(*a))
        before = generate("smile", 1, model=folder, device="cpu", progress=False)
        generate("glasses", 1, model=str(folder) + "/", device="cpu", progress=False)
        monkeypatch.chdir(tmp_path)
        generate("glasses", 1, model="a", device="cpu", progress=False)
        assert len(loads) == 1
        shutil.rmtree(folder)
        tiny_model(folder)
        after = generate("smile", 1, model=folder, device="cpu", progress=False)
        assert len(loads) == 2
        assert torch.equal(before.z, after.z)

    def test_a_model_in_memory_is_made_ready_once(self, tmp_path):
        model = load_model(tiny_model(tmp_path / "a"), "cpu")
        first = pipeline.open_session(model, "auto")
        assert pipeline.open_session(model, "cpu") is first
        other = dataclasses.replace(model, truncation=0.5)
        assert pipeline.open_session(other, "cpu").model.truncation == 0.5

    def test_nothing_is_kept_of_earlier_weights(self, tmp_path):
        model = load_model(tiny_model(tmp_path / "a", judge=False))
        query, settings = "age > 0.999", {"progress": False, "allow_weak": ["age"]}  # rare, so heads are imitated
        generate(query, 2, model=model, **settings)
        with torch.no_grad():
            for parameter in model.generator.mapping.parameters():
                parameter.copy_(parameter.roll(1, 0))
        again = generate(query, 2, model=model, **settings)
        assert torch.equal(again.z, generate(query, 2, model=dataclasses.replace(model), **settings).z)
        assert pipeline.open_session(model, "cpu") is pipeline.open_session(model, "auto")

    def test_a_model_is_copied_without_what_was_made_for_it(self, tmp_path):
        model = load_model(tiny_model(tmp_path / "a"), "cpu")
        drawn = generate("smile", 2, model=model, progress=False, allow_weak=["smile"])
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
            assert not other.sessions
            again = generate("smile", 2, model=other, progress=False, allow_weak=["smile"])
            assert torch.equal(again.z, drawn.z)
        assert model.sessions

    def test_relative_paths_follow_the_working_directory(self, tmp_path, monkeypatch):
        for place in ("here", "there"):
            tiny_model(tmp_path / place / "model", judge=place == "here")
        judges = []
        for place in ("here", "there"):
            monkeypatch.chdir(tmp_path / place)
            judges.append(generate("smile", 1, model="model", device="cpu", progress=False).provenance["judge"])
        assert judges == ["image judge", None]
