import math

import pytest
import torch

from energyql.sampling import (
    LangevinSampler,
    RandomStreams,
    prior_latents,
)
from sampling.toys import Quadratic


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
