import math

import pytest
import torch

from energyql.errors import ArgumentError
from energyql.sampling import (
    CrankNicolsonSampler,
    CrankNicolsonState,
    LangevinSampler,
    RandomStreams,
    StepNoise,
    as_energy,
    crank_nicolson_step,
    prior_latents,
)
from sampling.toys import Quadratic, start


def spread(sampler, curvature=3.0):
    z = sampler.sample(Quadratic(curvature), prior_latents(0, 0, 4000, 2), noise=RandomStreams(0)).z
    return z.std().item()


def test_it_tends_to_the_conjugate_posterior():
    # N(0, 1) times exp(-κ z²/2) is N(0, 1 / (1 + κ)).
    assert spread(LangevinSampler()) == pytest.approx(0.5, rel=0.04)
    assert spread(LangevinSampler(strength=5.0)) == pytest.approx(0.25, rel=0.15)


def test_the_published_noise_is_two_hundred_times_too_cold():
    # Its law tends to temperature noise² / (2 h) = 0.005; what is left of the start has not died out after 100 steps.
    left = (1 - 0.01 * 4) ** 100
    assert spread(LangevinSampler.published()) == pytest.approx(math.sqrt(0.005 / 4 + left**2), rel=0.1)


def test_without_noise_it_is_gradient_descent():
    z0 = prior_latents(0, 0, 3, 2)
    result = LangevinSampler(step=0.1, steps=7, noise=0.0).sample(Quadratic(2.0), z0)
    torch.testing.assert_close(result.z, z0 * (1 - 0.1 * 3) ** 7)
    assert result.gradients.tolist() == result.evaluations.tolist() == [7] * 3


class TestCrankNicolson:
    """Steps that are accepted or rejected, so that they leave the posterior unchanged at any size."""

    @pytest.mark.parametrize("step", [0.5, 1.5])
    def test_the_posterior_is_left_unchanged(self, step):
        energy = Quadratic(2.0)  # the posterior is N(0, 1/3)
        z = start(20_000, 1, dtype=torch.float64) / math.sqrt(3)
        result = CrankNicolsonSampler(step=step, steps=20, rise=0).sample(energy, z)
        assert result.z.var().item() == pytest.approx(1 / 3, rel=0.04)
        assert (result.z - z).abs().mean() > 0.3  # and they moved

    def test_the_strength_rises_to_the_posterior(self):
        result = CrankNicolsonSampler(steps=40, strength=2.0).sample(Quadratic(), start(20_000, 1))
        assert result.z.var().item() == pytest.approx(1 / 3, rel=0.05)
        assert (result.gradients == 41).all()

    def test_a_step_of_one_size_serves_any_number_of_dimensions(self):
        z = start(200, 4000)
        after, info = crank_nicolson_step(
            CrankNicolsonState(z, z[:, 0].square(), torch.cat([2 * z[:, :1], torch.zeros(200, 3999)], 1)),
            as_energy(lambda z: z[:, 0].square()), StepNoise(RandomStreams(1), z), step=1.0,
        )  # fmt: skip
        assert info.status is None
        assert (after.z != z).any(1).double().mean() > 0.5

    def test_a_trial_without_a_finite_energy_is_rejected(self):
        z = start(50, 3)
        result = CrankNicolsonSampler().sample(lambda z: z[:, 1] ** 2 + torch.where(z[:, 0] > 0, torch.nan, 0.0), z)
        assert (result.z[result.ok][:, 0] <= 0).all()
        assert torch.equal(result.z[~result.ok], z[z[:, 0] > 0])

    @pytest.mark.parametrize("wrong", [{"step": 0.0}, {"step": 2.5}, {"steps": 0}, {"rise": 1.5}])
    def test_wrong_settings(self, wrong):
        with pytest.raises(ArgumentError):
            CrankNicolsonSampler(**wrong)
