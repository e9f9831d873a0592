import math

import pytest
import torch

from energyql.errors import ArgumentError
from energyql.sampling import VPSchedule

TIMES = torch.linspace(0, 1, 11, dtype=torch.float64)


@pytest.mark.parametrize("schedule", [VPSchedule(), VPSchedule(0.0, 3.0), VPSchedule(2.0, 2.0)])
def test_integral_is_the_integral_of_beta(schedule):
    for t in TIMES:
        grid = torch.linspace(0, float(t), 1001, dtype=torch.float64)
        # The trapezoid rule is exact for a linear rate.
        assert schedule.integral(t) == pytest.approx(float(torch.trapezoid(schedule.beta(grid), grid)), abs=1e-12)


def test_flow_time_of_the_paper():
    assert VPSchedule().flow_time(1.0, 0.0) == pytest.approx(5.025)
    assert VPSchedule().flow_time(1.0, 1e-3) == pytest.approx(5.025 - 0.5 * (1e-4 + 9.95e-6))


@pytest.mark.parametrize("rates", [(-0.1, 20), (2, 1), (0, 0), (0.1, math.inf), (math.nan, 1), (0.1, math.nan)])
def test_rates_out_of_order_are_refused(rates):
    with pytest.raises(ArgumentError, match="0 <= beta_min <= beta_max"):
        VPSchedule(*rates)
