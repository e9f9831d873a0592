import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from toys import VOCABULARY

from energyql.attributes.bank import FittedUnder
from energyql.attributes.predictions import output_count
from energyql.errors import DataError
from energyql.training.heads import HeadSettings, attribute_loss, train_heads
from energyql.training.labelled import Labelled
from energyql.training.steps import Course
from energyql.vocabulary import AttributeSpec, Vocabulary
from recipes.common.judging import balanced_accuracy

N, DIM, NOISE = 3000, 6, 0.05
BRIEF = HeadSettings(hidden=4, steps=3, batch=8, weight_decay=1e-2, patience=None)


def planted(count=N):
    """Latents, and labels that are linear (smile, hair), curved (glasses, beard) or noisy (age) in them."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(count, DIM, generator=random)
    rotation = torch.linalg.qr(torch.randn(DIM, DIM, generator=random))[0]
    latents = 3 * x @ rotation + 1
    labels = {
        "smile": x[:, 0] > 0.5,
        "hair": torch.stack([x[:, 1], x[:, 2], -x[:, 1] - x[:, 2]]).argmax(0),
        "age": 0.5 + 0.2 * x[:, 3] + NOISE * torch.randn(count, generator=random),
        "glasses": x[:, 4].abs() > 0.8,
        "beard": x[:, 0].square() + x[:, 5].square() > 1.5,
    }
    return latents, {name: label.float() for name, label in labels.items()}


@cache
def trained():
    latents, labels = planted()
    labels["hair"][::3] = torch.nan
    labels["age"][1::4] = torch.nan
    return train_heads(Labelled(latents, labels, VOCABULARY), HeadSettings(24, 700, 256, 2e-2, 1e-2, None), Course(3))


def few(settings=BRIEF, seed=0, **options):
    return train_heads(Labelled(*planted(60), VOCABULARY), settings, Course(seed), **options)


def raw(bank, latents, name):
    """Outputs of one head, (batch, outputs)."""
    prediction = bank.predict(latents, (name,))[name]
    return next(getattr(prediction, key) for key in ("logits", "logit", "mean") if hasattr(prediction, key)).reshape(
        len(latents), -1
    )


@pytest.mark.parametrize("name", ["smile", "hair", "glasses", "beard"])
def test_planted_attributes_are_learned(name):
    bank, _ = trained()
    latents, labels = planted()
    held = slice(int(N * 0.85), None)
    measured = balanced_accuracy(raw(bank, latents[held], name), labels[name][held], VOCABULARY[name])
    assert measured > 0.95


def test_the_residual_is_the_noise():
    bank, reports = trained()
    assert bank.heads["age"].std.item() == pytest.approx(NOISE, rel=0.15)
    assert reports["age"].temperature == 1


@pytest.mark.parametrize("name", ["smile", "hair", "glasses", "beard"])
def test_the_temperature_does_not_hurt(name):
    bank, reports = trained()
    latents, labels = planted()
    held = slice(int(N * 0.85), None)
    calibrated, answers = raw(bank, latents[held], name), labels[name][held].clone()
    if name == "hair":
        answers[torch.arange(int(N * 0.85), N) % 3 == 0] = torch.nan
    after = attribute_loss(calibrated, answers, VOCABULARY[name])
    before = attribute_loss(calibrated * reports[name].temperature, answers, VOCABULARY[name])
    assert after <= before + 1e-6
    for other in (0.9, 1.1):  # of a grid that is finer than that
        assert after <= attribute_loss(calibrated * other, answers, VOCABULARY[name])


def test_an_overconfident_head_is_cooled():
    """With labels that are pure chance, memorised logits must be shrunk."""
    random = torch.Generator().manual_seed(0)
    latents, labels = torch.randn(400, 20, generator=random), torch.randint(2, (400,), generator=random).float()
    vocabulary = Vocabulary([AttributeSpec("luck", "yes/no")])
    _, reports = train_heads(
        Labelled(latents, {"luck": labels}, vocabulary), replace(BRIEF, hidden=64, steps=300, batch=64)
    )
    assert reports["luck"].temperature > 3


def test_the_same_seed_gives_the_same_bank_and_global_random_numbers_are_left_alone():
    before = torch.get_rng_state()
    first = few(seed=5)[0]
    torch.testing.assert_close(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        second = few(seed=5)[0]
    other = few(seed=6)[0]
    for name in VOCABULARY:
        for field, tensor in first.heads[name].tensors().items():
            assert torch.equal(tensor, second.heads[name].tensors()[field])
    assert not torch.equal(first.heads["smile"].hidden_weight, other.heads["smile"].hidden_weight)


def test_heads_on_the_direction_are_blind_to_length():
    latents, labels = planted(60)
    lengths = torch.linspace(0.5, 2, 60)[:, None]
    bank, _ = train_heads(Labelled(latents, labels, VOCABULARY), BRIEF, fitted=FittedUnder("direction"))
    same, _ = train_heads(Labelled(latents * lengths, labels, VOCABULARY), BRIEF, fitted=FittedUnder("direction"))
    for name in VOCABULARY:
        torch.testing.assert_close(raw(bank, latents, name), raw(same, latents * lengths, name), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bool])
def test_other_dtypes(dtype):
    latents, labels = planted(60)
    if dtype == torch.bool:
        labels["smile"] = labels["smile"].bool()
    else:
        latents = latents.to(dtype)
    bank, _ = train_heads(Labelled(latents, labels, VOCABULARY), BRIEF)
    assert bank.heads["smile"].hidden_weight.dtype == torch.float32


def test_a_dimension_that_never_varies_does_no_harm():
    latents, labels = planted(200)
    latents[:, 2] = 7.0
    bank, _ = train_heads(Labelled(latents, labels, VOCABULARY), replace(BRIEF, steps=20, batch=32))
    near = bank.predict(latents + torch.tensor([0, 0, 1e-4, 0, 0, 0]))["smile"].logit
    assert (near - bank.predict(latents)["smile"].logit).abs().max() < 0.01


def test_a_perfect_fit_leaves_a_standard_deviation():
    vocabulary = Vocabulary([AttributeSpec("age", "continuous")])
    bank, _ = train_heads(Labelled(torch.zeros(20, 2), {"age": torch.zeros(20)}, vocabulary), BRIEF)
    assert bank.heads["age"].std > 0


def spoiled(name, change):
    latents, labels = planted(60)
    labels[name] = change(labels[name])
    return latents, labels


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("smile", lambda x: x[:-1], r"'smile': 60 latents but labels of shape \(59,\)"),
        ("smile", lambda x: x[:, None], r"labels of shape \(60, 1\)"),
        ("smile", torch.zeros_like, "'smile': all labels are the same"),
        ("smile", lambda x: 2 * x, "'smile': labels are 0 to 1, not 2"),
        ("hair", lambda x: x + 1, "'hair': labels are 0 to 2, not 3"),
        ("hair", lambda x: x - 0.5, "'hair': labels are 0 to 2, not"),
        ("age", lambda x: x.masked_fill(x > 0.5, torch.inf), "'age': a label is infinite"),
        ("age", lambda x: 1e38 * x, r"'age': labels up to .*e\+3\d are too large to learn from\ngive .* another unit"),
        ("age", lambda x: torch.full_like(x, torch.nan), "'age': none of the latents to learn from has a label"),
        ("glasses", lambda x: torch.cat([x[:50], x[50:] * torch.nan]), "'glasses': none of the latents held out"),
    ],
)
def test_wrong_labels(name, change, message):
    with pytest.raises(DataError, match=message):
        train_heads(Labelled(*spoiled(name, change), VOCABULARY), BRIEF)


def test_missing_attributes_and_wrong_latents():
    latents, labels = planted(60)
    with pytest.raises(DataError, match="no labels for attribute 'hair'"):
        train_heads(Labelled(latents, {"smile": labels["smile"]}, VOCABULARY), BRIEF)
    with pytest.raises(DataError, match="finite"):
        train_heads(Labelled(latents.masked_fill(latents > 1, torch.nan), labels, VOCABULARY), BRIEF)
    with pytest.raises(DataError, match=r"of shape \(60, 1, 6\)"):
        train_heads(Labelled(latents[:, None], labels, VOCABULARY), BRIEF)
    with pytest.raises(DataError, match="held out"):
        train_heads(Labelled(latents, labels, VOCABULARY), BRIEF, held_out=0.0)


def test_loss_is_a_likelihood_and_skips_what_is_missing():
    yes_no, classes, number = VOCABULARY["smile"], VOCABULARY["hair"], VOCABULARY["age"]
    missing = torch.tensor([1.0, torch.nan])
    outputs = torch.tensor([[0.3], [7.0]], requires_grad=True)
    assert attribute_loss(outputs, missing, yes_no).item() == pytest.approx(math.log(1 + math.exp(-0.3)))
    assert attribute_loss(outputs, missing, number).item() == pytest.approx(0.5 * 49)
    logits = torch.tensor([[0.0, 1.0, 2.0], [9.0, 9.0, 9.0]])
    total = 1 + math.e + math.e**2
    assert attribute_loss(logits, missing, classes).item() == pytest.approx(math.log(total) - 1)
    nothing = attribute_loss(outputs, torch.full((2,), torch.nan), yes_no)
    nothing.backward()
    assert nothing.item() == 0
    assert not outputs.grad.any()


def test_balanced_accuracy_is_the_mean_recall():
    answers = torch.tensor([0.0, 0.0, 0.0, 1.0, torch.nan])
    outputs = torch.tensor([[-1.0], [-1.0], [-1.0], [-1.0], [5.0]])
    assert balanced_accuracy(outputs, answers, VOCABULARY["smile"]) == 0.5
    assert balanced_accuracy(outputs / 2, answers, VOCABULARY["age"]) == pytest.approx(1 - 0.75)
    assert output_count(VOCABULARY["hair"]) == 3
