"""A budget of calls of the generator ends a run with the samples that are complete by then."""

import dataclasses

import numpy as np
import pytest
import torch
from evaluation.lively import KNOWN, Plain, known_model, picture_model, read_plain, silent
from test_mixture import PROMPTS, Prompted
from test_mixture import model as prompts_model

from energyql import Model, generate, until_satisfied
from energyql.attributes.pictures import PictureBank
from energyql.errors import ArgumentError, BudgetError, RefusedError, UnreachableError
from energyql.pipeline.plan import plan_query
from energyql.pipeline.run import Count, run, stream_batches
from energyql.pipeline.run import draw as run_draw
from energyql.pipeline.session import open_session
from energyql.sampling.langevin import LangevinSampler

RARE = "a AND b"  # 1 in 220


class Counting(Plain):
    calls = 0

    def synthesize(self, w):
        self.calls += len(w)
        return super().synthesize(w)


@pytest.fixture
def model():
    """A model that counts the calls of its generator; a function reads its pictures, so that there is no gradient."""
    return Model("known", Counting(), PictureBank(read_plain, KNOWN))


def draw(model, n=20, query=RARE, **options):
    return generate(query, n, **({"model": model, "verify": "off", "progress": silent} | options))


def test_the_samples_of_a_budget_are_the_first_of_the_run(model):
    whole = draw(model)
    assert whole.statistics["generator_calls"] == model.generator.calls
    dearest = whole.statistics["evaluations_max"] + 1
    for budget in (300, 600):
        before = model.generator.calls
        result = draw(model, budget=budget)
        calls = result.statistics["generator_calls"]
        assert model.generator.calls - before == calls <= budget
        assert 0 < len(result) < 20
        assert calls > budget - 2 * dearest
        assert torch.equal(result.z, whole.z[: len(result)])
        assert result.index.tolist() == list(range(len(result)))
        assert (result.provenance["wanted"], result.provenance["budget"]) == (20, budget)
        assert f". 20 were wanted, but the budget of {budget} calls ended" in result.summary()


def test_a_budget_that_suffices_changes_nothing(model):
    whole, result = draw(model, 8), draw(model, 8, budget=10_000)
    assert torch.equal(result.z, whole.z)
    assert "budget" not in result.summary()
    names = ("evaluations_mean", "effective_samples", "log_probability", "generator_calls_mean")
    assert [result.statistics[name] for name in names] == [whole.statistics[name] for name in names]


def test_parts_of_a_run_count_its_calls_once_and_two_runs_those_of_both(model):
    whole, later = draw(model, 4, budget=900), draw(model, 4, first=4, budget=900)
    again = whole[:1] + whole[1:]
    for name in ("generator_calls", "returned", "drawn"):
        assert again.statistics[name] == whole.statistics[name]
        assert (whole + later).statistics[name] == whole.statistics[name] + later.statistics[name]
    assert (whole + later).provenance["wanted"] == 8


def test_a_later_run_begins_where_the_budget_ended(model):
    whole, start = draw(model), draw(model, budget=600)
    rest = draw(model, 3, first=len(start), budget=600)
    assert torch.equal(rest.z, whole.z[len(start) : len(start) + len(rest)])


def test_a_budget_that_ends_before_the_first_sample(model):
    with pytest.raises(BudgetError, match="budget of calls of the generator ended before a sample was complete"):
        draw(model, budget=40)
    assert model.generator.calls <= 40


def test_out_of_reach_within_the_budget(model):
    with pytest.raises(UnreachableError, match=r"not reachable .*: fewer than 1 in [\d,]+ pictures satisfy the query"):
        draw(model, 2, "n > 2.99 AND a AND b AND n < 2.995", budget=500)
    assert 250 < model.generator.calls <= 500


def test_runs_of_one_plan_know_nothing_of_each_other(model):
    plan = plan_query(open_session(model, "cpu"), "a")
    alone = run_draw(plan, 4, budget=200, progress=silent)
    others = [stream_batches(plan, 100, progress=silent) for _ in range(2)]
    for each in others:
        next(each)
    again = run_draw(plan, 4, budget=200, progress=silent)
    assert again.statistics["generator_calls"] == alone.statistics["generator_calls"]
    assert next(others[0]).statistics["generator_calls"] == next(others[1]).statistics["generator_calls"]
    assert torch.equal(again.z, alone.z)


def test_gradients_count_twice():
    model = picture_model()
    steps = LangevinSampler(step=0.005, steps=7)
    facts = draw(model, 3, "beard", sampler=steps, budget=1000).statistics
    assert facts["gradients_mean"] == facts["evaluations_mean"] == 7
    assert facts["generator_calls"] == 3 * (2 * 7 + 1) + 1  # one picture shows how many fit into memory
    assert len(draw(model, 3, "beard", sampler=steps, budget=35).z) == 2


@pytest.mark.parametrize("mode", ["sure", "faithful"])
def test_verified_pictures(mode):
    model = dataclasses.replace(known_model(shift=-0.7), generator=Counting())
    options = {"query": "b", "verify": mode, "sampler": "slice"}
    whole, before = draw(model, 30, **options), model.generator.calls
    assert whole.statistics["generator_calls"] >= whole.statistics["drawn"] > 33
    result = draw(model, 30, **options, budget=int(whole.statistics["generator_calls"]) - 8)
    assert model.generator.calls - before == result.statistics["generator_calls"]
    assert 20 < len(result) < 30
    assert torch.equal(result.z, whole.z[: len(result)])
    assert f"{len(result)} of {len(result)} satisfy the query by the definition" in result.summary()


def test_faithful_pictures_are_found_within_small_budgets():
    """A run of a few pictures pays for no pilot run: the first ones are found by rejection."""
    model = dataclasses.replace(known_model(slope=0.7), generator=Counting())
    options = {"query": "a AND c", "verify": "faithful"}
    whole, before = draw(model, 60, **options), model.generator.calls
    few = draw(model, 4, **options)
    assert few.statistics["generator_calls"] == model.generator.calls - before < 200
    assert few.provenance["verified"]["clip"]["probability"] == 0
    assert torch.equal(few.z, whole.z[:4])
    assert torch.equal(draw(model, 30, **options, first=30, batch_size=7).z, whole.z[30:])
    assert len(draw(model, 60, **options, budget=1000)) > 30
    tiny = draw(model, 4, **options, budget=20)
    assert len(tiny) > 0 == tiny.satisfied.sum() - len(tiny)
    assert tiny.statistics["generator_calls"] == 20 < whole.statistics["generator_calls"]
    assert ". 4 were wanted, but the budget of 20 calls ended" in tiny.summary()


def test_a_pilot_run_leaves_a_part_of_the_budget():
    prepared = plan_query(open_session(known_model(), "cpu"), RARE, verify="faithful")
    short, whole = run_draw(prepared, 4, budget=400, progress=silent), run_draw(prepared, 4, progress=silent)
    samples = [each.provenance["verified"]["clip"]["samples"] for each in (short, whole)]
    assert len(short) > 0
    assert samples[0] < 400 < samples[1] == 1024  # a short pilot run is not kept for a later run


def test_an_error_names_the_pilot_run():
    hopeful = known_model(shift=-1.4)  # heads for which b is common
    with pytest.raises(BudgetError, match=r"was complete; a pilot run took 88 of 130 calls\nraise budget"):
        draw(hopeful, 4, verify="faithful", budget=130)


def test_until_satisfied_has_the_same_budget(model):
    judged = dataclasses.replace(model, judge=lambda images: {"a": read_plain(images)["n"] > 0} | read_plain(images))
    result = until_satisfied(RARE, 6, budget=400, model=judged, progress=silent)
    assert result.statistics["generator_calls"] <= 400
    assert result.satisfied.all()
    free = known_model()
    assert until_satisfied("c", 4, budget=9, model=free, progress=silent).statistics["drawn"] <= 9
    never = dataclasses.replace(free, judge=lambda images: read_plain(images) | {"c": np.zeros(len(images), bool)})
    assert (
        until_satisfied("c", 2, model=never, progress=silent)
        .summary()
        .endswith("2 were wanted, but few satisfy the query")
    )


def test_a_budget_is_refused_where_each_picture_takes_one_call():
    with pytest.raises(ArgumentError, match=r"each takes one, its picture\nleave it out; or .*until_satisfied"):
        draw(known_model(), 3, budget=10)


@pytest.mark.parametrize("wrong", [0, -1, 19, 2.5, True, "many"])
def test_nonsense(model, wrong):
    with pytest.raises(ArgumentError, match="budget must be a whole number from 20"):
        draw(model, budget=wrong)


def test_the_summary_says_how_many_independent_samples_there_are(model):
    result = draw(model)
    effective = round(result.statistics["effective_samples"])
    assert 0 < effective < 20
    assert result.summary().endswith(f"they count as {effective} independent samples, by their weights")
    assert "count as" not in draw(model, query="c").summary()


def test_prompts_share_a_budget():
    counted = []

    class Counted(Prompted):
        def under(self, prompt):
            return self if prompt == self.prompt else Counted(prompt)

        def synthesize(self, w):
            counted.append(len(w))
            return super().synthesize(w)

    prompted = prompts_model(Counted())
    options = {"model": prompted, "condition": PROMPTS, "query": "white AND tall", "verify": "off"}
    whole = draw(**options)
    pilot = whole.statistics["generator_calls"] - 20 * (whole.statistics["generator_calls_mean"] + 1)
    before, budget = sum(counted), int(pilot) + 40
    result = draw(**options, budget=budget)
    assert sum(counted) - before == result.statistics["generator_calls"] <= budget
    assert 0 < len(result) < 20
    assert torch.equal(result.z, whole.z[: len(result)])


def test_too_few_attempts_are_told_with_the_number_that_is_needed():
    message = r"about [2-9]\.\d pictures would be drawn for one that is kept, and attempts is 1\n"
    with pytest.raises(RefusedError, match=message):
        draw(known_model(slope=0.7), 4, "a AND c", verify="faithful", attempts=1)


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"batch": -1}, {"batch": 2.5}, {"opening": 0}, {"batch": 2, "opening": "1"}]
)
def test_wrong_sizes_of_batches_are_refused_at_the_call(model, wrong):
    name = [*wrong][-1]
    with pytest.raises(ArgumentError, match=f"{name} must be a whole number from 1"):
        run(plan_query(open_session(model, "cpu"), "a"), Count(4, **wrong))
