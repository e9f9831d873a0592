"""The settings with which a data set is written, each with its type, default and text of help. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from energyql.errors import ArgumentError, either
from energyql.pipeline.settings import finite_number, option, whole_number
from energyql.pipeline.source import CodeOptions

MOST_WORKERS = 100_000
"""Largest number of workers."""


class DatasetOptions(CodeOptions, total=False):
    """Types of the keyword arguments of `write_dataset`: the fields of `DatasetSettings`, and of `ModelSource`."""

    only_satisfied: bool | None
    budget: int | None
    workers: int
    address: str | None
    gpus: float
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSettings:
    """The settings of `write_dataset`.

    Attributes:
        only_satisfied: replaces `only_satisfied` of the plan, unless it is `None`.
        budget: replaces `budget` of the plan, unless it is `None`.
        workers: number of processes that draw; more than 1 need Ray.
        address: address of a Ray cluster; `None` for this machine.
        gpus: number of GPUs of each Ray worker; with a fraction, such as 0.5, workers share a GPU.
        device: device of each worker, see `generate`.

    Raises:
        ArgumentError: a number is out of range, or `gpus` is not 0 although Ray is not used.
    """

    only_satisfied: bool | None = field(default=None, metadata=option("Replace pictures that the judge rejects."))
    budget: int | None = field(default=None, metadata=option(
        "Most samples for each picture, with --only-satisfied; by default 10.", common=False,
    ))  # fmt: skip
    workers: int = field(default=1, metadata=option("Processes that draw; more than one needs Ray."))
    address: str | None = field(default=None, metadata=option(
        "A Ray cluster, such as auto or host:6379; by default this machine.", common=False,
    ))  # fmt: skip
    gpus: float = field(default=0, metadata=option("GPUs of each Ray worker; may be a fraction.", common=False))
    device: str = field(default="auto", metadata=option("auto, cpu, cuda, mps."))

    def __post_init__(self) -> None:
        object.__setattr__(self, "workers", whole_number("workers", self.workers, most=MOST_WORKERS))
        if finite_number("gpus", self.gpus, least=0) and not self.on_ray:
            hint = f"name its {either('device', '--device')} instead, or give workers or an address"
            raise ArgumentError("gpus are shares of the workers of Ray, and one worker is this process", hint=hint)

    @property
    def on_ray(self) -> bool:
        """Whether Ray workers draw the shards, in place of this process: with several workers, or with an address."""
        return self.workers > 1 or self.address is not None
