"""Every call runs on a device other than the CPU: nothing mixes devices, and numbers are nearly those of the CPU."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation.lively import known_model, picture_model, silent
from torch.testing import assert_close
from toys import VOCABULARY, lively_judge, random_generator, random_heads

import energyql
from benchmarks.emulated import DEVICE, MISSING, emulated
from energyql import DatasetClass, DatasetPlan, Model, load_model
from energyql.attributes.heads import AttributeBank
from energyql.editing.settings import PRESETS, InversionSettings
from energyql.energy.rule import SEMANTICS
from energyql.evaluation.evaluate import evaluate
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config
from energyql.sampling import SAMPLERS
from energyql.training.directions import find_directions
from energyql.training.heads import HeadSettings
from energyql.training.judge import train_judge
from energyql.training.picture_fit import PictureSettings
from energyql.training.run import train_attributes

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
QUERY, RARE = "smile AND NOT beard", "smile AND glasses AND beard AND 0.6 < age < 0.7 AND hair = brown"


@pytest.fixture(autouse=True)
def log():
    """The device; every test does something on it."""
    with warnings.catch_warnings(), emulated() as log:
        warnings.simplefilter("ignore", UserWarning)  # of torch, about copies between devices
        yield log
    assert log.launches


@pytest.fixture
def model(tiny):
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
        assert any(line.startswith("numerics/linear.py:") for line, _ in log.lines("launch"))


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
        there = draw(model, sampler=short(sampler))
        options = {"sampler": short(sampler), "device": "cpu", "progress": False}
        here = energyql.generate(QUERY, 2, model=model.to("cpu"), **options)
        assert_close(there.z, here.z, atol=1e-3, rtol=1e-3)

    @pytest.mark.parametrize(("sampler", "most"), [("ode", 8), ("langevin", 4)])
    def test_the_device_is_waited_for_seldom(self, model, log, sampler, most):
        model = model.to(DEVICE)
        before, settings = log.waits, short(sampler)
        settings = replace(settings, steps=17) if sampler == "langevin" else settings  # more than between two looks
        list(energyql.sample_latents(QUERY, 4, model=model, sampler=settings, device=DEVICE, progress=False))
        assert log.waits - before <= most, log.lines("wait", 20)

    @pytest.mark.parametrize("semantics", list(SEMANTICS))
    def test_every_semantics(self, model, semantics):
        result = draw(model, semantics=semantics, sampler="langevin" if semantics == "jem" else "slice+descent")
        assert np.isfinite(result.energy).all()

    def test_rare_queries_and_other_precisions(self, model):
        assert draw(model, RARE).energy.shape == (2,)
        assert draw(model, precision="bfloat16").probabilities["smile"].shape == (2,)

    def test_streams_and_repeated_draws(self, model):
        parts = list(energyql.stream(QUERY, 3, model=model, device=DEVICE, batch_size=2, progress=False))
        assert sum(len(part.images) for part in parts) == 3
        energyql.until_satisfied("smile", 1, model=model, device=DEVICE, progress=False)

    @pytest.mark.parametrize("verify", ["sure", "faithful"])
    def test_verified_pictures(self, verify):
        known = known_model(shift=-0.9)
        result = draw(known, "b AND c", 3, verify=verify, attempts=256)
        assert result.statistics["accepted"] == 3


class TestModels:
    def test_stylegan3(self):
        sizes = StyleGAN3Config(
            resolution=16, z_dim=8, w_dim=16, num_layers=3, num_critical=1, channel_base=64, channel_max=6
        )
        generator = StyleGAN3(sizes).eval().requires_grad_(False)
        bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, generator.config.w_dim))
        assert len(draw(Model("third", generator, bank), n=2).images) == 2

    def test_a_module_of_a_user(self):
        assert draw(known_model(), "a OR n > 1", 2).satisfied is not None

    @pytest.mark.parametrize("sampler", ["slice+descent", "slice"])
    def test_attributes_that_are_read_off_pictures(self, sampler):
        assert draw(picture_model(), "smile AND NOT beard", 2, sampler=sampler).energy.shape == (2,)


class TestOtherCalls:
    def test_edits(self, model, log):
        quick = replace(PRESETS["default"], max_evaluations=6)
        edit = energyql.edit(
            5, ["smile", "hair = black"], n=2, model=model, preset=quick, device=DEVICE, progress=False
        )
        assert [len(step.images) for step in edit.steps] == [2, 2]
        lines = log.by_line.items()
        own = sum(count for (kind, line), count in lines if kind == "launch" and "sampling/descent" in line)
        looks = sum(count for (kind, line), count in lines if kind == "wait" and "sampling/base" in line)
        assert own <= 4000
        assert looks <= 25

    def test_inversion(self, model):
        picture = draw(model, n=1).images[0]
        settings = InversionSettings(z_evaluations=4, w_evaluations=3, candidates=8)
        for space in ("z", "w", "w+"):
            found = energyql.invert(
                picture, model=model, settings=settings, space=space, anyway=True, device=DEVICE, progress=False
            )
            assert len(found.result.images) == 1

    def test_pages(self, model, tmp_path):
        options = {"model": model, "device": DEVICE, "progress": False}
        energyql.truth_table("smile", "beard", n=1, **options).save(tmp_path / "table.html")
        energyql.traverse("smile", "beard", 3, n=1, **options).save(tmp_path / "traversal.html")
        gallery = energyql.Gallery(**options, n=1)
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
        evaluate(["conditional-1"], folder=tmp_path, model=known_model(), samplers=["slice"], device=DEVICE, **sizes)
        assert (tmp_path / "evaluation.md").is_file()


class TestTraining:
    SHORT = HeadSettings(steps=4, hidden=4, batch=16)

    def test_heads_and_judge(self, tmp_path, monkeypatch):
        monkeypatch.setattr(
            "energyql.training.judge.PictureSettings",
            lambda: PictureSettings(side=8, channels=(4, 8), least=64, most=64),
        )

        def bright(images):
            return {"bright": images[:, 0, 3, 3] > images[:, 0, 9, 9], "warm": images[:, 0].mean((1, 2))}

        train_attributes(
            random_generator(), bright, tmp_path / "m", count=80, settings=self.SHORT, device=DEVICE, progress=False
        )
        assert list(load_model(tmp_path / "m").vocabulary) == ["bright", "warm"]
        judge = train_judge(tmp_path / "m", bright, count=80, device=DEVICE, progress=False)
        assert judge.verifier_report

    @pytest.mark.parametrize("method", ["ganspace", "sefa", "styles", "pictures"])
    def test_directions(self, method):
        assert len(find_directions(random_generator(), method, 2, device=DEVICE)) == 2
