"""Attributes that are read off pictures: what readers may return, who is the same reader, and what folders hold."""

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn
from toys import VOCABULARY, lively_judge, random_generator, tiny_model

from energyql.attributes.bank import PICTURE, FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import JointJudge
from energyql.attributes.pictures import CERTAIN, PictureBank, heads_of, load_bank
from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.errors import ArgumentError, DataError, ModelError
from energyql.files import read_json, write_json
from energyql.pipeline.model import is_same
from energyql.vocabulary import AttributeSpec, Vocabulary

KNOWN = Vocabulary(
    [
        AttributeSpec("red", "yes/no"),
        AttributeSpec("shade", "categorical", values=("dark", "light")),
        AttributeSpec("grey", "continuous", low=-1, high=1, tolerance=0.2),
    ]
)
PICTURES = torch.linspace(-1, 1, 4 * 3 * 8 * 8).view(4, 3, 8, 8)


def look(images):
    grey = images.mean((1, 2, 3))
    return {"red": grey > 0, "shade": ["light" if one > 0 else "dark" for one in grey], "grey": grey}


class Net(nn.Module):
    """A network that returns predictions, and that knows its attributes."""

    vocabulary = KNOWN

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(3.0))

    def forward(self, images):
        grey = self.slope * images.mean((1, 2, 3))
        shade = Categorical(torch.stack([-grey, grey], 1), ("dark", "light"))
        return {"red": YesNo(grey), "shade": shade, "grey": Continuous(grey, 0.3)}


class TestPredictions:
    def test_values_are_certain_but_not_quite(self):
        found = PictureBank(look, KNOWN).predict(PICTURES)
        assert found["red"].logit.tolist() == [-CERTAIN, -CERTAIN, CERTAIN, CERTAIN]
        assert found["shade"].probability(["light"]).tolist() == pytest.approx([9e-4, 9e-4, 0.999, 0.999], abs=1e-4)
        assert torch.equal(found["grey"].mean, PICTURES.mean((1, 2, 3)))
        assert found["grey"].std == 0.2

    def test_predictions_are_taken_as_they_are(self):
        net, bank = Net(), PictureBank(Net())
        assert bank.vocabulary is KNOWN
        found = bank.predict(PICTURES.double(), ["grey", "red"])
        assert list(found) == ["grey", "red"]
        assert found["red"].logit.dtype == torch.float64
        assert found["red"].logit.tolist() == pytest.approx(net(PICTURES)["red"].logit.tolist(), abs=1e-6)
        assert float(found["grey"].std) == pytest.approx(0.3)

    def test_gradients_only_of_modules_unless_told_otherwise(self):
        variable = PICTURES.clone().requires_grad_()
        assert PictureBank(Net()).predict(variable)["red"].logit.requires_grad
        assert not PictureBank(Net(), gradient=False).predict(variable)["red"].logit.requires_grad
        assert not PictureBank(look, KNOWN).gradient
        assert (
            PictureBank(lambda images: Net()(images), KNOWN, gradient=True).predict(variable)["red"].logit.requires_grad
        )

    @pytest.mark.parametrize(
        ("reader", "message"),
        [
            (lambda images: {"red": images[:, 0, 0, 0] > 0}, "returns no 'shade', only red"),
            (lambda images: look(images) | {"red": [True]}, "'red': 4 pictures but 1 values"),
            (lambda images: look(images) | {"red": [True, None, True, True]}, "no value of 'red' for some pictures"),
            (lambda images: look(images) | {"shade": ["pale"] * 4}, "'shade' is 'pale', not one of dark, light"),
            (lambda images: [1], r"must return a dict .* not \[1\]"),
            (lambda images: look(images) | {"red": YesNo([1.0] * 4)}, "the reader's logit of 'red' is a list"),
        ],
    )
    def test_wrong_answers(self, reader, message):
        with pytest.raises(DataError, match=message):
            PictureBank(reader, KNOWN).predict(PICTURES)

    def test_attributes_must_be_known(self):
        with pytest.raises(ModelError, match="PictureBank needs a vocabulary of what the reader .*look returns"):
            PictureBank(look)
        with pytest.raises(ModelError, match="Net does not read 'hat', only red, shade, grey"):
            PictureBank(Net(), Vocabulary([AttributeSpec("hat", "yes/no")]))

    def test_it_is_fitted_to_pictures(self):
        with pytest.raises(ModelError, match="a reader reads pictures, not 'w'") as error:
            PictureBank(look, KNOWN, fitted=FittedUnder(truncation=(0.5, 0.7)))
        assert error.value.hint == "give FittedUnder('picture', ...)"


class TestSame:
    def test_the_same(self):
        one = Net()
        pair = lively_judge(random_generator()), lively_judge(random_generator())
        for a, b in [
            (one, one),
            (look, look),
            (one.forward, one),
            (functools.partial(one), one),
            (nn.Sequential(one), one),
            (copy.deepcopy(one), one),
            (JointJudge([pair[0]]), pair[0]),
            (JointJudge([pair[0].only(["smile"]), lively_judge(random_generator(), seed=3).only(["beard"])]), pair[0]),
            (pair[0].only(["smile", "age"]), pair[1]),
            pair,
        ]:
            assert is_same(a, b)
            assert is_same(b, a)

    def test_others(self):
        one, other = Net(), Net()
        other.slope.data += 1
        for a, b in [
            (one, other),
            (look, one),
            (look, lambda images: look(images)),
            (functools.partial(look), functools.partial(len)),
            (lively_judge(random_generator()), lively_judge(random_generator(), seed=2)),
        ]:
            assert not is_same(a, b)


class TestFolders:
    def test_a_network_comes_back(self, tmp_path):
        judge = lively_judge(random_generator())
        bank = PictureBank(judge, fitted=FittedUnder(PICTURE, (0.5, 0.9), condition=3, generator="mark"))
        bank.save(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"vocabulary.json", "reader.json", "reader.safetensors"}
        again = load_bank(tmp_path)
        assert isinstance(again, PictureBank)
        assert (again.truncation, again.condition, again.generator, again.space) == ((0.5, 0.9), 3, "mark", "picture")
        assert again.vocabulary == VOCABULARY
        pictures = torch.rand(3, 3, 16, 16)
        for name, prediction in bank.predict(pictures, ["smile", "beard"]).items():
            assert torch.equal(again.predict(pictures, [name])[name].logit, prediction.logit)

    def test_part_of_a_network(self, tmp_path):
        PictureBank(lively_judge(random_generator()), Vocabulary([VOCABULARY["beard"]])).save(tmp_path)
        assert list(load_bank(tmp_path).reader.vocabulary) == ["beard"]

    def test_code_is_not_saved_but_its_name_is(self, tmp_path, monkeypatch):
        with pytest.raises(ModelError, match="look is code, which is not saved\nname it"):
            PictureBank(look, KNOWN).save(tmp_path)
        assert not list(tmp_path.iterdir())
        monkeypatch.chdir(tmp_path)
        (tmp_path / "gaze_reader.py").write_text("def see(images):\n    return {'red': images[:, 0, 0, 0] > 0}\n")
        known = Vocabulary([KNOWN["red"]])
        bank = PictureBank("gaze_reader:see", known)
        bank.save(tmp_path)
        with pytest.raises(ModelError, match="holds no reader, only the name of one: gaze_reader:see") as caught:
            load_bank(tmp_path)
        assert "--reader" not in str(caught.value)
        assert load_bank(tmp_path, allow_plugins=True).name == "gaze_reader:see"
        assert load_bank(tmp_path, "gaze_reader:see").predict(PICTURES)["red"].logit[3] == CERTAIN
        assert load_bank(tmp_path, look).reader is look

    def test_whether_code_has_a_gradient_comes_back(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "steep_reader.py").write_text("def see(images):\n    return {'red': images[:, 0, 0, 0] > 0}\n")
        known = Vocabulary([KNOWN["red"]])
        folder = tmp_path / "m"
        PictureBank(lively_judge(random_generator())).save(folder)  # whose network goes
        PictureBank("steep_reader:see", known, gradient=True).save(folder)
        again = load_bank(folder, allow_plugins=True)
        assert again.gradient
        assert sorted(path.name for path in folder.iterdir()) == ["vocabulary.json"]
        with pytest.raises(ModelError, match="gradient is true or false, not 'yes'"):
            write_json(folder / "vocabulary.json", read_json(folder / "vocabulary.json") | {"gradient": "yes"})
            load_bank(folder, allow_plugins=True)

    def test_heads_take_the_place_of_a_network(self, tmp_path):
        PictureBank(lively_judge(random_generator())).save(tmp_path)
        AttributeBank.load(tiny_model(tmp_path / "tiny")).save(tmp_path)
        assert not list(tmp_path.glob("reader.*"))

    def test_damage(self, tmp_path):
        PictureBank(lively_judge(random_generator())).save(tmp_path)
        (tmp_path / "reader.safetensors").unlink()
        with pytest.raises(ModelError, match=r"reader\.safetensors"):
            load_bank(tmp_path)

    def test_heads_take_no_reader(self, tmp_path):
        folder = tiny_model(tmp_path)
        assert isinstance(load_bank(folder), AttributeBank)
        with pytest.raises(ArgumentError, match="has heads that read latents, so it takes no reader"):
            load_bank(folder, look)

    def test_who_needs_heads_says_so(self):
        with pytest.raises(ArgumentError, match="an edit needs heads that read latents.*off pictures\ntrain heads"):
            heads_of(PictureBank(look, KNOWN), "an edit")


def test_numbers_of_a_network_have_a_known_spread():
    assert list(PictureBank(lively_judge(random_generator())).std) == ["age"]
    assert PictureBank(look, KNOWN).std == {}
    assert np.isfinite(float(PictureBank(lively_judge(random_generator())).std["age"]))
