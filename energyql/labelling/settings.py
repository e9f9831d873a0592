"""The settings with which pictures to label are drawn: types, defaults and texts of help. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from energyql.errors import ArgumentError, either
from energyql.pipeline.settings import option, whole_number
from energyql.training.settings import POOL_SIZE, POOL_START, pictures_psi

if TYPE_CHECKING:
    from energyql.training.clip_labels import ClipLabeller
else:
    ClipLabeller = object

MOST_NUMBER = 1 << 62
"""Numbers of pictures are smaller."""
Chooser = Literal["heads", "teacher", "reader"]
"""Whose predictions choose pictures to label: see `SampleSettings`."""


class SampleOptions(TypedDict, total=False):
    """Types of the keyword arguments of `sample_pictures`: the fields of `SampleSettings`, again for type checkers."""

    unsure: bool
    by: Chooser | None
    only: Sequence[str] | None
    labels: str | Path | None
    reader: ClipLabeller | None
    pool: int
    seed: int | None
    truncation: float | None
    condition: int | str | Sequence[float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """The settings of `sample_pictures`.

    Attributes:
        unsure: whether to choose pictures with the least certain predictions, about as many for each value of an
            attribute, so that rare classes are labelled too. Pictures that are labelled or already in the folder are
            not chosen.
        by: whose predictions count: "heads", which read latents; "teacher", networks that read pictures, which
            `train_attributes` fits to a table of labels; or "reader", the network `reader` and the heads, where
            pictures come first for which both are unsure or disagree. By default the more accurate teacher if there is
            one, and the heads for attributes that it does not read. For a teacher, the whole pool is drawn, once for
            all rounds.
        only: attributes whose predictions count, all by default.
        labels: further table of labels. Pictures in it, or in `labels.csv` of the folder, are not chosen.
        reader: labels pictures by prompts of yes/no attributes, for `by="reader"`.
        pool: number of prior samples to choose from. They begin at sample 1,000,000, so that none is a random picture.
        seed: seed of the samples; by default that of the pictures in the folder, or 0 for a new folder.
        truncation: psi, 0 to 2. By default that of the pictures in the folder; for a new folder that of the model, or
            the largest at which its heads are valid. Checkpoints have that of their family, such as 0.7; your own
            generators 1.
        condition: a class, or as many numbers as the generator has classes. By default that of the pictures in the
            folder; for a new folder, the one for which the heads are valid.

    Raises:
        ArgumentError: a value is out of range, or chooses pictures although `unsure` is false.
    """

    unsure: bool = field(default=False, metadata=option("Add pictures with the least certain predictions."))
    by: Chooser | None = field(default=None, metadata=option(
        "Networks whose certainty counts: by default the teacher of the last training, for which the pool is "
        "drawn; without a teacher, the heads. With reader, pictures on which --reader and heads differ.",
    ))  # fmt: skip
    only: Sequence[str] | None = field(default=None, metadata=option(
        "Attributes whose heads choose, separated by commas.",
    ))  # fmt: skip
    labels: str | Path | None = field(default=None, metadata=option("CSV: pictures in it are not chosen."))
    reader: ClipLabeller | None = None
    pool: int = field(default=POOL_SIZE, metadata=option("Prior samples that --unsure chooses from."))
    seed: int | None = field(default=None, metadata=option(
        "Seed of the pictures; by default that of the folder, or 0.",
    ))  # fmt: skip
    truncation: float | None = field(default=None, metadata=option("psi of the pictures; by default that of train."))
    condition: int | str | Sequence[float] | None = field(default=None, metadata=option(
        "Of a conditional generator: a class, numbers separated by commas, or a prompt.",
    ))  # fmt: skip

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "pool": whole_number("pool", self.pool, most=MOST_NUMBER - POOL_START),
            "seed": None if self.seed is None else whole_number("seed", self.seed, least=0, most=2**64 - 1),
            "truncation": pictures_psi(self.truncation),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.by not in (None, *get_args(Chooser)):
            *choosers, last = get_args(Chooser)
            raise ArgumentError(f"pictures are chosen by {', '.join(choosers)} or {last}, not {self.by!r}")
        if not self.unsure and (self.only, self.labels, self.by, self.reader) != (None, None, None, None):
            hint = f"add {either('unsure=True', '--unsure')}"
            raise ArgumentError("random pictures are not chosen by attributes, labels or a teacher", hint=hint)
