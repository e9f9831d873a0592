"""Labels chosen in rounds against random ones: `python -m benchmarks.active --help`.

Every generator has a hidden truth, a known function of its pictures, which stands in for a person who labels. Rounds
begin with random pictures, of which a part is kept for the report, as in `energyql train`; each round then fits heads,
chooses pictures by a rule, and labels them. All heads are measured on the same fresh pictures, by balanced accuracy.
Random labels, and those of the rule of `energyql sample --unsure`, are tried with and without a teacher.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor

from benchmarks.common import SmokeOption, earlier_results, run_command, show
from energyql import read_weights
from energyql.attributes.bank import AttributeBank
from energyql.attributes.labels import ImageLabeller, label_images
from energyql.attributes.predictions import Categorical, YesNo
from energyql.evaluation.measure import machine
from energyql.files import write_json
from energyql.generators.base import Generator
from energyql.generators.stylegan3 import StyleGAN3
from energyql.generators.stylegan3_config import StyleGAN3Config
from energyql.labelling.choosing import choose_unsure
from energyql.labelling.sample import POOL_START
from energyql.progress import reporting
from energyql.training.drawn import RANDOM, UNSURE, held_out_order
from energyql.training.fitting import HeadSettings
from energyql.training.labels import LabelTable
from energyql.training.run import train_attributes
from energyql.training.samples import Prior

FRESH_SEED = 20_000
TAUGHT = ", taught"
"""End of the names of runs with a teacher."""
COMMITTEE = 4
"""Trainings with other seeds whose disagreement is measured."""
SG3 = StyleGAN3Config(
    32, z_dim=64, w_dim=64, mapping_layers=2, channel_base=512, channel_max=16, num_layers=6, num_critical=2
)


@dataclass(frozen=True)
class Sizes:
    """Numbers of pictures.

    Attributes:
        first: random ones that are labelled before the first round.
        round: labelled in each round.
        total: labelled in all rounds.
        random: random ones for the comparison.
        pool: to choose from.
        fresh: to measure heads on.
        truth: that the limits of the hidden truth come from.
        further: labelled by the teacher.
    """

    first: int = 200
    round: int = 100
    total: int = 500
    random: int = 1500
    pool: int = 4000
    fresh: int = 3000
    truth: int = 4000
    further: int = 4000


@dataclass(frozen=True)
class World:
    """A generator and the labels of its pictures under one seed.

    Attributes:
        prior: the samples, and `fresh`, those of the measurement.
        labels: attribute -> cells of random pictures, of the pool, and of fresh ones.
    """

    prior: Prior
    fresh: Prior
    sizes: Sizes
    labels: Mapping[str, Mapping[str, list[Any]]]

    def table(self, indices: list[int]) -> LabelTable:
        """Return the labels of these pictures as `energyql label` would leave them."""
        chosen = [RANDOM if i < POOL_START else UNSURE for i in indices]
        columns = {
            name: [
                self.labels["random"][name][i] if i < POOL_START else self.labels["pool"][name][i - POOL_START]
                for i in indices
            ]
            for name in self.labels["random"]
        }
        index = torch.tensor(indices)
        order, learned, test = held_out_order(index, chosen, self.prior.seed, "the table")
        columns = {name: [cells[row] for row in order] for name, cells in columns.items()}
        return LabelTable(columns, index[torch.tensor(order)], learned=learned, test=test)


def dcgan(sizes: Sizes) -> tuple[Generator, ImageLabeller]:
    """Return the DCGAN of `gan-face-generate`, and what examples/own_generator.py measures in its pictures."""
    from gan_face_generate.models import Generator as DCGAN

    class Faces(torch.nn.Module):
        z_dim = w_dim = 100

        def __init__(self) -> None:
            super().__init__()
            self.network = DCGAN(ngpu=0, nc=3, nz=self.z_dim, ngf=64)
            weights = Path(inspect.getfile(DCGAN)).with_name("weights.tar")
            self.network.load_state_dict(read_weights(weights)["netG_state_dict"])

        def encode(self, z: Tensor, truncation: float = 1.0) -> Tensor:
            return truncation * z

        def synthesize(self, w: Tensor) -> Tensor:
            images: Tensor = self.network(w[:, :, None, None])
            return images

    def look(images: Tensor) -> dict[str, Any]:
        light, face = images.mean(1), images[:, :, 20:48, 20:44].mean((2, 3))
        left, right = light[:, 20:48, 18:32].mean((1, 2)), light[:, 20:48, 32:46].mean((1, 2))
        background = torch.cat([light[:, :40, :6], light[:, :40, -6:]], 2).mean((1, 2)) / 2 + 0.5
        return {
            "night": background < 0.25,
            "dark_hair": light[:, 3:10, 22:42].mean((1, 2)) < -0.55,
            "warm": face[:, 0] - face[:, 2] > 0.3,
            "lit": ["right" if x > 0.15 else "left" if x < -0.15 else "front" for x in (right - left).tolist()],
        }

    return Faces().eval(), look


def stylegan3(sizes: Sizes) -> tuple[Generator, ImageLabeller]:
    """Return a small StyleGAN3 of random weights, and measurements of colour, light and contrast in its pictures."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        generator = StyleGAN3(SG3).eval().requires_grad_(False)
        w = generator.encode(torch.randn(64, SG3.z_dim))
        x = generator.synthesis.input(w)
        for layer in generator.synthesis.layers:  # layers know the magnitude of their inputs, as after training
            layer.magnitude_ema.copy_(x.square().mean())
            x = layer(x, w)
        seen = _numbers(generator.synthesize(generator.encode(torch.randn(sizes.truth, SG3.z_dim))))
    limits = {"bright": 0.8, "warm": 0.95, "plain": 0.1}
    edges = {name: seen[name].quantile(share) for name, share in limits.items()}
    low, high = seen["side"].quantile(torch.tensor([0.2, 0.9]))

    def look(images: Tensor) -> dict[str, Any]:
        found = _numbers(images)
        return {
            "bright": found["bright"] > edges["bright"],
            "warm": found["warm"] > edges["warm"],
            "plain": found["plain"] < edges["plain"],
            "side": ["left" if x < low else "right" if x > high else "even" for x in found["side"]],
        }

    return generator, look


def _numbers(images: Tensor) -> dict[str, Tensor]:
    light, half = images.mean(1), images.shape[-1] // 2
    return {
        "bright": light.mean((1, 2)),
        "warm": images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2)),
        "plain": light.flatten(1).std(1),
        "side": light[:, :, half:].mean((1, 2)) - light[:, :, :half].mean((1, 2)),
    }


GENERATORS: dict[str, Callable[[Sizes], tuple[Generator, ImageLabeller]]] = {"dcgan": dcgan, "stylegan3": stylegan3}


@torch.no_grad()
def make_world(name: str, seed: int, sizes: Sizes, report: Callable[[float], None]) -> World:
    """Draw and label all pictures of a generator under one seed."""
    generator, look = GENERATORS[name](sizes)
    prior, fresh = (Prior(generator, s, (0.7, 0.7), torch.device("cpu")) for s in (seed, FRESH_SEED + seed))
    parts = {
        "random": (prior, torch.arange(sizes.random)),
        "pool": (prior, POOL_START + torch.arange(sizes.pool)),
        "fresh": (fresh, torch.arange(sizes.fresh)),
    }
    labels: dict[str, dict[str, list[Any]]] = {}
    done, total = 0, sizes.random + sizes.pool + sizes.fresh
    for part, (source, index) in parts.items():
        labels[part] = {}
        for w in source.w(index).split(100):
            for attribute, cells in label_images(look, generator.synthesize(w)).items():
                labels[part].setdefault(attribute, []).extend(cells)
            done += len(w)
            report(done / total)
    return World(prior, fresh, sizes, labels)


def fit(
    world: World, indices: list[int], settings: HeadSettings, seed: int = 0, *, taught: bool = False
) -> AttributeBank:
    """Return the heads that `energyql train` fits to the labels of these pictures; `seed` shuffles the table.

    `taught` says whether a teacher labels further pictures.
    """
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed)).tolist()
    table = world.table([indices[i] for i in order])
    with tempfile.TemporaryDirectory() as folder:
        trained = train_attributes(
            world.prior.generator, table, folder, truncation=0.7, seed=world.prior.seed, settings=settings,
            count=world.sizes.further if taught else 0, judge=None, progress=False,
        )  # fmt: skip
    return trained.bank


def accuracy(world: World, bank: AttributeBank) -> dict[str, float]:
    """Return the balanced accuracy of each head on the fresh pictures."""
    predictions, found = bank.predict(world.fresh.w(torch.arange(world.sizes.fresh))), {}
    for name, prediction in predictions.items():
        truth = world.labels["fresh"][name]
        if isinstance(prediction, YesNo):
            decided: list[Any] = (prediction.logit > 0).tolist()
            truth = [bool(cell) for cell in truth]
        else:
            assert isinstance(prediction, Categorical)
            decided = [prediction.values[i] for i in prediction.logits.argmax(1).tolist()]
        recalls = []
        for value in set(truth):
            rows = [i for i, cell in enumerate(truth) if cell == value]
            recalls.append(sum(decided[i] == value for i in rows) / len(rows))
        found[name] = sum(recalls) / len(recalls)
    return found


Choose = Callable[[World, AttributeBank, list[int], list[int], HeadSettings], Iterable[int]]
"""World, heads, pictures labelled so far, pictures to choose from, settings -> positions among these, best first."""


def by_balanced_margin(
    world: World, bank: AttributeBank, known: list[int], pool: list[int], _: HeadSettings
) -> list[int]:
    """The rule of `energyql sample --unsure`: least certain first, each class in turn."""
    return choose_unsure(bank.predict(world.prior.w(torch.tensor(pool))), world.sizes.round)


def by_margin(world: World, bank: AttributeBank, known: list[int], pool: list[int], _: HeadSettings) -> list[int]:
    """Least probability of the likeliest class, the attributes in turn."""
    predictions = bank.predict(world.prior.w(torch.tensor(pool)))
    return _in_turn([_likeliest(prediction).argsort().tolist() for prediction in predictions.values()])


def by_diverse_margin(
    world: World, bank: AttributeBank, known: list[int], pool: list[int], _: HeadSettings
) -> list[int]:
    """Of the pictures that the balanced rule prefers, five times too many, those farthest from each other."""
    latents = world.prior.w(torch.tensor(pool))
    rows = choose_unsure(bank.predict(latents), min(len(pool), 5 * world.sizes.round))
    x, chosen = latents[rows], [0]
    distance = (x - x[0]).norm(dim=1)
    while len(chosen) < world.sizes.round:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).norm(dim=1))
    return [rows[i] for i in chosen]


def by_disagreement(
    world: World, bank: AttributeBank, known: list[int], pool: list[int], settings: HeadSettings
) -> list[int]:
    """Largest variance of the probabilities of heads that were trained from other seeds, the attributes in turn."""
    latents = world.prior.w(torch.tensor(pool))
    banks = [bank, *(fit(world, known, settings, seed) for seed in range(1, COMMITTEE))]
    orders = []
    for name in bank.vocabulary:
        votes = torch.stack([_probabilities(each.predict(latents, (name,))[name]) for each in banks])
        orders.append(votes.var(0).sum(1).argsort(descending=True).tolist())
    return _in_turn(orders)


def by_rarity(world: World, bank: AttributeBank, known: list[int], pool: list[int], _: HeadSettings) -> list[int]:
    """The classes in turn, the most probable pictures of each first."""
    orders: list[list[int]] = []
    for prediction in bank.predict(world.prior.w(torch.tensor(pool))).values():
        orders += [column.argsort(descending=True).tolist() for column in _probabilities(prediction).unbind(1)]
    return _in_turn(orders)


def by_chance(world: World, bank: AttributeBank, known: list[int], pool: list[int], _: HeadSettings) -> list[int]:
    """The first of the pool, which are as random as any."""
    return list(range(len(pool)))


OWN_RULE = "balanced margin"
"""The rule of `energyql sample --unsure`."""
RULES: dict[str, Choose] = {
    OWN_RULE: by_balanced_margin,
    "margin": by_margin,
    "diverse": by_diverse_margin,
    "disagreement": by_disagreement,
    "rarity": by_rarity,
    "chance": by_chance,
}


def _probabilities(prediction: Any) -> Tensor:
    if isinstance(prediction, YesNo):
        return torch.stack([prediction.logit, -prediction.logit], 1).sigmoid()
    logits: Tensor = prediction.logits
    return logits.softmax(1)


def _likeliest(prediction: Any) -> Tensor:
    return _probabilities(prediction).amax(1)


def _in_turn(orders: list[list[int]]) -> list[int]:
    return list(dict.fromkeys(row for turn in zip(*orders, strict=True) for row in turn))


def run_random(world: World, settings: HeadSettings, *, taught: bool) -> dict[str, dict[str, float]]:
    """Label random pictures; return the accuracies by number of labels."""
    sizes = world.sizes
    return {
        str(n): accuracy(world, fit(world, list(range(n)), settings, taught=taught))
        for n in (sizes.first, sizes.total, sizes.random)
    }


def run_rule(
    world: World, choose: Choose, settings: HeadSettings, report: Callable[[float], None], *, taught: bool
) -> dict[str, dict[str, float]]:
    """Label in rounds; return the accuracies by number of labels."""
    sizes = world.sizes
    known, found = list(range(sizes.first)), {}
    while True:
        bank = fit(world, known, settings, taught=taught)
        found[str(len(known))] = accuracy(world, bank)
        report(len(known) / sizes.total)
        if len(known) >= sizes.total:
            return found
        pool = [POOL_START + i for i in range(sizes.pool) if POOL_START + i not in set(known)]
        known += [pool[i] for i in list(choose(world, bank, known, pool, settings))[: sizes.round]]


def main(
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("runs/active"),
    generators: Annotated[
        str, typer.Option(help="Separated by commas: dcgan (needs gan-face-generate), stylegan3.")
    ] = ("stylegan3,dcgan"),
    rules: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(RULES)}.")] = ",".join(RULES),
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions with other pictures.")] = 3,
    smoke: SmokeOption = False,
) -> None:
    """Balanced accuracy of heads on 500 labels that are chosen in rounds, and on 200, 500 and 1,500 random ones."""
    sizes, settings = Sizes(), HeadSettings()
    if smoke:
        sizes, settings = Sizes(60, 20, 80, 120, 40, 60, 60, 20), HeadSettings(steps=5, hidden=8)
    path, described = out / "results.json", {**vars(sizes), **vars(settings), "smoke": smoke}
    data = earlier_results(path, described) or {"settings": described, "machine": machine(), "runs": {}}
    runs: dict[str, Any] = data["runs"]
    with reporting(True) as report:
        for name in generators.split(","):
            for seed in range(7, 7 + seeds):
                wanted = ["random", *rules.split(",")]
                wanted += [rule + TAUGHT for rule in ("random", OWN_RULE) if rule in wanted]
                missing = [rule for rule in wanted if f"{name}/{seed}/{rule}" not in runs]
                if not missing:
                    continue
                world = make_world(name, seed, sizes, lambda done, n=name, s=seed: report(f"{n} {s}", done))  # type: ignore[misc]
                for rule in missing:
                    own, taught = rule.removesuffix(TAUGHT), rule.endswith(TAUGHT)
                    if own == "random":
                        found = run_random(world, settings, taught=taught)
                    else:
                        found = run_rule(
                            world,
                            RULES[own],
                            settings,
                            lambda done, r=rule: report(r, done),
                            taught=taught,  # type: ignore[misc]
                        )
                    runs[f"{name}/{seed}/{rule}"] = found
                    write_json(path, data)
    show(*(summary(runs, name, sizes) for name in generators.split(",")))


def summary(runs: Mapping[str, Any], name: str, sizes: Sizes) -> Table:
    """Return a table of mean accuracies over the seeds, for the attributes and for their mean."""
    groups: dict[str, list[dict[str, float]]] = {}
    for key, found in runs.items():
        generator, _, rule = key.split("/")
        wanted = [sizes.first, sizes.total, sizes.random] if rule.startswith("random") else [sizes.total]
        for count in wanted if generator == name else ():
            groups.setdefault(f"{rule}, {count}", []).append(found[str(count)])
    attributes = list(next(iter(groups.values()))[0])
    table = Table(f"{name}: labels", *attributes, "mean", "seeds", title="balanced accuracy on fresh pictures, %")
    for label, each in groups.items():
        means = [sum(run[attribute] for run in each) / len(each) for attribute in attributes]
        table.add_row(label, *(f"{100 * x:.1f}" for x in (*means, sum(means) / len(means))), str(len(each)))
    return table


if __name__ == "__main__":
    run_command(main)
