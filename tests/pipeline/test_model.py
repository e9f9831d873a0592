import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import CONFIG, VOCABULARY, random_generator, random_heads, tiny_model
from training.brief import bright, train

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, load_second, replace_second, save_second, second_bank
from energyql.attributes.judge import Convolutions, Judge, replace_networks
from energyql.attributes.predictions import decide
from energyql.attributes.quality import FIRST, judge_names
from energyql.errors import ModelError
from energyql.files import OLD, SAVED, fingerprint, finish_saving, write_json, write_tensors
from energyql.generators.families import save_model
from energyql.pipeline import model as pipeline_model
from energyql.pipeline.model import judge_mark, load_model
from energyql.vocabulary import AttributeSpec, Vocabulary


@pytest.fixture
def copy(tiny, tmp_path):
    """A model to damage."""
    return shutil.copytree(tiny, tmp_path / "model")


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_what_was_saved_is_loaded(tiny):
    model = load_model(tiny)
    assert model.name == "tiny"
    assert model.truncation == 0.7
    assert model.vocabulary == model.bank.vocabulary == VOCABULARY
    assert model.fingerprints["generator"] == model.bank.generator == fingerprint(tiny / "generator.safetensors")
    assert model.generator.config == CONFIG
    assert model.judge is not None
    assert not model.judge.training
    saved = random_generator()
    w = saved.encode(torch.ones(2, CONFIG.z_dim))
    torch.testing.assert_close(model.generator.encode(torch.ones(2, CONFIG.z_dim)), w, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(model.generator.synthesize(w), saved.synthesize(w), rtol=0, atol=2e-2)
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in model.generator.parameters())


def test_it_is_shown_in_a_line(tiny):
    model = load_model(tiny)
    assert repr(model) == f"<Model 'tiny': StyleGAN2, attributes {', '.join(VOCABULARY)}>"


def test_text_paths_and_devices(tiny):
    model = load_model(f"{tiny}/", device=torch.device("meta"))
    assert model.generator.mapping.w_avg.device.type == "meta"
    assert model.bank.heads["smile"].std.device.type == "meta"
    assert model.judge.std.device.type == "meta"


def test_saving_leaves_the_generator_and_random_numbers_alone(tmp_path):
    generator, before = random_generator(), torch.get_rng_state()
    state = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    assert save_model(tmp_path, "tiny", generator) == fingerprint(tmp_path / "generator.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in generator.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), "model format 2 is unknown\ninstall a newer energyql"),
        (lambda c: c.pop("format"), r"config\.json: it is damaged \('format' is missing"),
        (lambda c: c.pop("generator"), "'generator' is missing"),
        (lambda c: c.update(generator=[1]), r"config\.json: it is damaged"),
        (lambda c: c.update(truncation="much"), r"config\.json: it is damaged .*could not convert"),
        (lambda c: c.update(truncation=float("nan")), r"config\.json: it is damaged .*truncation is nan"),
        (lambda c: c.update(truncation=1e308), r"config\.json: it is damaged .*truncation is 1e\+308"),
        (lambda c: c["generator"].update(conv_clamp=1e308), "conv_clamp must be a number between 0 and 65504"),
        (lambda c: c["generator"].update(resolution=24), "resolution must be one of 8, 16, 32"),
        (lambda c: c["generator"].update(z_dim=-8), "z_dim must be a whole number"),
        (lambda c: c["generator"].update(depth=3), r"config\.json: its generator has an unknown setting depth"),
        (lambda c: c["generator"].update(w_dim=17), r"generator\.safetensors"),
        (
            lambda c: c["generator"].update(w_dim=60_000, channel_max=60_000, channel_base=10**8),
            r"generator\.safetensors",
        ),
    ],
)
def test_a_damaged_configuration(copy, change, message):
    edit(copy / "config.json", change)
    with pytest.raises(ModelError, match=message):
        load_model(copy)


@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "generator.safetensors",
        "attributes.safetensors",
        "vocabulary.json",
        "judge.json",
        "judge.safetensors",
    ],
)
@pytest.mark.parametrize("damage", ["empty", "half", "noise"])
def test_damaged_files_are_named(copy, file, damage):
    data = (copy / file).read_bytes()
    (copy / file).write_bytes({"empty": b"", "half": data[: len(data) // 2], "noise": b"\x00\xff" * 200}[damage])
    with pytest.raises(ModelError, match=file):
        load_model(copy)


@pytest.mark.parametrize(
    "file", ["config.json", "generator.safetensors", "attributes.safetensors", "vocabulary.json", "judge.safetensors"]
)
def test_missing_files_are_named(copy, file):
    (copy / file).unlink()
    with pytest.raises(ModelError, match=file):
        load_model(copy)


def test_a_pickle_is_never_read(copy, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("boom").touch, ())

    torch.save({"mapping.w_avg": Bomb()}, copy / "generator.safetensors")
    with pytest.raises(ModelError, match=r"generator\.safetensors"):
        load_model(copy)
    assert not (tmp_path / "boom").exists()


def test_missing_and_extra_weights(copy):
    state = {name: tensor.half() for name, tensor in random_generator().state_dict().items()}
    path = copy / "generator.safetensors"
    write_tensors(path, state | {"more": torch.ones(1)})
    with pytest.raises(ModelError, match=r"(?s)generator\.safetensors.*more"):
        load_model(copy)
    write_tensors(path, {name: tensor for name, tensor in state.items() if name != "mapping.w_avg"})
    with pytest.raises(ModelError, match=r"(?s)generator\.safetensors.*w_avg"):
        load_model(copy)


def test_heads_of_another_generator(copy):
    save_model(copy, "tiny", random_generator(seed=1))
    with pytest.raises(ModelError, match="fitted to another generator\ntrain the attributes again"):
        load_model(copy)


@pytest.mark.parametrize(("space", "wrong", "right"), [("w", 8, 16), ("z", 16, 8)])
def test_heads_of_another_size(copy, space, wrong, right):
    AttributeBank(VOCABULARY, random_heads(VOCABULARY, wrong), fitted=FittedUnder(space)).save(copy)
    with pytest.raises(ModelError, match=f"heads read {wrong} numbers but {space} has {right}"):
        load_model(copy)


@pytest.mark.parametrize(("classes", "condition"), [(0, 1), (0, "random"), (3, 3), (3, (1.0, 0.5))])
def test_heads_of_a_label_that_the_generator_has_not(tmp_path, classes, condition):
    config = dataclasses.replace(CONFIG, c_dim=classes)
    mark = save_model(tmp_path, "tiny", random_generator(config))
    fitted = FittedUnder(condition=condition, generator=mark)
    AttributeBank(VOCABULARY, random_heads(VOCABULARY, 16), fitted=fitted).save(tmp_path)
    with pytest.raises(ModelError, match=r"(no class|is not a condition)(.|\n)*train the attributes again"):
        load_model(tmp_path)


@pytest.mark.parametrize("condition", [None, 2, (0.0, 0.5, 0.5), "random"])
def test_heads_of_a_label(tmp_path, condition):
    mark = save_model(tmp_path, "tiny", random_generator(dataclasses.replace(CONFIG, c_dim=3)))
    fitted = FittedUnder(condition=condition, generator=mark)
    AttributeBank(VOCABULARY, random_heads(VOCABULARY, 16), fitted=fitted).save(tmp_path)
    model = load_model(tmp_path)
    assert model.bank.condition == condition
    asked = 2 if condition in (None, "random") else None
    assert model.check_condition(asked) == (condition if isinstance(condition, tuple) else 2)


def test_moving_a_model(tiny):
    model = load_model(tiny)
    assert model.device == torch.device("cpu")
    model.generator.train()
    moved = model.to("meta")
    assert not moved.generator.training
    assert moved.device.type == moved.bank.device.type == "meta"
    assert model.bank.device.type == "cpu"


def test_a_judge_of_some_attributes(copy):
    Judge(Vocabulary([VOCABULARY["smile"]]), Convolutions(16, (4,))).eval().save(copy)
    model = load_model(copy)
    assert model.judged_names == ("smile",)
    assert list(model.judge_images(torch.zeros(2, 3, 16, 16))) == ["smile"]


@pytest.mark.parametrize(
    "spec", [AttributeSpec("laugh", "yes/no"), AttributeSpec("smile", "categorical", values=("no", "yes"))]
)
def test_a_judge_of_other_attributes(copy, spec):
    Judge(Vocabulary([spec]), Convolutions(16, (4,))).save(copy)
    with pytest.raises(ModelError, match=f"the judge reads '{spec.name}', which the heads do not"):
        load_model(copy)


def test_two_judges(copy, tmp_path):
    first, second = ["age", "hair"], ["beard", "smile"]
    whole = load_model(copy).judge
    replace_networks(copy, FIRST, VOCABULARY, [whole.only(first)])
    replace_networks(copy, FIRST, second, [whole.only(second)])
    assert judge_names(copy) == ["judge", "judge-2"]
    model = load_model(copy)
    assert model.judged_names == ("smile", "hair", "age", "beard")
    assert model.fingerprints["judge-2"] == fingerprint(copy / "judge-2.safetensors")
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    alone = decide(whole(images))
    for name, values in model.judge_images(images).items():
        if values.dtype.kind == "f":  # the last digits depend on how many outputs are multiplied together
            np.testing.assert_allclose(values, alone[name], rtol=1e-5)
        else:
            assert (values == alone[name]).all()
    assert model.judge.features(images).shape[1] == 2 * whole.features(images).shape[1]
    replace_networks(copy, FIRST, ["age", "beard", "smile"])  # nothing is left of the second judge
    assert judge_names(copy) == ["judge"]
    assert load_model(copy).judged_names == ("hair",)


def test_two_judges_of_one_attribute(copy):
    Judge(Vocabulary([VOCABULARY["smile"]]), Convolutions(16, (4,))).save(copy, "judge-2")
    with pytest.raises(ModelError, match=r"judge-2\.json: judge\.json reads 'smile' as well"):
        load_model(copy)


def test_a_judge_of_ones_own_in_place_of_the_stored(copy):
    model = load_model(copy, judge=lambda images: {})
    assert model.fingerprints["judge"] == judge_mark(model.judge) != load_model(copy).fingerprints["judge"]
    assert model.judged_names == tuple(VOCABULARY)


class TestAnotherProcessTrains:
    """A model that is saved again while it is read is read again, so that no parts of two trainings meet."""

    @pytest.fixture
    def trained(self, tmp_path):
        """The model after the training, with other heads and another judge."""
        model = tiny_model(tmp_path / "trained" / "model")
        heads, fitted = random_heads(VOCABULARY, CONFIG.w_dim, seed=1), AttributeBank.load(model).fitted
        AttributeBank(VOCABULARY, heads, fitted=fitted).save(model)
        Judge(VOCABULARY, Convolutions(16, (4, 8))).save(model)
        return model

    def save(self, folder, trained, until):
        """Replace the files in `folder` as a training does; or begin to, and be killed."""
        new = ("attributes.safetensors", "judge.safetensors", "judge.json")
        (folder / SAVED).mkdir()
        for name in new:
            shutil.copyfile(trained / name, folder / SAVED / name)
        write_json(folder / SAVED / OLD, {"gone": [], "hidden": []})
        if until == "killed":
            (folder / SAVED / new[1]).replace(folder / new[1])
        else:
            finish_saving(folder)

    @pytest.mark.parametrize("moment", ["load_bank", "load_verifier", "load_second"])
    @pytest.mark.parametrize("until", ["end", "killed"])
    def test_what_is_loaded_is_of_one_training(self, copy, trained, monkeypatch, moment, until):
        original, calls = getattr(pipeline_model, moment), []

        def meanwhile(folder, *arguments, **settings):
            calls.append(folder)
            if len(calls) == 1:
                self.save(folder, trained, until)
            return original(folder, *arguments, **settings)

        monkeypatch.setattr(pipeline_model, moment, meanwhile)
        loaded, expected = load_model(copy), load_model(trained)
        assert loaded.fingerprints == expected.fingerprints
        assert loaded.judge.head.weight.equal(expected.judge.head.weight)
        assert loaded.bank.heads["smile"].hidden_weight.equal(expected.bank.heads["smile"].hidden_weight)
        assert not (copy / SAVED).exists()

    def test_a_file_that_is_gone_meanwhile(self, copy, monkeypatch):
        """The last training has no judge."""
        original, calls = pipeline_model.load_judge, []

        def meanwhile(folder, *arguments):
            calls.append(folder)
            if len(calls) == 1:
                (folder / "judge.safetensors").unlink()
                with pytest.raises(ModelError, match=r"judge\.safetensors is missing"):
                    original(folder, *arguments)
                (folder / "judge.json").unlink()
                raise ModelError("as another process would meet it")
            return original(folder, *arguments)

        monkeypatch.setattr(pipeline_model, "load_judge", meanwhile)
        assert load_model(copy).judge is None

    def test_a_copy_is_of_one_training(self, copy, trained, tmp_path, monkeypatch):
        original, calls = shutil.copyfile, []

        def meanwhile(source, target):
            if source.name == "judge.json" and not calls:
                calls.append(source)
                self.save(copy, trained, "end")
            return original(source, target)

        monkeypatch.setattr("energyql.training.target.shutil.copyfile", meanwhile)
        train(copy, bright, tmp_path / "new")
        assert fingerprint(tmp_path / "new" / "judge.safetensors") == fingerprint(trained / "judge.safetensors")
        assert fingerprint(tmp_path / "new" / "judge.json") == fingerprint(trained / "judge.json")
        heads = (load_model(folder).bank.heads["smile"] for folder in (tmp_path / "new", trained))
        assert torch.equal(*(head.hidden_weight for head in heads))


class TestSecondHeads:
    HEADS = random_heads(VOCABULARY, CONFIG.w_dim, seed=1)

    def test_round_trip(self, copy):
        save_second(copy, {name: self.HEADS[name] for name in ("age", "smile")})
        model = load_model(copy)
        assert list(model.second) == ["smile", "age"]
        assert model.fingerprints["second"] == fingerprint(copy / "second.safetensors")
        w = torch.randn(3, CONFIG.w_dim, generator=torch.Generator().manual_seed(0))
        found, first = second_bank(model.bank, model.second).predict(w), model.bank.predict(w)
        other = AttributeBank(VOCABULARY, self.HEADS).predict(w)
        torch.testing.assert_close(found["smile"].logit, other["smile"].logit)
        torch.testing.assert_close(found["beard"].logit, first["beard"].logit)

    def test_those_of_replaced_attributes_go(self, copy):
        bank = load_model(copy).bank
        save_second(copy, self.HEADS)
        replace_second(copy, bank, ["smile"], {})
        assert "smile" not in load_second(copy, bank)
        replace_second(copy, bank, VOCABULARY, {})
        assert not (copy / "second.safetensors").exists()

    @pytest.mark.parametrize("damage", ["empty", "half", "noise", "more", "size", "number"])
    def test_damaged_files(self, copy, damage):
        save_second(copy, self.HEADS)
        path = copy / "second.safetensors"
        tensors = load_file(path)
        if damage in ("empty", "half", "noise"):
            data = path.read_bytes()
            path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "noise": b"\xff\x00\xfe" * 99}[damage])
        elif damage == "more":
            write_tensors(path, tensors | {"x": torch.ones(2)})
        elif damage == "size":
            write_tensors(path, tensors | {"smile/out_bias": torch.ones(2)})
        else:
            write_tensors(path, tensors | {"smile/out_bias": torch.full((1,), math.nan)})
        with pytest.raises(ModelError, match=r"second\.safetensors"):
            load_model(copy)
