import pytest

from energyql.errors import ArgumentError
from energyql.sampling import (
    SAMPLERS,
    Chain,
    DescentSampler,
    LangevinSampler,
    ODESolver,
    PredictorCorrector,
    SliceSampler,
    make_sampler,
)

KINDS = {
    "slice+ode": Chain,
    "slice": SliceSampler,
    "ode": ODESolver,
    "descent": DescentSampler,
    "slice+descent": Chain,
    "langevin": LangevinSampler,
    "predictor-corrector": PredictorCorrector,
    "published-ode": ODESolver,
    "published-langevin": LangevinSampler,
    "published-predictor-corrector": PredictorCorrector,
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_name_makes_its_sampler(name):
    assert isinstance(make_sampler(name), KINDS[name])
    assert "strength=2.5" in repr(make_sampler(name, 2.5))


def test_the_published_settings():
    ode, langevin, corrector = (make_sampler(name) for name in SAMPLERS if name.startswith("published"))
    assert (ode.method, ode.rtol, ode.atol, ode.enough) == ("dopri5", 1e-3, 1e-3, None)
    assert (langevin.step, langevin.noise, langevin.steps) == (1e-2, 1e-2, 100)
    assert (corrector.steps, corrector.corrections, corrector.snr) == (1000, 2, 0.16)


def test_no_such_sampler():
    with pytest.raises(ArgumentError, match="there is no sampler 'odd'\nsamplers: slice"):
        make_sampler("odd")
