"""Pictures that heads propose for random formulas."""

import random

import torch
from holes import Stains, look

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.errors import ArgumentError
from energyql.models.unfinished import Work
from energyql.training import proposals as proposals_module
from energyql.training.foreign import linear_head
from energyql.training.heads import HeadSettings, train_heads
from energyql.training.labelled import Labelled
from energyql.training.proposals import A_FORMULA, _formula, propose
from energyql.training.samples import Prior
from energyql.training.target import Target, Task
from energyql.vocabulary import AttributeSpec, Vocabulary

SPECS = Vocabulary(
    [
        AttributeSpec("red", "yes/no"),
        AttributeSpec("odd", "yes/no"),
        AttributeSpec("shade", "categorical", values=("dark", "light", "grey")),
        AttributeSpec("size", "continuous", low=0.0, high=10.0),
    ]
)
LABELS = {"red": torch.tensor([0.0, 1.0]), "odd": torch.tensor([0.0, 1.0]), "shade": torch.tensor([0.0, 1.0, 2.0])}
LABELS["size"] = torch.tensor([*range(11), torch.nan])


def test_formulas_ask_for_every_value():
    source = random.Random(1)
    formulas = [str(_formula(SPECS, LABELS, source)) for _ in range(200)]
    assert len(set(formulas)) > 100
    for part in ("NOT red", "odd", "shade = dark", "shade = grey", "size > ", "size < "):
        assert any(part in formula for formula in formulas), part
    numbers = [float(word) for formula in formulas for word in formula.split() if word.replace(".", "").isdigit()]
    assert 2.5 <= min(numbers) < max(numbers) <= 7.5


def test_proposals_follow_the_heads_and_are_kept(tmp_path):
    generator = Stains()
    prior = Prior(generator, 3, FittedUnder("z"), torch.device("cpu"))
    index = torch.arange(600)
    truth = look(generator.synthesize(prior.z(index)))
    specs = Vocabulary([SPECS["red"], SPECS["odd"]])
    labels = {name: torch.as_tensor(truth[name]).float() for name in specs}
    settings = HeadSettings(steps=150, hidden=8, batch=128, lr=2e-2, weight_decay=1e-2)
    bank, _ = train_heads(Labelled(prior.z(index), labels, specs), settings, fitted=FittedUnder("z"))
    stages = []
    target = Target(tmp_path, generator, "", None, None)
    Work(tmp_path).begin("a test")
    task = Task(target, prior, look, lambda stage, done: stages.append(stage))
    count = 3 * A_FORMULA + 5
    proposals = propose(task, bank, specs, labels, count)
    assert proposals.latents.shape == (count, generator.z_dim)
    z = proposals.z(torch.tensor([2, 0]))
    assert torch.equal(z, proposals.latents[[2, 0]])
    proposed, drawn = (bank.predict(z)["red"].logit.abs().mean() for z in (proposals.latents, prior.z(index)))
    assert proposed > 1.1 * drawn  # the sampler goes where heads are certain
    stages.clear()
    again = propose(task, bank, specs, labels, count)
    assert torch.equal(again.latents, proposals.latents)
    assert again.seed == proposals.seed
    assert stages == []  # stored


def test_formulas_that_the_sampler_refuses_are_left_out(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ArgumentError("no")

    monkeypatch.setattr(proposals_module, "plan_query", refuse)
    assert propose(flat_task(tmp_path), *flat_bank("red"), LABELS, 20).latents.shape == (0, Stains.z_dim)


def test_attributes_without_a_label_are_left_out(tmp_path):
    nothing = {"size": torch.full((5,), torch.nan)}
    bank, specs = flat_bank("red", "size")
    proposals = propose(flat_task(tmp_path), bank, specs, LABELS | nothing, 20)
    assert proposals.latents.shape == (20, Stains.z_dim)
    assert propose(flat_task(tmp_path), *flat_bank("size"), nothing, 20).latents.shape == (0, Stains.z_dim)


def test_the_heads_are_prepared_for_sampling_once(tmp_path, monkeypatch):
    made, make = [], proposals_module.open_session
    monkeypatch.setattr(proposals_module, "open_session", lambda *args: made.append(make(*args)) or made[-1])
    assert len(propose(flat_task(tmp_path), *flat_bank("red", "odd"), LABELS, 3 * A_FORMULA).latents) == 3 * A_FORMULA
    assert len(made) == 1


def flat_bank(*names):
    """A bank of heads for the attributes, each of which knows nothing, and the attributes."""
    specs = Vocabulary([SPECS[name] for name in names])
    zero = linear_head(torch.ones(Stains.z_dim), torch.zeros(1), 1.0)
    return AttributeBank(specs, dict.fromkeys(names, zero), fitted=FittedUnder("z")), specs


def flat_task(folder):
    Work(folder).begin("a test")
    prior = Prior(Stains(), 3, FittedUnder("z"), torch.device("cpu"))
    return Task(Target(folder, prior.generator, "", None, None), prior, look, lambda *_: None)
