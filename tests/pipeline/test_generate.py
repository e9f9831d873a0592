import threading
import warnings

import numpy as np
import pytest
import torch
from toys import CONFIG, VOCABULARY, NeverSampler, pixels, tiny_model

import energyql
from energyql import E, ODESolver, generate, load_model, sample_latents, score
from energyql.attributes.predictions import tabulate
from energyql.errors import (
    ArgumentError,
    ConstantPartWarning,
    Contradiction,
    ModelError,
    TautologyWarning,
    UnknownAttribute,
)
from energyql.sampling import Status, prior_latents
from energyql.sampling.registry import strengths

QUERY = 'smile AND NOT (glasses OR hair = "dark red") AND age < 0.6'


class TestResults:
    def test_shapes(self, draw):
        result = draw(n=5)
        assert len(result) == 5
        assert [(image.size, image.mode) for image in result.images] == [((16, 16), "RGB")] * 5
        assert (result.z.shape, result.w.shape) == ((5, CONFIG.z_dim), (5, CONFIG.w_dim))
        assert result.z.dtype == result.w.dtype == torch.float32
        assert result.energy.shape == (5,)
        assert result.energy.dtype == np.float64
        assert list(result.probabilities) == list(result.judged) == list(VOCABULARY)
        assert result.probabilities["smile"].shape == (5,)
        assert list(result.probabilities["hair"]) == list(VOCABULARY["hair"].values)
        assert [column.shape for column in result.probabilities["age"]] == [(5,), (5,)]
        assert result.judged["smile"].dtype == bool
        assert set(result.judged["hair"]) <= set(VOCABULARY["hair"].values)
        assert result.satisfied.shape == (5,)
        assert result.satisfied.dtype == bool
        assert result.status == [Status.OK] * 5
        assert {"evaluations_mean", "gradients_mean", "exact", "log_probability"} < set(result.statistics)
        assert result.statistics["seconds_sampling"] > 0 < result.statistics["seconds_drawing"]
        assert result.index.tolist() == [0, 1, 2, 3, 4]

    def test_samples_move_to_low_energy(self, draw, tiny):
        model, start = load_model(tiny), prior_latents(0, 0, 16, CONFIG.z_dim)
        before = score(QUERY, tabulate(model.bank.predict(model.generator.encode(start, 0.7))))
        after = draw(n=16).energy
        assert (after <= before + 1e-4).all()
        assert np.median(after) < 0.7 * np.median(before)

    def test_energy_and_probabilities_agree(self, draw):
        result = draw(n=6, sampler=ODESolver(max_evaluations=8))
        assert score(QUERY, result.probabilities) == pytest.approx(result.energy, abs=1e-4)
        assert result.energy.std() > 0.01

    @pytest.mark.parametrize("semantics", ["product", "lace"])
    def test_other_semantics(self, draw, semantics):
        result = draw(semantics=semantics)
        assert score(QUERY, result.probabilities, semantics) == pytest.approx(result.energy, abs=1e-4)
        assert result.provenance["semantics"] == semantics

    def test_w_and_pictures_belong_to_z(self, draw, tiny):
        result, generator = draw(), load_model(tiny).generator
        torch.testing.assert_close(generator.encode(result.z, 0.7), result.w)
        shown = np.stack([np.asarray(image) for image in result.images]).astype(float)
        exact = (generator.synthesize(result.w).clamp(-1, 1) + 1).permute(0, 2, 3, 1).numpy() * 127.5
        assert np.abs(shown - exact).max() < 0.6

    def test_provenance(self, draw):
        provenance = draw(seed=np.int64(4), truncation=0.9, strength=2).provenance
        assert provenance["query"] == QUERY
        assert (provenance["seed"], type(provenance["seed"])) == (4, int)
        assert provenance["truncation"] == 0.9
        assert strengths(provenance["sampler"]) == {2.0}
        assert provenance["model"] == "tiny"
        assert {name: len(digest) for name, digest in provenance["fingerprints"].items()} == {
            "attributes": 64,
            "generator": 64,
            "judge": 64,
        }
        assert provenance["judge"] == "image judge"
        assert provenance["versions"]["energyql"] == energyql.__version__

    def test_heads_do_not_judge_themselves(self, tmp_path):
        result = generate(QUERY, 4, model=tiny_model(tmp_path, judge=False), device="cpu", progress=False)
        assert (result.satisfied, result.judged, result.provenance["judge"]) == (None, {}, None)
        assert result.summary().startswith("not judged: the model has no judge; mean P 0.")
        assert "by the attribute heads (smile: quality not measured, hair: " in result.summary()
        assert list(result.values) == list(VOCABULARY)
        assert (result.values["smile"] == (result.probabilities["smile"] > 0.5)).all()
        assert set(result.values["hair"]) <= set(VOCABULARY["hair"].values)

    def test_nothing_is_judged_of_a_query_that_asks_for_nothing(self, tiny):
        with pytest.warns(TautologyWarning) as warned:
            result = generate("TRUE", 1, model=tiny, device="cpu", progress=False)
        assert [warning.filename for warning in warned] == [__file__]
        assert result.satisfied is None
        assert result.summary() == "not judged: the query names no attribute"
        assert result.provenance["judge"] == "image judge"

    def test_a_part_that_is_never_true_is_a_warning_in_the_printed_query(self, tiny):
        query = E.smile | (E.glasses & ~E.glasses)
        with pytest.warns(ConstantPartWarning) as warned:
            generate(query, 1, model=tiny, device="cpu", progress=False)
        (warning,) = warned
        assert warning.filename == __file__
        assert str(warning.message).splitlines() == [
            "glasses and NOT glasses cannot both hold, so this part changes nothing",
            "  smile OR glasses AND NOT glasses",
            "           ^^^^^^^     ^^^^^^^^^^^",
        ]

    def test_heads_on_z(self, tmp_path):
        result = generate(QUERY, 3, model=tiny_model(tmp_path, space="z"), device="cpu", progress=False)
        assert score(QUERY, result.probabilities) == pytest.approx(result.energy, abs=1e-4)

    def test_unfinished_samples_are_counted(self, draw):
        result = draw(sampler=ODESolver(max_evaluations=5))
        assert Status.STEP_LIMIT in result.status
        assert "could not finish" in result.summary()


class TestRepeatability:
    def test_text_and_python_are_one(self, draw):
        text = draw()
        python = draw(E.smile & ~(E.glasses | E.hair.eq("dark red")) & (E.age < 0.6))
        assert pixels(text.images) == pixels(python.images)
        assert torch.equal(text.z, python.z)
        assert python.provenance["canonical"] == text.provenance["canonical"]

    def test_a_sample_does_not_depend_on_the_others(self, draw):
        many = draw(n=5)
        for n, batch_size in ((2, None), (7, 1), (7, 3), (7, 100)):
            few, rows = draw(n=n, batch_size=batch_size), min(n, 5)
            torch.testing.assert_close(few.z[:rows], many.z[:rows], rtol=0, atol=1e-4)
            assert few.energy[:rows] == pytest.approx(many.energy[:rows], abs=1e-3)
            assert len(few.images) == n

    @pytest.mark.parametrize(
        "query",
        [
            "smile AND hat AND NOT glasses",
            pytest.param("long_hair AND beard AND hat AND hair = gray", marks=pytest.mark.slow),
        ],
    )
    def test_a_picture_of_the_packaged_model_has_the_same_bits_in_every_run(self, query):
        settings = {"device": "cpu", "progress": False}
        together = generate(query, 7, **settings)
        for batch_size in (1, 4):
            parts = generate(query, 7, batch_size=batch_size, **settings)
            assert torch.equal(parts.z, together.z)
            assert torch.equal(parts.w, together.w)
            assert pixels(parts.images) == pixels(together.images)
        alone = generate(query, 1, first=6, **settings)
        assert torch.equal(alone.z[0], together.z[6])
        assert pixels(alone.images) == pixels(together.images[6:])

    def test_seeds(self, draw):
        assert torch.equal(draw(seed=1).z, draw(seed=1).z)
        assert not torch.equal(draw(seed=1).z, draw(seed=2).z)
        draw(seed=2**64 - 1)

    def test_global_random_numbers_are_left_alone(self, draw):
        before = torch.get_rng_state()
        draw()
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_query_of_all_attributes_after_another(self, tmp_path):
        """The first call predicts all attributes in inference mode; the second needs a gradient of the same heads."""
        model = tiny_model(tmp_path)
        generate("smile", 2, model=model, device="cpu", progress=False)
        everything = "smile AND hair = black AND age > 0.5 AND glasses AND beard"
        assert generate(everything, 2, model=model, device="cpu", progress=False).status == [Status.OK] * 2

    def test_under_no_grad_and_inference_mode(self, draw):
        expected = draw().z
        with torch.no_grad():
            assert torch.equal(draw().z, expected)
        with torch.inference_mode():
            assert torch.equal(draw().z, expected)

    def test_two_threads(self, draw):
        expected, found = draw().z, []
        threads = [threading.Thread(target=lambda: found.append(draw().z)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(torch.equal(z, expected) for z in found)
        assert len(found) == 2


class TestGoingOn:
    def test_a_later_call_goes_on_where_one_ended(self, draw):
        whole, later = draw(n=5), draw(n=3, first=2)
        torch.testing.assert_close(later.z, whole.z[2:], rtol=0, atol=1e-4)
        assert later.index.tolist() == [2, 3, 4]

    def test_latents_without_pictures(self, draw, tiny):
        batches = list(sample_latents(QUERY, 7, model=tiny, device="cpu", batch_size=3, progress=False))
        assert [len(batch.z) for batch in batches] == [3, 3, 1]
        torch.testing.assert_close(torch.cat([batch.z for batch in batches]), draw(n=7).z, rtol=0, atol=1e-4)

    def test_latents_take_no_more_memory_than_a_batch(self, tiny):
        """Nothing is drawn before it is asked for, however many are wanted."""
        batches = sample_latents("smile", 10**12, model=tiny, device="cpu", batch_size=2, progress=False)
        assert [len(next(batches).z), len(next(batches).z)] == [2, 2]

    def test_mistakes_show_at_the_call(self, tiny):
        with pytest.raises(UnknownAttribute):
            sample_latents("smyle", 7, model=tiny)


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"n": 0}, "n must be a whole number from 1 to 1,000,000, not 0"),
            ({"n": 10**12}, "n must be a whole number"),
            ({"n": 2.0}, "n must be a whole number"),
            ({"n": True}, "n must be a whole number"),
            ({"n": "4"}, "n must be a whole number"),
            ({"batch_size": 0}, "batch_size must be a whole number"),
            ({"seed": -1}, "seed must be a whole number from 0"),
            ({"seed": 2**64}, "seed must be a whole number from 0"),
            ({"seed": 0.5}, "seed must be a whole number from 0"),
            ({"seed": None}, "seed must be a whole number from 0"),
            ({"truncation": 0.4}, "do not hold at truncation 0.4\nthey were fitted at truncation 0.5 to 1"),
            ({"truncation": 1.1}, "do not hold at truncation 1.1"),
            ({"truncation": float("nan")}, "truncation must be a finite number, not nan"),
            ({"truncation": "0.7"}, "truncation must be a finite number, not '0.7'"),
            ({"strength": float("nan")}, "strength must be a finite number, not nan"),
            ({"strength": 10**400}, "strength must be a finite number, not 1000"),
            ({"strength": 0}, "strength must be above 0"),
            ({"strength": "2"}, "strength must be a finite number"),
            ({"strength": 2, "sampler": ODESolver()}, "strength belongs to the sampler"),
            (
                {"sampler": "odd"},
                "there is no sampler 'odd'\nsamplers: slice.descent, slice.ode, slice, population",
            ),
            ({"sampler": 3}, "a sampler is a name or an object with a method sample, not 3"),
            ({"semantics": "fuzzy"}, "no semantics is called 'fuzzy'"),
            ({"semantics": None}, "no semantics is called None"),
            ({"device": "tpu"}, "device 'tpu' is not available here\nuse auto, cpu, cuda or mps"),
            ({"device": "cuda:99"}, "device 'cuda:99' is not available"),
            ({"device": None}, "device None is not available"),
            ({"model": None}, "a model is a name or the path"),
            ({"query": b"smile"}, "a query is a string or an expression"),
        ],
    )
    def test_arguments(self, draw, settings, message):
        with pytest.raises(ArgumentError, match=message):
            draw(**settings)

    def test_no_such_model(self, draw):
        with pytest.raises(ModelError, match="there is no model 'no/such'"):
            draw(model="no/such")

    @pytest.mark.parametrize("semantics", ["exact", "product", "lace"])
    def test_nothing_is_sampled_for_a_contradiction(self, draw, semantics):
        sampler = NeverSampler()
        with pytest.raises(Contradiction):
            draw('smile AND hair = black AND hair = "dark red"', sampler=sampler, semantics=semantics)
        with pytest.raises(UnknownAttribute, match="smyle"):
            draw("smyle", sampler=sampler)
        with pytest.raises(ArgumentError, match="seed"):
            draw(sampler=sampler, seed=-1)

    def test_a_tautology_warns_and_leaves_samples_where_they_are(self, draw):
        with pytest.warns(TautologyWarning):
            result = draw("smile OR NOT smile")
        assert torch.equal(result.z, prior_latents(0, 0, 3, CONFIG.z_dim))
        assert result.satisfied.tolist() == [True] * 3
        assert result.energy.tolist() == [0.0] * 3
        result.grid()

    def test_no_other_warning(self, draw):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            draw()
