"""What docs/first-hour.md promises of the same seed: the same call has the same bits, another division nearly so."""

import numpy as np
import pytest
import torch

from energyql import generate, sample_latents
from energyql.pipeline.session import open_session
from energyql.sampling import SAMPLERS

QUERY = "smile AND glasses AND NOT beard"
OFTEN = ["slice+descent", "descent"]
QUICK = [*OFTEN, "slice", "ode"]


@pytest.fixture
def threads():
    """Set the number of threads for a while."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def draw(tiny):
    return lambda n, **settings: generate(QUERY, n, model=tiny, device="cpu", progress=False, **settings)


@pytest.mark.parametrize("sampler", OFTEN)
@pytest.mark.parametrize("settings", [{}, {"batch_size": 1}, {"first": 5}])
def test_the_same_call_has_the_same_bits(draw, sampler, settings):
    one, two = (draw(3, sampler=sampler, **settings) for _ in range(2))
    assert torch.equal(one.z, two.z)
    assert torch.equal(one.w, two.w)
    assert np.array_equal(one.energy, two.energy)
    assert [picture.tobytes() for picture in one.images] == [picture.tobytes() for picture in two.images]


@pytest.mark.parametrize("sampler", OFTEN)
def test_another_division_differs_by_one_grey_level_at_most(draw, threads, sampler):
    whole = draw(3, sampler=sampler)
    assert len(np.unique(np.asarray(whole.images[0]))) > 50  # pictures in which rounding could be seen
    others = [(0, draw(2, sampler=sampler))]
    others += [(0, draw(3, sampler=sampler, batch_size=size)) for size in (1, 2)]
    others += [(1, draw(2, sampler=sampler, first=1))]
    threads(2)
    others.append((0, draw(3, sampler=sampler)))
    for first, other in others:
        part = slice(first, first + len(other))
        assert torch.allclose(other.z, whole.z[part], rtol=0, atol=1e-3)
        assert other.status == whole.status[part]
        for mine, theirs in zip(other.images, whole.images[part], strict=True):
            assert np.abs(np.subtract(mine, theirs, dtype=np.int16)).max() <= 1


@pytest.mark.parametrize(
    "sampler", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SAMPLERS]
)
def test_latents_have_the_same_bits_in_every_batch(sampler):
    query = "frown AND beard AND hair = red"
    whole, *others = (
        np.concatenate([part.z for part in sample_latents(
            query, 40, model="avatars", sampler=sampler, seed=2, batch_size=size, device="cpu", progress=False
        )])
        for size in (40, 7, 33)
    )  # fmt: skip
    for other in others:
        assert np.array_equal(other, whole)


def test_a_picture_of_given_latents_has_the_same_bits_in_every_batch(tiny):
    result = generate(QUERY, 9, model=tiny, device="cpu", progress=False)
    generator = open_session(tiny, "cpu").model.generator
    with torch.inference_mode():
        whole = generator.synthesize(result.w)
        for size in (1, 2, 3, 8):
            parts = torch.cat([generator.synthesize(part) for part in result.w.split(size)])
            assert torch.equal(parts, whole)
