import pytest
import torch

from energyql.errors import ArgumentError
from energyql.sampling import GradientEnergy, ODESolver, as_energy
from sampling.toys import Quadratic, QuadraticByHand, start

Z, ROWS = start(5, 3), torch.arange(5)
TARGETS = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))


@GradientEnergy
def bowl(z, rows):
    """½ |z - target|², where each sample has a target of its own."""
    away = z - TARGETS[rows]
    return away.square().sum(1) / 2, away


@pytest.mark.parametrize("energy", [Quadratic(2.0), QuadraticByHand(2.0)], ids=["autograd", "own gradient"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_energy_and_gradient_in_every_mode(energy, mode):
    with mode():
        value, gradient = as_energy(energy).gradient(Z * 1, ROWS)
    torch.testing.assert_close(value, Z.square().sum(dim=-1))
    torch.testing.assert_close(gradient, 2 * Z)
    assert not value.requires_grad
    assert not gradient.requires_grad


def test_gradient_comes_in_the_dtype_of_z():
    class Half(QuadraticByHand):
        def gradient(self, z):
            value, gradient = super().gradient(z)
            return value, gradient.half()

    assert as_energy(Half()).gradient(Z, ROWS)[1].dtype == torch.float32


def by_value(z, rows):
    return (z - TARGETS[rows]).square().sum(1) / 2


class ModuleOfRows(torch.nn.Module):
    def forward(self, z, rows):
        return by_value(z, rows)


class GradientOnly:
    def gradient(self, z, rows=None):
        return bowl.gradient(z, rows)


@pytest.mark.parametrize("energy", [bowl, by_value, ModuleOfRows(), GradientOnly()], ids=lambda e: type(e).__name__)
def test_rows_reach_every_kind_of_energy(energy):
    rows, z = torch.tensor([2, 0, 2]), torch.zeros(3, 5)
    expected = TARGETS[rows].square().sum(1) / 2
    adapted = as_energy(energy)
    torch.testing.assert_close(adapted(z, rows), expected)
    torch.testing.assert_close(adapted.gradient(z, rows)[1], -TARGETS[rows])


def test_rows_of_a_part_of_a_later_batch():
    part = as_energy(as_energy(bowl, first=2), samples=torch.tensor([0, 3]))
    torch.testing.assert_close(part.gradient(torch.zeros(1, 5), torch.tensor([1]))[1], -TARGETS[5:])


def test_a_second_parameter_of_another_name_is_left_alone():
    assert as_energy(lambda z, scale=3.0: scale * z.sum(1))(Z, ROWS).tolist() == (3 * Z.sum(1)).tolist()


def test_the_flow_of_an_energy_that_differs_from_sample_to_sample():
    # Gradient flow of a quadratic for the time 5.025 (see `vp_flow`) has a closed form.
    solver = ODESolver("dopri5", rtol=1e-5, atol=1e-6)
    left = torch.exp(torch.tensor(-solver.schedule.flow_time(1.0, 1e-3)))
    result = solver.sample(bowl, torch.zeros(6, 5))
    assert torch.allclose(result.z, TARGETS * (1 - left), atol=1e-3)


@pytest.mark.parametrize(
    "energy", [lambda z: z.detach().sum(-1), lambda z: torch.ones(len(z), requires_grad=True)], ids=["cut", "other"]
)
def test_an_energy_cut_off_from_z_is_refused_with_the_remedy(energy):
    with pytest.raises(ArgumentError, match=r"does not depend on z(.|\n)*remove a no_grad, detach or item"):
        as_energy(energy).gradient(Z, ROWS)


def test_wrong_shapes_are_refused():
    class Transposed(QuadraticByHand):
        def gradient(self, z):
            return self(z), z.T

    with pytest.raises(ArgumentError, match=r"energy\(z\) must have shape \(5,\).*got \(\)"):
        as_energy(lambda z: z.sum()).gradient(Z, ROWS)
    with pytest.raises(ArgumentError, match=r"gradient\(z\)\[1\] must have shape \(5, 3\).*got \(3, 5\)"):
        as_energy(Transposed()).gradient(Z, ROWS)
