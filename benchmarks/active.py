"""Labels chosen in rounds against random ones: `python -m benchmarks.active --help`.

Every generator has a hidden truth, a known function of its pictures, which stands in for a person who labels. Rounds
begin with random pictures, of which a part is kept for the report, as in `energyql train`; each round then fits heads,
chooses pictures by a rule, and labels them. All heads are measured on the same fresh pictures.
Random labels, and those of the rule of `energyql sample --unsure --by heads`, are tried with and without a teacher;
those of `--by teacher`, the default where there is a teacher, with one.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor

from benchmarks.common import SmokeOption, earlier_results, run_command, show
from benchmarks.hidden_truth import Quality, Sizes, World, make_world, measure
from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import Judge
from energyql.attributes.predictions import YesNo
from energyql.evaluation.measure import machine
from energyql.files import write_json
from energyql.labelling.sample import choose_unsure
from energyql.progress import reporting
from energyql.training.heads import HeadSettings
from energyql.training.run import train_attributes
from energyql.training.samples import draw_thumbnails
from energyql.training.settings import POOL_START
from energyql.training.teacher import load_teacher, teacher_reads

TAUGHT = ", taught"
"""End of the names of runs with a teacher."""
COMMITTEE = 4
"""Trainings with other seeds whose disagreement is measured."""


@dataclass(frozen=True)
class Fitted:
    """What a training leaves: heads, and the networks of its teacher if it has one."""

    bank: AttributeBank
    teacher: Sequence[Judge]


def fit(world: World, indices: list[int], settings: HeadSettings, seed: int = 0, *, taught: bool = False) -> Fitted:
    """Return what `energyql train` fits to the labels of these pictures; `seed` shuffles the table.

    `taught` says whether a teacher labels further pictures.
    """
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed)).tolist()
    table = world.table([indices[i] for i in order])
    with tempfile.TemporaryDirectory() as folder:
        trained = train_attributes(
            world.prior.generator, table, folder, truncation=0.7, seed=world.prior.seed, settings=settings,
            n=world.sizes.further if taught else 0, judge=None, progress=False,
        )  # fmt: skip
        return Fitted(trained.bank, load_teacher(Path(folder)))


Choose = Callable[[World, Fitted, list[int], list[int], HeadSettings], Iterable[int]]
"""World, last training, pictures labelled so far, pictures to choose from, settings -> their positions, best first."""


def by_balanced_margin(world: World, fitted: Fitted, known: list[int], pool: list[int], _: HeadSettings) -> list[int]:
    """The rule of `energyql sample --unsure --by heads`: least certain first, each class in turn."""
    return choose_unsure(fitted.bank.predict(world.prior.w(torch.tensor(pool))), world.sizes.round)


def by_margin(world: World, fitted: Fitted, known: list[int], pool: list[int], _: HeadSettings) -> list[int]:
    """Least probability of the likeliest class, the attributes in turn."""
    predictions = fitted.bank.predict(world.prior.w(torch.tensor(pool)))
    return _in_turn([_likeliest(prediction).argsort().tolist() for prediction in predictions.values()])


def by_diverse_margin(world: World, fitted: Fitted, known: list[int], pool: list[int], _: HeadSettings) -> list[int]:
    """Of the pictures that the balanced rule prefers, five times too many, those farthest from each other."""
    latents = world.prior.w(torch.tensor(pool))
    rows = choose_unsure(fitted.bank.predict(latents), min(len(pool), 5 * world.sizes.round))
    x, chosen = latents[rows], [0]
    distance = (x - x[0]).norm(dim=1)
    while len(chosen) < world.sizes.round:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).norm(dim=1))
    return [rows[i] for i in chosen]


def by_disagreement(
    world: World, fitted: Fitted, known: list[int], pool: list[int], settings: HeadSettings
) -> list[int]:
    """Largest variance of the probabilities of heads that were trained from other seeds, the attributes in turn."""
    latents = world.prior.w(torch.tensor(pool))
    banks = [fitted.bank, *(fit(world, known, settings, seed).bank for seed in range(1, COMMITTEE))]
    orders = []
    for name in fitted.bank.vocabulary:
        votes = torch.stack([_probabilities(each.predict(latents, (name,))[name]) for each in banks])
        orders.append(votes.var(0).sum(1).argsort(descending=True).tolist())
    return _in_turn(orders)


def by_rarity(world: World, fitted: Fitted, known: list[int], pool: list[int], _: HeadSettings) -> list[int]:
    """The classes in turn, the most probable pictures of each first."""
    orders: list[list[int]] = []
    for prediction in fitted.bank.predict(world.prior.w(torch.tensor(pool))).values():
        orders += [column.argsort(descending=True).tolist() for column in _probabilities(prediction).unbind(1)]
    return _in_turn(orders)


def by_teacher(world: World, fitted: Fitted, known: list[int], pool: list[int], _: HeadSettings) -> list[int]:
    """The rule of `energyql sample --unsure --by teacher`: the same, by what its networks read off the pictures."""
    index = torch.tensor(pool)
    with tempfile.TemporaryDirectory() as folder:
        predictions = fitted.bank.predict(world.prior.w(index))
        if fitted.teacher:
            pictures, _labels = draw_thumbnails(
                world.prior, index, fitted.teacher[0].side, Path(folder), report=lambda stage, done: None
            )
            predictions |= teacher_reads(fitted.teacher, pictures)
    return choose_unsure(predictions, world.sizes.round)


def by_chance(world: World, fitted: Fitted, known: list[int], pool: list[int], _: HeadSettings) -> list[int]:
    """The first of the pool, which are as random as any."""
    return list(range(len(pool)))


OWN_RULE = "balanced margin"
"""The rule of `energyql sample --unsure --by heads`."""
BY_TEACHER = "teacher"
"""The rule that needs a teacher, and is tried with one only."""
RULES: dict[str, Choose] = {
    OWN_RULE: by_balanced_margin,
    BY_TEACHER: by_teacher,
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


def run_random(world: World, settings: HeadSettings, *, taught: bool) -> dict[str, Quality]:
    """Label random pictures; return the quality by number of labels."""
    sizes = world.sizes
    return {
        str(n): measure(world, fit(world, list(range(n)), settings, taught=taught).bank)
        for n in (sizes.first, sizes.total, sizes.random)
    }


def run_rule(
    world: World, choose: Choose, settings: HeadSettings, report: Callable[[float], None], *, taught: bool
) -> dict[str, Quality]:
    """Label in rounds; return the quality by number of labels."""
    sizes = world.sizes
    known, found = list(range(sizes.first)), {}
    while True:
        fitted = fit(world, known, settings, taught=taught)
        found[str(len(known))] = measure(world, fitted.bank)
        report(len(known) / sizes.total)
        if len(known) >= sizes.total:
            return found
        pool = [POOL_START + i for i in range(sizes.pool) if POOL_START + i not in set(known)]
        known += [pool[i] for i in list(choose(world, fitted, known, pool, settings))[: sizes.round]]


def main(
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("runs/active"),
    generators: Annotated[
        str, typer.Option(help="Separated by commas: dcgan (needs gan-face-generate), stylegan3.")
    ] = ("stylegan3,dcgan"),
    rules: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(RULES)}.")] = ",".join(RULES),
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions with other pictures.")] = 3,
    smoke: SmokeOption = False,
) -> None:
    """Quality of heads on 500 labels that are chosen in rounds, and on 200, 500 and 1,500 random ones."""
    sizes, settings = Sizes(), HeadSettings()
    if smoke:
        sizes, settings = Sizes(60, 20, 80, 120, 40, 60, 60, 20), HeadSettings(steps=5, hidden=8)
    path, described = out / "results.json", {**vars(sizes), **vars(settings), "smoke": smoke}
    data = earlier_results(path, described) or {"settings": described, "machine": machine(), "runs": {}}
    runs: dict[str, Any] = data["runs"]
    with reporting(True) as report:
        for name in generators.split(","):
            for seed in range(7, 7 + seeds):
                named = ["random", *rules.split(",")]
                wanted = [rule for rule in named if rule != BY_TEACHER]
                wanted += [rule + TAUGHT for rule in ("random", OWN_RULE, BY_TEACHER) if rule in named]
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
    """Return a table of the measures, their means over seeds and attributes."""
    groups: dict[str, list[Quality]] = {}
    for key, found in runs.items():
        generator, _, rule = key.split("/")
        wanted = [sizes.first, sizes.total, sizes.random] if rule.startswith("random") else [sizes.total]
        for count in wanted if generator == name else ():
            groups.setdefault(f"{rule}, {count}", []).append(found[str(count)])
    table = Table(f"{name}: labels", "natural", "balanced", "log loss", "seeds", title="heads on fresh pictures")
    for label, each in groups.items():
        natural, balanced, loss = (
            statistics.fmean(of[key] for run in each for of in run.values())
            for key in ("natural", "balanced", "log loss")
        )
        table.add_row(label, f"{100 * natural:.1f} %", f"{100 * balanced:.1f} %", f"{loss:.3f}", str(len(each)))
    return table


if __name__ == "__main__":
    run_command(main)
