"""Statistics of pictures, which linear readers read beside the layers of a backbone."""

import pytest
import torch

from energyql.attributes.statistics import CELLS, LEVELS, REGIONS, SIDE, SIZES, picture_statistics


def kinds(images):
    return picture_statistics(images).split(SIZES, 1)


def plain(*colour):
    return torch.tensor(colour)[None, :, None, None].expand(1, 3, SIDE, SIDE)


def test_a_plain_picture_has_its_colour_and_nothing_else():
    saturation, contrast, texture, excess, whole, regions = kinds(plain(0.5, -0.5, -1.0))
    assert saturation.allclose(torch.tensor(1.5))
    assert contrast.max() < 1e-3
    assert texture.max() == 0
    assert excess.unflatten(1, (3, -1)).mean((0, 2)).allclose(torch.tensor([1.0, -1.0, -1.5]))
    # Red is halfway between the middle and the highest level, green between the lowest and the middle; blue is lowest.
    found = whole.unflatten(1, (LEVELS,) * 3)[0]
    assert found[1:, :2, 0].allclose(torch.tensor(0.25))
    assert float(found.sum()) == pytest.approx(1)
    assert regions.unflatten(1, (LEVELS**3, REGIONS**2)).allclose(whole[:, :, None])


def test_contrast_and_texture_are_told_apart_and_stay_where_they_are():
    rows = torch.arange(SIDE)[:, None].expand(SIDE, SIDE)
    stripes = torch.where(rows % 2 == 0, 0.4, -0.4)
    ramp = torch.linspace(-0.7, 0.7, SIDE // CELLS).repeat(CELLS).expand(SIDE, SIDE)
    left = torch.arange(SIDE) < SIDE // 2
    for picture, steep in ((stripes, True), (ramp, False)):
        _, contrast, texture, *_ = kinds(torch.where(left, picture, 0.0).expand(1, 3, SIDE, SIDE))
        contrast, texture = (each.unflatten(1, (CELLS, CELLS)) for each in (contrast, texture))
        assert (contrast[..., : CELLS // 2] > 0.3).all()
        assert contrast[..., CELLS // 2 :].max() < 1e-3
        assert bool((texture[..., : CELLS // 2 - 1] > 0.5).all()) is steep


def test_the_bits_of_a_picture_are_the_same_in_any_batch():
    images = torch.rand(9, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    together = picture_statistics(images)
    assert together.shape == (9, sum(SIZES))
    for rows in (slice(0, 1), slice(3, 5), slice(8, 9)):
        assert torch.equal(picture_statistics(images[rows]), together[rows])
