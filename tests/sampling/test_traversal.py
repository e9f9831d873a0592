import torch

from energyql.sampling import RandomStreams, Status
from energyql.sampling.traversal import Given, interpolate

TIMES = [0.0, 0.25, 0.5, 1.0]


def test_ends_lengths_and_angles():
    random = torch.Generator().manual_seed(0)
    start, end = torch.randn(5, 8, generator=random), 2 * torch.randn(5, 8, generator=random)
    way = interpolate(start, end, TIMES)
    assert way.shape == (5, 4, 8)
    assert way.dtype == start.dtype
    assert torch.allclose(way[:, 0], start, atol=1e-6)
    assert torch.allclose(way[:, -1], end, atol=1e-6)
    lengths = start.norm(dim=1), end.norm(dim=1)
    assert torch.allclose(way[:, 2].norm(dim=1), (lengths[0] + lengths[1]) / 2, rtol=1e-5)
    cosine = torch.nn.functional.cosine_similarity
    assert torch.allclose(cosine(start, way[:, 2]), cosine(way[:, 2], end), atol=1e-5)


def test_between_equal_and_opposite_latents():
    z = torch.tensor([[3.0, 4.0]])
    assert torch.allclose(interpolate(z, z, TIMES), z.expand(4, 2)[None])
    assert torch.allclose(interpolate(z, -z, [0.5]), torch.zeros(1, 1, 2))
    assert torch.allclose(interpolate(z, 0 * z, [0.5]), 0.5 * z[None])


def test_a_sampler_that_moves_nothing():
    latents = torch.arange(12.0).reshape(6, 2)
    sampled = Given(latents).sample(None, torch.zeros(2, 2, dtype=torch.float64), noise=RandomStreams(0, 3))
    assert sampled.z.tolist() == [[6.0, 7.0], [8.0, 9.0]]
    assert sampled.z.dtype == torch.float64
    assert sampled.status.tolist() == [Status.OK] * 2
    assert sampled.evaluations.sum() == 0


def test_given_latents_do_not_fill_the_provenance():
    assert repr(Given(torch.zeros(1000, 1000))) == "Given()"
