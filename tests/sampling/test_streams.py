import torch

from energyql.sampling import RandomStreams, normals

LIKE = torch.zeros(4, 3)


def test_numbers_belong_to_samples():
    noise = RandomStreams(seed=3, start=10)
    drawn = noise.normals(LIKE, "a")
    assert torch.equal(drawn, normals(3, 10, 4, 3, stream="a"))
    assert torch.equal(RandomStreams(3, 12).normals(LIKE[:2], "a"), drawn[2:])
    assert torch.equal(RandomStreams(3, 11).uniforms(LIKE[:1], 5, "u"), noise.uniforms(LIKE, 5, "u")[1:2])


def test_streams_and_parts_are_independent():
    noise = RandomStreams()
    streams = [noise.normals(LIKE, "a"), noise.normals(LIKE, "b"), noise.part("b").normals(LIKE, "a")]
    streams += [noise.part("b").part("c").normals(LIKE, "a"), RandomStreams(seed=1).normals(LIKE, "a")]
    for i, one in enumerate(streams):
        assert all(not torch.equal(one, other) for other in streams[i + 1 :])


def test_some_rows():
    like, noise = torch.zeros(50, 7), RandomStreams(seed=5, start=3)
    for rows in ([], [0], [49], [3, 4, 11, 48], list(range(50))):
        chosen = torch.tensor(rows, dtype=torch.int64)
        assert torch.equal(noise.normals(like, "a", chosen), noise.normals(like, "a")[chosen])
        assert torch.equal(noise.uniforms(like, 2, "u", chosen), noise.uniforms(like, 2, "u")[chosen])


def test_several_of_a_row():
    like, noise = torch.zeros(9, 5), RandomStreams(seed=5, start=3)
    numbers = torch.arange(4).expand(9, -1)
    every = noise.several_normals(like, "a", torch.arange(9), numbers, of=4)
    assert every.shape == (9, 4, 5)
    assert every.unique().numel() == every.numel()
    chosen = torch.tensor([0, 1, 5, 8])
    assert torch.equal(noise.several_normals(like, "a", chosen, numbers[:4, 1:3], of=4), every[chosen, 1:3])
    assert torch.equal(
        RandomStreams(5, 10).several_normals(like[:2], "a", torch.arange(2), numbers[7:], of=4), every[7:]
    )
    others = torch.tensor([[3], [0], [1], [1]])
    assert torch.equal(noise.several_normals(like, "a", chosen, others, of=4)[:, 0], every[chosen, others[:, 0]])
