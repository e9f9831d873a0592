"""Random samples that the verifier did not learn from, with predictions and some labels, for thresholds.

A verifier is one or more networks that predict attributes from pictures, and so decide which samples are kept. Its
held-out samples are in a file of the model folder, such as `verifier-held-out.safetensors`. The name of the file begins
with the name of a network of the verifier. So a later training, for other attributes, writes another file, such as
`verifier-4-held-out.safetensors`.
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
    """Labels of random samples of the prior, with predictions of the heads and of a verifier for the same samples.

    The verifier (networks that predict attributes from pictures) did not learn from these samples. The last samples
    may have no labels.

    Attributes:
        labels: attribute -> labels of n samples, (n,) float: 0/1, class index or number; NaN where missing.
        heads: attribute -> predictions of the heads for the latents of the samples.
        readings: attribute -> predictions of the verifier for the pictures of the samples.
    """

    labels: Mapping[str, Tensor]
    heads: Predictions
    readings: Predictions

    def only(self, names: Iterable[str]) -> HeldOut:
        """Return the same samples with labels and predictions of the attributes `names` only."""
        names = list(names)
        return HeldOut(*({name: getattr(self, part.name)[name] for name in names} for part in fields(self)))

    def save(self, folder: Path, name: str) -> None:
        """Write the labels and predictions to a file of the model folder; the name of the file begins with `name`.

        Predictions of classes are written in half precision, labels and predictions of numbers in full precision.

        Args:
            folder: the model folder.
            name: name of the network of the verifier, such as "verifier-2".
        """
        tensors = {f"labels/{attribute}": labels.float() for attribute, labels in self.labels.items()}
        for part in ("heads", "readings"):
            for attribute, prediction in getattr(self, part).items():
                columns = prediction.columns()
                numeric = KINDS[prediction.kind].numeric
                tensors[f"{part}/{attribute}"] = columns.float() if numeric else columns.half()
        write_tensors(held_out_path(folder, name), tensors)

    @classmethod
    def load(cls, folder: Path, name: str, vocabulary: Vocabulary) -> HeldOut | None:
        """Read the samples that `save` wrote beside the network `name`; `None` if there is no such file.

        Args:
            folder: the model folder.
            name: name of a network of the verifier, such as "verifier-2".
            vocabulary: the attributes of this network.

        Raises:
            ModelError: the file is damaged, or is about other attributes.
        """
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
    """Return the path of the file with held-out samples for the network `name`, such as "verifier", in a model folder.

    Held-out samples are samples from which the network did not learn. The file need not exist.
    """
    return folder / f"{name}-held-out.safetensors"
