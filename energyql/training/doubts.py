"""Doubts about labels: those that are probably wrong, because readers that did not learn from them read otherwise.

A training stores them beside its table, in the folder of the pictures, and `energyql label --doubtful` shows these
pictures again. What a person has kept there is settled: another training may doubt it, but it is not shown again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from energyql.errors import ArgumentError, DataError
from energyql.files import read_json, sole_writer, write_json
from energyql.kinds import KINDS
from energyql.training.labels import DOUBTS, LabelTable, read_label_table, warn
from energyql.vocabulary import AttributeSpec

DOUBTED = 0.05
"""Probability of being wrong from which a label is doubted."""
WORTH = 3.0
"""Expected number of wrong labels from which a look at them is proposed."""
_SETTLED = ".settled.json"
_DAMAGED = "delete it; the next training writes it again"


@dataclass(frozen=True)
class Doubt:
    """A label that is wrong with the probability `wrong`; `label` is as tables spell it, such as "yes"."""

    picture: int
    attribute: str
    label: str
    wrong: float


def store_doubts(table: LabelTable | None, wrong: Mapping[str, Tensor]) -> None:
    """Store the doubted labels of a table in its file `doubts`, if it has one.

    Args:
        wrong: attribute -> probability that the label of each row is wrong, (rows,); NaN where that is not known.

    Warns:
        LabelWarning: the file cannot be written.
    """
    if table is None or table.doubts is None or table.vocabulary is None:
        return
    found = []
    for name, shares in wrong.items():
        for picture, cell, share in zip(table.pictures.tolist(), table.columns[name], shares.tolist(), strict=True):
            label = spelled(cell, table.vocabulary[name])
            if share >= DOUBTED and label is not None:
                found.append(Doubt(picture, name, label, round(share, 4)))
    found.sort(key=lambda doubt: -doubt.wrong)
    try:
        with sole_writer(table.doubts.parent, "doubts about labels", table.doubts.name):
            write_json(table.doubts, {"doubts": list(map(asdict, found))})
    except ArgumentError as error:
        warn(f"the labels that readers doubt are not stored: {error.message}")


def open_doubts(path: Path) -> list[Doubt] | None:
    """Doubts about the labels of a table, most doubted first; `None` if no training has stored any.

    Labels that were changed since, and those that a person has looked at again, are left out.

    Raises:
        DataError: a file is missing or damaged.
    """
    if not path.with_suffix(DOUBTS).is_file():  # before reading: a table may need latents
        return None
    table = read_label_table(path)
    if table.doubts is None or table.vocabulary is None:
        return None
    given = {
        (picture, name): spelled(cell, table.vocabulary[name])
        for name, cells in table.columns.items()
        for picture, cell in zip(table.pictures.tolist(), cells, strict=True)
    }
    settled = read_settled(path)
    return [
        doubt
        for doubt in _read(table.doubts)
        if given.get((doubt.picture, doubt.attribute)) == doubt.label
        and settled.get(str(doubt.picture), {}).get(doubt.attribute) != doubt.label
    ]


def read_settled(path: Path) -> dict[str, dict[str, str]]:
    """Labels of a table that a person has looked at again: number of a picture -> attribute -> label."""
    file = path.with_suffix(_SETTLED)
    if not file.is_file():
        return {}
    settled = read_json(file, DataError)
    if not all(isinstance(labels, dict) for labels in settled.values()):
        raise DataError(f"{file} is damaged", hint="delete it; labels that you looked at are then shown again")
    return settled


def write_settled(path: Path, settled: Mapping[str, Mapping[str, str]]) -> None:
    """Write what `read_settled` returns."""
    write_json(path.with_suffix(_SETTLED), settled)


def _read(file: Path) -> list[Doubt]:
    try:
        return [_doubt(**entry) for entry in read_json(file, DataError)["doubts"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is damaged: {error}", hint=_DAMAGED) from error


def _doubt(picture: Any, attribute: Any, label: Any, wrong: Any) -> Doubt:
    if type(picture) is not int or not isinstance(attribute, str) or not isinstance(label, str):
        raise ValueError(f"{picture!r:.40} is no number of a picture, or has no label")
    return Doubt(picture, attribute, label, float(wrong))


def spelled(cell: Any, spec: AttributeSpec) -> str | None:
    """A label in standard spelling; `None` if it is missing or no value of the attribute."""
    return KINDS[spec.kind].labels.label(cell, spec)
