import pytest
import torch

from energyql.errors import ArgumentError
from energyql.sampling import SampleResult, Status
from energyql.sampling.base import check_latents


def result(*codes: Status) -> SampleResult:
    n = len(codes)
    numbers = torch.arange(n)
    return SampleResult(torch.zeros(n, 2), torch.tensor(codes, dtype=torch.int64), numbers, numbers, {"steps": numbers})


@pytest.mark.parametrize("status", Status)
def test_every_status_is_a_sentence(status):
    assert status.sentence[0].isupper()
    assert status.sentence.endswith(".")


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (Status.STEP_LIMIT, "raise max_evaluations"),
        (Status.NON_FINITE, "check the energy there"),
        (Status.STEP_UNDERFLOW, "pass z0 as float64"),
    ],
)
def test_a_failure_says_what_to_change(status, remedy):
    assert remedy in status.sentence


def test_ok_and_counts():
    mixed = result(Status.OK, Status.STEP_LIMIT, Status.OK)
    assert mixed.ok.tolist() == [True, False, True]
    assert mixed.counts() == {Status.OK: 2, Status.STEP_LIMIT: 1}


def test_join_keeps_the_order():
    joined = SampleResult.join([result(Status.OK, Status.OK), result(), result(Status.NON_FINITE)])
    assert joined.status.tolist() == [Status.OK, Status.OK, Status.NON_FINITE]
    assert joined.evaluations.tolist() == joined.gradients.tolist() == [0, 1, 0]
    assert joined.diagnostics["steps"].tolist() == [0, 1, 0]
    assert joined.z.shape == (3, 2)


def test_join_of_nothing_is_refused():
    with pytest.raises(ArgumentError, match="at least one result"):
        SampleResult.join([])


@pytest.mark.parametrize("shape", [(3,), (3, 0), (1, 2, 3)])
def test_latents_of_another_shape_are_refused(shape):
    with pytest.raises(ArgumentError, match=r"\(n, z_dim\)"):
        check_latents(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_latents_of_another_dtype_are_refused_with_the_remedy(dtype):
    with pytest.raises(ArgumentError, match=r"pass z0\.float\(\)"):
        check_latents(torch.zeros(3, 2, dtype=dtype))
