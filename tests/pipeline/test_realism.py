"""Realism: the discriminator of a generator as one more term of the energy."""

import dataclasses

import numpy as np
import pytest
import torch
from evaluation.lively import KNOWN, Plain, by_function, known_model, picture_model, read_plain
from torch import nn

from energyql import Model, generate, stream
from energyql.attributes.pictures import PictureBank
from energyql.attributes.predictions import YesNo
from energyql.energy.picture_energy import PictureEnergy
from energyql.errors import ArgumentError, DataError, ModelError
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import open_session
from energyql.sampling import prior_latents
from energyql.sampling.langevin import LangevinSampler


@pytest.fixture(scope="module")
def model():
    return picture_model()


@pytest.fixture(scope="module")
def known():
    """Heads on z, and a discriminator."""
    return dataclasses.replace(known_model(), discriminator=First())


class First(nn.Module):
    """A discriminator to which pictures look the more real, the larger the first number of z."""

    def forward(self, pictures):
        return 4 * torch.atanh(pictures[:, 0, 0, :1])


class TestRealism:
    def test_the_posterior_is_that_of_the_sum(self):
        """N(0, 1) exp(z) is N(1, 1), up to the ceiling that the pilot sets."""
        model = by_function(discriminator=First())
        plain = generate("NOT b", 200, model=model, sampler="slice", progress=False)
        real = generate("NOT b", 200, model=model, sampler="slice", realism=1.0, progress=False)
        assert abs(plain.z[:, 0].mean()) < 0.25
        assert 0.75 < real.z[:, 0].mean() < 1.2
        assert (real.z[:, 1] < 1.5).float().mean() > 0.99
        assert real.provenance["realism"] == 1.0
        assert "realism" not in plain.provenance
        assert real.statistics["generator_calls_mean"] > 1
        assert np.allclose(real.energy, -np.log(real.probabilities["b"] * 0 + 1 - real.probabilities["b"]), atol=1e-5)

    def test_langevin_steps_of_the_paper(self, known):
        sampler = LangevinSampler(step=0.05, steps=60)
        real = generate("c OR NOT c AND a", 40, model=known, sampler=sampler, realism=2.0, progress=False)
        assert 1.5 < real.z[:, 0].mean() < 2.4

    def test_heads_and_a_network_take_part_alike(self, known, model):
        energies = []
        for one in (known, dataclasses.replace(model, discriminator=lambda pictures: pictures.mean((1, 2, 3)))):
            name = "a" if one is known else "smile"
            plain, real = (
                plan_query(open_session(one, "cpu"), name, sampler="slice", realism=r).energy for r in (0.0, 3.0)
            )
            z = prior_latents(0, 0, 6, one.generator.z_dim)
            w = one.generator.encode(z, one.truncation)
            logits = one.discriminator(one.generator.synthesize(w)).reshape(-1)
            assert torch.allclose(real(z) - plain(z) + 3 * logits, (real(z) - plain(z) + 3 * logits)[:1], atol=1e-3)
            slope = real.gradient(z)[1] - plain.gradient(z)[1]
            variable = z.clone().requires_grad_()
            drawn = one.generator.synthesize(one.generator.encode(variable, one.truncation))
            (own,) = torch.autograd.grad(one.discriminator(drawn).sum(), variable)
            assert torch.allclose(slope, -3 * own, atol=1e-2)
            energies.append(real)
        assert all(isinstance(energy, PictureEnergy) for energy in energies)

    def test_refusals(self, tiny, known, model, tmp_path):
        with pytest.raises(ArgumentError, match="realism needs a discriminator, and model 'tiny' has none"):
            generate("smile", 2, model=tiny, realism=1.0, sampler="slice", progress=False)
        for name in ("slice+descent", "ode", "published-ode"):
            with pytest.raises(ArgumentError, match="goes where the energy is lowest.*\n.*slice, langevin"):
                generate("a", 2, model=known, realism=1.0, sampler=name, progress=False)
        for wrong in (-1.0, float("nan")):
            with pytest.raises(ArgumentError, match="realism must be"):
                generate("a", 2, model=known, realism=wrong, progress=False)
        vector = dataclasses.replace(known, discriminator=lambda pictures: pictures.mean((2, 3)))
        with pytest.raises(ArgumentError, match=r"the discriminator returned \(.*, 3\) for"):
            generate("a", 2, model=vector, realism=1.0, sampler="slice", progress=False)
        for critic, message in [
            (lambda pictures: None, "the discriminator returned NoneType for"),
            (lambda pictures: pictures.mean((1, 2, 3)) / 0, "the discriminator returned (inf|nan) for pictures"),
            (3, "has none"),
        ]:
            with pytest.raises(ArgumentError, match=message):
                broken = dataclasses.replace(known, discriminator=critic)
                generate("a", 2, model=broken, realism=1.0, sampler="slice", progress=False)
        with pytest.raises(ModelError, match="the discriminator is code"):
            dataclasses.replace(model, discriminator=First()).save_pretrained(tmp_path / "m")

    def test_a_lost_gradient_is_no_gradient_of_zero(self, known):
        lost = dataclasses.replace(known, discriminator=lambda pictures: First()(pictures.detach()))
        with pytest.raises(ArgumentError, match="no way through the discriminator\nremove detach"):
            generate("a", 2, model=lost, realism=1.0, sampler="langevin", progress=False)
        double = dataclasses.replace(known, discriminator=lambda pictures: First()(pictures).double())
        assert len(generate("a", 2, model=double, realism=1.0, sampler="slice", progress=False)) == 2

        def half(pictures):  # of two attributes one is cut off
            found = read_plain(pictures)
            return {"a": YesNo(4 * torch.atanh(pictures[:, 0, 0, 0])), "b": found["b"]}

        model = Model("half", Plain(), PictureBank(half, type(KNOWN)([KNOWN["a"], KNOWN["b"]]), gradient=True))
        with pytest.raises(ArgumentError, match="no way through the reader of 'b'"):
            generate("a AND b", 2, model=model, sampler="langevin", progress=False)

    def test_a_run_is_continued_with_the_same_realism_only(self, known, tmp_path):
        options = {"model": known, "sampler": "slice", "out": tmp_path, "progress": False}
        list(stream("a", 2, **options))
        with pytest.raises(DataError, match="a run of another realism: 0.0, not 2"):
            list(stream("a", 4, realism=2.0, **options))
        other = dataclasses.replace(known, discriminator=lambda pictures: pictures.mean((1, 2, 3)))
        folder = tmp_path / "real"
        list(stream("a", 2, realism=2.0, **options | {"out": folder}))
        with pytest.raises(DataError, match="a run of another discriminator"):
            list(stream("a", 4, realism=2.0, **options | {"out": folder, "model": other}))
