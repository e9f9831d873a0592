"""Pictures, what is read off them, and energies have the same bits with any number of threads."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from dataset.plans import files, write
from toys import random_generator, tiny_model

from energyql import DatasetClass, DatasetPlan, generate
from energyql.attributes.judge import Judge
from energyql.generators.fastgan import FastGAN, FastGANConfig
from energyql.generators.r3gan import R3GAN, R3GANConfig
from energyql.generators.stylegan2 import StyleGAN2Config
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config
from energyql.numerics.pool import always_in_pool
from energyql.pipeline.model import load_model
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import open_session
from energyql.sampling.langevin import LangevinSampler
from energyql.vocabulary import AttributeSpec, Vocabulary

NUMBERS = (1, 2, 4)
STYLEGAN2 = {"resolution": 64, "z_dim": 6, "w_dim": 10, "mapping_layers": 3, "channel_base": 2048, "channel_max": 40}
STYLEGAN3 = {"resolution": 32, "z_dim": 6, "w_dim": 10, "channel_base": 1024, "channel_max": 40, "num_layers": 6}
FAMILIES = {
    "stylegan2": lambda: random_generator(StyleGAN2Config(**STYLEGAN2)),
    "stylegan2-resnet": lambda: random_generator(StyleGAN2Config(**STYLEGAN2, architecture="resnet")),
    "stylegan3-t": lambda: StyleGAN3(StyleGAN3Config(**STYLEGAN3)),
    "stylegan3-r": lambda: StyleGAN3(StyleGAN3Config(**STYLEGAN3, conv_kernel=1, use_radial_filters=True)),
    "fastgan": lambda: FastGAN(FastGANConfig(z_dim=16, widths=(64, 48, 32, 24), layers=(2, 1, 2))),
    "r3gan": lambda: R3GAN(R3GANConfig(z_dim=64, widths=(64, 64, 64), groups=(8, 8, 8), blocks=(2, 2, 2))),
}


@pytest.fixture(autouse=True)
def threads():
    """Set the number of threads of torch for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def family(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = FAMILIES[name]().eval().requires_grad_(False)
        for parameter in generator.parameters():
            if not parameter.any() and parameter.ndim == 4:
                torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return generator


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_pictures(name, count, threads):
    threads(1)
    generator = family(name)
    w = generator.encode(torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(0)))
    drawn = []
    for number in NUMBERS:
        threads(number)
        with always_in_pool(count == 1):
            drawn.append(family(name).synthesize(w))  # a new network, which packs its weights with these threads
    assert drawn[0].std() > 0.01
    assert all(torch.equal(pictures, drawn[0]) for pictures in drawn)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17, 33])
def test_what_a_judge_reads(count, threads):
    judge = Judge(Vocabulary([AttributeSpec("smile", "yes/no")])).eval().requires_grad_(False)
    pictures = torch.randn(count, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    features = []
    for number in NUMBERS:
        threads(number)
        with torch.no_grad():
            features.append(judge.features(pictures))
            assert torch.equal(torch.cat([judge.features(one) for one in pictures[:2].split(1)]), features[-1][:2])
    assert all(torch.equal(one, features[0]) for one in features)


def test_energies_of_many_latents(tiny, threads):
    query = plan_query(open_session(tiny, "cpu"), "smile AND glasses AND NOT beard")
    z = torch.randn(2500, query.model.generator.z_dim, generator=torch.Generator().manual_seed(0))
    results = []
    for number in NUMBERS:
        threads(number)
        results.append((query.energy(z), *query.energy.gradient(z)))
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def test_whole_results(threads):
    results = []
    for number in NUMBERS:
        threads(number)
        results.append(generate("smile", 5, seed=4, device="cpu", progress=False))
    for result in results[1:]:
        assert all(map(np.array_equal, result.images, results[0].images))
        assert np.array_equal(result.energy, results[0].energy)
        assert all(np.array_equal(result.judged[name], values) for name, values in results[0].judged.items())


def test_a_process_with_two_threads_writes_the_data_set_of_workers(tmp_path, threads):
    plan = DatasetPlan(seed=2, shard_size=6, classes=[DatasetClass(name="one", query="smile", count=6)])
    for number in (1, 2):  # a worker of `--workers` has one thread
        threads(number)
        write(plan, tmp_path / str(number))
    assert files(tmp_path / "1") == files(tmp_path / "2")


class Watched:
    """Code of a user, which no other thread may call: it notes where it is called."""

    def __init__(self, code):
        self.code, self.threads = code, set()

    def __getattr__(self, name):
        return getattr(self.code, name)

    def encode(self, z, truncation=1.0):
        self.threads.add(threading.get_ident())
        return self.code.encode(z, truncation)

    def synthesize(self, w):
        self.threads.add(threading.get_ident())
        return w[:, :3, None, None].expand(-1, -1, 16, 16).clamp(-1, 1)

    def judge(self, pictures):
        self.threads.add(threading.get_ident())
        return {"smile": pictures.mean((1, 2, 3)) > 0}


def test_code_of_a_user_is_called_by_the_thread_of_its_caller(tiny, threads):
    threads(2)
    model = load_model(tiny)
    watched = Watched(model.generator)
    generate("smile", 20, model=replace(model, generator=watched, judge=watched.judge), device="cpu", progress=False)
    assert watched.threads == {threading.get_ident()}


def test_a_discriminator_has_all_threads(tmp_path, threads):
    numbers = set()

    def discriminator(pictures):
        numbers.add(torch.get_num_threads())
        return pictures.mean((1, 2, 3))

    model = replace(load_model(tiny_model(tmp_path / "a")), discriminator=discriminator)
    threads(2)
    generate(
        "smile", 2, model=model, sampler=LangevinSampler(steps=2), realism=1.0, allow_weak=["smile"], progress=False
    )
    assert numbers == {2}
