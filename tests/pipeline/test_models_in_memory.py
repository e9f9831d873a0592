"""Models in memory: conditional generators, generators of one's own, judges that are functions."""

import dataclasses

import numpy as np
import pytest
import torch
from toys import CONFIG, VOCABULARY, NeverSampler, pixels, random_generator, random_heads

from energyql import Model, generate, load_model, score
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.predictions import tabulate
from energyql.errors import ArgumentError, ModelError
from energyql.generators.families import module_fingerprint
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config
from energyql.vocabulary import AttributeSpec, Vocabulary


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


def labelled(generator, condition, space="w", judge=None):
    """A model whose heads were fitted under a condition."""
    size = generator.config.w_dim if space == "w" else generator.z_dim
    bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, size), fitted=FittedUnder(space, condition=condition))
    return Model("labelled", generator, bank, judge)


class TestLabels:
    @pytest.mark.parametrize("fitted", [None, "random"])
    def test_pictures_of_a_class(self, conditional, fitted):
        model = labelled(conditional, fitted)
        first, again, second = (generate("smile", 3, model=model, condition=k, progress=False) for k in (1, 1, 3))
        assert torch.equal(first.w, again.w)
        assert not torch.allclose(first.w, second.w)
        assert first.provenance["condition"] == 1
        for condition, result in ((1, first), (3, second)):
            w = conditional.encode(result.z, condition=torch.eye(4)[[condition] * 3])
            torch.testing.assert_close(result.w, w)
            predictions = tabulate(model.bank.predict(w))  # and guided under it too
            assert score("smile", predictions) == pytest.approx(result.energy, abs=1e-4)

    def test_heads_on_z(self, conditional):
        result = generate("smile", 2, model=labelled(conditional, 2, space="z"), progress=False)
        torch.testing.assert_close(result.w, conditional.encode(result.z, condition=torch.eye(4)[[2, 2]]))

    def test_the_label_of_the_heads_is_the_default(self, conditional):
        model = labelled(conditional, 2)
        assert torch.equal(
            generate("smile", 2, model=model, progress=False).w,
            generate("smile", 2, model=model, condition=[0, 0, 1, 0], progress=False).w,
        )

    def test_numbers(self, conditional):
        mix = (0.5, 0.5, 0.0, 0.0)
        result = generate("smile", 2, model=labelled(conditional, mix), condition=list(mix), progress=False)
        torch.testing.assert_close(result.w, conditional.encode(result.z, condition=torch.tensor([mix, mix])))
        assert result.provenance["condition"] == mix

    def test_a_random_class_by_default_if_heads_hold_for_every_class(self, conditional):
        model = labelled(conditional, "random")
        runs = [generate("smile", 1, model=model, seed=seed, progress=False) for seed in range(12)]
        assert {run.provenance["condition"] for run in runs} == {0, 1, 2, 3}
        again = generate("smile", 1, model=model, seed=5, condition=runs[5].provenance["condition"], progress=False)
        assert torch.equal(again.w, runs[5].w)

    @pytest.mark.parametrize(
        ("fitted", "condition", "message"),
        [
            (None, None, "conditional on 4 classes: give a condition\na condition is a class from 0 to 3"),
            (None, 4, "4 is not a condition\na condition is a class from 0 to 3"),
            (None, -1, "-1 is not a condition"),
            ("random", "random", "'random' is not a condition"),
            (None, [1.0, 0.0], r"\[1.0, 0.0\] is not a condition"),
            (2, 1, "'labelled' do not hold under condition 1\nthey were fitted under condition 2"),
            (2, [0.5, 0.5, 0, 0], r"do not hold under condition \(0.5, 0.5, 0.0, 0.0\)"),
            ((0.5, 0.5, 0.0, 0.0), 1, "do not hold under condition 1"),
            ("random", [0.5, 0.5, 0, 0], "hold for every class, not between classes\ngive a class from 0 to 3"),
        ],
    )
    def test_wrong_labels(self, conditional, fitted, condition, message):
        with pytest.raises(ArgumentError, match=message):
            generate(
                "smile",
                1,
                model=labelled(conditional, fitted),
                condition=condition,
                sampler=NeverSampler(),
                progress=False,
            )

    def test_a_label_for_a_model_without_classes(self, draw):
        with pytest.raises(ArgumentError, match="has no classes, so it takes no condition"):
            draw(condition=0, sampler=NeverSampler())
        assert draw().provenance["condition"] is None

    def test_it_stands_under_the_grid(self, conditional, monkeypatch):
        footers = []
        monkeypatch.setattr(
            "energyql.pipeline.result.label_grid",
            lambda cells, *, footer, **_: footers.append(footer) or cells[0].picture,
        )
        generate("smile", 1, model=labelled(conditional, 2), progress=False).grid()
        assert "Model labelled, condition 2, seed 0" in footers[0]


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
        assert few.provenance["judge"] is None
        assert few.provenance["model"] == "blobs"

    def test_a_function_as_judge(self):
        result = generate("bright AND first = red", 40, model=self.model(judge=colours), progress=False)
        assert result.provenance["judge"] == f"judge {colours.__module__}:colours"
        said = f"of 40 satisfy the query, says the judge {colours.__module__}:colours"
        helps = "--verify sure keeps only those, --only-satisfied draws until 40 do; more labels improve the heads"
        assert result.summary().endswith(f"{said}. The attribute heads expected 93 %: {helps}")
        assert list(result.judged) == ["bright", "first", "red"]
        assert [column.dtype.kind for column in result.judged.values()] == ["b", "U", "f"]
        shown = torch.tensor(np.stack([np.asarray(image) for image in result.images])).permute(0, 3, 1, 2) / 127.5 - 1
        assert result.judged["red"] == pytest.approx(shown[:, 0].mean((1, 2)).numpy(), abs=0.01)
        expected = result.judged["bright"] & (result.judged["first"] == "red")
        assert (result.satisfied == expected).all()
        result.grid()

    def test_a_judge_of_some_attributes(self):
        model = self.model(judge=lambda images: {"red": images[:, 0].mean((1, 2))})
        seen, unseen = (generate(query, 3, model=model, progress=False) for query in ("red > 0", "red > 0 AND bright"))
        assert seen.satisfied.tolist() == (seen.judged["red"] > 0).tolist()
        assert unseen.satisfied is None
        assert list(unseen.judged) == ["red"]
        assert list(unseen.values) == list(model.vocabulary)
        assert unseen.summary().startswith("not judged: the judge does not read 'bright'; mean P ")

    def test_the_device_is_that_of_the_model(self, tiny, monkeypatch):
        model = load_model(tiny, "cpu")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert generate("smile", 1, model=model, progress=False).provenance["device"] == "cpu"
        with pytest.raises(ArgumentError, match="'abacus' is not available"):
            generate("smile", 1, model=model, device="abacus")


class TestParts:
    """What is no part of a model is refused where the model is made."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"generator": object()}, "the generator of model 'faces' is a object without z_dim, encode, synthesize"),
            ({"generator": StyleGAN3}, r"StyleGAN3 is a class, not a generator\nmake one: StyleGAN3\(\)"),
            ({"judge": 3}, "the judge of model 'faces' cannot be called with pictures: 3"),
            ({"judge": lambda: {"smile": []}}, "the judge of model 'faces' cannot be called with pictures: <function"),
        ],
    )
    def test_other_things(self, change, message):
        generator = random_generator()
        parts = {"generator": generator, "bank": AttributeBank(VOCABULARY, random_heads(VOCABULARY, CONFIG.w_dim))}
        with pytest.raises(ArgumentError, match=message):
            Model("faces", **(parts | change))


class Plain:
    """A generator of one's own, without weights."""

    z_dim = 8

    def encode(self, z, truncation=1.0):
        return truncation * z

    def synthesize(self, w):
        return w[:, :3, None, None]


class Weighted(Plain, torch.nn.Module):
    """One with weights."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3))


def test_attributes_beside_a_generator_of_ones_own(tmp_path):
    blobs = Weighted()
    heads = random_heads(VOCABULARY, 8)
    fitted = FittedUnder(truncation=(0.5, 0.8), generator=module_fingerprint(blobs))
    AttributeBank(VOCABULARY, heads, fitted=fitted).save(tmp_path / "blobs")
    model = load_model(tmp_path / "blobs", generator=blobs)
    assert (model.name, model.generator, model.judge, model.truncation) == ("blobs", blobs, None, 0.8)
    assert model.fingerprints["generator"] == fitted.generator
    assert not blobs.training
    with torch.no_grad():
        blobs.scale += 1
    with pytest.raises(ModelError, match="fitted to another generator\ntrain the attributes again, or use"):
        load_model(tmp_path / "blobs", generator=blobs)
    AttributeBank(VOCABULARY, heads, fitted=FittedUnder(condition=1)).save(tmp_path / "blobs")
    with pytest.raises(ModelError, match="blobs: this generator has no classes"):
        load_model(tmp_path / "blobs", generator=blobs)
    with pytest.raises(ModelError, match=r"vocabulary\.json is missing"):
        load_model(tmp_path, generator=blobs)


def test_a_generator_beside_a_packaged_model_and_none_beside_attributes(tmp_path):
    with pytest.raises(ModelError, match="avatars: the attributes were fitted to another generator"):
        load_model("avatars", generator=Weighted())
    AttributeBank(VOCABULARY, random_heads(VOCABULARY, 8)).save(tmp_path / "g7")
    with pytest.raises(ModelError, match=r"not a model folder.*\n.*load_model\('.*g7', generator=\.\.\.\)"):
        load_model(str(tmp_path / "g7"))


def test_where_a_generator_without_weights_computes(tiny):
    bank = load_model(tiny).bank
    assert Model("plain", Plain(), bank).device == torch.device("cpu")
    assert Model("plain", Plain(), bank).to("meta").device.type == "meta"
