import pytest
import torch

from energyql.errors import ArgumentError
from energyql.sampling import FIRST_RUN, ODESolver, SampleResult, Status, summarize
from energyql.sampling.base import check_latents, check_sampler, draw_with, has_trait


def result(*codes: Status) -> SampleResult:
    n = len(codes)
    numbers = torch.arange(n)
    return SampleResult(torch.zeros(n, 2), torch.tensor(codes, dtype=torch.int64), numbers, numbers, {"steps": numbers})


@pytest.mark.parametrize("status", Status)
def test_every_status_is_a_sentence(status):
    assert status.sentence[0].isupper()
    assert status.sentence.endswith(".")


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


@pytest.mark.parametrize("shape", [(3,), (3, 0), (1, 2, 3)])
def test_latents_of_another_shape_are_refused(shape):
    with pytest.raises(ArgumentError, match=r"\(n, z_dim\)"):
        check_latents(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_latents_of_another_dtype_are_refused_with_the_remedy(dtype):
    with pytest.raises(ArgumentError, match=r"\(z0\)\.float\(\)"):
        check_latents(torch.zeros(3, 2, dtype=dtype))


COUNTS = torch.tensor([2, 4, 6])


def run(**diagnostics):
    zeros = torch.zeros(3, dtype=torch.int64)
    told = {name: torch.tensor(values) for name, values in diagnostics.items()}
    return SampleResult(torch.zeros(3, 1), zeros, COUNTS, zeros + 1, told)


def test_costs():
    assert summarize(run()) == {"evaluations_mean": 4.0, "evaluations_max": 6, "gradients_mean": 1.0}
    assert summarize(run(steps_rejected=[1, 0, 2]))["steps_rejected"] == 3


def test_exact_draws():
    found = summarize(
        run(exact=[1, 1, 1], proposals=[2, 1, 7], mass=[0.5, 1.0, 1.0], stages=[0] * 3, log_weight=[0.0] * 3)
    )
    assert found["acceptance"] == pytest.approx(0.3)
    assert found["exact"] == 1
    assert found["effective_samples"] == pytest.approx(3)
    assert found["log_probability"] == pytest.approx(torch.tensor(0.25).log().item())


def test_annealed_samples_of_a_rare_query():
    found = summarize(
        run(exact=[0] * 3, proposals=[9] * 3, mass=[1e-9] * 3, stages=[4, 5, 6], log_weight=[-3.0, -3.0, -3.0])
    )
    assert found["log_probability"] == pytest.approx(-3.0)
    assert found["effective_samples"] == pytest.approx(3)
    assert found["stages_mean"] == 5


class Own:
    """A sampler by the protocol alone."""

    def sample(self, energy, z0, *, noise=None, progress=None):
        return z0


class Short:
    def sample(self, energy, z0):
        return z0


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (ODESolver, r"ODESolver is a class, not a sampler\nmake one: ODESolver\(\)"),
        (Short(), r"sample of Short cannot be called: .*noise.*\ndef sample\(self, energy, z0, \*, noise, progress\)"),
        (None, "an object with a method sample, not None"),
    ],
)
def test_what_is_no_sampler_is_refused(sampler, message):
    with pytest.raises(ArgumentError, match=message):
        check_sampler(sampler)


@pytest.mark.parametrize("trait", ["descends", "needs_gradient", "needs_floor"])
def test_a_sampler_that_does_not_say_so_needs_and_promises_nothing(trait):
    assert not has_trait(Own(), trait)


def test_a_sampler_must_return_a_result():
    with pytest.raises(ArgumentError, match=r"sample of Own returned a Tensor, not a SampleResult"):
        draw_with(Own(), lambda z: z.sum(1), torch.zeros(3, 2), FIRST_RUN, lambda done, moving: None)
