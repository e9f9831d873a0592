import torch
from torch.nn.functional import softplus

from energyql.sampling import DescentSampler, GradientEnergy, Status
from energyql.sampling.descent import LONGEST_MOVE, compact_direction, two_loop_direction
from sampling.toys import Counting, Wall, start

RANDOM = torch.Generator().manual_seed(3)
TARGETS = torch.randn(6, 5, generator=RANDOM)
SCALES = torch.tensor([1.0, 30.0, 0.2, 5.0, 100.0])


@GradientEnergy
def valley(z, rows):
    away = z - TARGETS[rows]
    return (SCALES * away.square()).sum(1) / 2, SCALES * away


def descend(energy, z0, **settings):
    return DescentSampler(enough=None, **settings).sample(energy, z0)


def test_each_row_finds_its_own_minimum():
    result = descend(valley, torch.zeros(6, 5), tolerance=1e-7)
    assert torch.allclose(result.z, TARGETS, atol=1e-2)
    assert result.status.tolist() == [Status.OK] * 6
    assert result.evaluations.max() < 60


def test_a_curved_valley():
    def rosenbrock(x):
        return (1 - x[:, 0]).square() + 100 * (x[:, 1] - x[:, 0].square()).square()

    start = torch.tensor([[-1.2, 1.0]], dtype=torch.float64)
    end = descend(rosenbrock, start, tolerance=1e-9)
    assert torch.allclose(end.z, torch.ones(1, 2, dtype=torch.float64), atol=1e-3)


def test_the_budget_ends_a_sample_where_it_stands():
    result = descend(valley, torch.zeros(6, 5), max_evaluations=4)
    assert result.status.tolist() == [Status.STEP_LIMIT] * 6
    start, end = valley(torch.zeros(6, 5), torch.arange(6)), valley(result.z, torch.arange(6))
    assert (end < start).all()


def test_a_sample_at_its_minimum_stays():
    at_rest = descend(valley, TARGETS.clone())
    assert torch.equal(at_rest.z, TARGETS)


class Half:
    """E = softplus(-15 a·z): the log-odds 15 a·z are linear."""

    def __call__(self, z):
        return softplus(-15 * z[:, 0])


class Floor:
    """At least one nat everywhere, far from enough."""

    def __call__(self, z):
        return 1 + z.square().sum(1) / 2


def test_linear_log_odds_take_one_step():
    z0 = start(50, 6) / 10
    result = DescentSampler(enough=0.01).sample(Half(), z0)
    left = Half()(z0) > 0.01
    assert torch.allclose(result.diagnostics["value"], Half()(result.z))
    assert result.evaluations.tolist() == result.gradients.tolist() == (1 + left.long()).tolist()
    assert torch.equal(result.z[~left], z0[~left])
    assert torch.allclose(Half()(result.z[left]), torch.tensor(0.008), rtol=1e-2)
    assert torch.equal(result.z[:, 1:], z0[:, 1:])


def test_no_step_is_longer_than_the_longest():
    z0 = start(20, 6) - 5
    result = DescentSampler().sample(Half(), z0)
    assert ((result.z - z0).norm(dim=1) <= LONGEST_MOVE * (result.evaluations - 1) + 1e-4).all()
    assert (Half()(result.z) <= 0.1).all()


def test_walls_are_passed_in_few_steps():
    result = DescentSampler(enough=0.01).sample(Wall(), start(100, 64))
    assert (Wall()(result.z) <= 0.01).all()
    assert result.ok.all()
    assert result.evaluations.double().mean() < 12


def test_energies_never_rise_and_a_minimum_is_an_end():
    z0 = start(30, 4)
    result = DescentSampler().sample(Floor(), z0)
    assert (Floor()(result.z) <= Floor()(z0)).all()
    assert result.ok.all()
    assert torch.allclose(Floor()(result.z), torch.tensor(1.0), atol=1e-2)


def test_strength_counts():
    for strength in (0.5, 5.0):
        result = DescentSampler(strength=strength).sample(Half(), start(9, 2) - 3)
        assert (strength * Half()(result.z) <= 0.1).all()


def test_samples_that_are_done_cost_nothing_more():
    energy = Counting(Wall())
    result = DescentSampler().sample(energy, start(50, 64))
    assert energy.rows == sorted(energy.rows, reverse=True)
    assert sum(energy.rows) == result.evaluations.sum()


def test_the_direction_in_few_operations_is_that_of_the_two_loops():
    random = torch.Generator().manual_seed(0)
    rows, memory, dim = 5, 8, 20

    def drawn(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    root, steps = drawn(dim, dim), drawn(rows, memory, dim)
    steps[0, :3] = 0  # a sample that has taken five steps
    steps[1] = 0  # and one that has taken none
    changes = steps @ (root @ root.t() + torch.eye(dim))
    curved = (steps * changes).sum(2)
    inverses = torch.where(curved > 0, 1 / curved, 0)
    gradient, guess = drawn(rows, dim), drawn(rows).abs()
    scale = torch.where(curved[:, -1] > 0, curved[:, -1] / changes[:, -1].square().sum(1), guess)[:, None]
    pairs = tuple((steps[:, i], changes[:, i], inverses[:, i]) for i in range(memory))
    expected = two_loop_direction(gradient, pairs, scale)
    torch.testing.assert_close(compact_direction(gradient, torch.cat([steps, changes], 1), guess), expected)
    assert (expected[1] == -guess[1] * gradient[1]).all()
