"""What to write: the classes and the form of a data set, the place and the workers. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from energyql.errors import ArgumentError
from energyql.language import Expr
from energyql.language.lexical import check_name, shorten
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DrawSettings, finite_number, whole_number
from energyql.vocabulary import closest, repeated

if TYPE_CHECKING:
    from energyql.attributes.labels import ImageLabeller
    from energyql.generators.base import Generator
    from energyql.pipeline.model import Model

PictureFormat = Literal["png", "webp", "jpg"]
SETTINGS = (
    "semantics", "sampler", "strength", "precision", "truncation", "label", "noise", "batch_size", "allow_weak",
)  # fmt: skip
"""The settings that a class may have; they are those of `energyql.generate`."""
MOST = 2**40
"""Most pictures of a data set."""
MOST_IN_SHARD, MOST_WORKERS = 100_000, 100_000


@dataclass(frozen=True, kw_only=True)
class DatasetClass:
    """One class of a data set: pictures that satisfy one query.

    Args:
        name: of the class.
        query: text or expression.
        count: number of pictures.
        model: as for `energyql.generate`.
        seed: of its samples, 0 to 2**64 - 1; by default a number that follows from the seed of the plan and the name.
        settings: semantics, sampler, strength, precision, truncation, label, noise, batch_size and allow_weak, as for
            `energyql.generate`.

    Raises:
        ArgumentError: a value has the wrong type or is out of range.
    """

    name: str
    query: str | Expr
    count: int
    model: str | Path | Model = DEFAULT_MODEL
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", check_name(self.name, "the name of a class"))
        if not isinstance(self.query, str | Expr):
            raise ArgumentError(f"a query is a string or an expression, not {shorten(repr(self.query))}")
        object.__setattr__(self, "count", whole_number("count", self.count, most=MOST))
        if isinstance(self.model, bool | int | float | list | Mapping):
            raise ArgumentError(f"a model is a name or the path of a folder, not {shorten(repr(self.model))}")
        for name in self.settings:
            if name not in SETTINGS:
                raise unknown(name, SETTINGS, "setting of a class")
        self.draw_settings(0 if self.seed is None else self.seed)

    def draw_settings(self, seed: int) -> DrawSettings:
        """Return the settings with which the class is drawn.

        Raises:
            ArgumentError: one of them is wrong.
        """
        return DrawSettings(**self.settings, seed=seed)


@dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """A data set: its classes and its form. `energyql.write_dataset` writes it.

    Args:
        classes: at least one, each with a name of its own.
        seed: 0 to 2**64 - 1. Sample i of a class depends on the seed of the class and on i alone.
        format: of the pictures: "png", "webp" or "jpg".
        quality: of "webp" and "jpg", 1 to 100.
        shard_size: pictures of one shard, about; every shard has its share of every class.
        only_satisfied: whether to keep only pictures that satisfy their query, according to the judge of the model.
        budget: with `only_satisfied`, the most samples that are drawn for each picture that is wanted.

    Raises:
        ArgumentError: a value has the wrong type or is out of range, or two classes have one name.
    """

    classes: Sequence[DatasetClass]
    seed: int = 0
    format: PictureFormat = "png"
    quality: int = 92
    shard_size: int = 1000
    only_satisfied: bool = False
    budget: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes) if isinstance(self.classes, Iterable) else ())
        if not self.classes or not all(isinstance(each, DatasetClass) for each in self.classes):
            raise ArgumentError("classes must be a list of DatasetClass, at least one")
        if (twice := repeated([each.name for each in self.classes])) is not None:
            raise ArgumentError(f"two classes have the name {twice!r}", hint="give each class a name of its own")
        for name, least, most in (
            ("seed", 0, 2**64 - 1),
            ("quality", 1, 100),
            ("shard_size", 1, MOST_IN_SHARD),
            ("budget", 1, 100_000),
        ):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least=least, most=most))
        if self.format not in get_args(PictureFormat):
            raise ArgumentError(
                f"there is no format {self.format!r}", hint=f"choose {', '.join(get_args(PictureFormat))}"
            )
        if not isinstance(self.only_satisfied, bool):
            raise ArgumentError(f"only_satisfied must be true or false, not {self.only_satisfied!r}")

    @property
    def count(self) -> int:
        """Number of pictures of all classes."""
        return sum(each.count for each in self.classes)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.count // self.shard_size)

    def seed_of(self, one: DatasetClass) -> int:
        """Return the seed of a class: its own, or one below 2**48 that follows from the plan's seed and its name.

        So classes do not share their random numbers, and a class does not change when another one is added.
        """
        if one.seed is not None:
            return one.seed
        return int.from_bytes(hashlib.sha256(f"{self.seed}\n{one.name}".encode()).digest()[:6], "big")

    def positions(self, one: DatasetClass, shard: int) -> range:
        """Return the positions of a shard's pictures in a class, which has the positions 0 to count - 1.

        Shards have equal shares of each class, up to one picture.
        """
        start, end = (number * one.count // self.shards for number in (shard, shard + 1))
        return range(start, end)

    def candidates(self, one: DatasetClass, shard: int) -> range:
        """Return the numbers of the samples that may be drawn for a shard: no two shards share one."""
        wanted, each = self.positions(one, shard), self.budget if self.only_satisfied else 1
        return range(wanted.start * each, wanted.stop * each)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A plan with the place where it is written and the workers who draw it: all that `energyql.write_dataset` is told.

    Args:
        plan: the plan.
        out: the destination.
        workers, address, gpus: number of processes, the cluster that they run on, and the GPUs of each.
        device, generator, judge, allow_plugins: as for `energyql.load_model`, for every model of the plan.

    Raises:
        ArgumentError: a number is out of range, or `gpus` are given without Ray.
    """

    plan: DatasetPlan
    out: str | Path
    workers: int = 1
    address: str | None = None
    gpus: float = 0
    device: str = "auto"
    generator: Generator | str | None = None
    judge: ImageLabeller | str | None = None
    allow_plugins: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "workers", whole_number("workers", self.workers, most=MOST_WORKERS))
        if finite_number("gpus", self.gpus) < 0:
            raise ArgumentError(f"gpus must be at least 0, not {self.gpus!r}")
        if self.gpus and not self.on_ray:
            raise ArgumentError(
                "gpus are shares of the workers of Ray, and one worker is this process",
                hint="name its device instead (device=, --device), or give workers or an address",
            )

    @property
    def on_ray(self) -> bool:
        """Whether Ray draws the shards, and not this process."""
        return self.workers > 1 or self.address is not None


def unknown(name: object, known: Sequence[str], what: str) -> ArgumentError:
    """Return the error for a name that is none of those known."""
    guess = closest(str(name), known)
    hint = f"did you mean {guess}?" if guess else f"known: {', '.join(known)}"
    return ArgumentError(f"there is no {what} {name!r}", hint=hint)
