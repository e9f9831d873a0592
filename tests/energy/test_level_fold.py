import pytest
import torch

from energyql.energy import level_fold
from energyql.energy.level_fold import LevelFold

LEVELS = {
    "one row": ((({0: 1.0},),),),
    "a sum": ((({0: 1.0, 1: 1.0, 2: 2.5},),),),
    "a choice": ((({0: 1.0}, {1: 1.0, 2: 1.0}, {3: 0.5}),),),
    "two levels": ((({0: 1.0}, {1: 1.0}), ({2: 1.0, 3: 1.0}, {0: 2.0}, {1: 1.0})), (({4: 2.0, 5: 1.0}, {3: 1.0}),)),
    "a sum of choices": ((({0: 1.0}, {1: 1.0}), ({2: 1.0}, {3: 1.0})), (({4: 0.5, 5: 3.0},),)),
    "a choice of sums": ((({0: 1.0, 1: 1.0},), ({2: 1.0, 3: 1.0},)), (({4: 1.0}, {5: 1.0}, {0: 1.0, 3: 1.0}),)),
    "three levels": ((({0: 1.0}, {1: 1.0}),), (({4: 2.0}, {2: 1.0}), ({4: 1.0, 3: 1.0},)), (({5: 1.0, 6: 1.0},),)),
}


def leaves(dtype=torch.float64, scale=1.0):
    return (scale * torch.rand(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).to(dtype)


def plain(levels, table):
    rows = list(table)
    for values in levels:
        rows += [
            -torch.stack([-sum(times * rows[row] for row, times in term.items()) for term in value]).logsumexp(0)
            for value in values
        ]
    return rows[-1]


@pytest.fixture(params=LEVELS.values(), ids=LEVELS)
def levels(request):
    return request.param


def test_the_value_and_its_slopes(levels):
    x = leaves().requires_grad_()
    expected = plain(levels, x)
    (slopes,) = torch.autograd.grad(expected.sum(), x)
    fold = LevelFold(levels, 4, x)
    torch.testing.assert_close(fold(x), expected)
    with torch.no_grad():
        value, found = fold.with_slopes(x)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(found.expand_as(x), slopes)


def test_autograd_can_differentiate_the_value(levels):
    x = leaves().requires_grad_()
    assert torch.autograd.gradcheck(LevelFold(levels, 4, x), (x,))


def test_terms_that_are_far_apart_are_finite_in_float32(levels):
    x = leaves(torch.float32, 1e4)
    value, slopes = LevelFold(levels, 4, x).with_slopes(x)
    torch.testing.assert_close(value, plain(levels, x))
    assert slopes.isfinite().all()


def test_equal_terms():
    fold = LevelFold(LEVELS["a choice"], 4, x := torch.zeros(4, 2))
    value, slopes = fold.with_slopes(x)
    torch.testing.assert_close(value, -torch.full((2,), 3.0).log())
    torch.testing.assert_close(slopes[:, 0], torch.tensor([1, 1, 1, 0.5]) / 3)


def test_size(monkeypatch):
    levels = LEVELS["two levels"]  # 3 terms * 2 values * 4 rows, then 2 * 1 * 6
    monkeypatch.setattr(level_fold, "MOST_ENTRIES", 24)
    assert LevelFold.fits(levels, 4)
    assert not LevelFold.fits(levels, 5)
