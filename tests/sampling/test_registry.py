import math

import pytest
import torch

from energyql.catalog import SAMPLER_NAMES
from energyql.errors import ArgumentError
from energyql.sampling import (
    SAMPLERS,
    Chain,
    DescentSampler,
    LangevinSampler,
    ODESolver,
    PredictorCorrector,
    RandomStreams,
    SliceSampler,
    Status,
    make_sampler,
)
from sampling.toys import Quadratic, start

NAN, INF = math.nan, math.inf


def test_the_names_are_those_of_the_catalog():
    assert tuple(SAMPLERS) == SAMPLER_NAMES


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_name_makes_a_sampler_of_any_strength(name):
    assert "strength=2.5" in repr(make_sampler(name, 2.5))


def test_no_such_sampler():
    with pytest.raises(ArgumentError, match="there is no sampler 'odd'\nsamplers: slice"):
        make_sampler("odd")


@pytest.mark.parametrize(
    ("sampler", "wrong"),
    [
        (
            ODESolver,
            {"rtol": (-1.0, NAN), "atol": (0.0, INF), "strength": (0.0, 1e39), "enough": (0.0, -1.0, INF, NAN)},
        ),
        (DescentSampler, {"strength": (0.0,), "enough": (INF,), "tolerance": (0.0,), "max_evaluations": (0, 2.5)}),
        (SliceSampler, {"strength": (0.0, INF), "growth": (1.0,), "proposals": (0,), "moves": (1.5,), "pilot": (-1,)}),
        (SliceSampler, {"bracket": (0.0, 7.0), "max_evaluations": (0,)}),
        (LangevinSampler, {"step": (0,), "steps": (0,), "noise": (-1.0,), "strength": (NAN,)}),
        (PredictorCorrector, {"steps": (20,), "corrections": (-1,), "snr": (0.0,), "strength": (INF,)}),
    ],
)
def test_settings_out_of_range_are_refused(sampler, wrong):
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ArgumentError, match=f"^{name} must be .*; got {value!r}".replace("+", "[+]")):
                sampler(**{name: value})


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: ODESolver(t0=1.5), "0 <= t1 < t0 <= 1"),
        (lambda: ODESolver(t0=0.5, t1=0.5), "0 <= t1 < t0 <= 1"),
        (lambda: ODESolver(max_evaluations=4), "max_evaluations must be at least 5 for bosh3: two to start"),
        (lambda: Chain(()), "at least one sampler"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(make, rule):
    with pytest.raises(ArgumentError, match=rule):
        make()


def test_one_sampler_after_another():
    z0, first, second = start(6, 3), ODESolver(t1=0.8), ODESolver("dopri5", t1=0.5)
    chained = Chain((first, second)).sample(Quadratic(), z0)
    middle = first.sample(Quadratic(), z0)
    end = second.sample(Quadratic(), middle.z)
    assert torch.equal(chained.z, end.z)
    assert torch.equal(chained.gradients, middle.gradients + end.gradients)
    assert torch.equal(chained.evaluations, middle.evaluations + end.evaluations)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_chain_needs_what_one_of_its_samplers_needs(reverse):
    floor, gradient = SliceSampler(), LangevinSampler()
    chain = Chain((gradient, floor) if reverse else (floor, gradient))
    assert chain.needs_floor and chain.needs_gradient
    assert not Chain((gradient, gradient)).needs_floor
    assert not Chain((floor, floor)).needs_gradient


def test_diagnostics_of_all():
    result = Chain((SliceSampler(), ODESolver())).sample(Quadratic(), start(4, 3))
    assert {"proposals", "log_weight", "steps_accepted", "steps_rejected"} <= set(result.diagnostics)


@pytest.mark.parametrize("last", [DescentSampler(enough=0.5), ODESolver(enough=0.5)])
def test_what_is_known_to_be_done_is_not_evaluated_again(last):
    energy, z0 = Quadratic(), start(200, 2)
    drawn = SliceSampler(proposals=4, pilot=0).sample(energy, z0, noise=RandomStreams().part("0"))
    whole = Chain((SliceSampler(proposals=4, pilot=0), last)).sample(energy, z0)
    done = energy(drawn.z) <= 0.5
    assert 20 < done.sum() < 180
    assert (whole.gradients[done] == 0).all()
    assert (whole.gradients[~done] > 0).all()
    assert torch.equal(whole.z[done], drawn.z[done])
    assert torch.equal(whole.z, last.sample(energy, drawn.z).z)
    assert whole.ok.all()
    if isinstance(last, DescentSampler):
        assert torch.allclose(whole.diagnostics["value"], energy(whole.z), atol=1e-5)


def test_moves_forget_the_energy():
    walk = LangevinSampler(step=0.5, steps=3)
    whole = Chain((SliceSampler(proposals=4, pilot=0), walk, DescentSampler(enough=0.5))).sample(
        Quadratic(), start(50, 2)
    )
    assert (whole.gradients > 3).all()
    assert (Quadratic()(whole.z) <= 0.5).all()


def test_a_sampler_twice_draws_other_numbers():
    walk = LangevinSampler(step=0.5, steps=1)
    twice = Chain((walk, walk)).sample(lambda z: 0 * z.sum(1), torch.zeros(1, 4)).z
    once = Chain((walk,)).sample(lambda z: 0 * z.sum(1), torch.zeros(1, 4)).z
    assert not torch.allclose(twice, once + 0.5 * once)


def test_an_unfinished_sample_goes_on():
    rough = ODESolver(max_evaluations=5)
    result = Chain((rough, ODESolver())).sample(Quadratic(), start(3, 4))
    assert (rough.sample(Quadratic(), start(3, 4)).status == Status.STEP_LIMIT).all()
    assert result.ok.all()
