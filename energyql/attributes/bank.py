"""The protocol `Bank` of objects that predict attributes, and the file `vocabulary.json` that describes the attributes.

Predictions are valid only under conditions, such as one truncation of the generator: `FittedUnder`.
"""

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
from energyql.attributes.quality import HeadReport, naming_damage
from energyql.errors import EARLIER, ArgumentError, ModelError
from energyql.files import read_json, write_json
from energyql.numerics import LARGEST
from energyql.vocabulary import Vocabulary

if TYPE_CHECKING:
    from typing import Self

SPACES = ("w", "z", "direction", "features")
"""Possible inputs of heads. "direction" is z scaled to a mean square of 1, since the pictures of a StyleGAN do not
depend on the length of z. "features" is a function of z that some generators compute for their heads."""
PICTURE = "picture"
"""Value of `space` for attributes that a network or function predicts from pictures, in a model without heads."""
FittedCondition = int | tuple[float, ...] | str | None
"""Condition of the latents that heads were fitted on: the number of a class, a condition vector with a number for each
class, "random" (each latent had a random class), or `None` (no condition)."""

DESCRIBED = "vocabulary.json"


@dataclass(frozen=True)
class FittedUnder:
    """The conditions under which attributes were learned; predictions are valid only under the same conditions.

    Attributes:
        space: what predictions are made from: one of `SPACES` for heads, or `PICTURE`.
        truncation: range (lowest, highest) of the truncation psi, by which a StyleGAN scales w towards the mean w.
        condition: condition of the samples; "random" if each had a random class; `None` if the attributes are valid for
            all conditions, or the generator has no classes.
        generator: fingerprint of the generator, a digest of its weights; "" if any generator will do.

    Raises:
        ModelError: `truncation` is no range, or `condition` is no condition, or is "random" although `space` is neither
            "w" nor `PICTURE`.
    """

    space: str = "w"
    truncation: tuple[float, float] = (1.0, 1.0)
    condition: FittedCondition = None
    generator: str = ""

    def __post_init__(self) -> None:
        if not -LARGEST <= self.truncation[0] <= self.truncation[1] <= LARGEST:
            raise ModelError(f"{self.truncation} is no range of truncation")
        if not _is_condition(self.condition):
            raise ModelError(f"{self.condition!r} is no condition")
        if self.condition == "random" and self.space not in ("w", PICTURE):
            raise ModelError(f"heads that read {self.space} cannot tell the classes apart, as those that read w can")

    def __str__(self) -> str:
        under = "" if self.condition is None else f" under condition {self.condition}"
        return f"{self.space} at truncation {self.truncation}{under}"

    @property
    def default_condition(self) -> int | tuple[float, ...] | None:
        """Condition of new samples if the user names none: `condition`, or `None` if that is "random"."""
        return None if isinstance(self.condition, str) else self.condition

    def is_of(self, fingerprint: str) -> bool:
        """Whether the attributes are valid for the generator whose weights have the digest `fingerprint`."""
        return self.generator in ("", fingerprint)

    def is_beside(self, other: FittedUnder) -> bool:
        """Whether attributes under these conditions and `other` fit into one bank: all but the generator agrees."""
        return dataclasses.replace(self, generator=other.generator) == other

    def holds_at(self, psi: float) -> bool:
        """Whether the attributes are valid at the truncation `psi`."""
        return self.truncation[0] <= psi <= self.truncation[1]

    def check_truncation(self, psi: float, model: str) -> None:
        """Raise an `ArgumentError`, which names the model, if the attributes are not valid at the truncation `psi`."""
        if not self.holds_at(psi):
            low, high = self.truncation
            hint = f"they were fitted at truncation {low:g}" + f" to {high:g}" * (low != high)
            raise ArgumentError(f"the attributes of model {model!r} do not hold at truncation {psi:g}", hint=hint)

    def check_condition(self, condition: int | tuple[float, ...] | None, model: str) -> None:
        """Raise an `ArgumentError`, which names the model, if the attributes are not valid for pictures of a condition.

        The condition is the number of a class, a vector with a number for each class, or `None` for none.
        """
        if self.condition == "random" and isinstance(condition, tuple):
            what, hint = "hold for every class, not between classes", f"give a class from 0 to {len(condition) - 1}"
            raise ArgumentError(f"the attributes of model {model!r} {what}", hint=hint)
        if self.condition not in (None, "random", condition):
            hint = f"they were fitted under condition {self.condition}"
            raise ArgumentError(f"the attributes of model {model!r} do not hold under condition {condition}", hint=hint)


def _is_condition(condition: object) -> bool:
    if isinstance(condition, tuple):
        return all(isinstance(number, float) and abs(number) <= LARGEST for number in condition)
    return condition in (None, "random") or (type(condition) is int and condition >= 0)


class Described(NamedTuple):
    """The contents of the file `vocabulary.json` in a model folder, which describes the attributes of the model.

    Attributes:
        reader: name of the code that reads the attributes off pictures, such as "module:factory", of an unchecked type;
            `None` if the folder holds a network or heads.
        gradient: whether autograd can differentiate that code; `None` for the default of `PictureBank`.
    """

    fitted: FittedUnder
    vocabulary: Vocabulary
    reader: Any = None
    gradient: bool | None = None

    def write(self, folder: Path) -> None:
        """Write `vocabulary.json` into a model folder; if that fails, an old file stays as it is."""
        code = {name: value for name in ("reader", "gradient") if (value := getattr(self, name)) is not None}
        entries = dataclasses.asdict(self.fitted) | {"vocabulary": self.vocabulary.to_dict()} | code
        write_json(folder / DESCRIBED, entries)

    @classmethod
    def read(cls, folder: Path) -> Described:
        """Read the `vocabulary.json` of a model folder; a `ModelError` if it is missing or damaged."""
        path = folder / DESCRIBED
        entries = read_json(path)
        with naming_damage(path):
            if "condition" not in entries:
                raise ValueError(f"it {EARLIER}")
            vocabulary = Vocabulary.from_dict(entries["vocabulary"])
            low, high = (float(psi) for psi in entries["truncation"])
            condition = entries["condition"]
            condition = tuple(float(number) for number in condition) if isinstance(condition, list) else condition
            fitted = FittedUnder(str(entries["space"]), (low, high), condition, str(entries["generator"]))
            if (gradient := entries.get("gradient")) not in (None, True, False):
                raise ValueError(f"gradient is true or false, not {gradient!r}")
        return cls(fitted, vocabulary, entries.get("reader"), gradient)


@runtime_checkable
class Bank(Protocol):
    """The part of a model that predicts attributes: heads, from latents, or else a network or function, from pictures.

    Another kind of bank inherits from this class, and defines at least `part`, `device`, `to`, `predict` and `save`. If
    `reads_pictures` is true, each evaluation of a query's energy draws pictures.

    Attributes:
        part: name of the weights: of their file `<part>.safetensors`, and of their fingerprint in records of the model.
        vocabulary: the attributes.
        fitted: conditions under which the attributes were learned.
        reports: quality on held-out samples, by attribute; attributes that were not measured are missing.
        gradient: whether autograd can differentiate `predict`.
        reader: the network or function that predicts from pictures; `None` for heads.
        name: name of the code that is the reader, such as "module:factory"; `None` if the weights are in the model
            folder.
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
        """What `predict` takes: latents, by one of `SPACES`, or pictures, `PICTURE`."""
        return self.fitted.space

    @property
    def truncation(self) -> tuple[float, float]:
        """Range of the truncation psi of the samples that the attributes were fitted on."""
        return self.fitted.truncation

    @property
    def condition(self) -> FittedCondition:
        """Condition of the samples that the attributes were fitted on; see `FittedUnder`."""
        return self.fitted.condition

    @property
    def generator(self) -> str:
        """Fingerprint (digest of the weights) of the generator that the attributes are valid for; "" for any."""
        return self.fitted.generator

    @property
    def reads_pictures(self) -> bool:
        """Whether `predict` takes pictures, and not latents."""
        return self.space == PICTURE

    @property
    def latent_dim(self) -> int | None:
        """Size of the latents that `predict` takes; `None` if it takes pictures."""
        return None

    @property
    def device(self) -> torch.device:
        """Device of the weights of the bank."""

    @property
    def std(self) -> Mapping[str, Tensor]:
        """Standard deviation of the prediction, (), of each continuous attribute, if there is one for all samples."""
        return {}

    def to(self, device: torch.device | str) -> Self:
        """A bank whose weights are on `device`: a new one, or this one with its weights moved."""

    def predict(self, read: Tensor, names: Sequence[str] | None = None) -> dict[str, Prediction]:
        """Predictions by attribute.

        Args:
            read: latents (batch, latent_dim) or, if `space` is `PICTURE`, pictures (batch, channels, height, width) in
                [-1, 1].
            names: the attributes to predict; all by default.
        """

    def save(self, folder: Path) -> None:
        """Write the bank into the model folder `folder`; if that fails, no file is half written."""

    def of_generator(self, fingerprint: str) -> Self:
        """A copy that is valid for another generator, which must map z to the same w; this is not checked."""
        same = copy.copy(self)
        same.fitted = dataclasses.replace(self.fitted, generator=fingerprint)
        return same
