from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchdiffeq
from torch import Tensor

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import compile_energy_rule
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.methods import PublishedEnergy, PublishedODE
from energyql.generators.mapping import encoder
from energyql.language import bind, parse
from energyql.pipeline.model import load_model
from energyql.pipeline.plan import plan_query
from energyql.sampling import ODESolver, Status, VPSchedule, prior_latents

QUERY = "(smile OR glasses) AND NOT beard AND hair = black AND age > 0.4"


def energies(folder: Path, query: str) -> tuple[PublishedEnergy, QueryEnergy, EvaluatedModel]:
    subject = EvaluatedModel(load_model(folder))  # one test changes it
    prepared = plan_query(subject.session, query, semantics="lace")
    return PublishedEnergy(prepared.rule, subject.reads, subject.model.bank), prepared.energy, subject


def test_the_energy_is_that_of_lace_semantics(tiny: Path) -> None:
    published, ours, subject = energies(tiny, QUERY)
    z = prior_latents(0, 0, 5, subject.z_dim)
    torch.testing.assert_close(published(z), ours(z))


def test_the_mapping_network_is_run_once_for_every_attribute(tiny: Path) -> None:
    subject = EvaluatedModel(str(tiny))
    rule = compile_energy_rule(bind(parse(QUERY), subject.vocabulary), subject.vocabulary, "lace")
    calls = []

    def encode(z: Tensor) -> Tensor:
        calls.append(len(z))
        return subject.encode(z)

    PublishedEnergy(rule, encode, subject.model.bank)(prior_latents(0, 0, 3, subject.z_dim))
    assert calls == [3] * 5


def test_the_solution_is_that_of_plain_odeint(tiny: Path) -> None:
    published, _, subject = energies(tiny, "smile AND age > 0.4")
    z0 = prior_latents(0, 0, 6, subject.z_dim)
    result = PublishedODE().sample(published, z0)

    def field(t: Tensor, z: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(published(z).sum(), z)
        return 0.5 * VPSchedule().beta(t) * gradient

    expected = torchdiffeq.odeint(field, z0, torch.tensor([1.0, 1e-3]), rtol=1e-3, atol=1e-3, method="dopri5")[-1]
    torch.testing.assert_close(result.z, expected)
    assert result.ok.all()
    assert result.evaluations.equal(result.gradients)
    assert len(set(result.evaluations.tolist())) == 1


def test_one_sample_alone_goes_where_ours_goes_with_the_published_settings(tiny: Path) -> None:
    _, ours, subject = energies(tiny, "smile AND glasses")
    # In float64: in float32 the last digit decides about a step that is on the brink of being refused.
    subject.model.generator.double()
    exact = {
        name: Head.from_tensors({key: tensor.double() for key, tensor in head.tensors().items()})
        for name, head in subject.model.bank.heads.items()
    }
    bank = AttributeBank(subject.vocabulary, exact, fitted=FittedUnder(truncation=subject.model.bank.truncation))
    published = PublishedEnergy(ours.rule, subject.reads, bank)
    ours = QueryEnergy(ours.rule, encoder(subject.model.generator, subject.model.truncation), bank)
    solver = ODESolver("dopri5", rtol=1e-3, atol=1e-3, overshoot=True)
    for seed in range(4):
        z0 = prior_latents(seed, 0, 1, subject.z_dim).double()
        theirs, same = PublishedODE().sample(published, z0), solver.sample(ours, z0)
        assert theirs.evaluations.equal(same.evaluations)
        torch.testing.assert_close(theirs.z, same.z, atol=1e-6, rtol=1e-6)


def test_a_sample_depends_on_its_batch_mates(tiny: Path) -> None:
    published, _, subject = energies(tiny, QUERY)
    z0 = prior_latents(0, 0, 6, subject.z_dim)
    together, alone = PublishedODE().sample(published, z0), PublishedODE().sample(published, z0[:1])
    assert together.evaluations[0] != alone.evaluations[0] or not together.z[:1].equal(alone.z)


def test_a_limit_ends_the_whole_batch_where_it_stands() -> None:
    result = PublishedODE(max_evaluations=20).sample(lambda z: 1e4 * z.square().sum(1), torch.ones(3, 2))
    assert result.counts() == {Status.STEP_LIMIT: 3}
    assert result.evaluations.tolist() == [20] * 3
    assert result.z.isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_ends_the_batch_and_raises_nothing(bad: float) -> None:
    result = PublishedODE().sample(lambda z: bad * z.sum(1), torch.ones(3, 2))
    assert not result.ok.any()
    assert result.z.tolist() == torch.ones(3, 2).tolist()


def test_progress_never_falls_and_ends_near_the_end(tiny: Path) -> None:
    published, _, subject = energies(tiny, QUERY)
    reports: list[float] = []
    PublishedODE().sample(
        published, prior_latents(0, 0, 2, subject.z_dim), progress=lambda done, moving: reports.append(done)
    )
    assert reports == sorted(reports)
    assert 0 <= reports[0] <= reports[-1] <= 1
