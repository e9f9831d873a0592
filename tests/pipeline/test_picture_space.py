"""Models whose attributes are read off pictures, and realism: everything that follows from a query."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from evaluation.lively import KNOWN, Plain, by_function, picture_model, read_plain, silent
from torch import nn
from toys import VOCABULARY, lively_judge, pixels, random_generator

from energyql import Model, edit, explain, export_energy, generate, load_model, sample_latents, stream, until_satisfied
from energyql.attributes.pictures import PictureBank, as_prediction
from energyql.attributes.predictions import YesNo
from energyql.energy.picture_energy import PictureEnergy
from energyql.errors import ArgumentError, ModelError, UnreachableError
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.methods import read_methods
from energyql.gallery.words import facts
from energyql.pipeline.plan import plan_query
from energyql.pipeline.result_words import verdict_sentences
from energyql.pipeline.run import draw as run_draw
from energyql.pipeline.session import open_session
from energyql.pipeline.settings import DEFAULT_SAMPLER, GRADIENT_FREE
from energyql.sampling import SAMPLERS, Status, prior_latents

QUERY = "beard AND NOT smile"


@pytest.fixture(scope="module")
def model():
    return picture_model()


@pytest.fixture(scope="module")
def draw(model):
    def call(query=QUERY, n=5, **settings):
        return generate(query, n, **({"model": model, "progress": False} | settings))

    return call


@pytest.fixture(scope="module")
def whole(draw):
    return draw()


class TestGenerate:
    def test_the_guide_is_followed_and_the_judge_judges(self, whole, model):
        assert (whole.energy < 0.15).all()  # nats
        assert (whole.probabilities["beard"] > 0.5).all()
        assert (whole.probabilities["smile"] < 0.5).all()
        assert whole.provenance["judge"] == "image judge"
        own = model.judge_images(model.generator.synthesize(whole.w))
        assert np.array_equal(own["smile"], whole.judged["smile"])
        assert whole.satisfied is not None
        read = model.bank.predict(model.generator.synthesize(whole.w))
        assert read["smile"].probability([True]).numpy() == pytest.approx(whole.probabilities["smile"], abs=1e-4)

    def test_a_sample_depends_on_seed_and_number_alone(self, draw, whole):
        for part, other in [
            (slice(0, 5), draw(batch_size=2)),
            (slice(2, 5), draw(n=3, first=2)),
            (slice(0, 1), draw(n=1)),
        ]:
            assert torch.equal(other.z, whole.z[part])
            assert np.allclose(other.energy, whole.energy[part], atol=1e-4)
        again = draw()
        assert torch.equal(again.z, whole.z)
        assert pixels(again.images) == pixels(whole.images)

    def test_the_cost_is_told_in_calls_of_the_generator(self, whole, draw):
        facts = whole.statistics
        assert facts["generator_calls_mean"] == facts["evaluations_mean"] + facts["gradients_mean"]
        assert 2 < facts["generator_calls_mean"] < 100
        assert draw(n=2, sampler="slice").statistics["gradients_mean"] == 0

    def test_heads_tell_no_calls(self, tiny):
        assert "generator_calls_mean" not in generate("smile", 2, model=tiny, progress=False).statistics

    def test_truncation_semantics_and_streams(self, draw, whole, model):
        assert draw(n=1, truncation=0.0, sampler="slice").provenance["truncation"] == 0
        with pytest.raises(ArgumentError, match="do not hold at truncation 2"):
            draw(truncation=2.0)
        for semantics in ("product", "lace"):
            assert (draw(n=2, semantics=semantics).probabilities["beard"] > 0.5).all()
        parts = list(stream(QUERY, 2, model=model, progress=False))
        assert torch.allclose(torch.cat([part.z for part in parts]), whole.z[:2], atol=1e-3)
        (latents,) = sample_latents(QUERY, 2, model=model, progress=False)
        assert torch.equal(latents.z, whole.z[:2])
        assert until_satisfied("smile OR NOT smile AND hair = black", 2, model=model, progress=False).satisfied.all()

    def test_bfloat16_draws_nearly_the_same(self, draw, whole):
        rough = draw(precision="bfloat16", sampler="slice", n=3)
        assert rough.energy.max() < 5
        assert rough.provenance["precision"] == "bfloat16"

    def test_the_energy_sees_the_noise_of_the_picture(self, model):
        prepared = plan_query(open_session(model, "cpu"), QUERY, noise="random", seed=3)
        result = run_draw(prepared, 2, first=2, progress=False)
        assert isinstance(prepared.energy, PictureEnergy)
        assert prepared.energy(result.z, torch.arange(2, 4)).numpy() == pytest.approx(result.energy, abs=1e-3)
        assert prepared.energy(result.z, torch.arange(2)).numpy() != pytest.approx(result.energy, abs=1e-3)

    def test_a_query_that_is_always_true(self, draw):
        with pytest.warns(UserWarning, match="always true"):
            assert (draw("smile OR NOT smile", n=2).energy == 0).all()


class TestTwoNetworks:
    def test_the_guide_never_judges(self, model):
        guide = model.bank.reader
        for judge in (guide, guide.forward, nn.Sequential(guide), lively_judge(model.generator, seed=1)):
            with pytest.raises(ModelError, match="is the reader that guides the sampler, so it could never object"):
                Model("one", model.generator, model.bank, judge)
        with pytest.raises(ModelError, match="could never object"):
            dataclasses.replace(model, judge=guide)

        def guess(images):
            return {name: as_prediction(value, KNOWN[name], images) for name, value in read_plain(images).items()}

        with pytest.raises(ModelError, match="could never object"):  # code that states no values
            generate("c", 2, model=Model("own", Plain(), PictureBank(guess, KNOWN), guess), progress=False)

    def test_code_that_defines_attributes_guides_decides_and_judges(self):
        """With its values nothing is returned as complete that it refuses; other attributes keep their frequencies."""
        query = "a AND b"  # 1 in 220
        for model in (by_function(judge=read_plain), by_function()):
            result = generate(query, 12, model=model, progress=False)
            values = read_plain(model.generator.synthesize(result.w))
            assert (values["a"] & values["b"]).all()
            assert result.status.count(Status.OK) == 12
            assert result.summary().startswith("12 of 12 satisfy the query by the definition evaluation.lively:")
            assert (result.satisfied is None) == (model.judge is None)
            assert result.provenance["sampler"]["settings"]["enough"] is None  # the posterior; the code is sure
        assert result.statistics["effective_samples"] > 6
        few = generate(query, 12, model=model, attempts=1, progress=False)
        refused = np.array([status == Status.NOT_ACCEPTED for status in few.status])
        values = read_plain(model.generator.synthesize(few.w))
        assert 0 < refused.sum() < 12
        assert (refused == ~(values["a"] & values["b"]).numpy()).all()
        assert torch.equal(few.z[~refused], result.z[~refused])

    def test_readers_that_predict_do_not_decide_by_default(self):
        def guess(images):
            return read_plain(images) | {"a": YesNo(4 * read_plain(images)["n"].float())}

        model = Model("mixed", Plain(), PictureBank(guess, KNOWN))
        assert "verified" not in generate("a", 2, model=model, progress=False).provenance
        assert "verified" in generate("a AND c", 2, model=model, progress=False).provenance
        assert "verified" not in generate("a AND c", 2, model=model, verify="off", progress=False).provenance

    def test_without_a_judge_nothing_is_ticked(self, model):
        result = generate(QUERY, 2, model=dataclasses.replace(model, judge=None), progress=False)
        assert result.satisfied is None
        told = "by the reader (smile: quality not measured, beard: quality not measured)"
        assert verdict_sentences(result).startswith("not judged: the model has no judge; mean P ")
        assert verdict_sentences(result).endswith(told)
        assert verdict_sentences(result[[1]]).endswith(told)
        assert dict(facts(result))["reader"] == told[len("by the reader (") : -1]
        assert "heads" not in result.provenance

    def test_a_folder_with_the_guide_as_its_judge_is_refused(self, model, tmp_path):
        model.save_pretrained(tmp_path / "m")
        model.bank.reader.save(tmp_path / "m")  # in the place of the judge
        with pytest.raises(ModelError, match="could never object"):
            load_model(tmp_path / "m")


class TestWithoutGradient:
    def test_samplers_that_need_one_refuse(self):
        for name in SAMPLERS:
            if name in ("slice", GRADIENT_FREE, DEFAULT_SAMPLER):
                continue
            with pytest.raises(ArgumentError, match='follows a gradient, and this energy has no.*\n.*sampler="slice"'):
                generate("a", 2, model=by_function(), sampler=name, progress=False)

    def test_the_default_is_a_sampler_that_needs_none(self):
        result = generate("a AND c", 6, model=by_function(), progress=False)
        assert result.provenance["sampler"]["name"] == GRADIENT_FREE
        truth = read_plain(Plain().synthesize(result.z))
        assert (truth["a"] & truth["c"]).all()
        assert result.statistics["generator_calls_mean"] == result.statistics["evaluations_mean"] > 1
        parts = [generate("a AND c", 3, first=first, model=by_function(), progress=False) for first in (0, 3)]
        assert torch.equal(torch.cat([part.z for part in parts]), result.z)

    def test_a_query_out_of_reach_says_how_rare_it_is(self):
        with pytest.raises(UnreachableError, match="not reachable under this prompt or model: .* 1 in .*\nchange the"):
            generate("n > 2.9 AND a AND b", 2, model=by_function(), progress=False)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("a AND (b OR c)", "a AND b OR a AND c"),  # distributive
            ("a OR (b OR c)", "(a OR b) OR c"),  # associative
            ("NOT (a OR b)", "NOT a AND NOT b"),  # De Morgan
            ("NOT (a AND c)", "NOT a OR NOT c"),
            ("a AND c", "c AND a"),  # commutative
            ("a XOR b", "b XOR a"),
        ],
    )
    def test_equivalent_spellings_draw_identical_pictures(self, one, other):
        """The laws of MetaLogic (arXiv 2510.00796), which models of text to pictures break."""
        first, second = (generate(query, 2, model=by_function(), progress=False) for query in (one, other))
        assert torch.equal(first.z, second.z)
        assert pixels(first.images) == pixels(second.images)

    @pytest.mark.parametrize("query", ["c", "a AND NOT b", "0.2 < n < 0.8"])
    def test_slice_moves_need_none(self, query):
        result = generate(query, 6, model=by_function(), sampler="slice", progress=False)
        truth = read_plain(Plain().synthesize(result.z))
        holds = {
            "c": truth["c"],
            "a AND NOT b": truth["a"] & ~truth["b"],
            "0.2 < n < 0.8": (truth["n"] > 0.1) & (truth["n"] < 0.9),
        }
        assert holds[query].float().mean() >= 5 / 6
        assert result.statistics["gradients_mean"] == 0

    def test_the_pilot_uses_it(self):
        found = explain("c", model=by_function(), pilot=True).pilot
        assert found.generator_calls == found.evaluations >= 1


class TestExplain:
    def test_the_pilot_is_affordable_and_says_what_a_sample_costs(self, model, monkeypatch):
        calls = []
        synthesize = type(model.generator).synthesize
        counted = lambda self, w, **more: calls.append(len(w)) or synthesize(self, w, **more)  # noqa: E731
        counted.__signature__ = inspect.signature(synthesize)
        monkeypatch.setattr(type(model.generator), "synthesize", counted)
        found = explain("smile", model=model, pilot=True)
        assert sum(calls) < 600
        assert f"about {found.pilot.generator_calls:.0f} calls of the generator; by rejection " in str(found)
        assert "to satisfy it, by the reader\n" in str(found)
        assert "by the heads" not in str(found)
        assert found.pilot.generator_calls > found.pilot.evaluations
        assert 0.2 < found.pilot.prevalence < 0.8
        assert found.best is None

    def test_heads_have_no_calls(self, tiny):
        assert explain("smile", model=tiny, pilot=True).pilot.generator_calls is None


class TestFolders:
    def test_a_model_comes_back(self, model, whole, tmp_path, draw):
        folder = model.save_pretrained(tmp_path / "m")
        loaded = load_model(folder)
        assert loaded.fingerprints.keys() == {"generator", "reader", "judge"}
        assert isinstance(loaded.bank, PictureBank)
        again = generate(QUERY, 5, model=folder, progress=False)
        assert torch.allclose(again.z, whole.z, atol=1e-3)
        assert explain("0.4 < age < 0.6", model=folder).best is None

    def test_a_function_is_refused_by_save(self, tmp_path):
        model = Model("f", random_generator(), PictureBank(read_plain, KNOWN))
        with pytest.raises(ModelError, match="read_plain is code, which is not saved\nname it"):
            model.save_pretrained(tmp_path / "m")
        assert not (tmp_path / "m").exists()

    def test_another_reader_takes_its_place(self, model, tmp_path):
        folder = model.save_pretrained(tmp_path / "m")
        other = lively_judge(model.generator, seed=5)
        changed = load_model(folder, reader=other)
        assert changed.bank.reader is other
        assert changed.fingerprints["reader"] != load_model(folder).fingerprints["reader"]
        with pytest.raises(ModelError, match="could never object"):
            load_model(folder, reader=load_model(folder).judge)


class TestRefusals:
    def test_edits_and_exports_need_heads(self, model):
        with pytest.raises(ArgumentError, match="an edit needs heads that read latents"):
            edit(0, ["smile"], model=model, progress=False)
        with pytest.raises(ArgumentError, match="an exported energy needs heads"):
            export_energy("smile", model=model)

    def test_methods_of_the_paper(self, model):
        evaluated = EvaluatedModel(model)
        paper, ode = read_methods("paper,lace:published-ode")
        with pytest.raises(ArgumentError, match="the method paper needs heads"):
            paper.energy(evaluated, "smile")
        assert isinstance(ode.energy(evaluated, "smile"), PictureEnergy)
        assert evaluated.read_heads(prior_latents(0, 0, 3, 8))["smile"].shape == (3,)
        other = EvaluatedModel(dataclasses.replace(model, bank=PictureBank(lively_judge(model.generator, seed=7))))
        assert other.identity != evaluated.identity
        assert len(evaluated.judge(prior_latents(0, 0, 3, 8), silent)) == 3


def test_attributes_that_the_query_does_not_name_are_checked_too():
    def read(pictures):
        return {"a": YesNo(pictures[:, 0, 0, 0]), "b": YesNo(pictures[:1, 0, 0, 0])}

    model = Model("short", Plain(), PictureBank(read, type(KNOWN)([KNOWN["a"], KNOWN["b"]])))
    with pytest.raises(ArgumentError, match="the logit of attribute 'b' must be float32 of shape"):
        generate("a", 3, model=model, sampler="slice", progress=False)


def test_a_network_that_is_no_judge(model):
    class Own(nn.Module):
        vocabulary = type(VOCABULARY)([VOCABULARY["smile"]])

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(20.0))

        def forward(self, images):
            return {"smile": YesNo(self.scale * images.mean((1, 2, 3)))}

    own = Model("own", model.generator, PictureBank(Own()), model.judge, 0.7)
    assert (generate("smile", 3, model=own, progress=False).probabilities["smile"] > 0.85).all()
