"""Attributes that a network or function predicts from pictures, in a model without heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from energyql.attributes.bank import PICTURE, Bank, Described, FittedUnder
from energyql.attributes.heads import AttributeBank, remove_reader
from energyql.attributes.judge import JointJudge, Judge, who_judges
from energyql.attributes.labels import (
    ImageLabeller,
    as_cells,
    call_labeller,
    encode_column,
    import_labeller,
)
from energyql.attributes.predictions import HEAD_KINDS, Prediction
from energyql.attributes.quality import READER, REPORT, HeadReport
from energyql.errors import ArgumentError, DataError, ModelError, either
from energyql.kinds import KINDS
from energyql.numerics.shapes import Float
from energyql.plugins import check_allowed
from energyql.vocabulary import AttributeSpec, Vocabulary

CERTAIN = 7.0
"""Log-odds with which a reader's values without probabilities are taken to be right. They mean a probability of 0.999;
with 1, energies would be infinite."""
ANY_PICTURES = FittedUnder(PICTURE, (0.0, 1.0))
"""Default conditions of a reader: it is valid for pictures of any generator, at any truncation psi from 0 to 1."""


class PictureBank(Bank):
    """Attributes that a reader (a network or function) predicts from pictures.

    For each evaluation of a query's energy, the generator draws pictures, from which the reader predicts.

    Args:
        reader: a `Judge`, any torch module or function, or a name: `module:factory`, or that of a plugin. It takes
            pictures in [-1, 1], (batch, channels, height, width), and returns a dict from attribute to a prediction
            (`YesNo`, `Categorical` or `Continuous`), or to one value for each picture. A yes/no value or a class is
            taken to be right with log-odds of `CERTAIN`, a number as the mean of a normal whose standard deviation is
            the attribute's tolerance.
        vocabulary: the attributes; by default the `vocabulary` of the reader.
        gradient: whether autograd can differentiate the reader; by default true for torch modules and false for
            functions. If it is false, only samplers that use no gradient can be used.
        fitted: the pictures for which the reader is valid; its `space` is `PICTURE`.
        reports: quality on held-out pictures, by attribute; by default the reports of a `Judge`.

    Raises:
        ModelError: there is no vocabulary, the reader does not predict all of its attributes, or `fitted` is not of
            pictures.
        ArgumentError: there is no code of the name `reader`, or it cannot be called with pictures.
    """

    part = READER

    def __init__(
        self,
        reader: ImageLabeller | str,
        vocabulary: Vocabulary | None = None,
        *,
        gradient: bool | None = None,
        fitted: FittedUnder = ANY_PICTURES,
        reports: Mapping[str, HeadReport] | None = None,
    ) -> None:
        self.name = reader if isinstance(reader, str) else None
        self.reader = import_labeller(reader) if isinstance(reader, str) else reader
        own = getattr(self.reader, "vocabulary", None)
        if vocabulary is None and not isinstance(own, Vocabulary):
            raise ModelError(f"PictureBank needs a vocabulary of what the {_name_of(self.reader)} returns")
        self.vocabulary: Vocabulary = own if vocabulary is None else vocabulary  # type: ignore[assignment]
        if isinstance(own, Vocabulary) and (unread := [name for name in self.vocabulary if name not in own]):
            raise ModelError(f"the {_name_of(self.reader)} does not read {unread[0]!r}, only {', '.join(own)}")
        self.gradient = isinstance(self.reader, nn.Module) if gradient is None else gradient
        if fitted.space != PICTURE:
            raise ModelError(
                f"a reader reads pictures, not {fitted.space!r}", hint=f"give FittedUnder({PICTURE!r}, ...)"
            )
        self.fitted = fitted
        if reports is None:
            reports = self.reader.report if isinstance(self.reader, Judge | JointJudge) else {}
        self.reports = {name: reports[name] for name in self.vocabulary if name in reports}

    @property
    def device(self) -> torch.device:
        """Device of the reader's weights; the CPU for a function."""
        parameters = self.reader.parameters() if isinstance(self.reader, nn.Module) else iter(())
        return next((parameter.device for parameter in parameters), torch.device("cpu"))

    @property
    def std(self) -> dict[str, Tensor]:
        """Standard deviation of the prediction of each continuous attribute, by name; {} without a `Judge`."""
        if not isinstance(self.reader, Judge):
            return {}
        deviations = dict(zip(self.reader.vocabulary, self.reader.std, strict=True))
        return {name: deviations[name] for name, spec in self.vocabulary.items() if KINDS[spec.kind].numeric}

    def to(self, device: torch.device | str) -> PictureBank:
        """Move a reader that is a torch module to a device, in evaluation mode, and return this same bank."""
        if isinstance(self.reader, nn.Module):
            self.reader.to(device).eval()
        return self

    def predict(
        self, pictures: Float[Tensor, "batch channels height width"], names: Sequence[str] | None = None
    ) -> dict[str, Prediction]:
        """Predictions, by attribute, for pictures in [-1, 1]; a `DataError` if the reader returns no valid values."""
        gradient = self.gradient and torch.is_grad_enabled()
        outputs = call_labeller(self.reader, pictures, f"the {_name_of(self.reader)}", gradient=gradient)
        names = tuple(self.vocabulary) if names is None else names
        if unread := [name for name in names if name not in outputs]:
            raise DataError(f"the {_name_of(self.reader)} returns no {unread[0]!r}, only {', '.join(outputs)}")
        return {name: as_prediction(outputs[name], self.vocabulary[name], pictures) for name in names}

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json`, and if the reader is a `Judge` also `reader.safetensors` and `reader.json`.

        If that fails, no file is half written. Files of heads, `attributes.safetensors` and `report.json`, are deleted.
        Reports on code are not written, because the code may have changed when the folder is read.

        Raises:
            ModelError: the reader is code, and the argument `reader` of this bank was not the name of the code.
        """
        if self.name is None and not isinstance(self.reader, Judge):
            hint = "name it, so that the folder records the name: PictureBank('module:factory', vocabulary)"
            raise ModelError(f"the {_name_of(self.reader)} is code, which is not saved", hint=hint)
        gradient = None if self.gradient == isinstance(self.reader, nn.Module) else self.gradient
        Described(self.fitted, self.vocabulary, self.name, gradient).write(folder)
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
        """Read a bank that `save` wrote.

        Args:
            reader: a reader, or the name of one, to use in place of the folder's network or code.
            allow_plugins: whether code that the folder names may be imported, and so run.

        Raises:
            ModelError: a file is missing or damaged, or names code without `reader` and `allow_plugins`.
            ArgumentError: there is no code of the reader's name.
        """
        described, gradient = Described.read(folder), None
        if reader is None and described.reader is not None:
            reader = check_allowed(described.reader, READER, folder, allow_plugins)
            gradient = described.gradient
        try:
            reader = Judge.load(folder, READER) if reader is None else reader
            return cls(reader, described.vocabulary, gradient=gradient, fitted=described.fitted)
        except ModelError as error:
            raise ModelError(f"{folder}: {error.message}", hint=error.hint) from None


def load_bank(folder: Path, reader: ImageLabeller | str | None = None, *, allow_plugins: bool = False) -> Bank:
    """Read the bank of a model folder: an `AttributeBank` if it has heads, else by `PictureBank.load`.

    Raises:
        ArgumentError: `reader` is given, but the folder has heads.
    """
    if (heads := load_heads(folder)) is None:
        return PictureBank.load(folder, reader, allow_plugins=allow_plugins)
    if reader is not None:
        raise ArgumentError(f"{folder} has heads that read latents, so it takes no reader")
    return heads


def load_heads(folder: Path) -> AttributeBank | None:
    """Read the heads of a model folder; `None` if the model predicts its attributes from pictures instead."""
    return None if Described.read(folder).fitted.space == PICTURE else AttributeBank.load(folder)


def heads_of(bank: Bank, what: str) -> AttributeBank:
    """The bank's heads; an `ArgumentError` if it has none, which says that `what`, such as "an edit", needs them."""
    if not isinstance(bank, AttributeBank):
        raise ArgumentError(
            f"{what} needs heads that read latents, and the attributes of this model are read off pictures",
            hint="train heads for the same generator in another folder: "
            + either('train_attributes(..., space="w")', "energyql train --space w"),
        )
    return bank


def _name_of(reader: ImageLabeller) -> str:
    """Name of a reader in messages, such as "reader my_code:look" or "reader image judge"."""
    return f"reader {(who_judges(reader) or '').removeprefix('judge ')}"


def as_prediction(value: Any, spec: AttributeSpec, pictures: Tensor) -> Prediction:
    """Convert the result of a reader for one attribute to a prediction, on the device and in the dtype of the pictures.

    One value for each picture is taken to be nearly certain. A `DataError` says that `value` does not fit the
    attribute.
    """
    if isinstance(value, Prediction):
        for part, tensor, _ in value.tensors(len(pictures)):
            if not isinstance(tensor, Tensor):
                raise DataError(f"the reader's {part} of {spec.name!r} is a {type(tensor).__name__}, not a tensor")
    kind = HEAD_KINDS[spec.kind]
    if isinstance(value, Prediction) and kind.fits(value, spec):
        return value.to(pictures)
    numbers = encode_column(as_cells(value, len(pictures), spec.name, "the reader"), spec, "the reader").to(pictures)
    if numbers.isnan().any():
        raise DataError(f"the reader returns no value of {spec.name!r} for some pictures")
    sure: Prediction = kind.of_outputs(kind.certain(numbers, spec, CERTAIN), spec, spec.tolerance)
    return sure
