"""The benchmark of labels that are chosen in rounds, at its smallest."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import typer
from holes import Stains
from typer.testing import CliRunner

from benchmarks import active, hidden_truth
from energyql.attributes.bank import FittedUnder
from energyql.attributes.judge import Convolutions, Judge
from energyql.attributes.predictions import Categorical, YesNo
from energyql.labelling.sample import choose_unsure
from energyql.training import teacher
from energyql.training.samples import PICTURE, Prior, Thumbnails, read_thumbnails
from energyql.vocabulary import AttributeSpec, Vocabulary

pytestmark = pytest.mark.filterwarnings("ignore:there are few labels")

RULES = [active.OWN_RULE, active.BY_TEACHER]
"""Those of the run; the others are tried alone."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The results of a run, and what it printed."""
    folder, app = tmp_path_factory.mktemp("active"), typer.Typer()
    app.command()(active.main)
    small = replace(hidden_truth.SG3, resolution=16, z_dim=8, w_dim=8, channel_max=4, num_layers=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hidden_truth, "SG3", small)
        patch.setattr(active, "COMMITTEE", 2)
        chosen = ["--generators", "stylegan3", "--rules", ",".join(RULES), "--seeds", "1"]
        ran = CliRunner().invoke(app, ["--smoke", *chosen, "--out", str(folder)])
    assert ran.exit_code == 0, ran.output
    return json.loads((folder / "results.json").read_text()), ran.output


@pytest.mark.slow
def test_smoke(outcome):
    data, output = outcome
    taught = ["random, taught", "balanced margin, taught", "teacher, taught"]
    assert set(data["runs"]) == {f"stylegan3/7/{rule}" for rule in ("random", active.OWN_RULE, *taught)}
    assert set(data["runs"]["stylegan3/7/teacher, taught"]) == {"60", "80"}
    assert data["runs"]["stylegan3/7/random"]["120"] != data["runs"]["stylegan3/7/random, taught"]["120"]
    assert set(data["runs"]["stylegan3/7/random"]) == {"60", "80", "120"}
    found = data["runs"][f"stylegan3/7/{active.OWN_RULE}"]
    assert found["60"] == data["runs"]["stylegan3/7/random"]["60"]
    assert set(found) == {"60", "80"}
    for measured in found["80"].values():
        assert all(0 <= measured[accuracy] <= 1 for accuracy in ("natural", "balanced"))
        assert measured["log loss"] > 0
    assert f"{active.OWN_RULE}, 80" in output


@pytest.mark.parametrize("rule", [rule for rule in active.RULES if rule not in RULES])
def test_every_rule_chooses_pictures_of_the_pool(rule, monkeypatch):
    class Bank:
        vocabulary = ("hat", "hair")

        def __init__(self, shift):
            self.shift = shift

        def predict(self, latents, names=vocabulary):
            logits = latents + self.shift * latents.flip(1)
            found = {"hat": YesNo(logits[:, 0]), "hair": Categorical(logits, ("black", "brown", "red"))}
            return {name: found[name] for name in names}

    latents = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    world = SimpleNamespace(prior=SimpleNamespace(w=lambda index: latents[index - 100]), sizes=SimpleNamespace(round=4))
    monkeypatch.setattr(active, "fit", lambda world, known, settings, seed: SimpleNamespace(bank=Bank(seed)))
    fitted = SimpleNamespace(bank=Bank(0), teacher=[])
    rows = list(active.RULES[rule](world, fitted, [1, 2], list(range(100, 130)), None))[:4]
    assert len(set(rows)) == 4
    assert set(rows) <= set(range(30))
    hat = latents[:, 0].sigmoid()
    first = {"margin": (hat - 0.5).abs().argmin(), "rarity": hat.argmax(), "chance": 0}
    if rule in first:
        assert rows[0] == first[rule]


def test_the_teacher_chooses_by_the_pictures():
    specs = Vocabulary([AttributeSpec("hat", "yes/no")])
    torch.manual_seed(0)
    networks = [Judge(specs, Convolutions(8, (4,))).eval() for _ in range(2)]
    generator = Stains()
    prior = Prior(generator, 0, FittedUnder(), torch.device("cpu"))
    heads = {"hat": YesNo(torch.arange(30.0)), "hair": YesNo(torch.arange(30.0) - 0.5)}
    world = SimpleNamespace(prior=prior, sizes=SimpleNamespace(round=4))
    pool = list(range(100, 130))
    fitted = SimpleNamespace(bank=SimpleNamespace(predict=lambda latents: dict(heads)), teacher=networks)
    cells = Thumbnails(None, 8)(generator.synthesize(prior.w(torch.tensor(pool))))
    read = teacher.teacher_reads(networks, read_thumbnails(cells[PICTURE]))
    chosen = active.by_teacher(world, fitted, [], pool, None)
    assert chosen == choose_unsure(heads | read, 4)
    assert chosen != choose_unsure(heads, 4)
    assert active.by_teacher(world, SimpleNamespace(bank=fitted.bank, teacher=[]), [], pool, None) == choose_unsure(
        heads, 4
    )


def test_balanced_accuracy_is_the_mean_of_recalls():
    predictions = {
        "hat": YesNo(torch.tensor([1.0, 1, -1, -1, -1])),
        "hair": Categorical(torch.eye(3)[[0, 1, 1, 2, 0]], ("black", "brown", "red")),
    }
    specs = [AttributeSpec("hat", "yes/no"), AttributeSpec("hair", "categorical", values=("black", "brown", "red"))]
    labels = {"hat": [True, False, False, False, False], "hair": ["black", "brown", "brown", "brown", "red"]}
    world = SimpleNamespace(
        fresh=SimpleNamespace(w=lambda index: index),
        sizes=active.Sizes(fresh=5),
        labels={"fresh": labels},
    )
    bank = SimpleNamespace(predict=lambda latents: predictions, vocabulary=Vocabulary(specs))
    found = hidden_truth.measure(world, bank)
    assert found["hat"]["natural"] == pytest.approx((1 + 3 / 4) / 2)
    assert found["hair"]["natural"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    right, wrong = math.log1p(math.exp(-1)), math.log1p(math.e)
    assert found["hat"]["log loss"] == pytest.approx((4 * right + wrong) / 5)


def test_equal_classes_ask_only_for_the_order():
    labels = [True] * 2 + [False] * 18
    logits = torch.tensor([-0.5, -1.0] + [-3.0] * 18)  # all below 0, and the two that are yes above the others
    bank = SimpleNamespace(
        predict=lambda latents: {"hat": YesNo(logits)}, vocabulary=Vocabulary([AttributeSpec("hat", "yes/no")])
    )
    world = SimpleNamespace(
        fresh=SimpleNamespace(w=lambda index: index), sizes=active.Sizes(fresh=20), labels={"fresh": {"hat": labels}}
    )
    found = hidden_truth.measure(world, bank)["hat"]
    assert (found["natural"], found["balanced"]) == (0.5, 1.0)
