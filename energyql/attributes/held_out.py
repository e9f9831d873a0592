"""Samples that a verifier (networks that decide from pictures which samples are kept) did not learn from.

Thresholds are measured on them. Each training of a verifier has its own file in the model folder, named after its first
network, such as `verifier-4-held-out.safetensors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from energyql.attributes.predictions import Predictions, of_columns, output_count
from energyql.attributes.quality import naming_damage
from energyql.files import read_tensors, write_tensors
from energyql.kinds import KINDS
from energyql.vocabulary import Vocabulary


@dataclass(frozen=True)
class HeldOut:
    """Labels of random samples, with predictions of the heads and of a verifier that did not learn from them.

    Attributes:
        labels: attribute -> labels of n samples, (n,) float: 0/1, class index or number; NaN where missing.
        heads: attribute -> predictions of the heads for the latents of the samples.
        readings: attribute -> predictions of the verifier for the pictures of the samples.
    """

    labels: Mapping[str, Tensor]
    heads: Predictions
    readings: Predictions

    def only(self, names: Iterable[str]) -> HeldOut:
        """The same samples with some of the attributes."""
        names = list(names)
        return HeldOut(*({name: getattr(self, part.name)[name] for name in names} for part in fields(self)))

    def save(self, folder: Path, name: str) -> None:
        """Write the samples beside the network `name` of a verifier, with predictions of classes in half precision."""
        tensors = {f"labels/{attribute}": labels.float() for attribute, labels in self.labels.items()}
        for part in ("heads", "readings"):
            for attribute, prediction in getattr(self, part).items():
                columns = prediction.columns()
                numeric = KINDS[prediction.kind].numeric
                tensors[f"{part}/{attribute}"] = columns.float() if numeric else columns.half()
        write_tensors(held_out_path(folder, name), tensors)

    @classmethod
    def load(cls, folder: Path, name: str, vocabulary: Vocabulary) -> HeldOut | None:
        """Read the samples beside the network `name`, of the attributes `vocabulary`; `None` if there are none."""
        path = held_out_path(folder, name)
        if not path.is_file():
            return None
        tensors = {key: tensor.float() for key, tensor in read_tensors(path).items()}
        with naming_damage(path):
            labels = {attribute: tensors[f"labels/{attribute}"] for attribute in vocabulary}
            for attribute, spec in vocabulary.items():
                column, count, kind = labels[attribute], len(next(iter(labels.values()))), KINDS[spec.kind]
                if column.shape != (count,):
                    raise ValueError("its labels are not one column for each attribute")
                numbers = torch.arange(len(kind.values(spec))).float()
                if not (kind.numeric or torch.isin(column[~column.isnan()], numbers).all()):
                    raise ValueError(f"a label of {attribute!r} is none of its values")
                shape = count, output_count(spec) + kind.numeric  # a number has a standard deviation too
                if any(tensors[f"{part}/{attribute}"].shape != shape for part in ("heads", "readings")):
                    raise ValueError("its predictions do not fit its labels")
            heads, readings = (
                {attribute: of_columns(tensors[f"{part}/{attribute}"], spec) for attribute, spec in vocabulary.items()}
                for part in ("heads", "readings")
            )
        return cls(labels, heads, readings)


def held_out_path(folder: Path, name: str) -> Path:
    """Path, in a model folder, of the held-out samples for the network `name`, such as "verifier"."""
    return folder / f"{name}-held-out.safetensors"
