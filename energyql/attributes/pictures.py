"""Attributes that are read off pictures: a network or a function in the place of heads, which read latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from energyql.attributes.bank import PICTURE, Bank, Described, FittedLabel, FittedUnder
from energyql.attributes.heads import AttributeBank, remove_reader
from energyql.attributes.judge import Judge, who_judges
from energyql.attributes.labels import (
    ImageLabeller,
    as_cells,
    call_labeller,
    check_labels,
    encode_column,
    import_labeller,
)
from energyql.attributes.predictions import PREDICTIONS, Prediction
from energyql.attributes.quality import READER, REPORT, HeadReport
from energyql.errors import ArgumentError, DataError, ModelError
from energyql.kinds import KINDS
from energyql.numerics.shapes import Float
from energyql.plugins import check_allowed
from energyql.vocabulary import AttributeSpec, Vocabulary

CERTAIN = 7.0
"""Log-odds of a value that comes without a probability: 0.999. With certainty, energies would be infinite."""
ANY_TRUNCATION = (0.0, 1.0)
"""Default range of psi at which a reader is valid."""


class PictureBank(Bank):
    """Attributes that a reader predicts from pictures. The energy of a query then leads through the generator.

    Args:
        reader: a `Judge`, any torch module, a plain function, or the name of either, `module:factory` or a plugin. It
            takes pictures in [-1, 1], (batch, channels, height, width), and returns for each attribute a prediction
            (`YesNo`, `Categorical` or `Continuous`) or a value for each picture. A value counts as a prediction that is
            right with odds of exp(`CERTAIN`); a number, as a normal with the attribute's tolerance as its standard
            deviation.
        vocabulary: the attributes; by default the `vocabulary` of the reader.
        gradient: whether autograd can differentiate the reader; by default torch modules are taken to be so, and
            functions not. Without gradients only samplers that need none can be used.
        truncation: range of the truncation psi at which the reader is valid.
        label: class label of the pictures that it is valid for; `None` for all.
        generator: fingerprint of the generator; "" for any.
        reports: quality on held-out pictures, by attribute; by default those of a `Judge`.

    Raises:
        ModelError: there is no vocabulary, or the reader does not read all of it.
        ArgumentError: there is no code of that name.
    """

    part = READER

    def __init__(
        self,
        reader: ImageLabeller | str,
        vocabulary: Vocabulary | None = None,
        *,
        gradient: bool | None = None,
        truncation: tuple[float, float] = ANY_TRUNCATION,
        label: FittedLabel = None,
        generator: str = "",
        reports: Mapping[str, HeadReport] | None = None,
    ) -> None:
        self.name = reader if isinstance(reader, str) else None
        self.reader = import_labeller(reader) if isinstance(reader, str) else reader
        if not callable(self.reader):
            raise ModelError(f"a reader is a function or a torch module, not {type(self.reader).__name__}")
        known = getattr(self.reader, "vocabulary", None)
        if vocabulary is None and not isinstance(known, Vocabulary):
            raise ModelError(
                f"nothing says which attributes the {_shown(self.reader)} returns",
                hint="give PictureBank a vocabulary: Vocabulary([AttributeSpec('smile', 'yes/no'), ...])",
            )
        self.vocabulary: Vocabulary = known if vocabulary is None else vocabulary  # type: ignore[assignment]
        if isinstance(known, Vocabulary) and (unread := [name for name in self.vocabulary if name not in known]):
            raise ModelError(
                f"the {_shown(self.reader)} does not read {unread[0]!r}", hint=f"it reads {', '.join(known)}"
            )
        self.gradient = isinstance(self.reader, nn.Module) if gradient is None else gradient
        self.fitted = FittedUnder(PICTURE, truncation, label, generator)
        found = getattr(self.reader, "report", None) if reports is None else reports
        found = found if isinstance(found, Mapping) else {}
        self.reports = {name: found[name] for name in self.vocabulary if name in found}

    @property
    def device(self) -> torch.device:
        """Device of the reader; the CPU for a function."""
        parameters = self.reader.parameters() if isinstance(self.reader, nn.Module) else iter(())
        return next((parameter.device for parameter in parameters), torch.device("cpu"))

    @property
    def std(self) -> dict[str, Tensor]:
        """Standard deviation of each continuous attribute for which it is the same for every picture."""
        if not isinstance(self.reader, Judge):
            return {}
        deviations = dict(zip(self.reader.vocabulary, self.reader.std, strict=True))
        return {name: deviations[name] for name, spec in self.vocabulary.items() if KINDS[spec.kind].numeric}

    def to(self, device: torch.device | str) -> PictureBank:
        """Move the reader to a device, in place as torch modules do, and put it into evaluation mode."""
        if isinstance(self.reader, nn.Module):
            self.reader.to(device).eval()
        return self

    def predict(
        self, pictures: Float[Tensor, "batch channels height width"], names: Sequence[str] | None = None
    ) -> dict[str, Prediction]:
        """Read attributes off pictures, all by default. Autograd can differentiate it where `gradient` says so.

        Raises:
            DataError: the reader does not return a prediction or a value of an attribute for every picture.
        """
        with torch.set_grad_enabled(self.gradient and torch.is_grad_enabled()):
            outputs = call_reader(self.reader, pictures)
        names = tuple(self.vocabulary) if names is None else names
        if unread := [name for name in names if name not in outputs]:
            raise DataError(
                f"the {_shown(self.reader)} returns no {unread[0]!r}, only {', '.join(map(repr, outputs))}",
                hint="leave it out of the vocabulary, or let the reader return it",
            )
        return {name: _prediction(outputs[name], self.vocabulary[name], pictures) for name in names}

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json`, and a `Judge` as `reader.safetensors` and `reader.json`, each whole or not at all.

        Reports on code are not written: it may be other code when the folder is read.

        Raises:
            ModelError: the reader is code without a name.
        """
        if self.name is None and not isinstance(self.reader, Judge):
            raise ModelError(
                f"the {_shown(self.reader)} is code, and only networks of energyql are saved",
                hint="name it, so that the folder records the name: PictureBank('module:factory', vocabulary)",
            )
        told = None if self.gradient == isinstance(self.reader, nn.Module) else self.gradient
        Described(self.fitted, self.vocabulary, self.name, told).write(folder)
        for old in ("attributes.safetensors", REPORT):
            (folder / old).unlink(missing_ok=True)
        if self.name is not None:
            remove_reader(folder)
        elif isinstance(self.reader, Judge):
            network = self.reader.only(self.vocabulary)
            network.report = self.reports
            network.save(folder, READER)

    @classmethod
    def load(
        cls, folder: Path, reader: ImageLabeller | str | None = None, *, allow_plugins: bool = False
    ) -> PictureBank:
        """Read what `save` wrote.

        Args:
            folder: model folder.
            reader: takes the place of the reader that the folder holds or names.
            allow_plugins: whether to import the code that the folder names.

        Raises:
            ModelError: a file is missing or damaged, does not fit the other, or names code that is not allowed.
            ArgumentError: there is no code of that name.
        """
        described, gradient = Described.read(folder), None
        fitted = described.fitted
        if reader is None and described.reader is not None:
            reader = check_allowed(described.reader, READER, folder, allow_plugins)
            gradient = described.gradient
        try:
            return cls(
                Judge.load(folder, READER) if reader is None else reader, described.vocabulary, gradient=gradient,
                truncation=fitted.truncation, label=fitted.label, generator=fitted.generator,
            )  # fmt: skip
        except ModelError as error:
            raise ModelError(f"{folder}: {error.message}", hint=error.hint) from None


def load_bank(folder: Path, reader: ImageLabeller | str | None = None, *, allow_plugins: bool = False) -> Bank:
    """Read the attributes of a model folder; the arguments are those of `PictureBank.load`.

    Raises:
        ModelError: as there, or as for `AttributeBank.load`.
        ArgumentError: a reader is given, and the attributes of the folder are heads.
    """
    if (heads := load_heads(folder)) is None:
        return PictureBank.load(folder, reader, allow_plugins=allow_plugins)
    if reader is not None:
        raise ArgumentError(f"{folder} has heads that read latents, so it takes no reader", hint="leave out reader=")
    return heads


def load_heads(folder: Path) -> AttributeBank | None:
    """Read the heads of a model folder as `AttributeBank.load` does; `None` if its attributes are read off pictures."""
    return None if Described.read(folder).fitted.space == PICTURE else AttributeBank.load(folder)


def heads_of(bank: Bank, what: str) -> AttributeBank:
    """Return the heads of a model.

    Args:
        bank: bank of the model.
        what: the thing that needs heads, for the message: "an edit".

    Raises:
        ArgumentError: its attributes are read off pictures.
    """
    if (heads := bank.as_heads) is None:
        raise ArgumentError(
            f"{what} needs heads that read latents, and the attributes of this model are read off pictures",
            hint='train heads for the same generator in another folder: energyql train --space w, in Python space="w"',
        )
    return heads


def call_reader(reader: ImageLabeller, pictures: Tensor) -> Mapping[str, Any]:
    """Call a reader, and return the mapping that it returns; with a graph if autograd is on.

    Raises:
        DataError: as for `check_labels`.
    """
    if not torch.is_grad_enabled():
        return call_labeller(reader, pictures)
    return check_labels(reader(pictures), f"the {_shown(reader)}")


def _shown(reader: ImageLabeller) -> str:
    """Return the name of a reader in messages."""
    return f"reader {(who_judges(reader) or '').removeprefix('judge ')}"


def _prediction(value: Any, spec: AttributeSpec, pictures: Tensor) -> Prediction:
    """Return the output of a reader for one attribute as a prediction, on device and in dtype of the pictures."""
    if isinstance(value, Prediction):
        for number, tensor, _ in value.tensors(len(pictures)):
            if not isinstance(tensor, Tensor):
                what = type(tensor).__name__
                raise DataError(f"the reader's {number} of {spec.name!r} is a {what}", hint="predictions hold tensors")
    kind = PREDICTIONS[spec.kind]
    if isinstance(value, Prediction) and kind.fits(value, spec):
        return value.to(pictures)
    numbers = encode_column(as_cells(value, len(pictures), spec.name, "the reader"), spec, "the reader").to(pictures)
    if numbers.isnan().any():
        raise DataError(
            f"the reader returns no value of {spec.name!r} for some pictures", hint="it must read every picture"
        )
    return kind.of_outputs(kind.certain(numbers, spec, CERTAIN), spec, spec.tolerance)
