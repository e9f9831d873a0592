"""Steps of samplers, called alone: a run of a sampler is a loop over them, and they change none of their arguments."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch

from energyql.sampling import (
    MOVING,
    AnnealingState,
    Corrector,
    DescentSampler,
    LangevinSampler,
    ODESolver,
    Particles,
    PredictorCorrector,
    Proposed,
    RandomStreams,
    SliceSampler,
    SliceState,
    Status,
    StepInfo,
    StepNoise,
    StepSampler,
    anneal_particles,
    annealing_stage,
    as_energy,
    descent_init,
    descent_step,
    flow_init,
    flow_step,
    langevin_step,
    predictor_corrector_step,
    prior_latents,
    rejection_round,
    slice_step,
)
from energyql.sampling.smc import ANCESTORS, draws_of_a_move
from sampling.toys import Mixed, OwnTarget, Poisoned, Quadratic, start


def noise_of(z, step="", part=None):
    streams = RandomStreams(seed=2)
    return StepNoise(streams if part is None else streams.part(part), z, step=step)


def unchanged(state, call):
    """Return what a call returns, which must leave the numbers of a state alone."""
    tensors = [state] if isinstance(state, torch.Tensor) else [part for part in state if isinstance(part, torch.Tensor)]
    before = [tensor.clone() for tensor in tensors]
    result = call(state)
    assert all(map(torch.equal, tensors, before))
    return result


@pytest.mark.parametrize("strength", [{}, {"strength": 2.0}])
def test_langevin_steps_make_a_run(strength):
    sampler, z0 = LangevinSampler(step=0.1, steps=4, **strength), start(5, 3)
    z, energy = z0, as_energy(Quadratic())
    for number in range(4):
        z, info = unchanged(
            z, lambda z, n=number: langevin_step(z, energy, noise_of(z0, str(n), "langevin"), step=0.1, **strength)
        )
        assert (info.status == MOVING).all()
    assert torch.equal(sampler.sample(Quadratic(), z0, noise=RandomStreams(2)).z, z)


def test_predictor_corrector_steps_make_a_run():
    sampler, z0 = PredictorCorrector(steps=30, corrections=2), start(5, 3)
    z, energy = z0, as_energy(Quadratic())
    for number in range(30):
        beta = sampler.schedule.beta(1 - number / 29) / 30
        noise = noise_of(z0, str(number), "predictor-corrector")
        z, _ = unchanged(
            z, lambda z, b=beta, n=noise: predictor_corrector_step(z, energy, n, beta=b, corrector=Corrector(2))
        )
    assert torch.equal(sampler.sample(Quadratic(), z0, noise=RandomStreams(2)).z, z)


def test_a_correction_is_as_long_as_its_ratio_of_signal_to_noise_says():
    z, energy, snr, beta = start(5, 3), as_energy(Quadratic()), 0.3, 0.01
    noise = noise_of(z)
    predicted, corrected = (
        predictor_corrector_step(z, energy, noise, beta=beta, corrector=Corrector(corrections, snr))[0]
        for corrections in (0, 1)
    )
    score, fresh = -2 * predicted, noise.normals("0")
    size = 2 * (1 - beta) * (snr * fresh.norm(dim=1) / score.norm(dim=1)).square()[:, None]
    torch.testing.assert_close(corrected, predicted + size * score + (2 * size).sqrt() * fresh)


def test_a_correction_without_a_number_ends_a_sample_where_it_is():
    z, energy = torch.ones(50, 3), as_energy(Poisoned(Quadratic(), edge=1.0))
    (predicted, _), (end, info) = (
        predictor_corrector_step(z, energy, noise_of(z), beta=0.01, corrector=Corrector(corrections))
        for corrections in (0, 1)
    )
    bad = predicted[:, 0] < 1
    assert 0 < bad.sum() < 50
    assert torch.equal(end[bad], predicted[bad])
    assert torch.equal(info.status == Status.NON_FINITE, bad)


def test_a_sample_without_a_gradient_stays():
    energy, z = as_energy(Poisoned(Quadratic(), edge=0.0)), torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    for step in (
        lambda: langevin_step(z, energy, noise_of(z), step=0.1),
        lambda: predictor_corrector_step(z, energy, noise_of(z), beta=0.1, corrector=Corrector()),
    ):
        moved, info = step()
        assert info.status.tolist() == [Status.NON_FINITE, MOVING]
        assert torch.equal(moved[0], z[0])
        assert not torch.equal(moved[1], z[1])


@pytest.mark.parametrize(
    ("init", "step", "sampler"),
    [
        (flow_init, flow_step, ODESolver(enough=0.01)),
        (flow_init, flow_step, ODESolver("dopri5")),
        (descent_init, descent_step, DescentSampler(strength=3.0)),
        (descent_init, descent_step, DescentSampler(enough=None)),
    ],
)
def test_steps_of_deterministic_samplers_make_a_run(init, step, sampler):
    z0, energy = start(6, 3, dtype=torch.float64), as_energy(Mixed())
    z0[5, :-1] = 0  # nothing to do
    run = sampler.sample(Mixed(), z0)
    for row in range(6):
        state, info = init(z0[row : row + 1], energy, sampler)
        status = info if isinstance(info, torch.Tensor) else info.status
        assert (status.item() == Status.OK) == (row == 5)
        while status.item() == MOVING:
            state, info = unchanged(state, lambda state: step(state, energy, sampler))
            status = info.status
            assert info.accepted.shape == (1,)
        assert status.item() == run.status[row] == Status.OK
        torch.testing.assert_close(state.z[0], run.z[row])


@pytest.mark.parametrize("bracket", [math.pi / 2, 2 * math.pi])
def test_a_slice_step_keeps_the_posterior_and_counts(bracket):
    n, energy = 20_000, as_energy(Quadratic(3.0))
    z = prior_latents(0, 0, n, 2) / 2  # N(0, 1) exp(-3 z²/2) is N(0, 1/4)
    state, info = unchanged(
        SliceState(z, energy(z)), lambda state: slice_step(state, energy, noise_of(z), bracket=bracket)
    )
    assert state.z.square().mean().item() == pytest.approx(1 / 4, rel=0.04)
    assert torch.equal(state.energies, energy(state.z))
    assert (info.evaluations > 0).all()


def test_a_slice_step_of_some_samples_is_theirs_in_the_batch():
    z, rows = start(8, 64), torch.tensor([1, 4, 7])
    energy = as_energy(OwnTarget())
    whole, _ = slice_step(SliceState(z, energy(z)), energy, noise_of(z))
    some = energy.part(rows)
    part, info = slice_step(SliceState(z[rows], some(z[rows])), some, noise_of(z).part(rows, ""))
    assert torch.equal(part.z, whole.z[rows])
    assert some.values < info.evaluations.sum()  # points of all samples in one call


def test_a_round_of_rejection():
    energy, draws = as_energy(Quadratic()), start(40_000, 2).view(10_000, 4, 2)
    chances = torch.rand(10_000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    info = rejection_round(Proposed(draws, torch.zeros(10_000, 4)), energy, chances)
    assert info.accepted.double().mean().item() == pytest.approx(1 - (1 - 1 / 2) ** 4, abs=0.02)  # E exp(-|z|²/2)
    accepted = draws[info.accepted, info.first[info.accepted]]
    assert accepted.square().mean().item() == pytest.approx(1 / 2, rel=0.05)
    assert torch.equal(info.tried, torch.where(info.accepted, info.first + 1, 4))
    assert (info.mass.sum() / info.tried.sum()).item() == pytest.approx(1 / 2, rel=0.03)


def test_stages_of_annealing_reach_the_posterior():
    settings, energy, n = SliceSampler(growth=2.0, moves=2), as_energy(Quadratic(8.0)), 4000
    z = prior_latents(0, 0, n, 2) / math.sqrt(2)
    state = AnnealingState(z, energy(z), torch.full((n,), 1 / 8), torch.zeros(n))
    lasts = []
    while not lasts or not lasts[-1]:
        step = noise_of(z, f"{len(lasts)}")
        state, info = unchanged(state, lambda state, s=step: annealing_stage(state, energy, s, settings))
        lasts.append(bool(info.last.all()))
    assert lasts == [False] * 3 + [True]
    weighted = (state.log_weight.exp()[:, None] * state.z.square()).mean() / state.log_weight.exp().mean()
    assert weighted.item() == pytest.approx(1 / 9, rel=0.1)
    # The mean weight is the ratio of masses, 1 / 9 at β = 1 to 1 / 2 at β = 1/8.
    assert state.log_weight.exp().mean().item() == pytest.approx(2 / 9, rel=0.1)


def test_stages_of_particles_reach_the_posterior():
    def energy(v):
        return 12 * v.square().sum(1)

    generator = torch.Generator().manual_seed(0)
    v = torch.randn(4 * ANCESTORS, 1, generator=generator)
    particles, exponent, mass = Particles(v, energy(v)), 0.0, 0.0
    while exponent < 1:
        draws = [torch.randn(ANCESTORS, draws_of_a_move(1), generator=generator) for _ in range(3)]
        particles, exponent, log_weight = anneal_particles(particles, exponent, energy, draws, 0.5 * len(particles.v))
        mass += log_weight
    assert particles.v.std().item() == pytest.approx(0.2, rel=0.03)
    assert mass == pytest.approx(math.log(0.2), abs=0.05)


class Pair(NamedTuple):
    z: torch.Tensor
    age: torch.Tensor


@dataclass(frozen=True)
class Ageing(StepSampler):
    """Moves each sample by 1, until it is as old as its first number; beyond 3 it is infinite."""

    steps: int = 6
    after = Status.STEP_LIMIT

    def init(self, z, energy):
        return Pair(z, z[:, 0] * 0 + energy(z) * 0), StepInfo.where_finite(z[:, 1].isfinite())

    def advance(self, state, energy, noise, number):
        assert len(state.age) == len(energy.gradient(state.z)[0]) == len(noise.normals())
        assert (state.age == number).all()
        z = torch.where(state.z[:, :1] > 3.5, math.inf, state.z + 1)
        return Pair(z, state.age + 1), StepInfo(torch.where(z[:, 1] >= 2, Status.OK, MOVING))


def test_a_sampler_of_one_step_keeps_no_books():
    z0 = torch.tensor([[0.0, 0.0], [2.0, -9.0], [-9.0, -9.0], [0.0, 1.0]])
    reports = []
    result = Ageing().sample(Quadratic(), z0, progress=lambda *report: reports.append(report))
    assert result.status.tolist() == [Status.OK, Status.NON_FINITE, Status.STEP_LIMIT, Status.OK]
    assert result.z.tolist() == [[2.0, 2.0], [4.0, -7.0], [-3.0, -3.0], [1.0, 2.0]]
    assert result.gradients.tolist() == [2, 3, 6, 1]
    assert (result.evaluations - result.gradients).tolist() == [1] * 4
    assert [moving for _, moving in reports] == [3, 2, 1, 1, 1, 0]
    assert reports[-1][0] == 1.0
