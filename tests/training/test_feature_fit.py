"""Linear readers of features, rates of wrong labels, and a training with a backbone."""

import pytest
import torch
from torch import nn

from energyql.attributes.backbones import Backbone
from energyql.attributes.predictions import HEAD_KINDS
from energyql.training import feature_fit
from energyql.training.feature_fit import SIMPLE, FeatureSettings, choose_features, fit_linear
from energyql.training.feature_store import see
from energyql.training.label_noise import calibration, corrected_labels, label_loss
from energyql.training.labelled import Labelled, Seen
from energyql.training.picture_fit import Family, PictureSettings, fit_readers, leave_out, read_outputs
from energyql.training.steps import Course
from energyql.vocabulary import AttributeSpec, Vocabulary

SPECS = Vocabulary(
    [
        AttributeSpec("hat", "yes/no"),
        AttributeSpec("hair", "categorical", values=("red", "black", "none")),
        AttributeSpec("age", "continuous", low=-3, high=3),
    ]
)


def seen(count=300, seed=0):
    """Pictures of noise; a layer that tells everything, and one that tells nothing."""
    random = torch.Generator().manual_seed(seed)
    told, nothing = torch.randn(count, 40, generator=random), torch.randn(count, 40, generator=random)
    small = torch.rand(count, SIMPLE, generator=random)
    features = {"dull": torch.cat([nothing, small], 1).half(), "bright": torch.cat([told, small], 1).half()}
    labels = {
        "hat": (told[:, 0] > 1.3).float(),  # a tenth
        "hair": told[:, 1:4].argmax(1).float(),
        "age": told[:, 4],
    }
    pictures = torch.randint(0, 256, (count, 3, 8, 8), generator=random, dtype=torch.uint8)
    return Seen(pictures, features), labels


def settings(layer):
    return FeatureSettings("toy", "", layer, 8)


def test_a_reader_learns_all_kinds_and_counts_classes_equally():
    inputs, labels = seen(800)
    labels["hat"][::7] = float("nan")
    half = slice(400)
    judge = fit_linear(Labelled(inputs[half], {k: v[half] for k, v in labels.items()}, SPECS), settings("bright")).judge
    hat, *hair, age = read_outputs(judge, inputs)[400:].unbind(1)
    truth = {name: each[400:] for name, each in labels.items()}
    known = ~truth["hat"].isnan()
    yes = truth["hat"][known] > 0
    assert (hat[known] > 0)[yes].float().mean() > 0.7
    assert (hat[known] <= 0)[~yes].float().mean() > 0.7
    assert (torch.stack(hair, 1).argmax(1) == truth["hair"]).float().mean() > 0.8
    assert (age - truth["age"]).square().mean() < 0.4
    assert judge.head.weight.isfinite().all()


@pytest.mark.parametrize("wrong", [0.0, 0.1])
def test_readers_are_as_certain_as_they_are_right(wrong):
    inputs, labels = seen(3_000)
    random, given, told = torch.Generator().manual_seed(4), {}, inputs.features["bright"].float()
    labels["hat"] = torch.bernoulli((4 * told[:, 0] - 4).sigmoid(), generator=random)
    labels["hair"] = torch.multinomial((3 * told[:, 1:4]).softmax(1), 1, generator=random)[:, 0].float()
    for name, truth in labels.items():
        others = (truth + 1) % 3 if name == "hair" else 1 - truth if name == "hat" else truth.flip(0)
        given[name] = torch.where(torch.rand(3_000, generator=random) < wrong, others, truth)
    some = slice(1_000)
    judge = fit_linear(Labelled(inputs[some], {k: v[some] for k, v in given.items()}, SPECS), settings("bright")).judge
    outputs = read_outputs(judge, inputs)[1_000:].split([1, 3, 1], 1)
    for logits, name in zip(outputs[:2], ("hat", "hair"), strict=True):
        scale = calibration(logits, labels[name][1_000:], SPECS[name], exact=True).scale
        assert 0.6 < scale < 1.6
    assert (outputs[2][:, 0] - labels["age"][1_000:]).square().mean() < 0.02


def test_people_err_as_often_in_one_attribute_as_in_others(monkeypatch):
    """Where one attribute has wrong labels, those of others are corrected too, by at least the mean of all rates."""
    inputs, _ = seen(1_000)
    inputs.features["bright"][:, :2] = inputs.features["bright"][:, :2].sign()  # so clear that few labels show errors
    specs = Vocabulary([AttributeSpec(name, "yes/no") for name in ("clean", "noisy")])
    told, random, used = inputs.features["bright"].float(), torch.Generator().manual_seed(1), {}
    truth = {name: (told[:, k] > 0).float() for k, name in enumerate(specs)}
    flipped = torch.rand(1_000, generator=random) < 0.25
    correct = feature_fit._corrected

    def watched(fit, logits, given, spec):
        used.setdefault(spec.name, logits.rates)
        return correct(fit, logits, given, spec)

    monkeypatch.setattr(feature_fit, "_corrected", watched)
    fit_linear(Labelled(inputs, truth, specs), settings("bright"))
    assert used == {}
    given = truth | {"noisy": torch.where(flipped, 1 - truth["noisy"], truth["noisy"])}
    fit_linear(Labelled(inputs, given, specs), settings("bright"))
    assert list(used) == ["clean", "noisy"]
    assert 0.05 < used["noisy"].mean() < 0.35
    assert float(used["clean"].mean()) == pytest.approx(float(used["noisy"].mean()) / 2, rel=0.2)
    used.clear()
    fit_linear(Labelled(inputs, given, specs, exact=True), settings("bright"))
    assert used == {}


def test_the_layer_that_tells_most_is_chosen():
    inputs, labels = seen()
    backbone = Backbone.__new__(Backbone)
    backbone.name, backbone.mark, backbone.side = "toy", "", 8
    first, second = choose_features(backbone, Labelled(inputs, labels, SPECS), Course(seed=5))
    assert (first.layer, second.layer) == ("bright", "dull")


def test_families_are_weighted_by_what_they_read():
    inputs, labels = seen()
    labelled = Labelled(inputs, labels, SPECS)
    splits = leave_out(torch.arange(300).chunk(3))
    noise = Family([PictureSettings(side=8, channels=(4,), least=200, most=200)], 3)
    good = Family([settings("bright")], 3)
    alone, by_one = fit_readers(labelled, splits, [good], Course(seed=1))
    both, by_both = fit_readers(labelled, splits, [noise, good], Course(seed=1))
    assert len(alone) == 3

    def loss(outputs):
        return HEAD_KINDS["categorical"].losses(outputs[:, 1:4], labels["hair"], SPECS["hair"]).mean()

    assert loss(by_both) < loss(by_one) + 0.05
    useless = [reader for reader in both if not hasattr(reader.body, "backbone")]
    assert all(reader.head.weight[1:4].abs().max() < 1 for reader in useless)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()) for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_features_are_read_once(tmp_path, monkeypatch):
    torch.manual_seed(0)
    backbone = Backbone(Tiny(), "tiny", "a" * 64, lambda images: images, 16)
    pictures = torch.randint(0, 256, (70, 3, 16, 16), dtype=torch.uint8)
    course, calls, read = Course(checkpoint=tmp_path / "f"), [], backbone.read
    monkeypatch.setattr(backbone, "read", lambda images, layers: calls.append(len(images)) or read(images, layers))
    first = see(backbone, pictures[:50], backbone.layers, course)
    assert first.features[backbone.layers[0]].dtype == torch.float16
    assert first.features[backbone.layers[0]].shape == (50, 48 + SIMPLE)
    again = see(backbone, pictures, backbone.layers, course)  # only those that are new
    assert calls == [50, 20]
    assert torch.equal(again.features[backbone.layers[1]][:50], first.features[backbone.layers[1]])
    backbone.mark = "b" * 64
    see(backbone, pictures, backbone.layers, course)
    assert calls == [50, 20, 64, 6]
    (tmp_path / "f").write_bytes(b"damaged")
    see(backbone, pictures[:3], backbone.layers, course)
    assert calls[-1] == 3


class TestWrongLabels:
    spec = AttributeSpec("hat", "yes/no")

    def read(self, wrong, count=600, seed=0):
        """Readings that are rather sure, and labels of which some are wrong."""
        random = torch.Generator().manual_seed(seed)
        logit = 6 * torch.randn(count, generator=random) - 2
        truth = (torch.rand(count, generator=random) < logit.sigmoid()).float()
        flipped = torch.rand(count, generator=random) < wrong
        return logit[:, None], torch.where(flipped, 1 - truth, truth), truth

    @pytest.mark.parametrize("wrong", [0.0, 0.1, 0.2])
    def test_rates(self, wrong):
        outputs, labels, _ = self.read(wrong)
        rates = calibration(outputs, labels, self.spec).rates
        assert rates.mean() == pytest.approx(wrong, abs=0.05)

    def test_probabilities_are_those_of_the_truth(self):
        outputs, labels, truth = self.read(0.15)
        losses = []
        for exact in (False, True):
            scale, shift, rates = calibration(outputs, labels, self.spec, exact)
            assert bool(rates.any()) is not exact
            losses.append(label_loss(outputs * scale + shift, truth.long(), torch.zeros(2)))
        assert losses[0] < losses[1] - 0.03

    def test_labels_are_corrected_by_their_probability(self):
        outputs, labels, truth = self.read(0.15)
        scale, shift, rates = calibration(outputs, labels, self.spec)
        labels[0] = float("nan")
        outputs = outputs * scale + shift
        corrected = corrected_labels(outputs, labels, self.spec, rates, torch.Generator().manual_seed(0))
        assert corrected[0].isnan()
        assert (corrected[1:] != truth[1:]).float().mean() < 0.6 * (labels[1:] != truth[1:]).float().mean()
        exact = torch.zeros(2)
        assert torch.equal(corrected_labels(outputs, labels, self.spec, exact, torch.Generator())[1:], labels[1:])

    @pytest.mark.parametrize("share", [0.0, 0.1])
    def test_wrong_numbers_are_left_out(self, share):
        random, spec = torch.Generator().manual_seed(1), AttributeSpec("age", "continuous", low=0, high=1)
        truth = torch.rand(600, generator=random)
        outputs = (truth + 0.05 * torch.randn(600, generator=random))[:, None]
        wrong = torch.rand(600, generator=random) < share
        labels = torch.where(wrong, torch.rand(600, generator=random), truth)
        corrected = corrected_labels(outputs, labels, spec, torch.empty(0), random)
        assert torch.equal(corrected[~corrected.isnan()], labels[~corrected.isnan()])
        far = (labels - truth).abs() > 0.25
        assert (~corrected.isnan())[far].sum() <= 0.1 * far.sum()
        assert corrected[~wrong].isnan().sum() <= 0.05 * len(labels)

    def test_large_errors_of_right_numbers_are_kept(self):
        random, spec = torch.Generator().manual_seed(2), AttributeSpec("age", "continuous", low=0, high=1)
        labels, sides = torch.rand(600, generator=random), torch.rand(600, generator=random) - 0.5
        errors = -0.03 * sides.sign() * (1 - 2 * sides.abs()).log()  # Laplace: a tail heavier than normal
        corrected = corrected_labels((labels + errors)[:, None], labels, spec, torch.empty(0), random)
        assert torch.equal(corrected, labels)

    def test_a_number_is_not_changed(self):
        spec = AttributeSpec("age", "continuous", low=0, high=1)
        scale, shift, rates = calibration(torch.rand(9, 1), torch.rand(9), spec)
        assert (scale, shift.tolist(), len(rates)) == (1, [0], 0)


def test_each_attribute_is_read_in_the_view_that_tells_it():
    """One attribute is in the layer, one in the pixels, and one in the statistics; readers of one view know one."""
    random = torch.Generator().manual_seed(3)
    layer, simple = torch.randn(400, 40, generator=random), torch.rand(400, SIMPLE, generator=random)
    hidden = torch.randn(400, 2, generator=random)
    simple[:, : SIMPLE // 2] += 0.2 * hidden[:, :1]  # all of them pixels
    simple[:, -200:] += hidden[:, 1:]  # a half of one kind of statistics
    labels = {"in layer": layer[:, 0] > 0, "in pixels": hidden[:, 0] > 0, "in statistics": hidden[:, 1] > 0}
    labels = {name: each.float() for name, each in labels.items()}
    specs = Vocabulary(AttributeSpec(name, "yes/no") for name in labels)
    inputs = Seen(torch.zeros(400, 0), {"layer": torch.cat([layer, simple], 1).half()})
    half = {name: each[:200] for name, each in labels.items()}
    fit = fit_linear(Labelled(inputs[:200], half, specs), settings("layer"))
    outputs = read_outputs(fit.judge, inputs)
    for position, (name, truth) in enumerate(labels.items()):
        assert ((outputs[200:, position] > 0) == (truth[200:] > 0)).float().mean() > 0.85, name
    unseen = torch.cat(list(fit.unseen.values()), 1)
    assert 0.8 < unseen.std() / outputs[200:].std() < 1.25  # as if their own labels were not there


def test_equal_views_weigh_the_same_and_a_bad_one_nothing():
    random = torch.Generator().manual_seed(5)
    x = torch.randn(300, 40 + SIMPLE, generator=random)
    target = (x[:, :1] > 0).float()
    views = feature_fit._views(x)
    present = torch.ones(300, dtype=torch.bool)
    alone = views[0].fit(present, target)
    same = feature_fit._fit([views[0], views[0]], present, target)
    torch.testing.assert_close(same.unseen, alone.unseen)
    torch.testing.assert_close(same.weight, torch.cat([alone.weight, alone.weight]) / 2)
    told = torch.cat([100 * x[:, :1], x[:, 1:]], 1)
    good = feature_fit._views(told)
    both = feature_fit._fit([good[0], views[2]], present, target)
    assert both.weight[good[0].columns.stop :].abs().max() < 1e-2 * both.weight.abs().max()
