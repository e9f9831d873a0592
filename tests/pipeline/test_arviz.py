"""Results as data of ArviZ."""

import json
import sys

import numpy as np
import pytest
from made_results import make
from needed import needed

from energyql import ArgumentError, generate
from energyql.sampling import Status

if sys.version_info < (3, 11):  # noqa: UP036  (setup.cfg says 3.10)
    pytest.skip("arviz-base needs Python 3.11", allow_module_level=True)
needed("arviz_base")


def test_groups_and_their_dimensions():
    result = make()
    tree = result.to_arviz()
    posterior, z, stats = (tree[name] for name in ("posterior", "unconstrained_posterior", "sample_stats"))
    assert dict(posterior.sizes) == {"chain": 1, "draw": 3, "hair_value": 2}
    assert list(posterior.data_vars) == ["smile", "hair", "age"]
    assert posterior["hair_value"].values.tolist() == ["red", "black"]
    assert posterior["hair"].sel(hair_value="red").values.tolist() == [[0, 0.1, 0.2]]
    assert posterior["age"].values.tolist() == [[0, 0.1, 0.2]]
    assert np.array_equal(z["z"].values[0], result.z.numpy())
    assert stats["lp"].values[0, 1] == pytest.approx(-0.5 - 0.5 * (result.z[1].double() ** 2).sum().item())
    assert stats["query_energy"].values.tolist() == [[0, 0.5, np.inf]]
    assert stats["status"].values.tolist() == [["OK", "STEP_LIMIT", "OK"]]
    assert stats["satisfied"].values.tolist() == [[True, False, True]]
    assert tree.attrs["inference_library"] == "energyql"
    assert json.loads(tree.attrs["provenance"]) == result.provenance
    assert json.loads(tree.attrs["statistics"]) == result.statistics


def test_chains():
    status, energy = [Status.OK] * 3, np.zeros(3)
    result = make(status=status, energy=energy)
    tree = (result + result).to_arviz(chains=2)
    assert dict(tree["posterior"].sizes) == {"chain": 2, "draw": 3, "hair_value": 2}
    assert np.array_equal(tree["unconstrained_posterior"]["z"].values[1], result.z.numpy())
    for chains in (0, 4, 7, -1):
        with pytest.raises(ArgumentError, match=f"6 samples do not make {chains} chains of one length"):
            (result + result).to_arviz(chains)


@pytest.mark.parametrize("chains", [2.0, True, "2", None])
def test_chains_are_a_whole_number(chains):
    with pytest.raises(ArgumentError, match=f"3 samples do not make {chains} chains of one length"):
        make().to_arviz(chains)


@pytest.mark.parametrize("sampler", ["slice+descent", "ode", "langevin"])
def test_the_density_is_that_of_the_strength(tiny, sampler):
    settings = {"model": tiny, "progress": False, "sampler": sampler}
    result, one = (generate("smile", n=2, strength=strength, **settings) for strength in (2.5, None))
    wanted = -2.5 * result.energy - 0.5 * (result.z.double() ** 2).sum(1).numpy()
    assert result.to_arviz()["sample_stats"]["lp"].values[0] == pytest.approx(wanted)
    assert "lp" not in (result + one).to_arviz()["sample_stats"]
    assert "lp" in (one + one).to_arviz()["sample_stats"]


@pytest.mark.parametrize("name", ["z", "z_dim", "chain", "draw", "hair_value"])
@pytest.mark.parametrize("first", [True, False])
def test_names_that_the_data_need(name, first):
    known, own = make().probabilities, {name: np.zeros(3)}
    with pytest.raises(ArgumentError, match=f"ArviZ needs the name '{name}' once, and an attribute takes it"):
        make(probabilities=own | known if first else known | own).to_arviz()


def test_a_drawn_result(tiny):
    result = generate("smile AND age > 0.5", n=4, model=tiny, progress=False)
    tree = result.to_arviz(chains=2)
    assert tree["sample_stats"]["index"].values.tolist() == [[0, 1], [2, 3]]
    assert json.loads(tree.attrs["provenance"])["query"] == "smile AND age > 0.5"


def test_not_judged():
    assert "satisfied" not in make(satisfied=None).to_arviz()["sample_stats"]


def test_without_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(
        ArgumentError, match=r'arviz-base, which is not installed\npip install "arviz-base>=0\.6", with Python 3\.11'
    ):
        make().to_arviz()
