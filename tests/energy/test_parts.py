import itertools
import math

import pytest
import torch
from formulas import EYES, HAIR, VOCABULARY

from energyql.attributes.predictions import output_count, split_outputs
from energyql.energy.parts import Parts
from energyql.logic.circuit import Leaf

INF = math.inf
SPECS = [VOCABULARY[name] for name in ("smile", "hair", "age", "eyes", "yaw", "hat")]
COUNT = sum(map(output_count, SPECS))
STD = {"age": 0.3, "yaw": 2.0}
LEAVES = [
    Leaf("yaw", ((-1.0, 0.5), (0.7, INF))),
    Leaf("hair", ("red",)),
    Leaf("smile", (True,)),
    Leaf("age", ((-INF, 0.2),)),
    Leaf("eyes", ("blue", "brown")),
    Leaf("age", ((0.2, 0.4),)),
    Leaf("smile", (False,)),
    Leaf("hair", ("black", "brown", "gray")),
    Leaf("hat", (True,)),
    Leaf("age", ((-INF, 0.2), (0.4, INF))),
]


def raw(batch=4, scale=1.0, dtype=torch.float64):
    random = torch.Generator().manual_seed(0)
    return (scale * torch.randn(batch, COUNT, dtype=torch.float64, generator=random)).to(dtype)


def rows(parts, outputs):
    return outputs @ parts.matrix.to(outputs).T + parts.offset.to(outputs)


def of_leaves(parts, leaves, energies):
    """Log-probabilities of leaves."""
    return torch.stack([(-energies[parts.of_leaf[leaf]]).logsumexp(0) for leaf in leaves])


def expected(leaves, outputs):
    predictions = split_outputs(outputs, SPECS, STD)
    return torch.stack([predictions[leaf.attribute].log_probability(leaf.cells) for leaf in leaves])


CASES = [
    *([leaf] for leaf in LEAVES),
    *(list(pair) for pair in itertools.combinations(LEAVES, 2)),
    [LEAVES[2], LEAVES[6], LEAVES[8]],
    LEAVES,
]


@pytest.mark.parametrize("leaves", CASES)
def test_energies_and_slopes(leaves):
    outputs = raw().requires_grad_()
    found = expected(leaves, outputs)
    weights = 0.5 + torch.rand(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(1))
    (slopes,) = torch.autograd.grad((weights * found).sum(), outputs)

    parts = Parts(leaves, SPECS, STD, outputs)
    given = rows(parts, outputs.detach())
    energies = parts(given.T)
    assert len(energies) == parts.count
    torch.testing.assert_close(of_leaves(parts, leaves, energies), found)

    value, back = parts.pullback(given.T)
    torch.testing.assert_close(value, energies)
    variable = value.clone().requires_grad_()
    (pull,) = torch.autograd.grad((weights * of_leaves(parts, leaves, variable)).sum(), variable)
    torch.testing.assert_close(back(pull).T @ parts.matrix, slopes)


def test_slopes_that_are_the_same_for_all_samples():
    parts = Parts(LEAVES, SPECS, STD, raw())
    given = rows(parts, raw()).T
    pull = torch.rand(parts.count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    _, back = parts.pullback(given)
    torch.testing.assert_close(back(pull), parts.pullback(given)[1](pull.expand(-1, 4).contiguous()))


def test_autograd_can_differentiate_the_energies():
    parts = Parts(LEAVES, SPECS, STD, raw())
    assert torch.autograd.gradcheck(lambda outputs: parts(rows(parts, outputs).T), (raw().requires_grad_(),))


def test_equal_parts_are_one():
    parts = Parts([*LEAVES, *LEAVES], SPECS, STD, raw())
    assert parts.count == Parts(LEAVES, SPECS, STD, raw()).count
    low = parts.of_leaf[LEAVES[3]][0]
    assert parts.of_leaf[LEAVES[9]][0] == low


@pytest.mark.parametrize(
    ("name", "everything"), [("smile", (False, True)), ("hair", HAIR), ("eyes", EYES), ("age", ((-INF, INF),))]
)
def test_everything_and_nothing(name, everything):
    leaves = [Leaf(name, everything), Leaf(name, ())]
    parts = Parts(leaves, SPECS, STD, raw())
    value, back = parts.pullback(rows(parts, raw()).T)
    logs = of_leaves(parts, leaves, value)
    torch.testing.assert_close(logs[0], torch.zeros_like(logs[0]))
    assert (logs[1] == -INF).all()
    assert back(torch.ones(parts.count, 4, dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize("scale", [10.0, 1e3, 1e5])
def test_far_from_the_data_everything_is_finite_in_float32(scale):
    parts = Parts(LEAVES, SPECS, STD, torch.zeros(()))
    value, back = parts.pullback(rows(parts, raw(64, scale, torch.float32)).T)
    assert value.isfinite().all()
    assert back(torch.ones(parts.count, 1)).isfinite().all()
