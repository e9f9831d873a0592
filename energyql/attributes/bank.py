"""The attributes of a model: the protocol `Bank`, the conditions of their training, and `vocabulary.json`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from energyql.attributes.predictions import Prediction
from energyql.attributes.quality import HeadReport
from energyql.errors import ArgumentError, ModelError, VocabularyError
from energyql.files import DAMAGED_MODEL, read_json, write_json
from energyql.numerics import LARGEST
from energyql.vocabulary import Vocabulary

if TYPE_CHECKING:
    from typing import Self

    from energyql.attributes.heads import AttributeBank

SPACES = ("w", "z", "direction", "features")
"""Inputs of heads. The direction is z scaled to unit second moment: a StyleGAN ignores the length of z. Features are a
view of z that the generator offers."""
PICTURE = "picture"
"""The `space` of attributes that are read off pictures, without heads; see `PictureBank`."""
FittedLabel = int | tuple[float, ...] | str | None
"""Class label of the latents that heads were fitted on: a number, a condition vector, "random", or `None`."""

DESCRIBED = "vocabulary.json"


@dataclass(frozen=True)
class FittedUnder:
    """The conditions under which the attributes of a model were learned, and under which they are valid.

    Attributes:
        space: input of the heads, one of `SPACES`; or `PICTURE`.
        truncation: range of the truncation psi of the samples.
        label: class label of the samples; "random" where each sample had its own; `None` for all labels, and for a
            generator without classes.
        generator: fingerprint of the generator; "" for any.

    Raises:
        ModelError: the truncation is no range, or the label is no class label, or "random" with a space other than w.
    """

    space: str = "w"
    truncation: tuple[float, float] = (1.0, 1.0)
    label: FittedLabel = None
    generator: str = ""

    def __post_init__(self) -> None:
        if not -LARGEST <= self.truncation[0] <= self.truncation[1] <= LARGEST:
            raise ModelError(f"{self.truncation} is no range of truncation")
        if not _is_label(self.label):
            raise ModelError(f"{self.label!r} is no class label")
        if self.label == "random" and self.space not in ("w", PICTURE):
            raise ModelError(
                f"heads that read {self.space} cannot tell the classes apart", hint="let them read w, or fit one class"
            )

    def __str__(self) -> str:
        under = "" if self.label is None else f" under label {self.label}"
        return f"{self.space} at truncation {self.truncation}{under}"

    @property
    def default_label(self) -> int | tuple[float, ...] | None:
        """The label of a sample unless a call gives one; `None` for no label, and where each sample had its own."""
        return None if isinstance(self.label, str) else self.label

    def is_of(self, fingerprint: str) -> bool:
        """Return whether the attributes are valid for the generator with this fingerprint."""
        return self.generator in ("", fingerprint)

    def is_beside(self, other: FittedUnder) -> bool:
        """Return whether both are equal but for the fingerprint: attributes learned under them can be in one bank."""
        return dataclasses.replace(self, generator=other.generator) == other

    def holds_at(self, psi: float) -> bool:
        """Return whether a truncation psi is in the range."""
        return self.truncation[0] <= psi <= self.truncation[1]

    def check_truncation(self, psi: float, model: str) -> None:
        """Raise an `ArgumentError` if the attributes are not valid at a psi; `model` is a name for the message."""
        if not self.holds_at(psi):
            low, high = self.truncation
            allowed = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            raise ArgumentError(
                f"the attributes of model {model!r} do not hold at truncation {psi:g}",
                hint=f"they were fitted at truncation {allowed}: use that, or train them for {psi:g}",
            )

    def check_label(self, label: int | tuple[float, ...] | None, model: str) -> None:
        """Raise an `ArgumentError` if the attributes are not valid under a label; `model` is a name for the message."""
        if self.label == "random" and isinstance(label, tuple):
            raise ArgumentError(
                f"the attributes of model {model!r} hold for every class, not between classes",
                hint=f"give a class from 0 to {len(label) - 1}",
            )
        if self.label not in (None, "random", label):
            raise ArgumentError(
                f"the attributes of model {model!r} do not hold under label {label}",
                hint=f"they were fitted under label {self.label}: use that, or train them for {label}",
            )


def _is_label(label: object) -> bool:
    if isinstance(label, tuple):
        return all(isinstance(number, float) and abs(number) <= LARGEST for number in label)
    return label in (None, "random") or (isinstance(label, int) and not isinstance(label, bool) and label >= 0)


class Described(NamedTuple):
    """The contents of `vocabulary.json`: the attributes of a model.

    Attributes:
        fitted: conditions under which they were learned.
        vocabulary: the attributes.
        reader: name of the code that reads the attributes off pictures, of any type as the file has it; `None` for
            heads and networks.
        gradient: whether autograd can differentiate that code; `None` for the default, see `PictureBank`.
    """

    fitted: FittedUnder
    vocabulary: Vocabulary
    reader: Any = None
    gradient: bool | None = None

    def write(self, folder: Path) -> None:
        """Write `vocabulary.json`, whole or not at all."""
        code = {name: value for name in ("reader", "gradient") if (value := getattr(self, name)) is not None}
        entries = dataclasses.asdict(self.fitted) | {"vocabulary": self.vocabulary.to_dict()} | code
        write_json(folder / DESCRIBED, entries)

    @classmethod
    def read(cls, folder: Path) -> Described:
        """Read what `write` wrote.

        Raises:
            ModelError: the file is missing or damaged.
        """
        path = folder / DESCRIBED
        entries = read_json(path)
        try:
            vocabulary = Vocabulary.from_dict(entries["vocabulary"])
            low, high = (float(psi) for psi in entries["truncation"])
            label = entries.get("label")  # missing in older models of generators without classes
            label = tuple(float(number) for number in label) if isinstance(label, list) else label
            fitted = FittedUnder(str(entries["space"]), (low, high), label, str(entries["generator"]))
            if (gradient := entries.get("gradient")) not in (None, True, False):
                raise ValueError(f"gradient is true or false, not {gradient!r}")
        except KeyError as error:
            raise ModelError(f"{path}: {error} is missing", hint=DAMAGED_MODEL) from None
        except (TypeError, ValueError, OverflowError, VocabularyError, ModelError) as error:
            raise ModelError(f"{path}: {error}", hint=DAMAGED_MODEL) from error
        return cls(fitted, vocabulary, entries.get("reader"), gradient)


@runtime_checkable
class Bank(Protocol):
    """The attributes of a model, such as heads that read latents, or a reader of pictures.

    Another kind of bank inherits from this class, and defines at least `part`, `device`, `to`, `predict` and `save`. If
    `reads_pictures` is true, each evaluation of the energy of a query draws a picture; otherwise `predict` takes
    latents of `space`.

    Attributes:
        part: name of the weights among the fingerprints of a model, and in its folder before `.safetensors`.
        vocabulary: the attributes.
        fitted: conditions under which they were learned.
        reports: quality on held-out samples, by attribute; attributes that were not measured have none.
        gradient: whether autograd can differentiate `predict`.
        reader: the network or function that reads pictures; `None` if latents are read.
        name: name of the code that makes the reader, if a folder holds only this name.
    """

    part: str
    vocabulary: Vocabulary
    fitted: FittedUnder
    reports: Mapping[str, HeadReport]
    gradient: bool = True
    reader: Any = None
    name: str | None = None

    @property
    def space(self) -> str:
        """The input of `predict`: one of `SPACES`, or `PICTURE`."""
        return self.fitted.space

    @property
    def truncation(self) -> tuple[float, float]:
        """Range of the truncation psi of the samples that the attributes were fitted on."""
        return self.fitted.truncation

    @property
    def label(self) -> FittedLabel:
        """Class label of those samples."""
        return self.fitted.label

    @property
    def generator(self) -> str:
        """Fingerprint of the generator."""
        return self.fitted.generator

    @property
    def reads_pictures(self) -> bool:
        """Whether `predict` takes pictures, and not latents."""
        return self.space == PICTURE

    @property
    def as_heads(self) -> AttributeBank | None:
        """The bank itself if it consists of heads on latents, else `None`."""
        return None

    @property
    def latent_dim(self) -> int | None:
        """Size of the latents that are read; `None` for pictures."""
        return None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""

    @property
    def std(self) -> Mapping[str, Tensor]:
        """Standard deviation, (), of each continuous attribute for which it is the same for every input."""
        return {}

    def to(self, device: torch.device | str) -> Self:
        """Return the bank on a device."""

    def predict(self, read: Tensor, names: Sequence[str] | None = None) -> dict[str, Prediction]:
        """Return predictions of attributes, all by default, for latents or pictures (batch, ...)."""

    def save(self, folder: Path) -> None:
        """Write the bank into a model folder, each file whole or not at all."""

    def of_generator(self, fingerprint: str) -> Self:
        """Return the bank with another fingerprint: that of a generator which maps z to the same w."""
        same = copy.copy(self)
        same.fitted = dataclasses.replace(self.fitted, generator=fingerprint)
        return same
