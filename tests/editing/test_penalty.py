"""A weight that grows until it is enough, on bowls whose minima are known."""

import pytest
import torch

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.editing.step import LINEAR_NEAR, PENALTY_FACTORS, Penalized, linear_minimum, lower_minimum, penalty_method
from energyql.energy.rule import compile_energy_rule
from energyql.language import bind, parse
from energyql.sampling import GradientEnergy, Status
from energyql.vocabulary import AttributeSpec, Vocabulary

TARGETS = torch.tensor([[0.2, 0.0], [3.0, 0.0], [40.0, 0.0]])


def weighted(factor):
    """`factor |z - target|² + |z|²`: the minimum is at `factor / (1 + factor)` of the way."""

    def objective(z, rows):
        away = z - TARGETS[rows]
        return factor * away.square().sum(1) + z.square().sum(1), 2 * (factor * away + z)

    return GradientEnergy(objective)


def cost(z, rows):
    return (z - TARGETS[rows]).square().sum(1)


def run(tolerance, cost=cost, rows=slice(None)):
    return penalty_method(Penalized(weighted, cost, tolerance, 50), torch.zeros(3, 2)[rows])


def share(result):
    return (result.z[:, 0] / TARGETS[:, 0]).tolist()


def test_each_sample_gets_the_weight_that_it_needs():
    result = run(tolerance=0.2)
    assert share(result) == pytest.approx([1 / 2, 9 / 10, 27 / 28], abs=1e-2)
    assert result.status.tolist() == [Status.OK] * 3
    assert result.evaluations[0] < result.evaluations[1] < result.evaluations[2]


def test_enough_at_once():
    assert share(run(tolerance=1e4)) == pytest.approx([1 / 2] * 3, abs=1e-2)


def test_a_weight_that_saves_nothing_is_not_kept():
    calls = []

    def floor(z, rows):
        calls.append(len(rows))
        return cost(z, rows).clamp_min(2.1)

    result = run(tolerance=0.2, cost=floor)
    assert share(result) == pytest.approx([1 / 2, 1 / 2, 27 / 28], abs=1e-2)
    assert calls == [3, 3, 1, 1]
    assert len(calls) == 1 + len(PENALTY_FACTORS)


def test_nobody():
    result = penalty_method(Penalized(weighted, cost, 0.1, 5), torch.zeros(0, 2))
    assert result.z.shape == (0, 2)


def two_valleys(factor):
    """`factor (x² - 1)² + |z - (0.2, 0)|²`: the query holds at x = 1, near the start, and at x = -1."""

    def objective(z, rows):
        x = z[:, 0]
        away = z - torch.tensor([0.2, 0.0])
        slope = 2 * away
        slope[:, 0] += 4 * factor * x * (x.square() - 1)
        return factor * (x.square() - 1).square() + away.square().sum(1), slope

    return GradientEnergy(objective)


def bent(z, rows):
    return (z[:, 0].square() - 1).square()


def search(starts, elsewhere, tolerance=0.05, cost=bent):
    z0 = torch.tensor([[x, 0.0] for x in starts])
    return lower_minimum(Penalized(two_valleys, cost, tolerance, 50), z0, elsewhere)


def test_the_lower_of_two_minima_is_kept():
    near, far = search([-0.5, 0.5], None).z[:, 0].tolist()
    assert far == pytest.approx(1.0, abs=0.15)
    assert near == pytest.approx(-1.0, abs=0.15)  # the wrong valley
    both = search([-0.5, 0.5], lambda rows: torch.tensor([[0.5, 0.0], [-0.5, 0.0]])[rows])
    assert both.z[:, 0].tolist() == pytest.approx([1.0, 1.0], abs=0.15)
    alone = search([-0.5, 0.5], None)
    assert (both.evaluations > alone.evaluations).all()
    assert torch.equal(both.gradients, both.evaluations)
    assert both.status.tolist() == [Status.OK] * 2


def test_only_samples_that_lack_the_query_search_again():
    asked = []

    def elsewhere(rows):
        asked.append(rows.tolist())
        return torch.tensor([[0.5, 0.0]]).repeat(len(rows), 1)

    assert search([-1.0, -0.5, 1.0], elsewhere).z[:, 0].tolist() == pytest.approx([-1.0, 1.0, 1.0], abs=0.15)
    assert asked == [[1]]
    search([1.0], elsewhere)
    assert asked == [[1]]


def test_an_end_where_the_query_holds_comes_first():
    def only_left(z, rows):
        return torch.where(z[:, 0] < 0, 0.0, 1.0)

    left = lambda rows: torch.tensor([[-0.5, 0.0]]).repeat(len(rows), 1)  # noqa: E731
    result = search([0.5], left, tolerance=0.5, cost=only_left)
    assert result.z[0, 0] < 0  # though the objective is higher there


def test_an_end_that_is_no_number_is_not_kept():
    nowhere = search([-0.5], lambda rows: torch.full((len(rows), 2), torch.nan))
    assert nowhere.z[:, 0].tolist() == pytest.approx([-1.0], abs=0.15)
    assert nowhere.status.tolist() == [Status.OK]


def test_the_minimum_of_linear_heads():
    vocabulary = Vocabulary([AttributeSpec("a", "yes/no"), AttributeSpec("b", "yes/no")])
    none = torch.zeros(0)
    heads = {
        name: Head(none.view(0, 2), none, none.view(1, 0), torch.tensor([row]), torch.zeros(1), torch.ones(()))
        for name, row in {"a": [2.0, 0.0], "b": [0.0, 2.0]}.items()
    }
    readouts = AttributeBank(vocabulary, heads, fitted=FittedUnder("z"))
    rule = compile_energy_rule(bind(parse("a"), vocabulary), vocabulary, "exact")
    z0 = torch.tensor([[-1.0, 0.25], [1.0, -2.0]])
    z = linear_minimum([rule], readouts, z0)
    assert z[:, 1].tolist() == pytest.approx([0.25, -2.0])  # nothing is asked of b
    x = z[:, 0]
    assert (2 * LINEAR_NEAR * (x - z0[:, 0])).tolist() == pytest.approx((2 * torch.sigmoid(-2 * x)).tolist(), abs=2e-2)
    assert (x > z0[:, 0]).all()
