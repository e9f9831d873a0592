"""Every call runs on a device other than the CPU: nothing mixes devices, and numbers are nearly those of the CPU."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation.lively import known_model, picture_model, silent
from PIL import Image
from torch.testing import assert_close
from toys import CONFIG, VOCABULARY, lively_judge, random_generator, random_heads

import energyql
from benchmarks.emulated import DEVICE, MISSING, emulated
from energyql import DatasetClass, DatasetPlan, Model, load_model
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import JointJudge
from energyql.editing.settings import PRESETS, InversionSettings
from energyql.energy.rule import SEMANTICS
from energyql.evaluation.evaluate import evaluate
from energyql.generators.fastgan import FastGAN, FastGANConfig
from energyql.generators.r3gan import R3GAN, R3GANConfig
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import open_session
from energyql.sampling import SAMPLERS, DescentSampler
from energyql.training.directions import draw_directions, find_directions
from energyql.training.heads import HeadSettings, train_heads
from energyql.training.judge import train_judge
from energyql.training.labelled import Labelled
from energyql.training.picture_fit import PictureSettings, fit_network
from energyql.training.run import train_attributes
from energyql.training.steps import Course
from energyql.vocabulary import AttributeSpec, Vocabulary

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
QUERY, RARE = "smile AND NOT beard", "smile AND glasses AND beard AND 0.6 < age < 0.7 AND hair = brown"


@pytest.fixture(autouse=True)
def log():
    """The device; every test does something on it."""
    with warnings.catch_warnings(), emulated() as log:
        warnings.simplefilter("ignore", UserWarning)  # of torch, about copies between devices
        yield log
    assert log.launches


@pytest.fixture(scope="module")
def model(tiny):
    """A model that stays on the device on which a test has left it."""
    loaded = load_model(tiny)
    judge = lively_judge(loaded.generator)
    return Model("tiny", loaded.generator, loaded.bank, judge, loaded.truncation)


def draw(model, query=QUERY, n=2, **settings):
    return energyql.generate(query, n, model=model, device=DEVICE, progress=False, **settings)


def short(name):
    """A sampler of fewer steps, since every operation on the device takes a twentieth of a millisecond."""
    sampler = SAMPLERS[name]()
    fewer = {"steps": 21 if "predictor" in name else 5, "max_evaluations": 12} if "+" not in name else {}
    return replace(sampler, **{key: most for key, most in fewer.items() if getattr(sampler, key, 0) > most})


class TestDevice:
    def test_what_cuda_refuses_is_refused(self):
        there, here = torch.ones(3, device=DEVICE), torch.ones(3)
        for mix in (lambda: there + here, lambda: here[there.long()], lambda: torch.cat([here, there])):
            with pytest.raises(RuntimeError, match="same device"):
                mix()
        for early in (there.numpy, lambda: np.asarray(there)):
            with pytest.raises(TypeError, match="numpy"):
                early()
        with pytest.raises(RuntimeError, match="generator"):
            torch.randn(3, generator=torch.Generator(), device=DEVICE)
        assert (there + torch.tensor(1.0)).tolist() == [2, 2, 2]

    def test_kernels_transfers_and_waits_are_counted(self, log):
        x = torch.arange(6.0).to(DEVICE)
        assert (log.transfers, log.launches, log.waits) == (1, 0, 0)
        y = x.view(2, 3).t() * 2
        assert (log.launches, log.operations, log.waits) == (1, 3, 0)
        for number, wait in enumerate(
            (y.cpu, lambda: bool(y[0, 0] > 1), y.tolist, y.nonzero, lambda: y[y > 1], lambda: float(y.sum())), start=1
        ):
            wait()
            assert log.waits == number
        assert log.lines("wait") == [("elsewhere", 6)]
        assert log.milliseconds(5, 15) == pytest.approx((5 * (log.launches + 1) + 15 * 6) / 1000)

    def test_lines_of_the_package_are_named(self, log, model):
        model.to(DEVICE).bank.predict(torch.zeros(2, 16, device=DEVICE))
        assert any(line.startswith("numerics/linear.py:") for line, _ in log.lines("launch", 20))


class TestSampling:
    @pytest.mark.parametrize("sampler", sorted(SAMPLERS))
    def test_every_sampler(self, model, sampler):
        result = draw(model, sampler=short(sampler))
        assert result.z.device.type == "cpu"
        with torch.no_grad():
            read = model.to("cpu").bank.predict(result.w)
        assert read["smile"].probability([True]).numpy() == pytest.approx(result.probabilities["smile"], abs=1e-4)
        assert len(result.images) == 2

    @pytest.mark.parametrize("sampler", ["slice+descent", "langevin"])
    def test_the_latents_are_those_of_the_cpu(self, model, sampler):
        there, here = (
            next(energyql.sample_latents(QUERY, 8, model=model, sampler=short(sampler), device=device, progress=False))
            for device in (DEVICE, "cpu")
        )
        apart = (there.z.cpu() - here.z).abs().amax(1)
        assert (apart < 1e-3).sum() >= 7, apart  # after 50 steps of a descent, rounding may decide where one ends

    @pytest.mark.parametrize(
        "query",
        [
            "smile OR beard",
            "EXACTLY 2 OF (smile, glasses, beard, hair = brown)",
            "NOT (2 * (smile OR beard)) AND 3 * (0.4 < age < 0.6 XOR glasses)",
        ],
    )
    def test_energies_and_gradients_are_those_of_the_cpu(self, model, query):
        z = torch.linspace(-2, 2, 5 * CONFIG.z_dim).view(5, -1)
        there, here = (
            plan_query(open_session(model, device), query, verify="off").energy.gradient(z.to(device))
            for device in (DEVICE, "cpu")
        )
        for found, expected in zip(there, here, strict=True):
            assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)

    def test_steps_to_a_minimum_are_those_of_the_cpu(self):
        def valley(z):
            return (z.square() * torch.arange(1.0, 6.0, device=z.device)).sum(1)

        start, sampler = torch.linspace(-4, 4, 30).view(6, 5), DescentSampler(enough=None, max_evaluations=6)
        there, here = (sampler.sample(valley, start.to(device)) for device in (DEVICE, "cpu"))
        assert_close(there.z.cpu(), here.z, rtol=0, atol=1e-3)

    @pytest.mark.parametrize(("sampler", "most"), [("ode", 8), ("langevin", 4)])
    def test_the_device_is_waited_for_seldom(self, model, log, sampler, most):
        model = model.to(DEVICE)
        before, settings = log.waits, short(sampler)
        settings = replace(settings, steps=17) if sampler == "langevin" else settings  # more than between two looks
        list(energyql.sample_latents(QUERY, 4, model=model, sampler=settings, device=DEVICE, progress=False))
        assert log.waits - before <= most, log.lines("wait", 20)

    @pytest.mark.parametrize("semantics", list(SEMANTICS))
    def test_every_semantics(self, model, semantics):
        result = draw(model, n=1, semantics=semantics, sampler=short("langevin" if semantics == "jem" else "slice"))
        assert np.isfinite(result.energy).all()

    def test_rare_queries(self, model):
        options = {"model": model, "sampler": "slice", "device": DEVICE, "progress": False}
        assert len(next(energyql.sample_latents(RARE, 1, **options)).z) == 1

    @pytest.mark.parametrize("settings", [{"precision": "bfloat16"}, {"noise": "random"}, {"noise": "none"}])
    def test_settings(self, model, settings):
        assert draw(model, n=1, sampler="slice", **settings).probabilities["smile"].shape == (1,)

    def test_realism(self, model):
        critic = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 1))
        critical = replace(model, discriminator=critic)
        assert len(draw(critical, n=1, sampler=short("langevin"), realism=1.0).z) == 1

    def test_streams_and_repeated_draws(self, model):
        options = {"model": model, "device": DEVICE, "sampler": "slice", "progress": False}
        assert sum(len(part.images) for part in energyql.stream(QUERY, 3, batch_size=2, **options)) == 3
        energyql.until_satisfied("smile", 1, **options)

    @pytest.mark.parametrize("verify", ["sure", "faithful"])
    def test_verified_pictures(self, verify):
        known = known_model(shift=-0.9)
        result = draw(known, "b AND c", 3, verify=verify, attempts=256)
        assert result.statistics["accepted"] == 3

    def test_pictures_verified_by_networks(self, model):
        verified = replace(model, verifier=JointJudge([lively_judge(model.to("cpu").generator, seed=2)]))
        result = draw(verified, "smile", 2, verify="sure", sampler="slice", purity=0.5, attempts=8)
        assert result.statistics["drawn"] >= 2


class Painter(torch.nn.Module):
    """A user's module: no mapping network, weights of its own."""

    z_dim = 8

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(8))

    def encode(self, z, truncation=1.0):
        return truncation * z @ self.weight

    def synthesize(self, w):
        return torch.tanh(w)[:, None, None].expand(-1, 3, 8, -1)


class TestModels:
    @pytest.mark.parametrize("family", ["stylegan3", "fastgan", "r3gan", "a module of a user"])
    @pytest.mark.parametrize("space", ["w", "z"])
    def test_other_generators(self, family, space):
        generator = MODULES[family]().eval().requires_grad_(False)
        size = generator.z_dim if space == "z" else len(generator.encode(torch.zeros(1, generator.z_dim))[0])
        bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, size), fitted=FittedUnder(space))
        assert len(draw(Model("other", generator, bank), n=2, sampler=short("slice")).images) == 2

    def test_a_class(self):
        generator = random_generator(replace(CONFIG, c_dim=3))
        bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, CONFIG.w_dim), fitted=FittedUnder(condition=1))
        assert len(draw(Model("classes", generator, bank), n=1, sampler="slice", condition=1).images) == 1

    def test_functions_of_a_user(self):
        assert draw(known_model(), "a OR n > 1", 2).satisfied is not None

    @pytest.mark.parametrize("sampler", ["slice+descent", pytest.param("slice", marks=pytest.mark.slow)])
    def test_attributes_that_are_read_off_pictures(self, sampler):
        assert draw(picture_model(), "smile", 1, sampler=sampler).energy.shape == (1,)


MODULES = {
    "stylegan3": lambda: StyleGAN3(
        StyleGAN3Config(resolution=16, z_dim=8, w_dim=16, num_layers=3, num_critical=1, channel_base=64, channel_max=6)
    ),
    "fastgan": lambda: FastGAN(FastGANConfig(z_dim=8, widths=(6, 4, 3), layers=(2, 1))),
    "r3gan": lambda: R3GAN(R3GANConfig(z_dim=8, widths=(6, 4), groups=(3, 2), blocks=(2, 1))),
    "a module of a user": Painter,
}


class TestOtherCalls:
    def test_edits(self, model, log):
        quick = replace(PRESETS["default"], max_evaluations=3)
        edit = energyql.edit(
            5, ["smile", "hair = black"], n=1, model=model, preset=quick, device=DEVICE, progress=False
        )
        assert [len(step.images) for step in edit.steps] == [1, 1]
        lines = log.by_line.items()
        own = sum(count for (kind, line), count in lines if kind == "launch" and "sampling/descent" in line)
        looks = sum(count for (kind, line), count in lines if kind == "wait" and "sampling/base" in line)
        assert own <= 2600
        assert looks <= 14

    def test_an_edit_of_a_model_of_numbers(self, model):
        heads = {"age": model.bank.heads["age"]}
        bank = AttributeBank(Vocabulary([model.vocabulary["age"]]), heads, fitted=model.bank.fitted)
        few, quick = replace(model, bank=bank, judge=None), replace(PRESETS["default"], max_evaluations=3)
        edit = energyql.edit(5, "age > 0.6", n=1, model=few, preset=quick, device=DEVICE, progress=False)
        assert edit.steps[-1].w.isfinite().all()

    def test_inversion(self, model):
        picture = Image.new("RGB", (16, 16), "grey")
        settings = InversionSettings(z_evaluations=2, w_evaluations=2, candidates=4)
        for space in ("z", "w+"):
            found = energyql.invert(
                picture, model=model, settings=settings, space=space, anyway=True, device=DEVICE, progress=False
            )
            assert len(found.result.images) == 1

    def test_pages(self, model, tmp_path):
        options = {"model": model, "device": DEVICE, "progress": False}
        energyql.truth_table("smile", n=1, sampler="slice", **options).save(tmp_path / "table.html")
        energyql.traverse("smile", "beard", 2, n=1, sampler="slice", **options).save(tmp_path / "traversal.html")
        gallery = energyql.Gallery(**options, n=1, sampler="slice")
        gallery.add("hair = black")
        assert "hair" in gallery.to_html()

    def test_explanations_and_export(self, model):
        assert "smile" in str(energyql.explain(QUERY, model=model))
        module = energyql.export_energy(QUERY, model=model, device=DEVICE)
        z = torch.randn(4, 8)
        with torch.no_grad():
            energies = module(z.to(DEVICE)).cpu()
        assert_close(energies, energyql.export_energy(QUERY, model=model.to("cpu"), device="cpu")(z))

    def test_data_sets(self, tmp_path):
        plan = DatasetPlan(classes=[DatasetClass(name="c", query="c", count=5, model=known_model())], shard_size=3)
        energyql.write_dataset(plan, tmp_path / "data", device=DEVICE, progress=False)
        assert sum(1 for _ in (tmp_path / "data" / "shards").glob("*.tar")) == 2

    def test_evaluation(self, tmp_path):
        sizes = {"n": 4, "edits": 2, "prior": 100, "oracle": 30, "progress": silent}
        evaluate(["conditional-1"], out=tmp_path, model=known_model(), samplers=["slice"], device=DEVICE, **sizes)
        assert (tmp_path / "evaluation.md").is_file()


class TestTraining:
    SHORT = HeadSettings(steps=4, hidden=4, batch=16)

    @pytest.fixture
    def few_steps(self, monkeypatch):
        for name, value in (("picture_fit.WRITES", 2), ("judge.FRESH", 16)):
            monkeypatch.setattr(f"energyql.training.{name}", value)
        monkeypatch.setattr("energyql.training.judge.PictureSettings", lambda: PictureSettings(
            side=8, channels=(4, 8), least=64, most=64
        ))  # fmt: skip

    @pytest.mark.usefixtures("few_steps")
    def test_heads_and_judge(self, tmp_path):
        def bright(images):
            return {"bright": images[:, 0, 3, 3] > images[:, 0, 9, 9], "warm": images[:, 0].mean((1, 2))}

        options = {"device": DEVICE, "progress": False}
        generator, folder = random_generator(), tmp_path / "m"
        train_attributes(generator, bright, folder, n=80, settings=self.SHORT, judge=None, **options)
        assert list(load_model(folder).vocabulary) == ["bright", "warm"]
        assert train_judge(folder, bright, n=80, **options).verifier_report

    def test_a_step_waits_for_nothing(self, log, tmp_path, monkeypatch):
        """Waits are for checks and files, whose number does not grow with the steps."""
        monkeypatch.setattr("energyql.training.heads.CHECKS", 2)
        monkeypatch.setattr("energyql.training.picture_fit.WRITES", 2)
        vocabulary = Vocabulary([AttributeSpec("a", "yes/no"), AttributeSpec("n", "continuous", low=0, high=1)])
        labels = {"a": torch.arange(80) % 2.0, "n": torch.arange(80) / 80}
        latents = torch.randn(80, 4)
        pictures = torch.randint(0, 256, (80, 3, 8, 8), dtype=torch.uint8)

        def heads(steps, file):
            settings = HeadSettings(steps=steps, hidden=4, batch=16, patience=None)
            train_heads(Labelled(latents, labels, vocabulary), settings, Course(device=DEVICE, checkpoint=file))

        def judge(steps, file):
            settings = PictureSettings(side=8, channels=(4,), batch=4, least=4 * steps, most=4 * steps)
            fit_network(Labelled(pictures, labels, vocabulary), settings, Course(device=DEVICE, checkpoint=file))

        for fit in (heads, judge):
            counts = []
            for steps in (4, 8):
                before = log.waits + log.blocking
                fit(steps, tmp_path / f"{fit.__name__} {steps}")
                counts.append(log.waits + log.blocking - before)
            assert counts[1] <= counts[0], (log.lines("wait"), log.lines("blocking"))

    @pytest.mark.parametrize("method", ["steerability", "ganalyze"])
    def test_a_step_of_a_direction_waits_for_nothing(self, model, log, monkeypatch, method):
        monkeypatch.setattr("energyql.training.goals.STEPS", 6)
        monkeypatch.setattr("energyql.training.directions.DRAWS", 256)
        labeller = None if method == "steerability" else lambda images: {"light": images.mean((1, 2, 3))}
        generator = model.to(DEVICE).generator
        before = log.waits + log.blocking
        assert len(find_directions(generator, method, 1, labeller=labeller, device=DEVICE)) == 1
        assert log.waits + log.blocking - before <= 16, log.lines("wait", 20)

    @pytest.mark.parametrize("method", ["ganspace", "sefa", "styles", "pictures", "interfacegan"])
    def test_directions(self, model, method, monkeypatch):
        monkeypatch.setattr("energyql.training.directions.DRAWS", 512)
        monkeypatch.setattr("energyql.training.directions.PICTURES", 64)
        found = find_directions(model, method, 2, device=DEVICE)
        assert len(found) == 2
        assert draw_directions(found, model.to(DEVICE).generator, rows=1).size
