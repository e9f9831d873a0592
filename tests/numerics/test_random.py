import math
import random
import statistics

import numpy as np
import pytest
import torch

from energyql.errors import ArgumentError
from energyql.numerics import random as seeds
from energyql.sampling import normals, prior_latents, uniforms


@pytest.mark.parametrize("z_dim", [1, 3, 4, 64, 130])
def test_rows_do_not_depend_on_the_chunk(z_dim):
    whole = prior_latents(7, 0, 1100, z_dim)
    for start, count in ((0, 1), (1, 1), (5, 17), (1000, 100), (1099, 1), (3, 0)):
        assert torch.equal(prior_latents(7, start, count, z_dim), whole[start : start + count])


def test_rows_may_be_chosen_anywhere():
    chosen, whole = [0, 3, 4, 9], normals(7, 5, 10, 6, stream="x")
    assert torch.equal(normals(7, 5, 10, 6, stream="x", rows=chosen), whole[chosen])
    assert normals(7, 5, 10, 6, stream="x", rows=[]).shape == (0, 6)
    far = [2**62, 2**63, 2**63 + 1]
    found = normals(7, 0, 2**64 - 1, 6, stream="x", rows=far)
    for row, index in zip(found, far, strict=True):
        assert torch.equal(row, normals(7, index, 1, 6, stream="x")[0])


def test_rows_are_float32_on_the_cpu():
    z = prior_latents(0, 0, 3, 5)
    assert (z.shape, z.dtype, z.device.type) == ((3, 5), torch.float32, "cpu")


def test_numbers_are_the_same_on_every_machine_for_ever():
    # A change here changes every picture that anyone made with a seed.
    assert prior_latents(0, 0, 1, 4).tolist() == GOLDEN_FIRST
    assert prior_latents(2**64 - 1, 10**12, 1, 3).tolist() == GOLDEN_FAR


def test_rows_seeds_and_streams_differ():
    base = prior_latents(1, 0, 2, 64)
    others = [base[1:], prior_latents(2, 0, 1, 64), normals(1, 0, 1, 64, stream="langevin/0")]
    for other in others:
        assert abs(float(torch.corrcoef(torch.cat([base[:1], other]))[0, 1])) < 0.5
        assert not torch.isin(base[0], other).any()


def test_normals_have_normal_moments_and_distribution():
    x = prior_latents(3, 0, 10_000, 20).double().flatten()
    n = len(x)
    assert abs(float(x.mean())) < 4 / math.sqrt(n)
    assert abs(float(x.var()) - 1) < 4 * math.sqrt(2 / n)
    assert abs(float((x**4).mean()) - 3) < 4 * math.sqrt(96 / n)
    assert kolmogorov_smirnov(torch.special.ndtr(x)) < 1.95  # p = 0.001


def test_columns_and_neighbouring_rows_are_uncorrelated():
    z = prior_latents(4, 0, 20_000, 8).double()
    both = torch.cat([z[:-1], z[1:]], dim=1)
    off_diagonal = torch.corrcoef(both.T) - torch.eye(16)
    assert float(off_diagonal.abs().max()) < 5 / math.sqrt(len(z))


def test_uniforms_are_uniform_and_never_an_end():
    u = uniforms(5, 0, 50_000, 2, stream="accept").flatten()
    assert u.dtype == torch.float64
    assert 0 < float(u.min()) < float(u.max()) < 1
    assert kolmogorov_smirnov(u) < 1.95
    assert torch.equal(uniforms(5, 11, 2, 2, stream="accept").flatten(), u[22:26])


def test_halves_of_words_become_normals_by_the_inverse_distribution_function():
    words = seeds._words(6, 0, 1, 1000, "prior", None)
    halves = [half for word in words[0].tolist() for half in (word % 2**32, word >> 32)]
    exact = [quantile((half if half < 2**31 else half - 2**32) + 0.5) for half in halves]
    torch.testing.assert_close(prior_latents(6, 0, 1, 2000)[0], torch.tensor(exact), rtol=1e-6, atol=1e-7)
    assert torch.equal(prior_latents(6, 0, 1, 1999), prior_latents(6, 0, 1, 2000)[:, :1999])


def test_the_far_tails_are_finite_and_right(monkeypatch):
    extremes = np.array([[2**31 | (2**31 - 1) << 32, (2**31 + 2**10) | 0xFFFFFFFF << 32]], dtype=np.uint64)
    monkeypatch.setattr("energyql.numerics.random._words", lambda *_: extremes)
    low, high, far, middle = normals(0, 0, 1, 4, stream="x")[0].tolist()
    assert low == -high == pytest.approx(quantile(-(2.0**31) + 0.5), rel=1e-6)
    assert far == pytest.approx(quantile(-(2.0**31) + 2**10 + 0.5), rel=1e-6)
    assert middle == pytest.approx(quantile(-0.5), rel=1e-6)


def test_global_random_states_are_neither_read_nor_changed():
    def states():
        legacy = vars(np.random)["get_state"]()  # the global state that others may have seeded
        return random.getstate(), legacy[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    prior_latents(0, 0, 2, 2)
    assert states() == before


@pytest.mark.parametrize("seed", [0, 2**64 - 1, np.int64(5), np.uint64(2**64 - 1)])
def test_seeds_in_range_are_taken(seed):
    assert torch.equal(prior_latents(seed, 0, 1, 4), prior_latents(int(seed), 0, 1, 4))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "0", None])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(ArgumentError, match="seed must be an integer from 0 to 18446744073709551615"):
        prior_latents(seed, 0, 1, 4)


@pytest.mark.parametrize("rows", [(-1, 1, 1), (0, -1, 1), (0, 1, 0), (0.5, 1, 1)])
def test_rows_out_of_range_are_refused(rows):
    with pytest.raises(ArgumentError, match="must be an integer from"):
        prior_latents(0, *rows)


def quantile(k: float) -> float:
    return statistics.NormalDist().inv_cdf(0.5 + k / 2**32)


def kolmogorov_smirnov(u: torch.Tensor) -> float:
    """sqrt(n) times the largest gap between the sorted values and the uniform distribution."""
    n = len(u)
    gap = torch.sort(u).values - (torch.arange(n) + 0.5) / n
    return math.sqrt(n) * (float(gap.abs().max()) + 0.5 / n)


GOLDEN_FIRST = [[0.19575703144073486, -0.7194532155990601, -1.048440933227539, -0.7865373492240906]]
GOLDEN_FAR = [[-0.14766813814640045, -0.0525786466896534, -1.9751383066177368]]
