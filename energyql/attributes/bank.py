"""The attribute heads of one generator: small networks on its latents, evaluated together, stored by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from energyql.attributes.heads import FusedHeads, Head, RawOutputs, take_head
from energyql.attributes.judge_reports import READER
from energyql.attributes.predictions import Prediction, output_count, split_outputs
from energyql.attributes.quality import HeadReport, read_reports, write_reports
from energyql.errors import ArgumentError, ModelError, VocabularyError
from energyql.files import DAMAGED_MODEL, read_json, read_tensors, write_json, write_tensors
from energyql.vocabulary import Vocabulary

__all__ = ["AttributeBank", "Head"]

SPACES = ("w", "z", "direction", "features")
"""Inputs of heads. The direction is z scaled to unit second moment: a StyleGAN ignores the length of z. Features are a
view of z that the generator offers."""
PICTURE = "picture"
"""What attributes without heads are read from; see `PictureBank`."""
FittedLabel = int | tuple[float, ...] | str | None
"""Class label of the latents that heads were fitted on: a number, a condition vector, "random", or `None`."""

DESCRIBED = "vocabulary.json"


class Described(NamedTuple):
    """What `vocabulary.json` says of the attributes of a model; see `AttributeBank`.

    Attributes:
        reader: name of the code that reads the attributes off pictures, where such code does; unchecked.
        gradient: whether autograd can differentiate that code; `None` if its kind says so.
    """

    space: str
    truncation: tuple[float, float]
    label: FittedLabel
    generator: str
    vocabulary: Vocabulary
    reader: Any = None
    gradient: bool | None = None


def remove_reader(folder: Path) -> None:
    """Remove the network that reads pictures from a model folder that has other attributes now."""
    for suffix in ("safetensors", "json"):
        (folder / f"{READER}.{suffix}").unlink(missing_ok=True)


class AttributeBank:
    """Heads by attribute name.

    Args:
        vocabulary: the attributes.
        heads: one head per attribute, in the order of the vocabulary.
        space: the latent that the heads read, one of `SPACES`.
        truncation: range of the truncation psi of the latents that the heads were fitted on.
        label: class label of those latents; "random" where each latent had its own; `None` for a generator without
            classes.
        generator: fingerprint of the generator.
        reports: quality of the heads on held-out latents, by attribute; heads that were not measured have none.

    Raises:
        ModelError: an argument does not fit the others.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        heads: Mapping[str, Head],
        *,
        space: str = "w",
        truncation: tuple[float, float] = (1.0, 1.0),
        label: FittedLabel = None,
        generator: str = "",
        reports: Mapping[str, HeadReport] | None = None,
    ) -> None:
        if list(heads) != list(vocabulary):
            raise ModelError(f"heads {list(heads)} do not match the vocabulary {list(vocabulary)}")
        if not heads:
            raise ModelError("a bank needs at least one head")
        if space not in SPACES:
            raise ModelError(f"heads read one of {', '.join(SPACES)}, not {space!r}")
        check_fit(truncation, label)
        if label == "random" and space != "w":
            raise ModelError(
                f"heads that read {space} cannot tell the classes apart", hint="let them read w, or fit one class"
            )
        self._first = next(iter(heads.values()))
        latent_dim = self._first.skip_weight.shape[-1]
        for name, head in heads.items():
            head.check(name, output_count(vocabulary[name]), latent_dim)
        self.vocabulary = vocabulary
        self.heads = dict(heads)
        self.space = space
        self.truncation = truncation
        self.label = label
        self.generator = generator
        self.reports = {name: report for name, report in (reports or {}).items() if name in vocabulary}
        self._raw: dict[tuple[str, ...], RawOutputs] = {}

    @property
    def latent_dim(self) -> int:
        """Size of the latents that the heads read."""
        return self._first.hidden_weight.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of the heads."""
        return self._first.hidden_weight.device

    def to(self, device: torch.device | str) -> AttributeBank:
        """Return the same bank on another device."""
        if self.device == torch.device(device):
            return self
        heads = {name: head.to(device) for name, head in self.heads.items()}
        return self._having(self.vocabulary, heads, self.reports)

    def predict(self, latent: Tensor, names: Sequence[str] | None = None) -> dict[str, Prediction]:
        """Evaluate the heads of `names` (all by default) once.

        Args:
            latent: (batch, latent_dim): w, features, or z for the other spaces.
            names: attributes in any order.

        Raises:
            ArgumentError: there is no head of that name.
        """
        raw = self.raw_outputs(tuple(self.vocabulary if names is None else names))
        return split_outputs(raw.function(latent), raw.specs, raw.std)

    def raw_outputs(self, names: tuple[str, ...]) -> RawOutputs:
        """Return the heads of `names` as one function, with the layout of its outputs; it is cached.

        Raises:
            ArgumentError: there is no head of that name.
        """
        if names not in self._raw:
            unknown = [name for name in names if name not in self.heads]
            if unknown or not names:
                problem = f"there is no head of {unknown[0]!r}" if unknown else "name at least one attribute"
                raise ArgumentError(problem, hint=f"attributes: {', '.join(self.heads)}")
            with torch.inference_mode(False):  # tensors made in inference mode have no gradients
                heads = FusedHeads.of([self.heads[name] for name in names], direction=self.space == "direction")
            specs = [self.vocabulary[name] for name in names]
            std = {spec.name: self.heads[spec.name].std for spec in specs if spec.kind == "continuous"}
            self._raw[names] = RawOutputs(heads, specs, std)
        return self._raw[names]

    def with_heads(self, other: AttributeBank, *, replace: bool = False) -> AttributeBank:
        """Return a bank with the heads of another one added; the old ones are unchanged, bit for bit.

        Args:
            other: heads on the same latents, with their reports.
            replace: whether new heads replace old ones of the same name.

        Raises:
            VocabularyError: a name is taken and `replace` is false.
            ModelError: a head does not fit.
        """
        if (taken := [name for name in other.vocabulary if name in self.vocabulary]) and not replace:
            raise VocabularyError(
                f"the model already has {', '.join(map(repr, taken))}",
                hint="give the attribute another name, or ask to replace the old one",
            )
        merged = dict(self.vocabulary) | dict(other.vocabulary)
        known = Vocabulary(merged.values(), model=self.vocabulary.model, relations=self.vocabulary.relations)
        kept = {name: report for name, report in self.reports.items() if name not in other.vocabulary}
        return self._having(known, self.heads | other.heads, kept | other.reports)

    def with_reports(self, reports: Mapping[str, HeadReport]) -> AttributeBank:
        """Return the same heads with other reports on their quality."""
        return self._having(self.vocabulary, self.heads, reports)

    def of_generator(self, fingerprint: str) -> AttributeBank:
        """Return the same heads for a generator with this fingerprint, which maps z as their own one does."""
        same = self._having(self.vocabulary, self.heads, self.reports)
        same.generator = fingerprint
        return same

    def _having(
        self, vocabulary: Vocabulary, heads: Mapping[str, Head], reports: Mapping[str, HeadReport]
    ) -> AttributeBank:
        """Return a bank of other heads on the same latents."""
        return AttributeBank(
            vocabulary, heads, space=self.space, truncation=self.truncation, label=self.label,
            generator=self.generator, reports=reports,
        )  # fmt: skip

    @property
    def described(self) -> Described:
        """Everything but the heads and their reports."""
        return Described(self.space, self.truncation, self.label, self.generator, self.vocabulary)

    def save(self, folder: Path) -> None:
        """Write `attributes.safetensors`, `vocabulary.json` and `report.json`, each whole or not at all."""
        tensors = {
            f"{name}/{field}": tensor for name, head in self.heads.items() for field, tensor in head.tensors().items()
        }
        write_tensors(folder / "attributes.safetensors", tensors)
        write_described(folder, self.described)
        write_reports(folder, self.reports)
        remove_reader(folder)

    @classmethod
    def load(cls, folder: Path) -> AttributeBank:
        """Read what `save` wrote.

        Raises:
            ModelError: a file is missing, damaged or does not fit the other.
        """
        path = folder / "attributes.safetensors"
        described, reports = read_described(folder), read_reports(folder)
        tensors = {name: tensor.float() for name, tensor in read_tensors(path).items()}
        try:
            heads = {name: take_head(name, tensors) for name in described.vocabulary}
            for name, head in heads.items():
                if not all(tensor.isfinite().all() for tensor in head.tensors().values()):
                    raise ModelError(f"the head of {name!r} has a number that is not finite")
                if not (head.std > 0).all():
                    raise ModelError(f"the head of {name!r} has a std that is not above 0")
            if tensors:
                raise ModelError(f"it holds tensors that no attribute needs: {', '.join(sorted(tensors)[:5])}")
            return cls(
                described.vocabulary, heads, space=described.space, truncation=described.truncation,
                label=described.label, generator=described.generator, reports=reports,
            )  # fmt: skip
        except KeyError as error:
            raise ModelError(f"{path}: {error} is missing, which {DESCRIBED} requires", hint=DAMAGED_MODEL) from None
        except ModelError as error:
            raise ModelError(f"{path}: {error}", hint=DAMAGED_MODEL) from error


def check_fit(truncation: tuple[float, float], label: FittedLabel) -> None:
    """Check what attributes were fitted under.

    Raises:
        ModelError: the truncation is no range, or the label no label.
    """
    if not -math.inf < truncation[0] <= truncation[1] < math.inf:
        raise ModelError(f"{truncation} is no range of truncation")
    if not _is_label(label):
        raise ModelError(f"{label!r} is no class label")


def write_described(folder: Path, described: Described) -> None:
    """Write `vocabulary.json`, whole or not at all."""
    entries = described._asdict() | {"vocabulary": described.vocabulary.to_dict()}
    for name in ("reader", "gradient"):
        if entries[name] is None:
            del entries[name]
    write_json(folder / DESCRIBED, entries)


def read_described(folder: Path) -> Described:
    """Read what `write_described` wrote.

    Raises:
        ModelError: the file is missing or damaged.
    """
    path = folder / DESCRIBED
    description = read_json(path)
    try:
        vocabulary = Vocabulary.from_dict(description["vocabulary"])
        low, high = (float(psi) for psi in description["truncation"])
        space, generator = str(description["space"]), str(description["generator"])
        label = description.get("label")  # missing in older models of generators without classes
        label = tuple(float(number) for number in label) if isinstance(label, list) else label
        if not _is_label(label):
            raise ValueError(f"{label!r} is no class label")
        if (gradient := description.get("gradient")) not in (None, True, False):
            raise ValueError(f"gradient is true or false, not {gradient!r}")
    except KeyError as error:
        raise ModelError(f"{path}: {error} is missing", hint=DAMAGED_MODEL) from None
    except (TypeError, ValueError, OverflowError, VocabularyError) as error:
        raise ModelError(f"{path}: {error}", hint=DAMAGED_MODEL) from error
    return Described(space, (low, high), label, generator, vocabulary, description.get("reader"), gradient)


def _is_label(label: object) -> bool:
    if isinstance(label, tuple):
        return all(isinstance(number, float) and math.isfinite(number) for number in label)
    return label in (None, "random") or (isinstance(label, int) and not isinstance(label, bool) and label >= 0)
