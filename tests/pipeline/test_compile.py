"""`compile=True`: energy and pictures are traced as one program each, and are those of eager code up to rounding."""

import pytest
import torch
from evaluation.lively import Plain, known_model
from torch.testing import assert_close
from toys import VOCABULARY, random_generator

import energyql
from energyql import ArgumentError, Model
from energyql.attributes.judge import Convolutions, Judge
from energyql.attributes.pictures import PictureBank
from energyql.energy.rule import SEMANTICS
from energyql.generators.fastgan import FastGAN, FastGANConfig
from energyql.generators.r3gan import R3GAN, R3GANConfig
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config
from energyql.numerics.compiled import compiled
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import open_session
from energyql.pipeline.settings import DrawSettings

QUERY = "smile AND NOT beard"
compile_for_real = torch.compile


@pytest.fixture
def backend(monkeypatch):
    """Return a function that makes `torch.compile` use a backend in place of one whose C++ compiler takes minutes."""
    torch._dynamo.reset()

    def use(backend):
        monkeypatch.setattr(torch, "compile", lambda own, **options: compile_for_real(own, backend=backend, **options))

    use("eager")
    return use


def programs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def close(one, other):
    assert_close(one, other, atol=1e-4, rtol=1e-4)


FAMILIES = {
    "stylegan2": random_generator,
    "stylegan3": lambda: StyleGAN3(
        StyleGAN3Config(resolution=16, z_dim=8, w_dim=16, num_layers=3, num_critical=1, channel_base=64, channel_max=6)
    ),
    "fastgan": lambda: FastGAN(FastGANConfig(z_dim=8, widths=(6, 4, 3), layers=(2, 1))),
    "r3gan": lambda: R3GAN(R3GANConfig(z_dim=8, widths=(6, 4), groups=(3, 2), blocks=(2, 1))),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("backend")
def test_pictures_of_every_family(family):
    torch.manual_seed(0)
    generator = FAMILIES[family]().eval().requires_grad_(False)
    draw = compiled(generator.synthesize, "the pictures")
    with torch.inference_mode():  # as in a run
        w = generator.encode(torch.randn(7, generator.z_dim))
        close(draw(w), generator.synthesize(w))
        before = programs()
        close(draw(w[:1]), generator.synthesize(w[:1]))
        close(draw(w[:2]), generator.synthesize(w[:2]))
    assert draw(w[:0]).shape == generator.synthesize(w[:0]).shape
    assert programs() == before


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("semantics", list(SEMANTICS))
def test_energies_with_gradients(tiny, semantics):
    prepared = plan_query(open_session(tiny, "cpu"), QUERY, semantics=semantics, compile=True)
    before, energy = programs(), prepared.energy
    z = torch.randn(11, 8)
    expected, slope = prepared.energy_in_float32.gradient(z)
    for count in (11, 5, 1, 0):
        values, gradient = energy.gradient(z[:count])
        close(values, expected[:count])
        close(gradient, slope[:count])
        with torch.inference_mode():
            close(energy(z[:count]), expected[:count])
    assert programs() == before + 1


@pytest.mark.usefixtures("backend")
def test_a_run(tiny):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)  # other steps of a run use the pool
        options = {"model": tiny, "sampler": "slice", "progress": False}
        eager, other = (energyql.generate(QUERY, 5, compile=compile, **options) for compile in (False, True))
    finally:
        torch.set_num_threads(threads)
    close(other.z, eager.z)
    assert other.energy == pytest.approx(eager.energy, abs=1e-3)
    assert other.provenance["compile"] is True and "compile" not in eager.provenance


def read_model():
    """A model whose attributes a network reads off pictures; networks that draw are compiled above."""
    torch.manual_seed(0)
    guide = Judge(VOCABULARY, Convolutions(4, (4,))).eval().requires_grad_(False)
    return Model("read", Plain(), PictureBank(guide))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("make", "query"), [(known_model, "a OR n > 1"), (read_model, "smile")])
def test_code_of_users_and_readers(make, query):
    model = make()
    before = programs()
    result = energyql.generate(query, 2, model=model, sampler="slice", compile=True, progress=False)
    assert len(result.images) == 2
    assert programs() > before


def scaled(factor):
    return compiled(lambda x: factor * x, "numbers")


@pytest.mark.usefixtures("backend")
def test_any_number_of_programs_at_a_time():
    functions = [scaled(k / 7) for k in range(12)]
    for k, function in [*enumerate(functions), *enumerate(functions)]:
        assert_close(function(torch.ones(3)), torch.full((3,), k / 7))


class Branching(torch.nn.Module):
    """A generator whose code looks at its numbers."""

    z_dim = 4

    def encode(self, z, truncation=1.0):
        return truncation * z

    def synthesize(self, w):
        if w.sum().item() > 0:
            w = -w
        return w[:, None, None].expand(-1, 3, 4, -1)


def test_what_cannot_be_compiled(backend, monkeypatch):
    known = known_model()
    model = Model("branching", Branching(), known.bank)
    message = "torch .* cannot compile the pictures of a Branching: (.|\n)*may not branch on numbers of tensors"
    with pytest.raises(ArgumentError, match=message):
        energyql.generate("a", 1, model=model, compile=True, progress=False)

    def failing(graph, inputs):
        raise RuntimeError("No working C++ compiler found")

    backend(failing)
    message = "cannot compile the energy: No working C.. compiler found\n.*needs a C.. compiler .*leave out compile"
    with pytest.raises(ArgumentError, match=message):
        plan_query(open_session(known, "cpu"), "a", compile=True).energy(torch.randn(2, 4))
    with monkeypatch.context() as patch:
        patch.delattr(torch.compiler, "is_compiling")
        with pytest.raises(ArgumentError, match=r"torch .* cannot compile numbers\ninstall torch 2.3 or later"):
            scaled(1)

    def unsupported(*_, **__):
        raise RuntimeError("Dynamo is not supported on Python 3.99+")

    monkeypatch.setattr(torch, "compile", unsupported)
    with pytest.raises(ArgumentError, match="cannot compile numbers: Dynamo is not supported on Python 3.99"):
        scaled(1)


def test_settings():
    with pytest.raises(ArgumentError, match="compile is true or false, not 'yes'"):
        DrawSettings(compile="yes")
    with pytest.raises(ArgumentError, match="a compiled energy is in float32\nleave out precision, or compile"):
        DrawSettings(compile=True, precision="bfloat16")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, as it imports its compiler
def test_with_a_compiler(tiny):
    prepared = plan_query(open_session(tiny, "cpu"), QUERY, compile=True)
    z = torch.randn(11, 8)
    for one, other in zip(prepared.energy.gradient(z), prepared.energy_in_float32.gradient(z), strict=True):
        close(one, other)
    w = prepared.encode(z)
    with torch.inference_mode():
        close(prepared.synthesize(w), prepared.model.generator.synthesize(w))
