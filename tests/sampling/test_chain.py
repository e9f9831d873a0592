import pytest
import torch

from energyql.errors import ArgumentError
from energyql.sampling import Chain, LangevinSampler, ODESolver, SliceSampler, Status
from sampling.toys import Quadratic, start


def test_one_sampler_after_another():
    z0, first, second = start(6, 3), ODESolver(t1=0.8), ODESolver("dopri5", t1=0.5)
    chained = Chain((first, second)).sample(Quadratic(), z0)
    middle = first.sample(Quadratic(), z0)
    end = second.sample(Quadratic(), middle.z)
    assert torch.equal(chained.z, end.z)
    assert torch.equal(chained.gradients, middle.gradients + end.gradients)
    assert torch.equal(chained.evaluations, middle.evaluations + end.evaluations)


def test_diagnostics_of_all():
    result = Chain((SliceSampler(), ODESolver())).sample(Quadratic(), start(4, 3))
    assert {"proposals", "log_weight", "steps_accepted", "steps_rejected"} <= set(result.diagnostics)


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


def test_nothing_is_no_chain():
    with pytest.raises(ArgumentError, match="at least one sampler"):
        Chain(())
