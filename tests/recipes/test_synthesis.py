import dataclasses

import pytest
import torch

from energyql.generators.stylegan2 import SynthesisNetwork
from recipes.avatars.domain import DOMAIN, face_weights
from recipes.common import synthesis
from recipes.common.domain import Stage
from recipes.common.factors import Factors
from recipes.common.make import assemble
from recipes.common.mapping import embedding
from recipes.common.sharpness import compare
from recipes.common.synthesis import Trainer, picture_loss
from recipes.postcards.domain import DOMAIN as POSTCARDS

TINY = Stage(32, 4, 1e-2, 0.5)
NARROW = dataclasses.replace(DOMAIN, config=dataclasses.replace(DOMAIN.config, channel_max=16))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(synthesis, "SAVED_EVERY", 2)
    monkeypatch.setattr(synthesis, "HELD_OUT", 24)


def weights(trainer):
    return torch.cat([value.flatten() for value in trainer.averaged().parameters()])


@pytest.mark.slow
def test_an_interrupted_stage_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    whole = Trainer(NARROW, tmp_path / "whole", TINY)
    whole.run()
    parts = Trainer(NARROW, tmp_path / "parts", TINY)
    train = parts._train

    def interrupted(generator):
        if parts.step == 3:
            raise KeyboardInterrupt
        return train(generator)

    monkeypatch.setattr(parts, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        parts.run()
    again = Trainer(NARROW, tmp_path / "parts", TINY)
    again.run()
    assert torch.equal(weights(again), weights(whole))
    assert (tmp_path / "parts" / "synthesis32.png").is_file()


@pytest.mark.slow
def test_a_stage_starts_from_the_pictures_of_the_one_before(tmp_path):
    coarse = Trainer(NARROW, tmp_path, TINY)
    coarse.run()
    fine = Trainer(NARROW, tmp_path, Stage(64, 1, 1e-2, 0.5), start=coarse.averaged().state_dict())
    _, scenes = coarse.render(8, torch.Generator().manual_seed(1))
    w = scenes.code @ coarse.embedding.T
    small = coarse.averaged()(w, "none")
    grown = torch.nn.functional.avg_pool2d(fine.averaged()(w, "none"), 2)
    assert (grown - small).abs().mean() < 0.35 * small.std()


@pytest.mark.parametrize("domain", [DOMAIN, POSTCARDS], ids=lambda domain: domain.name)
def test_stages_double_up_to_the_side_of_the_model(domain):
    sides = [stage.side for stage in domain.stages]
    assert sides == [32 * 2**i for i in range(len(sides))]
    assert sides[-1] == domain.config.resolution


def test_sharp_lines_cost_less_than_soft_ones():
    line = torch.zeros(1, 3, 32, 32)
    line[..., 15:17] = 1
    soft = torch.nn.functional.avg_pool2d(line, (1, 3), stride=1, padding=(0, 1))
    fainter = line / 3
    assert (soft - line).abs().mean().item() == pytest.approx((fainter - line).abs().mean().item())
    ones = torch.ones(1, 1, 32, 32)
    assert picture_loss(line, line, ones) == 0
    assert picture_loss(soft, line, ones) > 2.5 * (soft - line).abs().mean()
    assert compare(soft, line).energy.item() < 0.3
    assert face_weights(64).mean().item() == pytest.approx(1)


def test_the_assembled_generator_draws_what_the_network_learned():
    torch.manual_seed(0)
    small = dataclasses.replace(NARROW, config=dataclasses.replace(NARROW.config, resolution=32))
    network = SynthesisNetwork(small.config).requires_grad_(False)
    z = torch.randn(4, small.config.z_dim, generator=torch.Generator().manual_seed(2))
    expected = network(Factors(small)(z).code @ embedding(small)[:, : small.code_dim].T, "none")
    generator = assemble(small, network)
    assert (generator.synthesize(generator.encode(z)) - expected).abs().max() < 0.05 * expected.std()
