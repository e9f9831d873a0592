"""The contract of all samplers. A new sampler joins `energyql.sampling.SAMPLERS` and nothing here.

Samplers called "published" are others with slow settings, which `test_registry.py` checks.
"""

import pytest
import torch

from energyql.errors import ArgumentError
from energyql.sampling import SAMPLERS, RandomStreams, SampleResult, Status
from sampling.toys import Mixed, OwnTarget, Poisoned, Quadratic, QuadraticByHand, Wall, start

# A batch of another size may round differently in the last bit, which steep energies enlarge.
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(params=[name for name in SAMPLERS if not name.startswith("published")])
def sampler(request):
    return SAMPLERS[request.param]()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtypes_and_devices(sampler, dtype):
    result = sampler.sample(Quadratic(), start(7, 5, dtype=dtype))
    assert result.z.shape == (7, 5)
    assert result.z.dtype == dtype
    assert not result.z.requires_grad
    for numbers in (result.status, result.evaluations, result.gradients):
        assert numbers.dtype == torch.int64
    for numbers in (result.status, result.evaluations, result.gradients, *result.diagnostics.values()):
        assert numbers.shape == (7,)
        assert numbers.device.type == "cpu"
    assert result.ok.all()
    assert (result.evaluations > 0).all()
    assert (result.gradients <= result.evaluations).all()


@pytest.mark.parametrize("energy", [Quadratic(3.0), QuadraticByHand(3.0), Wall()], ids=lambda e: type(e).__name__)
def test_energy_falls(sampler, energy):
    z0 = start(16, 64)
    # Under the posterior of the quadratic energy it is a quarter of what it is under the prior.
    assert energy(sampler.sample(energy, z0).z).mean() < 0.7 * energy(z0).mean()


@pytest.mark.parametrize(
    ("energy", "dtype"),
    [
        (Mixed(), torch.float32),
        (Wall(), torch.float32),
        (OwnTarget(), torch.float32),
        pytest.param(Mixed(), torch.float64, marks=pytest.mark.slow),
    ],
    ids=["mixed", "wall", "own-target", "mixed-float64"],
)
def test_chunks_make_no_difference(sampler, energy, dtype):
    z0 = start(15, 64, dtype=dtype)
    whole = sampler.sample(energy, z0, noise=RandomStreams(seed=5, start=2))
    parts, first = [], 0
    for size in (1, 6, 7, 1):
        parts.append(sampler.sample(energy, z0[first : first + size], noise=RandomStreams(5, 2 + first)))
        first += size
    joined = SampleResult.join(parts)
    torch.testing.assert_close(joined.z, whole.z, rtol=0, atol=ROUNDING[dtype])
    assert joined.evaluations.tolist() == whole.evaluations.tolist()
    for name, numbers in whole.diagnostics.items():
        torch.testing.assert_close(joined.diagnostics[name], numbers, rtol=0, atol=1e-4)


def test_a_failing_sample_leaves_its_mates_alone(sampler):
    z0 = start(8, 4)
    healthy = sampler.sample(Quadratic(), z0)
    z0[3, 0] = -10.0
    result = sampler.sample(Poisoned(Quadratic(), edge=-9.0), z0)
    # A sampler that looks for a start of its own need not fail.
    assert result.status[3] in (Status.NON_FINITE, Status.OK)
    assert torch.isfinite(result.z).all()
    mates = [0, 1, 2, 4, 5, 6, 7]
    assert result.ok[mates].all()
    torch.testing.assert_close(result.z[mates], healthy.z[mates], rtol=0, atol=ROUNDING[torch.float32])


def test_nowhere_to_go_is_a_status(sampler):
    z0 = start(2, 3)
    result = sampler.sample(lambda z: z.sum(1) * torch.nan, z0)
    assert result.status.tolist() == [Status.NON_FINITE] * 2
    assert torch.equal(result.z, z0)


def test_leaves_z0_and_the_global_random_state_alone(sampler):
    z0 = start(4, 3).requires_grad_(True)
    before, state = z0.detach().clone(), torch.get_rng_state()
    result = sampler.sample(Quadratic(), z0)
    assert torch.equal(z0, before)
    assert result.z.data_ptr() != z0.data_ptr()
    assert torch.equal(torch.get_rng_state(), state)


def test_runs_twice_the_same(sampler):
    z0 = start(4, 64)
    assert torch.equal(sampler.sample(Wall(), z0).z, sampler.sample(Wall(), z0).z)


def test_runs_under_inference_mode(sampler):
    with torch.inference_mode():
        result = sampler.sample(Quadratic(), start(2, 3))
    assert result.ok.all()


def test_an_empty_batch_is_a_batch(sampler):
    result = sampler.sample(Quadratic(), torch.zeros(0, 3))
    assert result.z.shape == (0, 3)
    assert result.counts() == {}


def test_progress_rises_to_one_and_prints_nothing(sampler, capsys):
    calls = []
    sampler.sample(Mixed(), start(8, 4), progress=lambda done, active: calls.append((done, active)))
    fractions, active = zip(*calls, strict=True)
    assert list(fractions) == sorted(fractions)
    assert fractions[0] >= 0
    assert calls[-1] == (1.0, 0)
    assert list(active) == sorted(active, reverse=True)
    assert capsys.readouterr() == ("", "")


def test_refuses_latents_and_energies_of_the_wrong_shape(sampler):
    with pytest.raises(ArgumentError, match="z0 must have shape"):
        sampler.sample(Quadratic(), torch.zeros(3))
    with pytest.raises(ArgumentError, match="z0 must be a float tensor; got float32\npass torch.as_tensor"):
        sampler.sample(Quadratic(), torch.zeros(2, 3).numpy())
    with pytest.raises(ArgumentError, match="must have shape"):
        sampler.sample(lambda z: z.sum(), torch.zeros(2, 3))
