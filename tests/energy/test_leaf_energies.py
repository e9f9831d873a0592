import itertools
import math

import pytest
import torch
from formulas import VOCABULARY

from energyql.attributes.heads import FusedHeads, Head, RawOutputs
from energyql.attributes.predictions import output_count, split_outputs
from energyql.energy.circuit import LeafEnergies, leaf_kind
from energyql.logic.circuit import Leaf

INF = math.inf
SPECS = [VOCABULARY[name] for name in ("smile", "hair", "age", "eyes", "yaw", "hat")]
COUNT = sum(map(output_count, SPECS))
STD = {"age": torch.tensor(0.3), "yaw": torch.tensor(2.0)}
LEAVES = [
    Leaf("smile", (True,)),
    Leaf("smile", (False,)),
    Leaf("hat", (True,)),
    Leaf("hair", ("red",)),
    Leaf("eyes", ("blue", "brown")),
    Leaf("hair", ("black", "brown", "gray")),
    Leaf("yaw", ((0.7, INF),)),
    Leaf("age", ((-INF, 0.2),)),
    Leaf("yaw", ((-1.0, 0.5),)),
    Leaf("age", ((0.2, 0.4),)),
]


def raw(dtype):
    """The layout of the outputs; the heads themselves are not run."""
    empty = [
        Head(
            *(torch.zeros(shape, dtype=dtype) for shape in [(0, 1), 0, (output_count(spec), 0)]),
            torch.zeros(output_count(spec), 1, dtype=dtype),
            torch.zeros(output_count(spec), dtype=dtype),
            torch.ones((), dtype=dtype),
        )
        for spec in SPECS
    ]
    return RawOutputs(FusedHeads.of(empty), SPECS, STD)


def outputs(batch=4, scale=1.0, dtype=torch.float64):
    random = torch.Generator().manual_seed(0)
    return (scale * torch.randn(batch, COUNT, dtype=torch.float64, generator=random)).to(dtype)


def rows(energies, given):
    return (given @ energies.matrix.to(given).T + energies.offset.to(given)).T


CASES = [*([leaf] for leaf in LEAVES), *map(list, itertools.combinations(LEAVES, 2)), LEAVES]


@pytest.mark.parametrize("leaves", CASES)
def test_values_and_slopes(leaves):
    assert leaves == sorted(leaves, key=leaf_kind)
    given = outputs().requires_grad_()
    predictions = split_outputs(given, SPECS, STD)
    expected = -torch.stack([predictions[leaf.attribute].log_probability(leaf.cells) for leaf in leaves])
    weights = 0.5 + torch.rand(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(1))
    (slopes,) = torch.autograd.grad((weights * expected).sum(), given)

    energies = LeafEnergies(leaves, raw(torch.float64))
    value, back = energies.pullback(rows(energies, given.detach()))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(back(weights).T @ energies.matrix, slopes)


def test_slopes_that_are_the_same_for_all_samples():
    energies = LeafEnergies(LEAVES, raw(torch.float64))
    given = rows(energies, outputs())
    grad = torch.rand(len(LEAVES), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    _, back = energies.pullback(given)
    torch.testing.assert_close(back(grad), energies.pullback(given)[1](grad.expand(-1, 4).contiguous()))


@pytest.mark.parametrize("scale", [10.0, 1e3, 1e5])
def test_far_from_the_data_everything_is_finite_in_float32(scale):
    energies = LeafEnergies(LEAVES, raw(torch.float32))
    value, back = energies.pullback(rows(energies, outputs(64, scale, torch.float32)))
    assert value.isfinite().all()
    assert back(torch.ones(len(LEAVES), 1)).isfinite().all()
