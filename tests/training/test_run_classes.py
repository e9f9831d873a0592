"""Training on conditional generators."""

import pytest
import torch
from brief import ADA, bright, dark, draw, train
from labelled import CHECKPOINTS

from energyql import E
from energyql.attributes.bank import FittedUnder
from energyql.errors import ArgumentError, ModelError
from energyql.generators.load import load_generator
from energyql.pipeline.model import load_model
from energyql.sampling import prior_latents
from energyql.training.labels import LabelTable
from energyql.training.samples import Prior

CONDITIONAL = pytest.mark.parametrize(
    ("name", "classes"),
    [("ada_conditional.pkl", 4), pytest.param("stylegan3-t-conditional.pkl", 3, marks=pytest.mark.slow)],
)


@CONDITIONAL
def test_one_class(tmp_path, name, classes):
    seen = []

    def look(images):
        seen.append(images)
        return bright(images)

    trained = train(CHECKPOINTS / name, look, tmp_path, condition=torch.eye(classes)[1], truncation=0.8, seed=3)
    assert trained.bank.condition == load_model(tmp_path).bank.condition == 1
    above = trained.bank.vocabulary["bright"].low + 0.01
    generator = load_model(tmp_path).generator
    w = generator.encode(prior_latents(3, 0, 60, generator.z_dim), 0.8, torch.eye(classes)[[1] * 60])
    torch.testing.assert_close(torch.cat(seen), generator.synthesize(w), atol=1e-4, rtol=1e-4)
    train(CHECKPOINTS / name, dark, tmp_path)  # the condition is that of the others
    result = draw(E.bright > above, 1, model=tmp_path)
    assert result.provenance["condition"] == 1
    with pytest.raises(ArgumentError, match="do not hold under condition 2\nthey were fitted under condition 1"):
        draw(E.bright > above, 1, model=tmp_path, condition=2)
    with pytest.raises(ModelError, match="under condition 1, so new ones cannot read .* under condition 2"):
        train(CHECKPOINTS / name, bright, tmp_path, condition=2)


@CONDITIONAL
def test_a_class_of_its_own_each(tmp_path, name, classes):
    trained = train(CHECKPOINTS / name, bright, tmp_path, condition="random", n=300)
    assert trained.bank.condition == "random"
    above = trained.bank.vocabulary["bright"].low + 0.01
    for condition in (0, classes - 1):
        assert draw(E.bright > above, 1, model=tmp_path, condition=condition).provenance["condition"] == condition


@CONDITIONAL
def test_the_class_belongs_to_the_sample(name, classes):
    generator = load_generator(CHECKPOINTS / name)
    prior = Prior(generator, 5, FittedUnder("w", (0.5, 1.0), "random"), torch.device("cpu"))
    w, some = prior.w(torch.arange(64)), torch.tensor([40, 3, 9])
    torch.testing.assert_close(prior.w(some), w[some])
    own = [prior_with.w(torch.arange(64)) for prior_with in (prior.under(condition=k) for k in range(classes))]
    chosen = torch.stack([(w - other).abs().sum(1) for other in own]).argmin(0)
    assert set(chosen.tolist()) == set(range(classes))
    torch.testing.assert_close(torch.stack(own)[chosen, torch.arange(64)], w)


@CONDITIONAL
def test_truncation_is_read_off_latents_of_a_class(tmp_path, name, classes):
    generator = load_generator(CHECKPOINTS / name)
    z = torch.randn(500, generator.z_dim, generator=torch.Generator().manual_seed(0))
    w = generator.encode(z, 0.6, torch.eye(classes)[[2] * 500])
    table = LabelTable({"a": [0, 1] * 250}, latents=w)
    assert train(CHECKPOINTS / name, table, tmp_path, condition=2).bank.truncation[0] == pytest.approx(0.6, abs=0.05)


@CONDITIONAL
def test_an_interrupted_labelling_of_another_class_is_not_used(tmp_path, monkeypatch, name, classes):
    monkeypatch.setattr("energyql.training.samples.PICTURES_A_PART", 20)
    seen, stop = [], True

    def look(images):
        seen.append(len(images))
        if stop and sum(seen) > 40:
            raise KeyboardInterrupt
        return bright(images)

    with pytest.raises(KeyboardInterrupt):
        train(CHECKPOINTS / name, look, tmp_path, condition=0)
    seen, stop = [], False
    train(CHECKPOINTS / name, look, tmp_path, condition=[0.5] * classes)
    assert sum(seen) == 60


@CONDITIONAL
def test_mistakes(tmp_path, name, classes):
    for condition, message in (
        (None, f"conditional on {classes} classes: give a condition"),
        (classes, f"{classes} is not a condition\na condition is a class from 0 to {classes - 1}"),
        ([0.5, 0.5], r"\[0.5, 0.5\] is not a condition"),
        ("any", "'any' is not a condition"),
    ):
        with pytest.raises(ArgumentError, match=message):
            train(CHECKPOINTS / name, bright, tmp_path, condition=condition)
    with pytest.raises(ArgumentError, match="heads that read z cannot tell the classes apart"):
        train(CHECKPOINTS / name, bright, tmp_path, condition="random", space="z")
    table = LabelTable({"a": [0, 1] * 30}, index=torch.arange(60))
    with pytest.raises(ArgumentError, match="labelled by hand have one truncation and one condition"):
        train(CHECKPOINTS / name, table, tmp_path, condition="random")


def test_a_label_for_a_generator_without_classes(tmp_path):
    for condition in (0, "random"):
        with pytest.raises(ArgumentError, match="has no classes, so it takes no condition"):
            train(ADA, bright, tmp_path, condition=condition)


def test_a_sample_has_its_class_and_truncation_alone_and_among_others():
    generator = load_generator(CHECKPOINTS / "ada_conditional.pkl")
    prior = Prior(generator, 3, FittedUnder("w", (0.2, 1.0), "random"), torch.device("cpu"))
    rows = [4, 5, 6, 2, 9, 5]
    alone = torch.cat([prior.w(torch.tensor([row])) for row in rows])
    torch.testing.assert_close(prior.w(torch.tensor(rows)), alone)
    assert torch.equal(alone[1], alone[5])
    assert len(alone.unique(dim=0)) == 5
