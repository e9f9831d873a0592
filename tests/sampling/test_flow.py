import pytest
import torch

from energyql.errors import ArgumentError
from energyql.sampling import VPSchedule, energy_and_gradient, vp_flow

from .toys import Quadratic, QuadraticByHand, flat, start

Z = start(5, 3)


@pytest.mark.parametrize("energy", [Quadratic(2.0), QuadraticByHand(2.0)], ids=["autograd", "own gradient"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_energy_and_gradient_in_every_mode(energy, mode):
    with mode():
        value, gradient = energy_and_gradient(energy, Z * 1)
    torch.testing.assert_close(value, Z.square().sum(dim=-1))
    torch.testing.assert_close(gradient, 2 * Z)
    assert not value.requires_grad
    assert not gradient.requires_grad


def test_gradient_comes_in_the_dtype_of_z():
    class Half(QuadraticByHand):
        def gradient(self, z):
            value, gradient = super().gradient(z)
            return value, gradient.half()

    assert energy_and_gradient(Half(), Z)[1].dtype == torch.float32


def test_flow_is_half_beta_strength_gradient():
    schedule, t = VPSchedule(), torch.tensor([1.0, 0.7, 0.5, 0.1, 0.001])
    velocity, energy = vp_flow(Quadratic(2.0), schedule, strength=3.0)(t, Z)
    torch.testing.assert_close(energy, 3.0 * Z.square().sum(dim=-1))
    torch.testing.assert_close(velocity, 0.5 * schedule.beta(t)[:, None] * 3.0 * 2.0 * Z)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_velocity_is_not_finite_where_the_energy_is_not(value):
    class Broken(QuadraticByHand):
        def gradient(self, z):
            energy, gradient = super().gradient(z)
            energy[1] = value
            return energy, gradient

    velocity, _ = vp_flow(Broken(), VPSchedule())(torch.ones(5), Z)
    assert torch.isfinite(velocity).all(dim=-1).tolist() == [True, False, True, True, True]


def test_a_flat_energy_has_no_slope():
    assert (vp_flow(flat, VPSchedule())(torch.ones(5), Z)[0] == 0).all()


@pytest.mark.parametrize(
    "energy", [lambda z: z.detach().sum(-1), lambda z: torch.ones(len(z), requires_grad=True)], ids=["cut", "other"]
)
def test_an_energy_cut_off_from_z_is_refused_with_the_remedy(energy):
    with pytest.raises(ArgumentError, match=r"does not depend on z(.|\n)*remove a no_grad, detach or item"):
        energy_and_gradient(energy, Z)


def test_wrong_shapes_are_refused():
    class Transposed(QuadraticByHand):
        def gradient(self, z):
            return self(z), z.T

    with pytest.raises(ArgumentError, match=r"energy\(z\) must have shape \(5,\).*got \(\)"):
        energy_and_gradient(lambda z: z.sum(), Z)
    with pytest.raises(ArgumentError, match=r"gradient\(z\)\[1\] must have shape \(5, 3\).*got \(3, 5\)"):
        energy_and_gradient(Transposed(), Z)
