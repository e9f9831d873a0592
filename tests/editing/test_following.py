import torch

from energyql.editing.following import follow
from energyql.sampling import ODESolver

TARGETS = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))


def test_a_flow_knows_which_sample_it_moves():
    # Gradient flow of a quadratic for the time 5.025 (see `vp_flow`) has a closed form.
    def bowl(z, rows):
        away = z - TARGETS[rows]
        return away.square().sum(1) / 2, away

    solver = ODESolver("dopri5", rtol=1e-5, atol=1e-6)
    result = follow(bowl, torch.zeros(6, 5), solver)
    left = torch.exp(torch.tensor(-solver.schedule.flow_time(1.0, 1e-3)))
    assert torch.allclose(result.z, TARGETS * (1 - left), atol=1e-3)
    assert result.z.shape == (6, 5)
