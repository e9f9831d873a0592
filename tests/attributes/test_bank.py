import dataclasses
import json
import struct

import pytest
import torch
import torch.nn.functional as F
from damage import leave_out, spoil
from toys import VOCABULARY, random_heads

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.predictions import Categorical, YesNo
from energyql.errors import ArgumentError, ModelError, UnknownAttribute, VocabularyError
from energyql.files import write_tensors
from energyql.vocabulary import AttributeSpec, Vocabulary

DIM = 6


def bank(**fitted):
    return AttributeBank(VOCABULARY, random_heads(VOCABULARY, DIM), fitted=FittedUnder(**fitted))


def head(outputs, dim=DIM):
    """A head of three hidden layers."""
    sizes = [(5, dim), (5,), (outputs, 3), (outputs, dim), (outputs,)]
    deeper = tuple((torch.rand(after, before), torch.rand(after)) for before, after in [(5, 4), (4, 3)])
    return Head(*map(torch.rand, sizes), torch.tensor(0.5), deeper)


def latents(batch=5):
    return torch.randn(batch, DIM, generator=torch.Generator().manual_seed(1))


def outputs(prediction):
    if isinstance(prediction, Categorical):
        return prediction.logits
    return (prediction.logit if isinstance(prediction, YesNo) else prediction.mean)[:, None]


def alone(head, x):
    return F.leaky_relu(x @ head.hidden_weight.T + head.hidden_bias, 0.2) @ head.out_weight.T + (
        x @ head.skip_weight.T + head.out_bias
    )


def changed(name, field, value):
    heads = random_heads(VOCABULARY, DIM)
    heads[name] = dataclasses.replace(heads[name], **{field: value})
    return heads


class TestPredictions:
    def test_together_as_alone(self):
        x, subject = latents(), bank()
        predictions = subject.predict(x)
        assert list(predictions) == list(VOCABULARY)
        for name, prediction in predictions.items():
            torch.testing.assert_close(outputs(prediction), alone(subject.heads[name], x))

    @pytest.mark.parametrize("names", [("hair",), ("beard", "age", "hair"), ("age", "smile"), ["glasses", "smile"]])
    def test_some_in_any_order(self, names):
        x, subject = latents(), bank()
        everything, some = subject.predict(x), subject.predict(x, names)
        assert list(some) == list(names)
        for name in names:
            torch.testing.assert_close(outputs(some[name]), outputs(everything[name]))

    def test_unknown_names(self):
        with pytest.raises(UnknownAttribute, match="'hat' is not an attribute of model 'tiny'\nattributes: smile"):
            bank().predict(latents(), ("smile", "hat"))
        with pytest.raises(ArgumentError, match="at least one"):
            bank().predict(latents(), ())

    def test_a_first_call_in_inference_mode_does_not_spoil_gradients(self):
        subject = bank()
        with torch.inference_mode():
            subject.predict(latents())
        x = latents().requires_grad_()
        (gradient,) = torch.autograd.grad(subject.predict(x)["smile"].logit.sum(), x)
        assert (gradient != 0).any(dim=1).all()

    def test_the_linear_path_keeps_a_gradient(self):
        heads = changed("smile", "out_weight", torch.zeros(1, 4))
        x = latents().requires_grad_()
        (gradient,) = torch.autograd.grad(AttributeBank(VOCABULARY, heads).predict(x)["smile"].logit.sum(), x)
        torch.testing.assert_close(gradient, heads["smile"].skip_weight.expand(5, -1))


class TestConstruction:
    def test_to(self):
        subject = bank(space="z", truncation=(0.5, 1.0), generator="abc")
        moved = subject.to("meta")
        assert moved.predict(latents().to("meta"))["hair"].logits.device.type == "meta"
        assert (moved.space, moved.truncation, moved.generator) == ("z", (0.5, 1.0), "abc")
        assert subject.heads["smile"].std.device.type == "cpu"

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("hidden_weight", torch.zeros(4, DIM + 1), r"hidden_weight has shape \(4, 7\), not \(4, 6\)"),
            ("hidden_weight", torch.zeros(3, DIM), "hidden_weight"),
            ("hidden_bias", torch.zeros(()), "the head of 'hair': hidden_weight has shape"),
            ("out_weight", torch.zeros(2, 4), r"out_weight has shape \(2, 4\), not \(3, 4\)"),
            ("skip_weight", torch.zeros(3, 2), "skip_weight"),
            ("out_bias", torch.zeros(3, 1), "out_bias"),
            ("std", torch.ones(1), "std has shape"),
        ],
    )
    def test_a_head_that_does_not_fit(self, field, value, message):
        with pytest.raises(ModelError, match=message):
            AttributeBank(VOCABULARY, changed("hair", field, value))

    def test_heads_and_vocabulary_differ(self):
        heads = random_heads(VOCABULARY, DIM)
        with pytest.raises(ModelError, match="do not match"):
            AttributeBank(VOCABULARY, {name: heads[name] for name in reversed(heads)})
        with pytest.raises(ModelError, match="at least one head"):
            AttributeBank(Vocabulary([]), {})

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"space": "w+"}, "not 'w\\+'"),
            ({"space": "picture"}, "not 'picture'"),
            ({"truncation": (1.0, 0.5)}, "no range"),
            ({"truncation": (0.5, float("nan"))}, "no range"),
            ({"condition": "cat"}, "'cat' is no condition"),
            ({"condition": -1}, "-1 is no condition"),
            ({"condition": True}, "True is no condition"),
            ({"condition": (0.5, float("inf"))}, "is no condition"),
            ({"condition": "random", "space": "z"}, "heads that read z cannot tell the classes apart"),
        ],
    )
    def test_wrong_settings(self, setting, message):
        with pytest.raises(ModelError, match=message):
            bank(**setting)


class TestFiles:
    def test_round_trip_is_exact(self, tmp_path):
        heads = random_heads(VOCABULARY, DIM) | {"smile": head(1)}
        subject = AttributeBank(VOCABULARY, heads, fitted=FittedUnder("z", (0.5, 0.9), generator="abc"))
        subject.save(tmp_path)
        loaded = AttributeBank.load(tmp_path)
        assert loaded.vocabulary == VOCABULARY
        assert (loaded.space, loaded.truncation, loaded.generator) == ("z", (0.5, 0.9), "abc")
        assert len(loaded.heads["smile"].deeper) == 2
        assert subject.to("meta").heads["smile"].deeper[1][1].device.type == "meta"
        for name, one in subject.heads.items():
            for field, tensor in one.tensors().items():
                assert torch.equal(loaded.heads[name].tensors()[field], tensor)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["attributes.safetensors", "vocabulary.json"]

    @pytest.mark.parametrize("condition", [None, 0, 7, (0.25, 0.75), "random"])
    def test_the_label_is_kept(self, tmp_path, condition):
        subject = bank(condition=condition)
        subject.save(tmp_path)
        assert AttributeBank.load(tmp_path).condition == subject.to("meta").condition == condition
        specs = Vocabulary([dataclasses.replace(VOCABULARY["smile"], name="grin")])
        assert subject.with_heads(AttributeBank(specs, random_heads(specs, DIM))).condition == condition

    def test_the_format_of_the_description(self, tmp_path):
        vocabulary = Vocabulary([AttributeSpec("hat", "yes/no")])
        fitted = FittedUnder("w", (0.5, 0.9), (0.25, 0.75), "abc")
        AttributeBank(vocabulary, {"hat": head(1)}, fitted=fitted).save(tmp_path)
        entries = json.loads((tmp_path / "vocabulary.json").read_text())
        assert list(entries.items()) == [
            ("space", "w"), ("truncation", [0.5, 0.9]), ("condition", [0.25, 0.75]), ("generator", "abc"),
            ("vocabulary", vocabulary.to_dict()),
        ]  # fmt: skip

    def test_saved_again_it_is_the_same_file(self, tmp_path):
        bank().save(tmp_path / "a")
        AttributeBank.load(tmp_path / "a").save(tmp_path / "b")
        for name in ("attributes.safetensors", "vocabulary.json"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_the_weights_are_no_pickle(self, tmp_path):
        bank().save(tmp_path)
        data = (tmp_path / "attributes.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        assert {"smile/std", "hair/out_weight"} <= set(header)

    @pytest.mark.parametrize("file", ["attributes.safetensors", "vocabulary.json"])
    @pytest.mark.parametrize("damage", ["missing", "empty", "half", "noise", "folder", "pickle"])
    def test_damaged_files_are_named(self, tmp_path, file, damage):
        bank().save(tmp_path)
        spoil(tmp_path / file, damage)
        with pytest.raises(ModelError, match=file):
            AttributeBank.load(tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"space": "q"}, "w, z, direction, features, not 'q'"),
            ({"truncation": [0.5]}, "vocabulary.json"),
            ({"truncation": ["a", 1]}, "vocabulary.json"),
            ({"truncation": None}, "vocabulary.json"),
            ({"condition": {}}, "vocabulary.json: {} is no condition"),
            ({"condition": ["a"]}, "vocabulary.json"),
            ({"vocabulary": []}, "vocabulary.json"),
            ({"vocabulary": {"version": 99, "attributes": []}}, "vocabulary.json: vocabulary version 99 is unknown"),
            ({"vocabulary": {"version": 1, "attributes": []}}, "tensors that no attribute needs: age/"),
        ],
    )
    def test_wrong_descriptions(self, tmp_path, change, message):
        bank().save(tmp_path)
        path = tmp_path / "vocabulary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(ModelError, match=message):
            AttributeBank.load(tmp_path)

    @pytest.mark.parametrize("key", ["space", "truncation", "generator", "vocabulary"])
    def test_a_description_without_a_part(self, tmp_path, key):
        bank().save(tmp_path)
        leave_out(tmp_path / "vocabulary.json", key)
        with pytest.raises(ModelError, match=f"vocabulary.json: '{key}' is missing"):
            AttributeBank.load(tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"hat/std": torch.ones(())}, "attributes.safetensors: it holds tensors that no attribute needs: hat/std"),
            ({"smile/std": None}, "attributes.safetensors: 'smile/std' is missing"),
            ({"smile/out_bias": torch.zeros(2)}, "attributes.safetensors: the head of 'smile': out_bias has shape"),
            ({"age/std": torch.tensor(0.0)}, "attributes.safetensors: the head of 'age' has .* not above 0"),
            (
                {"age/out_bias": torch.tensor([torch.nan])},
                "attributes.safetensors: the head of 'age' has .* not finite",
            ),
            ({"age/hidden_weight": torch.zeros(4, 7)}, "attributes.safetensors: the head of 'age': hidden_weight has"),
        ],
    )
    def test_wrong_tensors(self, tmp_path, change, message):
        subject = bank()
        subject.save(tmp_path)
        tensors = {
            f"{n}/{f}": tensor for n, one in subject.heads.items() for f, tensor in one.tensors().items()
        } | change
        path = tmp_path / "attributes.safetensors"
        write_tensors(path, {name: tensor for name, tensor in tensors.items() if tensor is not None})
        with pytest.raises(ModelError, match=message):
            AttributeBank.load(tmp_path)


class TestMoreHeads:
    def test_others_stay_the_same_objects(self):
        subject, new = (
            bank(space="z", truncation=(0.5, 1.0), generator="abc"),
            Vocabulary([AttributeSpec("hat", "yes/no")]),
        )
        more = subject.with_heads(AttributeBank(new, {"hat": head(1)}))
        assert list(more.vocabulary) == [*VOCABULARY, "hat"]
        assert all(more.heads[name] is head for name, head in subject.heads.items())
        assert (more.space, more.truncation, more.generator) == ("z", (0.5, 1.0), "abc")
        torch.testing.assert_close(more.predict(latents())["age"].mean, subject.predict(latents())["age"].mean)
        assert more.vocabulary.model == VOCABULARY.model

    def test_a_name_that_is_taken(self):
        new = Vocabulary([AttributeSpec("age", "yes/no")])
        with pytest.raises(VocabularyError, match="already has 'age'\n.*replace"):
            bank().with_heads(AttributeBank(new, {"age": head(1)}))
        more = bank().with_heads(AttributeBank(new, {"age": head(1)}), replace=True)
        assert list(more.vocabulary) == list(VOCABULARY)
        assert more.vocabulary["age"].kind == "yes/no"

    def test_a_head_for_other_latents(self):
        other = head(1, DIM + 1)
        with pytest.raises(ModelError, match="the head of 'hat'"):
            bank().with_heads(AttributeBank(Vocabulary([AttributeSpec("hat", "yes/no")]), {"hat": other}))
