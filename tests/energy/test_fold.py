import math

import pytest
import torch

from energyql.energy.circuit import CircuitFold, log_scaled_complement
from energyql.logic.circuit import Circuit, Leaf, LogSumExp, Scaled, ScaledComplement, Sum


def leaf(name):
    return Leaf(name, (True,))


def circuit(*nodes):
    return Circuit(nodes, (), {}, "")


def one_by_one(nodes, leaves):
    values, rows = [], iter(leaves)
    for node in nodes:
        if isinstance(node, Leaf):
            values.append(next(rows))
        elif isinstance(node, Scaled):
            values.append(node.factor * values[node.children[0]])
        elif isinstance(node, ScaledComplement):
            values.append(torch.log(1 - torch.exp(node.factor * values[node.children[0]])))
        else:
            below = torch.stack([values[child] for child in node.children])
            values.append(below.sum(0) if isinstance(node, Sum) else below.logsumexp(0))
    return values[-1]


NESTED = (
    leaf("a"),
    leaf("b"),
    Sum((0, 1)),
    leaf("c"),
    LogSumExp((2, 3)),
    Scaled((4,), 0.5),
    leaf("d"),
    Sum((5, 6, 0)),
    LogSumExp((0, 6)),
    Scaled((8,), 3.0),
    LogSumExp((7, 9, 3)),
)


@pytest.mark.parametrize(
    "nodes",
    [(leaf("a"),), (leaf("a"), leaf("b"), Sum((0, 1))), (leaf("a"), leaf("b"), LogSumExp((1, 0))), NESTED],
)
def test_a_fold_is_the_circuit_node_by_node(nodes):
    count = sum(isinstance(node, Leaf) for node in nodes)
    leaves = -torch.rand(count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.1
    leaves.requires_grad_()
    fold = CircuitFold(circuit(*nodes))
    torch.testing.assert_close(fold(leaves), one_by_one(nodes, leaves))
    assert torch.autograd.gradcheck(fold, (leaves,))
    check_slopes(fold, leaves)


def check_slopes(fold, leaves):
    variable = leaves.detach().requires_grad_()
    value = fold(variable)
    (expected,) = torch.autograd.grad(value.sum(), variable)
    found, slopes = fold.energy_and_slopes(-leaves.detach())
    torch.testing.assert_close(found, -value.detach())
    torch.testing.assert_close(slopes.expand_as(expected), expected)


def test_a_leaf_of_several_intervals_is_the_log_sum_exp_of_one_each():
    low, high = Leaf("a", ((-math.inf, 0.0),)), Leaf("a", ((1.0, math.inf),))
    both = Leaf("a", (*low.cells, *high.cells))
    fold = CircuitFold(circuit(both, leaf("b"), Sum((0, 1)), low, LogSumExp((2, 3))))
    assert fold.leaves == [leaf("b"), low, high]
    b, below, above = leaves = -torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fold(leaves), torch.logaddexp(b + torch.logaddexp(below, above), below))
    check_slopes(fold, leaves)


def test_slopes_of_complements():
    fold = CircuitFold(
        circuit(leaf("a"), leaf("b"), ScaledComplement((0, 1), 2.0), leaf("c"), Sum((2, 1)), LogSumExp((3, 4)))
    )
    check_slopes(fold, -torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.1)


def test_one_fold_serves_every_type():
    fold = CircuitFold(circuit(*NESTED))
    for dtype in (torch.float32, torch.float64, torch.float32):
        assert fold(-torch.ones(4, 3, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("factor", [0.01, 0.5, 2.0, 1000.0])
def test_the_complement_of_a_scaled_value(factor):
    p = torch.tensor([1e-6, 0.1, 0.49, 0.51, 0.9, 1 - 1e-6], dtype=torch.float64)
    value = log_scaled_complement(p.log(), torch.log1p(-p), torch.tensor(factor, dtype=torch.float64))
    torch.testing.assert_close(value.exp(), -torch.expm1(factor * p.log()), rtol=1e-8, atol=0)


@pytest.mark.parametrize("factor", [0.01, 2.0, 1000.0])
@pytest.mark.parametrize("logit", [-200.0, -20.0, 0.0, 20.0, 200.0])
def test_the_complement_and_its_gradient_survive_saturation(factor, logit):
    x = torch.tensor([logit], requires_grad=True)
    value = log_scaled_complement(
        torch.nn.functional.logsigmoid(x), torch.nn.functional.logsigmoid(-x), torch.tensor(factor)
    )
    value.backward()
    assert value.isfinite().all()
    assert x.grad.isfinite().all()
    if logit == 200.0:  # 1 - (1 - u)^f is f u, u = exp(-logit), though exp(-200) is 0 in float32
        assert value.item() == pytest.approx(math.log(factor) - 200, rel=1e-5)
        assert x.grad.item() == pytest.approx(-1)


def test_certain_values():
    value = torch.tensor([0.0, -math.inf])
    result = log_scaled_complement(value, value.flip(0), torch.tensor(2.0))
    assert result.tolist() == [-math.inf, 0.0]
