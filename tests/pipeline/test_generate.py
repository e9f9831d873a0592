import dataclasses
import shutil
import threading
import warnings

import numpy as np
import pytest
import torch
from toys import CONFIG, VOCABULARY, pixels, random_generator, random_heads, tiny_model

import energyql
from energyql import E, Model, ODESolver, Pipeline, generate, load_model, sample_latents, score, until_satisfied
from energyql.attributes.bank import AttributeBank
from energyql.attributes.predictions import tabulate
from energyql.errors import ArgumentError, Contradiction, ModelError, TautologyWarning, UnknownAttribute
from energyql.generators.mapping import FrozenMapping
from energyql.generators.stylegan3 import StyleGAN3
from energyql.generators.stylegan3_config import StyleGAN3Config
from energyql.pipeline import generate as pipeline
from energyql.pipeline.model import choose_device
from energyql.sampling import Status, prior_latents
from energyql.vocabulary import AttributeSpec, Vocabulary

QUERY = 'smile AND NOT (glasses OR hair = "dark red") AND age > 0.6'


@pytest.fixture
def draw(tiny):
    """`generate` on the tiny model."""

    def call(query=QUERY, n=3, **settings):
        return generate(query, n, **({"model": tiny, "device": "cpu", "progress": False} | settings))

    return call


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
        assert "strength=2.0" in provenance["sampler"]
        assert provenance["model"] == "tiny"
        assert {name: len(digest) for name, digest in provenance["fingerprints"].items()} == {
            "attributes": 64,
            "generator": 64,
            "judge": 64,
        }
        assert provenance["judge"] == "image judge"
        assert provenance["versions"]["energyql"] == energyql.__version__

    def test_without_a_judge_the_heads_decide(self, tmp_path):
        result = generate(QUERY, 4, model=tiny_model(tmp_path, judge=False), device="cpu", progress=False)
        assert result.provenance["judge"] == "attribute heads"
        assert "says the attribute heads" in result.summary()
        assert (result.judged["smile"] == (result.probabilities["smile"] > 0.5)).all()

    def test_heads_on_z(self, tmp_path):
        result = generate(QUERY, 3, model=tiny_model(tmp_path, space="z"), device="cpu", progress=False)
        assert score(QUERY, result.probabilities) == pytest.approx(result.energy, abs=1e-4)

    def test_unfinished_samples_are_counted(self, draw):
        result = draw(sampler=ODESolver(max_evaluations=5))
        assert Status.STEP_LIMIT in result.status
        assert "could not finish" in result.summary()

    def test_it_can_be_saved(self, draw, tmp_path):
        draw().save(tmp_path / "run")
        assert (tmp_path / "run" / "result.json").exists()


class TestRepeatability:
    def test_text_and_python_are_one(self, draw):
        text = draw()
        python = draw(E.smile & ~(E.glasses | E.hair.eq("dark red")) & (E.age > 0.6))
        assert pixels(text.images) == pixels(python.images)
        assert torch.equal(text.z, python.z)
        assert python.provenance["canonical"] == text.provenance["canonical"]

    @pytest.mark.parametrize(("n", "batch_size"), [(2, None), (7, None), (7, 1), (7, 3), (7, 100)])
    def test_a_sample_does_not_depend_on_the_others(self, draw, n, batch_size):
        few, many = draw(n=n, batch_size=batch_size), draw(n=5)
        rows = min(n, 5)
        torch.testing.assert_close(few.z[:rows], many.z[:rows], rtol=0, atol=1e-4)
        assert few.energy[:rows] == pytest.approx(many.energy[:rows], abs=1e-3)
        assert len(few.images) == n

    def test_seeds(self, draw):
        assert torch.equal(draw(seed=1).z, draw(seed=1).z)
        assert not torch.equal(draw(seed=1).z, draw(seed=2).z)
        draw(seed=2**64 - 1)

    def test_global_random_numbers_are_left_alone(self, draw):
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
        draw()
        assert torch.equal(torch.get_rng_state(), before)
        assert (np.random.get_state()[1] == numpy_before).all()

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


class TestUntilSatisfied:
    QUERY = "age > 0.5 AND glasses"
    ROUGH = ODESolver(max_evaluations=5)  # leaves many samples where they do not satisfy it

    @pytest.fixture
    def plain(self, tmp_path):
        """A model whose heads decide: the random judge of the other sees the same in every picture."""
        return tiny_model(tmp_path, judge=False)

    def ask(self, model, n, budget=None, **settings):
        settings = {"model": model, "device": "cpu", "progress": False, "sampler": self.ROUGH} | settings
        return until_satisfied(self.QUERY, n, budget=budget, **settings)

    def test_all_of_them_satisfy(self, plain):
        result = self.ask(plain, 6, 500)
        drawn = int(result.statistics["drawn"])
        assert result.satisfied.all()
        assert len(result) == len(result.images) == 6
        assert 6 < drawn <= 500
        assert f"6 of 6 satisfy the query, says the attribute heads, out of {drawn} drawn" in result.summary()
        assert result.statistics["evaluations_mean"] > 0

    def test_they_are_the_first_of_the_run(self, plain):
        result = self.ask(plain, 6, 500)
        n = int(result.statistics["drawn"])
        run = generate(self.QUERY, n, model=plain, device="cpu", progress=False, sampler=self.ROUGH)
        assert result.index.tolist() == np.flatnonzero(run.satisfied)[:6].tolist()
        assert pixels(result.images) == pixels([run.images[i] for i in result.index])

    def test_the_budget_may_end_first(self, plain):
        result = self.ask(plain, 30, 30)
        assert 0 < len(result) < 30
        assert result.statistics["drawn"] == 30
        assert "30 were wanted, but the budget of 30 ended" in result.summary()
        assert result.provenance["budget"] == 30

    def test_the_judge_decides_where_there_is_one(self, tiny):
        result = self.ask(tiny, 2, 20)
        assert result.provenance["judge"] == "image judge"

    def test_a_budget_below_n_is_refused(self, plain):
        with pytest.raises(ArgumentError, match="budget must be a whole number from 6"):
            self.ask(plain, 6, 5)


def counted(function, calls):
    def wrapper(*arguments):
        calls.append(1)
        return function(*arguments)

    return wrapper


class TestCost:
    def test_one_mapping_an_evaluation(self, tiny, monkeypatch):
        model, calls = load_model(tiny), []
        for name in ("__call__", "pullback"):
            monkeypatch.setattr(FrozenMapping, name, counted(getattr(FrozenMapping, name), calls))
        ask = Pipeline(model, torch.device("cpu")).generate
        result = ask("smile AND age > 0.5 AND glasses", 1, sampler="ode", progress=False)
        # One more draws the picture; the final energy comes from the predictions for it.
        assert len(calls) == result.statistics["evaluations_max"] + 1

    def test_models_stay_loaded_until_they_change(self, tmp_path, monkeypatch):
        folder, loads = tiny_model(tmp_path / "a"), []
        load = pipeline.load_model
        monkeypatch.setattr(pipeline, "load_model", lambda *a: loads.append(1) or load(*a))
        before = generate("smile", 1, model=folder, device="cpu", progress=False)
        generate("glasses", 1, model=str(folder) + "/", device="cpu", progress=False)
        monkeypatch.chdir(tmp_path)
        generate("glasses", 1, model="a", device="cpu", progress=False)
        assert len(loads) == 1
        shutil.rmtree(folder)
        tiny_model(folder)
        after = generate("smile", 1, model=folder, device="cpu", progress=False)
        assert len(loads) == 2
        assert torch.equal(before.z, after.z)

    def test_relative_paths_follow_the_working_directory(self, tmp_path, monkeypatch):
        for place in ("here", "there"):
            tiny_model(tmp_path / place / "model", judge=place == "here")
        judges = []
        for place in ("here", "there"):
            monkeypatch.chdir(tmp_path / place)
            judges.append(generate("smile", 1, model="model", device="cpu", progress=False).provenance["judge"])
        assert judges == ["image judge", "attribute heads"]


class TestProgress:
    def test_a_bar_on_standard_error(self, draw, capsys):
        shown = draw(progress=True)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "sampling" in captured.err
        assert "drawing" in captured.err
        assert torch.equal(shown.z, draw().z)
        assert capsys.readouterr() == ("", "")


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"n": 0}, "n must be a whole number from 1 to 1,000,000, not 0"),
            ({"n": -3}, "n must be a whole number"),
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
            ({"strength": 0}, "strength must be above 0"),
            ({"strength": "2"}, "strength must be a finite number"),
            ({"strength": 2, "sampler": ODESolver()}, "strength belongs to the sampler"),
            ({"sampler": "odd"}, "there is no sampler 'odd'\nsamplers: slice.descent, slice.ode, slice, ode"),
            ({"sampler": 3}, "a sampler is a name or an object with a method sample, not 3"),
            ({"sampler": None}, "a sampler is a name"),
            ({"semantics": "fuzzy"}, "no semantics is called 'fuzzy'"),
            ({"semantics": None}, "no semantics is called None"),
            ({"device": "tpu"}, "device 'tpu' is not available here\nuse auto, cpu, cuda or mps"),
            ({"device": "cuda:99"}, "device 'cuda:99' is not available"),
            ({"device": "meta"}, "device 'meta' is not available"),
            ({"device": None}, "device None is not available"),
            ({"model": None}, "a model is a name or the path"),
            ({"query": b"smile"}, "a query is a string or an expression"),
            ({"query": None}, "a query is a string or an expression"),
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
        sampler = Never()
        with pytest.raises(Contradiction):
            draw('smile AND hair = black AND hair = "dark red"', sampler=sampler, semantics=semantics)
        with pytest.raises(UnknownAttribute, match="smyle"):
            draw("smyle", sampler=sampler)
        with pytest.raises(ArgumentError, match="seed"):
            draw(sampler=sampler, seed=-1)
        assert sampler.calls == 0

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


class Never:
    """A sampler that must not be asked."""

    calls = 0

    def sample(self, energy, z0, *, noise=None, progress=None):
        self.calls += 1
        raise AssertionError("sampled")


@pytest.fixture(scope="module", params=["stylegan2", "stylegan3"])
def conditional(request):
    """A random generator of four classes."""
    if request.param == "stylegan2":
        return random_generator(dataclasses.replace(CONFIG, c_dim=4))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = StyleGAN3Config(
            16, z_dim=8, w_dim=16, c_dim=4, channel_base=64, channel_max=4, num_layers=4, num_critical=1
        )
        return StyleGAN3(config).eval().requires_grad_(False)


def labelled(generator, label, space="w", judge=None):
    """A model whose heads were fitted under a label."""
    size = generator.config.w_dim if space == "w" else generator.z_dim
    bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, size), space=space, label=label)
    return Model("labelled", generator, bank, judge)


class TestLabels:
    @pytest.mark.parametrize("fitted", [None, "random"])
    def test_pictures_of_a_class(self, conditional, fitted):
        model = labelled(conditional, fitted)
        first, again, second = (generate("smile", 3, model=model, label=k, progress=False) for k in (1, 1, 3))
        assert torch.equal(first.w, again.w)
        assert not torch.allclose(first.w, second.w)
        assert first.provenance["label"] == 1
        for label, result in ((1, first), (3, second)):
            w = conditional.encode(result.z, label=torch.eye(4)[[label] * 3])
            torch.testing.assert_close(result.w, w)
            predictions = tabulate(model.bank.predict(w))  # and guided under it too
            assert score("smile", predictions) == pytest.approx(result.energy, abs=1e-4)

    def test_heads_on_z(self, conditional):
        result = generate("smile", 2, model=labelled(conditional, 2, space="z"), progress=False)
        torch.testing.assert_close(result.w, conditional.encode(result.z, label=torch.eye(4)[[2, 2]]))

    def test_the_label_of_the_heads_is_the_default(self, conditional):
        model = labelled(conditional, 2)
        assert torch.equal(
            generate("smile", 2, model=model, progress=False).w,
            generate("smile", 2, model=model, label=[0, 0, 1, 0], progress=False).w,
        )

    def test_numbers(self, conditional):
        mix = (0.5, 0.5, 0.0, 0.0)
        result = generate("smile", 2, model=labelled(conditional, mix), label=list(mix), progress=False)
        torch.testing.assert_close(result.w, conditional.encode(result.z, label=torch.tensor([mix, mix])))
        assert result.provenance["label"] == mix

    @pytest.mark.parametrize(
        ("fitted", "label", "message"),
        [
            (None, None, "conditional on 4 classes: give a label\na label is a class from 0 to 3"),
            ("random", None, "conditional on 4 classes: give a label"),
            (None, 4, "there is no class 4\na label is a class from 0 to 3"),
            (None, -1, "there is no class -1"),
            ("random", "random", "'random' is not a label"),
            (None, [1.0, 0.0], "are not 4 finite numbers"),
            (2, 1, "'labelled' do not hold under label 1\nthey were fitted under label 2"),
            (2, [0.5, 0.5, 0, 0], r"do not hold under label \(0.5, 0.5, 0.0, 0.0\)"),
            ((0.5, 0.5, 0.0, 0.0), 1, "do not hold under label 1"),
            ("random", [0.5, 0.5, 0, 0], "hold for every class, not between classes\ngive a class from 0 to 3"),
        ],
    )
    def test_wrong_labels(self, conditional, fitted, label, message):
        with pytest.raises(ArgumentError, match=message):
            generate("smile", 1, model=labelled(conditional, fitted), label=label, sampler=Never(), progress=False)

    def test_a_label_for_a_model_without_classes(self, draw):
        with pytest.raises(ArgumentError, match="has no classes, so it takes no label"):
            draw(label=0, sampler=Never())
        assert draw().provenance["label"] is None

    def test_it_stands_under_the_grid(self, conditional, monkeypatch):
        footers = []
        monkeypatch.setattr(
            "energyql.pipeline.result.label_grid", lambda images, *, footer, **_: footers.append(footer) or images[0]
        )
        generate("smile", 1, model=labelled(conditional, 2), progress=False).grid()
        assert "Model labelled, label 2, seed 0" in footers[0]


class Blobs(torch.nn.Module):
    """A generator of one's own, in training mode, as it is made; batch statistics would show."""

    z_dim = 3

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)

    def encode(self, z, truncation=1.0):
        return truncation * z

    def synthesize(self, w):
        return torch.tanh(self.norm(w))[:, :, None, None].expand(-1, -1, 8, 8)


def colours(images):
    red, green, blue = images.mean((2, 3)).unbind(1)
    first = ["red" if r > b else "blue" for r, b in zip(red, blue, strict=True)]
    return {"bright": red + green + blue > 0, "first": first, "red": red, "more": red}


class TestModelsInMemory:
    VOCABULARY = Vocabulary(
        [
            AttributeSpec("bright", "yes/no"),
            AttributeSpec("first", "categorical", values=("red", "blue")),
            AttributeSpec("red", "continuous", low=-1.0),
        ]
    )

    def model(self, **settings):
        return Model("blobs", Blobs(), AttributeBank(self.VOCABULARY, random_heads(self.VOCABULARY, 3)), **settings)

    def test_a_loaded_model(self, tiny, draw):
        result = draw(model=load_model(tiny))
        assert torch.equal(result.z, draw().z)
        assert result.provenance == draw().provenance

    def test_a_generator_of_ones_own(self):
        model = self.model()
        few, many = (generate("bright AND red > 0", n, model=model, progress=False) for n in (1, 5))
        assert not model.generator.training
        assert pixels(few.images)[0] == pixels(many.images)[0]
        assert few.provenance["judge"] == "attribute heads"
        assert few.provenance["model"] == "blobs"

    def test_a_function_as_judge(self):
        result = generate("bright AND first = red", 40, model=self.model(judge=colours), progress=False)
        assert result.provenance["judge"] == "image judge"
        assert list(result.judged) == ["bright", "first", "red"]
        assert [column.dtype.kind for column in result.judged.values()] == ["b", "U", "f"]
        shown = torch.tensor(np.stack([np.asarray(image) for image in result.images])).permute(0, 3, 1, 2) / 127.5 - 1
        assert result.judged["red"] == pytest.approx(shown[:, 0].mean((1, 2)).numpy(), abs=0.01)
        expected = result.judged["bright"] & (result.judged["first"] == "red")
        assert (result.satisfied == expected).all()
        result.grid()

    def test_the_device_is_that_of_the_model(self, tiny, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert generate("smile", 1, model=load_model(tiny), progress=False).provenance["device"] == "cpu"
        with pytest.raises(ArgumentError, match="'abacus' is not available"):
            generate("smile", 1, model=load_model(tiny), device="abacus")


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    assert choose_device(torch.device("cpu")) == torch.device("cpu")


def test_a_pipeline_is_enough(tiny):
    by_hand = Pipeline(load_model(tiny), torch.device("cpu")).generate(QUERY, 2, progress=False)
    assert torch.equal(by_hand.z, generate(QUERY, 2, model=tiny, device="cpu", progress=False).z)
