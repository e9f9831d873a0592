"""The table of labels that people make, by decisions or by sorting pictures into folders; it is written whole."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from energyql.errors import ArgumentError, DataError
from energyql.files import PICTURE_SUFFIXES, read_whole, write_text
from energyql.kinds import KINDS, is_missing
from energyql.labelling.folder import PictureFolder
from energyql.training.labels import (
    CHOSEN,
    DRAWN,
    INDEX,
    attribute_text,
    parse_attribute,
    parse_attributes,
    read_label_table,
)
from energyql.training.tables import read_columns
from energyql.vocabulary import AttributeSpec, Vocabulary

Cells = dict[str, str]
"""Attribute -> text of its label; "" where a person could not decide."""
NEGATIONS = ("no-", "not-")
"""Beginnings of the names of sub-folders whose pictures lack the attribute."""


@dataclass(frozen=True)
class LabelSheet:
    """Labels of the pictures of a folder, in a CSV file, which is read anew by every call.

    Attributes:
        path: the CSV file.
        folder: the pictures.
        attributes: what is labelled.
    """

    path: Path
    folder: PictureFolder
    attributes: Vocabulary

    @classmethod
    def open(cls, path: Path, folder: PictureFolder, attributes: str | None) -> LabelSheet:
        """Open a table, or begin one that is written with the first decision.

        Args:
            path: the CSV file.
            folder: the pictures.
            attributes: such as "glasses, hair=black|brown, age=0..1"; `None` for those of the table.

        Raises:
            ArgumentError: there is no table and no attributes are given.
            DataError: the table is about other pictures or other attributes.
            VocabularyError: the text does not describe attributes.
        """
        given = None if attributes is None else parse_attributes(attributes)
        if not path.exists():
            if given is None:
                raise ArgumentError(
                    f"there is no {path} yet, so the attributes must be named",
                    hint='give --attributes "glasses, hair=black|brown|blond, age=0..1"',
                )
            return cls(path, folder, given)
        table = read_label_table(path)
        if table.drawn != folder.drawn or table.vocabulary is None:
            raise DataError(
                f"{path} is about other pictures: {table.drawn or 'it does not say which'}, not {folder.drawn}",
                hint="name another table with --out",
            )
        if given is not None and list(given.values()) != list(table.vocabulary.values()):
            raise DataError(
                f"{path} has the attributes {', '.join(map(attribute_text, table.vocabulary.values()))}",
                hint="leave out --attributes to continue it, or name another table with --out",
            )
        return cls(path, folder, table.vocabulary)

    def rows(self) -> dict[int, Cells]:
        """Return the labels by number of picture, in the order in which they were given.

        Raises:
            DataError: the table has been damaged.
        """
        if not self.path.exists():
            return {}
        columns = read_columns(self.path)
        numbers = [read_whole(cell) for cell in columns.pop(INDEX, [""])]
        names = {parse_attribute(name).name: name for name in columns if name not in (CHOSEN, DRAWN)}
        if None in numbers or list(names) != list(self.attributes):
            raise DataError(f"{self.path} has other columns or rows than before", hint="start energyql label again")
        lines = zip(*(columns[names[name]] for name in self.attributes), strict=True)
        cells = [dict(zip(self.attributes, line, strict=True)) for line in lines]
        return {number: row for number, row in zip(numbers, cells, strict=True) if number is not None}

    def decide(self, index: int, cells: Mapping[str, Any]) -> dict[int, Cells]:
        """Write the labels of a picture; the rest of the table stays.

        Args:
            index: number of the picture.
            cells: attribute -> label; those that are left out stay empty.

        Returns:
            All rows, this one last.

        Raises:
            DataError: there is no such picture, attribute or label.
        """
        if index not in self.folder.indices:
            raise DataError(f"{self.folder.path} has no picture {index}")
        if unknown := [name for name in cells if name not in self.attributes]:
            raise DataError(f"{unknown[0]!r} is not one of the attributes {', '.join(self.attributes)}")
        checked = {name: _cell(spec, cells.get(name)) for name, spec in self.attributes.items()}
        rows = self.rows()
        rows.pop(index, None)
        return self._write(rows | {index: checked})

    def undo(self, index: int) -> dict[int, Cells]:
        """Remove the labels of a picture, and return the other rows."""
        rows = self.rows()
        rows.pop(index, None)
        return self._write(rows)

    def update(self, found: Mapping[int, Mapping[str, Any]]) -> dict[int, Cells]:
        """Write labels of many pictures at once; other labels that they have stay."""
        rows = self.rows()
        for index, cells in found.items():
            known = rows.get(index, dict.fromkeys(self.attributes, ""))
            rows[index] = known | {name: _cell(self.attributes[name], cell) for name, cell in cells.items()}
        return self._write(rows)

    def _write(self, rows: dict[int, Cells]) -> dict[int, Cells]:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([INDEX, CHOSEN, DRAWN, *map(attribute_text, self.attributes.values())])
        for index, cells in rows.items():
            labels = [cells[name] for name in self.attributes]
            writer.writerow([index, self.folder.chosen(index), self.folder.drawn, *labels])
        write_text(self.path, text.getvalue())
        return rows


def _cell(spec: AttributeSpec, cell: Any) -> str:
    """Return a label as text.

    Raises:
        DataError: it is no value of the attribute.
    """
    if is_missing(cell):
        return ""
    label = KINDS[spec.kind].label(cell, spec)
    if label is None:
        raise DataError(f"{spec.name!r} is {cell!r}, not {KINDS[spec.kind].asked(spec)}")
    return label


def labels_from_folders(folder: PictureFolder, table: Path) -> LabelSheet:
    """Write a table of labels from the sub-folders of a folder of pictures.

    `glasses/` and `no-glasses/` (or `not-glasses/`) make a yes/no attribute, and `hair=black/`, `hair=brown/` a
    categorical one. A picture may be in sub-folders of several attributes, and keeps its file name, which begins with
    its number. The labels are added to those that the table has.

    Args:
        folder: the pictures, as `sample_pictures` drew them.
        table: the CSV file.

    Returns:
        The table.

    Raises:
        DataError: there are no such sub-folders or no pictures in them, a picture is in two sub-folders of one
            attribute, or the table is about other pictures or attributes.
    """
    places = {path.name: path for path in sorted(folder.path.iterdir()) if path.is_dir() and path.name[0] != "."}
    specs, values = _attributes(places, folder.path)
    found: dict[int, dict[str, str]] = {}
    known = set(folder.indices)
    for place, (name, value) in values.items():
        for file in sorted(places[place].iterdir()):
            if file.suffix.lower() not in PICTURE_SUFFIXES:
                continue
            index = _number(file)
            if index not in known:
                raise DataError(
                    f"{file} is not a picture of {folder.path}",
                    hint="sort the pictures that energyql sample drew, and keep their file names",
                )
            cells = found.setdefault(index, {})
            if cells.setdefault(name, value) != value:
                raise DataError(f"picture {index} is in two sub-folders of {name!r}", hint="keep one of its copies")
    if not found:
        raise DataError(
            f"the sub-folders {', '.join(values)} of {folder.path} hold no pictures",
            hint="move pictures into them, and keep the names of the files",
        )
    sheet = LabelSheet.open(table, folder, ",".join(map(attribute_text, specs)))
    sheet.update(found)
    return sheet


def _attributes(places: dict[str, Path], folder: Path) -> tuple[list[AttributeSpec], dict[str, tuple[str, str]]]:
    """Return the attributes that names of sub-folders describe, and the attribute and label of each sub-folder."""
    values = {place: _meaning(place) for place in places}
    specs = []
    for name in dict.fromkeys(name for name, _ in values.values()):
        labels = {value for other, value in values.values() if other == name}
        if labels == {"yes", "no"}:
            specs.append(AttributeSpec(name, "yes/no"))
        elif len(labels) > 1:
            specs.append(AttributeSpec(name, "categorical", values=tuple(sorted(labels))))
        else:
            raise DataError(
                f"{folder} has only one sub-folder of {name!r}, so there is nothing to tell apart",
                hint="sort pictures into 'glasses' and 'no-glasses', or into 'hair=black', 'hair=brown' and so on",
            )
    if not specs:
        raise DataError(
            f"{folder} has no sub-folders", hint="sort its pictures into folders such as 'glasses' and 'no-glasses'"
        )
    return specs, values


def _meaning(place: str) -> tuple[str, str]:
    """Return the attribute and the label that the name of a sub-folder describes."""
    name, equals, value = place.partition("=")
    if equals:
        return name, value
    negation = next((start for start in NEGATIONS if place.startswith(start)), "")
    return place.removeprefix(negation), "no" if negation else "yes"


def _number(file: Path) -> int | None:
    """Return the number of a picture: the digits that its name begins with, as in the copy "5 (1).png"."""
    return read_whole(file.stem.split(" ")[0])
